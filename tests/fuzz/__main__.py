"""Atheris on one target: ``python -m tests.fuzz TARGET [libFuzzer's options]``, as `scripts/fuzz.sh` calls it."""

import importlib
import sys


def main() -> None:
    # Only `make fuzz` installs it, into an environment of its own.
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["retriable_kafka_client", "json"]):
        targets = importlib.import_module("tests.fuzz.targets").TARGETS
    if sys.argv[1:2] == ["--list"]:
        print(*targets)
        return
    if len(sys.argv) < 2 or sys.argv[1] not in targets:
        raise SystemExit(f"usage: python -m tests.fuzz --list | {{{','.join(targets)}}} [-runs=N …]")
    atheris.Setup([sys.argv[0], *sys.argv[2:]], targets[sys.argv[1]])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
