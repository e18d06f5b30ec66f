"""What the local engine refuses to web pages, shown with attacks from a real browser, and what others may do."""

import base64
import contextlib
import io
import json
import os
import socket
import sys
import threading
import zipfile
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlencode

import boto3
import httpx
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, StreamReset

import local
from conftest import chromium, create, create_stack, eventually, free_port, http_api, named, outputs

EXAMPLE = "https://example.com/a"
RESET = "/_ministack/reset"


@pytest.fixture(scope="module")
def guarded():
    with local.engine(free_port()) as running:
        yield running


@pytest.fixture(scope="module")
def bare():
    """The engine without its guard, for which each attack must work: or it would show nothing."""
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(local, "ENGINE", [sys.executable, "-m", "ministack"])
            running = stack.enter_context(local.engine(free_port()))
        yield running


@pytest.fixture(params=["guarded", "bare"])
def target(request):
    """Each of the two engines, with all that tests made in it gone."""
    running = request.getfixturevalue(request.param)
    assert httpx.post(at(running) + RESET, trust_env=False).status_code == 200
    return running


@pytest.fixture
def works(request, target):
    """Whether an attack must work."""
    return target is not request.getfixturevalue("guarded")


def at(engine):
    return engine.settings["AWS_ENDPOINT_URL"]


def client(engine, service):
    return boto3.client(
        service,
        endpoint_url=at(engine),
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def roles(engine):
    return [each["RoleName"] for each in client(engine, "iam").list_roles()["Roles"]]


# --- Attacks

TRUST = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
CODE = """
from pathlib import Path

def handler(event, context):
    Path({!r}).write_text("It ran.")
"""


def signed(service, **parameters):
    """Return a query that the engine takes as signed by root."""
    signature = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"test/20260101/us-east-1/{service}/aws4_request",
        "X-Amz-Date": "20260101T000000Z",
        "X-Amz-Signature": "any",
    }
    return "?" + urlencode(parameters | signature)


def create_role(name="evil"):
    return "/" + signed(
        "iam", Action="CreateRole", RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": TRUST})
    )


def attack(mark):
    """Return the three requests, as path and body, that make the engine run code, which writes this file."""
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("index.py", CODE.format(str(mark)))
    function = {
        "FunctionName": "evil",
        "Runtime": "python3.13",
        "Handler": "index.handler",
        "Role": "arn:aws:iam::000000000000:role/evil",
        "Code": {"ZipFile": base64.b64encode(package.getvalue()).decode()},
        "Timeout": 30,
    }
    return [
        (create_role(), {}),
        ("/2015-03-31/functions" + signed("lambda"), function),
        ("/2015-03-31/functions/evil/invocations" + signed("lambda"), {}),
    ]


class Elsewhere(BaseHTTPRequestHandler):
    """An empty page of a site that has nothing to do with the engine."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Elsewhere</title>")

    def log_message(self, *_):
        """Be silent."""


@pytest.fixture(scope="module")
def site():
    """The port of a site of another origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, args=[0.05]).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def rebound(browser):
    """A browser for which evil.example leads to this machine, as its owner could have any name do."""
    with contextlib.closing(chromium(browser.browser_type, "host-resolver-rules=MAP evil.example 127.0.0.1")) as found:
        yield found


@pytest.fixture
def page(rebound):
    with contextlib.closing(rebound.new_page()) as page:
        yield page


def submit(page, url, body):
    """Post a JSON body by a form of the page, as any page can to any URL; return the status of the answer."""
    start = json.dumps(body | {"and": ""})[:-2]  # a form puts an equals sign between name and value
    script = """([url, start]) => {
        const form = document.createElement("form"), field = document.createElement("input");
        Object.assign(form, {method: "POST", enctype: "text/plain", action: url, target: "answers"});
        Object.assign(field, {name: start, value: '"}'});
        form.append(field);
        const frame = document.createElement("iframe");
        frame.name = "answers";
        document.body.replaceChildren(form, frame);
        form.submit();
    }"""
    with page.expect_response(lambda answer: answer.request.method == "POST", timeout=60_000) as asked:
        page.evaluate(script, [url, start])
    return asked.value.status


def fetch(page, url, **options):
    """Fetch a URL from the page; return the status, 0 if the browser does not tell it, None if there is no answer."""
    return page.evaluate("([url, options]) => fetch(url, options).then((it) => it.status, () => null)", [url, options])


@pytest.mark.parametrize("host", ["evil.example", "localhost", "127.0.0.1"])
def test_a_page_elsewhere_runs_no_code_here(target, works, page, site, tmp_path, host):
    """Three forms that a page posts to the engine run code on this machine, but for the guard."""
    mark = tmp_path / "mark"
    page.goto(f"http://{host}:{site}/")
    answers = [submit(page, at(target) + path, body) for path, body in attack(mark)]
    assert answers == ([200, 201, 200] if works else [403, 403, 403])
    assert mark.exists() == works
    assert ("evil" in roles(target)) == works


def test_a_page_elsewhere_wipes_nothing(target, works, page, site):
    client(target, "iam").create_role(RoleName="mine", AssumeRolePolicyDocument=json.dumps({"Statement": TRUST}))
    page.goto(f"http://evil.example:{site}/")
    submit(page, at(target) + RESET, {})
    assert ("mine" not in roles(target)) == works


@pytest.mark.parametrize("tag", ["img", "iframe"])
def test_no_request_without_an_origin_gets_through(target, works, page, site, tag):
    page.goto(f"http://evil.example:{site}/")
    script = """([tag, url]) => new Promise((loaded) => {
        const element = document.createElement(tag);
        document.body.append(Object.assign(element, {src: url, onload: () => loaded(), onerror: () => loaded()}));
    })"""
    page.evaluate(script, [tag, at(target) + create_role()])
    assert ("evil" in roles(target)) == works


def test_a_name_that_leads_here_does_not_help(target, works, page):
    """DNS rebinding: a page whose host was made to lead to this machine is of the engine's own origin."""
    client(target, "iam").create_role(RoleName="mine", AssumeRolePolicyDocument=json.dumps({"Statement": TRUST}))
    page.goto(at(target).replace("127.0.0.1", "evil.example") + "/_ministack/ready")
    assert fetch(page, create_role()) == (200 if works else 403)
    assert fetch(page, RESET, method="POST") == (200 if works else 403)
    assert roles(target) == ([] if works else ["mine"])


def test_what_the_engine_serves_may_not_use_it(target, works, page):
    """A page of the engine's own origin: a file that somebody stored, say."""
    answer = page.goto(at(target) + "/_ministack/ready")
    assert answer.status == 200, "a person may look, all the same"
    assert fetch(page, create_role()) == (200 if works else 403)
    assert ("evil" in roles(target)) == works


def test_what_a_person_opens_is_no_action(target, works, page):
    """A link in a mail, for the browser, is what the person typed."""
    page.goto(at(target) + create_role())
    assert ("evil" in roles(target)) == works


@pytest.mark.parametrize("host", ["x.execute-api.localhost", "1.execute-api.localhost"])
def test_no_host_of_an_api_leads_to_the_engine(target, works, page, site, host):
    page.goto(f"http://evil.example:{site}/")
    assert submit(page, at(target).replace("127.0.0.1", host) + create_role(), {}) == (200 if works else 403)
    assert ("evil" in roles(target)) == works


def test_no_stage_of_an_api_leads_to_the_engine(target, works, page, site):
    """The engine has services of its own at the paths of some names that a stage may have."""
    gateway = client(target, "apigateway")
    api_id = gateway.create_rest_api(name="named")["id"]
    gateway.create_deployment(restApiId=api_id, stageName="v2")
    page.goto(f"http://evil.example:{site}/")
    url = at(target).replace("127.0.0.1", f"{api_id}.execute-api.localhost") + "/v2/email/identities" + signed("ses")
    submit(page, url, {"EmailIdentity": "evil@example.com"})
    identities = client(target, "sesv2").list_email_identities()["EmailIdentities"]
    assert [each["IdentityName"] for each in identities] == (["evil@example.com"] if works else [])


def test_a_page_elsewhere_may_use_an_api_that_allows_it(stack_api, page, site):
    page.goto(f"http://evil.example:{site}/")
    body = json.dumps({"link": EXAMPLE})
    assert fetch(page, f"http://{stack_api.host}/prod/link", method="POST", body=body) == 201
    assert [each["link"] for each in stack_api.all()] == [EXAMPLE]
    assert fetch(page, f"{stack_api.url}/link") is None, "but not at the engine's host"


# --- Requests, as they are sent


def raw(port, request):
    """Send the lines of a request as they are; return the status and the body of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall("\r\n".join([*request, "", ""]).encode("latin-1"))
        with HTTPResponse(connection) as answer:
            answer.begin()
            return answer.status, answer.read()


@pytest.fixture
def ask(engine, stack_api):
    """A function that sends a request, in which PORT and API stand for what they are, and returns the status."""
    port = int(at(engine).rsplit(":", 1)[1])

    def ask(*request):
        api = stack_api.host.split(".")[0]
        status, body = raw(port, [line.replace("PORT", str(port)).replace("API", api) for line in request])
        if status == 403:
            assert json.loads(body)["message"].endswith("."), "the guard said it, in a sentence"
        return status

    return ask


READY = "GET /_ministack/ready HTTP/1.1"
LINKS = "GET /prod/link HTTP/1.1"
ALIAS = "GET /restapis/API/prod/_user_request_/link HTTP/1.1"
HERE, THERE = "Host: 127.0.0.1:PORT", "Host: API.execute-api.localhost:PORT"
FOREIGN = "Origin: https://evil.example"


@pytest.mark.parametrize("host", ["127.0.0.1:PORT", "127.0.0.1", "127.0.0.1:1", "localhost:PORT", "LocalHost"])
def test_who_asks_at_its_own_host_is_let_in(ask, host):
    assert ask(READY, f"Host: {host}") == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:PORT",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.localhost",
        "localhost.",
        "127.0.0.1.",
        "127.0.0.2",
        "0.0.0.0",
        "2130706433",
        "0x7f000001",
        "[::1]:PORT",
        "[::ffff:127.0.0.1]",
        "127.0.0.1:PORT:1",
        "127.0.0.1, evil.example",
        "evil@127.0.0.1",
        "",
        # As an API's, but not to the engine's router.
        "API.EXECUTE-API.localhost:PORT",
        "API.execute-api.localhost.:PORT",
        "API.execute-api.localhost.evil.example",
        "API.execute-api.us-east-1.localhost",
        "x.API.execute-api.localhost",
        "bucket.s3.localhost",
    ],
)
@pytest.mark.parametrize("line", [READY, LINKS])
def test_another_host_is_refused(ask, host, line):
    assert ask(line, f"Host: {host}") == 403


def test_no_host_and_two_are_refused(ask):
    assert ask("GET /_ministack/ready HTTP/1.0") == 403
    assert ask(READY) == 400, "the server has refused it"
    assert ask(READY, HERE, "Host: evil.example") == 400
    assert ask(READY, HERE, HERE) == 400


@pytest.mark.parametrize(
    "line",
    [
        FOREIGN,
        "ORIGIN: https://evil.example",
        "Origin: null",
        "Origin:",
        "Origin: http://127.0.0.1:PORT",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Sec-Fetch-Site: none, cross-site",
        "Sec-Fetch-Site:",
    ],
)
def test_a_page_is_refused_at_the_engines_host_but_not_at_the_apis(ask, line):
    assert ask(READY, HERE, line) == 403
    assert ask(ALIAS, HERE, line) == 403
    assert ask(READY, THERE, line) == 403
    assert ask(LINKS, THERE, line) == 200


def test_what_a_person_types_is_let_in(ask):
    assert ask(READY, HERE, "Sec-Fetch-Site: none") == 200
    assert ask(ALIAS, HERE, "Sec-Fetch-Site: none") == 200
    assert ask(READY, HERE, "Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site") == 403


@pytest.mark.parametrize("name", ["Action=", "%41ction=CreateRole", "x=1&Action=CreateRole"])
def test_an_action_is_not_typed(ask, name):
    assert ask(f"GET /?{name} HTTP/1.1", HERE, "Sec-Fetch-Site: none") == 403


def test_at_an_alias_of_the_api_its_page_may_read(ask):
    """Scripts of the page send no Origin with what only reads."""
    assert ask(ALIAS, HERE) == 200
    assert ask(ALIAS, HERE, "Sec-Fetch-Site: same-origin") == 200
    assert ask(ALIAS, HERE, "Sec-Fetch-Site: same-origin", "Origin: http://127.0.0.1:PORT") == 403
    assert ask(ALIAS, "Host: evil.example", "Sec-Fetch-Site: same-origin") == 403
    for path in (
        "/restapis",
        "/restapis/API",
        "/restapis/API/stages",
        "/restapis/12345678/prod/_user_request_/",
        "/health",
    ):
        assert ask(f"GET {path} HTTP/1.1", HERE, "Sec-Fetch-Site: same-origin") == 403


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "*",
        "/none/link",
        "//prod/link",
        "//_ministack/reset",
        "/_ministack/reset",
        "/%5Fministack/reset",
        "/%2F_ministack/reset",
        "/_aws/execute-api/API/prod/link",
        "/restapis/API/prod/_user_request_/link",
        "/2015-03-31/functions",
        "/?Action=ListRoles",
        "/health",
        "/iceberg/v1/config",
        "/v20180820/mrap/instances",
        "/v2/email/identities",
        "http://127.0.0.1:PORT/_ministack/reset",
        "http://API.execute-api.localhost:PORT/prod/link",
    ],
)
def test_an_apis_host_leads_to_its_stages_only(ask, path):
    for line in (f"POST {path} HTTP/1.1", f"GET {path} HTTP/1.1"):
        assert ask(line, THERE, FOREIGN, "Content-Length: 0") == 403
        assert ask(line, THERE, "Content-Length: 0") == 403


@pytest.mark.parametrize(
    "path", ["/prod/../_ministack/reset", "/prod/%2e%2e/_ministack/reset", "/prod//_ministack/reset"]
)
def test_a_way_out_of_a_stage_leads_to_the_api(ask, stack_api, path):
    stack_api.post(EXAMPLE)
    assert ask(f"POST {path} HTTP/1.1", THERE, FOREIGN, "Content-Length: 0") == 404
    assert [each["link"] for each in stack_api.all()] == [EXAMPLE]


@pytest.mark.parametrize("host", [HERE, THERE])
def test_a_page_opens_no_websocket(ask, host):
    upgrade = ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    for path in ("/prod", "/_aws/execute-api/API/prod"):
        assert ask(f"GET {path} HTTP/1.1", host, FOREIGN, "Connection: Upgrade", *upgrade) == 403


@pytest.mark.parametrize(
    "headers, status",
    [
        ({":authority": "127.0.0.1"}, b"200"),
        ({":authority": "evil.example"}, b"403"),
        ({":authority": "127.0.0.1", "origin": "https://evil.example"}, b"403"),
        ({"host": "127.0.0.1"}, b"200"),
        ({"host": "evil.example"}, b"403"),
    ],
)
def test_http_2_is_as_guarded(engine, headers, status):
    settings = H2Configuration(validate_outbound_headers=False, header_encoding=None)
    connection, answer = H2Connection(settings), []
    connection.initiate_connection()
    pseudo = {":method": "GET", ":scheme": "http", ":path": "/_ministack/ready"}
    connection.send_headers(1, [*(pseudo | headers).items()], end_stream=True)
    with socket.create_connection(("127.0.0.1", int(at(engine).rsplit(":", 1)[1])), timeout=60) as stream:
        while not answer:
            stream.sendall(connection.data_to_send())
            answer = [
                it
                for it in connection.receive_data(stream.recv(65536))
                if isinstance(it, (ResponseReceived, StreamReset))
            ]
    assert dict(answer[0].headers)[b":status"] == status


# --- What is let in is not touched


def test_bodies_pass_whole_and_in_pieces(engine):
    """The SDK waits for 100 Continue; httpx sends a generator in chunks."""
    body, storage = os.urandom(5_000_000), client(engine, "s3")
    storage.create_bucket(Bucket="bodies")
    storage.put_object(Bucket="bodies", Key="whole", Body=body)
    assert storage.get_object(Bucket="bodies", Key="whole")["Body"].read() == body
    url = storage.generate_presigned_url("put_object", {"Bucket": "bodies", "Key": "pieces"})
    pieces = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
    assert httpx.put(url, content=pieces, trust_env=False).status_code == 200
    url = storage.generate_presigned_url("get_object", {"Bucket": "bodies", "Key": "pieces"})
    assert httpx.get(url, trust_env=False).content == body
    for key in ("whole", "pieces"):
        storage.delete_object(Bucket="bodies", Key=key)
    storage.delete_bucket(Bucket="bodies")


def test_only_this_machine_is_listened_to(engine):
    port = int(at(engine).rsplit(":", 1)[1])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", port)) != 0


# --- What is saved


def test_functions_follow_what_changes_after_a_new_start(tmp_path):
    """The engine saves how far a stream was read, but not the stream, and would wait until that is as long again."""
    port, store = free_port(), named("restarted")
    for round in range(2):
        with local.engine(port, tmp_path) as running:
            if not round:
                create_stack(running, store)
                create(running, f"{store}-search", "addons/search.yml", {"Store": store})
            with http_api(running, outputs(running, store)["APIUrl"]) as api:
                assert len(api.all("/tags")) == round
                api.post(f"{EXAMPLE}/{round}", tags=[f"tag-{round}"])
                eventually(lambda: len(api.all("/tags")) == round + 1, "the tag in the index")  # noqa: B023
