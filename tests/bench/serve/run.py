"""Our service beside MLServer, BentoML, MLflow's server and FastAPI with pandas: the same registered model, the same row, one worker on one core.

Ours runs as `mlops-nb serve` starts it: rows checked, every prediction logged, a JSON line for each request. Each peer gets an environment of
its own (under .bench/, or --cache FOLDER), with the versions of numpy, pandas, scikit-learn and skops that ours has; one that can't be
installed, started or trusted is named with its reason. The servers share one core, one under load at a time, in turns; the load comes from another core
(wrk; h2load for gRPC and for a steady rate). Full load is 8 connections; latencies are those of one. Figures are medians of the rounds.
The model is the one that `mlops-nb run` registered; with MLOPS_NB_HOME=.mlops/sample the one of `mlops-nb run --sample 2000`.

    python tests/bench/serve/run.py                          # five minutes; some more at first, for the environments
    python tests/bench/serve/run.py --peers fastapi --rounds 1
    python tests/bench/serve/run.py --peers none             # ours alone
"""

import argparse
import http.client
import importlib.metadata
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mlops_nb.base.errors import MlopsError
from mlops_nb.model.schema import Schema

sys.path.append(str(Path(__file__).parents[1]))
from _figures import tell  # noqa: E402

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
BIN = Path(sys.executable).parent
FULL = 8  # connections
GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"


class Failed(Exception):
    "A server didn't answer as it should."


class Case(NamedTuple):
    "What is asked, and of what model."

    folder: Path  # of the version's files
    form: Schema  # of its rows
    row: dict

    @property
    def model(self) -> Path:
        return self.folder / "model" / "model.skops"


class Peer(NamedTuple):
    "A server to compare with."

    packages: Sequence[str]  # besides those that the model needs
    command: Callable[[Path, int, Case, Path], list]  # its environment's programs, port, case, a folder for its files
    path: str  # to post to
    body: Callable[[Case], Any]
    chances: Callable[[Any], list[float]]  # probabilities of the first row in an answer


def version(package: str) -> str:
    return f"{package}=={importlib.metadata.version(package)}"


def mlserver(programs: Path, port: int, case: Case, folder: Path) -> list:
    "Its settings are files; parallel_workers 0 computes in the server's own process, which is quicker for it on one core."
    ports = dict(zip(("grpc_port", "metrics_port"), (free_port(), free_port()), strict=True))
    (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "http_port": port, "parallel_workers": 0, **ports}))
    (folder / "model-settings.json").write_text(json.dumps({"name": "income", "implementation": "peer_mlserver.Income"}))
    return [programs / "mlserver", "start", folder]


def tensors(case: Case) -> dict:
    "A row by the Open Inference Protocol."
    kinds = {"integer": "INT64", "number": "FP64", "boolean": "BOOL"}
    fields = [(f.name, kinds.get(f.kind, "BYTES")) for f in case.form.fields]
    inputs: list[dict] = [{"name": name, "shape": [1, 1], "datatype": kind, "data": [case.row[name]]} for name, kind in fields]
    for one in inputs:
        if one["datatype"] == "BYTES":
            one["parameters"] = {"content_type": "str"}
    return {"parameters": {"content_type": "pd"}, "inputs": inputs}


PEERS = {
    "fastapi": Peer(
        [version("fastapi"), version("uvicorn"), version("uvloop"), version("httptools")],
        lambda programs, port, case, folder: [programs / "uvicorn", "peer_fastapi:app", "--port", port, "--log-level", "warning"],
        "/predict", lambda case: {"rows": [case.row]}, lambda said: said["probabilities"][0],
    ),
    "mlflow": Peer(
        [version("mlflow")],
        lambda programs, port, case, folder: [programs / "mlflow", "models", "serve", "-m", case.model.parent, "--env-manager", "local", "--host", "127.0.0.1", "--port", port, "--workers", "1"],
        "/invocations", lambda case: {"dataframe_records": [case.row]}, lambda said: said["predictions"][0],
    ),
    "mlserver": Peer(
        ["mlserver>=1.7,<2"], mlserver,
        "/v2/models/income/infer", tensors, lambda said: said["outputs"][0]["data"],
    ),
    "bentoml": Peer(
        ["bentoml>=1.4,<2"],
        lambda programs, port, case, folder: [programs / "bentoml", "serve", "peer_bentoml:Income", "--working-dir", HERE, "--host", "127.0.0.1", "--port", port],
        "/predict", lambda case: {"rows": [case.row]}, lambda said: said[0],
    ),
}  # fmt: skip


class Load(NamedTuple):
    "What a load found."

    answers: float
    rate: float  # answers a second
    p50: float  # ms
    p99: float  # ms
    per_cpu: float = 0.0  # answers a second of the server's processor time: what it would do if the machine did nothing else


class Server:
    "A running server."

    def __init__(self, process: subprocess.Popen, port: int, path: str, body: bytes, grpc: int = 0):
        self.process, self.port, self.path, self.body, self.grpc = process, port, path, body, grpc

    def ask(self, timeout: float = 60) -> Any:
        "One answer."
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", self.path, self.body, {"content-type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200:
                raise Failed(f"it answers {answer.status}: {said[:300].decode(errors='replace')}")
            return json.loads(said)
        finally:
            connection.close()

    def answered(self, pause: float = 0.002, timeout: float = 120) -> Any:
        "Its first answer."
        until = time.monotonic() + timeout
        while True:
            try:
                return self.ask()
            except (OSError, http.client.HTTPException, Failed) as error:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise Failed(f"it can't be started: {error}") from None
                time.sleep(pause)

    def measured(self, load: Callable[..., Load], *words: Any) -> Load:
        "A load, and the processor time that the server spent on it."
        since = self.cpu()
        found = load(self, *words)
        return found._replace(per_cpu=found.answers / max(self.cpu() - since, 1e-9))

    def cpu(self) -> float:
        "Seconds of processor time that its processes have used."
        return sum(sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) for pid in family(self.process.pid)) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        "MB of its processes, pages that several share divided among them."
        return sum(pss(pid) for pid in family(self.process.pid))


def family(pid: int) -> list[int]:
    "A process and what it started."
    try:
        children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []
    return [pid, *(p for child in children for p in family(child))]


def pss(pid: int) -> float:
    try:
        return next(int(line.split()[1]) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:")) / 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def cores() -> tuple[str, str]:
    "One for the server, one for the load."
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        sys.exit("one core isn't enough: a server needs one of its own, and the load another")
    return str(found[0]), str(found[-1])


def check_tools() -> None:
    for tool, package in (("wrk", "wrk"), ("h2load", "nghttp2-client"), ("taskset", "util-linux")):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing; get it by: apt-get install {package}")


@contextmanager
def running(command: list, folder: Path, **env: str):
    "A process on the servers' core, what it says in a file; it and what it started end with the block."
    quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(HERE), "MLFLOW_DISABLE_TELEMETRY": "true", "BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(folder)}
    programs = {"PATH": f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}"}  # some servers start others by name
    with open(folder / "said.log", "wb") as out:
        process = subprocess.Popen(
            ["taskset", "-c", cores()[0], *map(str, command)], cwd=folder, env={**os.environ, **quiet, **programs, **env}, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        mine = family(process.pid)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        for pid in mine:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def case_of(which: str) -> Case:
    "The released income model, and a complete row that it has seen."
    from mlops_nb.registry.released import read_released, released_file
    from mlops_nb.base.settings import load_settings
    from mlops_nb.registry.evidence import load_evidence
    from mlops_nb.serving.served import read_checked

    models = read_released(released_file(load_settings(ROOT).registry_uri))["models"]
    if which not in models:
        raise MlopsError(f"no model '{which}' is released; run: mlops-nb run")
    facts = models[which]
    files = facts["versions"][str(facts["production"] or facts["staging"])]
    folder = Path(files["folder"])
    read_checked(folder, "model/model.skops", files["model"])
    evidence = load_evidence(read_checked(folder, "evidence.json", files["evidence"]), which)
    row = next(row for row in evidence.background.rows if None not in row.values())
    return Case(folder, evidence.form, {name: row[name] for name in evidence.form.names})


@contextmanager
def ours(case: Case, folder: Path):
    "Our service; the moment of its first answer is told too."
    from mlops_nb.base.settings import load_settings

    began, grpc = time.perf_counter(), free_port()
    body = json.dumps({"rows": [case.row]}).encode()
    # the registry stays where it is; the prediction log goes to the benchmark's folder
    env = {"MLOPS_NB_ROOT": str(ROOT), "MLOPS_NB_REGISTRY_URI": load_settings(ROOT).registry_uri, "MLOPS_NB_HOME": str(folder)}
    with running([BIN / "mlops-nb", "serve", "income", "--allow-staging", "--port", 0, "--grpc", f"127.0.0.1:{grpc}"], folder, **env) as process:
        while not (found := re.search(rb"http://127.0.0.1:(\d+)", (folder / "said.log").read_bytes())):
            if process.poll() is not None or time.perf_counter() - began > 60:
                sys.exit((folder / "said.log").read_text())
            time.sleep(0.002)
        server = Server(process, int(found[1]), "/v1/predict", body, grpc)
        server.answered()
        yield server, time.perf_counter() - began


def environment(name: str, cache: Path) -> Path:  # its programs
    "An environment with a peer and what the model needs."
    packages = [*PEERS[name].packages, *map(version, ("numpy", "pandas", "scikit-learn", "skops"))]
    programs, done = cache / name / "bin", cache / name / "packages.json"
    if done.is_file() and json.loads(done.read_text()) == packages:
        return programs
    print(f"{name}: installing {' '.join(packages)}", flush=True)
    (cache / name).parent.mkdir(parents=True, exist_ok=True)
    for words in (["venv", "--quiet", "--clear", "--python", sys.executable, cache / name], ["pip", "install", "--quiet", "--compile-bytecode", "--python", programs / "python", *packages]):
        made = subprocess.run([BIN / "uv", *words], capture_output=True, text=True)
        if made.returncode:
            raise Failed(f"it can't be installed: {' '.join(made.stderr.split())[:400]}")
    done.write_text(json.dumps(packages))
    return programs


@contextmanager
def served(name: str, case: Case, programs: Path, folder: Path):
    "A peer, answering as ours does."
    peer, port = PEERS[name], free_port()
    env = {"MODEL": str(case.model), "FIELDS": json.dumps(case.form.model_dump(mode="json")["fields"])}
    with running(peer.command(programs, port, case, folder), folder, **env) as process:
        server = Server(process, port, peer.path, json.dumps(peer.body(case)).encode())
        try:
            said = server.answered(pause=0.25)
        except Failed as failure:
            raise Failed(f"{failure}; {' '.join((folder / 'said.log').read_text().split())[-400:]}") from None
        yield server, peer.chances(said)


SCRIPT = """wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = io.open(os.getenv("BODY"), "rb")
wrk.body = file:read("*all")
done = function(summary, latency)
  local e = summary.errors
  print(string.format('{"n": %d, "us": %d, "p50": %f, "p99": %f, "wrong": %d}', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def wrk(server: Server, folder: Path, connections: int, seconds: float) -> Load:
    "As many requests as it answers."
    (folder / "post.lua").write_text(SCRIPT)
    (folder / "body").write_bytes(server.body)
    words = ["taskset", "-c", cores()[1], "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s", "-s", folder / "post.lua", f"http://127.0.0.1:{server.port}{server.path}"]
    said = json.loads(subprocess.run(words, env={**os.environ, "BODY": str(folder / "body")}, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    if said["wrong"]:
        raise Failed(f"{said['wrong']} of {said['n']} requests failed under load")
    return Load(said["n"], said["n"] / said["us"] * 1e6, said["p50"] / 1e3, said["p99"] / 1e3)


def h2load(url: str, folder: Path, body: bytes, connections: int, seconds: float, *words: str) -> Load:
    "The same by h2load, which tells each request's time: HTTP/2, or at a steady rate."
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    (folder / "body").write_bytes(body)
    subprocess.run(
        ["taskset", "-c", cores()[1], "h2load", f"-c{connections}", "-m1", f"-D{seconds:.0f}", "-d", folder / "body", "--log-file", log, *words, url], capture_output=True, text=True, check=True
    )
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    if not rows or any(row[1] != "200" for row in rows):
        raise Failed(f"{url}: requests failed under load")
    took = sorted(int(row[2]) / 1e3 for row in rows)
    return Load(len(rows), len(rows) / seconds, took[len(took) // 2], took[len(took) * 99 // 100])


def steady(server: Server, folder: Path, rate: float, seconds: float) -> Load:
    "Requests at a rate, whatever the answers do."
    url = f"http://127.0.0.1:{server.port}{server.path}"
    return h2load(url, folder, server.body, FULL, seconds, "--h1", f"--rps={rate / FULL:.2f}", "-H", "content-type: application/json")


def grpc_body(case: Case) -> bytes:
    "A ModelInferRequest in its frame."
    from mlops_nb.serving import inference_pb2 as pb

    message: Any = pb.ModelInferRequest(model_name="income")  # type: ignore[attr-defined]
    for name, kind, value in [(one["name"], one["datatype"], one["data"][0]) for one in tensors(case)["inputs"]]:
        one = message.inputs.add(name=name, datatype=kind, shape=[1])
        field = {"BYTES": "bytes_contents", "INT64": "int64_contents", "FP64": "fp64_contents", "BOOL": "bool_contents"}[kind]
        getattr(one.contents, field).append(value.encode() if kind == "BYTES" else value)
    data = message.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data


def grpc_load(server: Server, folder: Path, body: bytes, connections: int, seconds: float) -> Load:
    return h2load(f"http://127.0.0.1:{server.grpc}{GRPC_PATH}", folder, body, connections, seconds, "-H", "content-type: application/grpc", "-H", "te: trailers")


def all_well(server: Server) -> None:
    "Every request that our service counted was answered with 200; gRPC's own status isn't told by h2load."
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    counted = re.findall(r'mlops_nb_requests_total\{code="(\d+)"[^}]*route="([^"]*)"[^}]*\} ([0-9.e+]+)', text)
    if "/v1/predict" not in {route for _, route, _ in counted} or any(code != "200" for code, _, _ in counted):
        raise Failed(f"our service counted {counted}")
    print("our service counted: " + ", ".join(f"{route} {code} x {float(n):,.0f}" for code, route, n in counted), flush=True)
    if (dropped := re.search(r"mlops_nb_log_dropped(?:\{[^}]*\})? ([0-9.e+]+)", text)) and float(dropped[1]):
        raise Failed(f"{dropped[1]} predictions were not logged")


def load_average() -> str:
    return "load average " + " ".join(f"{n:.1f}" for n in os.getloadavg())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=ROOT / ".bench", help="where the peers' environments are kept")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {', '.join(PEERS)}; none: ours alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of each load")
    given = parser.parse_args()
    check_tools()
    wanted = [name for name in given.peers.split(",") if name != "none"]
    if strange := [name for name in wanted if name not in PEERS]:
        sys.exit(f"no peer '{strange[0]}'; known: {', '.join(PEERS)}")
    case, absent = case_of("income"), {}
    body = grpc_body(case)
    with ExitStack() as stack:

        def folder() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory()))

        starts = []
        for _ in range(given.rounds + 1):  # the first one may have to compile
            with ours(case, folder()) as (_, seconds):
                starts.append(seconds)
        server, _ = stack.enter_context(ours(case, folder()))
        expected = server.ask()["predictions"][0]["probabilities"]
        servers = {}
        for name in wanted:
            try:
                servers[name], chances = stack.enter_context(served(name, case, environment(name, given.cache.resolve()), folder()))
                if max(abs(a - b) for a, b in zip(chances, expected.values(), strict=True)) > 1e-9:
                    raise Failed(f"it answers {chances}, ours {expected}")
            except Failed as failure:
                servers.pop(name, None)
                absent[name] = str(failure)
        print(f"start to first answer: {', '.join(f'{s:.2f}' for s in starts)} s; {load_average()}", flush=True)

        wrk(server, folder(), FULL, 2)  # warm
        found: dict[str, list[Load]] = {}
        for number in range(given.rounds):
            full = server.measured(wrk, folder(), FULL, given.seconds)
            loads = {
                "ours full": full,
                "ours one": server.measured(wrk, folder(), 1, given.seconds),
                "ours half": server.measured(steady, folder(), full.rate / 2, given.seconds),
                "ours gRPC full": server.measured(grpc_load, folder(), body, FULL, given.seconds),
                "ours gRPC one": server.measured(grpc_load, folder(), body, 1, given.seconds),
            }
            for name, peer in servers.items():
                loads[f"{name} full"] = peer.measured(wrk, folder(), FULL, given.seconds)
                loads[f"{name} one"] = peer.measured(wrk, folder(), 1, given.seconds)
            for key, load in loads.items():
                found.setdefault(key, []).append(load)
            print(f"round {number + 1} of {given.rounds}: ours {full.rate:,.0f} requests/s; {load_average()}", flush=True)
        all_well(server)
        memory = {"ours": server.memory()} | {name: peer.memory() for name, peer in servers.items()}

    load = {key: Load(*map(statistics.median, zip(*loads, strict=True))) for key, loads in found.items()}
    print(f"\n{'':24}{'requests/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'requests a CPU second':>24}   medians of {given.rounds} rounds of {given.seconds:g} s; {load_average()}")
    for key, one in load.items():
        print(f"{key:24}{one.rate:>11,.0f}{one.p50:>9.3f}{one.p99:>9.3f}{one.per_cpu:>24,.0f}")
    print("memory, MB: " + ", ".join(f"{name} {mb:.0f}" for name, mb in memory.items()))
    for name, why in absent.items():
        print(f"{name} takes no part: {why}")
    for name in servers:
        ratio = load["ours full"].rate / load[f"{name} full"].rate
        tell(f"serve_over_{name}", ratio, ">=100", ratio >= 100)
    tail, start = load["ours half"].p99 / load["ours half"].p50, statistics.median(starts[1:])
    tell("serve_requests_per_s", load["ours full"].rate, ">=7000", load["ours full"].rate >= 7000)
    tell("serve_p50_ms", load["ours one"].p50, "<0.4", load["ours one"].p50 < 0.4)
    tell("serve_grpc_p50_ms", load["ours gRPC one"].p50, "<0.6", load["ours gRPC one"].p50 < 0.6)
    tell("serve_half_load_p99_over_p50", tail, "<5", tail < 5)
    tell("serve_pss_mb", memory["ours"], "<200", memory["ours"] < 200)
    tell("serve_start_s", start, "<2", start < 2)


if __name__ == "__main__":
    try:
        main()
    except (MlopsError, Failed) as error:
        sys.exit(f"error: {error}")
