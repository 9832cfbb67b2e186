"""The hook that `compat` builds on: a filter that sees each record as the client gives it."""

import json
from typing import Any

from retriable_kafka_client.wire import headers as wire
from tests.shell.lab import Lab, Log, as_json
from tests.support.waiting import wait_until


def test_it_sees_each_record_before_anything_else(lab: Lab) -> None:
    entry, runs, seen = lab.entry(), Log(), Log()

    def keep(raw: Any) -> bool:
        seen.add((raw.topic(), raw.offset(), raw.value(), tuple(raw.headers() or ())))
        if raw.value() == as_json("raises"):
            raise RuntimeError
        return bool(raw.value() != as_json("no"))

    values = [b"1", as_json("no"), b"2", as_json("raises"), b"3"]
    lab.fill(entry, values, partition=0)
    # Neither the header nor the body could be read, and nobody tries to.
    lab.send(entry, as_json("no"), headers=[(wire.ATTEMPT, b"malformed")], partition=0)
    lab.send(entry, as_json("no"), headers=[("own", b"v")], partition=0)
    consumer = lab.start(
        entry, lambda m: runs.add(m.value), raw_filter=keep, filter=lambda m: json.loads(m.body or b"") != 2
    )
    lab.caught_up(entry)
    assert sorted(runs) == [1, 3]
    assert [value for _, _, value, _ in seen] == [*values, as_json("no"), as_json("no")]
    assert seen.items[-1] == (entry.name, 6, as_json("no"), (("own", b"v"),))

    def counts() -> tuple[int, int, int]:
        stats = consumer.stats()
        return stats.filtered, stats.handled, stats.dead_lettered

    wait_until(lambda: counts() == (5, 2, 0), what=repr(counts()))


def test_it_sees_retry_copies_too(lab: Lab) -> None:
    entry, seen, runs = lab.entry(max_attempts=3), Log(), Log()

    def keep(raw: Any) -> bool:
        seen.add(raw.topic())
        return len(seen) < 3

    def fail(m: Any) -> None:
        runs.add(m.attempt)
        raise ValueError

    lab.send(entry, b"1")
    consumer = lab.start(entry, fail, raw_filter=keep)
    lab.caught_up(entry)
    seen.wait(3)
    lab.caught_up(entry)
    assert entry.retry is not None
    assert list(seen) == [entry.name, entry.retry.topic, entry.retry.topic]
    assert list(runs) == [1, 2]
    wait_until(lambda: consumer.stats().filtered == 1)
