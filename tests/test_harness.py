"""The harness itself: what the other tests lean on."""

import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from retriable_kafka_client.testing import MockKafka
from tests.support.errors import HarnessError
from tests.support.evidence import EvidenceWriter, read_evidence
from tests.support.jars import find_java, kafka_version
from tests.support.kafka import Kafka, KafkaCluster
from tests.support.names import Topics
from tests.support.ports import PortLease
from tests.support.processes import GuardedProcess, Program
from tests.support.protocols import has_consumer_protocol
from tests.support.records import (
    Commit,
    committed,
    end_offsets,
    group_lag,
    group_size,
    produce_many,
    produce_one,
    read_all,
)
from tests.support.shared import SharedKafka, ask
from tests.support.waiting import wait_until

Start = Callable[..., KafkaCluster]


def answers(servers: str) -> bool:
    """Whether a broker answers a new client within half a second."""
    try:
        AdminClient({"bootstrap.servers": servers, "log_level": 0}).list_topics(timeout=0.5)
    except KafkaException:
        return False
    return True


def wait_for_status(pid: int, status: str) -> None:
    wait_until(lambda: psutil.Process(pid).status() == status, what=f"process {pid} is {status}")


def test_records_and_commits_on_the_mock_cluster(
    mock_kafka: Callable[[Mapping[str, int]], MockKafka],
) -> None:
    servers = mock_kafka({"orders": 2}).bootstrap_servers
    assert produce_many(servers, "orders", [b"%d" % i for i in range(100)], headers=[("a", b"1")]) == 100
    assert {one.headers for one in read_all(servers, "orders")} == {(("a", b"1"),)}
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "one", "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition("orders", 0, 7, "seven")], asynchronous=False)
    consumer.close()
    assert committed(servers, "one", "orders") == {0: Commit(7, "seven")}
    assert group_lag(servers, "one", "orders") == 93
    assert group_lag(servers, "other", "orders") == 100


def test_the_mock_cluster_has_the_consumer_protocol(
    mock_kafka: Callable[[Mapping[str, int]], MockKafka],
) -> None:
    assert has_consumer_protocol(mock_kafka({}).bootstrap_servers)


@pytest.mark.kafka
class TestRecords:
    def test_what_was_produced_is_read(self, kafka: Kafka, topics: Topics) -> None:
        topic = topics("all", 3, {"retention.ms": "600000"})
        sent = [b"%d" % i for i in range(5000)]
        headers = [("a", b"1"), ("a", None)]
        assert produce_many(kafka.bootstrap_servers, topic, sent, keys=sent, headers=headers) == 5000
        found = read_all(kafka.bootstrap_servers, topic)
        assert sorted(int(one.value or b"") for one in found) == list(range(5000))
        assert all(one.key == one.value and one.headers == tuple(headers) for one in found)
        assert {one.partition for one in found} == {0, 1, 2}
        assert sum(end_offsets(kafka.bootstrap_servers, topic).values()) == 5000

    def test_one_record_lands_where_it_was_sent(self, kafka: Kafka, topic: str) -> None:
        servers = kafka.bootstrap_servers
        assert produce_one(servers, topic, b"first", partition=2) == (2, 0)
        assert produce_one(servers, topic, None, partition=2, key=b"k", timestamp_ms=1234) == (2, 1)
        first, second = read_all(servers, topic)
        assert (first.value, first.key, first.headers) == (b"first", None, ())
        assert (second.value, second.key, second.timestamp_ms) == (None, b"k", 1234)

    def test_an_aborted_transaction_is_not_read(self, kafka: Kafka, topic: str) -> None:
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic})
        producer.init_transactions(10)
        for value, end in ((b"no", producer.abort_transaction), (b"yes", producer.commit_transaction)):
            producer.begin_transaction()
            producer.produce(topic, value, partition=0)
            producer.flush(10)
            end(10)
        assert [one.value for one in read_all(kafka.bootstrap_servers, topic)] == [b"yes"]
        assert end_offsets(kafka.bootstrap_servers, topic)[0] == 4  # two records, two markers

    def test_an_unknown_topic_is_an_error(self, kafka: Kafka, topics: Topics) -> None:
        with pytest.raises(KafkaException):
            read_all(kafka.bootstrap_servers, topics.name("missing"), timeout=5)

    def test_commits_and_lag(self, kafka: Kafka, topics: Topics) -> None:
        servers, topic, group = kafka.bootstrap_servers, topics(partitions=1), topics.group
        produce_many(servers, topic, [b"x"] * 10)
        assert committed(servers, group, topic) == {}
        assert group_lag(servers, group, topic) == 10
        assert group_size(servers, group) == 0
        consumer = Consumer({"bootstrap.servers": servers, "group.id": group, "enable.auto.commit": False})
        try:
            consumer.subscribe([topic])
            wait_until(lambda: consumer.poll(0.1) or consumer.assignment(), 30, "an assignment")
            assert group_size(servers, group) == 1
            consumer.commit(offsets=[TopicPartition(topic, 0, 7, "seven")], asynchronous=False)
        finally:
            consumer.close()
        assert committed(servers, group, topic) == {0: Commit(7, "seven")}
        assert group_lag(servers, group, topic) == 3
        wait_until(lambda: group_size(servers, group) == 0, 30, "the member has left")

    def test_a_deleted_topic_is_gone_and_can_come_back(self, kafka: Kafka, topics: Topics) -> None:
        topic = topics()
        produce_one(kafka.bootstrap_servers, topic, b"old", partition=0)
        kafka.delete_topic(topic)
        kafka.delete_topic(topic)
        kafka.create_topic(topic, partitions=1)
        assert read_all(kafka.bootstrap_servers, topic) == []


@pytest.mark.kafka
class TestBrokers:
    def test_a_broker_is_paused_killed_and_stopped(self, own_kafka: Start) -> None:
        cluster = own_kafka()
        broker = cluster.broker(1)
        topic = cluster.create_topic("kept", partitions=1)
        produce_one(cluster.bootstrap_servers, topic, b"1")

        broker.pause()
        assert not answers(broker.address)
        broker.resume()
        wait_until(lambda: answers(broker.address), 30, "the broker answers again")
        produce_one(cluster.bootstrap_servers, topic, b"2")

        broker.pause()
        broker.kill()  # a stopped process dies too
        assert not psutil.pid_exists(broker.pid)
        broker.start()
        produce_one(cluster.bootstrap_servers, topic, b"3")

        broker.stop()
        assert not answers(broker.address)
        broker.start()
        assert [one.value for one in read_all(cluster.bootstrap_servers, topic)] == [b"1", b"2", b"3"]

    def test_three_brokers_outlive_one(self, own_kafka: Start) -> None:
        cluster = own_kafka(3)
        topic = cluster.create_topic("copied", partitions=6)
        cluster.wait_in_sync(topic)
        cluster.broker(2).kill()
        produce_many(cluster.bootstrap_servers, topic, [b"%d" % i for i in range(1000)])
        cluster.broker(2).start()
        cluster.wait_members()
        cluster.wait_in_sync()
        assert len(read_all(cluster.bootstrap_servers, topic)) == 1000

    def test_users_and_rights(self, own_kafka: Start) -> None:
        cluster = own_kafka(acl=True, extra={"offset.metadata.max.bytes": "100"})
        topic = cluster.create_topic("guarded")
        admin, alice = ({**cluster.sasl(user), "log_level": 0} for user in ("admin", "alice"))
        servers = cluster.sasl_bootstrap_servers
        produce_one(servers, topic, b"by admin", settings=admin)
        with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
            produce_one(servers, topic, b"by alice", settings=alice)
        with pytest.raises(AssertionError, match="not acknowledged"):
            produce_one(servers, topic, b"x", settings={**alice, "sasl.password": "wrong"}, timeout=2)
        assert [one.value for one in read_all(cluster.bootstrap_servers, topic)] == [b"by admin"]

    def test_a_broker_that_cannot_start_says_why(self) -> None:
        cluster = KafkaCluster(extra={"listeners": "nonsense"})
        with pytest.raises(HarnessError, match="nonsense"):
            cluster.start()
        shutil.rmtree(cluster.log_dir, ignore_errors=True)

    def test_logs_are_removed_or_kept(self) -> None:
        with KafkaCluster() as cluster:
            assert cluster.broker(1).log.stat().st_size > 0
        assert not cluster.log_dir.exists()
        kept = KafkaCluster().start()
        kept.close(keep_logs=True)
        assert "Kafka Server started" in kept.broker(1).log.read_text()
        shutil.rmtree(kept.log_dir)

    def test_parallel_workers_have_one_which_is_started_when_asked_for(self) -> None:
        SharedKafka().close()
        shared = SharedKafka()
        try:
            with ThreadPoolExecutor(2) as pool:
                first, second = pool.map(ask, [shared.address] * 2)
            assert first == second
            assert answers(first)
        finally:
            log_dir = shared.close(keep_logs=True)
        assert not answers(first)
        assert log_dir is not None
        shutil.rmtree(log_dir)

    def test_nothing_is_left_after_a_kill_of_the_test_run(self, tmp_path: Path) -> None:
        """A process that started two brokers, one of them stopped, is killed with SIGKILL."""
        script = tmp_path / "start.py"
        script.write_text(
            "from tests.support.kafka import KafkaCluster\n"
            "import signal\n"
            "cluster = KafkaCluster(2).start()\n"
            "cluster.broker(1).pause()\n"
            "print('ready', *(broker.pid for broker in cluster.brokers), cluster.log_dir, flush=True)\n"
            "signal.pause()\n"
        )
        with Program(script, log=tmp_path / "output") as program:
            wait_until(lambda: "ready" in program.output or program.poll() is not None, 120, "two brokers")
            _, first, second, log_dir = program.output.split()
            brokers = [psutil.Process(int(pid)) for pid in (first, second)]
            home = Path(brokers[0].cmdline()[-1]).parent
            os.kill(program.pid, signal.SIGKILL)
            program.wait()
            wait_until(lambda: not any(one.is_running() for one in brokers), 10, "the brokers are gone")
            wait_until(lambda: not home.exists(), 10, "their data is gone")
        shutil.rmtree(log_dir)


class TestMachine:
    def test_missing_java_names_the_remedy(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("JAVA_HOME", raising=False)
        with pytest.raises(HarnessError, match="apt-get install openjdk-17-jre-headless"):
            find_java()

    def test_old_java_names_the_remedy(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        java = tmp_path / "bin" / "java"
        java.parent.mkdir()
        java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
        java.chmod(0o755)
        monkeypatch.setenv("JAVA_HOME", str(tmp_path))
        with pytest.raises(HarnessError, match=r"11\.0\.2.*version 17 or later"):
            find_java()

    def test_parallel_workers_are_told_what_is_missing(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("JAVA_HOME", raising=False)
        shared = SharedKafka()
        try:
            with pytest.raises(HarnessError, match="apt-get install openjdk-17-jre-headless"):
                ask(shared.address)
        finally:
            assert shared.close() is None

    def test_the_environment_names_the_version_of_the_brokers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("KAFKA_VERSION", raising=False)
        assert tuple(int(one) for one in kafka_version().split(".")) >= (4, 4, 0)
        monkeypatch.setenv("KAFKA_VERSION", "3.9.1")
        assert kafka_version() == "3.9.1"

    def test_ports_are_not_given_twice(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            leases = list(pool.map(lambda _: PortLease(20), range(8)))
        ports = [port for lease in leases for port in lease.ports]
        assert len(set(ports)) == 160
        for lease in leases:
            lease.close()


class TestProcesses:
    def test_a_program_ends_with_its_code_and_output(self, tmp_path: Path) -> None:
        script = tmp_path / "program.py"
        script.write_text("import sys, tests.support\nprint('said', sys.argv[1])\nsys.exit(7)\n")
        with Program(script, "this", log=tmp_path / "output") as program:
            assert program.wait() == 7
            assert program.poll() == 7
            assert program.output == "said this\n"

    def test_signals_reach_the_program(self, tmp_path: Path) -> None:
        sleeping = [sys.executable, "-c", "import signal; signal.pause()"]
        for number, end in enumerate((GuardedProcess.terminate, GuardedProcess.kill9, GuardedProcess.close)):
            with GuardedProcess(sleeping, log=tmp_path / str(number)) as process:
                assert process.poll() is None
                process.pause()
                wait_for_status(process.pid, psutil.STATUS_STOPPED)
                process.resume()
                end(process)
                expected = -signal.SIGTERM if number == 0 else -signal.SIGKILL
                assert process.wait() == expected

    def test_descendants_die_with_the_guarded_process(self, tmp_path: Path) -> None:
        code = (
            "import subprocess, sys\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
            "print(child.pid, flush=True)\n"
            "child.wait()\n"
        )
        log = tmp_path / "output"
        with GuardedProcess([sys.executable, "-c", code], log=log) as process:
            wait_until(lambda: log.stat().st_size, what="the grandchild's id")
            grandchild = psutil.Process(int(log.read_text()))
            process.kill9()
            assert grandchild.is_running()  # a killed program's own children are its affair until close()
        wait_until(lambda: not grandchild.is_running(), what="the grandchild is gone")

    def test_a_killed_guard_takes_its_process_along(self, tmp_path: Path) -> None:
        sleeping = [sys.executable, "-c", "import signal; signal.pause()"]
        with GuardedProcess(sleeping, log=tmp_path / "output") as process:
            child = psutil.Process(process.pid)
            os.kill(child.ppid(), signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            wait_until(lambda: not child.is_running(), what="the process is gone")

    def test_what_cannot_be_started_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(HarnessError, match="no-such-program"):
            GuardedProcess([str(tmp_path / "no-such-program")], log=tmp_path / "output")

    def test_waiting_has_an_end(self, tmp_path: Path) -> None:
        sleeping = [sys.executable, "-c", "import signal; signal.pause()"]
        with (
            GuardedProcess(sleeping, log=tmp_path / "output") as process,
            pytest.raises(AssertionError, match="still runs"),
        ):
            process.wait(0.2)
        begin = time.monotonic()
        with pytest.raises(AssertionError, match=r"a wonder \(last value: 0\)"):
            wait_until(lambda: 0, 0.1, "a wonder")
        assert time.monotonic() - begin < 5


class TestEvidence:
    def test_lines_of_many_processes_are_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "evidence"
        script = tmp_path / "write.py"
        script.write_text(
            "import sys\n"
            "from tests.support.evidence import EvidenceWriter\n"
            "with EvidenceWriter(sys.argv[1]) as evidence:\n"
            "    for i in range(2000):\n"
            "        evidence.write('handled', id=i, text='x' * (i % 300))\n"
        )
        programs = [Program(script, str(path), log=tmp_path / f"output-{i}") for i in range(3)]
        for program in programs:
            with program:
                assert program.wait() == 0, program.output
        events = read_evidence(path)
        assert len(events) == 6000
        for program in programs:
            assert [one["id"] for one in events if one["pid"] == program.pid] == list(range(2000))

    def test_a_line_that_is_being_written_is_not_there_yet(self, tmp_path: Path) -> None:
        path = tmp_path / "evidence"
        assert read_evidence(path) == []
        with pickle.loads(pickle.dumps(EvidenceWriter(path))) as writer:
            writer.write("one")
        with path.open("ab") as file:
            file.write(b'{"event"')
        assert [one["event"] for one in read_evidence(path)] == ["one"]
        with path.open("ab") as file:
            file.write(b"\n")
        with pytest.raises(ValueError, match="truncated"):
            read_evidence(path)
