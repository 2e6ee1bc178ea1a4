"""`mlops-nb data checkout` beside plain `dvc checkout`, both as commands, in turns: processor seconds of each, and of what starts them.

Both bring the same file back: from nothing, over another version, and where it is there already (a hit). Ours also says that what came is
what it was: it reads the file again and holds its SHA-256 against the version's. `python tests/bench/versions.py MB TURNS`.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from _figures import tell
from mlops_nb.base.git import git

CODE = "import sys; from mlops_nb.cli.main import main; sys.argv[0] = 'mlops-nb'; main()"
OURS = [sys.executable, "-c", CODE, "data", "checkout"]
DVC = [sys.executable, "-m", "dvc", "checkout", "--quiet", "--force"]
GOAL = 1.5


def seconds(root: Path, *words: str) -> float:
    "Processor seconds of a command and its children."
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def project(root: Path, megabytes: int) -> None:
    "A project with two versions of a file of numbers."
    (root / "data").mkdir(parents=True)
    (root / "settings.ini").write_text("[mlops_nb]\n")
    (root / ".gitignore").write_text("/data/\n")
    for turn in range(2):
        np.random.default_rng(turn).integers(0, 2**63, megabytes * 125_000).tofile(root / "data" / "numbers.bin")
        subprocess.run([*OURS[:-1], "add", "data/numbers.bin", "--reason", f"turn {turn}"], cwd=root, check=True, capture_output=True)


def main() -> None:
    megabytes, turns = (int(word) for word in (*sys.argv[1:], "200", "5")[:2])
    os.environ |= {f"GIT_{who}_{what}": "bench" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    os.environ["DVC_NO_ANALYTICS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "project")
        project(root, megabytes)
        file, ratios = root / "data" / "numbers.bin", {}
        for case in ("nothing", "other", "hit"):
            taken: dict[str, list[float]] = {"ours": [], "dvc": []}
            for turn in range(turns):
                for who in ("ours", "dvc") if turn % 2 else ("dvc", "ours"):  # either first, so that neither profits
                    if case == "nothing":
                        file.unlink(missing_ok=True)
                    wanted = 2 if case != "other" else 1 if who == ("ours" if turn % 2 else "dvc") else 2
                    if who == "dvc":
                        git(root, "checkout", "--quiet", f"data/numbers/v{wanted}", "--", "versions/numbers.dvc")
                        taken[who].append(seconds(root, *DVC, "versions/numbers.dvc"))
                    else:
                        taken[who].append(seconds(root, *OURS, f"numbers@{wanted}"))
            middle = {who: statistics.median(some) for who, some in taken.items()}
            print(f"{case}: ours {middle['ours']:.3f} s, dvc {middle['dvc']:.3f} s of processor time, {megabytes} MB, the median of {turns}")
            ratios[case] = middle["ours"] / middle["dvc"]
    for case, ratio in ratios.items():
        tell(f"data_checkout_{case}_over_dvc", ratio, f"<={GOAL}", ratio <= GOAL)


if __name__ == "__main__":
    main()
