"""What a notebook opened by hand sees, beyond the lessons."""

import os

import pytest

from mlops_nb.base.artifacts import Store
from mlops_nb.base.settings import load_settings
from mlops_nb.pipeline import stage


def test_the_source_is_hashed_once_for_each_change_of_its_file(project, monkeypatch):
    """A notebook looks at its view at every read and write: a file of gigabytes must not be read again each time."""
    hashed = []
    real = stage.source_file
    monkeypatch.setattr(stage, "source_file", lambda *given: hashed.append(1) or real(*given))
    settings, rows = load_settings(project.root), project.root / "rows.csv"
    seen = [stage.roots(settings, Store(settings.home))["source"] for _ in range(5)]
    assert len(hashed) == 1 and len(set(seen)) == 1
    rows.write_text("y\n4\n5\n6\n")  # as long as before
    assert stage.roots(settings, Store(settings.home))["source"] != seen[0] and len(hashed) == 2
    facts = rows.stat()
    (project.root / "other.csv").write_text("y\n7\n8\n9\n")
    os.utime(project.root / "other.csv", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    os.replace(project.root / "other.csv", rows)  # another file, of the same size and time
    last = stage.roots(settings, Store(settings.home))["source"]
    assert len(hashed) == 3 and last == stage.roots(settings, Store(settings.home))["source"] and len(hashed) == 3


def test_a_module_is_found_that_was_exported_in_the_same_tick_of_the_clock(tmp_path, monkeypatch):
    """Python lists a folder again only when its time has changed, and a file system's clock ticks slowly."""
    import importlib
    import os

    from mlops_nb.pipeline.stage import bind

    (folder := tmp_path / "ticking").mkdir()
    (folder / "__init__.py").touch()
    (folder / "first.py").write_text("one = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.import_module("ticking.first").one == 1  # the folder is listed now
    seen = folder.stat()
    (folder / "second.py").write_text("two = 2\n")
    (folder / "third.py").write_text("three = 3\n")
    os.utime(folder, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("ticking.second")
    os.utime(folder, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert bind("ticking.third")["three"] == 3
