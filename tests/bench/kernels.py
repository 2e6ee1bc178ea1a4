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
from _figures import tell
from jupyter_client.manager import AsyncKernelManager
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines

from mlops_nb.pipeline.kernel import NAME, PromptManager, warm_up

ENV = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
STACK = "import numpy, pandas, sklearn, matplotlib.pyplot"
MEMORY = """import os
pss = lambda pid: sum(int(line.split()[1]) for line in open(f"/proc/{pid}/smaps_rollup") if line.startswith("Pss:")) / 1024
print(os.getppid(), pss("self"), pss(os.getppid()))"""


def pss(pid: int) -> float:
    "MB of a process, shared pages divided among those who share them."
    return sum(int(line.split()[1]) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:")) / 1024


class Bench(Engine):
    "papermill's own way, with the kernel manager that belongs to the kernel."

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **_):
        manager = PromptManager if kernel_name == NAME else AsyncKernelManager
        return PapermillNotebookClient(nb_man, kernel_name=kernel_name, kernel_manager_class=manager, timeout=120).execute(env=ENV)


def main(rounds: int = 5) -> None:
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    papermill_engines.register("bench", Bench)
    taken: dict[str, list[float]] = {NAME: [], "python3": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "notebook.ipynb")

        def once(kernel: str, *cells: str) -> tuple[float, list[float]]:
            "Seconds, and the numbers that the last cell prints."
            kernelspec = {"name": "python3", "display_name": "python3", "language": "python"}
            nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells], metadata={"kernelspec": kernelspec}), file)
            since = time.perf_counter()
            done = papermill.execute_notebook(file, Path(folder, "out.ipynb"), engine_name="bench", kernel_name=kernel, progress_bar=False)
            seconds = time.perf_counter() - since
            return seconds, [float(number) for output in done.cells[-1].outputs for number in output.text.split()]

        warm_up(ENV)
        first, _ = once(NAME, STACK)
        once("python3", STACK)  # files are in the page cache now
        for _ in range(rounds):
            for kernel, runs in taken.items():
                runs.append(once(kernel, STACK)[0])
        pid, own, parent = once(NAME, STACK, MEMORY)[1]
        alone = pss(int(pid))
        plain = once("python3", STACK, MEMORY)[1][1]
    warm, ordinary = statistics.median(taken[NAME]), statistics.median(taken["python3"])
    print(f"an import-only notebook: forked {warm:.2f} s, ordinary {ordinary:.2f} s, medians of {rounds}; the first forked one, with its parent's start, {first:.2f} s")
    print(f"memory (PSS): a forked kernel adds {own + parent - alone:.0f} MB to its parent's {alone:.0f} MB; an ordinary kernel has {plain:.0f} MB")
    tell("kernel_import_ratio", warm / ordinary, "<=0.08", warm / ordinary <= 0.08)
    tell("kernel_pss_mb", own + parent - alone, "-", True)  # a figure to watch; no goal is set


if __name__ == "__main__":
    sys.exit(main())
