"""Three consumer processes that come and go while the load runs."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.campaign.crew import Crew
from tests.campaign.judge import judge
from tests.campaign.sizes import FULL, pick
from tests.campaign.worker import Plan, payload
from tests.support.names import Topics
from tests.support.records import produce_many

PROTOCOLS = ("cooperative-sticky", "range", "consumer")


def orders(ids: range, work: float) -> list[bytes]:
    chance = random.Random(ids.start)
    # Each twentieth fails once, so that copies are on their way whenever somebody leaves.
    return [payload(i, work=round(chance.uniform(0.0, 2 * work), 4), fail=int(i % 20 == 0)) for i in ids]


def churn(
    topics: Topics, folder: Path, protocol: str, messages: int, departures: int, leave: Callable[[Crew], None]
) -> Crew:
    """Feed the topic in portions; in the middle of each, one process leaves and another one comes."""
    topic = topics("orders", 4)
    plan = Plan(
        servers=topics.kafka.bootstrap_servers,
        group=topics.group,
        topic=topic,
        retry=topics("orders-retry", 4),
        retry_delay=0.5,
        evidence=str(folder / "evidence.jsonl"),
        protocol=protocol,
    )
    work = pick(0.02, 0.01)
    portion = messages // (departures + 1)
    sent = 0
    with Crew(topics.kafka, plan, folder) as crew:
        for _ in range(3):
            crew.start()
        for departure in range(departures):
            produce_many(plan.servers, topic, orders(range(sent, sent + portion), work))
            sent += portion
            if departure % 2:
                crew.wait_working(crew.members[0])  # else the oldest may go before it has come in
            crew.wait_done(sent - portion // 2, 300.0)
            leave(crew)
            crew.start()
        produce_many(plan.servers, topic, orders(range(sent, messages), work))
        crew.wait_handled(range(messages), 600.0)
        crew.wait_no_lag()
        for member in list(crew.members):
            crew.stop(member)
    return crew


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_runs_twice_when_processes_come_and_go(
    protocol: str, topics: Topics, tmp_path: Path, report: Callable[..., None]
) -> None:
    messages, departures = pick((20_000, 4), (200_000, 10))
    slowest = 0.0

    def leave(crew: Crew) -> None:
        nonlocal slowest
        slowest = max(slowest, crew.stop(crew.members[0]))

    crew = churn(topics, tmp_path, protocol, messages, departures, leave)
    verdict = judge(range(messages), crew.runs(), crew.commits())
    report(
        handled=verdict.handled,
        departures=departures,
        doubles=verdict.doubles,
        commits=verdict.commits,
        slowest_stop_s=slowest,
    )
    assert verdict.complaints == []
    assert verdict.handled == messages
    assert verdict.doubles == 0


@pytest.mark.parametrize("protocol", PROTOCOLS if FULL else PROTOCOLS[:1])
def test_killed_processes_repeat_only_what_was_not_committed(
    protocol: str, topics: Topics, tmp_path: Path, report: Callable[..., None]
) -> None:
    messages, departures = pick((20_000, 4), (200_000, 10))
    crew = churn(topics, tmp_path, protocol, messages, departures, lambda crew: crew.kill(crew.members[0]))
    verdict = judge(range(messages), crew.runs(), crew.commits(), kills=crew.kills)
    report(
        handled=verdict.handled,
        kills=len(crew.kills),
        doubles=verdict.doubles,
        finished_doubles=verdict.finished_doubles,
        commits=verdict.commits,
    )
    assert verdict.complaints == []
    assert verdict.handled == messages
