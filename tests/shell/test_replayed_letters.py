"""A dead letter that a tool sent back, its headers changed as tools change them, runs."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from retriable_kafka_client import Message, Retry, Topic
from tests.shell.lab import Lab, Log, as_json
from tests.support.waiting import wait_until

Spell = Callable[[bytes], bytes | None]

SPELLINGS: dict[str, Spell] = {
    "as it is": lambda value: value,
    "UTF-8 with replacements": lambda value: value.decode("utf-8", "replace").encode(),
    "ASCII with replacements": lambda value: value.decode("ascii", "replace").encode("ascii", "replace"),
    "Latin-1": lambda value: value.decode("latin-1").encode(),
    "JSON": lambda value: json.dumps(value.decode("latin-1")).encode(),
    "JSON, slashes escaped": lambda value: json.dumps(value.decode("latin-1")).replace("/", "\\/").encode(),
    "Python": lambda value: str(value).encode(),
    "base64": base64.b64encode,
    "surrogates left out": lambda value: value.decode("utf-8", "surrogateescape").encode("utf-8", "ignore"),
    "cut at the first NUL": lambda value: value.split(b"\0")[0],
}
# What makes nothing readable of a group's or a topic's name is for the base topic alone: there neither decides.
BASE_ONLY: dict[str, Spell] = {
    "null": lambda _value: None,
    "empty": lambda _value: b"",
    "bits turned": lambda value: bytes(255 - one for one in value),
}


@pytest.mark.parametrize("entries", [1, 2])
def test_a_dead_letter_that_a_tool_sent_back_runs(lab: Lab, entries: int) -> None:
    retry, dead = lab.topic("retry"), lab.topic("dead", 1)
    topics = [
        Topic(lab.topic(f"orders-{number}"), retry=Retry(retry, max_attempts=2, delay=0.05), dead_letter=dead)
        for number in range(entries)
    ]
    broken, runs = [True], Log()

    def handler(message: Message[Any]) -> None:
        if broken[0]:
            raise ValueError
        assert all(name == "case" for name, _ in message.headers)
        runs.add((message.headers[0][1], message.topic, message.attempt, message.value, bool(message.id)))

    consumer = lab.start(topics, handler)
    lab.send(topics[-1], as_json({"n": 1}), headers=[("case", b"first")])
    (letter,) = lab.dead(topics[-1])
    broken[0] = False
    sent = 0
    for target, spellings in ((retry, SPELLINGS), (topics[-1].name, {**SPELLINGS, **BASE_ONLY})):
        for name, spell in spellings.items():
            headers = [
                (header, b"%d %s" % (sent, name.encode()) if header == "case" else spell(value or b""))
                for header, value in letter.headers
            ]
            # Some tools add to what is there rather than change it.
            for pairs in (headers, [*headers, *(pair for pair in letter.headers if pair[0] != "case")]):
                decides_twice = pairs is not headers and target == retry
                if not decides_twice:
                    lab.send(target, letter.value, headers=pairs)
                    sent += 1
    wait_until(lambda: len(runs) >= sent or consumer.stats().dead_lettered > 1, what="all have run")
    assert consumer.stats().dead_lettered == 1 and consumer.stats().foreign == 0
    assert len({case for case, *_ in runs}) == len(set(SPELLINGS)) + len({*SPELLINGS, *BASE_ONLY})
    for case, topic, attempt, value, has_id in runs:
        assert (attempt, value, has_id) == (1, {"n": 1}, True)
        assert topic in {one.name for one in topics}, case
