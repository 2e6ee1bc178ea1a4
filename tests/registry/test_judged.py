"""How often the same test rows have judged a version: counted from evidence, whatever became of the version."""

from mlops_nb.registry import judged
from mlops_nb.registry.evidence import Evidence
from mlops_nb.registry.judged import judged_by, judged_line
from mlops_nb.base.errors import MlopsError
from mlops_nb.registry.versions import Version


def test_versions_of_the_same_test_rows_are_counted(monkeypatch):
    digests = {1: "a", 2: "b", 3: "a", 4: None, 5: "a"}  # the fourth can't be read

    def made(number):
        facts = {"phase": "rejected" if number == 3 else "staging", "created": "", "model_digest": "", "evidence_digest": "", "mlflow_run": ""}
        return Version(name="income", version=number, **facts)

    def read(uri, version):
        if digests[version.version] is None:
            raise MlopsError("lost")
        return Evidence(digests={"test": digests[version.version]})

    monkeypatch.setattr(judged, "versions", lambda uri, name: [made(n) for n in digests])
    monkeypatch.setattr(judged, "read_evidence", read)
    assert judged_by("sqlite:///x.db", "income", "a") == [1, 3, 5] and judged_by("sqlite:///x.db", "income", "b") == [2]
    assert judged_by("sqlite:///x.db", "income", "") == []  # older evidence doesn't say
    assert "judged 3 versions of income" in judged_line(3, "income") and "no other" in judged_line(1, "income")
