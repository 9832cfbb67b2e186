"""kill -9 behind a message that takes long, with thousands done behind it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.campaign.crew import Crew
from tests.campaign.evidence import Spot
from tests.campaign.judge import judge
from tests.campaign.sizes import pick
from tests.campaign.worker import Plan, payload
from tests.support.names import Topics
from tests.support.records import produce_many
from tests.support.waiting import wait_until


@pytest.mark.parametrize("moving", [False, True], ids=["at-rest", "under-load"])
def test_behind_a_slow_head_only_what_no_commit_held_runs_again(
    moving: bool, topics: Topics, tmp_path: Path, report: Callable[..., None]
) -> None:
    head_seconds, behind = pick((10.0, 500), (60.0, 5_000))
    # Under load three times as many stand behind the head, and the kill comes when a third of them are done.
    work = pick(0.02, 0.008)
    messages = 1 + behind * (3 if moving else 1)
    topic = topics("orders", 1)
    plan = Plan(
        servers=topics.kafka.bootstrap_servers,
        group=topics.group,
        topic=topic,
        evidence=str(tmp_path / "evidence.jsonl"),
        threads=8,
    )
    produce_many(plan.servers, topic, [payload(0, work=head_seconds)])
    produce_many(plan.servers, topic, [payload(i, work=work) for i in range(1, messages)])
    with Crew(topics.kafka, plan, tmp_path) as crew:
        first = crew.start()
        crew.wait_done(behind, head_seconds)
        if not moving:
            behind_it = {Spot(topic, 0, i) for i in range(1, messages)}
            wait_until(
                lambda: behind_it <= {spot for spot, _ in crew.commits().covered},
                head_seconds,
                "a commit holds all that is done",
                every=0.3,
            )
        crew.kill(first)
        (kill,) = crew.kills
        before = crew.runs()
        log = crew.commits()
        crew.start(quick=True)
        crew.wait_handled(range(messages), 120.0)
        crew.wait_no_lag()
        for member in list(crew.members):
            crew.stop(member)

    runs = crew.runs()
    head = next(run for run in before if run.id == 0)
    assert head.ended is None, "the head must still be at work at the kill"
    done = {run.spot for run in before if run.ended is not None}
    assert len(done) >= behind
    held = {spot for spot, _ in log.covered}
    started_again = {run.spot for run in runs if run.pid != kill.pid}
    repeated = started_again & {run.spot for run in before}
    verdict = judge(range(messages), runs, crew.commits(), kills=crew.kills)
    report(
        done_before=len(done),
        held_by_the_last_commit=len(held),
        repeated=len(repeated),
        of_these_done=len(repeated & done),
        seconds_of_head=round(kill.at - head.began, 1),
    )
    assert verdict.complaints == []
    # Whatever the last commit did not hold runs, and nothing else.
    assert started_again == {Spot(topic, 0, i) for i in range(messages)} - held
    if not moving:
        assert repeated == {head.spot}
