"""The command `rkc`, used as from a shell: what it prints, how it ends, and that it keeps secrets to itself."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from retriable_kafka_client import Cluster, Producer
from retriable_kafka_client.testing import MockKafka
from tests.support.kafka import Kafka
from tests.support.processes import REPOSITORY, GuardedProcess
from tests.support.waiting import wait_until

Mock = Callable[[Mapping[str, int]], MockKafka]

NOBODY = "127.0.0.1:1"  # a port that nothing listens on
RKC = [sys.executable, "-m", "retriable_kafka_client.cli"]

BILLING = """
    import os, time
    from retriable_kafka_client import Cluster, Consumer, ProcessExecutor, Topic

    def note(line):
        with open("evidence", "a") as file:
            file.write(line + "\\n")

    def bill(message):
        note(f"begin {message.value}")
        time.sleep(message.value["seconds"])
        note(f"end {message.value}")

    def make(topic="orders", group="billing", executor=4):
        return Consumer(
            Cluster(os.environ["SERVERS"]),
            group_id=group,
            topics=[Topic(topic, dead_letter="dead-letters")],
            handler=bill,
            executor=executor,
        )

    consumer = make()
"""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "COLUMNS": "200", "NO_COLOR": "1", **more}


def rkc(
    *arguments: str, cwd: Path = REPOSITORY, more: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RKC, *arguments],
        check=False,
        cwd=cwd,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def write(folder: Path, text: str, name: str = "billing") -> None:
    (folder / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that the command has ended with."""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("rkc: "), result.stderr
    return result.stderr


class Running(GuardedProcess):
    """`rkc run` in a folder of its own."""

    def __init__(self, folder: Path, servers: str, *arguments: str) -> None:
        self.folder = folder
        super().__init__([*RKC, *arguments], log=folder / "log", env=environment(SERVERS=servers), cwd=folder)

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def evidence(self) -> list[str]:
        path = self.folder / "evidence"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(servers: str, *arguments: str) -> Running:
        started.append(Running(tmp_path, servers, *arguments))
        return started[-1]

    yield start
    for process in started:
        process.close()


def send(servers: str, topic: str, values: list[Any]) -> None:
    with Producer(Cluster(servers)) as producer:
        for value in values:
            producer.send(topic, value)


# Without anything to run --------------------------------------------------------------------------------------------


def test_version() -> None:
    plain, as_json = rkc("--version"), rkc("--version", "--json")
    assert plain.returncode == as_json.returncode == 0
    assert plain.stdout.split() == ["rkc", json.loads(as_json.stdout)["version"]]


def test_help_names_the_commands() -> None:
    result = rkc("--help")
    assert result.returncode == 0
    assert "run" in result.stdout and "demo" in result.stdout
    assert rkc().returncode == 2
    assert rkc("fly").returncode == 2


@pytest.mark.parametrize("absent", ["typer", "rich", "pydantic_settings"])
def test_without_the_extra_it_says_how_to_install_it(absent: str) -> None:
    code = f"import sys; sys.modules[{absent!r}] = None; from retriable_kafka_client.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 2
    assert absent in one_line(result)
    assert "pip install 'retriable-kafka-client[cli]'" in result.stderr


def test_the_library_does_not_import_the_command() -> None:
    code = (
        "import sys, retriable_kafka_client\n"
        "assert not {'typer', 'rich', 'pydantic'} & set(sys.modules)\n"
        "assert not [name for name in sys.modules if name.startswith('retriable_kafka_client.cli.')]"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, timeout=60)


# What cannot be run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("billing", "must be MODULE:CONSUMER"),
        (":consumer", "must be MODULE:CONSUMER"),
        ("billing:", "must be MODULE:CONSUMER"),
        ("nowhere:consumer", "no module named 'nowhere'"),
        ("billing.nowhere:consumer", "no module named 'billing.nowhere'"),
        ("billing:nothing", "billing has no nothing; it has consumer"),
        ("billing:bill", "is a function and not a Consumer"),
    ],
)
def test_wrong_targets_are_usage_errors(target: str, said: str, tmp_path: Path) -> None:
    write(tmp_path, BILLING)
    result = rkc("run", target, cwd=tmp_path, more={"SERVERS": "localhost:9092"})
    assert result.returncode == 2
    assert said in one_line(result)


def test_a_consumer_named_twice_is_a_usage_error(tmp_path: Path) -> None:
    write(tmp_path, BILLING)
    result = rkc(
        "run", "billing:consumer", "billing:consumer", cwd=tmp_path, more={"SERVERS": "localhost:9092"}
    )
    assert result.returncode == 2
    assert "named twice" in one_line(result)


def test_a_wrong_log_level_is_a_usage_error(tmp_path: Path) -> None:
    assert rkc("run", "billing:consumer", "--log-level", "LOUD", cwd=tmp_path).returncode == 2


def test_a_config_error_is_one_line_without_secrets(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        from retriable_kafka_client import Cluster
        Cluster("kafka:9092", password="hunter2")
        """,
    )
    result = rkc("run", "billing:consumer", cwd=tmp_path)
    assert result.returncode == 2
    assert "Cluster.username" in one_line(result)
    assert "hunter2" not in result.stderr


def test_a_module_that_fails_is_one_line_with_the_place(tmp_path: Path) -> None:
    write(tmp_path, "import json\n\n\njson.loads('[')\n")
    result = rkc("run", "billing:consumer", cwd=tmp_path)
    assert result.returncode == 1
    assert "JSONDecodeError" in one_line(result)
    assert "billing.py:4" in result.stderr


def test_what_a_module_misses_is_not_taken_for_the_module(tmp_path: Path) -> None:
    write(tmp_path, "import nowhere_at_all\n")
    result = rkc("run", "billing:consumer", cwd=tmp_path)
    assert result.returncode == 1
    assert "nowhere_at_all" in one_line(result)


# Running ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [("run", "billing:consumer", "--json"), ("--json", "run", "billing:consumer")],
    ids=["for-the-command", "for-all"],
)
def test_a_signal_drains_and_ends_with_0(
    mock_kafka: Mock, running: Callable[..., Running], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    servers = mock_kafka({"orders": 2, "dead-letters": 1}).bootstrap_servers
    write(tmp_path, BILLING)
    send(servers, "orders", [{"seconds": 0.0}] * 20 + [{"seconds": 1.5}])
    process = running(servers, *arguments)
    wait_until(lambda: "begin {'seconds': 1.5}" in process.evidence(), what="the slow message has begun")
    process.terminate()
    assert process.wait() == 0, process.output
    lines = process.evidence()
    assert "end {'seconds': 1.5}" in lines
    assert sum(line.startswith("begin") for line in lines) == sum(line.startswith("end") for line in lines)
    (consumer,) = json.loads(process.output.splitlines()[-1])["consumers"]
    assert consumer["group"] == "billing"
    assert consumer["topics"] == ["orders"]
    assert consumer["handled"] == sum(line.startswith("end") for line in lines)
    assert "orders/0 is ours" in process.output


def test_several_consumers_and_processes(
    mock_kafka: Mock, running: Callable[..., Running], tmp_path: Path
) -> None:
    topics = {"orders": 2, "refunds": 1, "dead-letters": 1}
    servers = mock_kafka(topics).bootstrap_servers
    write(tmp_path, BILLING)
    more = """
        from billing import ProcessExecutor, make

        class Shop:
            billing = make(executor=ProcessExecutor(1))
            refunding = make("refunds", "refunding")
    """
    write(tmp_path, more, "shop")
    send(servers, "orders", [{"seconds": 0.0, "order": 1}])
    send(servers, "refunds", [{"seconds": 0.0, "refund": 1}])
    process = running(servers, "run", "shop:Shop.billing", "shop:Shop.refunding")
    wait_until(lambda: sum(line.startswith("end") for line in process.evidence()) == 2, what="both handled")
    process.terminate()
    assert process.wait() == 0, process.output
    assert "refunding" in process.output.splitlines()[-1]


def test_a_missing_topic_is_a_config_error_and_stops_the_others(
    mock_kafka: Mock, running: Callable[..., Running], tmp_path: Path
) -> None:
    servers = mock_kafka({"orders": 2, "dead-letters": 1}).bootstrap_servers
    write(tmp_path, BILLING + "    lost = make('not-there', 'lost')\n")
    process = running(servers, "run", "billing:consumer", "billing:lost")
    assert process.wait(60) == 2
    assert "rkc: topic = 'not-there': does not exist" in process.output
    assert "--create --topic not-there" in process.output
    assert "Traceback" not in process.output


def test_brokers_that_do_not_answer(running: Callable[..., Running], tmp_path: Path) -> None:
    write(tmp_path, BILLING)
    process = running(NOBODY, "run", "billing:consumer")
    assert process.wait(40) == 3
    assert "rkc: the brokers at 127.0.0.1" in process.output
    assert "Traceback" not in process.output


# The demo -----------------------------------------------------------------------------------------------------------


def check_demo(result: subprocess.CompletedProcess[str], orders: int) -> None:
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["ok"] is True
    assert said["sent"] == orders == said["handled"] + said["dead_lettered"]
    assert said["dead_lettered"] == 1 == len(said["dead_letters"])
    assert said["failed"] == said["retried"] + said["dead_lettered"]
    assert said["dead_letters"][0]["attempts"] == 4
    assert said["scheduled_late"] >= 0.0
    assert said["checks"]
    assert all(check["left"] == check["right"] and check["holds"] for check in said["checks"])


def test_the_demo_adds_up() -> None:
    check_demo(rkc("demo", "--orders", "2000", "--json"), 2000)


def test_the_smallest_demo_in_plain_lines() -> None:
    result = rkc("demo", "--orders", "20")
    assert result.returncode == 0, result.stderr
    assert "20 orders on the embedded broker" in result.stdout
    assert "everything adds up" in result.stdout
    assert "\x1b" not in result.stdout


def test_the_demo_on_real_kafka_leaves_nothing_behind(kafka: Kafka) -> None:
    result = rkc("demo", "--orders", "500", "--json", "--bootstrap-servers", kafka.bootstrap_servers)
    check_demo(result, 500)

    def gone() -> bool:
        return not [
            name for name in kafka.admin().list_topics(timeout=10).topics if name.startswith("rkc-demo")
        ]

    wait_until(gone, what="the demo deletes its topics")


def test_the_demo_without_brokers() -> None:
    settings = '{"sasl.password": "hunter2"}'
    result = rkc(
        "demo", "--bootstrap-servers", NOBODY, more={"RKC_USERNAME": "anna", "RKC_SETTINGS": settings}
    )
    assert result.returncode == 3
    assert NOBODY in one_line(result)
    assert "hunter2" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("RKC_PASSWORD", "hunter2", "Cluster.username"), ("RKC_SETTINGS", "{hunter2", "RKC_SETTINGS")],
)
def test_the_environment_is_checked_and_its_secrets_are_kept(name: str, value: str, said: str) -> None:
    result = rkc("demo", "--bootstrap-servers", NOBODY, more={name: value})
    assert result.returncode == 2
    assert said in one_line(result)
    assert "hunter2" not in result.stdout + result.stderr
