"""What the tests of import and export share: the program, the stores that it fills, and servers in the place of one."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import boto3
import pytest

from conftest import NEVER_THROTTLED, ROOT, Api, aws, create_stack, http_api, key_of

SAMPLES = "tests/bookmarks"
NO_URL = "link must be an absolute URL that starts with http:// or https://."
CONTROL = "link must not contain control characters or lone surrogates."
BLANK = "link must not contain white space or control characters; a space is %20."
NO_LIST = "it must be the URL at which an API lists its links."
FORMS = ("jsonl", "csv", "html")
BASE = "https://example.com/"


def command(action, *arguments):
    return [sys.executable, "scripts/links.py", action, *map(str, arguments)]


def run(*arguments, **environment):
    """Run the program; return its exit code, and what it printed to stdout and to stderr, as lists of lines.

    What it says of the kinds of links is left out; test_dialects.py looks at that.
    """
    environment = without_settings() | environment
    done = subprocess.run(command(*arguments), cwd=ROOT, env=environment, capture_output=True, encoding="utf-8")
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, without_kinds(done.stdout.splitlines()), done.stderr.splitlines()


def without_kinds(printed):
    """Return the lines without those on the kinds of links that are found, and what is not kept of these."""
    return [line for line in printed if not re.fullmatch(r"[\w ()]+, [\d,]+ links?|Not kept, .*", line)]


def without_settings():
    """Return the environment without what a person may have set for the program, or for AWS."""
    mine = ("API", "APIDB_KEY", "FILE", "SIGN")
    return {name: value for name, value in os.environ.items() if name not in mine and not name.startswith("AWS_")}


def aws_settings(engine):
    return {name: value for name, value in engine.settings.items() if name.startswith("AWS_")}


class Store:
    """The program and the API on an empty stack; `settings` is the environment that opens it."""

    def __init__(self, api, **settings):
        self.api, self.url, self.settings = api, f"http://{api.host}/prod/link", settings

    def takes(self, path, *arguments, added=0, there=0, refused=(), said=()):
        """Import a file, of which these must be the counts, and these the lines on what is refused, and else."""
        code, printed, problems = run("import", path, "--api", self.url, *arguments, **self.settings)
        assert problems == [f"{path}:{each}" for each in refused]
        assert printed == [*said, f"{added} added, {there} there already, {len(refused)} refused"]
        assert code == (1 if refused else 0)

    def reads(self, sample, added, refused=()):
        """Import a sample, of which a dry run must store nothing, and a second run nothing more."""
        path = f"{SAMPLES}/{sample}"
        would = f"{added} links to send, {len(refused)} refused"
        dry = run("import", path, "--dry-run", "--private")
        assert dry[1:] == ([would], [f"{path}:{each}" for each in refused])
        assert run("import", path, "--dry-run", "--private", "--api", self.url) == dry
        assert self.api.all() == []
        self.takes(path, "--private", added=added, refused=refused)
        before = self.api.all()
        self.takes(path, "--private", there=added, refused=refused)
        assert self.api.all() == before and len(before) == added

    def gives(self, path, count):
        """Export to a file, which must then be there, with this many links."""
        done = run("export", path, "--api", self.url, **self.settings)
        assert done == (0, [f"{count} links in {path}"], [])
        assert path.exists() and list(path.parent.glob("*.part")) == []

    def records(self, *but):
        """Return all records by link, without what each store makes itself, and without these fields."""
        return {
            each["link"]: {name: each[name] for name in each if name not in ("link_id", "link", "updated_at", *but)}
            for each in self.api.all("/link?limit=1000")
        }

    def clear(self):
        for record in self.api.all("/link?limit=1000"):
            assert self.api("DELETE", f"/link/{record['link_id']}").status_code == 204


@pytest.fixture
def store(stack_api):
    return Store(stack_api)


@contextlib.contextmanager
def server(answer, asked=None):
    """Run an HTTP server for which answer(method, path, body) gives (status, headers, body); give its API's URL.

    The headers of each request are added to the list `asked`.
    """
    asked = [] if asked is None else asked

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = answer(self.command, self.path, json.loads(body or "null"))
            with contextlib.suppress(ConnectionError):  # the program may be gone
                self.send_response(status)
                for name, value in {**headers, "Content-Length": len(body)}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

        do_POST = do_PUT = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}/prod/link"
        finally:
            running.shutdown()
            thread.join()


def error(sentence):
    return json.dumps({"Error": sentence, "Reference": "1"})


@pytest.fixture(scope="session")
def key_api(engine):
    """An Api that gives the key of its stack, `key`, with each request."""
    url, key = create_stack(engine, "key", NEVER_THROTTLED | {"Access": "key"}), key_of(engine, "key")
    with http_api(engine, url) as bare:
        api = Api(lambda method, path, headers, body: bare.send(method, path, headers | {"x-api-key": key}, body))
        api.host, api.key = bare.host, key
        yield api


@pytest.fixture
def locked(engine, key_api):
    """A Store whose API wants a key."""
    store = Store(key_api, APIDB_KEY=key_api.key, **aws_settings(engine))
    store.clear()
    return store


@pytest.fixture(scope="session")
def users(engine):
    """The settings of an IAM user who may call APIs, and of one who may not do anything."""
    given = {}
    for name, action in {"caller": "execute-api:Invoke", "nobody": "s3:GetObject"}.items():
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]}
        aws(engine, "iam", "create-user", "--user-name", name)
        policy = ["--policy-name", "it", "--policy-document", json.dumps(document)]
        aws(engine, "iam", "put-user-policy", "--user-name", name, *policy)
        key = aws(engine, "iam", "create-access-key", "--user-name", name)["AccessKey"]
        names = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        given[name] = aws_settings(engine) | names
    return SimpleNamespace(**given)


@pytest.fixture
def tutorial(engine):
    """A table as tutorials make it, with links on two pages of a Scan."""
    settings = engine.settings
    client = boto3.client(
        "dynamodb",
        endpoint_url=settings["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    names = {"link_id": "HASH", "link": "RANGE"}
    client.create_table(
        TableName="linkTable",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in names.items()],
    )
    for number in range(5):
        item = {"link_id": {"S": str(uuid.uuid4())}, "link": {"S": f"{BASE}{number}"}, "more": {"B": b"x" * 300_000}}
        client.put_item(TableName="linkTable", Item=item)
    client.put_item(TableName="linkTable", Item={"link_id": {"S": "sixth"}, "link": {"S": "example.com"}})
    client.put_item(TableName="linkTable", Item={"link_id": {"S": "again"}, "link": {"S": f"{BASE}1"}})
    assert "LastEvaluatedKey" in client.scan(TableName="linkTable")
    yield client
    client.delete_table(TableName="linkTable")


SAID = [
    {},
    {"title": "", "tags": [], "notes": ""},
    {"title": "<script>alert(1)</script>", "tags": ["<b>", "&amp;", '"quoted"', "it's"], "notes": "]]> --> <DT><A>"},
    {"title": "=cmd|' /C calc'!A0", "tags": ["=1+1", "+1"], "notes": "@SUM(A1)"},
    {"title": "'apostrophe", "tags": ["'"], "notes": "''two"},
    {"title": "-1", "tags": ["-", "a,b", 'c","d', "e\nf", "g\r\nh", " blank ", "\ttab"], "notes": "+1\r\n+2\n+3\r"},
    {"title": "\ttab first", "notes": "\r\nline first"},
    {"title": "\r", "notes": "\n"},
    {"title": "two  blanks and one after ", "notes": " before and after \n"},
    {"title": "\uff1d1 \uff0b \uff0d \uff20", "tags": ["\uff20", "\U0001f600"], "notes": "\uff0b1"},
    {
        "title": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u202e\u05d0\u05d1\u05d2 \u2028\u2029\x85\xa0",
        "notes": "\u2028",
    },
    {"title": BASE + "11", "notes": "The title is the link."},
    {"title": "&lt; &copy &copy; &#39; &amp;amp;", "tags": ["&lt", "a&b=c"], "notes": "&notit; &#0; AT&T"},
    {"visits": 0, "expires_at": "2099-12-31T23:59:59.000Z"},
    {"visits": 10**15, "visited_at": "2020-01-01T00:00:00.001Z", "created_at": "2019-12-31T23:59:59.999Z"},
    {"created_at": "1969-12-31T23:59:59.500Z", "title": "before the epoch"},
    {"created_at": "2001-09-09T01:46:40.000Z", "title": "whole seconds", "tags": ["a", "B", "a b"], "notes": "x\ny"},
    {"title": '{"json": "\\n"}', "tags": ["x" * 64] + [f"tag {number}" for number in range(31)]},
    {"title": "<![CDATA[ <!-- <style> <textarea> <plaintext>", "notes": "</DL></A><DD>" + "n" * 8000},
]
LINKS = {
    **{BASE + str(number): fields for number, fields in enumerate(SAID)},
    BASE + "?a=1&copy=2&lt;=3&quot;&#39;='\"<script>alert(1)</script>": {},
    "https://b\u00fccher.example/\u00e9\u05d0\U0001f600?q=\uff1d": {"title": "not ASCII"},
    (BASE + "long/").ljust(8192, "x"): {"title": "long"},
}
NAMES = {"g": BASE + "1", "With.All_of-them~": BASE + "named?a&b", "11111111": BASE + "2"}


@pytest.fixture
def hostile(store):
    """A store with all that may be in a record; its records by id, without updated_at."""
    for link, fields in LINKS.items():
        store.api.post(link, **fields)
    for name, link in NAMES.items():
        body = {"link": link, "title": f"{name} & more", "visits": 2}
        assert store.api("PUT", f"/link/{name}", body).status_code == 201
    return by_id(store)


def by_id(store):
    records = [each for page in store.api.pages("/link?limit=10") for each in page]
    for each in records:
        del each["updated_at"]
    return {each["link_id"]: each for each in records}


def record(number):
    time = "2020-01-01T00:00:00.000Z"
    return {"link_id": f"n{number}", "link": f"{BASE}{number}", "created_at": time, "updated_at": time}
