"""scripts/links.py as a person runs it: files of links in and out of the store."""

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import boto3
import pytest

import links
from conftest import NEVER_THROTTLED, ROOT, Api, aws, create_stack, free_port, http_api, key_of, resource_ids

SAMPLES = "tests/bookmarks"
NO_URL = "link must be an absolute URL that starts with http:// or https://."
NO_LIST = "it must be the URL at which an API lists its links."
FORMS = ("jsonl", "csv", "html")
BASE = "https://example.com/"


def command(action, *arguments):
    return [sys.executable, "scripts/links.py", action, *map(str, arguments)]


def run(*arguments, **environment):
    """Run the program; return its exit code, and what it printed to stdout and to stderr, as lists of lines."""
    environment = without_settings() | environment
    done = subprocess.run(command(*arguments), cwd=ROOT, env=environment, capture_output=True, encoding="utf-8")
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


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
        _, (would,), _ = run("import", path, "--dry-run")
        assert re.fullmatch(r"\d+ links to send, \d+ refused without asking the API", would)
        assert run("import", path, "--dry-run", "--api", self.url)[1] == [would]
        assert self.api.all() == []
        self.takes(path, added=added, refused=refused)
        before = self.api.all()
        self.takes(path, there=added, refused=refused)
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


# --- Import: the forms


def test_chrome(store):
    refused = [f"25: javascript:alert(1): {NO_URL}", f"26: chrome://settings/: {NO_URL}"]
    store.reads("chrome.html", added=5, refused=refused)
    records = store.records()
    assert records.pop("https://chrome.example/phone").pop("created_at") > "2026", "ADD_DATE is in the future"
    assert records.pop("https://chrome.example/untitled").keys() == {"created_at"}, "and its ADD_DATE is 0"
    assert records == {
        "https://chrome.example/news?a=1&copy=2&lang=en": {
            "title": "News & more",
            "created_at": "2020-09-13T12:26:41.000Z",
        },
        "https://chrome.example/bread": {
            "title": "Bread",
            "tags": ["Cooking", "Favorites"],
            "created_at": "2020-09-13T12:26:43.000Z",
        },
        "https://chrome.example/leek": {
            "title": "Leek <soup>",
            "tags": ["Cooking", "Soups, hot"],
            "created_at": "2020-09-13T12:26:45.000Z",
        },
    }


def test_firefox(store):
    refused = [f"12: place:sort=8&maxResults=10: {NO_URL}"]
    store.reads("firefox.html", added=4, refused=refused)
    assert store.records() == {
        "https://firefox.example/novel": {
            "title": "A novel",
            "tags": ["Reading", "fiction", "to read"],
            "notes": "Long, but good.\nIt has a second volume & a third.",
            "created_at": "2017-07-14T02:40:03.000Z",
        },
        "https://firefox.example/essay": {
            "title": "An essay",
            "tags": ["Reading"],
            "created_at": "2017-07-14T02:40:05.000Z",
        },
        "https://firefox.example/straße": {"title": "Straße", "created_at": "2017-07-14T02:40:09.000Z"},
        "https://firefox.example/loose": {"title": "Loose", "created_at": "2017-07-14T02:40:12.123Z"},
    }


def test_safari(store):
    store.reads("safari.html", added=4)
    assert store.records("created_at") == {
        "https://safari.example/one": {"title": "One"},
        "https://safari.example/two": {"title": "Two", "tags": ["Trips"]},
        "https://safari.example/three": {"title": "Three"},
        "https://safari.example/four": {"title": "Four", "tags": ["Reading List"]},
    }


def test_linkding(store):
    store.reads("linkding.html", added=2)
    assert store.records("created_at") == {
        "https://linkding.example/a": {"title": 'Title "A"', "tags": ["python", "web"], "notes": "Notes of A"},
        "https://linkding.example/b": {"title": "B"},
    }


def test_shaarli(store):
    store.reads("shaarli.html", added=2, refused=[f"13: /shaare/WDWyig: {NO_URL}"])
    assert store.records("created_at") == {
        "https://shaarli.example/first": {
            "title": "First",
            "tags": ["opensource", "software"],
            "notes": "One line,\n<b>and another</b>\nand a third",
        },
        "https://shaarli.example/last": {"title": "Last", "tags": ["secret"]},
    }


def test_pinboard(store):
    store.reads("pinboard.html", added=2)
    assert store.records("created_at") == {
        "https://pinboard.example/x": {"title": "X", "tags": ["to", "do"]},
        "https://pinboard.example/y": {"title": "Y", "notes": "Without an end of the A"},
    }


def test_a_list_of_urls_in_an_old_encoding(store):
    store.reads("list.txt", added=3, refused=[f"4: not a URL: {NO_URL}"])
    assert store.records("created_at") == {
        "https://list.example/a": {},
        "https://list.example/b": {},
        "https://list.example/café": {},
    }


def test_csv_of_a_person(store):
    store.reads("links.csv", added=3, refused=["5: link is missing."])
    assert store.records("created_at") == {
        "https://csv.example/a": {"title": "Apostrophes", "tags": ["one", "two words"]},
        "https://csv.example/b": {"title": "Two\nlines"},
        "https://csv.example/c": {"title": "=1+1", "tags": []},
    }


def test_json_lines_with_mistakes(store):
    refused = [
        "2: https://json.example/b: tags must be an array of at most 32 strings.",
        "3: This is not JSON; it is read again from line 6 on.",
        "6: 5: link must be a string.",
        "7: https://json.example/e: expires_at must be in the future.",
        "8: https://json.example/f: A name has 1 to 64 letters, digits and -._~, and one of the first two first.",
    ]
    store.reads("broken.jsonl", added=2, refused=refused)
    assert store.records("created_at") == {"https://json.example/a": {"title": "A"}, "https://json.example/g": {}}


def test_a_json_array(store):
    store.reads("array.json", added=2)
    (home,) = [each for each in store.api.all() if each["link_id"] == "home"]
    assert (home["link"], home["visits"]) == ("https://json.example/home", 7)
    assert home["created_at"] == "2020-02-02T02:02:02.002Z"


def test_what_curl_prints(store, tmp_path):
    for number in range(3):
        store.api.post(f"https://example.com/{number}", title=f"Number {number}")
    before, path = store.records(), tmp_path / "printed"
    path.write_bytes(store.api("GET", "/link").content)
    store.clear()
    store.takes(path, added=3)
    assert store.records() == before


def test_a_byte_order_mark_is_no_part_of_the_first_line(store, tmp_path):
    path = tmp_path / "list"
    path.write_text("https://example.com/é", encoding="utf-8-sig")
    store.takes(path, added=1)
    assert store.records("created_at") == {"https://example.com/é": {}}


def test_one_link_in_many_places_is_one(store, tmp_path):
    path, link = tmp_path / "links.jsonl", "https://example.com/a"
    lines = [{"tags": ["x"]}, {"title": "A", "tags": ["y", "x"], "notes": "N"}, {"title": "B", "visits": 2}]
    path.write_text("\n".join(json.dumps({"link": link, **each}) for each in lines))
    store.takes(path, added=1)
    assert store.records("created_at") == {link: {"tags": ["x", "y"], "title": "A", "notes": "N", "visits": 2}}


def test_a_title_edited_in_an_export_counts(store, tmp_path):
    path = tmp_path / "links.html"
    store.api.post("https://example.com/a", title="Old", visits=3)
    store.gives(path, 1)
    path.write_text(path.read_text().replace(">Old<", ">New<"))
    store.clear()
    store.takes(path, added=1)
    assert store.records("created_at") == {"https://example.com/a": {"title": "New", "visits": 3}}


def test_what_a_bookmark_says_of_itself_cannot_be_another_link_nor_write_to_the_terminal(store, tmp_path):
    path = tmp_path / "links.html"
    path.write_text(
        "<!DOCTYPE NETSCAPE-Bookmark-file-1><DL><p>\n"
        """<DT><A HREF="https://example.com/a" DATA-REST='{"link": "https://evil.example", "visits": 1}'>A</A>\n"""
        '<DT><A HREF="https://example.com/b" DATA-REST="[1]">B</A>\n'
        '<DT><A HREF="ftp://example.com/\x1b[31m">C</A>\n</DL>'
    )
    refused = ["3: DATA-REST is not a JSON object.", f"4: ftp://example.com/?[31m: {NO_URL}"]
    store.takes(path, added=1, refused=refused)
    assert store.records("created_at") == {"https://example.com/a": {"title": "A", "visits": 1}}


def test_a_name_that_is_taken(store, tmp_path):
    path = tmp_path / "links.jsonl"
    names = {name: f"https://example.com/{name}" for name in ("home", "free", "same")}
    path.write_text("\n".join(json.dumps({"link_id": name, "link": link}) for name, link in names.items()))
    for name, link in {"home": "https://example.com/theirs", "same": names["same"]}.items():
        assert store.api("PUT", f"/link/{name}", {"link": link}).status_code == 201
    refused = ["1: https://example.com/home: the name home is taken."]
    store.takes(path, added=1, there=1, refused=refused)
    assert store.records().keys() == {names["free"], names["same"], "https://example.com/theirs"}


@pytest.mark.parametrize("again", ["HTTPS://EXAMPLE.com:443/one", "https://example.com:443/one"])
def test_of_a_url_that_comes_twice_the_first_counts(store, tmp_path, again):
    path = tmp_path / "links.jsonl"
    lines = [{"link": "https://example.com/one", "title": "First"}, {"link": again, "title": "Second"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    store.takes(path, added=1)
    assert [record["title"] for record in store.records().values()] == ["First"]


def test_hundreds_of_links_at_once(store, tmp_path):
    path, links = tmp_path / "list.txt", [f"https://example.com/{number}" for number in range(300)]
    path.write_text("\n".join(["no URL", *links, "no URL either"]))
    refused = [f"1: no URL: {NO_URL}", f"302: no URL either: {NO_URL}"]
    store.takes(path, added=300, refused=refused)
    assert store.records().keys() == set(links)


# --- An API that wants a key, or a signature


@pytest.fixture(scope="module")
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


def test_a_key_opens_the_api(locked, tmp_path):
    path = tmp_path / "links.jsonl"
    path.write_text('{"link_id": "home", "link": "https://example.com/a"}\n{"link": "https://example.com/b"}')
    locked.takes(path, added=2)
    locked.takes(path, there=2)
    locked.gives(tmp_path / "out.csv", 2)


@pytest.mark.parametrize(
    "key, sentence",
    [
        (
            "",
            "The API at URL answered 403: API Gateway refused this: INVALID_API_KEY. It wants a key: .* export APIDB_KEY=.*",
        ),
        (
            "not-the-key-of-this-api",
            "The API at URL answered 403: API Gateway refused this: INVALID_API_KEY. It does not take the key .* APIDB_KEY.",
        ),
        ("secret\n", "APIDB_KEY has a blank or another character that no key has: .*"),
        ("two secrets", "APIDB_KEY has a blank or another character that no key has: .*"),
        ("sécret", "APIDB_KEY has a blank or another character that no key has: .*"),
    ],
)
def test_a_key_that_does_not_open_is_said_but_never_shown(locked, tmp_path, key, sentence):
    for action, file in ("import", f"{SAMPLES}/safari.html"), ("export", tmp_path / "links.csv"):
        code, printed, (said,) = run(action, file, "--api", locked.url, APIDB_KEY=key)
        assert (code, printed) == (2, []) and re.fullmatch(sentence, said.replace(locked.url, "URL"))
        assert not key or key.strip() not in said
    assert locked.api.all() == [] and list(tmp_path.iterdir()) == []


def test_key_and_signature_are_for_the_api_alone(locked, tmp_path):
    other, asked, path = [], [], tmp_path / "links.csv"
    with server(lambda *_: (200, {}, '["https://example.com/a"]'), other) as elsewhere:
        with server(lambda *_: (307, {"Location": elsewhere}, error("Moved.")), asked) as url:
            sentences = [f"The API at {url} answered 307: Moved."]
            assert run("export", path, "--api", url, "--sign", **locked.settings) == (2, [], sentences)
        assert other == [], "no redirect was followed"
        locked.takes(elsewhere, "--sign", added=1)
    (given,) = asked
    assert given["x-api-key"] == locked.api.key
    # API Gateway's answer to a wrong signature repeats the headers that were signed.
    signed = "accept;content-type;host;x-amz-date"
    assert f" SignedHeaders={signed}, " in given["Authorization"]
    assert [(each["x-api-key"], each["Authorization"], each["X-Amz-Date"]) for each in other] == [(None, None, None)]


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def iam_url(engine):
    """The URL of an API that wants a signature, which the engine checks, but for that of its root."""
    url = create_stack(engine, "iam", NEVER_THROTTLED | {"Access": "iam"})
    with http_api(engine, url) as api:
        return f"http://{api.host}/prod/link"


def test_a_signature_opens_the_api(iam_url, users, tmp_path):
    path, again = tmp_path / "links.jsonl", tmp_path / "again.jsonl"
    big = [{"link_id": f"n~{number}", "link": BASE, "notes": "é" * 8192} for number in range(70)]  # 2 pages
    path.write_text("\n".join(map(json.dumps, big)))
    make = ["make", "-s", "-o", ".venv/installed", f"bin={os.path.dirname(sys.executable)}", f"API={iam_url}"]
    for target, file, printed in (
        ("import", path, "70 added, 0 there already, 0 refused\n"),
        ("import", path, "0 added, 70 there already, 0 refused\n"),
        ("export", again, f"70 links in {again}\n"),
    ):
        command, settings = [*make, target, f"FILE={file}", "SIGN=1"], without_settings() | users.caller
        done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True)
        assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)
    ids = [json.loads(line)["link_id"] for line in again.read_text().splitlines()]
    assert sorted(ids) == sorted(each["link_id"] for each in big)


def test_a_signature_that_is_missing_or_wrong_is_said(iam_url, users, tmp_path):
    path, said = tmp_path / "links.csv", f"The API at {iam_url} answered 403: "
    sentence = said + "API Gateway refused this: MISSING_AUTHENTICATION_TOKEN. It wants signed requests: add SIGN=1, .*"
    code, _, problems = run("export", path, "--api", iam_url, APIDB_KEY="a-key")
    assert code == 2 and re.fullmatch(sentence, *problems)
    wrong = users.caller | {"AWS_SECRET_ACCESS_KEY": "wrong"}
    sentence = (
        said + "API Gateway refused this: [A-Z_]+. The AWS credentials must be those of .* may execute-api:Invoke it."
    )
    code, _, problems = run("export", path, "--api", iam_url, "--sign", **wrong)
    assert code == 2 and re.fullmatch(sentence, *problems)
    assert list(tmp_path.iterdir()) == []


def test_of_what_aws_says_of_a_wrong_signature_one_line_is_told(users, tmp_path):
    """AWS repeats the whole request in it, header by header."""
    told = "The request signature we calculated does not match.\n\nThe Canonical String was\n'GET\nhost:secret'"
    with server(lambda *_: (403, {}, error(told))) as url:
        code, _, (said,) = run("export", tmp_path / "links.csv", "--api", url, "--sign", **users.caller)
    assert code == 2 and "does not match. The AWS credentials must be" in said
    assert "Canonical" not in said and "secret" not in said


def test_a_signature_is_for_the_region_in_the_url(users, tmp_path):
    asked = []
    with server(lambda *_: (200, {}, "[]"), asked) as url:
        for given, region in (url, "us-east-1"), (f"{url}/x.execute-api.eu-west-3.amazonaws.com/link", "eu-west-3"):
            assert run("export", tmp_path / "links.csv", "--api", given, "--sign", **users.caller)[0] == 0
            assert f"/{region}/execute-api/aws4_request, " in asked[-1]["Authorization"]


# --- Import from a table, or from another API


def records_of(store):
    """Return all records of a store by id, without updated_at."""
    records = store.api.all("/link?limit=1000")
    return {each.pop("link_id"): {name: each[name] for name in each if name != "updated_at"} for each in records}


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


def not_kept(source):
    return f"The link_ids of {source} are not kept: each link gets the id that belongs to its URL."


def test_the_table_of_a_tutorial(locked, tutorial):
    source, refused = "dynamodb:linkTable", [f"sixth: example.com: {NO_URL}"]
    locked.takes(source, added=5, refused=refused, said=[not_kept(source)])
    locked.takes(source, there=5, refused=refused, said=[not_kept(source)])
    links = [f"{BASE}{number}" for number in range(5)]
    assert records_of(locked).keys() == {str(uuid.uuid5(uuid.NAMESPACE_URL, link)) for link in links}


def test_the_table_of_an_apidb_keeps_all(engine, store, hostile, locked):
    source = f"dynamodb:{resource_ids(engine, 'tests')['Table']}"
    locked.takes(source, added=len(hostile))
    locked.takes(source, there=len(hostile))
    assert records_of(locked) == records_of(store)


def test_another_apidb_keeps_all(store, hostile, locked):
    locked.takes(f"{store.url}?limit=7", added=len(hostile))
    assert records_of(locked) == records_of(store)


ITEM = {"link_id": "1f0c", "link": BASE + "a"}
TYPED = {"link_id": {"S": "1f0c"}, "link": {"S": BASE + "a"}, "title": {"NULL": True}, "tags": {"SS": ["t"]}}


@pytest.mark.parametrize(
    "value, dropped, fields",
    [
        ([ITEM], True, {}),
        ([TYPED], True, {"tags": ["t"]}),
        ({"Items": [ITEM], "Count": 1, "ScannedCount": 1}, True, {}),
        ({"Items": [TYPED | {"tags": {"L": [{"S": "u"}]}}]}, True, {"tags": ["u"]}),
        ({"statusCode": 200, "body": json.dumps({"Items": [ITEM]})}, True, {}),
        ({"statusCode": 200, "body": [TYPED | {"visits": {"N": "3"}}]}, True, {"tags": ["t"], "visits": 3}),
        (json.dumps([ITEM]), True, {}),
        ([BASE + "a"], False, {}),
    ],
)
def test_the_lists_of_tutorials(store, value, dropped, fields):
    with server(lambda *_: (200, {}, json.dumps(value))) as url:
        store.takes(url, added=1, said=[not_kept(url)] if dropped else [])
    assert store.records("created_at") == {BASE + "a": fields}


def test_what_cannot_be_taken_of_a_list_is_said(store):
    items = [ITEM, 5, {"link_id": "second"}, {"link": {"S": "ftp://example.com"}}, {"link": {"M": {}}}]
    with server(lambda *_: (200, {}, json.dumps({"Items": items, "LastEvaluatedKey": {"link_id": "x"}}))) as url:
        refused = [
            "2: This is not a JSON object.",
            "second: link is missing.",
            f"4: ftp://example.com: {NO_URL}",
            "5: link is missing.",
            "LastEvaluatedKey: The API does not list all links. Read its table instead: FILE=dynamodb:NAME",
        ]
        store.takes(url, added=1, refused=refused, said=[not_kept(url)])


@pytest.mark.parametrize(
    "status, body, sentence",
    [
        (200, "<html>", f"does not answer with JSON: {NO_LIST}"),
        (200, "[" * 9999, f"does not answer with JSON: {NO_LIST}"),
        (200, '{"body": "no"}', f"does not answer with JSON: {NO_LIST}"),
        (200, '{"message": "Hello"}', f"does not answer with a list: {NO_LIST}"),
        (200, "5", f"does not answer with a list: {NO_LIST}"),
        (302, "", f"answered 302 Found: {NO_LIST}"),
        (403, error("Forbidden"), "answered 403 Forbidden: export it to a file, and import that."),
    ],
)
def test_a_url_that_lists_no_links_is_said(status, body, sentence):
    with server(lambda *_: (status, {"Location": "/"}, body)) as url:
        assert run("import", url, "--dry-run") == (2, [], [f"{url} {sentence}"])


@pytest.mark.parametrize(
    "table, settings, sentence",
    [
        ("absent", {}, "There is no table absent in us-east-1. .*"),
        ("absent", {"AWS_DEFAULT_REGION": "eu-west-3"}, "There is no table absent in eu-west-3. .*"),
        ("a/b", {}, "The table a/b in us-east-1 cannot be read: ValidationException: .*"),
        ("", {}, "Which table? .*"),
        ("any", {"AWS_DEFAULT_REGION": ""}, "There is no AWS region. Set .*"),
        ("any", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "There are no AWS credentials. Set .*"),
        ("any", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "AWS cannot be asked: Could not connect .*127.0.0.1:1.*"),
        ("any", {"AWS_ENDPOINT_URL": "127.0.0.1:1"}, "AWS cannot be asked: Invalid endpoint: 127.0.0.1:1"),
        ("any", {"AWS_PROFILE": "absent"}, "AWS cannot be asked: The config profile .absent. could not be found"),
    ],
)
def test_a_table_that_cannot_be_read_is_said(engine, tmp_path, table, settings, sentence):
    # Neither a file of the person nor the metadata service of a cloud has credentials for this.
    given = aws_settings(engine) | {"AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1"} | settings
    environment = {name: value for name, value in given.items() if value}
    path = tmp_path / "links.jsonl"
    for arguments in ("import", f"dynamodb:{table}", "--dry-run"), ("export", path, "--api", f"dynamodb:{table}"):
        code, printed, (said,) = run(*arguments, **environment)
        assert (code, printed) == (2, []) and re.fullmatch(sentence.replace("?", "[?]"), said), said
    assert list(tmp_path.iterdir()) == []


def test_who_may_not_read_the_table_or_has_nothing_to_sign_with_is_told(engine, users, tutorial, tmp_path):
    code, _, (said,) = run("import", "dynamodb:linkTable", "--dry-run", **users.nobody)
    assert code == 2 and said.startswith("These AWS credentials may not read the table linkTable: User: arn:aws:iam:")
    arguments = ["export", tmp_path / "links.csv", "--api", "http://127.0.0.1:1/link", "--sign"]
    for missing, sentence in ("KEY", "are no AWS credentials"), ("REGION", "is no AWS region"):
        settings = {name: value for name, value in users.caller.items() if missing not in name}
        code, _, (said,) = run(*arguments, **settings, AWS_EC2_METADATA_DISABLED="true")
        assert code == 2 and said.startswith(f"There {sentence}. Set AWS_PROFILE"), said


# --- Export and import again

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


@pytest.mark.parametrize("form", FORMS)
def test_an_export_imported_again_gives_the_same_links(store, hostile, tmp_path, form):
    path, count = tmp_path / f"links.{form}", len(LINKS) + len(NAMES)
    assert len(hostile) == count
    store.gives(path, count)
    store.takes(path, there=count)
    store.clear()
    store.takes(path, added=count)
    assert by_id(store) == hostile


def test_json_lines_are_the_records(store, hostile, tmp_path):
    path = tmp_path / "links.jsonl"
    store.gives(path, len(hostile))
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    assert [json.loads(line) for line in lines] == store.api.all()


@pytest.mark.parametrize("form", FORMS)
def test_an_export_of_the_table_is_that_of_the_api(engine, store, hostile, tmp_path, form):
    by_api, by_table = tmp_path / f"api.{form}", tmp_path / f"table.{form}"
    store.gives(by_api, len(hostile))
    table = resource_ids(engine, "tests")["Table"]
    done = run("export", by_table, "--api", f"dynamodb:{table}", **aws_settings(engine))
    assert done == (0, [f"{len(hostile)} links in {by_table}"], [])
    if form == "jsonl":  # the table has no order
        assert sorted(by_table.read_text().splitlines()) == sorted(by_api.read_text().splitlines())
    store.takes(by_table, there=len(hostile))
    store.clear()
    store.takes(by_table, added=len(hostile))
    assert by_id(store) == hostile


def test_what_has_expired_is_in_no_export(engine, locked, tmp_path):
    path, table = tmp_path / "links.jsonl", resource_ids(engine, "key")["Table"]
    soon = datetime.now(timezone.utc) + timedelta(seconds=2)
    locked.api.post(BASE + "soon", expires_at=soon.isoformat())
    locked.api.post(BASE + "stays", expires_at="2099-12-31T23:59:59Z")
    while len(locked.api.all()) == 2:
        pass
    done = run("export", path, "--api", f"dynamodb:{table}", **locked.settings)
    assert done == (0, [f"1 links in {path}"], [])
    assert [json.loads(line) for line in path.read_text().splitlines()] == locked.api.all()
    locked.takes(f"dynamodb:{table}", there=1)


def test_a_table_is_read_as_it_is_now(engine, tutorial, monkeypatch):
    """The engine is never late, so the requests themselves are looked at."""
    for name, value in aws_settings(engine).items():
        monkeypatch.setenv(name, value)
    asked = []
    tutorial.meta.events.register("provide-client-params.dynamodb.Scan", lambda params, **_: asked.append(params))
    monkeypatch.setattr(boto3.Session, "client", lambda *_: tutorial)
    assert len(list(links.scan("linkTable"))) == 2
    assert [request["ConsistentRead"] for request in asked] == [True, True]


def test_another_script_can_export_a_table(engine, store, tutorial, tmp_path, monkeypatch):
    for name, value in aws_settings(engine).items():
        monkeypatch.setenv(name, value)
    table, path = resource_ids(engine, "tests")["Table"], tmp_path / "links.jsonl"
    record = store.api.post(BASE)
    assert links.export_table(table, path) == 1
    assert json.loads(path.read_text()) == record
    for wrong, other, sentence in (
        ("absent", path, "There is no table absent in us-east-1"),
        ("linkTable", path, "linkTable is no table of an apidb. To import one: make import FILE=dynamodb:linkTable "),
        (table, tmp_path / "links.xml", "links.xml must end in .jsonl"),
        (table, tmp_path / "no" / "links.csv", "links.csv.part: No such file or directory."),
    ):
        with pytest.raises(links.Stop, match=sentence):
            links.export_table(wrong, other)
    assert json.loads(path.read_text()) == record and list(tmp_path.iterdir()) == [path]


def test_no_cell_of_the_csv_is_a_formula(store, hostile, tmp_path):
    path = tmp_path / "links.csv"
    store.gives(path, len(hostile))
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file, strict=True)
    assert header[:4] == ["link_id", "link", "title", "tags"] and len(rows) == len(hostile)
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if re.match("[=+@\t\r\n\uff1d\uff0b\uff0d\uff20-]", cell)]
    assert {"'=cmd|' /C calc'!A0", "''apostrophe", "'-1", "'\ttab first", "'", "'''two"} <= set(cells)
    assert "<script>alert(1)</script>" in cells


def test_a_browser_reads_the_html(browser, store, hostile, tmp_path):
    path = tmp_path / "links.html"
    store.gives(path, len(hostile))
    with browser.new_page() as page:
        page.goto(path.as_uri())
        elements = page.evaluate("[...document.querySelectorAll('*')].map(each => each.localName)")
        links = page.evaluate("[...document.links].map(each => [each.getAttribute('href'), each.textContent])")
    assert set(elements) == {"html", "head", "meta", "title", "body", "h1", "dl", "p", "dt", "a", "dd"}
    assert [link for link, _ in links] == [each["link"] for each in store.api.all()]
    assert ["https://example.com/2", "<script>alert(1)</script>"] in links


# --- What goes wrong


@pytest.mark.parametrize("action", ["import", "export"])
def test_what_is_missing_is_said_with_an_example(action, tmp_path):
    path = tmp_path / "links.html"
    make = ["make", "-s", "-o", ".venv/installed", action, f"bin={os.path.dirname(sys.executable)}"]
    environment = without_settings()
    for given, asked in (["API=http://127.0.0.1:1/link"], "file"), ([f"FILE={path}"], "API"):
        done = subprocess.run(make + given, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith(f"Which {asked}? For example: make {action} FILE=")
        assert "Traceback" not in done.stderr


def test_make_passes_on_what_is_given(store, tmp_path):
    path = tmp_path / "with a blank.jsonl"
    make = ["make", "-s", "-o", ".venv/installed", f"bin={os.path.dirname(sys.executable)}", f"API={store.url}"]
    for target, printed in (
        (["import", f"FILE={SAMPLES}/safari.html", "DRY_RUN=1"], "4 links to send, 0 refused without asking the API\n"),
        (["import", f"FILE={SAMPLES}/safari.html"], "4 added, 0 there already, 0 refused\n"),
        (["export", f"FILE={path}"], f"4 links in {path}\n"),
    ):
        done = subprocess.run(make + target, cwd=ROOT, capture_output=True, text=True)
        assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)
    assert len(path.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["import", "absent.html"], "absent.html: No such file or directory."),
        (["import", "tests"], "tests: Is a directory."),
        (["import", "handler/page.html"], "handler/page.html is HTML, but not a bookmark file: .*"),
        (["export", "links.xml"], r"links.xml must end in .jsonl, .csv or .html, .*"),
        (["export", "no/folder.csv"], "no/folder.csv.part: No such file or directory."),
    ],
)
def test_a_mistake_is_a_sentence(arguments, sentence):
    code, printed, (said,) = run(*arguments, API="http://127.0.0.1:1/link")
    assert (code, printed) == (2, []) and re.fullmatch(sentence, said)


def test_csv_without_links_is_not_a_list_of_urls(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("url,title\nhttps://example.com,A\n")
    assert run("import", path, "--dry-run") == (2, [], [f"{path} has no column named link in its first row."])


def test_a_wrong_url_of_the_api_is_said(stack_api, tmp_path):
    stage = f"http://{stack_api.host}/prod/"
    code, _, (sentence,) = run("export", tmp_path / "links.csv", "--api", stage)
    assert code == 2 and "is not a link store" in sentence and "ends in /link" in sentence
    code, _, (sentence,) = run("import", f"{SAMPLES}/safari.html", "--api", stage)
    assert code == 2 and sentence.startswith(f"{stage} is not the URL of an API") and "it ends in /link" in sentence
    code, _, (sentence,) = run("export", tmp_path / "links.csv", "--api", "ftp://example.com")
    assert (code, sentence) == (2, "The API must be a URL that starts with http:// or https://, not ftp://example.com")
    assert list(tmp_path.iterdir()) == []


def test_an_api_out_of_reach_is_said():
    url = f"http://127.0.0.1:{free_port()}/prod/link"
    code, printed, problems = run("import", f"{SAMPLES}/safari.html", API=url)
    assert (code, printed, len(problems)) == (2, [], 1)
    assert problems[0].startswith(f"The API at {url} cannot be reached: ")


def test_a_name_is_there_already_however_its_url_is_written(store, tmp_path):
    path = tmp_path / "named.jsonl"
    path.write_text('{"link_id": "docs", "link": "HTTPS://Example.com/"}\n')
    store.takes(path, added=1)
    store.takes(path, there=1)


def test_a_url_with_and_without_a_slash_is_one_link(store, tmp_path):
    path = tmp_path / "two.html"
    entry = '<DT><H3>{0}</H3><DL><p><DT><A HREF="https://{1}">T</A></DL><p>'
    path.write_text(
        "<!DOCTYPE NETSCAPE-Bookmark-file-1><DL><p>" + entry.format("X", "A.example/") + entry.format("Y", "a.example")
    )
    store.takes(path, added=1)
    (record,) = store.api.all()
    assert (record["link"], record["tags"]) == ("https://a.example", ["X", "Y"])


@pytest.mark.parametrize("status", [401, 500])
def test_an_api_that_does_not_work_stops_it(status):
    with server(lambda *_: (status, {}, error("No\x1b[31m."))) as url:
        code, printed, problems = run("import", f"{SAMPLES}/safari.html", "--api", url)
    assert (code, printed) == (2, []) and problems == [f"The API at {url} answered {status}: No?[31m."]


@pytest.mark.parametrize(
    "status, headers, body",
    [
        (429, {"Retry-After": "1"}, error("Too many requests.")),
        (503, {"Retry-After": "1"}, error("Busy.")),
        (503, {}, error("Busy.")),
        (503, {}, "<h1>Busy</h1>"),
    ],
)
def test_a_busy_api_is_asked_again(tmp_path, status, headers, body):
    path, asked = tmp_path / "links.jsonl", []
    path.write_text(f'{{"link": "{BASE}1"}}\n{{"link": "{BASE}2", "link_id": "two"}}\n')

    def answer(*request):
        asked.append(request)
        if asked.count(request) < 3:
            return status, headers, body
        return (200, {}, json.dumps([record(1)])) if request[0] == "GET" else (201, {}, json.dumps(request[2]))

    with server(answer) as url:
        assert run("import", path, "--api", url) == (0, ["2 added, 0 there already, 0 refused"], [])
        assert run("export", path, "--api", url) == (0, [f"1 links in {path}"], [])
        assert run("import", url, "--api", url) == (0, ["1 added, 0 there already, 0 refused"], [])
    made = [(method, path.removeprefix("/prod")) for method, path, _ in asked]
    expected = [
        ("POST", "/link"),
        ("PUT", "/link/two"),
        ("PUT", "/link/n1"),
        ("GET", "/link?limit=1000"),
        ("GET", "/link"),
    ]
    assert {each: made.count(each) for each in made} == dict.fromkeys(expected, 3)


@pytest.mark.parametrize(
    "body, sentence", [(error("Busy."), "Busy."), ("", "It is busy or down; try again later.")], ids=["JSON", "empty"]
)
def test_an_api_that_stays_busy_ends_an_import_which_says_what_is_left(tmp_path, body, sentence):
    path, asked = tmp_path / "links.jsonl", []
    path.write_text("".join(json.dumps({"link": f"{BASE}{number}"}) + "\n" for number in range(20)))

    def answer(method, _, given):
        asked.append(given["link"])
        if given["link"] != f"{BASE}7":
            return 201, {}, json.dumps(given)
        return 503, {}, body

    # It asks thirty times, which is minutes.
    program = "import links; links.RETRY = links.RETRY.new(status=3); links.main()"
    with server(answer) as url:
        done = subprocess.run(
            [sys.executable, "-c", program, "import", path, "--api", url],
            cwd=ROOT / "scripts",
            env=without_settings(),
            capture_output=True,
            text=True,
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"Not complete: 7 added, 0 there already, 0 refused; 13 left, from {path}:8 on. Run it again to go on.",
        f"The API at {url} answered 503: {sentence}",
    ]
    assert asked.count(f"{BASE}7") == 4


@pytest.mark.parametrize(
    "body, sentence",
    [
        (error("The body may have 262,144 bytes."), "The body may have 262,144 bytes."),
        ('{"message": "Request Too Long"}', links.TOO_LARGE),
        ("<h1>413</h1>", links.TOO_LARGE),
        ("", links.TOO_LARGE),
        ("null", links.TOO_LARGE),
    ],
)
def test_what_is_too_large_is_refused_and_the_import_goes_on(tmp_path, body, sentence):
    path = tmp_path / "links.jsonl"
    given = [{"link": BASE}, {"link": f"{BASE}2", "notes": "n" * 300_000}, {"link": f"{BASE}3"}]
    given += [{"link_id": "four", "link": f"{BASE}4", "notes": "n" * 300_000}, {"link_id": "five", "link": f"{BASE}5"}]
    path.write_text("".join(json.dumps(each) + "\n" for each in given))

    def answer(_, __, given):
        return (413, {"Retry-After": "1"}, body) if "notes" in given else (201, {}, json.dumps(given))

    with server(answer) as url:
        code, printed, problems = run("import", path, "--api", url)
    assert (code, printed) == (1, ["3 added, 0 there already, 2 refused"])
    assert problems == [f"{path}:2: {BASE}2: {sentence}", f"{path}:4: {BASE}4: {sentence}"]


def test_a_name_whose_first_answer_was_lost_is_there(tmp_path):
    path, stored = tmp_path / "links.jsonl", []
    path.write_text('{"link_id": "a", "link": "https://example.com/a"}')

    def answer(method, path, body):
        if method == "GET":
            return 200, {}, json.dumps(stored[0])
        stored.append(body)
        return (502 if len(stored) == 1 else 412), {}, error("There is a link with this name.")

    with server(answer) as url:
        assert run("import", path, "--api", url) == (0, ["0 added, 1 there already, 0 refused"], [])


def record(number):
    time = "2020-01-01T00:00:00.000Z"
    return {"link_id": f"n{number}", "link": f"{BASE}{number}", "created_at": time, "updated_at": time}


@pytest.mark.parametrize("form", FORMS)
def test_pages_may_be_short_or_empty_and_an_export_that_breaks_leaves_the_file_of_before(tmp_path, form):
    path, pages = tmp_path / f"links.{form}", [[record(1), record(2)], [], [record(3)]]

    def answer(method, path, body):
        number = int(path.rpartition("page=")[2]) if "page=" in path else 0
        if number == len(pages):
            return 500, {}, error("Broken.")
        more = {"Link": f'<http://elsewhere.example/link?page={number + 1}>; rel="next"'}
        return 200, more if number + 1 < len(pages) or broken else {}, json.dumps(pages[number])

    broken = False
    with server(answer) as url:
        assert run("export", path, "--api", url) == (0, [f"3 links in {path}"], [])
        before = path.read_bytes()
        broken = True
        assert run("export", path, "--api", url) == (2, [], [f"The API at {url} answered 500: Broken."])
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("action", ["import", "export"])
def test_ctrl_c_says_how_far_it_is(tmp_path, action):
    waiting, over, file = threading.Event(), threading.Event(), tmp_path / "links.jsonl"
    if action == "import":
        file.write_text("".join(json.dumps({"link": f"{BASE}{number}"}) + "\n" for number in range(20)))

    def answer(method, path, body):
        if path.endswith("link?limit=1000"):
            return 200, {"Link": '</link?page=2>; rel="next"'}, json.dumps([record(1)])
        if body == {"link": f"{BASE}0"}:
            return 201, {}, json.dumps(body)
        waiting.set()
        over.wait(30)
        return 500, {}, error("Too late.")

    with server(answer) as url:
        program = subprocess.Popen(
            command(action, file, "--api", url), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            assert waiting.wait(30)
            program.send_signal(signal.SIGINT)
            printed, problems = program.communicate(timeout=30)
        finally:
            over.set()
            program.kill()
            program.communicate()
    assert (program.returncode, printed) == (130, "")
    if action == "import":
        assert re.fullmatch("(Not complete: 1 added, .*\n)?Interrupted.\n", problems)
    else:
        assert (problems, list(tmp_path.iterdir())) == ("Interrupted.\n", [])
