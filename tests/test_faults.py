"""Faults between the handler and DynamoDB: nothing acknowledged is lost, nothing is stored twice.

`pytest -s tests/test_faults.py` prints what happened.
"""

import contextlib
import io
import json
import random
import socket
from collections import Counter

import boto3
import botocore.exceptions
import pytest
import yaml
from botocore.httpsession import URLLib3Session

import loading
from conftest import ROOT, Api, plain, proxy_response, recorded
from faults import WIRE, proxy

SEED = 5
REQUESTS = 2500
# The handler waits 2 s for an answer; to the client each of these looks like that, at once.
TIMEOUTS = ("no answer, not done", "no answer, done")
LINKS = [f"https://example.com/{n}" for n in range(30)] + [f"https://example.com/{n:01200}" for n in range(10)]
NAMES = [f"name-{n}" for n in range(20)]


class Faults:
    """Lets requests of the handler to DynamoDB fail, at random from a seed; they count in `injected`.

    Faults come in bursts, so that now and then all attempts of a call fail.
    """

    def __init__(self, http, seed):
        self.random, self.injected, self.rate = random.Random(seed), Counter(), 0
        self.send, self.active = http.send, True

    def before_send(self, request):
        if not self.active:
            return
        if self.random.random() < 0.1:
            self.rate = self.random.choice((0, 0.2, 0.9))
        if self.random.random() >= self.rate:
            return
        fault = self.random.choice((*WIRE, *TIMEOUTS))
        self.injected[fault] += 1
        if fault in WIRE:
            request.headers["X-Fault"] = fault
            return
        if fault == "no answer, done":
            self.send(request)
        raise botocore.exceptions.ReadTimeoutError(endpoint_url=request.url)


class Client:
    """A client that sends again on 503, and knows what it was told; `links` has that by id.

    Each entry has what was last acknowledged, and the least and most visits there can be.
    """

    def __init__(self, api, documented, log):
        self.api, self.documented, self.log = api, documented, log
        self.links, self.etags, self.visits, self.deleted = {}, {}, {}, set()
        self.counts = Counter()

    def send(self, method, path, body=None, headers={}):
        """Return the answer that is no 503, and how many were."""
        for busy in range(100):
            self.counts["requests"] += 1
            answer = self.api(method, path, body, headers)
            route = "/" + path.split("?")[0].split("/")[1]
            route += "/{link_id}" if path.count("/") > 1 else ""
            assert str(answer.status_code) in self.documented[route][method.lower()]["responses"], answer.text
            assert answer.status_code != 500, self.log.getvalue().splitlines()[-1]
            if answer.status_code != 503:
                self.counts["acknowledged"] += 1
                return answer, busy
        raise AssertionError("always 503")

    def learn(self, link_id, answer, sent, visits=None):
        """Take over what an answer acknowledges: all that was sent, and nothing else."""
        record = answer.json()
        said = {name: value for name, value in record.items() if name in ("link", "title", "tags", "notes")}
        assert (record["link_id"], said) == (link_id, sent)
        self.links[link_id], self.etags[link_id] = sent, answer.headers["ETag"]
        if visits is not None:
            self.visits[link_id] = visits

    def post(self, link_id, sent):
        answer, busy = self.send("POST", "/link", sent)
        if link_id in self.links:
            assert answer.status_code == 200
            self.learn(link_id, answer, self.links[link_id])
        else:
            # An attempt that got 503 may have stored it.
            assert answer.status_code == 201 or (busy and answer.status_code == 200)
            self.learn(link_id, answer, sent, visits=[0, 0])

    def put(self, link_id, sent):
        answer, busy = self.send("PUT", f"/link/{link_id}", sent)
        there = link_id in self.links
        assert answer.status_code == (200 if there or busy and answer.status_code == 200 else 201)
        self.learn(link_id, answer, sent, visits=None if there else [0, 0])

    def put_new(self, link_id, sent):
        answer, busy = self.send("PUT", f"/link/{link_id}", sent, {"If-None-Match": "*"})
        if link_id in self.links:
            assert answer.status_code == 412
        elif answer.status_code == 412:
            assert busy, "only its own attempt can have stored it"
            self.learn(link_id, self.send("GET", f"/link/{link_id}")[0], sent, visits=[0, 0])
        else:
            assert answer.status_code == 201
            self.learn(link_id, answer, sent, visits=[0, 0])

    def patch(self, link_id, sent, guarded):
        headers = {"If-Match": self.etags.get(link_id, '"none"')} if guarded else {}
        changes = {name: sent.get(name) for name in ("title", "tags", "notes")}
        answer, busy = self.send("PATCH", f"/link/{link_id}", changes, headers)
        if link_id not in self.links:
            assert answer.status_code == 404
            return
        if answer.status_code == 412:
            assert guarded and busy, "only its own attempt can have changed it"
            answer, _ = self.send("GET", f"/link/{link_id}")
        assert answer.status_code == 200
        self.learn(link_id, answer, sent | {"link": self.links[link_id]["link"]})

    def delete(self, link_id):
        answer, busy = self.send("DELETE", f"/link/{link_id}")
        there = link_id in self.links
        assert answer.status_code == (204 if there and not (busy and answer.status_code == 404) else 404)
        for known in (self.links, self.etags, self.visits):
            known.pop(link_id, None)
        if there:
            self.deleted.add(link_id)

    def go(self, link_id):
        answer, busy = self.send("GET", f"/go/{link_id}")
        if link_id in self.links:
            assert (answer.status_code, answer.headers["Location"]) == (302, self.links[link_id]["link"])
            self.visits[link_id][0] += 1
            self.visits[link_id][1] += 1 + busy
        else:
            assert answer.status_code == (410 if link_id in self.deleted & set(NAMES) else 404)

    def get(self, link_id):
        answer, _ = self.send("GET", f"/link/{link_id}")
        if link_id in self.links:
            assert (answer.status_code, answer.headers["ETag"]) == (200, self.etags[link_id])
            self.learn(link_id, answer, self.links[link_id])
            least, most = self.visits[link_id]
            assert least <= answer.json().get("visits", 0) <= most
        else:
            assert answer.status_code == 404

    def list(self):
        """Walk through all pages; return the records."""
        records, path = [], "/link?limit=15"
        while path:
            answer, _ = self.send("GET", path)
            records += answer.json()
            path = answer.links.get("next", {}).get("url", "").partition("/prod")[2]
        found = {record["link_id"]: record["link"] for record in records}
        assert len(found) == len(records)
        assert found == {link_id: sent["link"] for link_id, sent in self.links.items()}
        return records


@pytest.fixture
def table(template, handler, engine, monkeypatch):
    """A table on the engine, which the handler reaches through the proxy only; gives a client of the engine."""
    settings = {name.lower(): value for name, value in engine.settings.items()}
    names = ("aws_access_key_id", "aws_secret_access_key")
    keys = {name: settings[name] for name in names} | {"region_name": settings["aws_default_region"]}
    with contextlib.closing(boto3.client("dynamodb", endpoint_url=settings["aws_endpoint_url"], **keys)) as direct:
        with loading.table_of(plain(template), direct, "links"), proxy(settings["aws_endpoint_url"]) as url:
            monkeypatch.setattr(handler, "ENDPOINT", url)
            yield direct


@pytest.fixture
def waits(monkeypatch):
    """The seconds that the handler would wait before it asks again; it does at once."""
    seconds = []
    monkeypatch.setattr("time.sleep", seconds.append)
    return seconds


def test_what_was_acknowledged_is_there_once_whatever_fails(handler, table, on_the_way, waits):
    documented = yaml.safe_load((ROOT / "openapi.yml").read_text())["paths"]
    log = io.StringIO()

    def send(*request):
        with contextlib.redirect_stdout(log):
            return proxy_response(handler.lambda_handler(recorded(*request), None))

    client, chance = Client(Api(send), documented, log), random.Random(SEED)
    faults = Faults(handler.http, SEED)
    on_the_way(faults.before_send)
    posted = {handler.link_id_of(link): link for link in LINKS}
    while client.counts["requests"] < REQUESTS:
        number = client.counts["requests"]
        sent = {"title": f"title {number}"} if chance.random() < 0.8 else {"notes": f"{number}", "tags": ["a", "b"]}
        link_id = chance.choice(list(posted))
        name = chance.choice([*posted, *NAMES])
        elsewhere = {"link": posted.get(name) or chance.choice(LINKS), **sent}
        kind = chance.choices(
            ("post", "put", "put_new", "patch", "guarded", "delete", "go", "get", "list"),
            (20, 12, 8, 12, 8, 10, 18, 10, 2),
        )[0]
        if kind == "post":
            client.post(link_id, {"link": posted[link_id], **sent})
        elif kind in ("put", "put_new"):
            getattr(client, kind)(name, elsewhere)
        elif kind in ("patch", "guarded"):
            client.patch(name, sent, kind == "guarded")
        elif kind == "list":
            client.list()
        else:
            getattr(client, kind)(name)
    faults.active = False
    records = {record["link_id"]: record for record in client.list()}
    items = [item for item in table.scan(TableName="links")["Items"] if "deleted_at" not in item]
    lost = [link_id for link_id in client.links if link_id not in records]
    doubled = len(items) - len({item["link_id"]["S"] for item in items})
    for link_id in client.links:
        client.get(link_id)

    counted = sum(record.get("visits", 0) for record in records.values())
    rows = {
        "requests": client.counts["requests"],
        "acknowledged": client.counts["acknowledged"],
        "answered 503": client.counts["requests"] - client.counts["acknowledged"],
        "links at the end": len(items),
        "acknowledged and lost": len(lost),
        "stored twice": doubled,
        "visits acknowledged, of these links": sum(least for least, _ in client.visits.values()),
        "visits counted": counted,
        "visits sent": sum(most for _, most in client.visits.values()),
        "faults": faults.injected.total(),
    } | {f"- {fault}": faults.injected[fault] for fault in (*WIRE, *TIMEOUTS)}
    print("", *(f"{label:<36}{count:>6,}" for label, count in rows.items()), sep="\n")
    assert (lost, doubled) == ([], 0)
    assert {item["link_id"]["S"] for item in items} == client.links.keys()
    assert min(faults.injected[fault] for fault in (*WIRE, *TIMEOUTS)) > 50, "each kind was tried"
    assert client.counts["requests"] - client.counts["acknowledged"] > 100, "at times all attempts failed"


# --- Time limits

LINK = {"link": "https://example.com/1"}
CALLS = [
    ("GET", "/link", None),
    ("GET", "/link?q=words", None),
    ("GET", "/link/docs", None),
    ("GET", "/go/docs", None),
    ("GET", "/tags", None),
    ("GET", "/feed", None),
    ("GET", "/health", None),
    ("POST", "/link", LINK),
    ("PUT", "/link/docs", LINK),
    ("PATCH", "/link/docs", {"title": "T"}),
    ("DELETE", "/link/docs", None),
]


def by_name(request):
    return f"{request[0]} {request[1]}"


def answer_to(handler, request):
    method, path, body = request
    return proxy_response(handler.lambda_handler(recorded(method, path, {}, body and json.dumps(body)), None))


@pytest.mark.parametrize("request_", CALLS, ids=by_name)
def test_a_table_that_never_answers_is_given_up(handler, monkeypatch, waits, request_):
    """The stub takes connections, and says nothing; the time limit is a hundredth of what it is."""
    with socket.create_server(("127.0.0.1", 0)) as stub:
        session = URLLib3Session(timeout=(handler.CONNECT, handler.READ / 100))
        monkeypatch.setattr(handler, "ENDPOINT", f"http://127.0.0.1:{stub.getsockname()[1]}")
        monkeypatch.setattr(handler, "http", session)
        assert answer_to(handler, request_).status_code == 503
        session.close()
    assert len(waits) == 2, "three attempts"


@pytest.mark.parametrize("request_", CALLS, ids=by_name)
def test_the_slowest_request_ends_before_the_function_must(handler, template, monkeypatch, on_the_way, waits, request_):
    """The worst is a call that succeeds at its last attempt, and then one that does not."""
    attempts, calls, call = [], [], handler.call
    answer_to(handler, ("PUT", "/link/docs", LINK))

    def slow(request):
        attempts.append(request)
        if len(attempts) != 3:
            raise botocore.exceptions.ReadTimeoutError(endpoint_url=request.url)

    on_the_way(slow)
    monkeypatch.setattr(handler, "call", lambda *given, **more: calls.append(given) or call(*given, **more))
    answer = answer_to(handler, request_)
    assert (answer.status_code == 503) == (len(calls) == 2)
    assert len(calls) * handler.DEADLINE < template["Resources"]["Function"]["Properties"]["Timeout"] < 29
