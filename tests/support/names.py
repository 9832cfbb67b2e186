"""Names of topics and groups that no other test, run or machine uses."""

import itertools
import os
import re
import uuid
from collections.abc import Mapping

from tests.support.kafka import Kafka

__all__ = ["Topics", "unique"]

_RUN = uuid.uuid4().hex[:6]
_NUMBERS = itertools.count(1)


def unique(label: str) -> str:
    """`label` with a suffix that makes it unique: a topic's, group's or user's name."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-")[:150]
    return f"{plain}-{_RUN}-{os.getpid()}-{next(_NUMBERS)}"


class Topics:
    """A test's own topics and groups on one cluster."""

    def __init__(self, kafka: Kafka, test: str) -> None:
        self.kafka = kafka
        self._test = test
        self.group = self.name("group")
        """A group of this test's own."""

    def name(self, label: str = "topic") -> str:
        """A name of this test's own; nothing is created."""
        return unique(f"{self._test}-{label}")

    def __call__(
        self, label: str = "topic", partitions: int = 4, config: Mapping[str, str] | None = None
    ) -> str:
        """Create a topic of this test's own and return its name."""
        return self.kafka.create_topic(self.name(label), partitions, config)
