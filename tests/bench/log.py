"""The prediction log: what `put` costs beside encoding the record, what its thread costs at 10,000 records a second, strict beside single commits."""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from _figures import tell
from mlops_nb.log.predictions import PredictionLog, Record

ROW = {f"field_{n}": n * 1.5 if n % 2 else f"category {n}" for n in range(14)}


def record(number: int) -> Record:
    return Record(f"{number:032x}", time.time_ns() // 1000, "income", 3, "", None, json.dumps(ROW).encode(), b'{"decision": ">50K", "probability": 0.61}', 3e-4, b"[]")


def cost(work: Callable[[], object], times: int = 2000, rounds: int = 30) -> float:
    "us of this thread's CPU, the least of some rounds."
    taken = []
    for _ in range(rounds):
        since = time.thread_time()
        for _ in range(times):
            work()
        taken.append((time.thread_time() - since) / times)
    return min(taken) * 1e6


def put_cost(home: Path) -> float:
    log, one = PredictionLog(home, interval=600, max_rows=10**7, max_bytes=10**11), [record(0)]
    return cost(lambda: log.put(one))


def writer_share(home: Path, rate: int = 10_000, seconds: int = 3) -> float:
    "Share of a core that the log's own thread uses while records come at that rate."
    log, records = PredictionLog(home), [record(n) for n in range(rate * seconds)]
    since, process, own, done = time.perf_counter(), time.process_time(), time.thread_time(), 0
    while done < len(records):
        due = min(len(records), int((time.perf_counter() - since) * rate))
        for one in records[done:due]:
            log.put([one])
        done = due
        time.sleep(0.001)
    log.flush()
    used = (time.process_time() - process) - (time.thread_time() - own)
    assert log.close().written == len(records)
    return used / seconds


def strict_gain(home: Path, clients: int = 64, seconds: float = 2.0) -> tuple[float, float]:
    "Acknowledged records a second, and how many times as many as syncs of one small write each."
    handle = os.open(home / "synced", os.O_WRONLY | os.O_CREAT)
    since, syncs = time.perf_counter(), 0
    while time.perf_counter() - since < seconds:
        os.write(handle, bytes(500))
        os.fdatasync(handle)
        syncs += 1
    os.close(handle)
    log, until, told = PredictionLog(home, durability="strict"), time.perf_counter() + seconds, 0

    async def client() -> None:
        nonlocal told
        while time.perf_counter() < until:
            if await log.written([record(told)]):
                told += 1

    async def everyone() -> None:
        await asyncio.gather(*(client() for _ in range(clients)))

    asyncio.run(everyone())
    log.close()
    return told / seconds, told / syncs


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        homes = [Path(folder, name) for name in ("put", "share", "strict")]
        for home in homes:
            home.mkdir()
        put, encode = put_cost(homes[0]), cost(lambda: json.dumps(ROW), 500)
        share = writer_share(homes[1])
        rate, gain = strict_gain(homes[2])
    print(f"put {put:.2f} us a record, its inputs as JSON {encode:.1f} us; strict, 64 clients: {rate:.0f} records/s")
    tell("log_put_ratio", put / encode, "<=0.3", put / encode <= 0.3)
    tell("log_writer_core_share", share, "<=0.2", share <= 0.2)
    tell("log_strict_per_sync", gain, ">=10", gain >= 10)


if __name__ == "__main__":
    sys.exit(main())
