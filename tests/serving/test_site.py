"""Web pages of other sites, and names that point here by somebody else's DNS, get nothing from a service without keys, nor from the app."""

import json

import pytest
from tests.serving import test_rest
from tests.serving.test_rest import serving

made, sample = test_rest.made, test_rest.sample
SHOP = "https://shop.example.com"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(made):
    with serving(made, "income@staging", "--log", "off", "--cors", SHOP, "--host-name", "*.models.example.com") as one:
        yield one


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/feedback", "/v2/models/income/infer"])
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "evil.example"} | JSON, 403),
        ({"Host": "evil.example:8080", "Origin": "http://evil.example:8080", "Sec-Fetch-Site": "same-origin"} | JSON, 403),
        ({"Host": "10.1.2.3"} | JSON, 403),
        ({"Host": ""} | JSON, 403),
        ({"Origin": "http://evil.example"} | JSON, 403),
        ({"Origin": "null"} | JSON, 403),
        ({"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"} | JSON, 403),
        ({"Sec-Fetch-Site": "cross-site"} | JSON, 403),
        ({"Sec-Fetch-Site": "same-site"} | JSON, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Origin": SHOP}, 415),
    ],
)
def test_what_a_page_sends_is_refused(server, sample, path, headers, code):
    answered, said, _ = server.ask("POST", path, {"rows": sample.rows[:1]}, headers)
    assert answered == code and len(said["error"]) > 40, said
    assert ("settings.ini" in said["error"]) if code == 403 else ("-H 'Content-Type: application/json'" in said["error"])


@pytest.mark.parametrize("path", ["/v2", "/v1/models", "/metrics", "/docs", "/openapi.json", "/v2/health/ready", "/v2/models/income"])
def test_nothing_is_read_by_another_name_or_page(server, path):
    assert server.get(path, Host="evil.example")[0] == server.get(path, Origin="http://evil.example")[0] == 403
    assert server.get(path)[0] == server.get(path, Host="localhost:1")[0] == server.get(path, Host="[::1]")[0] == server.get(path, Host="income.models.example.com")[0] == 200


@pytest.mark.parametrize("headers", [{}, JSON, {"Content-Type": "application/json;charset=utf-8"}, {"Origin": "SELF", "Sec-Fetch-Site": "same-origin"} | JSON, {"Sec-Fetch-Site": "none"} | JSON])
def test_programs_and_own_pages_are_answered(server, sample, headers):
    own = f"http://{server.address[0]}:{server.address[1]}"
    code, _, said = server.ask("POST", "/v1/predict", {"rows": sample.rows[:1]}, {k: own if v == "SELF" else v for k, v in headers.items()})
    assert code == 200 and "access-control-allow-origin" not in said


def test_a_page_that_was_named_may_ask(server, sample):
    page = {"Origin": SHOP, "Sec-Fetch-Site": "cross-site"}
    code, _, headers = server.ask("OPTIONS", "/v1/predict", None, page | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-api-key"})
    assert code == 204 and headers["access-control-allow-origin"] == SHOP and "POST" in headers["access-control-allow-methods"] and "x-api-key" in headers["access-control-allow-headers"]
    for rows, expected in ((sample.rows[:1], 200), ([], 422)):
        code, _, headers = server.ask("POST", "/v1/predict", json.dumps({"rows": rows}), page | JSON)
        assert code == expected and headers["access-control-allow-origin"] == SHOP and headers["vary"] == "Origin"
    assert server.get("/v1/models", **page)[2]["access-control-allow-origin"] == SHOP
    assert server.ask("OPTIONS", "/v1/predict", None, page | {"Origin": "https://shop.example.com.evil.example"})[0] == 403


def test_head_and_options(server):
    for path in ("/v2/health/live", "/v2/health/ready", "/v2", "/v1/models", "/docs", "/openapi.json", "/metrics", "/v2/models/income"):
        code, _, headers = server.ask("HEAD", path)
        assert code == 200 and int(headers["content-length"]) > 0
        code, _, headers = server.ask("OPTIONS", path)
        assert (code, headers["allow"]) == (204, "GET, HEAD, OPTIONS") and "access-control-allow-origin" not in headers
        assert server.ask("PUT", path)[2]["allow"] == "GET, HEAD, OPTIONS"
    assert server.ask("OPTIONS", "/v1/predict")[2]["allow"] == server.ask("HEAD", "/v1/predict")[2]["allow"] == "POST, OPTIONS"
    assert server.ask("OPTIONS", "/nowhere")[0] == server.ask("HEAD", "/nowhere")[0] == 404


def test_a_service_with_keys_answers_by_any_name(project, sample):
    from mlops_nb.serving.keys import add_key

    key = {"X-API-Key": add_key(project / "keys.json", "shop")}
    with serving(project, "income@staging", "--log", "off", "--keys", str(project / "keys.json")) as server:
        body = {"rows": sample.rows[:1]}
        assert server.ask("POST", "/v1/predict", body, key | JSON | {"Host": "income.example.com"})[0] == 200
        assert server.ask("POST", "/v1/predict", body, key | JSON | {"Host": "income.example.com", "Origin": SHOP})[0] == 403
        assert server.ask("OPTIONS", "/v1/predict")[0] == 204


project = test_rest.project
