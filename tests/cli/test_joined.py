"""Several files make one project: what finds what is seen in the rows, said, and real in the run."""

import json

import pandas as pd
import pytest

from mlops_nb.base.charter import load_charter
from mlops_nb.base.errors import why_refused
from mlops_nb.cli.project import init
from tests.conftest import called, command

VISITS = pd.DataFrame({"id": range(300), "member": [k % 60 for k in range(300)], "minutes": [k * 7 % 90 for k in range(300)], "again": ["yes" if k * 7 % 90 > 40 else "no" for k in range(300)]})
MEMBERS = pd.DataFrame({"member": range(50), "since": ["17.02.2024", "28.03.2024"] * 25, "minutes": 1})
PRICES = pd.DataFrame({"since": ["17.02.2024", "28.03.2024"], "price": [19, 24]})


@pytest.fixture
def files(tmp_path):
    for name, frame in (("visits", VISITS), ("members", MEMBERS), ("prices", PRICES)):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path


def test_a_project_of_three_files_runs(files):
    said = command(files, "init", "gym", *(w for n in ("visits", "members", "prices") for w in ("--data", f"{n}.csv")), "--target", "again")
    assert "joined (a guess): members.csv by member" in said and "prices.csv by since" in said and "250 of 300 rows find it by member" in said
    charter = load_charter(files / "gym" / "nbs" / "charters" / "gym.yaml")
    members, prices = charter.data.joined
    assert (members.source, members.key, members.take, members.lost) == ("data/members.csv", ["member"], ["member", "since"], 0.17)
    assert (prices.key, prices.take) == (["since"], ["since", "price"]) and members.columns["since"].first == "day"
    assert "sound" in command(files / "gym", "check")
    done = called(files / "gym", "run", "ingest", env={"MLOPS_NB_TRACKING": "disabled"})
    assert done.returncode == 0, done.stdout + done.stderr
    run = files / "gym" / "reports" / (files / "gym" / "reports" / "latest").read_text().strip()
    read = json.loads((run / "summary.json").read_text())["stages"]["ingest"]["metrics"]
    assert read["rows"] == 300 and read["found by members.csv"] == 250


def test_what_cannot_be_joined_is_said_with_the_way_out(files):
    VISITS.drop(columns="member").assign(minutes=5).to_csv(files / "bare.csv", index=False)
    said = why_refused(init, files / "gym", [files / "bare.csv", files / "prices.csv"])
    assert "no column has the same name in both" in said and "name the others under data:" in said
    VISITS.to_csv(files / "other.csv", index=False)
    again = why_refused(init, files / "gym", [files / "members.csv", files / "other.csv"])
    assert "both have member, minutes, of which none is one row a value in other.csv" in again
    (files / "sub").mkdir()
    VISITS.to_csv(files / "sub" / "visits.csv", index=False)
    assert "two files are called visits.csv" in why_refused(init, files / "gym", [files / "visits.csv", files / "sub" / "visits.csv"])
    assert not (files / "gym").exists()
