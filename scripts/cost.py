"""Print what the stack costs on AWS, in Markdown for docs/cost.md.

Prices and assumptions are data, in prices.toml. All else is measured: the
handler answers requests of each kind on moto's DynamoDB, and what AWS bills
of that is counted by AWS's rules.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import sys
import textwrap
import tomllib
from math import ceil
from pathlib import Path
from unittest import mock

from cfnlint.decode import decode

import billing
import loading

ROOT = Path(__file__).parent.parent
GB = 2**30
HOURS = 730  # of a month
STORE_URL = "https://a1b2c3d4e5.execute-api.us-east-1.amazonaws.com/prod/link"


class CostError(Exception):
    """Why there is no figure, as a sentence for the person who runs the command."""


# --- The requests


def record(number):
    """Return a typical link: a URL of 80 characters, a title of 60, three tags of 8."""
    tags = [f"topic-{(number + each) % 50:02}" for each in range(3)]
    return {"link": f"https://example.com/{number:060}", "title": f"{number:060}", "tags": tags}


# Titles of 60 characters as people write them, with eleven words of two letters or more each.
TITLES = (
    "How we moved a million links to one table without any pauses",
    "Why every search took half an hour before somebody gave that",
)


def largest(number):
    """Return a link that is as large as one can be, in characters of four bytes."""
    tags = [chr(0x1F600 + each) + "\U0001f600" * 63 for each in range(32)]
    link = f"https://example.com/{number:08172}"
    return {"link": link, "title": "\U0001f600" * 512, "tags": tags, "notes": "\U0001f600" * 8192}


class Requests:
    """Sends requests to a handler, and measures what AWS bills of them, as `kinds` by a short name."""

    def __init__(self, index, meter):
        self.index, self.meter, self.kinds = index, meter, {}

    def send(self, method, path, body=None, kind=None, source=None):
        """Return the answer, and the lines of the log. CostError if it is an error."""
        self.meter.kind, self.meter.changes = kind, []
        with contextlib.redirect_stdout(io.StringIO()) as log:
            answer = (source or self.index).lambda_handler(loading.event_of(method, path, body), None)
        self.meter.kind = None
        if answer["statusCode"] >= 400:
            raise CostError(f"{method} {path} failed: {answer['body']}Change what scripts/cost.py sends.")
        return answer, log.getvalue().splitlines()

    def measure(self, name, label, *request, **more):
        self.kinds[name] = kind = billing.Kind(label)
        answer, lines = self.send(*request, kind=kind, **more)
        headers = "".join(f"{name}: {value}\r\n" for name, value in answer["headers"].items())
        kind.out = len((headers + answer["body"]).encode())
        kind.log = sum(len(line.encode()) for line in lines)
        kind.metrics = set().union(*map(metrics_of, lines))

    def store(self, numbers):
        """Store typical links: the first by the handler, and copies of its item, as that takes a tenth of the time."""
        index, client, (first, *others) = self.index, self.meter.client, map(record, numbers)
        self.send("POST", "/link", first)
        key = {"link_id": index.link_id_of(first["link"]), "link": first["link"]}
        item = client.get_item(TableName=index.TABLE, Key=index.encode_all(key))["Item"]
        for at in range(0, len(others), 25):  # the most of a batch
            links = [fields | {"link_id": index.link_id_of(fields["link"])} for fields in others[at : at + 25]]
            puts = [{"PutRequest": {"Item": item | index.encode_all(link)}} for link in links]
            client.batch_write_item(RequestItems={index.TABLE: puts})


def measured(template):
    """Return the kinds of requests, by a short name, as the handler of the template answers them.

    CostError if it answers one with an error.
    """
    # A clock by which each request takes 12.3 ms, so that the line in the log always has as many bytes.
    with mock.patch("time.perf_counter", itertools.count(step=0.0123).__next__):
        with loading.handler(template) as (index, client):
            kinds = measured_alone(template, index, client)
        with loading.handler(template) as (index, client), loading.addon(index, client) as (search, tables):
            return kinds | measured_with_search(template, index, client, search, tables)


def measured_alone(template, index, client):
    """Return the kinds of requests to a store without the add-on search."""
    meter = billing.Meter(index, client, {index.TABLE: template["Resources"]["Table"]["Properties"]})
    requests = Requests(index, meter)
    send, measure, store, kinds = requests.send, requests.measure, requests.store, requests.kinds
    # What API Gateway answers by itself; prices.toml has AWS's words on what it does not bill.
    kinds["options"] = billing.Kind("`OPTIONS`, a preflight", invocations=0)
    kinds["refused"] = billing.Kind("Refused by API Gateway: throttled, or without a valid key", api=0, invocations=0)
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
    measure("index", "`GET /`, the index", "GET", "/")
    with mock.patch.dict(os.environ, {"STORE_URL": STORE_URL}):
        measure("page", "The page of `addons/page.yml`", "GET", "/", source=loading.module("page"))
    measure("health", "`GET /health`", "GET", "/health")
    for number in range(25):  # more than 1 MB
        send("PUT", f"/link/largest-{number}", largest(number))
    other = largest(25)
    measure("put", "`PUT /link/{link_id}`, another for the largest record", "PUT", "/link/largest-0", other)
    measure("largest", "`GET /link`, 1 MB of the largest records", "GET", "/link")
    store(range(200, 1300))
    measure("tags", "`GET /tags`, 1,000 links counted", "GET", "/tags")
    store(range(1300, 3500))  # more than 1 MB
    measure("search", "`GET /link?q=`, 1 MB searched", "GET", "/link?q=nothing")
    return kinds


FOLLOWED = ", followed"  # ends the name of what the add-on search does after a request, by the table's stream


def measured_with_search(template, index, client, search, tables):
    """Return what the add-on search, whose tables these are, answers and follows."""
    meter = billing.Meter(index, client, {index.TABLE: template["Resources"]["Table"]["Properties"]} | tables)
    requests = Requests(index, meter)
    measure, kinds = requests.measure, requests.kinds

    def follow(name, label):
        """Follow what the last request has changed."""
        meter.kind = kinds[name + FOLLOWED] = billing.Kind(f"... then follows {label}", api=0, answers=0)
        search.lambda_handler({"Records": meter.changes}, None)
        meter.kind = None

    def change(name, label, *request):
        requests.send(*request, kind=billing.Kind(label))
        follow(name, label)

    index.ask_addon = loading.asker(search, meter)
    for number in range(101):
        change("stored", "", "POST", "/link", record(number) | {"tags": ["found"]})
    del kinds["stored" + FOLLOWED]
    for number in range(50):
        count = {"term": "#", "place": f"topic-{number:02}", "count": 20}
        client.put_item(TableName=search.INDEX, Item=index.encode_all(count))
    measure("by_tag", "`GET /link?tag=`, 100 links", "GET", "/link?tag=found")
    measure("by_word", "`GET /link?q=`, 100 links", "GET", "/link?q=example")
    measure("all_tags", "`GET /tags`, all 51", "GET", "/tags")
    change("short", "a new link of three tags and six words", "POST", "/link", record(150))
    given = record(151) | {"title": TITLES[0]}
    change("new", "a new link of three tags and 17 words", "POST", "/link", given)
    one = index.link_id_of(given["link"])
    change("go", "a visit", "GET", f"/go/{one}")
    change("patch", "a change of a title, eleven words to others", "PATCH", f"/link/{one}", {"title": TITLES[1]})
    change("delete", "a deletion of that link", "DELETE", f"/link/{one}")
    one = index.link_id_of(record(150)["link"])
    days = [f"2026-11-{day:02}" for day in range(1, 31)]
    life = search.life_of(json.loads(requests.send("GET", f"/link/{one}")[0]["body"]))
    for number, day in enumerate(days):
        search.write_day(life, day, number, number + 1)
    path = f"/link/{one}/visits?from={days[0]}&to={days[-1]}"
    measure("visits", "`GET /link/{link_id}/visits`, a month", "GET", path)
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
        if kind.addon:  # which it waits for
            ms += assumed["call_ms"] + self.seconds(kind.addon) * 1000
        return kind.invocations * ceil(ms) / 1000

    def compute(self, seconds):
        return seconds * self.memory / 1024 * self.of["lambda_gb_second"]

    def request(self, kind):
        """Return what a request costs, by what is billed, with what the add-on search does for it."""
        log = kind.log and kind.log + self.assumed["log_event_bytes"]
        parts = {
            "API Gateway": kind.api * self.of["api_request"],
            "Lambda": kind.invocations * self.of["lambda_request"],
            "Lambda's time": self.compute(self.seconds(kind)),
            "DynamoDB": kind.reads * self.of["read_unit"] + kind.writes * self.of["write_unit"],
            "Log": log / GB * (self.of["log_gb"] + self.log_months * self.of["log_gb_month"]),
            "Transfer": kind.answers * (kind.out + self.assumed["gateway_bytes"]) / GB * self.of["out_gb"],
        }
        inner = self.request(kind.addon) if kind.addon else {}
        return {part: usd + inner.get(part, 0) for part, usd in parts.items()}

    def each(self, kind):
        return sum(self.request(kind).values())

    def month(self, month, kinds):
        """Return what a month costs, by what is billed. CostError if its requests are of an unknown kind."""
        parts = dict.fromkeys(self.request(kinds["page"]), 0)
        for name, count in month.get("requests", {}).items():
            if name not in kinds:
                raise CostError(f"There is no kind of request {name!r}; there are {', '.join(kinds)}.")
            followed = kinds.get(name + FOLLOWED) if month.get("has_search") else None
            for kind in filter(None, (kinds[name], followed)):
                for part, amount in self.request(kind).items():
                    parts[part] += count * amount
        cold = month.get("cold_starts", 0) * self.assumed["cold_start_ms"] / 1000
        parts["Lambda's time"] += self.compute(cold)
        metrics = set().union(*(kinds[name].metrics for name in month.get("requests", {})))
        parts["Metrics"] = len(metrics) * self.of["metric_month"] * month.get("hours", 0) / HOURS
        stored = month["links"] * (kinds["new"].stored + 100) / GB
        indexed = month["links"] * kinds["new" + FOLLOWED].indexed / GB if month.get("has_search") else 0
        parts["Storage"] = (stored * (1 + self.indexes) + indexed) * self.of["stored_gb_month"]
        parts["Backup"] = stored * self.of["backup_gb_month"]
        return parts

    def flood(self, kind, concurrency=None):
        """Return what an hour costs of as many requests of a kind as the throttle lets through.

        API Gateway also bills what Lambda refuses for want of `concurrency`.
        """
        asked = done = self.rate * 3600 + self.burst
        if concurrency and kind.invocations:
            done = min(asked, concurrency / self.seconds(kind) * 3600)
        return done * self.each(kind) + (asked - done) * self.each(billing.Kind("refused by Lambda", invocations=0))


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
    short, new = kinds["short" + FOLLOWED], kinds["new" + FOLLOWED]
    yield (
        "With the add-on search, a search, `/tags` and `/visits` are two functions, of which the store's waits for the"
        " other; its time has that of both, and both are billed. What follows is what the add-on does by the table's"
        " stream, reckoned as one call of its function for each change, one call of DynamoDB after the other; changes"
        " of the same moment come together, and are cheaper. A tag is four write units, a word of two letters or more"
        f" is one: a new link has {3 + short.writes} in all if it has six words, and {3 + new.writes} if it has 17, as"
        f" with a title of eleven. Its entries take {short.indexed:,} or {new.indexed:,} bytes of storage. Lambda reads"
        " the stream for nothing"
        ' (DynamoDB Developer Guide, "Evaluate your Streams usage"). The days of visits are not in the storage.'
    )
    yield "API Gateway bills no request that it throttles, or that lacks a valid key where one is needed."
    metrics = set().union(*(kind.metrics for kind in kinds.values()))
    yield (
        f"These requests make {len(metrics)} metrics, billed for the hours that have data. `addons/alarms.yml`"
        f" has an alarm for each of three metrics, {usd(3 * prices.of['alarm_month'])} USD a month, and one of Metrics"
        " Insights, of which each metric that it matches is billed: three to eight, 0.30 to 0.80 USD. Its dashboard"
        " is free, if the account has fewer than four. Two more alarms watch the add-on search,"
        f" {usd(2 * prices.of['alarm_month'])} USD."
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
    with_search = [kind for name, kind in kinds.items() if kind.addon or name.endswith(FOLLOWED)]
    alone = [kind for kind in kinds.values() if kind not in with_search]
    requests = (
        listed_requests("A request", alone, prices),
        listed_requests("With the add-on search", with_search, prices),
    )
    months = []
    for month in data["month"]:
        parts = prices.month(month, kinds)
        given = month["name"], f"{month['links']:,}", f"{sum(month.get('requests', {}).values()):,}"
        months.append((*given, *map(usd, parts.values()), usd(sum(parts.values()))))
    months.insert(0, ("A month", "Links", "Requests", *parts, "USD in all"))
    some = data["assumed"]["reserved_concurrency"]
    floods = [("An hour of a flood", "USD", f"USD with {some} functions at most")]
    for kind in sorted(alone, key=prices.flood)[:-4:-1]:
        floods.append((kind.name, usd(prices.flood(kind)), usd(prices.flood(kind, some))))
    wrap = textwrap.TextWrapper(105, initial_indent="- ", subsequent_indent="  ")
    listed = "\n".join(map(wrap.fill, notes(kinds, data, prices)))
    return "\n\n".join([*requests, table(*months), table(*floods), listed])


def listed_requests(what, kinds, prices):
    """Return a table of kinds of requests, the cheapest first."""
    head = (what, "Read units", "Write units", "Bytes out", "Bytes logged", "ms, assumed")
    rows = [(*head, "USD a million", "of it for the ms")]
    for kind in sorted(kinds, key=prices.each):
        total, time = prices.each(kind), prices.request(kind)["Lambda's time"]
        figures = f"{kind.all('reads'):g}", kind.all("writes"), f"{kind.out:,}", kind.log
        ms = f"{prices.seconds(kind) * 1000:.0f}"
        rows.append((kind.name, *figures, ms, usd(total * 1_000_000), f"{time / total:.0%}"))
    return table(*rows)


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
