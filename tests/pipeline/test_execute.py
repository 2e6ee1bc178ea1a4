"""A stage's cells headless: the cell's limit is the only limit, what it shows is kept, and an error says what it was."""

import json
import time
from pathlib import Path

import pytest
from tests.conftest import notebook

from mlops_nb.pipeline.execute import Failure, Kernels, execute
from mlops_nb.pipeline.guard import Flood
from mlops_nb.base.secrets import Masker
from mlops_nb.pipeline.signatures import read_stage

SHOW = "from IPython.display import display\nfor i in range({}):\n    display({{'text/plain': f'at {{i}}'}}, raw=True)"


class Ran:
    """One run of a notebook with these cells: how it failed, what each cell shows, and how often it was written."""

    def __init__(self, folder: Path, *cells: str, timeout: int = 600, budget: int = 2_000_000, kernel: str = "mlops-nb"):
        folder.mkdir(exist_ok=True)
        file = folder / "10_talk.ipynb"
        (folder / "settings.ini").write_text("[mlops_nb]\n")
        file.write_text(json.dumps(notebook(["#| default_exp base.errors", "#| export\nimport re", "PARAMETERS\nn: int = 1", *cells])))
        context = {"run": "r", "stage": "talk", "home": str(folder), "inputs": {}, "record": str(folder / "record.jsonl"), "source": "", "log_url": "", "targets": {}}
        flood = Flood(folder, budget, Masker([]))
        self.failure: Failure | None = execute(
            read_stage(file), {"n": 1}, context, folder, folder / "out.ipynb", kernel=kernel, threads=1, timeout=timeout, root=folder, kernels=Kernels(), flood=flood
        )
        self.cut = flood.close()
        self.outputs = [c["outputs"] for c in json.loads((folder / "out.ipynb").read_text())["cells"] if c["cell_type"] == "code"][-len(cells) :]


def slowly(monkeypatch: pytest.MonkeyPatch, seconds: float, times: int = 10**9) -> None:
    """A runner that needs this long to take in each of the next displays, as on a busy machine."""
    from nbclient import NotebookClient

    usual, left = NotebookClient.process_message, iter(range(times))

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "display_data" and next(left, None) is not None:
            time.sleep(seconds)
        return usual(self, msg, cell, cell_index)

    monkeypatch.setattr(NotebookClient, "process_message", process_message)


def texts(outputs: list[dict]) -> list[str]:
    return ["".join(o["data"]["text/plain"]) for o in outputs if o["output_type"] == "display_data"]


def test_what_a_busy_runner_reads_late_is_no_time_out(tmp_path, monkeypatch):
    slowly(monkeypatch, 0.1)  # the cell itself ends at once
    ran = Ran(tmp_path, SHOW.format(60), "1")
    assert ran.failure is None and texts(ran.outputs[0]) == [f"at {i}" for i in range(60)]


def test_a_cell_that_ended_in_time_has_ended_in_time(tmp_path, monkeypatch):
    slowly(monkeypatch, 7, times=1)
    ran = Ran(tmp_path, SHOW.format(1) + "\nimport time\ntime.sleep(0.5)", "1", timeout=5)
    assert ran.failure is None and texts(ran.outputs[0]) == ["at 0"]


def test_a_cell_over_its_limit(tmp_path):
    ran = Ran(tmp_path, "import time\ntime.sleep(600)", "1", timeout=5)
    assert ran.failure == Failure("cell3", None, "CellTimeoutError", "the cell took longer than 5 s, the `timeout` in settings.ini")
    assert ran.outputs[0][-1]["evalue"] == ran.failure.evalue


def test_output_that_cannot_be_read_in_time_says_so(tmp_path, monkeypatch):
    slowly(monkeypatch, 0.3)
    ran = Ran(tmp_path, SHOW.format(100), "1", timeout=6)
    assert ran.failure.ename == "CellTimeoutError" and ran.failure.evalue == "the cell has ended, but what it showed could not be read within another 6 s; show less in it"


@pytest.mark.parametrize(("error", "said"), [
    (RuntimeError("the kernel did not answer within 60 s of its start"), "the kernel did not answer within 60 s of its start"),
    (TimeoutError(), "TimeoutError"),
    (ConnectionError("refused"), "refused"),
])  # fmt: skip
def test_any_other_error_is_quoted(tmp_path, monkeypatch, error, said):
    from mlops_nb.pipeline.kernel import PromptClient

    async def wait_for_ready(self, timeout=None):
        raise error

    monkeypatch.setattr(PromptClient, "wait_for_ready", wait_for_ready)
    ran = Ran(tmp_path, "1")
    assert (ran.failure.ename, ran.failure.evalue) == (type(error).__name__, said)


def test_a_long_cell_is_saved_now_and_then(tmp_path, monkeypatch):
    from papermill.engines import NotebookExecutionManager

    from mlops_nb.pipeline import execute as module

    usual, usual_write, writes = NotebookExecutionManager.autosave_cell, module.write_atomic, []

    def soon(self):
        self.autosave_cell_every = 1  # second, not 30
        usual(self)

    monkeypatch.setattr(NotebookExecutionManager, "autosave_cell", soon)
    monkeypatch.setattr(module, "write_atomic", lambda path, data: (writes.append(path.name), usual_write(path, data)))
    slowly(monkeypatch, 0.02)
    begun = time.monotonic()
    ran = Ran(tmp_path, SHOW.format(200))
    assert ran.failure is None and len(texts(ran.outputs[0])) == 200
    assert writes.count("out.ipynb") < 20 + (time.monotonic() - begun)  # one a second, and those between cells


def test_a_cell_that_has_ended_is_on_disk_while_the_next_one_runs(tmp_path):
    """What a killed run leaves: the next cell reads the file, within the second after the one before it ended."""
    look = f"import json; done = json.load(open({str(tmp_path / 'out.ipynb')!r}))['cells'][-2]['outputs']"
    ran = Ran(tmp_path, "1", SHOW.format(1), f"{look}\n[o['data']['text/plain'] for o in done]")
    assert ran.failure is None and "at 0" in ran.outputs[2][0]["data"]["text/plain"]


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "displays"), [("mlops-nb", 20_000), ("python3", 4000)])
def test_nothing_is_lost_of_what_a_chatty_cell_shows(tmp_path, kernel, displays):
    ran = Ran(tmp_path, SHOW.format(displays), "1", kernel=kernel)
    assert ran.failure is None and not ran.cut and texts(ran.outputs[0]) == [f"at {i}" for i in range(displays)]
    assert [o["output_type"] for o in ran.outputs[1]] == ["execute_result"]


@pytest.mark.slow
def test_a_chatty_cell_over_its_budget_is_cut_with_a_notice(tmp_path):
    ran = Ran(tmp_path, SHOW.format(5000), "1", budget=1000)
    assert ran.failure is None and 0 < len(texts(ran.outputs[0])) < 60 and "output cut" in ran.outputs[0][-1]["text"]
    assert "at 4999" in ran.cut["cell3"].read_text()
