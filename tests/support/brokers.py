"""The configuration and the life of one Apache Kafka broker process."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.errors import HarnessError
from tests.support.jars import class_path, find_java
from tests.support.processes import GuardedProcess
from tests.support.waiting import wait_until

__all__ = ["Broker", "Node", "format_storage", "node_settings"]

START = 90.0  # seconds for a broker to answer: 5 to 15 on two idle cores
STOP = 60.0  # seconds for a controlled shutdown


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The identity of a broker, which is its controller too."""

    id: int
    plain_port: int
    sasl_port: int
    controller_port: int
    sasl_front: int | None = None
    """The port that it tells SASL clients to come to, where something stands before it; None: its own."""


def node_settings(node: Node, nodes: tuple[Node, ...], data: Path) -> dict[str, str]:
    """server.properties of one node: small, quick to start and to fail over, durable on a majority."""
    copies, quorum = str(min(3, len(nodes))), str(min(2, len(nodes)))
    plain, sasl = f"PLAINTEXT://127.0.0.1:{node.plain_port}", "SASL_PLAINTEXT://127.0.0.1"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.id),
        "controller.quorum.voters": ",".join(f"{one.id}@127.0.0.1:{one.controller_port}" for one in nodes),
        "listeners": f"{plain},{sasl}:{node.sasl_port},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": f"{plain},{sasl}:{node.sasl_front or node.sasl_port}",
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT"
        ),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": scram,
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "num.partitions": "4",
        "default.replication.factor": copies,
        "min.insync.replicas": quorum,
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": quorum,
        "share.coordinator.state.topic.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": quorum,
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # KIP-848 takes a group's time-outs from the broker; a test that wants others says so with `extra`.
        "group.consumer.min.session.timeout.ms": "1000",
        "group.consumer.min.heartbeat.interval.ms": "300",
        "group.consumer.heartbeat.interval.ms": "1000",
        "group.consumer.session.timeout.ms": "6000",
        # A restarted broker is let in again once its former self's session is over.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "500",
        # Retention and deletion are seen within seconds.
        "log.retention.check.interval.ms": "1000",
        "log.segment.delete.delay.ms": "1000",
        "log.initial.task.delay.ms": "1000",
        "log.cleaner.dedupe.buffer.size": str(8 << 20),
        "num.network.threads": "2",
        "num.io.threads": "4",
    }


def write_settings(path: Path, settings: Mapping[str, str]) -> None:
    """Write a Java properties file."""
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")


def format_storage(settings: Path, cluster_id: str, users: Mapping[str, str]) -> None:
    """Make an empty data folder a member of the cluster, which knows the users (SCRAM-SHA-512)."""
    command = [
        find_java(),
        "-XX:TieredStopAtLevel=1",
        "-cp",
        class_path(),
        "kafka.tools.StorageTool",
        "format",
    ]
    command += ["-t", cluster_id, "-c", str(settings)]
    for name, password in users.items():
        command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HarnessError(f"Kafka's storage tool failed: {done.stdout}{done.stderr}")


class Broker:
    """One broker of a `KafkaCluster`. Used from one thread."""

    def __init__(
        self, node: Node, settings: Path, log: Path, remove_if_orphaned: Path, *, for_speed: bool
    ) -> None:
        self.id = node.id
        self.address = f"127.0.0.1:{node.plain_port}"
        """The PLAINTEXT listener."""
        self.sasl_address = f"127.0.0.1:{node.sasl_front or node.sasl_port}"
        """Where SASL_PLAINTEXT clients go."""
        self.sasl_port = node.sasl_port
        """The SASL_PLAINTEXT listener's own port."""
        self.log = log
        """What the broker wrote, through all its lives."""
        self._settings = settings
        self._remove_if_orphaned = remove_if_orphaned
        # Java's second compiler takes a third of a short life's processor time, and pays back in a long one.
        self._compiler = [] if for_speed else ["-XX:TieredStopAtLevel=1"]
        self._process: GuardedProcess | None = None

    @property
    def pid(self) -> int:
        """The Java process's id; HarnessError when it was never started."""
        return self._running().pid

    def _running(self) -> GuardedProcess:
        if self._process is None:
            raise HarnessError(f"broker {self.id} is not started")
        return self._process

    def launch(self) -> None:
        """Start the process without waiting for an answer; nothing happens when it runs."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            self._process.close()
        logger = "-Dorg.slf4j.simpleLogger"
        self._process = GuardedProcess(
            [
                find_java(),
                "-Xmx512m",
                "-XX:+UseSerialGC",
                *self._compiler,
                f"{logger}.showDateTime=true",
                f"{logger}.dateTimeFormat=HH:mm:ss.SSS",
                f"{logger}.defaultLogLevel=info",
                "-cp",
                class_path(),
                "kafka.Kafka",
                str(self._settings),
            ],
            log=self.log,
            cwd=self._settings.parent,
            remove_if_orphaned=self._remove_if_orphaned,
        )

    def start(self, timeout: float = START) -> None:
        """Start it (again) with the same ports and data, and wait until it answers as a member."""
        self.launch()
        self.wait_ready(timeout)

    def wait_ready(self, timeout: float = START) -> None:
        """Wait until the broker lists itself as a member; HarnessError with its log's end when it ends."""
        # A client for each try: one that a fenced broker has told of no brokers at all does not find it again.
        settings: dict[str, str | int | float | bool] = {
            "bootstrap.servers": self.address,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 100,
            "log_level": 0,
        }

        def ready() -> bool:
            if self._running().poll() is not None:
                end = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
                raise HarnessError(f"broker {self.id} ended by itself: {end}")
            try:
                return self.id in AdminClient(settings).list_topics(timeout=0.5).brokers
            except KafkaException:
                return False

        wait_until(ready, timeout, f"broker {self.id} answers, see {self.log}", every=0.05)

    def pause(self) -> None:
        """SIGSTOP: the connections stay open and nothing answers."""
        self._running().pause()

    def resume(self) -> None:
        """SIGCONT; returns at once."""
        self._running().resume()

    def kill(self) -> None:
        """SIGKILL, also when paused; returns when the process is gone."""
        self._running().kill9()

    def terminate(self) -> None:
        """SIGTERM; does not wait."""
        self._running().terminate()

    def stop(self, timeout: float = STOP) -> None:
        """SIGTERM, a controlled shutdown; returns when it is gone (killed after `timeout` seconds)."""
        process = self._running()
        process.resume()
        process.terminate()
        try:
            process.wait(timeout)
        except AssertionError:
            process.kill9()

    def close(self) -> None:
        """Kill it for good."""
        if self._process is not None:
            self._process.close()
