"""Print what requests read and cost when there are 100, 10 thousand and 1 million links, in Markdown.

The handler itself answers the requests. What it asks of an index, or a scan of
a table, is answered by arithmetic, as no emulator holds a million links in a reasonable
time; what it asks by an id, moto answers. The add-on search answers too, by an index that
is arithmetic.
"""

import argparse
import contextlib
import io
import itertools
import json
import sys
import time
import tomllib
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from math import ceil
from pathlib import Path
from unittest import mock
from urllib.parse import urlencode

import boto3
from botocore.awsrequest import AWSResponse
from cfnlint.decode import decode

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import billing  # noqa: E402 these are in scripts/
import cost  # noqa: E402
import loading  # noqa: E402

COUNTS = (100, 10_000, 1_000_000)
FOUND = 1000  # links that have the tag, and the word, that are looked for
START = datetime(2026, 1, 1, tzinfo=timezone.utc)  # of the first link; the others follow, one each millisecond

# What one partition takes a second, in units, and what an account has by default; docs/scale.md has the sources.
PARTITION_READS, PARTITION_WRITES = 3000, 1000
API_REQUESTS = 10_000  # a second, of API Gateway
FUNCTIONS = 1000  # at once, of Lambda, each of up to 10 requests a second


@dataclass
class Kind(billing.Kind):
    """What AWS bills of a request of one kind, and what that asks of DynamoDB."""

    links: int = 0  # that are stored
    bytes: int = 0  # that are read
    busiest: float = 0  # share of a second of the index partition that it uses most


# --- The links, by arithmetic


class Store:
    """Answers queries of an index, and scans, by DynamoDB's rules, as a table of `count` links would.

    `make` returns the item of a number; numbers are in the order of time, all
    items have as many bytes, and a URL ends in its number.
    """

    def __init__(self, make):
        self.count, self.make = 0, make
        self.most = billing.MB // billing.item_bytes(make(0))  # that a call reads

    def behind(self, index, search):
        """Let it answer what the handler asks of an index, and the add-on search of its own and of links by id."""
        self.search, call = search, index.call

        def answer(operation, values=None, **request):
            if "IndexName" in request:
                page = self.page(request)
            elif operation == "Query" and request.get("TableName") == search.INDEX:
                page = self.entries(search.END, values, request)
            elif operation == "BatchGetItem":
                ((table, asked),) = request["RequestItems"].items()
                links = [self.make(number_of(key)) for key in asked["Keys"]]
                page = {"Responses": {table: links}, "UnprocessedKeys": {}}
            else:
                return call(operation, values, **request)
            return json.loads(json.dumps(page), object_hook=index.decode)

        index.call = answer

    def scanned_by(self, client):
        """Let it answer a client's scans."""

        def answer(params, **_):
            return AWSResponse(None, 200, {}, None), self.page(json.loads(params["body"]))

        client.meta.events.register("before-call.dynamodb.Scan", answer)

    def entries(self, end, values, asked):
        """Return a page of the entries of a term, which FOUND links have that are spread over all."""
        numbers = range(self.count)[:: -max(self.count // FOUND, 1)][:FOUND]
        if "ExclusiveStartKey" in asked:
            created_at = asked["ExclusiveStartKey"]["place"]["S"].split(end)[-1].split(" ")[0]
            number = round((datetime.fromisoformat(created_at) - START) / timedelta(milliseconds=1))
            numbers = numbers[numbers.index(number) + 1 :]
        items, word = [], values["word"] + end if "word" in values else ""
        for number in numbers[: asked["Limit"]]:
            link = self.make(number)
            place = {"S": f"{word}{link['created_at']['S']} {link['link_id']['S']}"}
            items.append({"term": {"S": values["term"]}, "place": place, "link": link["link"]})
        return {"Items": items, **({"LastEvaluatedKey": items[-1]} if len(items) < len(numbers) else {})}

    def page(self, asked):
        whole = asked.get("KeyConditionExpression", "#owner = :owner") == "#owner = :owner"
        if not whole or "FilterExpression" in asked:
            sys.exit("bench/grow.py does not know what is read for such a query; add it to Store.")
        numbers = range(self.count)[:: 1 if asked.get("ScanIndexForward", True) else -1]
        if "ExclusiveStartKey" in asked:
            numbers = numbers[numbers.index(number_of(asked["ExclusiveStartKey"])) + 1 :]
        items = [self.make(number) for number in numbers[: min(self.most, asked.get("Limit", self.most))]]
        last = {"LastEvaluatedKey": items[-1]} if len(items) < len(numbers) else {}  # with more than a key
        return {"Items": items, **last}


def number_of(item):
    return int(item["link"]["S"][-60:])


def maker(index, client):
    """Return a function that makes the item of a number as the handler stores it; all have the tags of the first."""
    send(index, "POST", "/link", cost.record(0))
    stored = client.scan(TableName=index.TABLE)["Items"][0]

    def make(number):
        given = cost.record(number)
        when = {"S": index.rfc3339(START + timedelta(milliseconds=number))}
        link, title = given["link"], {"S": given["title"]}
        keys = {"link_id": {"S": index.link_id_of(link)}, "link": {"S": link}, "created_at": when}
        return {**stored, **keys, "updated_at": when, "title": title}

    return make


def textbook(number):
    """Return an item of 200 bytes, of an id and a URL, as tutorials store a link."""
    link = f"https://example.com/{number:0133}"
    return {"link_id": {"S": str(uuid.UUID(int=number))}, "link": {"S": link}}


# --- What is measured


class Meter(billing.Meter):
    """Counts also the bytes that are read, and what the busiest partition of an index has to do."""

    def read(self, values, request):
        reads = self.kind.reads
        answer = super().read(values, request)
        self.kind.bytes += sum(billing.item_bytes(self.index.encode_all(item)) for item in answer["Items"])
        if "IndexName" in request or "TableName" in request:
            self.kind.busiest += (self.kind.reads - reads) / PARTITION_READS
        return answer

    def get(self, request):
        answer = super().get(request)
        ((links),) = answer["Responses"].values()
        self.kind.bytes += sum(billing.item_bytes(self.index.encode_all(link)) for link in links)
        return answer

    def write(self, operation, values, request):
        old = self.item(request)
        answer = super().write(operation, values, request)
        new = self.item(request)
        units = max(billing.units_of_write(old, new, [key]) for key in self.indexes[self.index.TABLE])
        self.kind.busiest += (units - billing.units_of_write(old, new, [])) / PARTITION_WRITES
        return answer


def send(index, method, path, body=None):
    """Return the handler's answer to a request, and what it logged. cost.CostError if it is an error."""
    with contextlib.redirect_stdout(io.StringIO()) as log:
        answer = index.lambda_handler(loading.event_of(method, path, body), None)
    if answer["statusCode"] >= 400:
        raise cost.CostError(f"{method} {path} failed: {answer['body']}")
    return answer, log.getvalue()


WITH_SEARCH = ", with the add-on"  # ends the name of a request that the add-on search answers


def requests(index, store, count):
    """Yield the kinds of requests of a store of `count` links: name, method, path, body."""
    one, new = store.make(count // 2), cost.record(count)
    link_id, link = one["link_id"]["S"], one["link"]["S"]
    middle = index.cursor_of([one["created_at"]["S"], link_id, link], "created_at")
    yield "`GET /link`, the newest 100", "GET", "/link", None
    yield "`GET /link?cursor=`, 100 from the middle on", "GET", f"/link?cursor={middle}", None
    yield "`GET /link/{link_id}`", "GET", f"/link/{link_id}", None
    yield "`GET /link?link=URL`", "GET", "/link?" + urlencode({"link": link}), None
    yield "`GET /link?q=`, one request", "GET", "/link?q=nothing", None
    yield f"`GET /link?tag=`, 100 of {FOUND:,}{WITH_SEARCH}", "GET", "/link?tag=topic-00", None
    yield f"`GET /link?q=`, 100 of {FOUND:,}{WITH_SEARCH}", "GET", "/link?q=example", None
    yield "`POST /link`", "POST", "/link", new
    yield "`PATCH /link/{link_id}`", "PATCH", f"/link/{link_id}", {"title": new["title"]}
    yield "`GET /go/{link_id}`, counted", "GET", f"/go/{link_id}", None


def searching(index, store, meter):
    """Return a context in which the handler has the add-on search."""
    return mock.patch.object(index, "ask_addon", loading.asker(store.search, meter))


def measured(index, store, meter, count):
    """Return the kinds of requests to the handler, measured on `count` links."""
    store.count, kinds = count, []
    meter.client.put_item(TableName=index.TABLE, Item=store.make(count // 2))  # which is asked for by its id
    for name, *request in requests(index, store, count):
        meter.kind = Kind(name, links=count)
        with searching(index, store, meter) if name.endswith(WITH_SEARCH) else contextlib.nullcontext():
            answer, log = send(index, *request)
        headers = "".join(f"{name}: {value}\r\n" for name, value in answer["headers"].items())
        meter.kind.out, meter.kind.log = len((headers + answer["body"]).encode()), len(log.encode())
        kinds.append(meter.kind)
    meter.kind = None
    return kinds


def textbook_client():
    """Return a client of DynamoDB as tutorials make it; a Store has to answer it."""
    return boto3.client("dynamodb", "us-east-1", aws_access_key_id="test", aws_secret_access_key="test")


def scanned(client, count):
    """Return the kinds of listing by scan: one call, as tutorials do it, and all that it takes."""
    store = Store(textbook)
    store.scanned_by(client)
    store.count, kinds = count, []
    pages = client.get_paginator("scan").paginate(TableName="textbook")
    first = itertools.islice(pages, 1)
    for name, some in (("Textbook: `table.scan()`", first), ("Textbook, all its pages", pages)):
        kinds.append(kind := Kind(name, links=count))
        for page in some:
            items = page["Items"]
            size = len(items) * billing.item_bytes(items[0])
            kind.calls, kind.items, kind.bytes = kind.calls + 1, kind.items + len(items), kind.bytes + size
            kind.reads += ceil(size / 4096) / 2  # eventually consistent, as in billing.Meter
            kind.out += len(items) * len(json.dumps({name: each["S"] for name, each in items[0].items()}) + ", ")
    return kinds


def following(answer):
    """Return the path of the next page, None if there is none."""
    link = answer["headers"].get("Link")
    return link and "/" + link.split(">")[0].split("/", 4)[4]


def walk(index, store, count):
    """Return how many pages of 1,000 have `count` links. cost.CostError if one is missing, doubled or misplaced."""
    store.count, path, pages, left = count, "/link?limit=1000", 0, count
    while path:
        answer, _ = send(index, "GET", path)
        for record in json.loads(answer["body"]):
            left -= 1
            if int(record["title"]) != left:
                raise cost.CostError(f"Link {left} should come, and {int(record['title'])} came.")
        path, pages = following(answer), pages + 1
    if left:
        raise cost.CostError(f"{left} links are missing.")
    return pages


# --- The report


def grown(kinds, prices):
    """Return a table of what requests read and cost, given their kinds."""
    head = ("A request", "Links", "Calls", "Items read", "Bytes read", "Read units", "Write units", "USD a million")
    rows = [head]
    for kind in kinds:
        read = f"{kind.all('items'):,}", f"{kind.all('bytes'):,}", f"{kind.all('reads'):,g}"
        usd = cost.usd(prices.each(kind) * 1_000_000)
        rows.append((kind.name, f"{kind.links:,}", kind.all("calls"), *read, kind.writes, usd))
    return cost.table(*rows)


def searched(kind, prices):
    """Return a table of what a search of all links takes, given the kind of request that searches 1 MB."""
    rows = [("A search of all", "Requests", "Read units", "Seconds, assumed", "USD a thousand")]
    for count in (1000, 10_000, 100_000, 1_000_000):
        parts = count / kind.items
        usd = cost.usd(prices.each(kind) * parts * 1000)
        seconds = f"{prices.seconds(kind) * parts:.1f}"
        rows.append((f"{count:,} links", ceil(parts), f"{kind.reads * parts:,.0f}", seconds, usd))
    return cost.table(*rows)


def limits(kinds, prices):
    """Return a table of how many requests a second each part takes by itself, given their kinds."""
    at_once = f"Lambda, {FUNCTIONS:,} at once, ms assumed"
    rows = [("Requests a second", "Partitions of the indexes", at_once, "API Gateway")]
    for kind in kinds:
        index = f"{1 / kind.all('busiest'):,.0f}" if kind.all("busiest") else "not used"
        seconds = prices.seconds(kind) + (prices.seconds(kind.addon) if kind.addon else 0)
        functions = min(FUNCTIONS / seconds, 10 * FUNCTIONS / kind.all("invocations"))
        rows.append((kind.name, index, f"{functions:,.0f}", f"{API_REQUESTS:,}"))
    return cost.table(*rows)


def found(index, store, meter, count, query):
    """Return how many requests find all FOUND links of `count` by the add-on search, and their read units.

    cost.CostError if one is missing, doubled or misplaced.
    """
    store.count, requests, numbers, path = count, 0, [], f"/link?{query}"
    meter.kind = kind = Kind(query, links=count)
    with searching(index, store, meter):
        while path:
            answer, _ = send(index, "GET", path)
            numbers += [int(record["title"]) for record in json.loads(answer["body"])]
            path, requests = following(answer), requests + 1
    meter.kind = None
    if len(numbers) != FOUND or numbers != sorted(set(numbers), reverse=True):
        raise cost.CostError(f"{len(set(numbers))} of {FOUND} links are found by {query}, or not in order.")
    return requests, kind.all("reads")


def compared(stores, search):
    """Return a table of how all links of a tag or a word are found, given the kind of request that searches 1 MB."""
    head = (f"All {FOUND:,} links with", "Of links", "Requests, by reading", "Read units")
    rows = [(*head, "Requests, with the add-on", "Read units")]
    for what, query in (("a tag", "tag=topic-00"), ("a word", "q=example")):
        for count in COUNTS[1:]:
            parts = count / search.items
            requests, units = found(*stores, count, query)
            rows.append((what, f"{count:,}", ceil(parts), f"{search.reads * parts:,.0f}", requests, f"{units:g}"))
    return cost.table(*rows)


@contextlib.contextmanager
def stores(template):
    """Give the handler, a Store of its links, and a Meter of what it asks."""
    # A clock by which each request takes as long, so that the line in the log always has as many bytes.
    clock = mock.patch("time.perf_counter", itertools.count(step=0.0123).__next__)
    with (
        clock,
        loading.handler(template) as (index, client),
        loading.addon(index, client) as (search, tables),
    ):
        store = Store(maker(index, client))
        store.behind(index, search)
        yield index, store, Meter(index, client, {index.TABLE: template["Resources"]["Table"]["Properties"]} | tables)


def report(template, data):
    """Return the tables, given the template and prices.toml's content."""
    prices = cost.Prices(data, template)
    with stores(template) as all_of:
        by_count = [measured(*all_of, count) for count in COUNTS]
        search = next(kind for kind in by_count[-1] if "?q=" in kind.name)
        finds = compared(all_of, search)
        scans = [scanned(textbook_client(), count) for count in COUNTS]
    kinds = itertools.chain(*zip(*by_count), *zip(*scans))
    return "\n\n".join([grown(kinds, prices), finds, searched(search, prices), limits(by_count[-1], prices)])


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    template, _ = decode(str(ROOT / "setupapidb.yml"))
    print(report(template, tomllib.loads((ROOT / "scripts" / "prices.toml").read_text())))
    with stores(template) as (index, store, _):
        start = time.monotonic()
        pages = walk(index, store, COUNTS[-1])
        seconds = time.monotonic() - start
    print(f"\n{pages:,} pages of 1,000 have all {COUNTS[-1]:,} links, each once, newest first.")
    print(f"Reading them took {seconds:.0f} s here, which says nothing of AWS.")


if __name__ == "__main__":
    main()
