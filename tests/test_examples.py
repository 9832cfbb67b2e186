"""Each example is a whole program: one command, an end by itself, exit code 0, and it says what happened."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kafka import Kafka
from tests.support.processes import REPOSITORY, Program
from tests.support.waiting import wait_until

EXAMPLES = sorted(path for path in (REPOSITORY / "examples").glob("*.py") if not path.name.startswith("_"))
WAIT = 120.0

# What each prints of its groups: handled, failed runs, retried, dead-lettered, dropped.
SAID = {
    "asgi_app": [("example-shop", 500, 5, 5, 0, 0)],
    "asyncio_calls": [("example-calling", 3000, 30, 30, 0, 0)],
    "big_file": [("example-files", 1, 1, 1, 0, 0)],
    "exactly_once_sqlite": [("example-payments", 500, 5, 5, 0, 0)],
    "processes": [("example-sealing", 199, 2, 1, 1, 0)],
    "scheduled_jobs": [("example-reminders", 40, 2, 2, 0, 0)],
    "several_topics": [("example-ledger", 600, 24, 24, 0, 0)],
    "shared_pool": [("example-invoicing", 500, 0, 0, 0, 0), ("example-statistics", 499, 1, 0, 0, 1)],
    "threads": [("example-billing", 999, 11, 10, 1, 0)],
}


def said(output: str) -> list[tuple[str, int, int, int, int, int]]:
    found = re.findall(
        r"^group (\S+): (\d+) handled, (\d+) failed runs, (\d+) retried, (\d+) dead-lettered, (\d+) dropped$",
        output,
        re.MULTILINE,
    )
    return [(group, int(a), int(b), int(c), int(d), int(e)) for group, a, b, c, d, e in found]


@pytest.fixture(scope="module")
def on_the_mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Program]]:
    """All of them, started side by side: they mostly wait for their brokers."""
    folder = tmp_path_factory.mktemp("examples")
    programs = {path.stem: Program(path, log=folder / f"{path.stem}.log") for path in EXAMPLES}
    yield programs
    for program in programs.values():
        program.close()


def test_there_is_one_for_each_of_these() -> None:
    assert {path.stem for path in EXAMPLES} == SAID.keys()


@pytest.mark.parametrize("name", SAID)
def test_on_the_embedded_broker(name: str, on_the_mock: dict[str, Program]) -> None:
    program = on_the_mock[name]
    assert program.wait(WAIT) == 0, program.output
    assert said(program.output) == SAID[name]
    assert "Traceback" not in program.output


def test_on_real_kafka(kafka: Kafka, tmp_path: Path) -> None:
    def theirs() -> set[str]:
        """Their topics: by the ending, for other tests come and go on the same brokers."""
        topics = kafka.admin().list_topics(timeout=10).topics
        return {name for name in topics if re.search(r"-[0-9a-f]{8}$", name)}

    before = theirs()
    programs = [
        Program(path, "--bootstrap-servers", kafka.bootstrap_servers, log=tmp_path / f"{path.stem}.log")
        for path in EXAMPLES
    ]
    try:
        wait_until(lambda: theirs() - before, what="the examples make topics")
        for path, program in zip(EXAMPLES, programs, strict=True):
            assert program.wait(WAIT) == 0, program.output
            assert said(program.output) == SAID[path.stem]
    finally:
        for program in programs:
            program.close()

    wait_until(lambda: theirs() <= before, what="the examples delete the topics that they made")


def test_they_are_a_page_each() -> None:
    for path in EXAMPLES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 100, path.name
