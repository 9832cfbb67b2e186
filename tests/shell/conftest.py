"""The fixtures of the shell's tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from retriable_kafka_client.testing import MockKafka
from tests.shell.lab import Lab
from tests.support.kafka import Kafka


@pytest.fixture(scope="session")
def shared_mock() -> Iterator[MockKafka]:
    with MockKafka() as mock:
        yield mock


@pytest.fixture(params=[pytest.param("mock"), pytest.param("real", marks=pytest.mark.kafka)])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A test's own corner of the shared mock cluster, and then of the shared Kafka."""
    name = request.node.originalname
    if request.param == "mock":
        mock: MockKafka = request.getfixturevalue("shared_mock")
        made = Lab(mock.bootstrap_servers, lambda topic, n, _: mock.create_topic(topic, n), name, real=False)
    else:
        kafka: Kafka = request.getfixturevalue("kafka")
        made = Lab(kafka.bootstrap_servers, kafka.create_topic, name, real=True)
    with made:
        yield made


@pytest.fixture
def real_lab(kafka: Kafka, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A test's own corner of the shared Kafka."""
    with Lab(kafka.bootstrap_servers, kafka.create_topic, request.node.originalname, real=True) as made:
        yield made


@pytest.fixture
def lab_on(request: pytest.FixtureRequest) -> Iterator[Callable[[Kafka], Lab]]:
    """`lab_on(cluster)`: the same on a cluster of the test's own."""
    with ExitStack() as stack:
        yield lambda kafka: stack.enter_context(
            Lab(kafka.bootstrap_servers, kafka.create_topic, request.node.originalname, real=True)
        )
