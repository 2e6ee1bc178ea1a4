"""Warm kernels: forked, ended, interrupted, restarted as any kernel, and nothing left behind."""

import asyncio
import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.multikernelmanager import AsyncMultiKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from mlops_nb.pipeline import kernel

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
ENV = {**{k: v for k, v in os.environ.items() if k != "MPLBACKEND"}, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}


def run(*cells: str, env: dict[str, str] = ENV, name: str = kernel.NAME, cwd: str | None = None) -> list[list]:
    "The outputs of each cell, run in a kernel of its own."
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    resources = {"metadata": {"path": cwd}} if cwd else {}
    client = NotebookClient(notebook, kernel_name=name, kernel_manager_class=kernel.PromptManager, timeout=60, resources=resources)
    client.execute(env=env)
    return [cell.outputs for cell in notebook.cells]


def value(*cells: str, **how) -> object:
    "What the last cell prints, as JSON."
    return json.loads(run(*cells[:-1], f"import json; print(json.dumps({cells[-1]}))", **how)[-1][0]["text"])


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def gone(*pids: int, within: float) -> bool:
    until = time.monotonic() + within
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(alive, pids))


@contextlib.asynccontextmanager
async def started(manager):
    await manager.start_kernel(env=ENV)
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()
        if await manager.is_alive():
            await manager.shutdown_kernel()


async def said(client, code: str, text: list[str] | None = None) -> str:
    "What the code prints; `text` fills as it goes."
    text = [] if text is None else text
    await client.execute_interactive(code, timeout=120, output_hook=lambda m: text.append(m["content"].get("text", "") or m["content"].get("ename", "")))
    return "".join(text).strip()


def test_a_kernel_is_forked_from_an_idle_parent_that_knows_the_stack_but_not_our_code(tmp_path):
    facts = "{'parent': os.getppid(), 'known': [m in sys.modules for m in ('numpy', 'pandas', 'sklearn.ensemble', 'matplotlib.pyplot', 'mlops_nb', 'matplotlib_inline.backend_inline')], 'cwd': os.getcwd(), 'env': os.environ.get('MLOPS_NB_X'), 'group': os.getpgid(0) == os.getsid(0) == os.getpid()}"
    one = value("import os, sys", facts, env={**ENV, "MLOPS_NB_X": "a"}, cwd=str(tmp_path))
    two = value("import os, sys", facts)
    assert one["parent"] == two["parent"] and one["known"] == [True, True, True, True, False, False]
    assert (one["cwd"], one["env"], two["env"]) == (str(tmp_path), "a", None) and one["group"]
    assert len(os.listdir(f"/proc/{one['parent']}/task")) == 1
    ours = Path(f"/proc/{one['parent']}/cmdline").read_bytes().split(b"\0")
    assert os.fsencode(kernel.__file__) in ours


def test_interrupt_restart_and_shutdown():
    async def story():
        manager = kernel.PromptManager(kernel_name=kernel.NAME)
        async with started(manager) as client:
            first = int(await said(client, "import os; x = 1; print(os.getpid())"))
            assert (manager.provisioner.pid, manager.transport) == (first, "ipc") and len(manager.ip) < 90
            heard: list[str] = []
            sleeping = asyncio.ensure_future(said(client, "import time; print('asleep', flush=True); time.sleep(600)", heard))
            while "asleep" not in "".join(heard):
                await asyncio.sleep(0.02)
            await manager.interrupt_kernel()
            assert await asyncio.wait_for(sleeping, 60) == "asleep\nKeyboardInterrupt"
            assert await said(client, "print(x)") == "1"
            await manager.restart_kernel()
            await client.wait_for_ready(timeout=30)
            second = int(await said(client, "print(os.getpid() if 'x' in globals() else __import__('os').getpid())"))
            assert second != first and gone(first, within=30)
            assert (await said(client, "print(x)")) == "NameError"
        assert gone(second, within=30) and not await manager.is_alive() and not list(Path(manager.ip).parent.glob(f"{Path(manager.ip).name}*"))

    asyncio.run(story())


def test_as_jupyterlab_starts_them(tmp_path):
    async def story():
        kernel.PromptManager(kernel_name=kernel.NAME).kernel_spec  # noqa: B018  makes the provisioner known where the package is not installed
        kernel.install_kernelspec(str(tmp_path))
        specs = KernelSpecManager(kernel_dirs=[str(tmp_path / "share/jupyter/kernels")], ensure_native_kernel=False)
        many = AsyncMultiKernelManager(kernel_spec_manager=specs, default_kernel_name=kernel.NAME)
        ids = await asyncio.gather(*(many.start_kernel(env=dict(ENV)) for _ in range(2)))
        managers = [many.get_kernel(i) for i in ids]
        assert all(isinstance(m.provisioner, kernel.WarmProvisioner) and m.transport == "ipc" for m in managers)
        client = managers[0].client()
        client.start_channels()
        await client.wait_for_ready(timeout=30)
        parent = int(await said(client, "import os; print(os.getppid())"))
        client.stop_channels()
        pids = [m.provisioner.pid for m in managers]
        assert len(set(pids)) == 2 and parent in {p.process.pid for p in kernel._parents.values()}
        await many.shutdown_all()
        assert gone(*pids, within=30)

    asyncio.run(story())


def test_two_at_once_from_threads_with_random_states_of_their_own():
    draw = "[random.random(), float(np.random.rand()), os.getpid()]"
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        drawn = [done.result() for done in [pool.submit(value, "import random, os, numpy as np", draw) for _ in range(4)]]
    assert all(len(set(column)) == 4 for column in zip(*drawn, strict=True))


@pytest.mark.slow
def test_threads_follow_the_environment_and_openmp_works():
    look = "{'omp': [p['num_threads'] for p in pools if p['user_api'] == 'openmp'], 'blas': [p['num_threads'] for p in pools if p['user_api'] == 'blas'], 'bits': bits, 'score': score}"
    work = """
import numpy as np, hashlib, sklearn.ensemble, scipy.linalg
from threadpoolctl import threadpool_info
a = np.random.RandomState(0).rand(300, 300)
bits = hashlib.sha256((a @ a).tobytes() + scipy.linalg.svd(a)[1].tobytes()).hexdigest()
score = sklearn.ensemble.HistGradientBoostingClassifier(max_iter=5).fit(a, a[:, 0] > 0.5).score(a, a[:, 0] > 0.5)
pools = threadpool_info()"""
    plain = json.loads(subprocess.run([sys.executable, "-c", f"{work}\nimport json; print(json.dumps({look}))"], env=ENV, capture_output=True, text=True, timeout=60, check=True).stdout)
    forked = value(work, look)
    assert forked == plain and set(forked["omp"] + forked["blas"]) == {2} and forked["score"] > 0.9


def test_edited_code_is_seen_by_the_next_kernel(tmp_path):
    module = tmp_path / "just_edited.py"
    ask = (f"import sys; sys.path.append({str(tmp_path)!r}); import just_edited", "just_edited.answer")
    module.write_text("answer = 1")
    first = value(*ask)
    module.write_text("answer = 22")
    assert (first, value(*ask)) == (1, 22)


def test_the_first_figure_shows():
    outputs = run("import matplotlib.pyplot as plt\nplt.plot([1, 2]);")[0]
    assert [o["output_type"] for o in outputs] == ["display_data"] and "image/png" in outputs[0]["data"]


@pytest.mark.slow
def test_joblib_leaves_nothing_in_shared_memory():
    before = set(os.listdir("/dev/shm"))
    share = "import numpy as np, joblib\nbig = np.zeros(300_000)\ntotal = joblib.Parallel(2)(joblib.delayed(np.sum)(big) for _ in range(2))"
    assert value(share, "len(total)") == 2
    until = time.monotonic() + 3
    while set(os.listdir("/dev/shm")) - before and time.monotonic() < until:
        time.sleep(0.05)
    assert not {name for name in set(os.listdir("/dev/shm")) - before if "joblib" in name or "loky" in name}


def test_what_the_process_itself_says_goes_where_it_was_sent(tmp_path):
    watched = "import os, sys, threading\narrived, write = threading.Event(), sys.stdout.write\nsys.stdout.write = lambda text: (write(text), arrived.set())"
    code = "os.system('echo shown')\nassert arrived.wait(60)  # a thread reads what the process prints\n_ = os.write(sys.stderr._original_stdstream_copy, b'said')"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"{watched}\n{code}")])
    with open(tmp_path / "said", "wb") as file:
        NotebookClient(notebook, kernel_name=kernel.NAME, kernel_manager_class=kernel.PromptManager).execute(env=ENV, stdout=file, stderr=file)
    assert notebook.cells[0].outputs[0]["text"] == "shown\n" and (tmp_path / "said").read_text().count("said") == 1  # beside the copy of what the cell shows, in either order


def test_a_killed_kernel_is_noticed():
    with pytest.raises(DeadKernelError):  # long before the cell's time is over
        run("import os; os.kill(os.getpid(), 9)")


OWNER = """
import asyncio, os, subprocess, sys
from mlops_nb.pipeline import kernel

async def main():
    manager = kernel.PromptManager(kernel_name=kernel.NAME)
    await manager.start_kernel(env=dict(os.environ))
    client = manager.client(); client.start_channels(); await client.wait_for_ready(timeout=60)
    text = []
    await client.execute_interactive("import os, subprocess; p = subprocess.Popen(['sleep', '60']); print(os.getppid(), os.getpid(), p.pid)", output_hook=lambda m: text.append(m["content"].get("text", "")))
    print("".join(text).split(), manager.ip, flush=True)
    client.execute("while True: pass")
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.slow
def test_kernels_end_with_an_owner_that_is_killed():
    owner = subprocess.Popen([sys.executable, "-c", OWNER], env=ENV, stdout=subprocess.PIPE, text=True)
    try:
        pids, _, address = owner.stdout.readline().strip().rpartition(" ")
    finally:
        owner.kill()
        owner.wait()
    assert gone(*(int(p) for p in eval(pids)), within=30)
    assert not Path(address).parent.exists()


@pytest.mark.slow
def test_kernels_end_with_a_killed_parent_and_the_next_one_gets_a_new_parent():
    async def story():
        manager = kernel.PromptManager(kernel_name=kernel.NAME)
        async with started(manager) as client:
            parent = int(await said(client, "import os; print(os.getppid())"))
            os.kill(parent, signal.SIGKILL)
            assert gone(manager.provisioner.pid, within=30) and not await manager.is_alive()
        return parent

    parent = asyncio.run(story())
    assert value("import os", "os.getppid()") not in (parent, os.getpid())


@pytest.mark.parametrize("how", ["platform", pytest.param("parent", marks=pytest.mark.slow)])
def test_without_a_fork_an_ordinary_kernel_and_one_line(how, monkeypatch, capfd, tmp_path):
    env, reason = ENV, "this test has no safe fork"
    if how == "platform":
        monkeypatch.setattr(kernel, "_no_fork", lambda: reason)
    else:
        (tmp_path / "sitecustomize.py").write_text("import threading, time; threading.Thread(target=time.sleep, args=[600], daemon=True).start()")
        env, reason = {**ENV, "PYTHONPATH": str(tmp_path)}, "a library starts threads when it is imported"
    kernel._say.cache_clear()
    assert [value("import os", "os.getppid()", env=env) for _ in range(2)] == [os.getpid()] * 2
    assert capfd.readouterr().err.splitlines() == [f"mlops-nb: an ordinary kernel instead of a warm one: {reason}"]


def test_other_kernels_are_left_alone():
    assert "not this Python's ipykernel" in kernel._unusual(["R", "--slave"], {})
    assert "stdout" in kernel._unusual([sys.executable, "-m", "ipykernel_launcher"], {"stdout": subprocess.PIPE})
    assert not kernel._unusual([sys.executable, "-m", "ipykernel_launcher", "-f", "x"], {"env": {}})
