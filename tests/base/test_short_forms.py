"""The short forms that people write, through the charter's loader: there every scalar is text until a type reads it."""

from pathlib import Path

import pytest

from mlops_nb.base.charter import Charter, load_charter
from mlops_nb.base.errors import MlopsError

TEXT = "name: a\ngoal: g\ntask: binary\ntarget: y\npositive: yes\nmetric: roc_auc\n"


def loaded(folder: Path, more: str, data: str = "{source: x.csv}") -> Charter:
    file = folder / "a.yaml"
    file.write_text(f"{TEXT}data: {data}\n{more}\n")
    return load_charter(file)


@pytest.mark.parametrize(("said", "lands"), [("true", True), ("yes", True), ("True", True), ("false", False), ("no", False)])
def test_a_bare_landing(tmp_path, said, lands):
    made = loaded(tmp_path, "", f"{{source: in, landing: {said}}}")
    assert (made.data.landing is not None) == lands
    with pytest.raises(MlopsError, match="landing"):
        loaded(tmp_path, "", "{source: in, landing: perhaps}")


@pytest.mark.parametrize(("said", "share"), [("0.05", 0.05), ("5%", 0.05), ("'5 %'", 0.05), (".2", 0.2)])
def test_shares(tmp_path, said, share):
    for form in (said, f"{{max: {said}}}"):
        assert loaded(tmp_path, f"validation: {{missing: {{a: {form}}}}}").validation.missing["a"].max == share
    for form in (said, f"{{min: {said}}}"):
        assert loaded(tmp_path, f"validation: {{classes: {form}}}").validation.classes.min == share


@pytest.mark.parametrize("said", ["missing: {a: 120%}", "missing: {a: some}", "missing: {a: ~}", "classes: 0", "classes: few"])
def test_what_is_no_share_is_shown_as_it_was_written(tmp_path, said):
    with pytest.raises(MlopsError) as refused:
        loaded(tmp_path, f"validation: {{{said}}}")
    assert "None" not in str(refused.value)
