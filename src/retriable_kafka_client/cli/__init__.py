"""The command `rkc`. Importable without the extra `cli`; the library itself imports nothing from here."""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]

_NEEDED = ("typer", "rich", "pydantic_settings")


def main() -> None:
    """Run the command line and exit with its code: 0 done, 1 failed, 2 usage, 3 not reachable."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        # No import of ours first: everything in this package but this module needs them.
        print(
            f"rkc: {', '.join(missing)} not installed; the command needs: "
            "pip install 'retriable-kafka-client[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(2)
    from retriable_kafka_client.cli.app import app

    app()
