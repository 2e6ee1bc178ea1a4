"""What goes wrong, goes wrong without loss: killed runners and stages, full disks, floods, odd clocks. Each names a way on."""

import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.conftest import EXPORT, Project

pytestmark = pytest.mark.slow
WANTED = ("total", "count")
KERNELS = ("mlops-nb", "python3")  # forked, and ordinary
FAULT = [
    "#| default_exp stages.fault",
    EXPORT + "import os\nimport time\nfrom mlops_nb.pipeline.stage import Input, Json, Output, log",
    'PARAMETERS\nraw = Input("raw", Json)\nmark = Output("mark", Json)\nhow: str = "well"  # what goes wrong\nsize: int = 0  # characters to print',
    "line = 'x' * 99 + '\\n'\nfor _ in range(size // 100):\n    print(line, end='')",
    'if how == "killed":\n    os.kill(os.getpid(), 9)\nif how == "slow":\n    time.sleep(600)\nif how == "wordy":\n    raise ValueError("e" * 3_000_000)\nif how == "redrawn":\n    from IPython.display import display\n    bar = display("begun", display_id=True)\n    bar.update("u" * 3_000_000)\nif how == "large":\n    mark.write(["%09d" % n for n in range(700_000)])',
    'mark.write(how)\nlog(how=how)',
]


@pytest.fixture(scope="module")
def faulty(ran: Project) -> Project:
    """A project with a stage that fails on demand; each test leaves the other stages' results as they were."""
    ran.write("stages/50_fault.ipynb", FAULT)
    ran.export()
    return ran


def begin(project: Project, *words: str, env: dict | None = None) -> subprocess.Popen:
    """`mlops-nb run` in the background; its processes carry a mark, so that none is overlooked."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_") and k != "IN_TEST"}
    command = [str(Path(sys.executable).with_name("mlops-nb")), "run", *words]
    mark = f"{secrets.token_hex(8)}"
    run = subprocess.Popen(
        command, cwd=project.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=clean | {"FAULT_MARK": mark} | (env or {}), start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a job in the background ignores Ctrl-C
    )  # fmt: skip
    run.mark = f"FAULT_MARK={mark}".encode()
    BEGUN.append(run)
    return run


BEGUN: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """A test that fails leaves no run behind either."""
    yield
    while BEGUN:
        run = BEGUN.pop()
        run.kill()
        run.wait()


def marked(run: subprocess.Popen) -> list[str]:
    """The processes of a run that are still there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if run.mark in (process / "environ").read_bytes() and (process / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200])
    return found


def none_left(run: subprocess.Popen, within: float = 10.0) -> bool:
    """Whether all are gone within some seconds; at once, but for a process that is busy with its imports."""
    until = time.monotonic() + within
    while marked(run) and time.monotonic() < until:
        time.sleep(0.1)
    return not marked(run)


def digests(project: Project) -> dict[str, dict[str, str]]:
    return {name: stage["outputs"] for name, stage in project.summary()["stages"].items()}


def wait_for(what, within: float = 60.0) -> None:
    until = time.monotonic() + within
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def stage_runs(project: Project, name: str) -> bool:
    """Whether a kernel of that stage has begun: papermill writes the notebook when a cell starts."""
    return bool(list((project.root / "reports").glob(f"*/{name}.ipynb")))


# -- killed, interrupted, over time ------------------------------------------------------------------------------------


def killed_at_random(project: Project, undisturbed: Project, times: int, finish_each: bool) -> None:
    seed = secrets.randbelow(1_000_000)
    print(f"seed {seed}")
    undisturbed.run()
    chance, expected, span = random.Random(seed), digests(undisturbed), undisturbed.summary()["seconds"] + 1.0
    for turn in range(times):
        if finish_each and chance.random() < 0.7:
            shutil.rmtree(project.root / ".mlops", ignore_errors=True)
        run, delay = begin(project, *WANTED, env={"MLOPS_NB_KERNEL": KERNELS[turn % 2]}), chance.uniform(0.2, span)
        time.sleep(delay)
        run.send_signal(chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        run.wait()
        run.stdout.close()
        assert none_left(run), f"seed {seed}, turn {turn}, killed after {delay:.2f} s: left {marked(run)}"
        if finish_each or turn == times - 1:
            project.run()
            assert digests(project) == expected, f"seed {seed}, turn {turn}, killed after {delay:.2f} s"
    assert set(project.run().values()) == {"cached"}
    assert not list((project.root / ".mlops" / "work").iterdir()), "what killed runs were working on is cleared away"
    states = [json.loads(f.read_text())["status"] for f in (project.root / "reports").glob("*/summary.json")]
    assert set(states) <= {"killed", "interrupted", "done"}, states  # interrupted: by SIGTERM


def test_runner_killed_at_random_points(project, ran):
    killed_at_random(project, ran, 3, finish_each=False)


@pytest.mark.deep
def test_runner_killed_at_fifty_random_points(project, ran):
    killed_at_random(project, ran, 50, finish_each=True)


def test_killed_kernel_names_the_cell_and_the_others_go_on(faulty):
    faulty.call("run", "total", "fault", "-p", "fault.how=killed", "--force", "total", env={"MLOPS_NB_KERNEL": "mlops-nb"})
    states = {name: stage["status"] for name, stage in faulty.summary()["stages"].items()}
    assert states == {"ingest": "cached", "scale": "cached", "total": "done", "fault": "failed"}
    card = faulty.summary()["stages"]["fault"]["error"]
    assert (card["cell"], card["ename"]) == ("cell4", "DeadKernelError") and "killed, out of memory" in card["evalue"]
    assert card["repeat"] == "mlops-nb run fault -p fault.how=killed"
    assert faulty.run(stages=("fault",))["fault"] in ("done", "cached")


def test_cell_over_its_time(faulty):
    done = faulty.call("run", "fault", "-p", "fault.how=slow", env={"MLOPS_NB_TIMEOUT": "2"})
    assert done.returncode == 1
    card = faulty.summary()["stages"]["fault"]["error"]
    assert (card["cell"], card["ename"]) == ("cell4", "CellTimeoutError") and card["evalue"] == "the cell took longer than 2 s, the `timeout` in settings.ini"
    assert card["evalue"] in done.stdout
    assert faulty.run(stages=("fault",))["fault"] in ("done", "cached")


@pytest.mark.parametrize(("when", "kernel"), [("a cell runs", "mlops-nb"), ("a kernel starts", "mlops-nb"), ("a kernel starts", "python3")])
def test_ctrl_c(faulty, when, kernel):
    before = set((faulty.root / "reports").glob("*/fault.ipynb"))
    work = set((faulty.root / ".mlops" / "work").glob("*/fault/headless.ipynb"))
    run = begin(faulty, "fault", "-p", "fault.how=slow", env={"MLOPS_NB_KERNEL": kernel})
    if when == "a cell runs":
        wait_for(lambda: any("cell4" in f.read_text() for f in set((faulty.root / "reports").glob("*/fault.ipynb")) - before))
        time.sleep(1)
    else:
        wait_for(lambda: set((faulty.root / ".mlops" / "work").glob("*/fault/headless.ipynb")) - work)
    run.send_signal(signal.SIGINT)
    said, _ = run.communicate(timeout=20)
    assert run.returncode == 130 and "Traceback" not in said, said
    assert none_left(run), marked(run)
    summary = faulty.summary()
    assert summary["status"] == "interrupted" and summary["stages"]["ingest"]["status"] == "cached"
    assert summary["stages"]["fault"]["status"] == "skipped" and "interrupted" in said
    assert faulty.run(stages=("fault",))["fault"] in ("done", "cached")


def test_closed_pipe(faulty):
    run = begin(faulty, "fault", "--force", "fault")
    run.stdout.close()  # as `| head` does
    assert run.wait(timeout=60) == 0 and faulty.summary()["stages"]["fault"]["status"] == "done"


# -- disks -------------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: str = "2m", *options: str) -> Iterator[None]:
    """A file system of that size at the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a small disk can't be mounted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def full(folder: Path) -> Path:
    """A file that takes all that is left there."""
    filler = folder / "filler"
    with suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    return filler


def free_of_temporaries(folder: Path) -> bool:
    return not [f for f in folder.rglob(".*") if f.is_file()]


def test_full_disk_under_the_store(project):
    home = project.root / ".mlops"
    project.write("stages/50_fault.ipynb", FAULT)
    project.export()
    with small_disk(home):
        # a stage's output doesn't fit: its error says so, the others are kept
        states = project.run("-p", "fault.how=large", stages=("total", "fault"), fails=True)
        assert states == {"ingest": "done", "scale": "done", "total": "done", "fault": "failed"}
        card = project.summary()["stages"]["fault"]["error"]
        assert (card["cell"], card["ename"]) == ("cell4", "MlopsError") and "No space left on device; make room" in card["evalue"]
        assert free_of_temporaries(home)
        before = digests(project)

        # nothing fits any more, not even the records
        filler = full(home)
        done = project.call("run", "fault")
        assert done.returncode == 1 and "No space left on device" in done.stderr + done.stdout and "Traceback" not in done.stderr, done.stdout + done.stderr

        # room is made: the same command goes on
        filler.unlink()
        assert project.run(stages=("total", "fault")) == {"ingest": "cached", "scale": "cached", "total": "cached", "fault": "done"}
        after = digests(project)
        assert {n: after[n] for n in ("ingest", "scale", "total")} == {n: before[n] for n in ("ingest", "scale", "total")}
        assert free_of_temporaries(home)


def test_full_disk_under_the_reports(faulty):
    with small_disk(faulty.root / "full", "160k"):
        env = {"MLOPS_NB_REPORTS": "full/reports"}
        filler = full(faulty.root / "full")
        done = faulty.call("run", "fault", "--force", "fault", env=env)
        assert done.returncode == 1 and "No space left on device" in done.stderr and "Traceback" not in done.stderr, done.stdout + done.stderr
        filler.unlink()
        # room for a run's record, not for the notebook that the stage leaves
        done = faulty.call("run", "fault", "-p", "fault.size=200000", env=env)
        assert done.returncode == 1 and "No space left on device (free: " in done.stdout and "Traceback" not in done.stderr, done.stdout + done.stderr
        listed = faulty.call("runs", "show", "--json", env=env)
        card = json.loads(listed.stdout)["stages"]["fault"]["error"]
        assert card["ename"] == "OSError" and "make room, then run again: what is done stays" in card["evalue"]
        # room is made: the stage runs, now or by its result in the store
        assert faulty.call("run", "fault", "-p", "fault.size=2000", env=env).returncode == 0
    assert faulty.run(stages=("fault",))["fault"] in ("done", "cached")


def test_reports_that_cannot_be_written(faulty):
    (faulty.root / "occupied").write_text("a file")
    with small_disk(faulty.root / "readonly", "64k", "ro"):
        for folder in ("occupied", "readonly", "readonly/reports"):
            done = faulty.call("run", *WANTED, env={"MLOPS_NB_REPORTS": folder})
            said = ("occupied is a file",) if folder == "occupied" else ("reports can't be written", "`reports` in settings.ini")
            assert done.returncode == 1 and all(part in done.stderr for part in said), done.stderr
            assert "Traceback" not in done.stderr
    assert set(faulty.run().values()) == {"cached"}


def test_store_that_cannot_be_written(faulty):
    with small_disk(faulty.root / "readonly", "64k", "ro"):
        done = faulty.call("run", *WANTED, env={"MLOPS_NB_HOME": "readonly/home"})
        assert done.returncode == 1 and "Read-only file system" in done.stderr and "Traceback" not in done.stderr, done.stderr


# -- two at once, the clock, many --------------------------------------------------------------------------------------


def test_two_runs_at_once_on_one_store(project, ran):
    assert set(ran.run().values()) == {"cached"}
    runs = [begin(project, *WANTED) for _ in range(2)]
    for run in runs:
        said, _ = run.communicate(timeout=120)
        assert run.returncode == 0, said
        assert none_left(run)
    summaries = [json.loads(f.read_text()) for f in (project.root / "reports").glob("*/summary.json")]
    assert [s["status"] for s in summaries] == ["done", "done"]
    for summary in summaries:
        assert {n: s["outputs"] for n, s in summary["stages"].items()} == digests(ran)
    assert set(project.run().values()) == {"cached"} and free_of_temporaries(project.root / ".mlops")


def test_clock_set_back(faulty):
    env, reports, future = {"MLOPS_NB_REPORTS": "clock"}, faulty.root / "clock", "20991231-235959-0000"
    assert faulty.call("run", *WANTED, env=env).returncode == 0
    old = (reports / "latest").read_text().strip()
    shutil.move(reports / old, reports / future)  # the clock was wrong then, and is right again
    summary = reports / future / "summary.json"
    summary.write_text(summary.read_text().replace(old, future))
    (reports / "latest").write_text(future + "\n")
    assert faulty.call("run", "count", env=env).returncode == 0
    newest = json.loads(faulty.call("runs", "show", "--json", env=env).stdout)
    assert newest["run"] > future and set(newest["stages"]) == {"ingest", "count"}
    assert newest["started"] < "2099", "when it ran is told by the clock, which run is newer is not"
    assert f"newest run: {newest['run']}" in faulty.call("status", env=env).stdout
    assert [line.split()[0] for line in faulty.call("runs", "list", env=env).stdout.splitlines()] == [newest["run"], future]


def test_runs_of_one_second_are_in_order(faulty):
    made = []
    for _ in range(3):
        faulty.run()
        made.append(faulty.summary()["run"])
    assert made == sorted(made) and len(set(made)) == 3


def test_a_thousand_runs(faulty):
    reports, last = faulty.root / "many", faulty.summary()
    for n in range(1000):
        folder = reports / f"20200101-{n // 60:04d}{n % 60:02d}-{n:04x}"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps(last | {"run": folder.name}, indent=1))
    env = {"MLOPS_NB_REPORTS": "many"}
    for words in (("status",), ("runs", "list"), ("runs", "list", "--most", "1000"), ("runs", "show", "20200101-000000-0000")):
        begun = time.monotonic()
        done = faulty.call(*words, env=env)
        seconds = time.monotonic() - begun
        print(f"{' '.join(words)} with 1,000 runs: {seconds:.2f} s")
        assert done.returncode == 0, done.stderr
    assert len(faulty.call("runs", "list", "--most", "1000", env=env).stdout.splitlines()) == 1000


def layered(project: Project, layers: int, width: int) -> None:
    """A graph of `layers` x `width` trivial stages, each reading all of the layer before."""
    for file in (project.root / "nbs" / "stages").glob("*.ipynb"):
        file.unlink()
    for at in range(layers):
        for side in range(width):
            name, before = f"s{at}_{side}", [f"s{at - 1}_{i}" for i in range(width)] if at else []
            reads = "\n".join(f'in_{b} = Input("{b}", Json)' for b in before)
            value = " + ".join([*(f"in_{b}.read()" for b in before), "weight"])
            project.write(
                f"stages/{at * width + side + 10}_{name}.ipynb",
                [
                    f"#| default_exp stages.{name}",
                    EXPORT + "from mlops_nb.pipeline.stage import Input, Json, Output",
                    f'PARAMETERS\n{reads}\nout = Output("{name}", Json)\nweight: int = 1  # added',
                    f"out.write({value})",
                ],
            )
    project.export()


def test_sixty_four_stages(project):
    layered(project, 16, 4)
    begun = time.monotonic()
    checked = project.call("check")
    print(f"check of 64 stages: {time.monotonic() - begun:.2f} s")
    assert "sound: 64 stages, 64 artifacts" in checked.stdout
    planned = [line.split()[:2] for line in project.call("run", "--dry-run").stdout.splitlines()]
    assert len(planned) == 64 and [s for _, s in planned] == ["run"] * 4 + ["depends"] * 60
    place = {name: i for i, (name, _) in enumerate(planned)}
    assert all(place[f"s{at - 1}_{i}"] < place[f"s{at}_{j}"] for at in range(1, 16) for i in range(4) for j in range(4))
    up_to = project.call("run", "s2_0", "--dry-run").stdout.splitlines()
    assert [line.split()[0] for line in up_to] == [f"s{at}_{i}" for at in range(2) for i in range(4)] + ["s2_0"]


@pytest.mark.deep
def test_sixty_four_stages_run(project):
    layered(project, 16, 4)
    done = project.call("run")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = project.summary()
    print(f"64 stages: {summary['seconds']:.1f} s")
    value, weight = 0, 1
    for _ in range(16):
        value = 4 * value + weight
    file = project.root / ".mlops" / "objects" / summary["stages"]["s15_0"]["outputs"]["s15_0"][:2] / summary["stages"]["s15_0"]["outputs"]["s15_0"]
    assert json.loads(file.read_text()) == value
    done = project.call("run", "-p", "s15_3.weight=2")
    assert [s["status"] for s in project.summary()["stages"].values()].count("done") == 1


# -- floods ------------------------------------------------------------------------------------------------------------


def flooded(project: Project, size: int) -> None:
    run = begin(project, "fault", "-p", f"fault.size={size}")
    peak = 0
    while run.poll() is None:
        with suppress(OSError, StopIteration):
            facts = Path(f"/proc/{run.pid}/status").read_text().splitlines()
            kilobytes = next(line for line in facts if line.startswith("VmHWM")).split()[1]
            peak = max(peak, int(kilobytes) // 1024)
        time.sleep(0.05)
    said, _ = run.communicate()
    assert run.returncode == 0, said
    summary = project.summary()
    folder = project.root / "reports" / summary["run"]
    text = (folder / "fault.ipynb").read_text()
    assert len(text) < 2_200_000 and f"output cut: {size:,} characters" in text and "x" * 99 in text
    assert (folder / "fault.html").stat().st_size < 2_500_000
    whole = project.root / ".mlops" / "objects" / summary["stages"]["fault"]["cut"]["cell3"][:2] / summary["stages"]["fault"]["cut"]["cell3"]
    assert whole.stat().st_size == size and whole.read_bytes()[:100] == b"x" * 99 + b"\n"
    print(f"{size / 1e6:.0f} MB printed: the runner's peak is {peak} MB, {summary['stages']['fault']['seconds']} s")
    assert peak < 450


def test_flood(faulty):
    flooded(faulty, 12_000_000)


def test_flood_in_an_error(faulty):
    faulty.run("-p", "fault.how=wordy", stages=("fault",), fails=True)
    summary = faulty.summary()
    assert len(json.dumps(summary)) < 20_000 and "3,000,000 characters" in (faulty.root / "reports" / summary["run"] / "fault.ipynb").read_text()
    assert (faulty.root / "reports" / summary["run"] / "fault.ipynb").stat().st_size < 100_000


def test_flood_in_the_place_of_an_earlier_display(faulty):
    faulty.run("-p", "fault.how=redrawn", stages=("fault",))
    summary = faulty.summary()
    text = (faulty.root / "reports" / summary["run"] / "fault.ipynb").read_text()
    assert len(text) < 100_000 and "output cut: 3,0" in text and list(summary["stages"]["fault"]["cut"]) == ["cell4"]


@pytest.mark.deep
def test_flood_of_100_mb(faulty):
    flooded(faulty, 100_000_000)
