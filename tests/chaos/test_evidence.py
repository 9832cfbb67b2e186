"""What processes write becomes facts, and orders are the same for everybody."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from tests.campaign.evidence import Spot
from tests.chaos.evidence import Files, read_files
from tests.chaos.facts import End, Facts, Fault
from tests.chaos.orders import MAX_ATTEMPTS, TOPICS, Kind, body_of, headers_of, key_of, order_of, stamp
from tests.support.evidence import EvidenceWriter

PLACE = {"m": 1, "topic": "orders", "partition": 3}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    files = Files(tmp_path)
    with EvidenceWriter(files.sent) as sent:
        sent.write("sent", first=0, stamps=["a", "b"])
        sent.write("sent", first=2, stamps=["c"])
        sent.write("answers", acked=[[0, 3, 17], [2, -1, -1]], unknown=[[1, "_MSG_TIMED_OUT"]])
    with EvidenceWriter(files.runs) as runs:
        runs.write("start", m=1, n=0, i=0, a=1, t="orders", p=3, o=17, s="a")
        runs.write("start", m=1, n=1, i=2, a=2, t="retries", p=0, o=5, s="c")
        runs.write("failed", m=1, n=0)
        runs.write("skip", i=1)
    with EvidenceWriter(files.told) as told:
        told.write("member", m=1, executor="processes")
        told.write("AssignmentStarted", **PLACE, position=7, restored=0)
        told.write("Committed", **PLACE, position=9, map_units=0)
        told.write("WorkerDied", **PLACE, offset=17, attempt=1)
        told.write("CommitFailed", **PLACE, code="_TIMED_OUT")
        told.write("DrainOverrun", **PLACE, running=2)
        told.write("AssignmentEnded", **PLACE, reason="revoked", unfinished=2)
        told.write("AssignmentStarted", **PLACE, position=9, restored=0)
        told.write("memory", m=1, kind="processes", mib=40.5)
        told.write("fault", kind="pause-long", began=1.0, ended=9.0, member=1)
        told.write("asked", m=1)
        told.write("ended", m=1, code=0, orphans=1, at=50.0)
    return files


def read(files: Files) -> Facts:
    return read_files(files, "at_least_once", 1, End(healed=0.0))


def test_lines_become_facts(files: Files) -> None:
    facts = read(files)
    assert {n: (one.acked, one.spot, one.stamp) for n, one in facts.sent.items()} == {
        0: (True, Spot(order_of(1, 0).topic, 3, 17), "a"),
        1: (False, None, "b"),
        2: (True, None, "c"),
    }
    failed, cut_off = facts.runs
    assert (failed.id, failed.attempt, failed.spot, failed.end) == (0, 1, Spot("orders", 3, 17), "failed")
    assert failed.ended is not None and failed.name[0] == 1 and failed.name[2] == 0
    assert (cut_off.id, cut_off.ended, cut_off.end) == (2, None, "")
    assert facts.skipped.keys() == {1}
    first, second = facts.tenures
    assert (first.position, first.reason, first.overrun, first.silent) == (7, "revoked", 2, True)
    assert (second.position, second.ended, second.overrun, second.silent) == (9, None, 0, False)
    assert [(ack.place, ack.position) for ack in facts.acks] == [(("orders", 3), 9)]
    assert [(death.spot, death.attempt) for death in facts.deaths] == [(Spot("orders", 3, 17), 1)]
    member = facts.members[1]
    assert (member.executor, member.code, member.orphans, member.ended) == ("processes", 0, 1, 50.0)
    assert member.asked is not None and member.killed is None
    assert facts.faults == [Fault("pause-long", 1.0, 9.0, member=1)]
    assert [(sample.kind, sample.mib) for sample in facts.samples] == [("processes", 40.5)]


def test_a_line_that_is_missing_is_missed(files: Files) -> None:
    lines = files.runs.read_bytes().splitlines(keepends=True)
    files.runs.write_bytes(b"".join(lines[1:]))
    with pytest.raises(ValueError, match="never began"):
        read(files)


def test_orders_are_the_same_for_everybody_and_of_every_kind() -> None:
    orders = [order_of(7, number) for number in range(20_000)]
    assert orders == [order_of(7, number) for number in range(20_000)]
    assert orders != [order_of(8, number) for number in range(20_000)]
    assert {order.kind for order in orders} == set(Kind)
    assert {order.topic for order in orders} == set(TOPICS)
    assert {order.fails for order in orders} == set(range(MAX_ATTEMPTS + 1))
    assert max(order.delay for order in orders) <= 10.0
    kinds = Counter(order.kind for order in orders)
    assert kinds[Kind.PLAIN] > 19_000


def test_a_stamp_tells_of_any_difference() -> None:
    order = order_of(7, 1)
    body, key, headers = body_of(7, order), key_of(order), headers_of(order)
    assert body == body_of(7, order)
    known = stamp(body, key, headers)
    assert known == stamp(bytes(body), bytes(key), tuple(headers))
    assert (
        len({known, stamp(body + b" ", key, headers), stamp(body, None, headers), stamp(body, key, ())}) == 4
    )
    assert order.kind is Kind.POISON or msgspec.json.decode(body)["id"] == 1
