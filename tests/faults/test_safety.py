"""No secret is kept, no data acts: what is printed, logged, set or written in a charter stays text, wherever it ends up."""

import csv
import html
import json
import os
import shlex
import sqlite3
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from tests.conftest import CHARTER, EXPORT, Project

from mlops_nb.base.charter import load_charter
from mlops_nb.base.errors import MlopsError

SECRETS = {
    "DEMO_API_KEY": "sk-4f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5",  # longer than a table shows
    "demo_token": "plain-token-77",
    "DEMO_PASSWORD": "p@ss <w>&'o\"r\\d/1",
    "CLIENT_SECRET": "-----BEGIN THING-----\nQmFzZTY0IG9mIHNvbWV0aGluZw==\nc2Vjb25kIGxpbmU=\n-----END THING-----",
    "WANDB_API_KEY": "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c",
    "DEMO_SHORT_KEY": "tiny5",  # under 6 characters: said to be kept
}
PIECES = {"DATABASE_URL": "postgresql://ada:data-base-pw@db.example/x"}
HIDDEN = [*(v for k, v in SECRETS.items() if k != "DEMO_SHORT_KEY"), *SECRETS["CLIENT_SECRET"].splitlines()[1:3], "data-base-pw"]
PAYLOADS = [
    "$(touch pwned)", "`touch pwned`", "; touch pwned #", "'; drop table runs; --", '" or 1=1 --', "{{7*7}}", "{run}", "%(home)s", "${HOME}", "__import__('os').system('touch pwned')",
    "<script>alert(1)</script>", "../../etc/passwd", "a\\nb\n'''\n\"\"\"\ttab",
]  # fmt: skip
SOURCE = "rows $(touch pwned); 'a' {b}.csv"

LEAK = [
    "#| default_exp stages.leak",
    EXPORT + "import os\nimport sys\nimport pandas as pd\nfrom IPython.display import HTML, display\nfrom mlops_nb.pipeline.stage import Input, Json, Output, log",
    'PARAMETERS\nraw = Input("raw", Json)\nleaked = Output("leaked", Json)\nword: str = ""  # any text',
    'names = [n for n in os.environ if n in ("DEMO_API_KEY", "demo_token", "DEMO_PASSWORD", "CLIENT_SECRET", "WANDB_API_KEY", "DATABASE_URL", "DEMO_SHORT_KEY")]\nkeys = {n: os.environ[n] for n in names}\n'
    "for value in keys.values():\n    print(value)\n    print(repr(value))\n    print(value[:7], end='')\n    sys.stdout.flush()\n    print(value[7:], file=sys.stdout)\n    print(value, file=sys.stderr)\nword",
    "display(pd.Series(keys), pd.DataFrame({'value': keys}))\ndisplay(HTML(f\"<b title='x'>{keys['DEMO_API_KEY']}</b>\"))\ndisplay({'application/json': keys, 'text/plain': 'json'}, raw=True)\nkeys",
    "import subprocess\nsubprocess.run(['echo', keys['demo_token']])\nos.write(1, keys['demo_token'].encode())\n"
    "log(n=1, said=keys['demo_token'], word=word)\nlog({f\"named/{keys['demo_token']}\": 1})",
    "print(('-' * 99 + '\\n') * 21_000)\nfor i in range(300):\n    print('-' * i + keys['DEMO_API_KEY'][:20], end='', flush=True)\n    print(keys['DEMO_API_KEY'][20:])",
    "leaked.write(len(keys))",
]
BURST = [
    "#| default_exp stages.burst",
    EXPORT + "import os\nfrom mlops_nb.pipeline.stage import Input, Json, Output, log",
    'PARAMETERS\nraw = Input("raw", Json)\nburst = Output("burst", Json)',
    "keys = os.environ\nraise ConnectionError(f\"can't reach https://me:{keys['demo_token']}@example.org with {keys['DEMO_PASSWORD']!r}\")",
]
ODD = [
    "#| default_exp stages.odd",
    EXPORT + "import pandas as pd\nfrom IPython.display import HTML, Markdown, display\nfrom mlops_nb.pipeline.stage import Input, Json, Output, log",
    'PARAMETERS\nraw = Input("raw", Json)\ncharter = Input("charter", Json)\nodd = Output("odd", Json)\nwords: list[str] = []  # any texts',
    "script = '<script>alert(1)</script>'\nframe = pd.DataFrame({script: [1], '<img src=x onerror=alert(2)>': ['<svg onload=alert(3)>']})\ndisplay(frame, frame.style)",
    "display(HTML(script + '<img src=x onerror=\"alert(4)\"><a href=\"javascript:alert(5)\">x</a><iframe srcdoc=\"<script>alert(6)</script>\"></iframe>'))\n"
    "display(Markdown('<script>alert(7)</script>[x](javascript:alert(8))'))\ndisplay({'image/svg+xml': '<svg onload=\"alert(9)\"><script>alert(10)</script></svg>'}, raw=True)\n"
    "print(script)\nlog({script: 1, 'text': script})",
    "odd.write({'words': words, 'charter': charter.read()})",
]


def tracked(root: Path) -> Project:
    """A project with tracking on, a charter full of payloads, and stages that leak and inject."""
    project = Project(root)
    charter = yaml.safe_load(CHARTER) | {
        "title": PAYLOADS[3], "goal": " ".join(PAYLOADS), "data": {"source": SOURCE, "licence": PAYLOADS[0], "attribution": PAYLOADS[10]},
        "exclude": {p: p for p in PAYLOADS}, "sensitive": [{"name": p, "column": p} for p in PAYLOADS], "id": PAYLOADS[5], "knobs": {"odd": {"words": PAYLOADS}},
    }  # fmt: skip
    (root / "rows.csv").unlink()
    with open(root / SOURCE, "w", newline="") as file:
        csv.writer(file).writerows([["y", *PAYLOADS], *([n, *PAYLOADS] for n in (1, 2, 3))])
    (root / "tiny.yaml").write_text(yaml.safe_dump(charter))
    project.write("stages/50_leak.ipynb", LEAK)
    project.write("stages/60_odd.ipynb", ODD)
    project.write("stages/70_burst.ipynb", BURST)
    project.export()
    return project


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """The project after one run, and all that was said on the terminal."""
    project = tracked(tmp_path_factory.mktemp("leaky") / "project")
    env = SECRETS | PIECES | {"MLOPS_NB_TRACKING": "offline", "WANDB_MODE": "offline"}
    words = ("run", "leak", "odd", "burst", "-p", f"leak.word={SECRETS['DEMO_PASSWORD']}")
    others = (("run", "leak", "--dry-run"), ("status",), ("runs", "show"), ("run", "-p", f"ingest.max_rows={SECRETS['demo_token']}"))
    done = [project.call(*w, env=env) for w in (words, *others)]
    assert {n: s["status"] for n, s in project.summary()["stages"].items()} == {"ingest": "done", "leak": "done", "odd": "done", "burst": "failed"}
    return project, "".join(d.stdout + d.stderr for d in done)


def forms(secret: str) -> set[bytes]:
    return {f.encode() for f in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], html.escape(secret), html.escape(secret, quote=False), quote(secret, safe=""), shlex.quote(secret)[1:-1])}


def kept_in(place: Path, secrets: list[str]) -> list[str]:
    """Files under a folder that hold one of the secrets, in any of the forms in which it may be shown."""
    files = [f for f in place.rglob("*") if f.is_file()]
    assert files
    return [f"{f.relative_to(place)}: {s[:9]}" for f in files for content in [f.read_bytes()] for s in secrets if any(form in content for form in forms(s))]


def test_no_secret_is_kept(leaky):
    project, said = leaky
    assert kept_in(project.root / "reports", HIDDEN) == []
    assert kept_in(project.root / ".mlops", HIDDEN) == []
    assert not [s[:9] for s in HIDDEN if s in said]
    # neither is the larger part of one, as a table cuts it short; nor did the tests look in the wrong place
    key = SECRETS["DEMO_API_KEY"]
    assert kept_in(project.root / "reports", [key[:16]]) == [] and kept_in(project.root / ".mlops", [key[:16]]) == []
    # nor the end of one that was printed in two pieces, or whose quotes a table leaves as they are
    ends = [SECRETS[n][7:] for n in ("DEMO_API_KEY", "demo_token", "DEMO_PASSWORD")]
    assert kept_in(project.root / "reports", ends) == [] and kept_in(project.root / ".mlops", ends) == []
    assert kept_in(project.root / "reports", ["[masked]"]) and kept_in(project.root / ".mlops", ["[masked]"])
    assert list((project.root / ".mlops" / "wandb").rglob("*.wandb")) and (project.root / ".mlops" / "mlflow.db").stat().st_size > 100_000
    summary = project.summary()
    assert summary["stages"]["leak"]["metrics"] == {"n": 1, "said": "[masked]", "word": "[masked]", "named/[masked]": 1}
    assert summary["stages"]["leak"]["knobs"]["word"] == "[masked]"


def test_error_card_is_masked_and_the_rest_is_readable(leaky):
    project, said = leaky
    card = project.summary()["stages"]["burst"]["error"]
    assert card["ename"] == "ConnectionError" and card["evalue"].startswith("can't reach https://me:[masked]@example.org with '[masked]'")
    assert card["repeat"] == "mlops-nb run burst -p 'leak.word=[masked]'"
    assert card["evalue"] in said


def test_short_values_are_kept_and_that_is_said(leaky):
    project, _ = leaky
    assert kept_in(project.root / "reports", [SECRETS["DEMO_SHORT_KEY"]])
    assert "under 6 characters can't be masked" in (Path(__file__).parents[2] / "nbs/base/12_secrets.ipynb").read_text()


def test_password_of_an_address_in_the_settings(tmp_path):
    project = Project(tmp_path)
    project.write(
        "stages/060_register.ipynb",
        [
            "#| default_exp stages.register",
            EXPORT + "from mlops_nb.pipeline.stage import Input, Json, Output, Target",
            'PARAMETERS\nraw = Input("raw", Json)\nversion = Output("version", Json)\ntarget = Target("registry")',
            "print(target.uri)\nversion.write({'name': 'tiny', 'version': 1})",
        ],
    )
    project.export()
    env = {"MLOPS_NB_TRACKING": "offline", "MLOPS_NB_REGISTRY_URI": "http://ada:pass%77word@127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = project.call("run", "register", env=env)
    assert "MLflow has no full record" in done.stderr, done.stdout + done.stderr
    for secret in ("pass%77word", "passwword"):
        assert kept_in(project.root / "reports", [secret]) == [] and kept_in(project.root / ".mlops", [secret]) == []
        assert secret not in done.stdout + done.stderr
    assert "ada:[masked]@" in (project.root / "reports" / project.summary()["run"] / "register.ipynb").read_text()


class Acts(HTMLParser):
    """What a page would do: scripts, handlers, addresses that run or fetch something."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "iframe", "object", "embed", "base", "form"):
            self.found.append(tag)
        for name, value in attrs:
            address = (value or "").strip().lower().replace("\t", "").replace("\n", "")
            if name.startswith("on") or (name in ("href", "src", "xlink:href", "action") and address.partition(":")[0] in ("javascript", "vbscript")) or name == "srcdoc":
                self.found.append(f"{tag} {name}={value}")
            if name in ("src", "srcset", "poster") and not address.startswith("data:"):
                self.found.append(f"{tag} {name}={value}")


def test_html_from_data_is_inert(leaky):
    project, _ = leaky
    pages = list((project.root / "reports").rglob("*.html"))
    assert {p.name for p in pages} >= {"index.html", "odd.html", "leak.html"}
    for page in pages:
        assert Acts(page.read_text()).found == [], page.name
    page = next(p for p in pages if p.name == "odd.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page, "the column's name is shown"
    assert Acts("<p onclick='x'><script>1</script><a href=' java\nscript:1'>").found == ["p onclick=x", "script", "a href= java\nscript:1"]


def test_charter_values_are_only_text(leaky):
    project, said = leaky
    assert not list(project.root.rglob("pwned")) and not (Path.cwd() / "pwned").exists()
    # every value arrived as it was written
    digest = project.summary()["stages"]["odd"]["outputs"]["odd"]
    arrived = json.loads((project.root / ".mlops" / "objects" / digest[:2] / digest).read_bytes())
    assert arrived["words"] == PAYLOADS and arrived["charter"]["exclude"] == {p: p for p in PAYLOADS} and arrived["charter"]["data"]["source"] == SOURCE
    with sqlite3.connect(project.root / ".mlops" / "mlflow.db") as db:
        assert db.execute("select count(*) from runs").fetchone() == (1,)
        assert db.execute("select name from experiments where name = 'tiny'").fetchone() == ("tiny",)
        assert json.loads(db.execute("select value from params where key = 'odd.words'").fetchone()[0]) == PAYLOADS


@pytest.mark.parametrize("name", ["../x", "a/b", "A", "x y", "x;", "$(x)", "'", "", ".", "x" * 64, "x\n"])
def test_charter_name_is_a_plain_word(tmp_path, name):
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(yaml.safe_load(CHARTER) | {"name": name}))
    with pytest.raises(MlopsError, match="charter odd.yaml: name = "):
        load_charter(tmp_path / "odd.yaml")


def test_names_lead_nowhere(leaky):
    project, _ = leaky
    outside = project.root / "elsewhere"
    outside.mkdir(exist_ok=True)
    (outside / "summary.json").write_text('{"run": "not yours"}')
    for words in (
        ("runs", "show", "../elsewhere"), ("runs", "show", str(outside)), ("runs", "show", "../../etc"), ("runs", "show", "."), ("runs", "compare", "../elsewhere", "../elsewhere"),
        ("run", "../ingest"), ("run-stage", "../ingest"), ("run", "-p", "../x.y=1"), ("run", "--force", "../ingest"), ("new-stage", "../../x"), ("new-stage", "x; touch pwned"),
        ("models", "show", "x' or '1'='1"), ("models", "promote", "x'; drop table runs; --", "1"),
    ):  # fmt: skip
        done = project.call(*words)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and "not yours" not in done.stdout, (words, done.stdout, done.stderr)
    assert not list(project.root.parent.rglob("pwned")) and not list(project.root.parent.rglob("x.ipynb"))


def test_a_folder_with_an_odd_name(tmp_path):
    root = tmp_path / "my {project} $(touch pwned) 'x' & \"y\" %s ü"
    root.mkdir()
    project = Project(root)
    assert project.run(stages=("count",)) == {"ingest": "done", "count": "done"}
    assert not list(tmp_path.rglob("pwned")) and not os.path.exists("pwned")
