"""Drift of a window of 100,000 rows and 30 columns against a stored profile, beside Evidently's DataDriftPreset on the same rows in the same run; figures against scipy's; peak memory at a million rows.

Evidently doesn't import under pandas 3, so it gets an environment of its own under .bench/. `--peers` makes it when it isn't there (a minute of downloads); without, it is compared where it was made before and named otherwise.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from _figures import tell
from scipy import stats

from mlops_nb.stats.drift import Drift, compare
from mlops_nb.stats.profile import Profile

HERE = Path(__file__)
PEER = HERE.parents[2] / ".bench" / "evidently"
PACKAGES = ("evidently==0.7.*", "pandas<3")
ROWS = 100_000
EVIDENTLY = """
import sys, time, warnings
warnings.filterwarnings("ignore")
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset

frames = [pd.read_parquet(file) for file in sys.argv[1:]]
since = time.perf_counter()
Report([DataDriftPreset()]).run(frames[1], frames[0]).dict()
print(time.perf_counter() - since)
"""


def frame(rows: int, seed: int) -> pd.DataFrame:
    "20 features of numbers, continuous and tied, and 10 of texts, with 4 to 40 categories; some drift between one seed and another."
    draw = np.random.default_rng(seed)
    numbers = {f"n{k}": draw.normal(0.02 * seed * (k < 5), 1, rows).round(2 if k % 4 == 3 else 9) for k in range(20)}
    texts = {f"t{k}": pd.Series(draw.choice([f"category {c}" for c in range(4 * k + 4)], rows), dtype="str") for k in range(10)}
    return pd.DataFrame(numbers | texts)


def ours(data: bytes, window: pd.DataFrame) -> Drift:
    return compare(Profile.load(data), window)


def least(work: Callable[[], object], rounds: int = 5) -> float:  # seconds
    taken = []
    for _ in range(rounds):
        since = time.perf_counter()
        work()
        taken.append(time.perf_counter() - since)
    return min(taken)


def install() -> str:  # why not; empty: it is there
    "An environment with Evidently."
    uv = Path(sys.executable).parent / "uv"
    for words in (["venv", "--quiet", "--clear", "--python", sys.executable, PEER], ["pip", "install", "--quiet", "--compile-bytecode", "--python", PEER / "bin" / "python", *PACKAGES]):
        made = subprocess.run([uv, *words], capture_output=True, text=True)
        if made.returncode:
            return f"it can't be installed: {' '.join(made.stderr.split())[:400]}"
    (PEER / "made").touch()
    return ""


def evidently(reference: pd.DataFrame, window: pd.DataFrame) -> tuple[float, str]:  # seconds; why not
    "Evidently's own time, without its start and without reading the rows."
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("reference.parquet", "window.parquet")]
        for rows, file in zip((reference, window), files, strict=True):
            rows.to_parquet(file)
        done = subprocess.run([PEER / "bin" / "python", "-c", EVIDENTLY, *files], capture_output=True, text=True, env={**os.environ, "DO_NOT_TRACK": "1"}, cwd=folder)
    return (float(done.stdout.split()[-1]), "") if done.returncode == 0 else (0.0, f"it failed: {' '.join(done.stderr.split())[-300:]}")


def equal(found: Drift, reference: pd.DataFrame, window: pd.DataFrame) -> float:
    "Largest difference from scipy's figures, in proportion."
    worst = 0.0
    for f in found.features:
        a, b = reference[f.name], window[f.name]
        if f.ks is not None:
            theirs = stats.ks_2samp(a, b)
            pairs = [(f.ks, theirs.statistic), (f.ks_p, theirs.pvalue), (f.wasserstein * a.std(ddof=0), stats.wasserstein_distance(a, b))]
        else:
            theirs = stats.chi2_contingency(pd.crosstab(np.repeat([0, 1], [len(a), len(b)]), pd.concat([a, b]).to_numpy()), correction=False)
            pairs = [(f.chi2, theirs.statistic), (f.chi2_p, theirs.pvalue)]
        worst = max(worst, *(abs(x - y) / max(abs(y), 1e-300) for x, y in pairs))
    return worst


def memory(rows: int) -> float:  # GB beyond the window itself and the profile's bytes
    "Peak of a comparison of so many rows, in a process of its own."
    code = f"import sys; sys.path.insert(0, {str(HERE.parent)!r})\nfrom monitor import *\nsay = lambda what: int(Path('/proc/self/status').read_text().split(what)[1].split()[0])\n"
    code += f"data, window = Profile.of(frame(200_000, 0)).dump(), frame({rows}, 1)\nours(data, window.head(1000)); Path('/proc/self/clear_refs').write_text('5'); since = say('VmRSS:')\n"
    code += "ours(data, window); print((say('VmHWM:') - since) * 1024 / 1e9)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main(peers: bool) -> None:
    reference, window = frame(ROWS, 0), frame(ROWS, 1)
    data = Profile.of(reference).dump()
    found, taken = ours(data, window), least(lambda: ours(data, window))
    worst = equal(found, reference, window)
    print(f"drift of {ROWS:,} rows x {len(found.features)} columns: {taken:.3f} s, profile of {len(data) / 1e6:.0f} MB read; {len(found.drifted)} features drifted")
    tell("drift_difference_from_scipy", worst, "<=1e-9", worst <= 1e-9)
    if Path("/proc/self/clear_refs").exists():
        peak = memory(1_000_000)
        tell("drift_peak_gb_1m_rows", peak, "<=0.5", peak <= 0.5)
    else:
        print("peak memory: not measured, only Linux tells")
    why = "" if (PEER / "made").is_file() else install() if peers else "its environment isn't there; make it: make bench-monitor"
    seconds, why = (0.0, why) if why else evidently(reference, window)
    if why:
        print(f"evidently: not compared, {why}")
        return
    taken = min(taken, least(lambda: ours(data, window)))
    print(f"evidently: {seconds:.1f} s")
    tell("drift_ratio_evidently", seconds / taken, ">=40", seconds / taken >= 40)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", action="store_true", help="install what isn't there")
    sys.exit(main(parser.parse_args().peers))
