"""Warm kernels against ordinary ones: one notebook that only imports the stack, run by papermill; and a forked kernel's memory."""

import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import papermill
from jupyter_client.manager import AsyncKernelManager
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines

from mlops_nb.core.kernel import NAME, PromptManager, warm_up

ENV = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
CELL = """import os
import numpy, pandas, sklearn, sklearn.ensemble, matplotlib.pyplot
def pss(pid):
    return sum(int(line.split()[1]) for line in open(f"/proc/{pid}/smaps_rollup") if line.startswith("Pss:")) / 1024
print(os.getppid(), pss("self"), pss(os.getppid()))"""


class Bench(Engine):
    "papermill's own way, with the kernel manager that belongs to the kernel."

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **_):
        manager = PromptManager if kernel_name == NAME else AsyncKernelManager
        return PapermillNotebookClient(nb_man, kernel_name=kernel_name, kernel_manager_class=manager, timeout=120).execute(env=ENV)


def parent_pss() -> float:
    "MB of the parent before it has forked."
    from mlops_nb.core.kernel import _parent

    file = Path(f"/proc/{_parent(ENV).process.pid}/smaps_rollup")
    return sum(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith("Pss:")) / 1024


def main(rounds: int = 5) -> None:
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    papermill_engines.register("bench", Bench)
    taken: dict[str, list[float]] = {NAME: [], "python3": []}
    grown, alone, plain = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        notebook = Path(folder, "imports.ipynb")
        kernelspec = {"name": "python3", "display_name": "python3", "language": "python"}
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)], metadata={"kernelspec": kernelspec}), notebook)

        def once(kernel: str) -> list[float]:
            since = time.perf_counter()
            done = papermill.execute_notebook(notebook, Path(folder, "out.ipynb"), engine_name="bench", kernel_name=kernel, progress_bar=False)
            taken[kernel].append(time.perf_counter() - since)
            return [float(x) for x in done.cells[-1].outputs[0].text.split()]

        since = time.perf_counter()
        warm_up(ENV)
        once(NAME)
        once("python3")
        first = time.perf_counter() - since - taken["python3"][0]
        for runs in taken.values():
            runs.clear()
        for _ in range(rounds):
            before = parent_pss()
            _, own, after = once(NAME)
            grown.append(own + after - before)
            alone.append(before)
            plain.append(once("python3")[1])
    warm, ordinary = statistics.median(taken[NAME]), statistics.median(taken["python3"])
    print(f"an import-only notebook: forked {warm:.2f} s, ordinary {ordinary:.2f} s, medians of {rounds}; the first forked one with its parent {first:.2f} s")
    print(f"memory: a forked kernel adds {statistics.median(grown):.0f} MB to its parent's {statistics.median(alone):.0f} MB; an ordinary kernel has {statistics.median(plain):.0f} MB (PSS)")
    print(f"bench kernel_import_ratio {warm / ordinary:.3f} <=0.08 {'holds' if warm / ordinary <= 0.08 else 'short'}")
    print(f"bench kernel_pss_mb {statistics.median(grown):.1f} - holds")


if __name__ == "__main__":
    sys.exit(main())
