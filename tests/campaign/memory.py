"""The resident memory of a process over time."""

import time
from statistics import median

import psutil

__all__ = ["Memory"]

MIB = 1 << 20


class Memory:
    """Samples of a process's resident memory, in MiB. Call `sample` while waiting."""

    def __init__(self, pid: int, every: float = 0.2) -> None:
        self._process = psutil.Process(pid)
        self._every = every
        self._next = 0.0
        self.samples: list[float] = []

    def sample(self) -> None:
        """Take a sample if it is time for one."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every
            self.samples.append(self._process.memory_info().rss / MIB)

    @property
    def peak(self) -> float:
        return max(self.samples)

    def growth(self) -> float:
        """By how much the last quarter's median exceeds that of the second quarter."""
        quarter = len(self.samples) // 4
        return median(self.samples[-quarter:]) - median(self.samples[quarter : 2 * quarter])
