"""Print what the stack costs on AWS, in Markdown for docs/cost.md.

Prices and assumptions are data, in prices.toml. All else is measured: the
handler answers requests of each kind on moto's DynamoDB, and what AWS bills
of that is counted by AWS's rules.
"""

import argparse
import contextlib
import importlib.util
import io
import itertools
import json
import logging
import os
import sys
import textwrap
import tomllib
import uuid
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import boto3
from botocore.httpsession import URLLib3Session
from cfnlint.decode import decode
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).parent.parent
MB, GB = 2**20, 2**30
HOURS = 730  # of a month
STORE_URL = "https://a1b2c3d4e5.execute-api.us-east-1.amazonaws.com/prod/link"
EVENT = json.loads((ROOT / "tests" / "events" / "get.json").read_text())  # a recorded one


class CostError(Exception):
    """Why there is no figure, as a sentence for the person who runs the command."""


@dataclass
class Kind:
    """What AWS bills of a request of one kind."""

    name: str
    api: int = 1  # requests that API Gateway bills
    answers: int = 1  # that leave AWS
    invocations: int = 1
    calls: int = 0  # of DynamoDB
    items: int = 0  # that these read
    reads: float = 0  # read request units
    writes: int = 0  # write request units
    out: int = 0  # bytes of the answer
    log: int = 0  # bytes of the line in the log
    stored: int = 0  # bytes of the item that is written
    metrics: set = field(default_factory=set)  # that CloudWatch makes of it


# --- DynamoDB's rules

# They are in these pages of https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/:
# CapacityUnitCalculations.html (sizes; 100 bytes more an item in storage), read-write-operations.html
# (units), GSI.html (writes to an index), PointInTimeRecovery_Howitworks.html (billed without the indexes).


def value_bytes(attribute):
    ((kind, value),) = attribute.items()
    if kind == "L":
        return 3 + sum(1 + value_bytes(each) for each in value)
    return len(value.encode()) if kind == "S" else ceil(len(value.strip("0")) / 2) + 1


def item_bytes(item):
    return sum(len(name.encode()) + value_bytes(value) for name, value in item.items())


def write_units(size):
    return ceil(size / 1024)


def units_of_write(before, after, indexes):
    """Return the write units of a write, given the item before and after it, {} for none.

    An index with all attributes is written whenever an item is that has its
    key; if the key changes it takes two writes, a deletion and a put, and one
    if the item comes into it or leaves it. `indexes` has the names of each
    one's key attributes.
    """
    units = max(write_units(max(item_bytes(before), item_bytes(after))), 1)
    for key in indexes:
        old, new = (item_bytes(item) if set(key) <= item.keys() else 0 for item in (before, after))
        moved = old and new and any(before[name] != after[name] for name in key)
        units += write_units(old) + write_units(new) if moved else write_units(max(old, new))
    return units


class Meter:
    """Count in `kind`, unless it is None, what DynamoDB bills of the calls that the handler makes to its tables.

    `resources` has the tables of the template. A client of its own looks at
    items, so that looking is not counted.
    """

    def __init__(self, index, client, resources):
        self.kind, self.client, self.index = None, client, index
        self.changes = []  # of the table of links, as its stream tells them
        self.keys, self.indexes = {}, {}
        for logical, name in (("Table", index.TABLE), ("Index", index.INDEX)):
            table = resources[logical]["Properties"]
            self.keys[name], *self.indexes[name] = (
                [each["AttributeName"] for each in schema["KeySchema"]]
                for schema in [table, *table.get("GlobalSecondaryIndexes", [])]
            )
        self.call, index.call = index.call, self.counted

    def item(self, request):
        given, name = request.get("Key") or request["Item"], request.get("TableName", self.index.TABLE)
        key = {part: given[part] for part in self.keys[name]}
        return self.client.get_item(TableName=name, Key=key).get("Item", {})

    def counted(self, operation, values=None, **request):
        """Do a call of the handler's, and count it."""
        if not self.kind:
            return self.call(operation, values, **request)
        self.kind.calls += 1
        if operation == "Query":
            return self.read(values, request)
        if operation == "BatchGetItem":
            return self.get(request)
        if operation in ("PutItem", "UpdateItem", "DeleteItem"):
            return self.write(operation, values, request)
        if operation == "TransactWriteItems":
            return self.transact(request)
        sys.exit(f"scripts/cost.py does not know what DynamoDB bills for {operation}; add it to Meter.")

    def get(self, request):
        """Each item is read by itself, eventually consistent; billed are whole items, so let it return them."""
        ((name, asked),) = request["RequestItems"].items()
        answer = self.call("BatchGetItem", RequestItems={name: {"Keys": asked["Keys"]}})
        items = list(map(self.index.encode_all, answer["Responses"][name]))
        self.kind.items += len(items)
        self.kind.reads += sum(ceil(item_bytes(item) / 4096) / 2 for item in items)
        return answer

    def transact(self, request):
        """Each item of a transaction is written twice."""
        writes = [each for action in request["TransactItems"] for each in action.values()]
        before = list(map(self.item, writes))
        answer = self.call("TransactWriteItems", **request)
        after = map(self.item, writes)
        self.kind.writes += 2 * sum(units_of_write(old, new, []) for old, new in zip(before, after))
        return answer

    def read(self, values, request):
        if request.pop("ProjectionExpression", None):  # billed are whole items, so let it return them
            names, used = request["ExpressionAttributeNames"], request["KeyConditionExpression"].split()
            request["ExpressionAttributeNames"] = {name: names[name] for name in names if name in used}
        answer = self.call("Query", values, **request)
        items = list(map(self.index.encode_all, answer["Items"]))
        # DynamoDB reads up to 1 MB; moto ends a page a little before.
        full = "LastEvaluatedKey" in answer and len(items) < request.get("Limit", MB)
        units = max(ceil((MB if full else sum(map(item_bytes, items))) / 4096), 1)
        self.kind.items += len(items)
        self.kind.reads += units if request.get("ConsistentRead") else units / 2
        return answer

    def write(self, operation, values, request):
        before, name = self.item(request), request.get("TableName", self.index.TABLE)
        answer = self.call(operation, values, **request)
        if "__type" in answer:
            # A condition that failed costs what the item takes that is there, or the new one if larger.
            self.kind.writes += write_units(max(item_bytes(before), item_bytes(request.get("Item", {})), 1))
        else:
            after = self.item(request)
            if name == self.index.TABLE:
                self.kind.stored = item_bytes(after)
                images = {"OldImage": before, "NewImage": after}
                self.changes.append({"dynamodb": {image: item for image, item in images.items() if item}})
            self.kind.writes += units_of_write(before, after, self.indexes[name])
        return answer


FOLLOWED = ", followed"  # ends the name of a kind of what follows a request by the stream

# --- The requests


def record(number):
    """Return a typical link: a URL of 80 characters, a title of 60, three tags of 8."""
    tags = [f"topic-{(number + each) % 50:02}" for each in range(3)]
    return {"link": f"https://example.com/{number:060}", "title": f"{number:060}", "tags": tags}


def largest(number):
    """Return a link that is as large as one can be, in characters of four bytes."""
    tags = [chr(0x1F600 + each) + "\U0001f600" * 63 for each in range(32)]
    link = f"https://example.com/{number:08172}"
    return {"link": link, "title": "\U0001f600" * 512, "tags": tags, "notes": "\U0001f600" * 8192}


def module(name):
    """Return a source of handler/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "handler" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@contextlib.contextmanager
def loaded(settings):
    """Give the handler as a module that has these settings, and a client of its DynamoDB, moto's server in a thread."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line a request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    aws = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ENDPOINT_URL": url}
    aws |= {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
    try:
        with mock.patch.dict(os.environ, settings | aws, clear=True):
            index = module("index")
            client = boto3.client("dynamodb")
        # moto takes seconds to search a megabyte.
        index.http = URLLib3Session(timeout=60, socket_options=index.at_once)
        with contextlib.closing(client):
            yield index, client
    finally:
        server.stop()


SHAPE = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")


@contextlib.contextmanager
def tables_of(template, client, index):
    """Let there be the empty tables of the handler, of the template's shape, while the block runs."""
    stream = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    for logical, name in (("Table", index.TABLE), ("Index", index.INDEX)):
        properties = template["Resources"][logical]["Properties"]
        shape = {part: properties[part] for part in SHAPE if part in properties}
        client.create_table(TableName=name, **shape, StreamSpecification=stream)
    index.made = False
    try:
        yield
    finally:
        for name in (index.TABLE, index.INDEX):
            client.delete_table(TableName=name)


@contextlib.contextmanager
def handler(template):
    """Give the handler with the template's settings, on an empty table, and a client of its DynamoDB."""
    settings, parameters = {}, template["Parameters"]
    variables = template["Resources"]["Function"]["Properties"]["Environment"]["Variables"]
    for name, value in variables.items():  # plain ones, parameters, and what only AWS knows
        parameter = parameters.get(value.get("Ref")) if isinstance(value, dict) else {"Default": value}
        settings[name] = str(parameter["Default"]) if parameter else name
    settings |= {name: uuid.uuid4().hex for name in ("TABLE", "INDEX")}  # all of moto's servers share their tables
    with loaded(settings) as (index, client), tables_of(template, client, index):
        index.index_is_made()  # as at a cold start
        yield index, client


def event_of(method, path, body):
    parts = urlsplit(path)
    proxy = parts.path.strip("/")
    context = EVENT["requestContext"] | {"httpMethod": method, "path": "/prod" + parts.path}
    return EVENT | {
        "resource": "/{proxy+}" if proxy else "/",
        "path": parts.path,
        "httpMethod": method,
        "requestContext": context,
        "pathParameters": {"proxy": proxy} if proxy else None,
        "multiValueQueryStringParameters": parse_qs(parts.query) or None,
        "body": body and json.dumps(body),
    }


def measured(template):
    """Return the kinds of requests, by a short name, as the handler of the template answers them.

    CostError if it answers one with an error.
    """
    # What API Gateway answers by itself; prices.toml has AWS's words on what it does not bill.
    kinds = {
        "refused": Kind("Refused by API Gateway: throttled, or without a valid key", api=0, invocations=0),
    }
    # A clock by which each request takes 12.3 ms, so that the line in the log always has as many bytes.
    clock = mock.patch("time.perf_counter", itertools.count(step=0.0123).__next__)
    with handler(template) as (index, client), clock:

        def send(method, path, body=None, kind=None, source=index):
            meter.kind = kind
            with contextlib.redirect_stdout(io.StringIO()) as log:
                answer = source.lambda_handler(event_of(method, path, body), None)
            if answer["statusCode"] >= 400:
                raise CostError(f"{method} {path} failed: {answer['body']}Change what scripts/cost.py sends.")
            return answer, log.getvalue().splitlines()

        def measure(name, label, method, path, body=None, source=index):
            kinds[name] = kind = Kind(label)
            answer, lines = send(method, path, body, kind, source)
            headers = "".join(f"{name}: {value}\r\n" for name, value in answer["headers"].items())
            kind.out = len((headers + answer["body"]).encode())
            kind.log = sum(len(line.encode()) for line in lines)
            kind.metrics = set().union(*map(metrics_of, lines))
            changes, meter.changes = meter.changes, []
            if changes:
                meter.kind = kinds[name + FOLLOWED] = Kind(f"... what follows {label}", api=0, answers=0)
                index.lambda_handler({"Records": changes}, None)
                meter.changes = []  # such as a total of visits, which nothing follows

        def store(numbers):
            for number in numbers:
                send("POST", "/link", record(number))

        def store_in_index(number):
            given = record(number) | {"tags": ["found"]}
            send("POST", "/link", given, Kind("not measured"))
            changes, meter.changes = meter.changes, []
            index.lambda_handler({"Records": changes}, None)

        meter = Meter(index, client, template["Resources"])
        store(range(150))
        one = index.link_id_of(record(0)["link"])
        measure("new", "`POST /link`, a new link", "POST", "/link", record(150))
        measure("there", "`POST /link`, one that is there", "POST", "/link", record(0))
        measure("list", "`GET /link`, 100 links", "GET", "/link")
        measure("get", "`GET /link/{link_id}`", "GET", f"/link/{one}")
        measure("go", "`GET /go/{link_id}`, counted", "GET", f"/go/{one}")
        index.COUNT_VISITS = False
        measure("uncounted", "`GET /go/{link_id}`, not counted", "GET", f"/go/{one}")
        measure("patch", "`PATCH /link/{link_id}`", "PATCH", f"/link/{one}", {"title": "Another"})
        measure("delete", "`DELETE /link/{link_id}`", "DELETE", f"/link/{one}")
        measure("options", "`OPTIONS`, a preflight", "OPTIONS", "/link")
        measure("index", "`GET /`, the index", "GET", "/")
        with mock.patch.dict(os.environ, {"STORE_URL": STORE_URL}):
            measure("page", "The page of `addons/page.yml`", "GET", "/", source=module("page"))
        measure("health", "`GET /health`", "GET", "/health")
        for number in range(25):  # more than 1 MB
            send("PUT", f"/link/largest-{number}", largest(number))
        other = largest(25)
        measure("put", "`PUT /link/{link_id}`, another for the largest record", "PUT", "/link/largest-0", other)
        measure("largest", "`GET /link`, 1 MB of the largest records", "GET", "/link")
        store(range(200, 1300))
        for number in range(5000, 5101):
            store_in_index(number)
        measure("tags", "`GET /tags`, all", "GET", "/tags")
        measure("by_tag", "`GET /link?tag=`, 100 links", "GET", "/link?tag=found")
        measure("by_word", "`GET /link?q=`, 100 links", "GET", "/link?q=example")
        store(range(1300, 3500))  # more than 1 MB
        measure("search", "`GET /link?q=` of two letters, 1 MB read", "GET", "/link?q=no")
    return kinds


def metrics_of(line):
    """Return the metrics that CloudWatch makes of a line of the log (embedded metric format)."""
    record = json.loads(line)
    return {
        (each["Namespace"], metric["Name"], *((name, record[name]) for name in dimensions))
        for each in record.get("_aws", {}).get("CloudWatchMetrics", [])
        for dimensions in each["Dimensions"]
        for metric in each["Metrics"]
    }


# --- What it costs


class Prices:
    """What things cost in USD, by the prices and assumptions of prices.toml and the template's defaults."""

    def __init__(self, data, template):
        resources = template["Resources"]
        default = {name: each.get("Default") for name, each in template["Parameters"].items()}
        self.of = {name: each["usd"] / each["per"] for name, each in data["price"].items()}
        self.assumed = data["assumed"]
        self.memory = resources["Function"]["Properties"]["MemorySize"]
        self.log_months = default["LogRetentionInDays"] * 24 / HOURS
        self.rate, self.burst = default["RequestsPerSecond"], default["RequestBurst"]
        self.indexes = len(resources["Table"]["Properties"]["GlobalSecondaryIndexes"])

    def seconds(self, kind):
        """Return how long the function is assumed to take; Lambda bills whole milliseconds."""
        assumed = self.assumed
        ms = assumed["request_ms"] + kind.calls * assumed["call_ms"]
        ms += kind.items * assumed["item_ms"] + kind.out / 1024 * assumed["out_kb_ms"]
        return kind.invocations * ceil(ms) / 1000

    def compute(self, seconds):
        return seconds * self.memory / 1024 * self.of["lambda_gb_second"]

    def request(self, kind):
        """Return what a request costs, by what is billed."""
        log = kind.log + kind.invocations * self.assumed["log_event_bytes"]
        return {
            "API Gateway": kind.api * self.of["api_request"],
            "Lambda": kind.invocations * self.of["lambda_request"],
            "Lambda's time": self.compute(self.seconds(kind)),
            "DynamoDB": kind.reads * self.of["read_unit"] + kind.writes * self.of["write_unit"],
            "Log": log / GB * (self.of["log_gb"] + self.log_months * self.of["log_gb_month"]),
            "Transfer": (kind.out + kind.answers * self.assumed["gateway_bytes"]) / GB * self.of["out_gb"],
        }

    def each(self, kind):
        return sum(self.request(kind).values())

    def month(self, month, kinds):
        """Return what a month costs, by what is billed. CostError if its requests are of an unknown kind."""
        parts = dict.fromkeys(self.request(kinds["page"]), 0)
        for name, count in month.get("requests", {}).items():
            if name not in kinds:
                raise CostError(f"There is no kind of request {name!r}; there are {', '.join(kinds)}.")
            for kind in (kinds[name], kinds.get(name + FOLLOWED)):
                for part, amount in self.request(kind).items() if kind else ():
                    parts[part] += count * amount
        cold = month.get("cold_starts", 0) * self.assumed["cold_start_ms"] / 1000
        parts["Lambda's time"] += self.compute(cold)
        metrics = set().union(*(kinds[name].metrics for name in month.get("requests", {})))
        parts["Metrics"] = len(metrics) * self.of["metric_month"] * month.get("hours", 0) / HOURS
        stored = month["links"] * (kinds["new"].stored + 100) / GB
        parts["Storage"] = stored * (1 + self.indexes) * self.of["stored_gb_month"]
        parts["Backup"] = stored * self.of["backup_gb_month"]
        return parts

    def flood(self, kind, concurrency=None):
        """Return what an hour costs of as many requests of a kind as the throttle lets through.

        API Gateway also bills what Lambda refuses for want of `concurrency`.
        """
        asked = done = self.rate * 3600 + self.burst
        if concurrency and kind.invocations:
            done = min(asked, concurrency / self.seconds(kind) * 3600)
        return done * self.each(kind) + (asked - done) * self.each(Kind("refused by Lambda", invocations=0))


# --- The report


def usd(amount):
    if 0 < amount < 0.005:
        return "< 0.01"
    return f"{amount:.2f}" if 0 < amount < 99.995 else f"{amount:,.0f}"


def table(*rows):
    """Return a Markdown table of rows, of which the first is the head; all but the first column are figures."""
    head, *lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([head, "|---|" + "--:|" * (len(rows[0]) - 1), *lines])


def notes(kinds, data, prices):
    """Yield what one has to know to read the tables."""
    assumed = data["assumed"]
    yield (
        f"Prices are those of {data['region']}, on demand, as of {data['as_of']}; `scripts/prices.toml` has them"
        " with their sources. Free tiers and taxes are left out, and cents for the key of the table (KMS) and"
        " for mail."
    )
    yield (
        "Units and bytes are measured: the function answers each of these requests on moto's DynamoDB, for links"
        " with a URL of 80 characters, a title of 60 and three tags. In the table, and again in each of its"
        f" {prices.indexes} indexes, such a link takes {kinds['new'].stored} bytes, for storage 100 more. The"
        f" largest record has {kinds['put'].stored // 1024} KB."
    )
    yield (
        f"The function's time is assumed, not measured: {assumed['request_ms']} ms, {assumed['call_ms']} for each"
        f" call of DynamoDB, {assumed['item_ms']} for each link read, {assumed['out_kb_ms']} for each KB of the"
        f" answer, and {assumed['cold_start_ms']} for a cold start. So are {assumed['gateway_bytes']} bytes more"
        f" of each answer and {assumed['log_event_bytes']} of each line of the log."
    )
    yield (
        "What follows is what the function does for the stream: entries of the index, and totals of visits. It is"
        " reckoned as one call of the function for each change; changes of the same second are one, and so are the"
        " visits of a link in it. A link with three tags and six words more writes"
        f" {kinds['new'].writes + kinds['new' + FOLLOWED].writes} units in all, and each word more is one. Storage"
        " is that of links, without the index."
    )
    yield "API Gateway bills no request that it throttles, or that lacks a valid key where one is needed."
    metrics = set().union(*(kind.metrics for kind in kinds.values()))
    yield (
        f"These requests make {len(metrics)} metrics, billed for the hours that have data. `addons/alarms.yml`"
        f" has an alarm for each of five metrics, {usd(5 * prices.of['alarm_month'])} USD a month, and one of Metrics"
        " Insights, of which each metric that it matches is billed: three to eight, 0.30 to 0.80 USD. Its dashboard"
        " is free, if the account has fewer than four."
    )
    yield "The page's function has less memory than the store's, and is reckoned as that one."
    for month in data["month"]:
        if "requests" in month:
            requests = ", ".join(f"{count:,} {name}" for name, count in month["requests"].items())
            yield (
                f"{month['name']} has requests in {month['hours']} hours of the month, with"
                f" {month['cold_starts']:,} cold starts: {requests}."
            )
    yield (
        f"A flood is an hour with all that the throttle lets through for one of the API's methods, {prices.rate}"
        f" requests a second and {prices.burst} at once; API Gateway counts each method by itself. A partition of"
        " DynamoDB takes 1,000 write and 3,000 read units a second, and each index is one: it would refuse most of"
        " such a flood, which is not reckoned with."
    )


def report(kinds, data, prices):
    """Return the Markdown, given the measured kinds of requests by name."""
    head = ("A request", "Read units", "Write units", "Bytes out", "Bytes logged", "ms, assumed")
    requests = [(*head, "USD a million", "of it for the ms")]
    for kind in sorted(kinds.values(), key=prices.each):
        total, time = prices.each(kind), prices.request(kind)["Lambda's time"]
        measured = f"{kind.reads:g}", kind.writes, f"{kind.out:,}", kind.log, f"{prices.seconds(kind) * 1000:.0f}"
        requests.append((kind.name, *measured, usd(total * 1_000_000), f"{time / total:.0%}"))
    months = []
    for month in data["month"]:
        parts = prices.month(month, kinds)
        given = month["name"], f"{month['links']:,}", f"{sum(month.get('requests', {}).values()):,}"
        months.append((*given, *map(usd, parts.values()), usd(sum(parts.values()))))
    months.insert(0, ("A month", "Links", "Requests", *parts, "USD in all"))
    some = data["assumed"]["reserved_concurrency"]
    floods = [("An hour of a flood", "USD", f"USD with {some} functions at most")]
    for kind in sorted(kinds.values(), key=prices.flood)[:-4:-1]:
        floods.append((kind.name, usd(prices.flood(kind)), usd(prices.flood(kind, some))))
    wrap = textwrap.TextWrapper(105, initial_indent="- ", subsequent_indent="  ")
    listed = "\n".join(map(wrap.fill, notes(kinds, data, prices)))
    return "\n\n".join([table(*requests), table(*months), table(*floods), listed])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    there = Path(__file__).with_name("prices.toml")
    parser.add_argument("--prices", type=Path, default=there, help="another file of prices")
    options = parser.parse_args()
    try:
        data = tomllib.loads(options.prices.read_text())
        template, _ = decode(str(ROOT / "setupapidb.yml"))
        print(report(measured(template), data, Prices(data, template)))
    except tomllib.TOMLDecodeError as error:
        sys.exit(f"{options.prices} cannot be read: {error}")
    except (OSError, CostError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
