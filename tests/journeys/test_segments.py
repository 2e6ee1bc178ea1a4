"""The charter `segments`, sampled, from an example project to a registered model: it is what CI runs of it."""

import pytest
from tests.conftest import command

pytestmark = pytest.mark.slow


def test_the_charter_that_ships(tmp_path):
    command(tmp_path, "init", "kinds", "--example", "segments")
    root = tmp_path / "kinds"
    said = command(root, "run", "--sample", "1500", "-p", 'cluster.methods=["kmeans"]')
    assert "model segments version 1, phase staging" in said and "stability" in said, said
    command(root, "models", "promote", "segments", "1", "--sample")
    assert "ready, in production; it answers by its compiled" in command(root, "serve", "segments", "--sample", "--check")
