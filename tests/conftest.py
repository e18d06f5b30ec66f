"""The two ways to the API that the tests share, and the stack behind each.

`api` runs a test twice: once it hands recorded events of API Gateway to the
handler, on moto's DynamoDB; once it sends HTTP requests to the whole stack on
the local engine, deployed from the template with IAM enforced, or on AWS (account.py).
"""

import contextlib
import fcntl
import functools
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import time
from pathlib import Path
from unittest import mock
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import httpx
import pytest
from awscli.clidriver import create_clidriver
from cfnlint.decode import decode
from playwright.sync_api import expect, sync_playwright

import loading
import local
import stack

pytest_plugins = ["account", "exchange", "pages", "stacks"]

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "setupapidb.yml"
SEARCH = ROOT / "addons" / "search.yml"
NEVER_THROTTLED = {"RequestsPerSecond": "10000", "RequestBurst": "5000"}
RUN = f"apidb-test-{random.SystemRandom().randrange(16**6):06x}"  # begins the names of what this run makes
PATIENCE = {"engine": 60, "aws": 600}  # seconds until what must come has not come

# What a run on AWS sends and makes at most: more is refused, so that it costs no more than it has said.
MOST = {"requests": 10_000, "bytes": 60_000_000, "stacks": 30}
spent = dict.fromkeys(MOST, 0)


class Api:
    """A client of the API, with what every answer of it must be like.

    `origin` is what it must allow; `send` takes a method, a path below the stage, headers and a body, and
    returns an httpx.Response.
    """

    origin = "*"

    def __init__(self, send):
        self.send = send

    def __call__(self, method, path, body=None, headers=None):
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
    settings = {"TABLE": "links", "STACK": "store", "STACK_ID": "arn:aws:cloudformation:the-stack", "ACCESS": "open"}
    settings |= {"ALLOWED_ORIGIN": "*", "COUNT_VISITS": "true", "VERSION": "0.0.1", "ENDPOINT": "https://on.aws"}
    settings["LAMBDA"] = "https://lambda.on.aws"
    assert settings.keys() == function["Environment"]["Variables"].keys()
    with loading.loaded(settings) as both:
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
    with loading.table_of(plain(template), dynamodb, "links"):
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


class Stream:
    """The stream of the table `links` at the DynamoDB of a client of boto3."""

    def __init__(self, dynamodb):
        arn = dynamodb.describe_table(TableName="links")["Table"]["LatestStreamArn"]
        with mock.patch.dict(os.environ, {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}):
            region, url = dynamodb.meta.region_name, dynamodb.meta.endpoint_url
            self.client = boto3.client("dynamodbstreams", region, endpoint_url=url)
        (shard,) = self.client.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
        start = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        self.iterator = self.client.get_shard_iterator(**start)["ShardIterator"]

    def records(self):
        """Return the records that have come since this was last asked, as Lambda hands them over."""
        page = self.client.get_records(ShardIterator=self.iterator)
        self.iterator = page["NextShardIterator"]
        return json.loads(json.dumps([{"dynamodb": each["dynamodb"]} for each in page["Records"]], default=str))


class AddOn:
    """The add-on search as the store's function reaches it: by its questions in JSON; it `asked` these.

    `follow` hands it what the stream has, unless that is `stopped`. While it is `gone`, there is no such
    function, as moto says it. While there is a `failure`, that is raised if it is an exception, and answered if not.
    """

    def __init__(self, search, stream, http):
        self.search, self.stream, self.http = search, stream, http
        self.asked, self.gone, self.failure, self.stopped = [], False, None, False

    def send(self, request):
        self.asked.append(json.loads(request.body))
        if self.gone:
            return self.http.send(request)
        if isinstance(self.failure, Exception):
            raise self.failure
        if self.failure:
            return self.failure
        try:
            return httpx.Response(200, json=self.search.lambda_handler(self.asked[-1], None))
        except Exception as failure:  # which Lambda would say in its way, and the handler would read the links
            raise AssertionError("the add-on fails") from failure

    def follow(self):
        records = [] if self.stopped else self.stream.records()
        if records:
            self.search.lambda_handler({"Records": records}, None)


@pytest.fixture(scope="session")
def search_module(loaded):
    """The function of the add-on search as a module, on the handler's DynamoDB."""
    with mock.patch.dict(os.environ, {"INDEX": "index", "VISITS": "visits"}):
        return loading.module("search", index=loaded[0])


@pytest.fixture
def search(handler, search_module, dynamodb, monkeypatch):
    """The function of the add-on search on empty tables."""
    template, problems = decode(str(SEARCH))
    assert not problems
    monkeypatch.setattr(search_module, "made", False)
    with loading.table_of(plain(template), dynamodb, "index", "Index"):
        with loading.table_of(plain(template), dynamodb, "visits", "Visits"):
            yield search_module


@pytest.fixture
def addon(handler, search, dynamodb, monkeypatch):
    """The add-on search, which the handler asks, and which is there since the store is."""
    assert search.lambda_handler({"question": "made", "cursor": None}, None) is True
    addon = AddOn(search, Stream(dynamodb), handler.http_of_search())
    monkeypatch.setattr(handler, "absent_until", 0)
    monkeypatch.setattr(handler, "http_of_search", lambda: addon)
    return addon


@pytest.fixture
def events_api(handler):
    return Api(lambda *request: proxy_response(handler.lambda_handler(recorded(*request), None)))


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


def path_of_chromium():
    return needed("Chromium", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def chromium(kind, *more):
    """Start Chromium, which is Playwright's `kind`, with more options than the usual ones."""
    options = [f"--{option}" for option in (*CHROMIUM, *more)]
    return kind.launch(executable_path=path_of_chromium(), args=options)


@pytest.fixture(scope="module")
def browser():
    """A browser of a test module; its event loop must not outlive that."""
    expect.set_options(timeout=30_000)
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


def named(name):
    """Return the name of a stack, or of a user, of this run."""
    return f"{RUN}-{name}"


def eventually(condition, what="what is waited for"):
    """Return what condition() gives as soon as that is true; fail after a minute of other values, on AWS ten.

    On AWS much becomes so a moment later: keys, policies, deployments, indexes, logs, metrics.
    """
    end, pause = time.monotonic() + PATIENCE[eventually.on], 0.02
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} has not come"
        time.sleep(pause)
        pause = min(2 * pause, 5)
    return found


eventually.on = "engine"


@pytest.fixture(scope="session")
def engine(pytestconfig):
    """A local engine of this test run; with --on aws, in its place, the account, which has no process."""
    if pytestconfig.getoption("on") == "aws":
        eventually.on = "aws"
        settings = {"AWS_RETRY_MODE": "standard", "AWS_MAX_ATTEMPTS": "10"} | os.environ
        region = boto3.Session().region_name  # may be that of a profile
        yield local.Engine(None, settings | {"AWS_DEFAULT_REGION": region, "AWS_DEFAULT_OUTPUT": "json"})
        return
    with local.engine(free_port()) as running:
        yield running


def spend(engine, **more):
    """Count requests, bytes sent, stacks; on AWS fail at more than was agreed to."""
    for what, count in more.items():
        spent[what] += count
        assert engine.process or spent[what] <= MOST[what], f"a run was to have at most {MOST[what]:,} {what}"


@contextlib.contextmanager
def alone():
    """Keep the other worker of pytest from what needs all of the machine, while the block does."""
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def command_line(endpoint):
    """Return the AWS CLI for an endpoint. It runs in this process: to start it takes a hundred times as long as a call."""
    return create_clidriver()


def aws(engine, *arguments, fails=False):
    """Run the AWS CLI on the local engine, or on AWS; return what it printed, as JSON if it is.

    If it `fails`, which must be so, return what it complained of.
    """
    printed, said = io.StringIO(), io.StringIO()
    settings = engine.settings | {"AWS_DATA_PATH": os.environ["AWS_DATA_PATH"]}  # which awscli sets when it is imported
    with (
        mock.patch.dict(os.environ, settings, clear=True),
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(said),
    ):
        code = command_line(engine.settings.get("AWS_ENDPOINT_URL")).main([*map(str, arguments)])
    if code == 128 + signal.SIGINT:  # the CLI has taken Ctrl-C
        raise KeyboardInterrupt
    assert (code != 0) == fails, said.getvalue()
    if fails:
        return said.getvalue()
    return json.loads(printed.getvalue()) if printed.getvalue().strip() else None


@functools.cache
def session_of(endpoint, region):
    return boto3.Session(region_name=region)


def client(engine, service, kind="client"):
    """Return a client of boto3 for the engine, or for AWS; or with "resource" one of its resources."""
    with mock.patch.dict(os.environ, engine.settings, clear=True):
        session = session_of(engine.settings.get("AWS_ENDPOINT_URL"), region_of(engine))
        return getattr(session, kind)(service)


def region_of(engine):
    return engine.settings["AWS_DEFAULT_REGION"]


def settled(engine, name):
    """Return what CloudFormation says of a stack when nothing more happens to it."""

    def found():
        (there,) = aws(engine, *f"cloudformation describe-stacks --stack-name {name}".split())["Stacks"]
        return None if there["StackStatus"].endswith("_IN_PROGRESS") else there

    return eventually(found, f"the end of what happens to {name}")


def resource_ids(engine, stack):
    """Return the physical IDs of a stack's resources by logical ID."""
    listed = aws(engine, *f"cloudformation list-stack-resources --stack-name {stack}".split())
    return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in listed["StackResourceSummaries"]}


def create(engine, name, template, parameters):
    """Create a stack of a template as the README does, with these parameters."""
    spend(engine, stacks=1)
    # What is on AWS is found by its name when it has to go.
    assert engine.process or name == named(name.removeprefix(named(""))), name
    command = f"cloudformation create-stack --stack-name {name} --template-body file://{template}"
    given = [f"ParameterKey={key},ParameterValue={value}" for key, value in parameters.items()]
    more = ["--parameters", *given] if given else []
    aws(engine, *command.split(), "--capabilities", "CAPABILITY_NAMED_IAM", *more)
    assert settled(engine, name)["StackStatus"] == "CREATE_COMPLETE"


def update(engine, name, **parameters):
    """Update a stack's parameters, and wait for the end."""
    command = f"cloudformation update-stack --stack-name {name} --use-previous-template"
    given = [f"ParameterKey={key},ParameterValue={value}" for key, value in parameters.items()]
    aws(engine, *command.split(), "--capabilities", "CAPABILITY_NAMED_IAM", "--parameters", *given)
    assert settled(engine, name)["StackStatus"] == "UPDATE_COMPLETE"


def create_stack(engine, name, parameters=NEVER_THROTTLED):
    """Create a store with these parameters; return its APIUrl."""
    create(engine, name, "setupapidb.yml", parameters)
    return outputs(engine, name)["APIUrl"]


def delete_stack(engine, name):
    """Delete a stack, and wait until it is gone."""
    stack_id = settled(engine, name)["StackId"]
    aws(engine, *f"cloudformation delete-stack --stack-name {name}".split())
    assert settled(engine, stack_id)["StackStatus"] == "DELETE_COMPLETE"


def outputs(engine, name):
    return {each["OutputKey"]: each["OutputValue"] for each in settled(engine, name)["Outputs"]}


def key_of(engine, name):
    """Return the API key of a stack, as docs/access.md says how to read it."""
    key_id = outputs(engine, name)["ApiKeyId"]
    command = f"apigateway get-api-key --api-key {key_id} --include-value --query value"
    return aws(engine, *command.split())


def is_aws(engine):
    """Return whether this is AWS itself, and no engine, nor one in AWS's place."""
    return not engine.settings.get("AWS_ENDPOINT_URL", "").startswith("http://")


def reachable(engine, url):
    """Return where the URL of an output answers: on the engine at another host than on AWS."""
    return stack.reachable(url, engine.settings.get("AWS_ENDPOINT_URL", "https://"))


@contextlib.contextmanager
def http_api(engine, url):
    """Give an Api for the stack whose output APIUrl is this, by HTTP; its paths are below the stage.

    It is at `url` if the Host header is `host`; people know it as `stage`.
    """
    at = urlsplit(reachable(engine, url))
    path = "/" + at.path.split("/")[1]
    # Not every system resolves *.localhost for every client, so the host goes into the header.
    base = f"http://127.0.0.1:{at.port}{path}" if at.scheme == "http" else f"https://{at.netloc}{path}"
    # Fifty threads keep their connections: where some are closed, httpcore at times closes one in use.
    limits = httpx.Limits(max_keepalive_connections=50)
    with httpx.Client(headers={"Host": at.netloc}, timeout=60, trust_env=at.scheme == "https", limits=limits) as client:

        def send(method, path, headers, body):
            spend(engine, requests=1, bytes=len(body or ""))
            return client.request(method, base + path, headers=headers, content=body)

        api = Api(send if engine.process else after_the_indexes(send, engine, url))
        api.url, api.host, api.stage = base, at.netloc, f"{at.scheme}://{at.netloc}{path}"
        yield api


def after_the_indexes(send, engine, url):
    """Return a function that sends requests, but none that reads before the table's indexes have what was written.

    On AWS they follow the table a moment later, which tests of lists must not take for a mistake.
    """
    stacks = aws(engine, *"cloudformation describe-stacks".split())["Stacks"]
    urls = {there["StackName"]: stack.outputs_of(there).get("APIUrl") for there in stacks}
    (name,) = [name for name in urls if urls[name] == url]
    table = client(engine, "dynamodb", "resource").Table(resource_ids(engine, name)["Table"])
    indexes, written = table.global_secondary_indexes or [], False

    def items(**request):
        keys = [key["AttributeName"] for key in table.key_schema]
        return {tuple(item[key] for key in keys): item for item in items_of(table, **request)}

    def has_followed(index, stored):
        keys = {key["AttributeName"] for key in index["KeySchema"]}
        ought = {key: item for key, item in stored.items() if keys <= item.keys()}
        return items(IndexName=index["IndexName"]) == ought

    def have_followed():
        stored = items(ConsistentRead=True)
        return all(has_followed(index, stored) for index in indexes)

    def in_order(method, path, headers, body):
        nonlocal written
        reads = method in ("GET", "HEAD", "OPTIONS")
        if reads and written:
            eventually(have_followed, "what was written in the indexes")
            written = False
        answer = send(method, path, headers, body)
        written = written or not reads or path.startswith("/go/")  # which counts
        return answer

    return in_order


def items_of(table, **request):
    """Return all items of a boto3 Table, or of an index of it."""
    items, page = [], {"LastEvaluatedKey": None}
    while "LastEvaluatedKey" in page:
        start = page["LastEvaluatedKey"]
        page = table.scan(**request, **({"ExclusiveStartKey": start} if start else {}))
        items += page["Items"]
    return items


def emptied(table):
    """Delete all items of a boto3 Table."""
    keys = [key["AttributeName"] for key in table.key_schema]
    names = {f"#{name}": name for name in keys}
    with table.batch_writer() as batch:
        for item in items_of(
            table, ConsistentRead=True, ProjectionExpression=", ".join(names), ExpressionAttributeNames=names
        ):
            batch.delete_item(Key=item)


@pytest.fixture(scope="session")
def deployed(engine):
    """An Api for a stack, which `stack_api` empties for each test."""
    with http_api(engine, create_stack(engine, named("tests"))) as api:
        api.table = client(engine, "dynamodb", "resource").Table(resource_ids(engine, named("tests"))["Table"])
        yield api


@pytest.fixture
def stack_api(deployed):
    emptied(deployed.table)
    eventually(lambda: deployed.all() == [], "an empty list")
    return deployed


@pytest.fixture(params=["events", "stack"])
def api(request):
    return request.getfixturevalue(f"{request.param}_api")
