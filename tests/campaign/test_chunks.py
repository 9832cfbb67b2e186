"""Large messages in chunks, side by side, with failures, retries, a kill and a rebalance."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.campaign.memory import Memory
from tests.campaign.sizes import pick
from tests.shell.chunk_records import Split, interleaved, produce_chunks
from tests.support.evidence import read_evidence
from tests.support.names import Topics
from tests.support.processes import Program
from tests.support.records import group_lag
from tests.support.waiting import wait_until

MIB = 1 << 20
CHUNK = 900_000


def message(number: int, size: int) -> Split:
    # Cheap to make, and of no two chunks alike.
    body = random.Random(number).randbytes(size)
    return Split(body, CHUNK, b"%d" % number, (("number", b"%d" % number),))


def test_large_messages_side_by_side(topics: Topics, tmp_path: Path, report: Callable[..., None]) -> None:
    count, largest, buffer, beside = pick((40, 4_000_000, 16 * MIB, 10), (300, 20_000_000, 64 * MIB, 12))
    servers = topics.kafka.bootstrap_servers
    topic, retry, dead = topics("large", 3), topics("large-retry", 3), topics("large-dead", 1)
    evidence = tmp_path / "evidence.jsonl"
    told = {
        "servers": servers, "group": topics.group, "topic": topic, "retry": retry, "dead": dead,
        "evidence": str(evidence), "buffer": buffer, "message": max(largest, buffer // 2),
    }  # fmt: skip

    def start(name: str) -> Program:
        return Program("-m tests.campaign.chunk_worker", json.dumps(told), log=tmp_path / f"{name}.log")

    def done() -> int:
        return len({one["key"] for one in read_evidence(evidence) if one["event"] == "done"})

    sizes = random.Random(4)
    wanted: dict[str, tuple[str, int]] = {}
    peaks: list[float] = []
    with start("killed") as killed, start("first") as first:
        memories = {program: Memory(program.pid) for program in (killed, first)}

        def look() -> int:
            """How many are done, after a look at the memory."""
            for program, memory in memories.items():
                if program.poll() is None:
                    memory.sample()
            return done()

        for begin in range(0, count, beside):
            batch = [
                message(number, sizes.randrange(100_000, largest))
                for number in range(begin, min(begin + beside, count))
            ]
            wanted |= {
                str(begin + index): (hashlib.sha256(one.body).hexdigest(), len(one.body))
                for index, one in enumerate(batch)
            }
            produce_chunks(servers, topic, interleaved(batch), partition=begin // beside % 3)
            if look() > 0 and killed.poll() is None:
                killed.kill9()
        if killed.poll() is None:
            wait_until(lambda: look() > 0, 60.0, "a message is done")
            killed.kill9()
        with start("second") as second:
            memories[second] = Memory(second.pid)
            wait_until(lambda: look() == count, 900.0, "all are done", every=0.2)
            wait_until(lambda: group_lag(servers, topics.group, topic) == 0, 60.0, "no lag", every=0.5)
            peaks = [memory.peak for program, memory in memories.items() if program is not killed]
            for program in (first, second):
                program.terminate()
                assert program.wait(60.0) == 0
    events = read_evidence(evidence)
    runs = [one for one in events if one["event"] == "run"]
    for one in runs:
        assert (one["digest"], one["size"]) == wanted[one["key"]], one
        assert one["headers"] == [["number", one["key"]]], one
    assert {one["key"] for one in runs} == wanted.keys()
    assert not [one for one in events if one["event"] == "told"]
    ids: dict[str, set[str]] = {}
    for one in runs:
        ids.setdefault(one["key"], set()).add(one["id"])
    assert all(len(of_one) == 1 for of_one in ids.values())
    doubles = sum(times - 1 for times in Counter((one["key"], one["attempt"]) for one in runs).values())
    ended = [one for one in events if one["event"] == "ended"]
    report(
        messages=count,
        mib=sum(size for _, size in wanted.values()) // MIB,
        runs=len(runs),
        doubles=doubles,
        recalled=sum(one["recalled"] for one in ended),
        peak_mib=max(peaks),
        buffer_mib=buffer // MIB,
    )
    # What is held, what the client has fetched, what it fetches again, copies on their way, one message being joined.
    assert max(peaks) < 4 * buffer / MIB + 2.2 * largest / MIB + 150


def test_one_message_costs_little_more_than_itself(
    topics: Topics, tmp_path: Path, report: Callable[..., None]
) -> None:
    """Its chunks and what they are joined to, beside what a consumer of small messages takes."""
    size, buffer = pick((24 * MIB, 64 * MIB), (56 * MIB, 64 * MIB))
    servers = topics.kafka.bootstrap_servers
    topic, retry, dead = topics("one", 1), topics("one-retry", 1), topics("one-dead", 1)
    evidence = tmp_path / "evidence.jsonl"
    told = {
        "servers": servers, "group": topics.group, "topic": topic, "retry": retry, "dead": dead,
        "evidence": str(evidence), "buffer": buffer, "message": buffer,
    }  # fmt: skip

    def runs() -> list[dict[str, Any]]:
        return [one for one in read_evidence(evidence) if one["event"] == "run"]

    with Program("-m tests.campaign.chunk_worker", json.dumps(told), log=tmp_path / "worker.log") as program:
        for number, body_size in ((1, 2_000_000), (2, size)):
            one = message(number, body_size)
            produce_chunks(servers, topic, [(one, index) for index in range(one.count)])
            wait_until(lambda: len(runs()) == number, 60.0, "it has run", every=0.05)  # noqa: B023
            assert runs()[-1]["digest"] == hashlib.sha256(one.body).hexdigest()
        program.terminate()
        assert program.wait(60.0) == 0
    small, large = runs()
    times = (large["peak"] - small["peak"]) / size
    report(mib=size // MIB, empty_mib=small["peak"] / MIB, peak_mib=large["peak"] / MIB, times=times)
    assert times <= 2.2


def test_two_messages_larger_than_what_is_put_together(
    topics: Topics, tmp_path: Path, report: Callable[..., None]
) -> None:
    """Side by side, 40 MiB each with 64 MiB in all."""
    size, buffer = pick((10 * MIB, 16 * MIB), (40 * MIB, 64 * MIB))
    servers = topics.kafka.bootstrap_servers
    topic, retry, dead = topics("two", 1), topics("two-retry", 1), topics("two-dead", 1)
    evidence = tmp_path / "evidence.jsonl"
    told = {
        "servers": servers, "group": topics.group, "topic": topic, "retry": retry, "dead": dead,
        "evidence": str(evidence), "buffer": buffer, "message": buffer,
    }  # fmt: skip
    both = [message(number, size) for number in (1, 2)]
    produce_chunks(servers, topic, interleaved(both))
    with Program("-m tests.campaign.chunk_worker", json.dumps(told), log=tmp_path / "worker.log") as program:
        memory = Memory(program.pid, every=0.05)

        def runs() -> list[str]:
            if program.poll() is None:
                memory.sample()
            return [one["digest"] for one in read_evidence(evidence) if one["event"] == "run"]

        wait_until(lambda: len(runs()) == 2, 300.0, "both have run", every=0.05)
        wait_until(lambda: group_lag(servers, topics.group, topic) == 0, 60.0, "no lag", every=0.5)
        program.terminate()
        assert program.wait(60.0) == 0
    assert set(runs()) == {hashlib.sha256(one.body).hexdigest() for one in both}
    (ended,) = [one for one in read_evidence(evidence) if one["event"] == "ended"]
    report(mib=size // MIB, buffer_mib=buffer // MIB, recalled=ended["recalled"], peak_mib=memory.peak)
    assert ended["recalled"] > 0
