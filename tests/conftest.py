"""The two ways to the API that the tests share, and the stack behind each.

`api` runs a test twice: once it hands recorded events of API Gateway to the
handler, on moto's DynamoDB; once it sends HTTP requests to the whole stack on
the local engine, deployed from the template with IAM enforced.
"""

import contextlib
import functools
import io
import json
import os
import random
import re
import shutil
import socket
import time
import uuid
from pathlib import Path
from unittest import mock
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import httpx
import pytest
from awscli.clidriver import create_clidriver
from cfnlint.decode import decode
from playwright.sync_api import expect, sync_playwright

import cost
import local
import stack

pytest_plugins = ["exchange", "stacks"]

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "setupapidb.yml"
CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
NEVER_THROTTLED = {"RequestsPerSecond": "10000", "RequestBurst": "5000"}


class Api:
    """A client of the API, with what every answer of it must be like.

    `origin` is what it must allow; `settle` returns when the stream has been followed; `send` takes a method, a path below the stage, headers and a body, and
    returns an httpx.Response.
    """

    origin = "*"

    def __init__(self, send, settle=lambda: None):
        self.send, self.settle, self.changed, self.visited = send, settle, False, False

    def __call__(self, method, path, body=None, headers=None):
        """Send a request; one that reads what the stream makes waits until that has been made."""
        by_index = re.search("^/tags|[?&](tag|q)=", path)
        if method == "GET" and not path.startswith("/go/") and (self.visited or self.changed and by_index):
            self.settle()
            self.changed = self.visited = False
        self.visited |= path.startswith("/go/")
        self.changed |= method in ("POST", "PUT", "PATCH", "DELETE")
        if not isinstance(body, (str, bytes, type(None))):
            body = json.dumps(body)
        answer = self.send(method, path, headers or {}, body)
        assert answer.headers["Access-Control-Allow-Origin"] == self.origin
        kind = answer.headers.get("Content-Type")
        of_gateway = method == "OPTIONS" or answer.status_code in (403, 429)
        if "Reference" not in answer.text and not of_gateway:
            assert answer.headers["Access-Control-Expose-Headers"] == "ETag, Link, Location"
        if answer.content and path not in ("", "/") and not path.startswith(("/feed", "/go/")):
            assert kind == "application/json"
        if answer.status_code >= 400 and method != "HEAD" and kind == "application/json":
            assert answer.json().keys() == {"Error", "Reference"}
            assert answer.json()["Error"].endswith("."), "an error is a sentence"
            assert answer.json()["Reference"]
        return answer

    def post(self, link, **fields):
        """Store a link and return its record."""
        answer = self("POST", "/link", {"link": link, **fields})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def pages(self, path="/link"):
        """Yield the pages of a list, by its next links."""
        while path:
            answer = self("GET", path)
            assert answer.status_code == 200, answer.text
            yield answer.json()
            following = answer.links.get("next", {}).get("url", "")
            path = following and "/" + following.split("/", 4)[4]

    def all(self, path="/link"):
        return [record for page in self.pages(path) for record in page]

    def refuses(self, status, sentence, *request, **more):
        """Send a request that must be refused so, and must leave the links as they are."""
        before = self.all()
        answer = self(*request, **more)
        assert (answer.status_code, self.all()) == (status, before), answer.text
        assert re.search(sentence, answer.json()["Error"]), answer.text
        return answer


def recorded(method, path, headers, body):
    """Return the event of a request: the recorded one, with what the request has of its own."""
    event = json.loads((Path(__file__).parent / "events" / "get.json").read_text())
    parts = urlsplit(path)
    proxy = parts.path.strip("/")
    event["resource"] = "/{proxy+}" if proxy else "/"
    event["path"] = unquote(parts.path)
    event["httpMethod"] = event["requestContext"]["httpMethod"] = method
    event["requestContext"]["path"] = "/prod" + parts.path
    event["requestContext"]["resourcePath"] = event["resource"]
    event["pathParameters"] = {"proxy": unquote(proxy)} if proxy else None
    if parts.query:
        query = parse_qs(parts.query, keep_blank_values=True)
        event["multiValueQueryStringParameters"] = query
        event["queryStringParameters"] = {name: values[-1] for name, values in query.items()}
    event["multiValueHeaders"] |= {name: [value] for name, value in headers.items()}
    event["headers"] = {name: values[-1] for name, values in event["multiValueHeaders"].items()}
    event["body"] = body.decode(errors="replace") if isinstance(body, bytes) else body
    return event


def proxy_response(answer):
    """Return the HTTP response that API Gateway makes of a proxy response, or fail where it cannot."""
    answer = json.loads(json.dumps(answer))
    assert answer.keys() == {"statusCode", "headers", "body"}
    assert isinstance(answer["statusCode"], int) and isinstance(answer["body"], str)
    assert all(isinstance(value, str) for value in answer["headers"].values())
    assert not re.search(r"[\r\n]", "".join(answer["headers"].values()))
    body = answer["body"].encode()
    return httpx.Response(answer["statusCode"], headers=answer["headers"], content=body)


@pytest.fixture(scope="session")
def template():
    """The template as a dict, with its intrinsic functions as Fn::... and Ref."""
    content, problems = decode(str(TEMPLATE))
    assert not problems
    return content


@pytest.fixture(scope="session")
def loaded(template):
    """The handler, as a module, and a client of the DynamoDB that it asks, moto's."""
    function = template["Resources"]["Function"]["Properties"]
    settings = {
        "TABLE": "links",
        "INDEX": "index",
        "STACK": "store",
        "STACK_ID": "arn:aws:cloudformation:the-stack",
        "ACCESS": "open",
    }
    settings |= {"ALLOWED_ORIGIN": "*", "COUNT_VISITS": "true", "VERSION": "0.0.1", "ENDPOINT": "https://on.aws"}
    assert settings.keys() == function["Environment"]["Variables"].keys()
    with cost.loaded(settings) as both:
        yield both


@pytest.fixture(scope="session")
def module(loaded):
    return loaded[0]


@pytest.fixture
def dynamodb(loaded):
    return loaded[1]


@pytest.fixture
def handler(template, module, dynamodb):
    """The handler on an empty table."""
    with cost.tables_of(plain(template), dynamodb, module):
        assert module.index_is_made(), "as at a cold start"
        yield module


@pytest.fixture
def on_the_way(handler, monkeypatch):
    """A function that takes another, which sees each request to DynamoDB, and may answer it or raise an error."""
    send = handler.http.send

    def register(answer):
        monkeypatch.setattr(handler.http, "send", lambda request: answer(request) or send(request))

    return register


def operation_of(request):
    return request.headers["X-Amz-Target"].partition(".")[2]


def plain(value):
    """Return a part of the template without the classes that cfn-lint gives it."""
    return json.loads(json.dumps(value))


@contextlib.contextmanager
def stream_of(client):
    """Give a function that returns the records of the stream of the table `links` since it was last called."""
    url, region = client.meta.endpoint_url, client.meta.region_name
    with contextlib.closing(boto3.client("dynamodbstreams", region, endpoint_url=url, **CREDENTIALS)) as streams:
        arn = client.describe_table(TableName="links")["Table"]["LatestStreamArn"]
        (shard,) = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
        start = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        iterator = streams.get_shard_iterator(**start)["ShardIterator"]

        def following():
            nonlocal iterator
            page = streams.get_records(ShardIterator=iterator)
            iterator = page["NextShardIterator"]
            return json.loads(json.dumps([{"dynamodb": each["dynamodb"]} for each in page["Records"]], default=str))

        yield following


@pytest.fixture
def stream(dynamodb, handler):
    with stream_of(dynamodb) as following:
        yield following


@pytest.fixture
def events_api(handler, stream):
    def follow():
        records = stream()
        if records:
            handler.lambda_handler({"Records": records}, None)

    return Api(lambda *request: proxy_response(handler.lambda_handler(recorded(*request), None)), follow)


def needed(name, *commands):
    """Return where one of these commands is, or skip the test; but fail in CI, which has to have it."""
    found = next(filter(None, map(shutil.which, commands)), None)
    if not found:
        missing = f"this test needs {name}: install it, for example with apt-get install {commands[0]}"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return found


@pytest.fixture
def curl():
    needed("curl", "curl")


# Chromium alone, without what it would ask of other hosts.
CHROMIUM = ["no-sandbox", "disable-gpu", "disable-quic", "disable-background-networking"]
CHROMIUM += ["disable-component-update", "disable-sync"]


def chromium(kind, *more):
    """Start Chromium, which is Playwright's `kind`, with more options than the usual ones."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    options = [f"--{option}" for option in (*CHROMIUM, *more)]
    return kind.launch(executable_path=needed("Chromium", *names), args=options)


@pytest.fixture(scope="module")
def browser():
    """A browser of a test module; its event loop must not outlive that."""
    expect.set_options(timeout=10_000)
    with sync_playwright() as playwright:
        browser = chromium(playwright.chromium)
        yield browser
        browser.close()


def free_port():
    """Return a port that is free: none of those that systems give to connections, which could take it meanwhile."""
    for port in random.SystemRandom().sample(range(10_000, 32_768), 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("No port is free.")


@pytest.fixture(scope="session")
def engine():
    """A local engine of this test run."""
    with local.engine(free_port()) as running:
        yield running


@functools.cache
def command_line(endpoint):
    """Return the AWS CLI for an endpoint. It runs in this process: to start it takes a hundred times as long as a call."""
    return create_clidriver()


def aws(engine, *arguments, fails=False):
    """Run the AWS CLI on the local engine; return what it printed, as JSON if it is."""
    printed, said = io.StringIO(), io.StringIO()
    settings = engine.settings | {"AWS_DATA_PATH": os.environ["AWS_DATA_PATH"]}  # which awscli sets when it is imported
    with (
        mock.patch.dict(os.environ, settings, clear=True),
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(said),
    ):
        code = command_line(engine.settings["AWS_ENDPOINT_URL"]).main([*map(str, arguments)])
    assert (code != 0) == fails, said.getvalue()
    if fails:
        return said.getvalue()
    return json.loads(printed.getvalue()) if printed.getvalue().strip() else None


def settled(engine, name):
    """Return what CloudFormation says of a stack when nothing more happens to it."""
    while True:
        described = aws(engine, *f"cloudformation describe-stacks --stack-name {name}".split())
        (found,) = described["Stacks"]
        if not found["StackStatus"].endswith("_IN_PROGRESS"):
            return found


def resource_ids(engine, stack):
    """Return the physical IDs of a stack's resources by logical ID."""
    listed = aws(engine, *f"cloudformation list-stack-resources --stack-name {stack}".split())
    return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in listed["StackResourceSummaries"]}


def create(engine, name, template, parameters):
    """Create a stack of a template as the README does, with these parameters."""
    command = f"cloudformation create-stack --stack-name {name} --template-body file://{template}"
    given = [f"ParameterKey={key},ParameterValue={value}" for key, value in parameters.items()]
    more = ["--parameters", *given] if given else []
    aws(engine, *command.split(), "--capabilities", "CAPABILITY_NAMED_IAM", *more)
    assert settled(engine, name)["StackStatus"] == "CREATE_COMPLETE"


def create_stack(engine, name, parameters=NEVER_THROTTLED):
    """Create a store with these parameters; return its APIUrl."""
    create(engine, name, "setupapidb.yml", parameters)
    return outputs(engine, name)["APIUrl"]


def outputs(engine, name):
    return {each["OutputKey"]: each["OutputValue"] for each in settled(engine, name)["Outputs"]}


def key_of(engine, name):
    """Return the API key of a stack, as docs/access.md says how to read it."""
    key_id = outputs(engine, name)["ApiKeyId"]
    command = f"apigateway get-api-key --api-key {key_id} --include-value --query value"
    return aws(engine, *command.split())


@contextlib.contextmanager
def http_api(engine, url):
    """Give an Api for the stack whose output APIUrl is this, by HTTP to the engine.

    It is at `url`, without /link, if the Host header is `host`.
    """
    at = urlsplit(stack.reachable(url, engine.settings["AWS_ENDPOINT_URL"]))
    # Not every system resolves *.localhost for every client, so the host goes into the header.
    base = f"http://127.0.0.1:{at.port}{at.path.removesuffix('/link')}"
    # Fifty threads keep their connections: where some are closed, httpcore at times closes one in use.
    limits = httpx.Limits(max_keepalive_connections=50)
    with httpx.Client(headers={"Host": at.netloc}, timeout=60, trust_env=False, limits=limits) as client:
        api = Api(
            lambda method, path, headers, body: client.request(method, base + path, headers=headers, content=body)
        )
        api.url, api.host = base, at.netloc
        yield api


@contextlib.contextmanager
def dynamodb_of(engine):
    """Give a client of the engine's DynamoDB."""
    url, region = engine.settings["AWS_ENDPOINT_URL"], engine.settings["AWS_DEFAULT_REGION"]
    with contextlib.closing(boto3.client("dynamodb", region, endpoint_url=url, **CREDENTIALS)) as client:
        yield client


def followed(client, table):
    """Return when the stream of a store's table has been followed so far.

    The visits of a link that is not there are deleted by who follows it, which happens in the order of the stream.
    """
    key = {"link_id": {"S": "nothing"}, "link": {"S": f"#2026-01-01 {uuid.uuid4()}"}}
    client.put_item(TableName=table, Item=key | {"visits": {"N": "1"}})
    latest = time.monotonic() + 60
    while "Item" in client.get_item(TableName=table, Key=key, ConsistentRead=True):
        assert time.monotonic() < latest, "the stream is not followed"


@pytest.fixture(scope="session")
def deployed(engine):
    """An Api for a stack on the local engine; `stack_api` empties it for each test."""
    with http_api(engine, create_stack(engine, "tests")) as api, dynamodb_of(engine) as client:
        table = resource_ids(engine, "tests")["Table"]
        api.settle = lambda: followed(client, table)
        yield api


@pytest.fixture
def stack_api(deployed):
    for record in deployed.all("/link?limit=1000"):
        assert deployed("DELETE", f"/link/{record['link_id']}").status_code == 204
    return deployed


@pytest.fixture(params=["events", "stack"])
def api(request):
    return request.getfixturevalue(f"{request.param}_api")
