"""How time and memory grow with rows: one made table, 10,000 to a million rows; in a log-log picture the slope of
linear growth is 1.
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made
import numpy as np
from cells import Results, key
from report import grid, in_a_line
from tables import read
from tools import versions

ROWS = (10_000, 100_000, 1_000_000)
TOLERANCE = 0.1  # over a slope of 1: two runs of one size differ by a few percent


def slope(rows: list[int], used: list[float]) -> float:
    "The steepest slope from one size to the next, which a fixed cost of small tables can't hide; nan with one size."
    steps = np.diff(np.log(used)) / np.diff(np.log(rows))
    return float(steps.max(initial=-math.inf)) if len(steps) else math.nan


def measure(given: argparse.Namespace, one_cell: Callable[..., dict[str, Any]]) -> str:
    "Measure ours, and plain boosting beside it, at each size; the report."
    results, place = Results(given.cache / "growth.jsonl"), given.cache / "growth"
    found: dict[str, list[dict[str, Any]]] = {tool: [] for tool in ("ours", "hgb") if tool in given.tools}
    for rows in given.growth or ROWS:
        table = read(made.write_grown(place, rows))
        for tool, seen in found.items():
            name = key(
                table=table.digest,
                seed=0,
                tool=tool,
                versions=versions(tool, Path(sys.executable)),
                budget=given.budget,
                threads=given.threads,
            )
            if name not in results.known or (results.known[name]["error"] and given.retry):
                cell = one_cell(table, 0, tool, Path(sys.executable), given, place / f"{name}.npz")
                results.add(
                    {
                        "key": name,
                        "table": table.name,
                        "seed": 0,
                        "tool": tool,
                        "rows": rows,
                        "budget": given.budget,
                        **cell,
                    }
                )
                print(in_a_line(results.known[name]), file=sys.stderr, flush=True)
            seen.append(results.known[name])
    return text(found)


def text(found: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "# Growth",
        "",
        "Processor time of the process tree and memory of its largest process, from the raw CSV to held-out answers.",
        "",
    ]
    shown = [
        [tool, f"{c['rows']:,}", f"{c['cpu']:.1f}", f"{c['wall']:.1f}", f"{c['peak_mb']:,.0f}", c["error"][-80:] or "-"]
        for tool, cells in found.items()
        for c in cells
    ]
    lines += [grid(["tool", "rows", "processor, s", "wall, s", "peak, MB", "error"], shown), ""]
    for tool, cells in found.items():
        well = [c for c in cells if not c["error"]]
        for what, unit in (("cpu", "time"), ("peak_mb", "memory")):
            grows = slope([c["rows"] for c in well], [c[what] for c in well])
            if math.isfinite(grows):
                lines.append(
                    f"bench growth_{unit}_{tool} {grows:.3f} <={1 + TOLERANCE:g} "
                    f"{'holds' if grows <= 1 + TOLERANCE else 'short'}"
                )
    return "\n".join(lines) + "\n"
