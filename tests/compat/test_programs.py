"""Whole programs written the 0.x way, in processes of their own: pools that fork, signals, passwords, broker restarts."""

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.compat.programs import events, start
from tests.shell.lab import Lab
from tests.support.kafka import KafkaCluster
from tests.support.records import group_lag
from tests.support.waiting import wait_until

SETTINGS = {"fetch.wait.max.ms": 20, "session.timeout.ms": 6000, "heartbeat.interval.ms": 500}


def told(lab: Lab, **more: Any) -> dict[str, Any]:
    return {"servers": lab.servers, "group": lab.group, "settings": SETTINGS, **more}


def entry(lab: Lab, retries: int = 20) -> dict[str, Any]:
    return {"base": lab.topic("base", 4), "retry": lab.topic("retry", 2), "retries": retries, "delay": 0.2}


def messages(count: int, **fields: Any) -> list[bytes]:
    return [json.dumps({"i": i, **fields}).encode() for i in range(count)]


def wait_done(folder: Path, count: int, what: str = "") -> None:
    wait_until(lambda: len({one["i"] for one in events(folder, "done")}) >= count, 90, f"all done {what}")


def lag_is_gone(lab: Lab, *topics: object) -> bool:
    return all(group_lag(lab.servers, lab.group, str(topic)) == 0 for topic in topics)


@pytest.mark.parametrize("pool", ["threads", "processes"])
@pytest.mark.parametrize("thread", [False, True])
def test_a_program_with_a_pool(real_lab: Lab, tmp_path: Path, pool: str, thread: bool) -> None:
    """The process pool is made as everybody makes one, so it forks where forking is the default."""
    one = entry(real_lab)
    real_lab.fill(str(one["base"]), messages(200, fail=0.1))
    with start(
        tmp_path, "member", role="consume", pool=pool, thread=thread, **told(real_lab, topics=[one])
    ) as run:
        wait_done(tmp_path, 200)
        wait_until(lambda: lag_is_gone(real_lab, one["base"], one["retry"]), what="no lag")
        run.terminate()
        assert run.wait(60) == 0, run.log.read_text()
    runs, done = events(tmp_path, "ran"), events(tmp_path, "done")
    assert Counter(one["i"] for one in done) == dict.fromkeys(range(200), 1)
    assert len(runs) > 200, "some failed and ran again"
    ours = {one["pid"] for one in events(tmp_path, "starts")}
    assert {one["pid"] for one in runs}.isdisjoint(ours) == (pool == "processes")
    assert [one["event"] for one in events(tmp_path, "starts", "ended")] == ["starts", "ended"]


def test_consume_topics_runs_all_configs_on_one_pool(real_lab: Lab, tmp_path: Path) -> None:
    one, two = entry(real_lab), entry(real_lab)
    real_lab.fill(str(one["base"]), messages(100, fail=0.1))
    real_lab.fill(str(two["base"]), [json.dumps({"i": 100 + i}).encode() for i in range(100)])
    configs = [{"topics": [one]}, {"topics": [two], "group": real_lab.group + "-second"}]
    with start(tmp_path, "all", role="consume_all", configs=configs, workers=2, **told(real_lab)) as run:
        wait_done(tmp_path, 200)
        wait_until(lambda: lag_is_gone(real_lab, one["base"], one["retry"]), what="no lag")
        run.terminate()  # 0.x left the group to its time-out
        assert run.wait(60) == 0, run.log.read_text()
    pids = {one["pid"] for one in events(tmp_path, "ran")}
    assert len(pids) == 2, "two workers for both configs"
    assert events(tmp_path, "ended")


def test_consume_topics_ends_with_the_first_failure(real_lab: Lab, tmp_path: Path) -> None:
    one, two = entry(real_lab), {**entry(real_lab), "retry": "not a name"}
    configs = [{"topics": [one]}, {"topics": [two], "group": real_lab.group + "-second"}]
    with start(tmp_path, "all", role="consume_all", configs=configs, workers=1, **told(real_lab)) as run:
        assert run.wait(60) == 1
        assert "not a name" in run.log.read_text()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 0)])
@pytest.mark.parametrize("role", ["consume_plain", "consume_all"])
def test_a_program_that_leaves_signals_alone_drains(
    real_lab: Lab, tmp_path: Path, signum: int, code: int, role: str
) -> None:
    one = entry(real_lab)
    real_lab.fill(str(one["base"]), messages(40, sleep=0.2))
    more = told(real_lab, topics=[one], configs=[{}], interruptible=True)
    with start(tmp_path, "member", role=role, **more) as run:
        wait_until(lambda: events(tmp_path, "done"), 60)
        run.send_signal(signum)
        assert run.wait(60) == code, run.log.read_text()
    ran = {one["i"] for one in events(tmp_path, "ran")}
    assert ran == {one["i"] for one in events(tmp_path, "done")}, "what had begun has ended"
    with start(tmp_path, "second", role="consume", **more):
        wait_done(tmp_path, 40)
    assert set(Counter(one["i"] for one in events(tmp_path, "done")).values()) == {1}, "and was committed"


def test_scram_and_a_broker_that_restarts(tmp_path: Path, lab_on: Any, own_kafka: Any) -> None:
    kafka: KafkaCluster = own_kafka()
    lab: Lab = lab_on(kafka)
    one = entry(lab)
    login: dict[str, Any] = {
        "servers": kafka.sasl_bootstrap_servers,
        "username": "alice",
        "password": kafka.users["alice"],
        "settings": {**SETTINGS, "security.protocol": "SASL_PLAINTEXT", "reconnect.backoff.max.ms": 500},
        "topics": [one],
        "group": lab.group,
    }
    fields = {"fail": 0.05}
    sent: dict[str, Any] = {
        "role": "produce",
        "to": [one["base"]],
        "count": 100_000,
        "every": 0.02,
        "fields": fields,
    }
    with start(tmp_path, "member", **login | {"role": "consume"}) as member:
        with start(tmp_path, "sender", **login | sent) as sender:
            wait_done(tmp_path, 50)
            broker = kafka.broker(1)
            broker.stop()
            broker.start()
            many = len(events(tmp_path, "done")) + 100
            wait_done(tmp_path, many, "after the restart")
            sender.terminate()
            assert sender.wait(60) == 0, sender.log.read_text()
        last = {one["i"] for one in events(tmp_path, "sent")}
        wait_until(lambda: {one["i"] for one in events(tmp_path, "done")} >= last, 90, "all that was sent")
        wait_until(lambda: lag_is_gone(lab, one["base"], one["retry"]), what="no lag")
        member.terminate()
        assert member.wait(60) == 0, member.log.read_text()
    logs = sender.log.read_text() + member.log.read_text()
    assert kafka.users["alice"] not in logs and '"body"' not in logs
