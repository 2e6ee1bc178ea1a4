"""The benchmark of model quality itself: what it counts, how it divides tables, when it measures again, and what it
says of sure and unsure differences.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import studentized_range
from sklearn.metrics import brier_score_loss, log_loss, r2_score, roc_auc_score

HERE = Path(__file__).parent


def programs(*names: str) -> list[ModuleType]:
    """The benchmark's programs, which import each other by plain names; nobody else gets to see those names."""
    sys.path.insert(0, str(HERE))
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(HERE))
        for name in [
            n
            for n, m in sys.modules.items()
            if "." not in n and str(getattr(m, "__file__", "")).startswith(f"{HERE}{os.sep}")
        ]:
            del sys.modules[name]


cells, growth, made, measure, ranks, report, rows, run, scores, tables, tools = programs(
    "cells", "growth", "made", "measure", "ranks", "report", "rows", "run", "scores", "tables", "tools"
)
divide, folder, parts, read, targets = (
    getattr(tables, name) for name in ("divide", "folder", "parts", "read", "targets")
)
label, number = rows.label, rows.number
linux = pytest.mark.skipif(
    sys.platform != "linux", reason="processes that outlive their parent are counted on Linux only"
)


# ---- a folder of tables -------------------------------------------------------------------------


def write(folder: Path, name: str, text: str, encoding: str = "utf-8", said: str = "") -> Path:
    (folder / f"{name}.csv").write_bytes(text.encode(encoding))
    if said:
        (folder / f"{name}.yaml").write_text(said)
    return folder / f"{name}.csv"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_keeps_how_it_is_written(tmp_path, encoding, separator):
    """Every row is in one part, byte by byte what it was, whatever its names, quotes and line ends."""
    lines = [["größe in cm", 'a "note"', "class"]] + [
        [f"{k}", f"line {k}{separator}\nnext, é", "ja" if k % 3 else "nein"] for k in range(40)
    ]
    quoted = "\r\n".join(separator.join('"' + v.replace('"', '""') + '"' for v in line) for line in lines)
    table = read(write(tmp_path, "odd name", quoted, encoding))
    assert (table.header, table.target, table.task, table.separator) == (tuple(lines[0]), "class", "binary", separator)
    train, test = divide(table, 0, tmp_path)
    files = [
        tables.read(train).rows,
        [*tables.csv.reader(open(test, encoding=table.encoding, newline=""), delimiter=separator)],
    ]
    assert files[1].pop(0) == lines[0][:-1]
    assert sorted([row[:2] for row in files[0]] + files[1]) == sorted(row[:2] for row in lines[1:])


def test_the_yaml_names_target_task_and_split_and_nothing_else(tmp_path):
    file = write(tmp_path, "a", "y,x\n1,2\n3,4\n5,6\n", said="target: y\ntask: regression\nsplit: later\n")
    assert (read(file).target, read(file).task, read(file).split) == ("y", "regression", "later")
    for said, words in (
        ("targets: y\n", "known are target, task and split"),
        ("task: ranking\n", "expected one of binary"),
        ("target: z\n", "no column 'z'"),
    ):
        with pytest.raises(SystemExit, match=words):
            read(write(tmp_path, "b", "y,x\n1,2\n", said=said))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SystemExit, match="has no CSV file"):
        folder(empty)


def test_rows_without_a_target_are_left_out_and_the_digest_says_what_is_learnt(tmp_path):
    file = write(tmp_path, "a", "x,y\n1,0\n2,\n3,NA\n4,1\n")
    before = read(file)
    assert before.truth == ["0", "1"] and before.task == "binary"
    write(tmp_path, "a", "x,y\n1,0\n2,\n3,NA\n4,1\n", said="target: x\n")
    assert read(file).digest != before.digest


@pytest.mark.parametrize(
    ("values", "task"),
    [(["1", "1.0", "2"], "binary"), (["a", "b", "c"], "multiclass"), ([str(k) for k in range(9)], "multiclass"),
     ([str(k) for k in range(40)], "regression"), (["1,5", "2,5", "7"], "regression")],
)  # fmt: skip
def test_a_task_is_guessed_by_the_target(values, task):
    assert tables.task_of(values) == task


def test_held_out_rows_follow_the_seed_and_keep_classes_in_proportion(tmp_path):
    table = read(
        write(tmp_path, "a", "x,y\n" + "".join(f"{k},{'rare' if k % 10 == 0 else 'usual'}\n" for k in range(400)))
    )
    first, again, other = (tables.held_out(table, seed) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
    assert targets(table, 1)[1].count("rare") == 10 and first.sum() == 100


def test_later_rows_come_after_all_that_is_learnt_from(tmp_path):
    table = read(write(tmp_path, "a", "x,y\n" + "".join(f"{k},{k / 7}\n" for k in range(100)), said="split: later\n"))
    for seed in range(3):
        known, asked = parts(table, seed)
        assert max(int(r[0]) for r in known) < min(int(r[0]) for r in asked) and len(asked) == 20
    assert len(parts(table, 2)[0]) > len(parts(table, 0)[0])


def test_made_tables_are_the_same_each_time_and_in_the_order_of_their_trap():
    for make, task, _ in made.MADE.values():
        one, two = make(), make()
        assert one.equals(two)
        assert tables.task_of([str(v) for v in one.iloc[:, -1]]) == task
    assert abs((made.rare()["fault"] == "yes").mean() - 0.025) < 0.001
    gaps = made.gaps()
    assert gaps[gaps["ill"]]["test 1"].isna().mean() > gaps[~gaps["ill"]]["test 1"].isna().mean() + 0.1


# ---- figures ------------------------------------------------------------------------------------


def some(n: int = 400, classes: int = 2, seed: int = 0, skill: float = 1.0) -> tuple:
    draw = np.random.default_rng(seed)
    truth = np.random.default_rng(99).integers(0, classes, n)
    logits = draw.normal(size=(n, classes)) + skill * np.eye(classes)[truth]
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return scores.Answers("binary" if classes == 2 else "multiclass", truth, proba)


def test_figures_are_scikit_learns():
    two, four = some(), some(classes=4)
    found = scores.scores(two)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(two.truth, two.said[:, 1]), abs=1e-12)
    assert found["log_loss"] == pytest.approx(log_loss(two.truth, two.said), abs=1e-12)
    assert found["brier"] == pytest.approx(
        2 * brier_score_loss(two.truth, two.said[:, 1]), abs=1e-12
    )  # both classes are counted
    assert scores.scores(four)["log_loss"] == pytest.approx(log_loss(four.truth, four.said), abs=1e-12)
    y, said = np.arange(50.0) ** 1.5, np.arange(50.0) * 6
    assert scores.scores(scores.Answers("regression", y, said))["r2"] == pytest.approx(r2_score(y, said), abs=1e-12)


def test_calibration_error_is_near_zero_for_true_probabilities_and_large_for_sure_ones():
    draw = np.random.default_rng(3)
    p = draw.random(20_000)
    truth = (draw.random(20_000) < p).astype(int)
    good, sure = (
        scores.ece(scores.Answers("binary", truth, np.column_stack([1 - q, q]))) for q in (p, (p > 0.5).astype(float))
    )
    assert good < 0.02 and 0.23 < sure < 0.27  # of a fair half each, a quarter is wrong


def test_a_lead_that_is_chance_is_no_lead_and_a_true_one_is_found():
    """Two equally good tools are told apart in about 5% of tables; a better one nearly always."""
    leads = [scores.lead(some(seed=2 * k), some(seed=2 * k + 1), 100) for k in range(60)]
    assert np.mean([abs(a) > report.SURE * e for a, e in leads]) < 0.17  # 60 tables: 5%, and four standard errors
    assert all(
        a > report.SURE * e
        for a, e in (scores.lead(some(seed=k, skill=2.5), some(seed=k + 50), 100) for k in range(20))
    )


def test_ranks_share_ties_and_put_failures_last():
    values = np.array([[0.9, 0.8, 0.9], [1.0, 2.0, np.nan]])
    assert ranks.ranks(values, np.array([True, False])).tolist() == [[1.5, 3, 1.5], [1, 2, 3]]


def test_the_interval_of_a_rank_difference_covers_what_is_true_and_excludes_what_is_not():
    draw = np.random.default_rng(0)
    covered, split = 0, 0
    for _ in range(200):
        values = draw.normal(size=(20, 3))
        same = ranks.pair(ranks.ranks(values, np.ones(20, bool)), values[:, 0] - values[:, 1], 0, 1, 500)
        covered += same.low <= 0 <= same.high
        far = values + np.array([2.5, 0, 0])
        split += ranks.pair(ranks.ranks(far, np.ones(20, bool)), far[:, 0] - far[:, 1], 0, 1, 500).high < 0
    assert (
        covered >= 170 and split >= 195
    )  # 95% less four standard errors and what a percentile interval of 20 tables lacks
    assert ranks.critical_difference(14, 4) == pytest.approx(
        studentized_range.ppf(0.95, 4, np.inf) / 2**0.5 * (4 * 5 / (6 * 14)) ** 0.5
    )
    assert ranks.critical_difference(14, 4) == pytest.approx(
        1.25, abs=0.01
    )  # Demsar's example: four classifiers, 14 data sets


def test_the_slope_of_growth():
    assert growth.slope([10, 100, 1000], [3, 30, 300]) == pytest.approx(1)
    assert growth.slope([10, 100, 1000], [100, 110, 11_000]) == pytest.approx(2)  # what the fixed cost hides first
    assert np.isnan(growth.slope([10], [1]))
    assert "growth_time_ours 2.000 <=1.1 short" in growth.text(
        {"ours": [{"rows": n, "cpu": n * n, "wall": 1.0, "peak_mb": 5.0, "error": ""} for n in (10, 100)]}
    )


# ---- processor time -----------------------------------------------------------------------------

BURN = "import time\nwhile time.process_time() < {0}: pass\n"


def measured(code: str, limit: float = 60) -> dict:
    done = subprocess.run(
        [sys.executable, HERE / "measure.py", str(limit), sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@linux
def test_processor_time_counts_processes_that_their_parent_never_waited_for():
    """The runner's kernels are children of a process that is itself not waited for."""
    used = (
        "import os, subprocess, sys\nmade = subprocess.Popen([sys.executable, '-c', %r], stdout=-1)\n"
        "made.stdout.read()\nos._exit(0)\n"
    ) % (BURN.format(0.6) + "print(1)")
    assert measured(used)["cpu"] > 0.6


@linux
def test_what_runs_too_long_is_ended_with_all_its_children(tmp_path):
    file = tmp_path / "pid"
    code = "import subprocess, sys\nmade = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    code += f"open({str(file)!r}, 'w').write(str(made.pid))\nmade.wait()"
    assert measured(code, limit=3)["code"] is None
    assert not Path("/proc", file.read_text()).exists()


def test_the_peers_clock_shows_processor_time():
    code = "import clock; clock.by_processor(); import threading, time; a = time.time()\n"
    code += "threading.Event().wait(1.0); b = time.time()\n"
    code += "while clock.processor_seconds() < 1.5: pass\nprint(b - a, time.time() - b)"
    waited, worked = map(
        float,
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HERE
        ).stdout.split(),
    )
    assert waited < 0.5 and worked > 0.5


# ---- cells are measured once --------------------------------------------------------------------


def test_a_key_follows_all_that_decides_a_result_and_results_survive_a_torn_line(tmp_path):
    what = {"table": "d", "seed": 0, "tool": "hgb", "versions": {"scikit-learn": "1"}, "budget": 60, "threads": 1}
    changed = [
        {"table": "e"},
        {"seed": 1},
        {"tool": "ours"},
        {"versions": {"scikit-learn": "2"}},
        {"budget": 20},
        {"threads": 2},
    ]
    assert len({cells.key(**what | c) for c in [{}, *changed]}) == 7
    file = tmp_path / "results.jsonl"
    cells.Results(file).add({"key": "a", "error": ""})
    with open(file, "a") as torn:
        torn.write('{"key": "b", "err')
    again = cells.Results(file)
    assert set(again.known) == {"a"}
    again.add({"key": "b", "error": ""})
    assert set(cells.Results(file).known) == {"a", "b"}


def test_code_of_a_program_is_what_runs(tmp_path):
    def program(text: str) -> str:
        (tmp_path / "a.py").write_text(text)
        return tools.code_of([tmp_path / "a.py"])

    plain = program("def f(x):\n    return x + 1\n")
    assert (
        plain
        == program('def f(x):\n    "Adds one."\n    return (x\n            + 1)  # indeed\n')
        != program("def f(x):\n    return x + 2\n")
    )


def test_code_of_a_notebook_is_its_code_cells(tmp_path):
    def notebook(prose: str, code: str, out: str) -> str:
        file = tmp_path / "a.ipynb"
        file.write_text(
            json.dumps(
                {
                    "cells": [
                        {"cell_type": "markdown", "source": prose},
                        {"cell_type": "code", "source": code, "outputs": [out]},
                    ]
                }
            )
        )
        return tools.code_of([file])

    assert notebook("a", "x = 1", "") == notebook("b", "x = 1", "2") != notebook("a", "x = 2", "")


@pytest.fixture
def few(tmp_path) -> Path:
    """A folder with a table of each task, small and odd."""
    place = tmp_path / "my tables"
    place.mkdir()
    draw = np.random.default_rng(0)
    x, day = draw.normal(size=160), [f"{1 + k % 28:02}.{1 + k % 12:02}.2024" for k in range(160)]
    kinds = np.array(["a b", "ü", "3"])[(np.digitize(x + draw.normal(0, 0.3, 160), [-0.5, 0.5]))]
    for name, y in (("two classes", x > 0), ("some kinds", kinds), ("amounts", np.round(3 * x, 2))):
        lines = [f"{a:.3f};{d};{t}" for a, d, t in zip(x, day, y, strict=True)]
        write(place, name, "größe;day;the answer\n" + "\n".join(lines) + "\n", "cp1252")
    return place


def command(cache: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, HERE / "run.py", "--cache", cache, *words], capture_output=True, text=True, timeout=600
    )


def test_from_a_folder_to_a_report_and_again_without_measuring(few, tmp_path):
    words = ("--tables", str(few), "--tools", "hgb", "--seeds", "1", "--markdown", str(tmp_path / "said.md"))
    first = command(tmp_path / "cache", *words)
    assert first.returncode == 0, first.stderr
    assert "3 of 3 cells are known: 3 tables" in first.stdout and "None." in first.stdout
    assert (tmp_path / "said.md").read_text() in first.stdout
    kept = [json.loads(line) for line in (tmp_path / "cache" / "results.jsonl").read_text().splitlines()]
    assert {(c["table"], c["error"]) for c in kept} == {("two classes", ""), ("some kinds", ""), ("amounts", "")}
    assert all(c["cpu"] > 0.2 and c["peak_mb"] > 50 for c in kept)
    found = {c["table"]: c["scores"] for c in kept}
    assert (
        found["two classes"]["roc_auc"] > 0.95
        and found["amounts"]["r2"] > 0.7
        and found["some kinds"]["log_loss"] < 1.0
    )
    lines = (tmp_path / "cache" / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cache" / "results.jsonl").write_text("".join(lines[:2]) + lines[2][:40])  # killed while it wrote
    again = command(tmp_path / "cache", *words)
    assert again.returncode == 0 and [line.split()[0] for line in again.stderr.splitlines()] == ["3/3"]


def test_peers_that_are_not_there_are_named_and_the_rest_is_compared(few, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "environment", lambda name, cache: (Path("python"), "no network"))
    given = run.argparse.Namespace(tables=[few], only=["amounts"], tools=["hgb", "flaml"], cache=tmp_path)
    found, able, absent = run.wanted(given)
    assert [t.name for t in found] == ["amounts"] and list(able) == ["hgb"] and absent == {"flaml": "no network"}
    said = report.text([], list(able), absent, run.argparse.Namespace(seeds=1, budget=1.0, share=0.5, threads=1), 1)
    assert "flaml is not compared: no network." in said


def test_rows_without_an_answer_count_as_the_average_and_unknown_classes_are_refused(tmp_path):
    table = read(write(tmp_path, "a", "x,y\n" + "".join(f"{k},{'ab'[k % 4 == 0]}\n" for k in range(80))))
    known, truth = targets(table, 0)
    said = np.tile([0.1, 0.9], (len(truth), 1))
    said[3] = np.nan
    np.savez(tmp_path / "p.npz", said=said, classes=np.array(["b", "a"]))
    answers, empty = run.answers_of(table, known, truth, tmp_path / "p.npz")
    assert empty == 1 and answers.said[0].tolist() == [0.9, 0.1] and answers.said[3].tolist() == [0.75, 0.25]
    np.savez(tmp_path / "p.npz", said=said, classes=np.array(["b", "c"]))
    with pytest.raises(SystemExit, match="an answer names the class 'c'"):
        run.answers_of(table, known, truth, tmp_path / "p.npz")


def test_one_spelling_of_classes_and_numbers():
    assert label("1") == label(1.0) == label("1.0 ") == "1" and label("1e400x") == "1e400x" and label(" a b") == "a b"
    assert number("1,5") == 1.5 and number("1.5") == 1.5


def judged(tmp_path: Path, ours: float, hgb: float) -> object:
    """One made table with predictions of two tools, as skilled as is said."""
    table = read(write(tmp_path, "a", "x,y\n" + "".join(f"{k},{k % 2}\n" for k in range(40))))
    made_by = {"ours": some(n=600, seed=1, skill=ours), "hgb": some(n=600, seed=2, skill=hgb)}
    cell = {"seed": 0, "error": "", "cpu": 9.0, "budget": 60.0, "unanswered": 0}
    return report.Board(
        [(table, {**cell, "tool": t, "table": "a", "scores": scores.scores(a)}, a) for t, a in made_by.items()],
        ["ours", "hgb"],
    )


def test_worse_than_the_defaults_is_said_only_beyond_noise(tmp_path):
    assert "0 of 1 tables" in report.never_worse(judged(tmp_path, 1.0, 1.0))
    assert "1 of 1 tables" in report.never_worse(judged(tmp_path, 0.6, 1.6))
    assert "0 of 1 tables" in report.never_worse(judged(tmp_path, 1.6, 0.6))
    assert "bench quality_worse_than_hgb 1 <=0 short" in report.goals(judged(tmp_path, 0.6, 1.6))
    assert "bench quality_worse_than_hgb 0 <=0 holds" in report.goals(judged(tmp_path, 1.6, 0.6))


def alive(pid: int) -> bool:
    try:
        return b"measure.py" in Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return False


@linux
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_killed_leaves_nothing_running(few, tmp_path, how):
    """What is ended by a signal that can be caught leaves no work folder either."""
    work = tmp_path / "work"
    work.mkdir()
    words = [sys.executable, HERE / "run.py", "--cache", tmp_path, "--tables", few, "--tools", "hgb"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    going = subprocess.Popen(words, env={**os.environ, "TMPDIR": str(work)}, **quiet)
    until = time.monotonic() + 120
    try:
        while not (below := [p for p in measure.descendants(going.pid) if alive(p)]) and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        going.send_signal(how)
        going.wait()
    assert below
    while any(map(alive, below)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, below))
    assert how == signal.SIGKILL or not list(work.glob("quality_*"))
