"""Runs a command that must not outlive the process that asked for it, whatever ends that process.

Started as a script with the bare interpreter (it imports nothing of the project):

    python guard.py PARENT_PID STATUS_FD REMOVE -- COMMAND...

The command runs as leader of its own session. Two lines are written to STATUS_FD: its process id, then,
once it has ended, its exit code (minus the signal's number if a signal ended it). The guard stays while any
process of that session's group lives. It kills the whole group (also stopped processes) when the parent is
gone or when it is told to with SIGTERM; when the parent is gone it removes the folder REMOVE besides (""
for none).
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
import types

PR_SET_PDEATHSIG = 1
LOOK_EVERY = 0.2  # seconds; how long an orphan may live


class Told(Exception):
    """SIGTERM came."""


def tell(_signum: int, _frame: types.FrameType | None) -> None:
    # Asked once is enough: a second SIGTERM must not interrupt the clean-up that the first began.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Told


def die_with_guard() -> None:
    """In the child, before exec: the kernel is to kill it if the guard itself is killed."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group whose only member is a zombie
        return False
    return True


def main(argv: list[str]) -> int:
    parent, status, remove = int(argv[1]), int(argv[2]), argv[3]
    os.set_inheritable(status, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    signal.signal(signal.SIGTERM, tell)
    child: subprocess.Popen[bytes] | None = None
    orphaned = False
    try:
        # The guard has one thread, so that code between fork and exec is safe.
        child = subprocess.Popen(argv[5:], start_new_session=True, preexec_fn=die_with_guard)  # noqa: PLW1509
        os.write(status, b"%d\n" % child.pid)
        said = False
        while True:
            orphaned = os.getppid() != parent
            if orphaned:
                break
            try:
                code = child.wait(LOOK_EVERY)
            except subprocess.TimeoutExpired:
                continue
            if not said:
                said = True
                os.write(status, b"%d\n" % code)
            if not group_lives(child.pid):
                return 0
            time.sleep(LOOK_EVERY)
    except Told:
        pass
    finally:
        if child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if orphaned and remove:
            shutil.rmtree(remove, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
