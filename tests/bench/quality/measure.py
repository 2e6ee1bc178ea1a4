"""Runs one command and says what its whole tree of processes used, as one JSON line: processor seconds, peak memory,
wall seconds, exit code.

    python measure.py SECONDS COMMAND ...     # SECONDS: wall time after which the tree is ended

Every process that outlives its parent becomes this program's child (Linux), is ended at the end, and is waited for,
so that
getrusage(RUSAGE_CHILDREN) counts each of them. When the program that called it is killed, the tree ends, too. Imports
nothing heavy: a child begins with the peak memory of the process that started it.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time

SUBREAPER, PARENT_ENDED = 36, 1  # prctl(2): PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG


def descendants(of: int) -> list[int]:
    "Processes below one, by /proc; empty where there is none."
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents.setdefault(int(file.read().rpartition(")")[2].split()[1]), []).append(int(name))
            except OSError:  # it has ended meanwhile
                continue
    found = list(parents.get(of, []))
    for pid in found:
        found += parents.get(pid, [])
    return found


def reap(first: int, until: float) -> int | None:
    "Wait for children until the first one has ended; its exit code, or None when time is over."
    while time.monotonic() < until:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == first:
            return os.waitstatus_to_exitcode(status)
        if pid == 0:
            time.sleep(0.05)
    return None


def end_all() -> None:
    "End what is left and wait for it."
    while True:
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def measured(command: list[str], limit: float) -> dict[str, float | int | None]:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(SUBREAPER, 1, 0, 0, 0)
        libc.prctl(PARENT_ENDED, signal.SIGTERM, 0, 0, 0)
    since = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ)
    code = reap(pid, since + limit)
    end_all()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "cpu": used.ru_utime + used.ru_stime,  # seconds
        "peak_mb": used.ru_maxrss * unit / 1e6,  # of the largest process
        "wall": time.monotonic() - since,
        "code": code,  # None: its time was over
    }  # fmt: skip


if __name__ == "__main__":
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, lambda number, _: (end_all(), sys.exit(128 + number)))
    print(json.dumps(measured(sys.argv[2:], float(sys.argv[1]))))
