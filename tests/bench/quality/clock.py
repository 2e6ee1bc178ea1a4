"""Peers know budgets of wall time only, and this machine's cores are shared: their clock is made to show processor
time, before they are imported.
"""

import os
import time

_BEGAN = time.time()


def processor_seconds() -> float:
    "Of this process, all of its threads, and its children that have ended."
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def by_processor() -> None:
    "From now on `time.time`, `time.monotonic` and `time.perf_counter` go by processor seconds."
    time.time = lambda: _BEGAN + processor_seconds()
    time.monotonic = time.perf_counter = processor_seconds
