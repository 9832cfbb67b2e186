"""Files and topics of a chaos run, read into facts."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from retriable_kafka_client.wire import headers as wire
from tests.campaign.commits import commits_of
from tests.campaign.evidence import Spot
from tests.chaos.facts import (
    Ack,
    Death,
    End,
    Facts,
    Fault,
    Letter,
    Member,
    Output,
    Run,
    Sample,
    Sent,
    Stored,
    Tenure,
)
from tests.chaos.orders import TOPICS, order_of, stamp
from tests.chaos.worker import GROUP
from tests.support.kafka import Kafka
from tests.support.records import Read, each_record

__all__ = ["Files", "gather", "read_files"]

SILENT = 30.0  # s before the end of an assignment in which a failed commit counts as one without an answer


class Files:
    """Where the processes of one run write."""

    def __init__(self, folder: Path) -> None:
        self.sent = folder / "sent.jsonl"
        self.runs = folder / "runs.jsonl"
        self.told = folder / "told.jsonl"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            yield msgspec.json.decode(line)


def gather(files: Files, kafka: Kafka, guarantee: str, seed: int, end: End) -> Facts:
    """All that is known of the run."""
    facts = read_files(files, guarantee, seed, end)
    for topic in TOPICS:
        _read_stored(facts, kafka, topic)
    _read_letters(facts, kafka)
    _read_outputs(facts, kafka)
    facts.commits = commits_of(kafka, GROUP, TOPICS)
    return facts


def read_files(files: Files, guarantee: str, seed: int, end: End) -> Facts:
    """What the processes wrote. A run that ends without having begun is a ValueError: lines are missing."""
    facts = Facts(guarantee=guarantee, end=end)
    _read_sent(facts, files.sent, seed)
    _read_runs(facts, files.runs)
    _Told(facts).read(files.told)
    return facts


def _read_sent(facts: Facts, path: Path, seed: int) -> None:
    for line in _lines(path):
        if line["event"] == "sent":
            for number, one in enumerate(line["stamps"], line["first"]):
                facts.sent[number] = Sent(order_of(seed, number), one, line["time"], acked=False)
        elif line["event"] == "answers":
            for number, partition, offset in line["acked"]:
                sent = facts.sent[number]
                sent.acked = True
                if offset >= 0:  # the client does not always learn it
                    sent.spot = Spot(sent.order.topic, partition, offset)


def _read_runs(facts: Facts, path: Path) -> None:
    begun: dict[tuple[int, int, int], Run] = {}
    for line in _lines(path):
        kind = line["event"]
        if kind == "skip":
            facts.skipped.setdefault(line["i"], line["time"])
            continue
        name = (line["m"], line["pid"], line["n"])
        if kind == "start":
            spot = Spot(line["t"], line["p"], line["o"])
            run = Run(line["i"], line["a"], spot, name, line["time"], None, "", line["s"])
            begun[name] = run
            facts.runs.append(run)
        else:
            run_of = begun.get(name)
            if run_of is None:
                raise ValueError(f"run {name} ended and never began")
            run_of.ended, run_of.end = line["time"], kind


class _Told:
    """What members and the harness told, line by line."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.owned: dict[tuple[int, str, int], Tenure] = {}
        self.failed: defaultdict[tuple[int, str, int], float] = defaultdict(float)
        self.overrun: dict[tuple[int, str, int], int] = {}

    def read(self, path: Path) -> None:
        for line in _lines(path):
            self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        facts, kind, at = self.facts, line["event"], line["time"]
        match kind:
            case "member":
                facts.members[line["m"]] = Member(line["m"], line["executor"], at)
            case "asked":
                facts.members[line["m"]].asked = at
            case "killed":
                facts.members[line["m"]].killed = at
            case "ended":
                member = facts.members[line["m"]]
                member.ended, member.code, member.orphans = line.get("at", at), line["code"], line["orphans"]
            case "fault":
                about = {name: line[name] for name in ("member", "broker") if name in line}
                facts.faults.append(Fault(line["kind"], line["began"], line["ended"], **about))
            case "memory":
                facts.samples.append(Sample(line["m"], line["kind"], at, line["mib"]))
            case _:
                if "topic" in line:
                    self._about_partition(kind, at, line)

    def _about_partition(self, kind: str, at: float, line: dict[str, Any]) -> None:
        facts, member = self.facts, line["m"]
        place = (member, line["topic"], line["partition"])
        match kind:
            case "AssignmentStarted":
                self.owned[place] = Tenure(member, line["topic"], line["partition"], at, line["position"])
                facts.tenures.append(self.owned[place])
            case "DrainOverrun":
                self.overrun[place] = line["running"]
            case "CommitFailed":
                self.failed[place] = at
            case "AssignmentEnded":
                tenure = self.owned.pop(place, None)
                if tenure is not None:
                    tenure.ended, tenure.reason = at, line["reason"]
                    tenure.overrun, tenure.unfinished = self.overrun.pop(place, 0), line["unfinished"]
                    tenure.silent = at - self.failed.pop(place, 0.0) < SILENT
            case "Committed":
                facts.acks.append(Ack(*place, line["position"], at))
                self.failed.pop(place, None)
            case "WorkerDied":
                facts.deaths.append(
                    Death(member, Spot(line["topic"], line["partition"], line["offset"]), line["attempt"], at)
                )


def _both(kafka: Kafka, topic: str) -> Iterator[tuple[Read, bool]]:
    """Every record of the topic, and whether a reader of committed records sees it."""
    servers = kafka.bootstrap_servers
    committed = {(one.partition, one.offset) for one in each_record(servers, topic)}
    for one in each_record(servers, topic, settings={"isolation.level": "read_uncommitted"}):
        yield one, (one.partition, one.offset) in committed


def _spot(one: Read) -> Spot:
    return Spot(one.topic, one.partition, one.offset)


def _number(one: Read) -> int:
    return int(one.header("n") or b"-1")


def _read_stored(facts: Facts, kafka: Kafka, topic: str) -> None:
    for one, visible in _both(kafka, topic):
        marks = wire.read_marks(one.headers)
        group = "" if marks.chunk is None else marks.chunk.group.hex()
        facts.stored.append(
            Stored(
                spot=_spot(one),
                id=_number(one),
                failed=marks.failed,
                at=one.timestamp_ms / 1000,
                group=group,
                parked=marks.parked_ms is not None,
                visible=visible,
            )
        )


def _read_letters(facts: Facts, kafka: Kafka) -> None:
    for one, visible in _both(kafka, "dead"):
        headers = dict(one.headers)
        marks = wire.read_marks(one.headers)
        if marks.chunk is not None and marks.chunk.index and wire.DEAD_CHUNK not in headers:
            continue  # a letter in chunks counts by its first
        chunk = (headers.get(wire.DEAD_CHUNK) or b"").decode()
        whole = not chunk and marks.chunk is None
        facts.letters.append(
            Letter(
                spot=_spot(one),
                id=_number(one),
                reason=(headers.get(wire.DEAD_REASON) or b"").decode(),
                attempts=int.from_bytes(headers.get(wire.DEAD_ATTEMPTS) or b""),
                at=one.timestamp_ms / 1000,
                chunk=chunk,
                stamp=stamp(one.value, one.key, wire.own_headers(one.headers)) if whole else "",
                visible=visible,
            )
        )


def _read_outputs(facts: Facts, kafka: Kafka) -> None:
    for one, visible in _both(kafka, "out"):
        said = msgspec.json.decode(one.value or b"")
        member, pid, number = said["run"]
        at = one.timestamp_ms / 1000
        facts.outputs.append(Output(_spot(one), said["i"], said["part"], (member, pid, number), at, visible))
