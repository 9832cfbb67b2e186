"""Secrets and payloads go through every failure path of a program; nothing that it shows holds any."""

from pathlib import Path

from tests.support.processes import Program


def test_no_secret_and_no_payload_is_shown_anywhere(tmp_path: Path) -> None:
    """What it shows: stdout, stderr, log at DEBUG, tracebacks, events, reprs, health, and all processes' command lines."""
    with Program("-m tests.shell.canary", log=tmp_path / "shown") as program:
        assert program.wait(240) == 0, program.output[-3000:]
        output = program.output
    assert "done" in output
    # It did fail, and said so.
    for word in (
        "ConfigError",
        "DeliveryError",
        "ConsumerFailed",
        "MessageDeadLettered",
        "WorkerDied",
        "_AUTHENTICATION",
    ):
        assert word in output
    own = ("shell/canary.py", "shell.canary", "at canary.py")  # the program's name
    held = [
        line for line in output.splitlines() if "canary" in line and not any(name in line for name in own)
    ]
    assert not held, held[:5]
    assert "forged" not in output
    assert "\x1b" not in output and "\\x1b" not in output and "\x07" not in output
