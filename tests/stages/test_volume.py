"""A source that loses or gains many rows is told against the newest earlier run, by real runs, and repeating a run changes nothing."""

import json
from pathlib import Path

from tests.conftest import called, project_of

ROWS = [{"age": 20 + i % 50, "visits": i * 7 % 31, "buys": "yes" if i * 13 % 50 < i % 50 else "no"} for i in range(600)]


def run(root: Path) -> tuple[str, dict, str]:
    """A run up to validate: how it went, its stages, what it said."""
    done = called(root, "run", "validate", env={"MLOPS_NB_TRACKING": "disabled"})
    latest = (root / "reports" / "latest").read_text().strip()
    summary = json.loads((root / "reports" / latest / "summary.json").read_text())
    return summary["status"], {n: s["status"] for n, s in summary["stages"].items()}, done.stdout + done.stderr


def test_rows_are_counted_against_the_newest_earlier_run(tmp_path):
    root = project_of(tmp_path / "shop.csv", ROWS, "buys")
    charter, data = root / "nbs" / "charters" / "gym.yaml", root / "data" / "shop.csv"
    charter.write_text(charter.read_text() + "validation: {volume: {max_decrease: 20%}}\n")
    assert (begun := run(root))[0] == "done", begun[2]
    assert set(run(root)[1].values()) == {"cached"}  # the same rows: nothing to compare with
    whole = data.read_text()
    data.write_text("".join(whole.splitlines(keepends=True)[:301]))
    status, _, said = run(root)
    assert status == "failed" and "the source has 300 rows, the newest earlier run read 600: -50.0%, at most 20.0% fewer are expected" in said
    assert "validation: {severity: {volume: warn}}" in said and "read 600" in run(root)[2]  # what was stopped is none to compare with
    charter.write_text(charter.read_text().replace("20%}}", "20%}, severity: {volume: warn}}"))
    assert (first := run(root))[0] == "done" and "read 600" in first[2]
    assert set((again := run(root))[1].values()) == {"cached"} and "1 warning as in the run before" in again[2]
    data.write_text(whole)  # more than before is not bounded
    assert (back := run(root))[0] == "done" and "newest earlier run" not in back[2]
