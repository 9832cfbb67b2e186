"""The judge finds what is planted: each violation by its name, and none where there is none."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from retriable_kafka_client.core.offset_map import OffsetMap
from tests.campaign.commits import CommitLog, Committed, read_commit
from tests.campaign.evidence import End, Follower, Run, Spot, ends_of, runs_of
from tests.campaign.judge import Kill, Outage, judge, judge_times
from tests.campaign.memory import Memory
from tests.support.evidence import EvidenceWriter

KILLED, HEIR = 11, 12


def run(
    id: int, began: float, *, pid: int = HEIR, attempt: int = 1, failed: bool = False, **more: object
) -> Run:
    made = Run(
        id=id,
        attempt=attempt,
        spot=Spot("orders", 0, id),
        pid=pid,
        began=began,
        ended=began + 0.5,
        failed=failed,
    )
    return replace(made, **more)  # type: ignore[arg-type]


def commit(position: int, at: float, done: OffsetMap | None = None) -> Committed:
    return Committed(topic="orders", partition=0, at=at, position=position, map=done)


# Ids 0..4 run by a process that is killed at 10.0; the last commit before, at 9.0, says that 0, 1 and 3 are done.
# 2 was at work, 4 done after the commit; both run again.
LOG = CommitLog([commit(1, 8.0), commit(2, 9.0, OffsetMap(2, ((2, 3),), 4)), commit(5, 20.0)])
FIRST = [run(one, 5.0 + one / 2, pid=KILLED) for one in (0, 1, 3)]
FIRST += [run(2, 6.0, pid=KILLED, ended=None), run(4, 9.3, pid=KILLED)]
AGAIN = [run(2, 16.0), run(4, 16.0)]
KILLS = [Kill(KILLED, 10.0)]


def test_a_kill_explains_what_no_commit_held() -> None:
    verdict = judge(range(5), FIRST + AGAIN, LOG, kills=KILLS)
    assert verdict.complaints == []
    assert (verdict.handled, verdict.runs, verdict.doubles, verdict.finished_doubles) == (5, 7, 2, 1)


@pytest.mark.parametrize(
    ("runs", "log", "kills", "complaint"),
    [
        pytest.param(FIRST + AGAIN[:1], LOG, KILLS[:0], "doubles without a reason", id="no-kill"),
        pytest.param([one for one in FIRST if one.id != 3] + AGAIN, LOG, KILLS, "never handled", id="lost"),
        pytest.param(FIRST + AGAIN[1:], LOG, KILLS, "never handled", id="cut-off-and-not-run-again"),
        pytest.param([*FIRST, *AGAIN, run(7, 17.0)], LOG, KILLS, "never sent", id="invented"),
        pytest.param(
            [*FIRST, *AGAIN, run(3, 16.0)], LOG, KILLS, "committed as done at 9.000", id="in-the-map"
        ),
        pytest.param(
            [*FIRST, *AGAIN, run(0, 16.0)], LOG, KILLS, "committed as done at 8.000", id="below-the-position"
        ),
        pytest.param(
            [*FIRST, *AGAIN, run(4, 17.0)],
            LOG,
            KILLS,
            "nothing cut the first one off",
            id="twice-by-the-heir",
        ),
        pytest.param(
            [*FIRST, AGAIN[0], run(4, 9.6)], LOG, KILLS, "nothing cut the first one off", id="before-the-kill"
        ),
        pytest.param(
            FIRST + AGAIN, LOG, [Kill(99, 10.0)], "nothing cut the first one off", id="another-one-killed"
        ),
        pytest.param(
            [*FIRST, AGAIN[0], run(4, 16.0, pid=KILLED)],
            LOG,
            KILLS,
            "nothing cut the first one off",
            id="by-the-killed-one",
        ),
        pytest.param(
            FIRST + AGAIN,
            CommitLog([*LOG.commits, commit(3, 21.0)]),
            KILLS,
            "commit positions fell",
            id="position-falls",
        ),
        pytest.param(
            FIRST + AGAIN,
            CommitLog([commit(3, 9.0), *LOG.commits[2:]]),
            KILLS,
            "committed before they were done",
            id="position-too-far",
        ),
        pytest.param(
            FIRST + AGAIN,
            CommitLog([*LOG.commits[:1], commit(2, 9.0, OffsetMap(2, (), 4)), *LOG.commits[2:]]),
            KILLS,
            "committed before they were done",
            id="map-too-generous",
        ),
    ],
)
def test_a_planted_violation_is_found(
    runs: list[Run], log: CommitLog, kills: list[Kill], complaint: str
) -> None:
    verdict = judge(range(5), runs, log, kills=kills)
    assert any(complaint in one for one in verdict.complaints), verdict.complaints


def test_an_outage_explains_a_double_of_an_assignment_that_ended_because_of_it() -> None:
    runs = [run(0, 5.0, pid=KILLED), run(0, 50.0)]
    log = CommitLog([commit(1, 60.0)])
    lost = End(pid=KILLED, topic="orders", partition=0, reason="lost", at=45.0)
    outages = [Outage(4.0, 44.0)]
    assert judge([0], runs, log, outages=outages, ends=[lost]).complaints == []
    for ends in (
        [],
        [replace(lost, partition=1)],
        [replace(lost, pid=HEIR)],
        [replace(lost, at=4.5)],  # before the run
        [replace(lost, at=300.0)],  # long after the outage
    ):
        assert judge([0], runs, log, outages=outages, ends=ends).complaints != []
    assert judge([0], runs, log, ends=[lost]).complaints != []
    known = CommitLog([commit(1, 6.0)])
    assert judge([0], runs, known, outages=outages, ends=[lost]).complaints != []


def test_more_copies_than_failures_are_found() -> None:
    copies = [run(0, 7.0 + n, attempt=2, spot=Spot("retries", 0, n)) for n in range(2)]
    log = CommitLog([])
    failed = run(0, 5.0, failed=True)
    assert judge([0], [failed, copies[0]], log).complaints == []
    assert judge([0], [failed, *copies], log).complaints != []


def test_a_message_that_only_failed_is_not_handled() -> None:
    assert judge([0], [run(0, 5.0, failed=True)], CommitLog([])).complaints != []


DUE = {0: 10.0, 1: 20.0, 2: 28.5, 3: 500.0}


def times(runs: list[Run], excused: list[Outage] | None = None) -> list[str]:
    return judge_times(DUE, runs, until=30.0, within=2.0, excused=excused or []).complaints


def test_times_are_judged() -> None:
    good = [run(0, 10.0), run(1, 21.9)]
    found = judge_times(DUE, good, until=30.0, within=2.0)
    assert (found.complaints, found.due, found.ran, round(found.worst, 1)) == ([], 2, 2, 1.9)
    assert "ran early" in times([run(0, 9.999), good[1]])[0]
    assert "ran early" in times([*good, run(3, 25.0)])[0]
    assert "ran late" in times([good[0], run(1, 22.1)])[0]
    assert "did not run" in times(good[:1])[0]
    assert times([good[0], run(1, 26.5)], [Outage(19.0, 25.0)]) == []
    assert times([good[0], run(1, 27.5)], [Outage(19.0, 25.0)]) != []


def test_a_line_taken_from_the_evidence_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "evidence"
    with EvidenceWriter(path) as evidence:
        for n in range(2):
            evidence.write("start", n=n, i=n, a=1, t="orders", p=0, o=n, due=0)
            evidence.write("done", n=n)
        evidence.write("AssignmentEnded", topic="orders", partition=0, reason="lost", unfinished=0)
    follower = Follower(path)
    assert follower.count("done") == 2 and len(follower.of("start", i=1)) == 1
    assert [end.reason for end in ends_of(follower.events)] == ["lost"]
    assert judge(range(2), runs_of(follower.events), CommitLog([])).complaints == []
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[4:]))
    cut = Follower(path)
    assert cut.count("done") == 1
    assert "1 ids were never handled: 1" in judge(range(2), runs_of(cut.events), CommitLog([])).complaints
    path.write_bytes(b"".join(lines[1:]))
    headless = Follower(path)
    headless.follow()
    with pytest.raises(ValueError, match="never began"):
        runs_of(headless.events)


def test_a_line_that_is_being_written_is_read_later(tmp_path: Path) -> None:
    path = tmp_path / "evidence"
    follower = Follower(path)
    assert follower.count("done") == 0
    path.write_bytes(b'{"event": "done"}\n{"event": "do')
    assert follower.count("done") == 1
    with path.open("ab") as file:
        file.write(b'ne"}\n')
    assert follower.count("done") == 2


def test_the_brokers_own_records_of_commits_are_read() -> None:
    key = struct.pack(">h", 1) + b"\0\2gg" + b"\0\1t" + struct.pack(">i", 3)
    text = "m" * 200
    flexible = b"\xca\x01"  # 202 as a variable-length number: the text, a NUL, and one more as Kafka counts
    old = struct.pack(">hqi", 3, 7, -1) + struct.pack(">h", 200) + text.encode() + bytes(8)
    new = struct.pack(">hqi", 4, 7, -1) + flexible + text.encode() + bytes(1) + bytes(9)
    for value in (old, new):
        assert read_commit(key, value) == ("gg", "t", 3, 7, text)
    assert read_commit(key, None) is None
    assert read_commit(struct.pack(">h", 2) + b"\0\2gg", old) is None


def test_memory_that_grows_shows() -> None:
    memory = Memory(1)
    memory.samples = [50.0] * 5 + [100.0] * 15
    assert (memory.growth(), memory.peak) == (0.0, 100.0)
    memory.samples = [float(n) for n in range(40)]
    assert memory.growth() == 20.0
