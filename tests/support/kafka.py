"""Real Apache Kafka for tests: somebody else's, or clusters of our own that tests may stop and start again.

`python -m tests.support.kafka [--brokers N]` starts one until Ctrl-C, for KAFKA_BOOTSTRAP_SERVERS.
"""

import argparse
import base64
import itertools
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.support.brokers import Broker, Node, format_storage, node_settings, write_settings
from tests.support.ports import PortLease
from tests.support.processes import REPOSITORY
from tests.support.waiting import WAIT, wait_until

__all__ = ["USERS", "Kafka", "KafkaCluster"]

USERS: Mapping[str, str] = MappingProxyType({"admin": "admin-password", "alice": "alice-password"})
"""The users of a cluster of our own unless a test names others. With ACLs `admin` may do everything."""

ARTIFACTS = REPOSITORY / ".artifacts" / "kafka-logs"
NUMBERS = itertools.count(1)


class Kafka:
    """A Kafka cluster that a test may create topics in, and no more."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        """PLAINTEXT listeners."""
        self._admin: AdminClient | None = None
        self._created: list[str] = []

    def admin(self) -> AdminClient:
        """An admin client of this cluster, the same each time."""
        if self._admin is None:
            self._admin = AdminClient(
                {
                    "bootstrap.servers": self.bootstrap_servers,
                    "reconnect.backoff.max.ms": 500,
                    "log_level": 0,
                }
            )
        return self._admin

    def create_topic(
        self,
        name: str,
        partitions: int = 4,
        config: Mapping[str, str] | None = None,
        *,
        replication_factor: int = -1,
        timeout: float = WAIT,
    ) -> str:
        """Create a topic and wait until all its partitions have a leader; returns the name."""
        topic = NewTopic(name, partitions, replication_factor, config=dict(config or {}))
        self.admin().create_topics([topic], operation_timeout=timeout)[name].result(timeout)
        self._created.append(name)

        def led() -> bool:
            known = self.admin().list_topics(name, timeout=timeout).topics[name]
            leaders = [one.leader for one in known.partitions.values() if one.error is None]
            return len(leaders) == partitions and min(leaders) >= 0

        wait_until(led, timeout, f"topic {name} has leaders")
        return name

    def delete_topic(self, name: str, *, timeout: float = WAIT) -> None:
        """Delete a topic and wait until the brokers no longer know it; a missing one is no error."""
        try:
            self.admin().delete_topics([name], operation_timeout=timeout)[name].result(timeout)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise

        def gone() -> bool:
            return name not in self.admin().list_topics(timeout=timeout).topics

        wait_until(gone, timeout, f"topic {name} is gone")

    def close(self, *, keep_logs: bool = False) -> None:
        """Leave the cluster as it was found: ask for the deletion of the topics that were created here."""
        if self._created:
            self.admin().delete_topics(
                list(dict.fromkeys(self._created))
            )  # a name twice would crash the client
            self.admin().poll(1.0)
        self._created.clear()
        self._admin = None


class KafkaCluster(Kafka):
    """Apache Kafka in KRaft mode on 127.0.0.1, started by `start()` or `with`, gone after `close()`.

    Each broker has a PLAINTEXT and a SASL_PLAINTEXT (SCRAM-SHA-512) listener. With `acl=True` the
    authorizer is on: PLAINTEXT clients and the user `admin` may do everything, other users nothing before a
    test grants it. `extra` overrides any broker setting. `sasl_fronts`: for each broker the port that it sends SASL
    clients to, if it is not its own. `for_speed=True`: brokers that take longer to get going, and do more per second
    then. Logs are in `log_dir`; `close(keep_logs=True)` keeps them.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        users: Mapping[str, str] = USERS,
        acl: bool = False,
        extra: Mapping[str, str] | None = None,
        sasl_fronts: Sequence[int] = (),
        for_speed: bool = False,
    ) -> None:
        self.users = dict(users)
        self._acl = acl
        self._extra = dict(extra or {})
        self._home = Path(tempfile.mkdtemp(prefix="retriable-kafka-client-kafka-"))
        self._lease = PortLease(3 * brokers)
        ports = iter(self._lease.ports)
        self._nodes = tuple(
            Node(
                id=1 + i,
                plain_port=next(ports),
                sasl_port=next(ports),
                controller_port=next(ports),
                sasl_front=sasl_fronts[i] if sasl_fronts else None,
            )
            for i in range(brokers)
        )
        self.log_dir = ARTIFACTS / f"{os.getpid()}-{next(NUMBERS)}"
        """Where the brokers write `broker-1.log` and so on."""
        self._brokers = tuple(
            Broker(
                node,
                self._settings(node),
                self.log_dir / f"broker-{node.id}.log",
                self._home,
                for_speed=for_speed,
            )
            for node in self._nodes
        )
        super().__init__(",".join(broker.address for broker in self._brokers))
        self.sasl_bootstrap_servers = ",".join(broker.sasl_address for broker in self._brokers)

    def _settings(self, node: Node) -> Path:
        return self._home / f"server-{node.id}.properties"

    def _format(self, node: Node, cluster_id: str) -> None:
        settings = node_settings(node, self._nodes, self._home / f"data-{node.id}")
        if self._acl:
            settings |= {
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS;User:admin",
            }
        write_settings(self._settings(node), settings | self._extra)
        format_storage(self._settings(node), cluster_id, self.users)

    def start(self) -> Self:
        """Start all brokers and wait until each answers and knows the others."""
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if cluster_id.startswith("-"):  # the storage tool would take it for an option
            cluster_id = "A" + cluster_id[1:]
        try:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda node: self._format(node, cluster_id), self._nodes))
            for broker in self._brokers:
                broker.launch()
            for broker in self._brokers:
                broker.wait_ready()
            self.wait_members()
        except BaseException:
            self.close(keep_logs=True)
            raise
        return self

    def wait_members(self, timeout: float = WAIT) -> None:
        """Wait until every broker is a member again (after a start or a resume)."""

        def all_there() -> bool:
            return len(self.admin().list_topics(timeout=timeout).brokers) == len(self._brokers)

        wait_until(all_there, timeout, f"{len(self._brokers)} brokers are members")

    def wait_in_sync(self, *topics: str, timeout: float = 60.0) -> None:
        """Wait until all replicas of the topics (of all topics, if none is named) are in sync."""

        def in_sync() -> bool:
            known = self.admin().list_topics(timeout=timeout).topics
            chosen = [known[name] for name in topics or known]
            return all(
                len(one.isrs) == len(one.replicas) and one.leader >= 0
                for topic in chosen
                for one in topic.partitions.values()
            )

        wait_until(in_sync, timeout, "all replicas are in sync", every=0.1)

    def broker(self, number: int) -> Broker:
        """A broker by its node id: 1, 2, …"""
        return self._brokers[number - 1]

    @property
    def brokers(self) -> Sequence[Broker]:
        """All brokers, in the order of their ids."""
        return self._brokers

    def sasl(self, user: str) -> dict[str, Any]:
        """librdkafka settings that log in as one of `users` over the SASL_PLAINTEXT listener."""
        return {
            "bootstrap.servers": self.sasl_bootstrap_servers,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": self.users[user],
        }

    def close(self, *, keep_logs: bool = False) -> None:
        """Kill the brokers, remove their data and, unless told otherwise, their logs; may be repeated."""
        self._admin = None
        for broker in self._brokers:
            broker.close()
        self._lease.close()
        shutil.rmtree(self._home, ignore_errors=True)
        if not keep_logs:
            shutil.rmtree(self.log_dir, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(keep_logs=error is not None)


def main() -> None:
    """Start a cluster, print how to use it, and keep it until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="Apache Kafka for the tests, until Ctrl-C.")
    parser.add_argument("--brokers", type=int, default=1)
    asked, ask = os.pipe()  # unlike an Event it bears a handler that interrupts another one
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: os.write(ask, b"."))
    with KafkaCluster(parser.parse_args().brokers) as cluster:
        print(f"export KAFKA_BOOTSTRAP_SERVERS={cluster.bootstrap_servers}", flush=True)
        os.read(asked, 1)


if __name__ == "__main__":
    main()
