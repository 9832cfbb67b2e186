"""Running `program.py` with this library or with the published 0.7.0."""

import json
import os
from pathlib import Path
from typing import Any

from tests.support.evidence import read_evidence
from tests.support.processes import GuardedProcess, Program

__all__ = ["events", "start"]

SCRIPT = Path(__file__).with_name("program.py")


def start(folder: Path, name: str, *, published: Path | None = None, **told: Any) -> GuardedProcess:
    """Start a program that writes `evidence.jsonl` and `<name>.log` in the folder; `published`: with 0.7.0."""
    said = json.dumps({"evidence": str(folder / "evidence.jsonl"), "name": name, **told})
    log = folder / f"{name}.log"
    if published is None:
        return Program(SCRIPT, said, log=log)
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return GuardedProcess([str(published), "-u", str(SCRIPT), said], log=log, env=env, cwd=folder)


def events(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    """What programs noted of these kinds, in order."""
    path = folder / "evidence.jsonl"
    return [one for one in read_evidence(path) if one["event"] in kinds] if path.exists() else []
