"""One chaos run, from the first broker to the verdict."""

import contextlib
import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from tests.campaign.evidence import Follower
from tests.chaos.checker import Verdict, check
from tests.chaos.crew import ChaosCrew
from tests.chaos.evidence import Files, gather
from tests.chaos.facts import End, Facts
from tests.chaos.faults import USER, BrokerLane, Lane, MemberLane, grant_everything
from tests.chaos.load import Task
from tests.chaos.orders import TOPICS
from tests.chaos.proxy import Links
from tests.chaos.worker import EXECUTORS, GROUP, Role
from tests.support.kafka import USERS, KafkaCluster
from tests.support.processes import Program
from tests.support.records import group_lag
from tests.support.waiting import wait_until

__all__ = ["Outcome", "Plan", "run_chaos"]

PARTITIONS = {"orders": 6, "bills": 4, "local": 2, "retries": 4, "dead": 2, "out": 4}
BEGIN = 90.0  # s for every member to own a partition
DRAIN = 240.0  # s that we wait for lag 0: twice what is promised
LOOK = 2.0  # s between samples of memory

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do."""

    seconds: float  # of load and faults
    seed: int
    guarantee: str
    rate: float  # messages a second
    calm: tuple[float, float] = (2.0, 8.0)  # seconds between two faults of a lane


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    plan: Plan
    facts: Facts
    verdict: Verdict
    seconds: float


def run_chaos(plan: Plan, folder: Path, say: Say = lambda _: None) -> Outcome:
    """Run it; the files of evidence and the members' logs stay in the folder."""
    began = time.monotonic()
    files = Files(folder)
    with Links(3) as links:
        cluster = KafkaCluster(3, acl=True, sasl_fronts=links.ports)
        for number, broker in enumerate(cluster.brokers, 1):
            links[number].lead_to(broker.sasl_port)
        say("starting three brokers")
        with cluster as kafka:
            for topic, partitions in PARTITIONS.items():
                kafka.create_topic(topic, partitions)
            grant_everything(kafka)
            end = _work(plan, kafka, links, files, folder, say)
            say("reading what is left")
            facts = gather(files, kafka, plan.guarantee, plan.seed, end)
            (folder / "facts.pickle").write_bytes(pickle.dumps(facts))
            say("checking")
            verdict = check(facts)
            if not verdict.good:
                shutil.copytree(kafka.log_dir, folder / "brokers")
    return Outcome(plan, facts, verdict, time.monotonic() - began)


def _work(plan: Plan, kafka: KafkaCluster, links: Links, files: Files, folder: Path, say: Say) -> End:
    role = Role(
        member=0,
        executor=EXECUTORS[0],
        guarantee=plan.guarantee,
        servers=kafka.sasl_bootstrap_servers,
        username=USER,
        password=USERS[USER],
        seed=plan.seed,
        runs=str(files.runs),
        told=str(files.told),
    )
    task = Task(
        servers=kafka.sasl_bootstrap_servers,
        username="admin",
        password=USERS["admin"],
        seed=plan.seed,
        rate=plan.rate,
        sent=str(files.sent),
    )
    with ChaosCrew(role, folder) as crew:
        for seat in crew.seats:
            seat.start()
        for seat in crew.seats:
            seat.wait_working(BEGIN)
        say(f"{len(crew.seats)} members work; load and faults for {plan.seconds:.0f} s, seed {plan.seed}")
        with Program("-m tests.chaos.load", task.to_json(), log=folder / "load.log") as load:
            lanes = [
                MemberLane(crew, plan.seed, plan.calm),
                BrokerLane(kafka, links, crew.told, plan.seed, plan.calm),
            ]
            _trouble(plan, lanes, crew)
            healed = time.time()
            say(f"{sum(lane.count for lane in lanes)} faults are undone")
            load.terminate()
            assert load.wait(240.0) == 0, load.output[-4000:]
        end = _settle(kafka, crew, files, healed)
        say("lag is 0" if end.drained else f"lag is not 0: {end.lag}")
        for seat in crew.seats:
            if not seat.ended():
                seat.ask()
                seat.wait()
    return end


def _trouble(plan: Plan, lanes: list[Lane], crew: ChaosCrew) -> None:
    """Load and faults side by side; returns when the faults are undone."""
    until = time.monotonic() + plan.seconds
    for lane in lanes:
        lane.start()

    def sampled() -> bool:
        crew.sample()
        return time.monotonic() >= until or any(lane.trouble for lane in lanes)

    with contextlib.suppress(AssertionError):
        wait_until(sampled, plan.seconds + 60.0, "the time is over", every=LOOK)
    for lane in lanes:
        lane.end()
    for lane in lanes:
        lane.join()
        if lane.trouble is not None:
            raise lane.trouble


def _settle(kafka: KafkaCluster, crew: ChaosCrew, files: Files, healed: float) -> End:
    """Wait until nothing is left to be read and everybody is well; say what is not."""
    end = End(healed=healed)
    servers = kafka.bootstrap_servers

    def drained() -> bool:
        crew.sample()
        # A broker that was only just released may not know of its leader's latest term: asked again.
        with contextlib.suppress(KafkaException):
            end.lag = {topic: group_lag(servers, GROUP, topic) for topic in TOPICS}
        return bool(end.lag) and not any(end.lag.values())

    with contextlib.suppress(AssertionError):
        wait_until(drained, DRAIN, "lag 0", every=0.5)
        end.drained = time.time()

    def well() -> bool:
        end.unready = _unready(crew, files)
        return not end.unready

    with contextlib.suppress(AssertionError):
        wait_until(well, 30.0, "all are well", every=1.0)
    end.hanging = _hanging(kafka)
    return end


def _unready(crew: ChaosCrew, files: Files) -> dict[int, str]:
    """Why members that work now say that they are not well."""
    follower = Follower(files.told)
    follower.follow()
    last: dict[int, dict[str, object]] = {}
    for event in follower.events:
        if event["event"] == "health":
            last[event["m"]] = event
    members = [seat.member for seat in crew.seats]
    return {one: str(last[one]["reasons"]) for one in members if one in last and not last[one]["ready"]}


def _hanging(kafka: KafkaCluster) -> dict[str, int]:
    """How many offsets of each partition lie behind a transaction that nobody ends."""
    everything = _ends(kafka, IsolationLevel.READ_UNCOMMITTED)
    stable = _ends(kafka, IsolationLevel.READ_COMMITTED)
    return {place: offset - stable[place] for place, offset in everything.items() if offset > stable[place]}


def _ends(kafka: KafkaCluster, level: IsolationLevel) -> dict[str, int]:
    """Where each partition ends for readers of that level."""
    asked = {
        TopicPartition(topic, partition): OffsetSpec.latest()  # type: ignore[no-untyped-call]
        for topic, partitions in PARTITIONS.items()
        for partition in range(partitions)
    }
    found: dict[str, int] = {}

    def told() -> bool:
        answers = kafka.admin().list_offsets(asked, isolation_level=level, request_timeout=30.0)
        try:
            for one, answer in answers.items():
                found[f"{one.topic}/{one.partition}"] = answer.result(30.0).offset
        except KafkaException:
            return False  # a client may know the leaders of a while ago
        return True

    wait_until(told, 60.0, "the ends of all partitions", every=1.0)
    return found
