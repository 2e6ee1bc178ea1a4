"""Commands about models, where the registry has less than they ask for."""

import pytest

from mlops_nb.base.errors import why_refused
from mlops_nb.cli.models import models_diff
from mlops_nb.registry import versions


def version(number: int) -> versions.Version:
    """As the registry tells of one that nobody has promoted."""
    return versions.Version(name="p1", version=number, phase="staging", created="2026-01-01T00:00:00Z", model_digest="a", evidence_digest="b", mlflow_run="c")


@pytest.mark.parametrize(("there", "way"), [((3, 2, 1), "mlops-nb models diff p1 2 3"), ((1,), "version 1 is the only one")])
def test_before_any_promotion_diff_names_the_newest_two(monkeypatch, there, way):
    monkeypatch.setattr(versions, "versions", lambda *asked: [version(n) for n in there])
    said = why_refused(models_diff, "p1", "production", "latest")
    assert "no version of 'p1' is in production" in said and way in said
