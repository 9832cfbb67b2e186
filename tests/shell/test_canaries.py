"""Secrets and payloads go through every failure path of a program; nothing that it shows holds any."""

from collections.abc import Sequence
from pathlib import Path

from tests.shell.canary import names
from tests.support.kafka import Kafka
from tests.support.names import unique
from tests.support.processes import Program

REFUSED = ("ConfigError", "ConsumerFailed", "_AUTHENTICATION")
FAILED = ("DeliveryError", "MessageDeadLettered", "WorkerDied", "HandlerTimedOut", "ChunksGivenUp")


def test_no_secret_and_no_payload_is_shown_anywhere(tmp_path: Path) -> None:
    """What it shows: stdout, stderr, log at DEBUG, tracebacks, events, reprs, health, and all processes' command lines."""
    shown_by((), tmp_path / "shown", REFUSED + FAILED)


def test_nor_where_all_goes_through_transactions(kafka: Kafka, tmp_path: Path) -> None:
    prefix = unique("canaries").replace("canar", "bird") + "-"
    for name in names(prefix):
        kafka.create_topic(name, 1)
    shown_by((kafka.bootstrap_servers, prefix), tmp_path / "shown", FAILED)


def shown_by(arguments: Sequence[str], log: Path, words: Sequence[str]) -> None:
    with Program("-m tests.shell.canary", *arguments, log=log) as program:
        assert program.wait(400) == 0, program.output[-3000:]
        output = program.output
    assert "done" in output
    # It did fail, and said so.
    for word in words:
        assert word in output, word
    own = ("shell/canary.py", "shell.canary", "at canary.py")  # the program's name
    held = [
        line for line in output.splitlines() if "canary" in line and not any(name in line for name in own)
    ]
    assert not held, held[:5]
    assert "forged" not in output
    assert "\x1b" not in output and "\\x1b" not in output and "\x07" not in output
