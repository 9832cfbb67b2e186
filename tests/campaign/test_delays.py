"""Many delays mixed in one retry topic, with a window far smaller than what waits."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from retriable_kafka_client import Cluster, Producer
from tests.campaign.crew import Crew
from tests.campaign.judge import Outage, judge_times
from tests.campaign.memory import Memory
from tests.campaign.sizes import pick
from tests.campaign.worker import Plan
from tests.support.names import Topics
from tests.support.records import end_offsets
from tests.support.waiting import wait_until

WITHIN = 2.0  # s that a message may be late
# What lies beyond the window may be late by a parking interval (60 s): so no delay counts before every record was read
# once, which leaves the nearest-due of each partition in its window.
START = 10.0  # s for that, the first assignment included
COMING = 5.0  # s that a new consumer has to find its place again


def schedule(servers: str, topic: str, base: float, delays: list[float]) -> dict[int, float]:
    """Send a message for each delay, and return when each is due, in whole milliseconds as it travels."""
    due = {i: round(base + delay, 3) for i, delay in enumerate(delays)}
    with Producer(Cluster(servers), queue_timeout=60.0) as producer:
        for i, at in due.items():
            order = {"i": i, "s": 0, "fail": 0, "due": at}
            producer.send(topic, order, not_before=datetime.fromtimestamp(at, UTC))
        assert producer.flush(60.0) == 0
    return due


def test_mixed_delays_run_on_time_and_a_restart_changes_nothing(
    topics: Topics, tmp_path: Path, report: Callable[..., None]
) -> None:
    messages, half = pick((20_000, 12.0), (20_000, 50.0))
    # One in twenty is due while somebody looks, the rest up to an hour later.
    chance = random.Random(7)
    near = int(messages / 20 * half / 50.0)
    delays = [0.1, *(chance.uniform(0.1, 2.2 * half) for _ in range(near))]
    delays += [3600.0, *(chance.uniform(2.2 * half, 3600.0) for _ in range(messages - near - 2))]
    chance.shuffle(delays)
    plan = Plan(
        servers=topics.kafka.bootstrap_servers,
        group=topics.group,
        topic=topics("orders", 1),
        retry=topics("orders-retry", 2),
        evidence=str(tmp_path / "evidence.jsonl"),
        window=1_000,
    )
    assert plan.retry is not None
    base = time.time() + 2.0 + START
    due = schedule(plan.servers, plan.retry, base, delays)
    with Crew(topics.kafka, plan, tmp_path) as crew:
        member = crew.start()
        started = time.time()
        crew.wait_working(member)
        memory = [Memory(member.pid)]

        def look(until: float) -> bool:
            memory[-1].sample()
            return time.time() >= until

        read_once = wait_until(
            lambda: [one for one in crew.follower.of("stats") if one["arrived"] >= messages],
            30.0,
            "every record was read once",
            every=0.2,
        )[0]["time"]
        wait_until(lambda: look(base + half), half + 60.0, "the first half is over", every=0.1)
        left = time.time()
        crew.stop(member)
        member = crew.start()
        crew.wait_working(member)
        gap = Outage(left, time.time() + COMING)
        memory.append(Memory(member.pid))
        wait_until(lambda: look(gap.ended + half), half + 60.0, "the second half is over", every=0.1)
        until = time.time()
        crew.stop(member)

    runs = crew.runs()
    found = judge_times(due, runs, until=until, within=WITHIN, excused=[gap])
    growth = max(one.growth() for one in memory)
    doubles = len(runs) - len({run.id for run in runs})
    exits = crew.follower.of("exit")
    report(
        messages=messages,
        read_once_after_s=read_once - started,
        came_due=found.due,
        ran=found.ran,
        worst_lateness_s=found.worst,
        doubles=doubles,
        parked=exits[0]["parked"],
        parked_after_restart=exits[1]["parked"],
        records_in_the_retry_topic=sum(end_offsets(plan.servers, plan.retry).values()),
        peak_mib=max(one.peak for one in memory),
        growth_mib=growth,
    )
    assert read_once < base
    assert found.complaints == []
    assert found.due > near / 2
    assert doubles == 0
    assert exits[0]["parked"] > messages / 2, "the window must have been too small for all"
    assert growth < 16.0
