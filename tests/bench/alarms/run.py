"""False alarms and delays of the monitor beside an earlier version of itself, Evidently and NannyML, all on the same streams.

    python tests/bench/alarms/run.py                     ours alone, and whatever peers are there already
    python tests/bench/alarms/run.py --peers             installs Evidently and NannyML under .bench/ first
    python tests/bench/alarms/run.py --streams 200 --classifier

Evidently and NannyML run as they come. `--before` is the commit that delays are held against.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT), str(HERE), str(HERE.parent)]

from _figures import tell  # noqa: E402
from rows import Stream, write  # noqa: E402
from scipy import stats  # noqa: E402
from tests.monitoring.streams import KINDS, Shift, World, facts_of, said, windows  # noqa: E402

BENCH = ROOT / ".bench"
PEERS = {"evidently": ("evidently==0.7.*", "pandas<3"), "nannyml": ("nannyml==0.13.*", "statsmodels", "pandas<3")}  # NannyML imports statsmodels and doesn't ask for it
PYTHON = "3.11"  # NannyML runs on none newer than 3.12
CALM, LIMIT = 8, 8  # windows before something changes; windows in which it is looked for
CASES = {
    "0.2 sd": Shift(0, moved=0.2),
    "0.4 sd": Shift(0, moved=0.4),
    "category 5% to 9%": Shift(0, share=0.09),
    "missing 20% to 27%": Shift(0, missing=0.27),
    "zeros 10% to 15%": Shift(0, zero=0.15),
}
Found = dict[str, dict[str, list[tuple[bool, bool]]]]  # stream -> case -> windows -> alarm, promise


class Tool(NamedTuple):
    name: str
    program: str
    python: Path | str
    path: str = ""  # where its package is


def install(name: str) -> str:  # why not; empty: it is there
    "An environment with a peer."
    uv, place = Path(sys.executable).with_name("uv"), BENCH / name
    for words in (["venv", "--quiet", "--clear", "--python", PYTHON, place], ["pip", "install", "--quiet", "--compile-bytecode", "--python", place / "bin" / "python", *PEERS[name]]):
        made = subprocess.run([uv, *words], capture_output=True, text=True)
        if made.returncode:
            return f"it can't be installed: {' '.join(made.stderr.split())[:400]}"
    (place / "made").touch()
    return ""


def earlier(commit: str) -> str:  # why not; empty: it is there
    "The package as it was at a commit."
    place = BENCH / f"at-{commit}"
    if not place.is_dir():
        told = subprocess.run(["git", "archive", commit, "mlops_nb"], cwd=ROOT, capture_output=True)
        if told.returncode:
            return f"this clone doesn't have the commit: {told.stderr.decode().strip()}"
        with tarfile.open(fileobj=io.BytesIO(told.stdout)) as archive:
            archive.extractall(place, filter="data")
    return ""


def stream_of(kind: str, seed: int, calm: int, shifts: Mapping[str, Shift], limit: int, last: int = 0) -> Stream:
    world = World(kind, seed)
    facts, learnt = facts_of(world), world.learnt(5000)
    learnt["probability"] = said(learnt)
    before = [w.table for w in windows(world, calm)]
    cases = {name: [w.table for w in windows(world, limit, shift=shift, first=calm)] for name, shift in shifts.items()}
    return Stream(f"{kind} {seed}", KINDS[kind], facts, learnt, before, cases, last)


def make(folder: Path, streams: int, calm: int) -> None:
    "Streams of independent rows in which something changes; a long one of each kind."
    for seed in range(streams):
        write(folder / f"change {seed:03}", stream_of("independent", 100 + seed, CALM, CASES, LIMIT))
    for kind, span in KINDS.items():
        known = 24 * 8 if span == "hour" else 20  # windows, until a promise is made
        write(folder / kind, stream_of(kind, 7, known + calm, {"0.4 sd": CASES["0.4 sd"]}, 24, calm))


def tools(peers: bool, before: str) -> tuple[list[Tool], list[str]]:  # and who is missing, and why
    found, missing = [Tool("ours", "judge_ours.py", sys.executable, str(ROOT))], []
    if why := earlier(before):
        missing.append(f"{before}: not compared, {why}")
    else:
        found.append(Tool(before, "judge_before.py", sys.executable, str(BENCH / f"at-{before}")))
    for name in PEERS:
        why = "" if (BENCH / name / "made").is_file() else install(name) if peers else "its environment isn't there; make it: make bench-monitor"
        python = BENCH / name / "bin" / "python"
        if why:
            missing.append(f"{name}: not compared, {why}")
        else:
            found.append(Tool(name, f"judge_{name}.py", python))
    return found, missing


def judged(tool: Tool, folder: Path, classifier: bool) -> tuple[dict[str, Found], str]:  # by what is called an alarm; why not
    "What a tool says of every window."
    env = os.environ | {"PYTHONPATH": tool.path, "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", "PYTHONWARNINGS": "ignore", "CLASSIFIER": str(int(classifier))}
    done = subprocess.run([tool.python, HERE / tool.program, folder], capture_output=True, text=True, env=env, cwd=folder)
    if done.returncode:
        return {}, f"it failed: {' '.join(done.stderr.split())[-400:]}"
    found: dict[str, Found] = {}
    for line in [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"stream"')]:
        for case, windows_ in line["found"].items():
            for alarms, promise in windows_:
                for name, alarm in alarms.items():
                    of = found.setdefault(tool.name if name == "before" else name, {}).setdefault(line["stream"], {})
                    of.setdefault(case, []).append((alarm, promise))
    return found, ""


def delays(found: Found, case: str) -> list[int]:  # windows, LIMIT + 1: not seen in any
    return [next((t for t, (alarm, _) in enumerate(line[case], 1) if alarm), LIMIT + 1) for name, line in found.items() if name.startswith("change ")]


def table(head: list[str], lines: list[list[str]]) -> None:
    for line in [head, ["---"] * len(head), *lines]:
        print("| " + " | ".join(line) + " |")
    print()


def told_delays(name: str, found: Found) -> list[str]:
    cells = []
    for case in CASES:
        waits = delays(found, case)
        middle = statistics.median(waits)
        cells.append(f"{sum(w == 1 for w in waits) / len(waits):.0%}, {f'{middle:g}' if middle <= LIMIT else f'over {LIMIT}'}")
    return [name, *cells]


def told_kinds(name: str, found: Found, count: int) -> list[str]:
    cells = []
    for kind in KINDS:
        line, late = found[kind]["calm"][-count:], found[kind]["0.4 sd"]
        first = next((str(t) for t, (alarm, _) in enumerate(late, 1) if alarm), "not")
        cells.append(f"{sum(a for a, _ in line)} of {len(line)}; {first}")
    return [name, *cells]


def goals(every: Mapping[str, Found], before: str) -> None:
    "What is asked of ours."
    ours: dict[str, Any] = every["ours"]
    calm = [w for kind in KINDS for w in ours[kind]["calm"] if w[1]]
    hits = sum(alarm for alarm, _ in calm)
    chance = stats.binom.sf(hits - 1, len(calm), 0.01)
    tell("alarms_of_promised_windows", hits / max(len(calm), 1), "<=0.01, or by chance", bool(chance > 1e-3))
    kinds = sum(any(p for _, p in ours[kind]["calm"]) for kind in KINDS)
    tell("alarms_kinds_with_a_promise", kinds, f">=6 of {len(KINDS)}", kinds >= 6)
    for case in CASES if before in every else ():
        now, then = (statistics.fmean(delays(every[name], case)) for name in ("ours", before))
        tell(f"alarms_mean_delay_{case.replace(' ', '_')}", now, f"<={then:.3g} at {before}", now <= then)


def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=options.keep) as folder:
        make(Path(folder), options.streams, options.windows)
        chosen, missing = tools(options.peers, options.before)
        every: dict[str, Found] = {}
        for tool in chosen:
            found, why = judged(tool, Path(folder), options.classifier)
            missing += [f"{tool.name}: not compared, {why}"] if why else []
            every |= found
    print(f"{options.streams} streams of independent rows, {CALM} undisturbed windows of 500 before the change: share seen in its first window, median delay in windows\n")
    table(["", *CASES], [told_delays(name, found) for name, found in every.items()])
    print("undisturbed windows with an alarm; windows until a shift of 0.4 sd is seen after them, of 24\n")
    table(["", *KINDS], [told_kinds(name, found, options.windows) for name, found in every.items()])
    held = [f"{kind} {sum(a for a, p in line if p)} of {sum(p for _, p in line)}" for kind in KINDS for line in [every["ours"][kind]["calm"]]]
    print(f"ours, windows that a promise was made of, with an alarm: {', '.join(held)}\n")
    print("\n".join(missing))
    goals(every, options.before)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", action="store_true", help="install what isn't there")
    parser.add_argument("--streams", type=int, default=40, help="in which something changes")
    parser.add_argument("--windows", type=int, default=120, help="undisturbed ones of each kind")
    parser.add_argument("--classifier", action="store_true", help="ours with the classifier of whole windows: ten times the time")
    parser.add_argument("--before", default="6ea964e", help="commit that delays are held against")
    parser.add_argument("--keep", help="folder for the streams while they are judged")
    main(parser.parse_args())
