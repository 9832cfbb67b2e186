"""The fixtures of the 0.x interface's tests: the shell's labs, and the published 0.7.0."""

from pathlib import Path

import pytest

from tests.compat import published
from tests.shell.conftest import lab, lab_on, real_lab, shared_mock

__all__ = ["lab", "lab_on", "real_lab", "shared_mock"]


@pytest.fixture(scope="session")
def published_python() -> Path:
    """A Python that imports the published 0.7.0; the test is skipped, and says so, where there can be none."""
    python = published.interpreter()
    if python is None:
        pytest.skip(published.WHEN_MISSING)
    return python
