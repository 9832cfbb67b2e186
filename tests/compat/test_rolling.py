"""Three members of 0.7.0 are replaced one by one by this library, and back, while messages, retries and chunks flow.

Judged from the topics, the evidence of the targets, and the members' logs: whatever was sent is done, or a line of a
0.7.0 member's log names the record in which it was lost.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from retriable_kafka_client.wire import headers as wire
from tests.compat.old import caught_up
from tests.compat.programs import events, start
from tests.shell.lab import Lab
from tests.support.processes import GuardedProcess
from tests.support.records import Read
from tests.support.waiting import wait_until

SETTINGS = {"fetch.wait.max.ms": 50, "session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
LOST = re.compile(r"topic: (?P<topic>\S+), offsets: (?P<offsets>[\d, ]+)")


def done(folder: Path, member: str = "") -> set[int]:
    return {one["i"] for one in events(folder, "done") if not member or one["member"] == member}


class Fleet:
    """Members of one group, by name."""

    def __init__(self, folder: Path, told: dict[str, Any], published: Path) -> None:
        self._folder = folder
        self._told = told
        self._published = published
        self._members: dict[str, GuardedProcess] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def start(self, name: str) -> None:
        """Names that begin with "old" run 0.7.0."""
        published = self._published if name.startswith("old") else None
        member = start(self._folder, name, published=published, role="consume", **self._told)
        self._members[name] = self._stack.enter_context(member)

    def stop(self, name: str) -> None:
        member = self._members[name]
        wait_until(lambda: any(one["member"] == name for one in events(self._folder, "starts")), 60)
        member.terminate()
        assert member.wait(60) == 0, f"{name}: {member.log.read_text()[-2000:]}"

    def works(self, name: str, count: int = 40) -> None:
        """Wait until a member has done its share."""
        wait_until(lambda: len(done(self._folder, name)) >= count, 90, f"{name} does {count}")

    def replace(self, old: str, new: str) -> None:
        self.stop(old)
        self.start(new)
        self.works(new)


def messages(records: list[Read]) -> dict[int, list[list[Read]]]:
    """The copies of each message by its number, each as its records in order."""
    groups: dict[object, list[Read]] = defaultdict(list)
    for one in records:
        headers: Mapping[str, bytes | None] = dict(one.headers)
        groups[headers.get(wire.CHUNK_GROUP) or (one.partition, one.offset)].append(one)
    found: dict[int, list[list[Read]]] = defaultdict(list)
    for copy in groups.values():
        copy.sort(key=lambda one: dict(one.headers).get(wire.CHUNK_INDEX) or b"")
        number = re.match(rb'\{"i": (\d+)', copy[0].value or b"")
        if number is not None:
            found[int(number[1])].append(copy)
    return found


def lost_by_0_7_0(folder: Path) -> set[tuple[str, int]]:
    """The records that its members say they lost."""
    lost = set()
    for log in folder.glob("old-*.log"):
        for line in LOST.finditer(log.read_text(errors="replace")):
            lost |= {(line["topic"], int(one)) for one in re.findall(r"\d+", line["offsets"])}
    return lost


@pytest.mark.parametrize("large", [0, 1_500_000])
def test_a_fleet_is_upgraded_and_back_under_load(
    real_lab: Lab, tmp_path: Path, published_python: Path, large: int
) -> None:
    lab = real_lab
    base, retry = lab.topic("base", 6), lab.topic("retry", 6)
    connection = {"servers": lab.servers, "settings": SETTINGS}
    entry = {"base": base, "retry": retry, "retries": 50, "delay": 1.0}
    told = {**connection, "group": lab.group, "topics": [entry], "chunk_wait": 20 if large else 900}
    load: dict[str, Any] = {
        "role": "produce",
        "to": [base],
        "split": True,
        "count": 1_000_000,
        "step": 2,
        "every": 0.03,
        "large_each": 10 if large else 0,
        "large": large,
        "fields": {"fail": 0.1},
        **connection,
    }
    with Fleet(tmp_path, told, published_python) as fleet, ExitStack() as stack:
        for one in (1, 2, 3):
            fleet.start(f"old-{one}")
        senders = [
            stack.enter_context(start(tmp_path, "sender-0.7.0", published=published_python, first=0, **load)),
            stack.enter_context(start(tmp_path, "sender-ours", first=1, **load)),
        ]
        for one in (1, 2, 3):
            fleet.works(f"old-{one}")
        for one in (1, 2, 3):
            fleet.replace(f"old-{one}", f"new-{one}")
        for one in (1, 2, 3):
            fleet.replace(f"new-{one}", f"old-{one}-again")
        for sender in senders:
            sender.terminate()
            assert sender.wait(60) == 0, sender.log.read_text()
        # 0.7.0 commits with the next message only; what it leaves is for whoever comes after it.
        for one in (1, 2, 3):
            fleet.stop(f"old-{one}-again")
        fleet.start("last")
        caught_up(lab, base, retry, timeout=120)
        fleet.stop("last")
    sent = {one["i"] for one in events(tmp_path, "sent")}
    missing = sent - done(tmp_path)
    said = lost_by_0_7_0(tmp_path)
    copies = messages(lab.read(base) + lab.read(retry)) if missing else {}
    unexplained = {
        i: [[(one.topic, one.partition, one.offset) for one in copy] for copy in copies[i]]
        for i in missing
        if not any((one.topic, one.offset) in said for copy in copies[i] for one in copy)
    }
    print(json.dumps({"sent": len(sent), "missing": len(missing), "runs": len(events(tmp_path, "ran"))}))
    assert not unexplained
    assert len(sent) > 500
