"""The tutorial runs top to bottom in an ordinary kernel, and its outputs say what its text says. nbdev-test leaves it alone (nbs/tutorials/.notest)."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from tests.conftest import command, project_of
from tests.contract.test_tasks import visits

FOLDER = Path(__file__).parents[2] / "nbs" / "tutorials"
#: Of a run of this program, and of the one that committed outputs are from.
STAGES = 16
BOTH_WAYS = pytest.mark.parametrize("now", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["committed", "run now"])


def notebook_of(name: str, now: bool, folder: Path) -> dict:
    """The notebook as it is kept, or as it comes out here."""
    if not now:
        return json.loads((FOLDER / name).read_text(encoding="utf-8"))
    notebook = nbformat.read(FOLDER / name, as_version=4)
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    assert list(folder.iterdir()) == [], "it works in a folder of its own"
    return notebook


@pytest.fixture(scope="module", params=["committed", pytest.param("run now", marks=pytest.mark.slow)])
def tutorial(request, tmp_path_factory) -> dict:
    return notebook_of("your_data.ipynb", request.param != "committed", tmp_path_factory.mktemp("tutorial"))


def said(notebook: dict, pattern: str) -> str:
    """What the one cell that matches showed."""
    (cell,) = [c for c in notebook["cells"] if c["cell_type"] == "code" and re.search(pattern, "".join(c["source"]))]
    return "".join("".join(o.get("text") or o["data"]["text/plain"]) for o in cell["outputs"])


def test_it_does_what_it_says(tutorial):
    made = said(tutorial, "mlops-nb init")
    assert "looking for 'yes'" in made and re.search(r"member_no .*identifies a row", made) and re.search(r"sex .*sensitive\?", made)
    assert "exclude: {}" in said(tutorial, "What the stages let you turn") and "sound: " in said(tutorial, "^for old, new in")
    assert "did you mean 'test_size'?" in said(tutorial, "test_sise")
    ran = said(tutorial, "^!mlops-nb run --sample 1000$")
    assert len(re.findall(r"(?m)^\w+ +done ", ran)) == STAGES and "model gym version 1, phase staging" in ran
    assert said(tutorial, "^import json").startswith("done | gym version 1 | staging")


def test_the_model_is_of_use(tutorial):
    auc = float(re.search(r"roc_auc +(0\.\d+)", said(tutorial, "^import json"))[1])
    assert 0.7 < auc < 0.98, "good, and not by the column that gives it away"
    loyal, shaky = said(tutorial, "Predictor.load").splitlines()
    assert loyal.startswith("no ") and loyal.endswith("[]") and shaky.startswith("yes")
    assert "km_from_home is missing" in shaky and "plan = gold is" in shaky
    assert "unknown field 'visit_last_month'; did you mean 'visits_last_month'?" in said(tutorial, "refusal = ")


def test_what_is_changed_and_what_is_not(tutorial):
    planned = dict(re.findall(r"(?m)^(\w+) +(run|depends|cached)", said(tutorial, "--dry-run")))
    assert {n for n, w in planned.items() if w != "cached"} == {"fairness", "register", "score", "monitor"} and len(planned) == STAGES
    own = said(tutorial, "new-stage")
    assert "sound: 17 stages" in own and re.search(r"(?m)^visits +done", own)
    assert re.search(r"gym +1 +production", said(tutorial, "promote"))


def test_it_is_fit_to_be_read(tutorial):
    shown = json.dumps([c["outputs"] for c in tutorial["cells"] if c["cell_type"] == "code"])
    assert not re.search(r"/(tmp|home|root|Users)/|\\u001b", shown), "no path of a machine, no terminal's signs"
    assert '"error"' not in shown and len(json.dumps(tutorial)) < 200_000
    assert "| export" not in json.dumps(tutorial) and not (FOLDER.parents[1] / "mlops_nb" / "tutorials").exists()


@BOTH_WAYS
def test_what_a_project_adds(now, tmp_path):
    own = notebook_of("your_own.ipynb", now, tmp_path)
    assert "exported to gym.extensions" in said(own, "^!mlops-nb extend") and "sound: " in said(own, "^import re")
    assert len(re.findall(r"(?m)^\w+ +done ", said(own, "^!mlops-nb run"))) == STAGES
    shown = said(own, "^!mlops-nb models show")
    assert re.search(r"chosen \w+", shown) and re.search(r"poisson_deviance +[01]\.\d+ +[01]\.\d+ to", shown)
    assert "no metric 'roc_auc' for a count task; known: mae, poisson_deviance" in said(own, "metric: roc_auc")
    refused = said(own, "add_model_type, ModelType")
    assert "gives no probabilities" in refused and "'gamma'" in refused and 'say serving="plain"' in refused


@pytest.mark.slow
def test_the_lines_of_the_readme_work_in_a_project(tmp_path):
    """README's model type, its lines as they stand: a last cell of the notebook that `extend` begins, then what its comment says."""
    (lines,) = re.findall(r"(?s)```python\n(#\| default_exp extensions\n.*?)```", (FOLDER.parents[1] / "README.md").read_text(encoding="utf-8"))
    (knobs,) = re.findall(r"(?m)^\].* nbdev-export, .* charter: (knobs: \{.+\})$", lines)
    root = project_of(tmp_path / "visits.csv", visits("regression", 200), "comes")
    assert "exported to gym.extensions" in command(root, "extend")
    notebook = nbformat.read(root / "nbs" / "extensions.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(lines))
    nbformat.write(notebook, root / "nbs" / "extensions.ipynb")
    assert "run nbdev-export" in command(root, "check", fails=True)
    subprocess.run([Path(sys.executable).with_name("nbdev-export")], cwd=root, check=True, capture_output=True, timeout=60)
    charter = root / "nbs" / "charters" / "gym.yaml"
    charter.write_text(charter.read_text().replace("knobs: {}", knobs))
    assert command(root, "check").startswith("sound: ")
    assert re.search(r"(?m)^train +done ", command(root, "run", "train"))
    trained = json.loads(next((root / "reports").glob("*/train.ipynb")).read_text())
    compared = dict(re.findall(r"(?m)^(\w+) +(0\.\d+) ", said(trained, r'set_index\("candidate"')))
    assert compared.keys() == {"linear", "robust"} and float(compared["robust"]) > 0.3, compared


@BOTH_WAYS
def test_what_several_people_do(now, tmp_path):
    team = notebook_of("team.ipynb", now, tmp_path)
    assert "first commit " in said(team, "^import numpy") and "the repository gym" in said(team, "^!mlops-nb init . --git")
    shown = said(team, "^!git diff")
    assert "[-3-]{+2+}" in shown and "execution_count" not in shown and "\u001b" not in shown
    merged = said(team, "^!git merge")
    assert "False True True" in merged and merged.rstrip().splitlines()[-1].startswith("sound: 17 stages"), "nothing is left to commit"
    assert "nothing" not in said(team, "^!mlops-nb run split --sample 500 -p"), "the charter was changed"
    back = said(team, "mlops-nb restore")
    assert "split.test_size=0.3" in back and "proof: all 4 stages" in back and "beware" not in back
    assert re.findall(r"(?m)^(\w+) +cached", said(team, "^os.chdir..*gym-then")) == ["problem", "ingest", "validate", "split"]


@BOTH_WAYS
def test_how_a_table_is_read(now, tmp_path):
    table = notebook_of("any_table.ipynb", now, tmp_path)
    made = said(table, "^!mlops-nb init")
    assert re.search(r"Verbrauch +number .*decimal comma; thousands parted by .; without its €", made) and "the text is cp1252" in made
    assert re.search(r"unterschrieben +undecided ", made) and "TO BE DECIDED by you" in made
    assert "is 01.01.2025 with the day or the month first?" in said(table, "^!mlops-nb run validate")
    assert "model strom version 1, phase staging" in said(table, "^answer = ")
    scored = said(table, "^rows = Path")
    assert "399 of 400 rows scored" in scored and '"reason": "expected a number such as 1.234,50 €"' in scored


@BOTH_WAYS
def test_what_becomes_of_dates(now, tmp_path):
    dates = notebook_of("dates.ipynb", now, tmp_path)
    assert re.search(r"at +datetime .* times, day first; made of it: days, day, weekday, hour", said(dates, "^!mlops-nb init"))
    assert len(re.findall(r"(?m)^\w+ +done ", said(dates, "^os.chdir..bicycles"))) == STAGES
    assert float(re.search(r"rows: (0\.\d+)", said(dates, "^import json"))[1]) > 0.8
    eight, three, noon, far = (int(n) for n in re.findall(r"(?m)^[\d.]+ \d\d:00: (\d+)", said(dates, "Predictor.load")))
    assert eight > 2 * three and noon > 2 * three and 0 < far < 200, "by the hour, and no trend for years on"
    assert "is outside of 2026-01-05" in said(dates, "Predictor.load") and said(dates, "^reasons = ").startswith("[('at', ")
    shown = json.dumps([c["outputs"] for c in dates["cells"] if c["cell_type"] == "code"])
    assert not re.search(r"/(tmp|home|root|Users)/|\\u001b", shown)


@BOTH_WAYS
def test_how_several_sources_become_one_table(now, tmp_path):
    several = notebook_of("sources.ipynb", now, tmp_path)
    assert re.search(r"sound: 16 stages", said(several, "^os.chdir..late")) and "one row there (customer = " in said(several, "^by_time = ")
    assert len(re.findall(r"(?m)^\w+ +done ", said(several, "^!mlops-nb run$"))) == STAGES
    shown = said(several, "^!mlops-nb models show")
    digests = re.findall(r"(?m)^source +(\S+), sha256 [0-9a-f]{12}, licence ", shown)
    assert digests == ["orders.csv", "shop.db#query", "scores.parquet"] and "contract 2026-17, contact data@agency.example" in shown
    unseen, newer = (int(n) for n in re.findall(r": (\d+)", said(several, "^from mlops_nb.base.charter")))
    assert unseen == 0 and newer > 100, "no row sees what was known later only, though there is much to see"
    assert re.search(r"ingest cached\s+ingest run inputs: source", said(several, "^import subprocess"))
    refused = said(several, "hunter2")
    assert "holds a password" in refused and "hunter2" not in refused and "sound: " in refused
    shown = json.dumps([c["outputs"] for c in several["cells"] if c["cell_type"] == "code"])
    assert not re.search(r"/(tmp|home|root|Users)/|\\u001b", shown)


@BOTH_WAYS
def test_which_data_a_model_learnt_from(now, tmp_path):
    versions = notebook_of("versions.ipynb", now, tmp_path)
    begun = said(versions, "^os.chdir..gym")
    assert "git: a new repository" in begun and "members@1: data/members.csv, 700 rows, 5 columns" in begun and "by Ada: as the gym sent them" in begun
    differ = said(versions, "^later = ")
    assert "rows: 700 -> 690: 0 added, 10 removed, 1 changed (by number)" in differ and "values changed: age 1" in differ
    assert "columns added: town" in differ
    pins = said(versions, "members@latest")
    assert "a charter pins a number, or each run may read others: members@2" in pins and re.search(r"sound: 16 stages", pins)
    assert len(re.findall(r"(?m)^\w+ +done ", said(versions, "somebody's mistake"))) == STAGES
    which = said(versions, "^!mlops-nb models show gym 1")
    assert re.search(r"version +members@2, by Ada, ten members withdrew", which) and "members@2 is in learnt_from.csv: 690 rows" in which
    assert re.search(r"(?m)^number,age,visits,plan,left,town", which)
    assert "model-gym@1: data/model-gym, 3 files" in said(versions, "data add --model")
    back = said(versions, "members@1 --force")
    assert "changes that are in no version" in back and "proven" in back and "rolled back to v1" in back
    assert re.search(r"4 versions are on the remote; [0-9,]+ objects went there now", said(versions, "^!dvc remote add"))
    assert "members@2 is in there.csv: 690 rows" in said(versions, "^!dvc remote add")
    assert "neither here nor on the remote storage" in said(versions, "^import shutil")
    shown = json.dumps([c["outputs"] for c in versions["cells"] if c["cell_type"] == "code"])
    assert not re.search(r"/(tmp|home|root|Users)/|\\u001b", shown)


@BOTH_WAYS
def test_what_becomes_of_texts(now, tmp_path):
    texts = notebook_of("texts.ipynb", now, tmp_path)
    made = said(texts, "^!mlops-nb init")
    assert re.search(r"(?m)^review +text .* texts, read by their words\s*$", made) and made.count("identifiers or single words") == 2
    assert len(re.findall(r"(?m)^\w+ +done ", said(texts, "^os.chdir..parcels"))) == STAGES
    auc, first = re.search(r"rows: (0\.\d+)\s+matters most: (\w+)", said(texts, "^import json")).groups()
    assert float(auc) > 0.65 and first == "review"
    answers = said(texts, "Predictor.load")
    good, bad, unknown, missing = (float(p) for p in re.findall(r"(?m)^[^:]+: (0\.\d\d)", answers))
    assert good < min(unknown, missing) and bad > max(unknown, missing)
    assert "None: " in answers and "review is missing" in answers and "a text of at most 100,000 characters" in answers
    assert said(texts, "^reasons = ").startswith("[('review', ")
    shown = json.dumps([c["outputs"] for c in texts["cells"] if c["cell_type"] == "code"])
    assert not re.search(r"/(tmp|home|root|Users)/|\\u001b", shown)


@BOTH_WAYS
def test_how_far_figures_can_be_trusted(now, tmp_path):
    """What its text says is what its simulations show."""
    trust = notebook_of("trust.ipynb", now, tmp_path)

    def table(pattern: str) -> list[list[float]]:
        return [[float(v) for v in re.findall(r" (\d\.\d+)", line)] for line in said(trust, pattern).splitlines() if re.search(r" \d\.\d", line)]

    held = [share for (share,) in table("^def answered")]
    assert len(held) == 11 and min(held) > 0.9 and 0.92 < sum(held) / 11 < 0.98
    assert said(trust, "^little = ").count("too few for an interval") == 6
    assert all(row < 0.7 < 0.88 < person for row, person in table("^def visits"))
    seen, sure = zip(*table("^rejected = "), strict=True)
    assert max(seen) > 0.5 and max(sure) <= 0.05
    assert re.search(r"'(9\d|100)% of the unfair models are rejected", said(trust, "^unfair = "))


@BOTH_WAYS
def test_expectations(now, tmp_path):
    pytest.importorskip("great_expectations")
    shop = notebook_of("expectations.ipynb", now, tmp_path)
    own, suite = said(shop, "def put_aside"), said(shop, r"^suite = ")
    assert own.count(".0 is above 120") == 2 and "match_regex" not in own
    assert suite.count(".0 is above 120") == 2 and suite.count("'unknown' fails expect_column_values_to_match_regex") == 2
    assert "did you mean 'expect_column_values_to_match_regex'?" in said(shop, "match_regx")


@BOTH_WAYS
def test_checking_data(now, tmp_path):
    checked = notebook_of("checks.ipynb", now, tmp_path)
    assert "`left >= came` is false" in said(checked, "^stays = ") and "key of an earlier row" in said(checked, "^stays = ")
    assert "5 of 6 rows, kept with the reason" in said(checked, "^quality = ") and "1 row passes though the check 'spelling'" in said(checked, "^quality = ")
    assert "don't meet what the charter demands" in said(checked, "^strict = ") and "can't stand there" in said(checked, "^def refusal")
