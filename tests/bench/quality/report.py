"""What was measured, as Markdown that reads well as plain text, too."""

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from ranks import Pair, critical_difference, friedman, pair, ranks
from scores import GREATER, METRIC, Answers, lead
from tables import Table

Judged = tuple[Table, dict[str, Any], Answers | None]  # a table, its cell, predictions; None where the tool failed
SURE = 1.96  # standard errors: more than that is no noise
SHOWN = {"binary": "ROC AUC", "multiclass": "log loss", "regression": "RMSE / sd"}


def figure(cell: dict[str, Any], task: str) -> float:
    "The metric that ranks, RMSE in units of the held-out targets' standard deviation."
    if cell["error"]:
        return math.nan
    return math.sqrt(max(0.0, 1 - cell["scores"]["r2"])) if task == "regression" else cell["scores"][METRIC[task]]


def in_a_line(cell: dict[str, Any]) -> str:
    what = f"failed: {cell['error']}" if cell["error"] else ", ".join(f"{k} {v:.4g}" for k, v in cell["scores"].items())
    used = f"{cell['cpu']:.1f} s processor, {cell['wall']:.0f} s wall, {cell['peak_mb']:.0f} MB"
    return f"{cell['table']} seed {cell['seed']} {cell['tool']}: {what} ({used})"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    "A Markdown table with columns of even width."
    if not rows:
        return "(nothing yet)"
    lines = [[str(v).replace("|", "\\|").replace("\n", " ") for v in line] for line in (head, *rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    made = ["| " + " | ".join(v.ljust(w) for v, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([made[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *made[1:]])


def shown(value: float, digits: int = 4) -> str:
    return "-" if not math.isfinite(value) else f"{value:.{digits}f}"


class Board:
    "The cells by table and tool."

    def __init__(self, judged: Sequence[Judged], tools: Sequence[str]):
        self.tools = [t for t in tools if any(cell["tool"] == t for _, cell, _ in judged)]
        self.tables = {table.name: table for table, _, _ in judged}
        self.cells = {(table.name, cell["tool"], cell["seed"]): (cell, answers) for table, cell, answers in judged}
        self._leads: dict[tuple[str, str, str], tuple[float, float] | None] = {}

    def seeds(self, table: str, tools: Sequence[str]) -> list[int]:
        "Those that all of the tools were tried with."
        return sorted(
            {s for t, _, s in self.cells if t == table and all((table, tool, s) in self.cells for tool in tools)}
        )

    def mean(self, table: str, tool: str, what: Callable[[dict[str, Any]], float], tools: Sequence[str] = ()) -> float:
        "Of a figure over seeds; nan where a seed failed, or none was tried."
        found = [what(self.cells[table, tool, s][0]) for s in self.seeds(table, [tool, *tools])]
        return statistics.fmean(found) if found else math.nan

    def metric(self, table: str, tool: str, tools: Sequence[str] = ()) -> float:
        return self.mean(table, tool, lambda cell: figure(cell, self.tables[table].task), tools)

    def leads(self, table: str, one: str, other: str) -> tuple[float, float] | None:
        "How far the first is ahead, seeds averaged, and one division's standard error; None where one of them failed."
        if (table, one, other) not in self._leads:
            pairs = [
                (self.cells[table, one, s][1], self.cells[table, other, s][1]) for s in self.seeds(table, [one, other])
            ]
            well = bool(pairs) and all(a is not None and b is not None for a, b in pairs)
            found = [lead(a, b) for a, b in pairs if a is not None and b is not None] if well else []
            self._leads[table, one, other] = (
                (float(np.mean([f[0] for f in found])), float(np.mean([f[1] for f in found]))) if well else None
            )
        return self._leads[table, one, other]

    def tried_by(self, tools: Sequence[str]) -> list[str]:
        return [t for t in self.tables if self.seeds(t, tools)]


def scored(name: str) -> Callable[[dict[str, Any]], float]:
    return lambda cell: math.nan if cell["error"] else cell["scores"].get(name, math.nan)


def metrics(board: Board) -> str:
    rows = []
    for name, table in board.tables.items():
        ahead = board.leads(name, "ours", "hgb") if {"ours", "hgb"} <= set(board.tools) else None
        unit = (
            1.0
            if table.task != "regression" or ahead is None
            else np.std(next(a.truth for (t, _, _), (_, a) in board.cells.items() if t == name and a is not None))
        )
        said = "-" if ahead is None else f"{ahead[0] / unit:+.4f} ± {SURE * ahead[1] / unit:.4f}"
        size = f"{len(table.rows):,} x {len(table.header) - 1}"
        rows.append(
            [name, size, SHOWN[table.task], *(shown(board.metric(name, t)) for t in board.tools), said, verdict(ahead)]
        )
    return grid(["table", "rows x columns", "metric", *board.tools, "ours ahead of hgb", ""], rows)


def verdict(ahead: tuple[float, float] | None) -> str:
    if ahead is None:
        return "-"
    return "worse" if ahead[0] < -SURE * ahead[1] else "better" if ahead[0] > SURE * ahead[1] else "same"


def probabilities(board: Board) -> str:
    rows = []
    for name, table in board.tables.items():
        if table.task != "regression":
            prior = next(
                (prior_loss(a) for (t, _, _), (_, a) in board.cells.items() if t == name and a is not None), math.nan
            )
            for what, digits in (("log_loss", 4), ("brier", 4), ("ece", 3)):
                rows.append(
                    [
                        name if what == "log_loss" else "",
                        what,
                        *(shown(board.mean(name, t, scored(what)), digits) for t in board.tools),
                        shown(prior) if what == "log_loss" else "",
                    ]
                )
    return grid(["table", "lower is better", *board.tools, "prior"], rows)


def prior_loss(answers: Answers) -> float:
    "The log loss of saying how frequent each class is."
    share = np.bincount(answers.truth) / len(answers.truth)
    return float(-(share[share > 0] * np.log(share[share > 0])).sum())


def model_cpu(cell: dict[str, Any]) -> float:
    "Processor seconds until the winner stood: checks, features, training, search and ensemble."
    return (cell.get("said") or {}).get("model_cpu", math.nan)


def costs(board: Board) -> str:
    "Ours twice: until the winner stands, and the whole run with audits, explanation, registration and reports."
    rows = []
    for name in board.tables:
        spans = [
            cell.get("latency") or {} for (t, tool, _), (cell, _) in board.cells.items() if t == name and tool == "ours"
        ]
        pairs = [(s["ours_us"], s["hgb_us"]) for s in spans if s.get("ours_us")]
        ours, hgb = (statistics.fmean(p[k] for p in pairs) if pairs else math.nan for k in (0, 1))
        latency = [shown(ours, 1), shown(hgb, 1), shown(ours / hgb, 1)]
        model = [shown(board.mean(name, "ours", model_cpu), 1)]
        rows.append([name, *model, *(shown(board.mean(name, t, lambda c: c["cpu"]), 1) for t in board.tools), *latency])
    head = ["table", "ours: model, s", *(f"{t}, s" for t in board.tools)]
    return grid([*head, "one row: ours, us", "compiled hgb, us", "ratio"], rows)


class Contest(NamedTuple):
    "Ranks on the tables that all tools were tried on, and ours beside each other tool."

    tables: list[str]
    ranked: np.ndarray  # tables x tools
    pairs: dict[str, Pair]


def contest(board: Board) -> Contest | None:  # None: there is nothing to compare
    names = board.tried_by(board.tools)
    if len(names) < 2 or len(board.tools) < 2:
        return None
    values = np.array([[board.metric(n, t, board.tools) for t in board.tools] for n in names])
    greater = np.array([GREATER[METRIC[board.tables[n].task]] for n in names])
    ranked, losses = ranks(values, greater), np.where(greater[:, None], 1 - values, values)
    others = [t for t in board.tools if t != "ours"] if "ours" in board.tools else []
    pairs = {}
    for other in others:
        mine, theirs = board.tools.index("ours"), board.tools.index(other)
        with np.errstate(divide="ignore", invalid="ignore"):
            pairs[other] = pair(ranked, np.log(losses[:, theirs] / losses[:, mine]), mine, theirs)
    return Contest(names, ranked, pairs)


def standing(board: Board) -> str:
    held = contest(board)
    if held is None:
        return "Mean ranks need two tables that two tools were tried on."
    n, tools = len(held.tables), board.tools
    rows = []
    for k, tool in enumerate(tools):
        p = held.pairs.get(tool)
        beside = (
            [f"{p.difference:+.2f} [{p.low:+.2f}, {p.high:+.2f}]", shown(p.p, 3), count(board, tool)] if p else [""] * 3
        )
        rows.append([tool, shown(held.ranked[:, k].mean(), 2), *beside])
    head = [
        "tool",
        "mean rank",
        "ours minus it, 95% over tables",
        "Wilcoxon p",
        "ours better / same / worse, beyond noise",
    ]
    near = f"mean ranks nearer than {critical_difference(n, len(tools)):.2f} are not told apart (Nemenyi, 5%)"
    return "\n".join([
        f"Over {n} tables that all of {', '.join(tools)} were tried on (1 is best, who failed is last):", "",
        grid(head, rows), "", f"Friedman p {shown(friedman(held.ranked), 4)}; {near}.",
    ])  # fmt: skip


def goals(board: Board) -> str:
    "What can be said in a line each, for programs: ours beside others of the same run."
    lines = []

    def tell(name: str, value: float, goal: str, holds: bool) -> None:
        lines.append(f"bench {name} {value:.5g} {goal} {'holds' if holds else 'short'}")

    if {"ours", "hgb"} <= set(board.tools):
        said = [verdict(board.leads(n, "ours", "hgb")) for n in board.tried_by(["ours", "hgb"])]
        tell("quality_worse_than_hgb", said.count("worse"), "<=0", "worse" not in said)
    failed = {n for (n, tool, _), (cell, _) in board.cells.items() if tool == "ours" and cell["error"]}
    tell("quality_tables_that_failed", len(failed), "<=0", not failed)
    held = contest(board)
    peers = [t for t in (held.pairs if held else {}) if t != "hgb"]
    if held and peers:
        best = min(peers, key=lambda t: held.ranked[:, board.tools.index(t)].mean())
        found = held.pairs[best]
        tell(f"quality_rank_minus_{best}", found.difference, "interval <=0", found.low <= 0)
        theirs = np.mean([board.mean(n, best, lambda c: c["cpu"]) for n in held.tables])
        spent: dict[str, Callable[[dict[str, Any]], float]] = {"model": model_cpu, "whole": lambda c: c["cpu"]}
        for name, of in spent.items():
            ours = np.mean([board.mean(n, "ours", of) for n in held.tables])
            tell(f"quality_{name}_time_over_{best}", ours / theirs, "<=0.5", ours <= 0.5 * theirs)
    spans = [c.get("latency") or {} for (_, tool, _), (c, _) in board.cells.items() if tool == "ours"]
    if slow := [s["ours_us"] / s["hgb_us"] for s in spans if s.get("ours_us")]:
        tell("quality_one_row_over_hgb", max(slow), "<=10", max(slow) <= 10)
    return "\n".join(lines)


def count(board: Board, other: str) -> str:
    said = [verdict(board.leads(n, "ours", other)) for n in board.tried_by(["ours", other])]
    return f"{said.count('better')} / {said.count('same')} / {said.count('worse')} of {len(said)}"


def never_worse(board: Board) -> str:
    if not {"ours", "hgb"} <= set(board.tools):
        return "Needs ours and hgb."
    names = board.tried_by(["ours", "hgb"])
    ahead = {n: board.leads(n, "ours", "hgb") for n in names}
    worse = sorted((a[0] / (a[1] or 1e-12), n) for n, a in ahead.items() if verdict(a) == "worse" and a)
    failed = [n for n, a in ahead.items() if a is None]
    lines = [
        f"Worse than HGB's defaults by more than noise ({SURE} standard errors of the paired difference): "
        f"{len(worse)} of {len(names)} tables."
    ]
    lines += [
        f"- {n}: {ahead[n][0]:+.5g} in {METRIC[board.tables[n].task]}, {abs(z):.1f} standard errors"
        for z, n in worse
        if ahead[n]
    ]
    return "\n".join(lines + ([f"Not to be judged, one of them failed: {', '.join(failed)}."] if failed else []))


def troubles(board: Board) -> str:
    lines = []
    for (name, tool, seed), (cell, answers) in sorted(board.cells.items()):
        where = f"- {name}, seed {seed}, {tool}: "
        if cell["error"]:
            lines.append(where + f"failed: {' '.join(cell['error'].split())[-300:]}")
        elif cell["unanswered"]:
            lines.append(
                where + f"{cell['unanswered']} of {cell['n_test']} rows without an answer, counted as the average"
            )
        if (
            answers is not None
            and answers.task != "regression"
            and cell["scores"]["log_loss"] > prior_loss(answers) * 1.001
        ):
            lines.append(
                where + f"log loss {cell['scores']['log_loss']:.4f}, worse than the prior's {prior_loss(answers):.4f}"
            )
        if cell["tool"] != "hgb" and cell["cpu"] > 1.2 * cell["budget"]:
            lines.append(where + f"{cell['cpu']:.0f} s of processor time, the budget was {cell['budget']:g} s")
    return "\n".join(lines) or "None."


def winners(board: Board) -> str:
    head = ["table, seed", "metric by init", "best of training", "shipped", "phase", "engine", "columns left out"]
    rows = []
    for (name, tool, seed), (cell, _) in board.cells.items():
        said = cell.get("said") or {}
        if tool == "ours" and (found := said.get("metrics")):
            train, ensemble, register = (found.get(stage) or {} for stage in ("train", "ensemble", "register"))
            facts = [
                said.get("metric"),
                train.get("best"),
                ensemble.get("chosen"),
                register.get("phase"),
                said["engine"],
            ]
            rows.append([f"{name}, {seed}", *map(str, facts), ", ".join(said.get("exclude") or []) or "-"])
        elif said.get("model"):
            rows.append([f"{name}, {seed}", "", "", f"{tool}: {said['model']}", "", "", ""])
    return grid(head, rows)


def text(
    judged: Sequence[Judged], tools: Sequence[str], absent: dict[str, str], given: argparse.Namespace, wanted: int
) -> str:
    board = Board(judged, tools)
    head = f"{len(judged)} of {wanted} cells are known: {len(board.tables)} tables, {given.seeds} seeds, "
    head += f"{given.budget:g} s of processor time (ours: {given.share:g} of it), {given.threads} threads."
    lines = ["# Model quality", "", head, *(f"{tool} is not compared: {why}." for tool, why in absent.items())]
    parts: dict[str, Callable[[Board], str]] = {
        "Where ours stands": standing,
        "Beside boosting's defaults": never_worse,
        "The metric that ranks": metrics,
        "Probabilities": probabilities,
        "Processor time and latency": costs,
        "What was shipped": winners,
        "Troubles": troubles,
        "In a line each": goals,
    }
    for title, part in parts.items():
        lines += ["", f"## {title}", "", part(board)]
    return "\n".join(lines) + "\n"
