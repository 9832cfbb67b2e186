"""The broker is gone for a while in the middle of the load."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.campaign.crew import Crew
from tests.campaign.judge import Outage, judge
from tests.campaign.sizes import pick
from tests.campaign.worker import Plan, payload
from tests.support.kafka import KafkaCluster
from tests.support.names import unique
from tests.support.records import produce_many
from tests.support.waiting import wait_until


@pytest.mark.parametrize("how", ["paused", "killed"])
def test_a_backlog_drains_after_an_outage(
    how: str, own_kafka: Callable[..., KafkaCluster], tmp_path: Path, report: Callable[..., None]
) -> None:
    messages, seconds = pick((15_000, 10.0), (150_000, 40.0))
    kafka = own_kafka()
    topic = kafka.create_topic(unique("orders"), 4)
    plan = Plan(
        servers=kafka.bootstrap_servers,
        group=unique("group"),
        topic=topic,
        retry=kafka.create_topic(unique("orders-retry"), 4),
        retry_delay=1.0,
        evidence=str(tmp_path / "evidence.jsonl"),
        # Small, so that fetches, commits and retry copies are under way when the broker goes.
        buffer_bytes=1 << 20,
        window=2_000,
    )
    # Each tenth message fails once, and so goes through the retry topic.
    bodies = [payload(i, work=0.01, fail=int(i % 10 == 0)) for i in range(messages)]
    produce_many(plan.servers, topic, bodies)
    broker = kafka.broker(1)
    with Crew(kafka, plan, tmp_path) as crew:
        for _ in range(3):
            crew.start()
        for member in list(crew.members):
            crew.wait_working(member)
        crew.wait_done(messages // 4, 300.0)
        began = time.time()
        if how == "paused":
            broker.pause()
        else:
            broker.kill()
        wait_until(lambda: time.time() >= began + seconds, seconds + 5.0, "the outage is over", every=0.1)
        if how == "paused":
            broker.resume()
        else:
            broker.start()
        outage = Outage(began, time.time())
        done = crew.follower.count("done")
        assert done < messages, "the outage must fall into the load"
        crew.wait_handled(range(messages), 600.0)
        caught_up = time.time()
        crew.wait_no_lag()
        for member in list(crew.members):
            crew.stop(member)

    runs = crew.runs()
    verdict = judge(range(messages), runs, crew.commits(), outages=[outage], ends=crew.ends())
    unwell = crew.follower.of("health", ready=False)
    report(
        handled=verdict.handled,
        done_before_the_end_of_the_outage=done,
        outage_s=outage.ended - outage.began,
        first_run_after_s=min(run.began for run in runs if run.began > outage.ended) - outage.ended,
        drained_after_s=caught_up - outage.ended,
        doubles=verdict.doubles,
        finished_doubles=verdict.finished_doubles,
        assignments_ended=len([end for end in crew.ends() if outage.began <= end.at <= caught_up]),
        commits=verdict.commits,
    )
    assert verdict.complaints == []
    told = {event["pid"] for event in unwell if outage.began <= event["time"] <= outage.ended + 5.0}
    assert told, "nobody's health showed the outage"
