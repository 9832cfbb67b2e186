"""Fixtures of the whole suite. What they hand out is described in `tests/support/__init__.py`."""

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.kafka import Kafka, KafkaCluster
from tests.support.names import Topics, unique
from tests.support.shared import SharedKafka, ask

if TYPE_CHECKING:
    from retriable_kafka_client.testing import MockKafka

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


_FAILED = pytest.StashKey[bool]()
_KEPT = pytest.StashKey[list[str]]()
_SHARED = pytest.StashKey[SharedKafka]()
REAL_KAFKA = {"kafka", "own_kafka", "topics", "topic"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs real Kafka, so that `-m "not kafka"` is the quick part of the suite."""
    for item in items:
        if REAL_KAFKA.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember failures, for fixtures that keep logs of failed tests."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A parallel worker is about to start (pytest-xdist): it is told where to ask for the Kafka of all workers."""
    stash: pytest.Stash = node.config.stash
    if _SHARED not in stash:
        stash[_SHARED] = SharedKafka()
    node.workerinput["kafka"] = stash[_SHARED].address


@pytest.hookimpl(trylast=True)  # once the workers are gone
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With parallel workers: they tell the process that reports where logs are kept, and that ends their Kafka."""
    config = session.config
    output: dict[str, object] | None = getattr(config, "workeroutput", None)
    if output is not None:
        output["kept"] = config.stash.get(_KEPT, [])
    if _SHARED in config.stash:
        kept = config.stash[_SHARED].close(keep_logs=session.testsfailed > 0)
        del config.stash[_SHARED]
        if kept is not None:
            config.stash.setdefault(_KEPT, []).append(str(kept))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A parallel worker has ended (pytest-xdist)."""
    kept: list[str] = getattr(node, "workeroutput", {}).get("kept", [])
    node.config.stash.setdefault(_KEPT, []).extend(kept)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where the logs of failed tests' brokers are."""
    for folder in terminalreporter.config.stash.get(_KEPT, []):
        terminalreporter.write_line(f"broker logs kept in {folder}")


def _close(cluster: KafkaCluster, failed: bool, config: pytest.Config) -> None:
    cluster.close(keep_logs=failed)
    if failed:
        config.stash.setdefault(_KEPT, []).append(str(cluster.log_dir))


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[Kafka]:
    """The shared Kafka: KAFKA_BOOTSTRAP_SERVERS, else one broker started when first wanted. Never stop it."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    of_all_workers: str | None = getattr(request.config, "workerinput", {}).get("kafka")
    if not given and of_all_workers:
        given = ask(of_all_workers)
    if given:
        shared = Kafka(given)
        yield shared
        shared.close()
        return
    failed_before = request.session.testsfailed
    cluster = KafkaCluster().start()
    try:
        yield cluster
    finally:
        _close(cluster, request.session.testsfailed > failed_before, request.config)


@pytest.fixture
def own_kafka(request: pytest.FixtureRequest) -> Iterator[Callable[..., KafkaCluster]]:
    """`own_kafka(brokers=1, users=…, acl=False, extra={…})` starts a cluster that the test may break."""
    clusters: list[KafkaCluster] = []

    def start(brokers: int = 1, **options: Any) -> KafkaCluster:
        clusters.append(KafkaCluster(brokers, **options))
        return clusters[-1].start()

    try:
        yield start
    finally:
        for cluster in clusters:
            _close(cluster, request.node.stash.get(_FAILED, False), request.config)


@pytest.fixture
def topics(kafka: Kafka, request: pytest.FixtureRequest) -> Topics:
    """This test's own topics and groups on the shared Kafka: `topics("orders", 4, {…})`, `.group`."""
    return Topics(kafka, request.node.originalname or request.node.name)


@pytest.fixture
def topic(topics: Topics) -> str:
    """One topic of this test's own with four partitions."""
    return topics()


@pytest.fixture(scope="module")
def mock() -> Iterator["MockKafka"]:
    """A mock cluster that a module's tests share."""
    from retriable_kafka_client.testing import MockKafka

    with MockKafka() as kafka:
        yield kafka


@pytest.fixture
def orders(mock: "MockKafka") -> str:
    """A topic of the test's own on it, with one partition."""
    name = unique("orders")
    mock.create_topic(name, 1)
    return name


@pytest.fixture
def mock_kafka() -> Iterator[Callable[[Mapping[str, int]], "MockKafka"]]:
    """`mock_kafka({"orders": 4})` starts librdkafka's mock cluster with these topics until the test's end."""
    from retriable_kafka_client.testing import MockKafka

    with contextlib.ExitStack() as stack:
        yield lambda topics: stack.enter_context(MockKafka(topics=topics))
