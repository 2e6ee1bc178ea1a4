"""Answers of the registered model for a table, as `mlops-nb score` gives them, of a version that its gates rejected
too: `python registered.py PROJECT IN.csv OUT.csv`.
"""

import sys
from pathlib import Path

from mlops_nb.base.charter import load_charter
from mlops_nb.base.settings import load_settings
from mlops_nb.batch.score import score
from mlops_nb.registry.client import registry_file
from mlops_nb.registry.files import folder_of
from mlops_nb.registry.versions import get
from mlops_nb.serving.served import load_served


def main(root: Path, source: str, target: str) -> None:
    settings = load_settings(root)
    version = get(settings.registry_uri, load_charter(settings.charter).name, 1)
    files = {
        "phase": version.phase,
        "model": version.model_digest,
        "fold": version.fold_digest,
        "evidence": version.evidence_digest,
    }
    served = load_served(
        version.name, 1, files | {"folder": folder_of(registry_file(settings.registry_uri), version.location)}
    )
    print(score(source, target, served, threads=1).engine)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
