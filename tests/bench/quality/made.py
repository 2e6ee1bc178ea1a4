"""Tables that are made, each with one trap that real tables have; seeded, so that they are the same everywhere."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd


def demand(rows: int = 6000) -> pd.DataFrame:
    "Hourly demand: hour, weekday and season decide, and they are in the date only."
    draw = np.random.default_rng(1)
    time = pd.date_range("2023-01-01", periods=rows, freq="h")
    hour, weekday, day = time.hour.to_numpy(), time.day_of_week.to_numpy(), time.day_of_year.to_numpy()
    warm = 12 - 10 * np.cos(2 * np.pi * day / 365) + draw.normal(0, 3, rows)
    busy = np.exp(-((hour - 8) ** 2) / 8) + np.exp(-((hour - 18) ** 2) / 10)
    mean = 60 + 220 * busy * (weekday < 5) + 130 * np.exp(-((hour - 14) ** 2) / 20) * (weekday >= 5) + 3 * warm
    return pd.DataFrame(
        {
            "time": time.strftime("%Y-%m-%d %H:%M"),
            "temperature": warm.round(1),
            "wind": draw.gamma(2, 3, rows).round(1),
            "demand": draw.poisson(mean),
        }
    )


def rare(rows: int = 8000) -> pd.DataFrame:
    "One row in forty is looked for; an interaction says which."
    draw = np.random.default_rng(2)
    x = draw.normal(size=(rows, 12))
    score = 1.6 * x[:, 0] * x[:, 1] + np.abs(x[:, 2]) + 0.7 * x[:, 3] + draw.logistic(size=rows)
    table = pd.DataFrame(x.round(4), columns=[f"x{k}" for k in range(12)])
    return table.assign(fault=np.where(score > np.quantile(score, 0.975), "yes", "no"))


def many(rows: int = 8000) -> pd.DataFrame:
    "A category of 600 values and one of 40 carry most of what can be known."
    draw = np.random.default_rng(3)
    place, product = draw.integers(0, 600, rows), draw.integers(0, 40, rows)
    effect, other = draw.normal(0, 1.2, 600), draw.normal(0, 0.8, 40)
    x = draw.normal(size=rows)
    chance = 1 / (1 + np.exp(-(effect[place] + other[product] + 0.5 * x - 0.3)))
    return pd.DataFrame({
        "place": [f"place {p:03}" for p in place], "product": [f"product {p:02}" for p in product], "x": x.round(3),
        "noise": draw.normal(size=rows).round(3), "bought": (draw.random(rows) < chance).astype(int),
    })  # fmt: skip


def gaps(rows: int = 6000) -> pd.DataFrame:
    "Values are missing where they are large, and where the answer is yes."
    draw = np.random.default_rng(4)
    x = draw.normal(size=(rows, 8))
    yes = x[:, 0] + x[:, 1] ** 2 - 1 + 0.5 * x[:, 2] + draw.logistic(size=rows) > 0
    table = pd.DataFrame(x.round(4), columns=[f"test {k}" for k in range(8)])
    for k in range(6):
        table.loc[draw.random(rows) < 0.1 + 0.4 * (x[:, k] > 0.8) + 0.15 * yes * (k % 2), f"test {k}"] = np.nan
    return table.assign(ill=yes)


def trap(rows: int = 3000) -> pd.DataFrame:
    "Six classes of very different size, many copies of two figures: naive Bayes is right often, and far too sure."
    draw = np.random.default_rng(5)
    kind = draw.choice(6, rows, p=[0.45, 0.25, 0.14, 0.09, 0.05, 0.02])
    hidden = np.column_stack([np.cos(kind), np.sin(2 * kind)]) + draw.normal(0, 0.9, (rows, 2))
    copies = hidden[:, np.arange(24) % 2] + draw.normal(0, 0.15, (rows, 24))
    return pd.DataFrame(copies.round(3), columns=[f"sensor {k}" for k in range(24)]).assign(
        kind=[f"kind {'abcdef'[k]}" for k in kind]
    )


def wide(rows: int = 300) -> pd.DataFrame:
    "2,000 columns, 15 of which say something."
    draw = np.random.default_rng(6)
    x = draw.normal(size=(rows, 2000))
    score = x[:, :15] @ draw.uniform(0.5, 1, 15) + draw.logistic(size=rows)
    return pd.DataFrame(x.round(4), columns=[f"g{k}" for k in range(2000)]).assign(
        outcome=np.where(score > 0, "relapse", "none")
    )


def heavy(rows: int = 6000) -> pd.DataFrame:
    "Amounts whose logarithm is what the columns add up to: a few are a thousand times the usual one."
    draw = np.random.default_rng(7)
    x, kind = draw.normal(size=(rows, 6)), draw.choice(["house", "flat", "land", "farm"], rows)
    log = (
        8
        + 0.9 * x[:, 0]
        + 0.5 * x[:, 1] * x[:, 2]
        + 0.4 * np.abs(x[:, 3])
        + 0.7 * (kind == "farm")
        + draw.standard_t(4, rows) * 0.35
    )
    return pd.DataFrame(x.round(4), columns=[f"part {k}" for k in range(6)]).assign(
        kind=kind, amount=np.exp(log).round(2)
    )


def grown(rows: int) -> pd.DataFrame:
    "The same shape for any number of rows: 10 numbers and 4 categories, two classes."
    draw = np.random.default_rng(8)
    x = draw.normal(size=(rows, 10))
    codes = draw.integers(0, [3, 8, 20, 60], (rows, 4))
    effects = [draw.normal(0, 0.7, k) for k in (3, 8, 20, 60)]
    score = x[:, 0] + x[:, 1] * x[:, 2] + np.abs(x[:, 3]) - 1 + sum(e[codes[:, k]] for k, e in enumerate(effects))
    table = pd.DataFrame(x.round(4), columns=[f"x{k}" for k in range(10)])
    for k in range(4):
        table[f"c{k}"] = np.char.add(f"c{k}-", codes[:, k].astype(str))
    return table.assign(y=np.where(score + draw.logistic(size=rows) > 0, "yes", "no"))


MADE: dict[str, tuple[Callable[[], pd.DataFrame], str, str]] = {  # name: maker, task, split
    "made_demand": (demand, "regression", "random"),
    "made_demand_later": (demand, "regression", "later"),
    "made_rare": (rare, "binary", "random"),
    "made_many": (many, "binary", "random"),
    "made_gaps": (gaps, "binary", "random"),
    "made_trap": (trap, "multiclass", "random"),
    "made_wide": (wide, "binary", "random"),
    "made_heavy": (heavy, "regression", "random"),
}


def write(folder: Path) -> None:
    "All of them, as files with their YAML."
    folder.mkdir(parents=True, exist_ok=True)
    for name, (make, task, split) in MADE.items():
        make().to_csv(folder / f"{name}.csv", index=False)
        (folder / f"{name}.yaml").write_text(f"task: {task}\nsplit: {split}\n")


def write_grown(folder: Path, rows: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    grown(rows).to_csv(folder / f"rows_{rows}.csv", index=False)
    (folder / f"rows_{rows}.yaml").write_text("task: binary\n")
    return folder / f"rows_{rows}.csv"
