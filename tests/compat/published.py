"""The published 0.7.0, in a virtual environment of its own outside the checkout."""

import fcntl
import functools
import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["VERSION", "interpreter"]

VERSION = "0.7.0"
WHEN_MISSING = "no Python 3.13 with pip's index is at hand, which the published 0.7.0 runs on"


@functools.cache
def interpreter() -> Path | None:
    """The Python that has 0.7.0 installed, made when first asked for; None where it cannot be."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    cache = Path(base) / "retriable-kafka-client"
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / f"published-{VERSION}"
    python = home / "bin" / "python"
    with (cache / "published.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _works(python):
            return python
        shutil.rmtree(home, ignore_errors=True)
        maker = _python_3_13()
        if maker is None:
            return None
        wanted = f"retriable-kafka-client=={VERSION}"
        done = _runs(maker, "-m", "venv", str(home)) and _runs(
            str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", wanted
        )
        return python if done and _works(python) else None


def _python_3_13() -> str | None:
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [str(one) for one in sorted(pyenv.glob("3.13*/bin/python"))]
    for candidate in [*candidates, "python3.13"]:
        if _runs(candidate, "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 13))"):
            return candidate
    return None


def _works(python: Path) -> bool:
    check = f"import importlib.metadata as m; assert m.version('retriable-kafka-client') == '{VERSION}'"
    return python.exists() and _runs(str(python), "-c", check)


def _runs(*command: str) -> bool:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        return subprocess.run(command, env=env, capture_output=True, timeout=300, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
