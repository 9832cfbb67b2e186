"""Order by key and by partition on real Kafka: with failures, dead letters, and members that come and go."""

import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from retriable_kafka_client import Consumer, Message, ProcessExecutor, Reject, Topic
from retriable_kafka_client import events as ev
from tests.campaign.sizes import FULL, pick
from tests.shell.handlers import in_its_time
from tests.shell.lab import Lab, Log, settings_of
from tests.support.evidence import EvidenceWriter, read_evidence
from tests.support.waiting import wait_until

MAX_ATTEMPTS = 3
ALWAYS = 99  # failures, of a message that never succeeds

Begin = tuple[str, str, int, int]  # "begin", lane, number, attempt
End = tuple[str, str, int, str]  # "end", lane, number, what came of it


def plan(total: int, lanes: Sequence[str], seed: int = 4) -> list[dict[str, Any]]:
    """Messages of these lanes, mixed; some of them fail, once, twice or always."""
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    made = []
    for _ in range(total):
        lane = chance.choice(lanes)
        fails = chance.choices((0, 1, 2, ALWAYS, -1), (0.94, 0.04, 0.01, 0.004, 0.006))[0]
        made.append({"lane": lane, "n": counts[lane], "fails": fails})
        counts[lane] += 1
    return made


def follow(log: Log, work: float = 0.0) -> Callable[[Message[Any]], None]:
    """A handler that does what the plan says, and notes when it begins and ends; `work` seconds lie between."""

    def handler(m: Message[Any]) -> None:
        order = m.value
        lane, n, fails = order["lane"], order["n"], order["fails"]
        log.add(("begin", lane, n, m.attempt))
        came = "done"
        time.sleep(work)
        try:
            if fails < 0:
                came = "settled"
                raise Reject("not wanted")
            if fails >= m.attempt:
                came = "settled" if m.attempt == MAX_ATTEMPTS else "failed"
                raise ValueError
        finally:
            log.add(("end", lane, n, came))

    return handler


def judge(log: Log, messages: Sequence[dict[str, Any]]) -> None:
    """Each lane: one at a time, in order, nothing before all earlier ones were done or given up, each ends once."""
    wanted: Counter[str] = Counter(one["lane"] for one in messages)
    running: dict[str, int] = {}
    settled: Counter[str] = Counter()
    for what, lane, n, more in log:
        if what == "begin":
            assert lane not in running, f"{lane}: {n} begins while {running[lane]} runs"
            assert settled[lane] == n, f"{lane}: {n} begins when {settled[lane]} is the next"
            running[lane] = n
        else:
            assert running.pop(lane) == n
            settled[lane] += more != "failed"
    assert not running
    assert settled == wanted


def ended(log: Log) -> int:
    return sum(1 for one in log if one[0] == "end" and one[3] != "failed")


@pytest.mark.parametrize("protocol", ["cooperative", "range", "consumer"] if not FULL else ["cooperative"])
def test_keys_keep_their_order_through_failures_and_rebalances(real_lab: Lab, protocol: str) -> None:
    lab, log = real_lab, Log()
    total, keys = pick(5_000, 100_000), pick(100, 1_000)
    messages = plan(total, [f"k{i}" for i in range(keys)])
    entry = lab.entry(in_place=True, partitions=6, max_attempts=MAX_ATTEMPTS, delay=[0.05, 0.2])
    lab.fill(
        entry, [json.dumps(one).encode() for one in messages], keys=[one["lane"].encode() for one in messages]
    )
    members: list[Consumer] = []
    limit = pick(60.0, 300.0)

    def settled() -> int:
        return sum(one.stats().handled + one.stats().dead_lettered for one in members)

    def reach(share: float) -> None:
        wait_until(lambda: settled() >= share * total, limit, repr([one.stats() for one in members]))

    def join() -> None:
        member = lab.start(
            entry,
            follow(log, work=pick(0.01, 0.004)),
            executor=pick(4, 16),
            ordering="key",
            settings=settings_of(protocol),
        )
        members.append(member)
        wait_until(lambda: member.stats().handled, limit, repr(member.stats()))

    join()
    reach(0.05)
    join()
    join()
    members[0].stop()
    assert members[0].join(60)
    reach(0.6)
    join()
    reach(1.0)
    lab.caught_up(entry)
    for member in members[1:]:
        member.stop()
        assert member.join(60)

    judge(log, messages)
    assert not lab.events.of(ev.DrainOverrun)
    failing = [one for one in messages if not 0 <= one["fails"] < MAX_ATTEMPTS]
    letters = [json.loads(one.value or b"") for one in lab.dead(entry, len(failing))]
    assert sorted(map(repr, letters)) == sorted(map(repr, failing))
    assert sum(member.stats().handled for member in members) == total - len(failing)


def test_other_keys_never_wait_for_one(real_lab: Lab) -> None:
    """One key of ten hangs in its handler, another waits for a late retry: the others are handled to their ends."""
    lab, log, gate = real_lab, Log(), threading.Event()
    entry = lab.entry(in_place=True, partitions=1, max_attempts=2, delay=600.0)
    messages = [(f"k{i % 10}", i // 10) for i in range(500)]
    lab.fill(
        entry, [json.dumps(one).encode() for one in messages], keys=[lane.encode() for lane, _ in messages]
    )

    def handler(m: Message[Any]) -> None:
        lane, n = m.value
        log.add((lane, n))
        if lane == "k3" and n == 0:
            gate.wait(60)
        if lane == "k7":
            raise ValueError

    try:
        consumer = lab.start(entry, handler, ordering="key")
        free = wait_until(lambda: [one for one in log if one[0] not in {"k3", "k7"}][399:] and log.items)
        wait_until(lambda: consumer.stats().handled == 400, what=repr(consumer.stats()))
        assert [one for one in log if one[0] == "k3"] == [("k3", 0)]
        assert [one for one in log if one[0] == "k7"] == [("k7", 0)]
        (partition,) = consumer.stats().partitions.values()
        assert (partition.behind, partition.waiting, partition.in_flight) == (98, 1, 1)
    finally:
        gate.set()
    wait_until(lambda: consumer.stats().handled == 450, what=repr(consumer.stats()))
    lanes = defaultdict(list)
    for lane, n in log:
        lanes[lane].append(n)
    assert len(free) >= 400 and lanes.pop("k7") == [0]
    assert all(numbers == list(range(50)) for numbers in lanes.values())


@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
def test_partitions_keep_their_order_through_failures_and_a_rebalance(real_lab: Lab, protocol: str) -> None:
    lab, log = real_lab, Log()
    entry = lab.entry(in_place=True, partitions=4, max_attempts=MAX_ATTEMPTS, delay=0.05)
    messages = plan(1_000, ["0", "1", "2", "3"])

    def fill(some: list[dict[str, Any]]) -> None:
        for lane in range(4):
            bodies = [json.dumps(one).encode() for one in some if one["lane"] == str(lane)]
            lab.fill(entry, bodies, partition=lane)

    fill(messages[:700])
    options: dict[str, Any] = {"ordering": "partition", "settings": settings_of(protocol)}
    first = lab.start(entry, follow(log, work=0.02), **options)
    wait_until(lambda: ended(log) >= 250)
    second = lab.start(entry, follow(log, work=0.02), **options)
    wait_until(lambda: second.stats().partitions, 60.0)
    fill(messages[700:])
    wait_until(
        lambda: ended(log) >= len(messages), 60.0, what=repr((first.stats(), second.stats())), every=0.1
    )
    lab.caught_up(entry)
    judge(log, messages)
    assert first.stats().handled and second.stats().handled


def test_a_retry_that_waits_moves_with_its_partition(real_lab: Lab) -> None:
    """The next owner begins with the message that waited, and only then goes on with its key."""
    lab, log = real_lab, Log()
    entry = lab.entry(in_place=True, partitions=1, max_attempts=MAX_ATTEMPTS, delay=600.0)
    lab.fill(entry, [b"0", b"1", b"2"], keys=[b"a", b"b", b"a"])

    def handler(member: str, fails: bool) -> Callable[[Message[Any]], None]:
        def handle(m: Message[Any]) -> None:
            log.add((member, int(m.value), m.attempt))
            if fails and m.value == 0:
                raise ValueError

        return handle

    first = lab.start(entry, handler("first", fails=True), ordering="key")
    wait_until(lambda: first.stats().handled == first.stats().retried == 1, what=repr(first.stats()))
    first.stop()
    assert first.join(10)
    lab.start(entry, handler("second", fails=False), ordering="key")
    lab.caught_up(entry)
    assert sorted(one for one in log if one[0] == "first") == [("first", 0, 1), ("first", 1, 1)]
    assert [one for one in log if one[0] == "second"] == [("second", 0, 1), ("second", 2, 1)]


def test_a_key_waits_for_a_thread_that_ran_out_of_its_time(real_lab: Lab) -> None:
    lab, log, gate = real_lab, Log(), threading.Event()
    entry = lab.entry(in_place=True, partitions=1, max_attempts=2, delay=0.0)
    lab.fill(entry, [b"0", b"1", b"2"], keys=[b"a", b"a", b"b"])

    def handler(m: Message[Any]) -> None:
        log.add((m.value, m.attempt))
        if m.value == 0 and m.attempt == 1:
            gate.wait(60)

    try:
        consumer = lab.start(entry, handler, ordering="key", timeout=0.3)
        wait_until(
            lambda: consumer.stats().failed == consumer.stats().handled == 1, what=repr(consumer.stats())
        )
        lab.send(entry, b"3", key=b"b")
        wait_until(lambda: consumer.stats().handled == 2, what=repr(consumer.stats()))
        assert sorted(log) == [(0, 1), (2, 1), (3, 1)]
    finally:
        gate.set()
    lab.caught_up(entry)
    assert [one for one in log if one[0] < 2] == [(0, 1), (0, 2), (1, 1)]


def test_messages_without_a_key_know_no_order(real_lab: Lab) -> None:
    lab, log, gate = real_lab, Log(), threading.Event()
    entry = lab.entry(retry=False, partitions=1)
    lab.fill(entry, [b"%d" % i for i in range(50)])

    def handler(m: Message[Any]) -> None:
        log.add(m.value)
        if m.value == 0:
            gate.wait(60)

    try:
        consumer = lab.start(entry, handler, ordering="key")
        wait_until(lambda: consumer.stats().handled == 49, what=repr(consumer.stats()))
    finally:
        gate.set()
    lab.caught_up(entry)
    assert sorted(log) == list(range(50))


def test_processes_keep_the_order_of_keys(real_lab: Lab, tmp_path: Any) -> None:
    lab = real_lab
    entry: Topic = lab.entry(in_place=True, partitions=2, max_attempts=MAX_ATTEMPTS, delay=0.05)
    messages = [(f"k{i % 5}", i // 5) for i in range(300)]
    lab.fill(
        entry, [json.dumps(one).encode() for one in messages], keys=[lane.encode() for lane, _ in messages]
    )
    path = tmp_path / "evidence"
    with ProcessExecutor(2) as pool:
        handler = partial(in_its_time, EvidenceWriter(path))
        consumer = lab.start(entry, handler, executor=pool, ordering="key")
        wait_until(lambda: consumer.stats().handled == 300, 60.0, what=repr(consumer.stats()))
        consumer.stop()
        assert consumer.join(30)
    lanes = defaultdict(list)
    for one in read_evidence(path):
        lanes[one["lane"]].append((one["event"], one["n"]))
    for lane in lanes:
        wanted = []
        for n in range(60):
            wanted += [("begin", n), ("failed", n)] * (n % 10 == 4) + [("begin", n), ("done", n)]
        assert lanes[lane] == wanted, lane
