"""Memory follows from the limits: not from the backlog, nor from how long a retry topic refuses."""

import time
from collections.abc import Callable
from pathlib import Path

from tests.campaign.crew import Crew
from tests.campaign.judge import judge
from tests.campaign.memory import Memory
from tests.campaign.sizes import pick
from tests.campaign.worker import Plan, payload
from tests.support.names import Topics
from tests.support.records import produce_many
from tests.support.waiting import wait_until

BUFFER = 8 << 20
# librdkafka's queue and what the consumer holds have 8 MiB each, a fetch that arrives has as much; the rest is the
# interpreter's own for the objects around the bytes.
ROOM_MIB = 64.0


def test_a_backlog_does_not_fill_the_memory(
    topics: Topics, tmp_path: Path, report: Callable[..., None]
) -> None:
    messages, seconds = pick((40_000, 12.0), (200_000, 60.0))
    topic = topics("orders", 4)
    plan = Plan(
        servers=topics.kafka.bootstrap_servers,
        group=topics.group,
        topic=topic,
        evidence=str(tmp_path / "evidence.jsonl"),
        buffer_bytes=BUFFER,
    )
    # On an empty topic first: what the process takes with nothing to hold.
    with Crew(topics.kafka, plan, tmp_path) as crew:
        member = crew.start()
        crew.wait_working(member)
        empty = Memory(member.pid)
        empty.sample()
        produce_many(plan.servers, topic, [payload(i, work=0.05, filler=1_000) for i in range(messages)])
        crew.wait_done(100, 30.0)
        memory = Memory(member.pid)
        end = time.monotonic() + seconds

        def over() -> bool:
            memory.sample()
            return time.monotonic() >= end

        wait_until(over, seconds + 10.0, "the time to look is over", every=0.1)
        done = crew.follower.count("done")
        crew.stop(member)
    report(
        messages=messages,
        done=done,
        empty_mib=empty.peak,
        peak_mib=memory.peak,
        growth_mib=memory.growth(),
    )
    assert done < messages / 2, "most of the backlog must still be there"
    assert memory.peak < empty.peak + ROOM_MIB
    assert memory.growth() < 8.0


def test_a_retry_topic_that_is_gone_costs_no_memory_and_no_message(
    topics: Topics, tmp_path: Path, report: Callable[..., None]
) -> None:
    messages, seconds = pick((20_000, 10.0), (100_000, 30.0))
    plan = Plan(
        servers=topics.kafka.bootstrap_servers,
        group=topics.group,
        topic=topics("orders", 4),
        retry=topics("orders-retry", 4),
        retry_delay=0.5,
        evidence=str(tmp_path / "evidence.jsonl"),
        buffer_bytes=BUFFER,
        # A second of metadata at most between the topic's return and the first copy in it.
        settings={"topic.metadata.refresh.interval.ms": 1000},
    )
    assert plan.retry is not None
    with Crew(topics.kafka, plan, tmp_path) as crew:
        member = crew.start()
        crew.wait_working(member)
        topics.kafka.delete_topic(plan.retry)
        produce_many(plan.servers, plan.topic, [payload(i, fail=1, filler=200) for i in range(messages)])
        gone = time.time()
        wait_until(lambda: crew.follower.count("failed") > 0, 30.0, "a run failed")
        memory = Memory(member.pid)

        def over() -> bool:
            memory.sample()
            return time.time() >= gone + seconds

        wait_until(over, seconds + 10.0, "the time to look is over", every=0.1)
        failed = crew.follower.count("failed")
        told = [
            reason
            for event in crew.follower.of("health", ready=False)
            for reason in event["reasons"]
            if plan.retry in reason
        ]
        topics.kafka.create_topic(plan.retry, 4)
        back = time.time()
        crew.wait_handled(range(messages), 300.0)
        handled_after = time.time() - back
        crew.wait_no_lag()
        wait_until(
            lambda: crew.follower.of("health")[-1]["ready"], 30.0, "the health is good again", every=0.2
        )
        crew.stop(member)
    verdict = judge(range(messages), crew.runs(), crew.commits())
    refused = crew.follower.of("exit")[0]["refused"]
    report(
        handled=verdict.handled,
        failed_while_it_was_gone=failed,
        refused=refused,
        handled_after_s=handled_after,
        doubles=verdict.doubles,
        peak_mib=memory.peak,
        growth_mib=memory.growth(),
        health=told[0] if told else "silent",
    )
    assert verdict.complaints == []
    assert told, "nothing in the health named the retry topic"
    assert refused > 0
    assert memory.growth() < 8.0
