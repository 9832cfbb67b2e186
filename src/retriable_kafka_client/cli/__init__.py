"""The command `rkc`. Importable without the extra `cli`; the library itself imports nothing from here."""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]

_NEEDED = ("typer", "rich", "pydantic_settings")


def main() -> None:
    """Run the command line and exit with its code: 0 done, 1 failed, 2 usage, 3 not reachable."""
    missing = [name for name in _NEEDED if not _there(name)]
    if missing:
        # Before any import of ours: every other module of this package needs them.
        print(
            f"rkc: the command needs {', '.join(missing)}: pip install 'retriable-kafka-client[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(2)
    from retriable_kafka_client.cli.app import app

    app()


def _there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a finder, or an entry of sys.modules, that says no in its own way
        return False
