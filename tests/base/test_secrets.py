"""A secret is found by name, by look, in every encoding, wherever it was shown and however it was split; everything else stays as it is, byte for byte."""

import base64
import html
import json
import re
import string
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from tests.conftest import EXPORT, Project
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlops_nb.base.artifacts import Html, Json, Table
from mlops_nb.base.errors import MlopsError
from mlops_nb.pipeline.guard import Flood, mask_notebook
from mlops_nb.base.secrets import MASK, Masker, is_secret_name, masker, secrets_of, whose

ROOT = Path(__file__).parents[2]
VALUES = st.one_of(st.text(string.ascii_letters + string.digits + "-_+/=.", min_size=6, max_size=60), st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=6, max_size=30))
AROUND = st.text(string.ascii_lowercase + " .,:\n", max_size=20)
ENCODINGS = {
    "as it is": lambda v: v, "JSON": lambda v: json.dumps(v)[1:-1], "JSON in JSON": lambda v: json.dumps(json.dumps(v)), "repr": repr, "bytes": lambda v: repr(v.encode()), "HTML": html.escape,
    "HTML of a table": lambda v: html.escape(v, quote=False), "URL": lambda v: quote(v, safe=""), "form": quote_plus, "every byte of a URL": lambda v: "".join(f"%{b:02x}" for b in v.encode()),
    "hex": lambda v: v.encode().hex(), "HEX": lambda v: v.encode().hex().upper(), "hex with blanks": lambda v: v.encode().hex(" "), "backwards": lambda v: v[::-1],
    "base64": lambda v: base64.b64encode(v.encode()).decode(), "base64url": lambda v: base64.urlsafe_b64encode(v.encode()).decode().rstrip("="),
    "basic auth": lambda v: "Basic " + base64.b64encode(f"user:{v}".encode()).decode(), "inside of base64": lambda v: base64.b64encode(f"ab{v}, c".encode()).decode(),
    "base64 in lines": lambda v: base64.encodebytes(f"x{v}".encode() * 3).decode(), "base64 in a URL": lambda v: quote(base64.b64encode(v.encode()), safe=""),
    "HEX with blanks": lambda v: v.encode().hex(" ").upper(), "HEX with colons": lambda v: v.encode().hex(":").upper(), "hex with dashes": lambda v: v.encode().hex("-"), "base32": lambda v: base64.b32encode(v.encode()).decode(),
    "base32 without padding": lambda v: base64.b32encode(v.encode()).decode().rstrip("="), "inside of base32": lambda v: base64.b32encode(f"ab{v}, c".encode()).decode(),
    "base64 of UTF-16": lambda v: base64.b64encode(v.encode("utf-16-le")).decode(), "base64 twice": lambda v: base64.b64encode(base64.b64encode(v.encode())).decode(),
    "base64 twice without padding": lambda v: base64.b64encode(base64.b64encode(v.encode()).rstrip(b"=")).decode().rstrip("="), "basic auth in base64": lambda v: base64.b64encode(base64.b64encode(f"user:{v}".encode())).decode(),
}  # fmt: skip


def shown(value: str) -> set[str]:
    """What would give the value away: it, and any of its encodings that is as long."""
    return {e(value).strip("'\"") for name, e in ENCODINGS.items() if name not in ("basic auth", "inside of base64", "inside of base32", "basic auth in base64", "base64 in lines", "bytes", "JSON in JSON")}


def mask_of(value: str) -> Masker:
    return masker(secrets_of({"DEMO_PAT": value}))


@settings(deadline=None, max_examples=150)
@given(VALUES, AROUND, AROUND, st.sampled_from(sorted(ENCODINGS)))
def test_no_encoding_gets_through(value, before, after, encoding):
    text, hide = before + ENCODINGS[encoding](value) + after, mask_of(value)
    masked = hide(text)
    assert MASK in masked and not [form for form in shown(value) if form in masked]
    assert hide({text: [text, (text,)]}) == {masked: [masked, [masked]]}


@settings(deadline=None, max_examples=150)
@given(VALUES, AROUND, st.data())
def test_no_split_gets_through(value, around, data):
    """Over messages of a cell, outputs of a kind, cells, and with what print and repr put around a piece."""
    cuts = sorted(data.draw(st.sets(st.integers(1, len(value) - 1), min_size=1, max_size=3)))
    parts = [value[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
    place = data.draw(st.sampled_from(["messages", "cells", "results", "html", "errors", "mixed"]))
    made = {"messages": [], "cells": [], "results": [], "html": [], "errors": [], "mixed": []}
    for n, part in enumerate(parts):
        printed = {"output_type": "stream", "name": "stdout", "text": part if place == "messages" else part + "\n"}
        result = {"output_type": "execute_result", "data": {"text/plain": f"'{part}'"}}
        made["messages"].append(printed)
        made["cells"].append(printed)
        made["results"].append(result)
        made["html"].append({"output_type": "display_data", "data": {"text/html": part, "text/plain": "<HTML>"}})
        made["errors"].append({"output_type": "error", "ename": "E", "evalue": "", "traceback": [part]})
        made["mixed"].append(result if n % 2 else printed)
    made["errors"] = [{**made["errors"][0], "traceback": parts}]
    cells = [{"cell_type": "code", "source": around, "outputs": made[place]}] if place in ("messages", "errors") else [{"cell_type": "code", "source": around, "outputs": [o]} for o in made[place]]
    assume(not any(mask_of(value)(p) != p for p in parts))
    notebook = {"cells": cells, "metadata": {}}
    mask_notebook(notebook, mask_of(value))
    kept = "".join("".join(o.get("text", "")) + "".join(o.get("traceback", [])) + "".join(str(v) for k, v in o.get("data", {}).items() if k != "text/plain" or place != "html") for c in notebook["cells"] for o in c["outputs"])
    assert MASK in kept and value not in "".join(kept.replace("'", "").split()), kept


@settings(deadline=None, max_examples=60)
@given(VALUES, st.sampled_from(["text/plain", "text/html", "image/svg+xml", "image/png", "application/json", "application/vnd.x+json", "text/latex"]), st.sampled_from(sorted(ENCODINGS)))
def test_no_kind_of_output_gets_through(value, mime, encoding):
    text = ENCODINGS[encoding](value)
    assume(value not in f"cells cell_type source outputs output_type display_data metadata traceback widgets {mime}")  # a notebook's own words
    content = {"a": [text, {text: 1}]} if mime.endswith("json") else [text, " and more"]
    notebook = {"cells": [{"cell_type": "code", "source": text, "outputs": [
        {"output_type": "display_data", "data": {mime: content}, "metadata": {text: text}}, {"output_type": "error", "ename": text, "evalue": text, "traceback": [text]}]}],
        "metadata": {"widgets": {"state": text}}}  # fmt: skip
    mask_notebook(notebook, mask_of(value))
    kept = json.dumps(notebook, ensure_ascii=False)
    assert not [form for form in shown(value) if form in kept and form not in json.dumps(MASK)]


@settings(deadline=None, max_examples=40)
@given(VALUES, st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_no_flood_carries_it(tmp_path_factory, value, sizes):
    text, flood = f"{'.' * 30}{value}{'.' * 30}", Flood(tmp_path_factory.mktemp("flood"), 5, mask_of(value))
    while text:
        size = sizes[len(text) % len(sizes)]
        flood.take("c", text[:size])
        text = text[size:]
    assert value not in flood.close()["c"].read_text()


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), VALUES)
def test_text_without_it_is_unchanged(text, value):
    hide = mask_of(value)
    assume(not hide.values(text) and not hide.holds(text))
    notebook = {"cells": [{"cell_type": "code", "source": text, "outputs": [{"output_type": "stream", "name": "stdout", "text": text}]}]}
    before = json.dumps(notebook)
    if not Masker([]).spans(text):
        mask_notebook(notebook, hide)
        assert json.dumps(notebook) == before


def test_numbers_and_colours_and_names():
    hide = mask_of("31415926")
    assert hide({"n": [31415926, 1, True, None, 2.5]}) == {"n": [MASK, 1, True, None, 2.5]}
    assert mask_of("123456")("123456 0.123456789 1234567 9123456 123456.5 id:123456. 654321") == "[masked] 0.123456789 1234567 9123456 123456.5 id:[masked]. [masked]"
    assert mask_of("123456")({"n": [123456, 1234567, 0.123456]}) == {"n": [MASK, 1234567, 0.123456]}
    assert mask_of("12345678901234567890")("12345678901234567890 12345678901234567... 123456789012345678901") == "[masked] [masked]... 123456789012345678901"
    assert mask_of("abc-def-12")("\x1b[1mabc\x1b[0m-def\x1b[32m-12") == MASK
    assert whose('{"a": "abc-def-12"}', {"HOME": "/root", "MY_PAT": "abc-def-12"}) == "MY_PAT"


@pytest.mark.parametrize("name", ["GH_PAT", "JWT", "SESSION_JWT", "BASIC_AUTH", "authToken", "SENTRY_DSN", "DB_CONN", "AIRFLOW_CONN_MYDB", "SLACK_WEBHOOK_URL", "API_KEY_2", "dbPassword", "X_PASS", "CONNECTION_STRING", "DBPASS", "DB_PW", "PASSCODE", "DBPWD", "DB_PASSWORD_USER", "AUTH_TOKEN_USER", "KEY", "APIKEY", "API_KEYS", "ACCESS_TOKENS", "N8N_TOKEN", "AWS_ACCESS_KEY_ID", "GROUP_TOKEN", "SAS_URL", "MYSQL_ROOT_PASSWORD"])
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["PATH", "PATTERN", "AUTHOR", "AUTHORS", "CONNECT_TIMEOUT", "CONN_TIMEOUT", "PWD", "OLDPWD", "SSH_AUTH_SOCK", "COMPASS", "PYTHONPATH", "AUTH_TYPE", "KEYBOARD", "TOKENIZERS_PARALLELISM", "LANG", "",
    "MAX_TOKENS", "NUM_TOKENS", "N_TOKENS", "MAX_NEW_TOKENS", "TOKENS_PER_BATCH", "TOKEN_COUNT", "TOKEN_LIMIT", "MAX_KEYS", "PAD_TOKEN", "SORT_KEY", "PRIMARY_KEY", "partitionKey", "FOREIGN_KEYS", "GROUP_KEY", "PUBLIC_KEY",
    "SAS_HOME", "TOKEN_DIR", "SECRETS_DIR", "PASSWORD_FILE", "SECRET_PATHS", "TOKENFILE", "CREDENTIALS_ROOT", "TOKEN_URL", "API_KEY_DOCS", "AUTH_USER", "MONKEY", "TURKEY", "BYPASS", "LOWPASS"])  # fmt: skip
def test_names_of_others(name):
    assert not is_secret_name(name)


LOOKS = {  # made up, each with the rule of detect-secrets that it is made for
    "aws": "AKIAIOSFODNN7EXAMPLE", "github": "ghp_" + "aB3dE6gH9j" * 3 + "kLmN12", "gitlab": "glpat-aB3dE6gH9jKlMnOpQrSt", "slack": "xoxb-123456789012-abcdefABCDEF", "stripe": "sk_live_" + "a1B2c3D4" * 3,
    "sendgrid": "SG." + "a1B2c3D4e5F6g7H8i9J0k1" + "." + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1v", "pypi": "pypi-AgEIcHlwaS5vcmc" + "aB3d-_E6gH" * 8, "npm": "npm_" + "aB3dE6" * 6,
    "openai": "sk-" + "aB3dE6gH9jKlMnOpQrSt" + "T3BlbkFJ" + "aB3dE6gH9jKlMnOpQrSt", "azure": "AccountKey=" + "aB3dE6gH" * 11, "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9",
    "key": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU=\n-----END OPENSSH PRIVATE KEY-----", "url": "h8nter-2", "said": "password = 'aB3dE6gH9jKl-mN0'", "bearer": "Authorization: Bearer aB3dE6gH9jKlmN0p",
    "basic": "Authorization: Basic dXNlcjpodW50ZXIyMw==", "basic in JSON": '"authorization":"basic dXNlcjpodW50ZXIyMw', "token": "token: 8f3kd93Wdm2kQ93kzP7", "token of hex": "token=3b0c44298fc1c149afbf4c89", "sk-proj": "sk-proj-aB3d_" + "E6gH9jKlMn" * 3,
}  # fmt: skip


@pytest.mark.parametrize("look", LOOKS)
def test_secrets_by_look(look):
    text = f"see postgresql://ada:{LOOKS[look]}@db/x" if look == "url" else f"see {LOOKS[look]} there"
    masked, secret = masker([])(text), LOOKS[look].split()[-1].strip("'").removeprefix("AccountKey=")
    assert MASK in masked and secret not in masked and masked.startswith("see ")


@pytest.mark.parametrize("password", ["hunter2@secret99", "SECRET@secret99", "p?q#hunter@secret99", "a@b@secret99"])
def test_an_address_has_its_password_up_to_the_last_at(password):
    address, alert = f"postgresql://u:{password}@h/db@x", f"mailto://u:{password}@mail.example/to"
    assert masker([])(address) == "postgresql://u:[masked]@h/db@x"
    assert masker(secrets_of({"DB": address}))(f"{password} x") == "[masked] x" == masker(secrets_of({}, (), alert))(f"{password} x")
    assert masker([])(f"see http://ada:{password}@h") == "see http://ada:[masked]@h"


SHOW_PASSWORDS, MADE_UP = ("13_addresses.ipynb", "sources.ipynb"), re.compile(r"(?<=:)(?:hunter2|a%40b%2Fc|hun[/#@]ter22)(?=@)")


def test_what_a_run_is_full_of_is_no_secret():
    """Our own notebooks, with their outputs and pictures, and the words of digests and ids: not a byte changes."""
    hide = masker(secrets_of({"DEMO_API_KEY": "sk-4f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5"}))
    for file in sorted((ROOT / "nbs").rglob("*.ipynb")):
        if file.name in ("12_secrets.ipynb", "10_alerts.ipynb", "35_guard.ipynb"):  # which are about them
            continue
        text = file.read_text()
        if file.name in SHOW_PASSWORDS:  # made up, and masked: all else is not
            text = MADE_UP.sub("[masked]", text)
        for cell in json.loads(text)["cells"]:
            for part in [cell["source"], *cell.get("outputs", ())]:
                assert hide(part) == part, (file.name, cell["id"])
    digests = {"key": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "run": "20261128-120000-ab12", "wandb": "3k2jf9a1", "uri": "sqlite:////srv/mlops/mlflow.db", "id": "6fc9bc5a-08b1-4c3d-9d2c-1e0a1593abcd"}
    assert hide(digests) == digests


@pytest.mark.parametrize("text", ["Basic GradientBoostingClassifier2 beats the basic RandomForestClassifier_100", "token: bert-base-uncased-v1", "next_token=page_2_of_1234567890", "sk-learn-LogisticRegressionClassifier", "sk-learn-RandomForestClassifier100 and 7b",
    "token: llama-3.1-8b-instruct-q4_k_m", "token = RandomForestClassifier100"])  # fmt: skip
def test_names_of_models_are_no_secrets(text):
    assert masker([])(text) == text


def test_the_name_of_a_variable_in_an_address_is_no_secret():
    """A charter says postgresql://reader:${SHOP_DB_PASSWORD}@...: what the variable holds is masked, its name is not."""
    named = "postgresql://reader:${SHOP_DB_PASSWORD}@db.example.org/shop"
    assert masker([])(named) == named and "hunter22" not in masker([])(named.replace("${SHOP_DB_PASSWORD}", "${hunter22"))


LEAKS = [
    "#| default_exp stages.tell",
    EXPORT + "import os\nfrom mlops_nb.pipeline.stage import Html, Input, Json, Output, Table",
    'PARAMETERS\nraw = Input("raw", Json)\ntold = Output("told", Json)\npage = Output("page", Html)\nrows = Output("rows", Table)\nhow: str = "json"  # which of them tells',
    "import base64\nimport pandas as pd\nsecret = os.environ['DEMO_PAT']\nhidden = base64.b64encode(b'user:' + secret.encode()).decode()\n"
    "told.write({'a': [hidden if how == 'json' else 'nothing']})\npage.write(f'<p>{secret if how == \"html\" else 1}</p>')\nrows.write(pd.DataFrame({'a': ['x', secret if how == 'table' else 'y']}))",
]


def test_an_artifact_that_would_tell_is_refused(tmp_path):
    project = Project(tmp_path)
    project.write("stages/50_tell.ipynb", LEAKS)
    project.export()
    env = {"DEMO_PAT": "pat-7391-Ab", "POSTGRES_PASSWORD": "postgres"}
    for how, artifact in (("json", "told"), ("html", "page"), ("table", "rows")):
        done = project.call("run", "tell", "-p", f"tell.how={how}", env=env)
        assert done.returncode == 1 and f"'{artifact}' would hold the value of DEMO_PAT" in done.stdout, done.stdout + done.stderr
    done = project.call("run", "tell", "-p", "tell.how=none", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    kept = [f for f in [*(tmp_path / ".mlops").rglob("*"), *(tmp_path / "reports").rglob("*")] if f.is_file() and (b"pat-7391-Ab" in (data := f.read_bytes()) or b"cGF0LTczOTEtQW" in data)]
    assert kept == []


def test_kinds_keep_their_bytes():
    assert Json.dump({"b": 1, "a": "x"}) == b'{"a":"x","b":1}' and Html.dump("<p>") == b"<p>" and issubclass(MlopsError, Exception) and Table.suffix == ".parquet"
