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


@pytest.mark.parametrize("many", [60, 5])
def test_rows_of_one_key_stay_on_one_side_where_the_target_comes_by_it(tmp_path, many):
    orders = pd.DataFrame({"customer": [f"c{k % many}" for k in range(600)], "day": pd.date_range("2024-01-01", periods=600).astype(str), "paid": [k * 7 % 91 for k in range(600)]})
    orders.to_csv(tmp_path / "orders.csv", index=False)
    customers = pd.DataFrame({"customer": [f"c{k}" for k in range(many)], "age": [20 + k % 50 for k in range(many)], "churn": ["yes" if k % 3 else "no" for k in range(many)]})
    customers.to_csv(tmp_path / "customers.csv", index=False)
    said = command(tmp_path, "init", "shop", "--data", "orders.csv", "--data", "customers.csv", "--target", "churn")
    assert f"by 'customer', whose {many} values stand in 600 rows" in said and "group: customer (a guess)" in said
    charter = load_charter(tmp_path / "shop" / "nbs" / "charters" / "shop.yaml")
    assert charter.knobs["split"] == {"strategy": "group", "group": "customer"} and "customer" in charter.exclude
    assert "sound" in command(tmp_path / "shop", "check")


def test_a_key_that_tells_more_than_the_rows_numbers_is_taken_and_the_other_named(tmp_path):
    exams = pd.DataFrame({"id": range(200), "member": [k * 37 % 200 + 1000 for k in range(200)], "marks": [k % 7 for k in range(200)], "passed": [k % 7 // 4 for k in range(200)]})
    exams.to_csv(tmp_path / "exams.csv", index=False)
    pd.DataFrame({"id": range(1, 201), "member": [1199 - k for k in range(200)], "height": range(200)}).to_csv(tmp_path / "members.csv", index=False)
    said = command(tmp_path, "init", "school", "--data", "exams.csv", "--data", "members.csv", "--target", "passed")
    assert "members.csv by member" in said and "though id would do, too" in said
    text = (tmp_path / "school" / "nbs" / "charters" / "school.yaml").read_text()
    assert text.index('source: "data/members.csv"') < text.index("# members.csv: joined by member, though id would do, too")


def test_each_file_says_its_own_form(files):
    MEMBERS.assign(town=["Zürich", "Genève"] * 25).to_csv(files / "members.csv", index=False, sep=";", encoding="cp1252")
    command(files, "init", "gym", "--data", "visits.csv", "--data", "members.csv", "--target", "again")
    data = load_charter(files / "gym" / "nbs" / "charters" / "gym.yaml").data
    assert [(p.encoding, p.separator) for p in data.parts] == [(None, None), ("cp1252", ";")]
    text = (files / "gym" / "nbs" / "charters" / "gym.yaml").read_text()
    assert text.index('source: "data/members.csv"') < text.index("the text is cp1252") < text.index("encoding: cp1252  # GUESS")
    done = called(files / "gym", "run", "ingest", env={"MLOPS_NB_TRACKING": "disabled"})
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_cannot_be_joined_is_said_with_the_way_out(files):
    VISITS.drop(columns="member").assign(minutes=5).to_csv(files / "bare.csv", index=False)
    said = why_refused(init, files / "gym", [files / "bare.csv", files / "prices.csv"])
    assert "no column has the same name in both" in said and "name the others under data:" in said
    VISITS.to_csv(files / "other.csv", index=False)
    again = why_refused(init, files / "gym", [files / "members.csv", files / "other.csv"])
    assert "member, minutes come more than once in other.csv: give the file with one row a member second (--data other.csv --data members.csv)" in again
    VISITS.rename(columns={"member": "Member ID"}).drop(columns="minutes").to_csv(files / "spelt.csv", index=False)
    spelt = why_refused(init, files / "gym", [files / "spelt.csv", files / "members.csv"])
    assert "(spelt.csv: id, Member ID, again; members.csv: member, since, minutes)" in spelt
    assert "Member ID and member differ in spelling: give them one name" in spelt
    (files / "sub").mkdir()
    VISITS.to_csv(files / "sub" / "visits.csv", index=False)
    assert "two files are called visits.csv" in why_refused(init, files / "gym", [files / "visits.csv", files / "sub" / "visits.csv"])
    assert not (files / "gym").exists()
