"""`make cost`: what it measures and reckons, against what was reckoned by hand."""

import dataclasses
import re
import subprocess
import sys
import tomllib

import pytest
from cfnlint.decode import decode

import billing
import cost
import loading
from conftest import ROOT

PRICES = ROOT / "scripts" / "prices.toml"


@pytest.fixture
def data():
    return tomllib.loads(PRICES.read_text())


@pytest.fixture(scope="module")
def kinds(template):
    return cost.measured(template)


def run(*arguments):
    """Run scripts/cost.py; return its exit code, what it printed, and its errors."""
    command = [sys.executable, "scripts/cost.py", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def cells(printed, first):
    """Return the cells of the only row of the tables that starts so, without the first."""
    (row,) = [line for line in printed.splitlines() if line.startswith(f"| {first} |")]
    return row.strip("| ").split(" | ")[1:]


# --- What is measured


def test_units_are_those_of_the_rules(kinds):
    """The table and two indexes; a condition that fails writes only to the table; a changed key twice."""
    writes = {"new": 3, "there": 1, "get": 0, "list": 0, "search": 0, "tags": 0, "go": 3, "uncounted": 0}
    # What is left of a link that was deleted is not in `newest`, and has another key in `changed`.
    writes |= {"patch": 1 + 1 + 2, "delete": 1 + 1 + 2, "page": 0, "options": 0, "refused": 0}
    assert {name: kinds[name].writes for name in writes} == writes
    # A strongly consistent read of up to 4 KB is a unit, a page of an index half a unit for each 4 KB.
    size = kinds["new"].stored
    reads = {"new": 0, "there": 0, "get": 1, "go": 1, "uncounted": 1, "patch": 1, "delete": 1, "page": 0}
    reads |= {"list": -(-101 * size // 4096) / 2, "tags": -(-1001 * size // 4096) / 2, "search": 2**20 / 4096 / 2}
    assert {name: kinds[name].reads for name in reads} == reads


def test_units_of_the_add_on_search_are_those_of_the_rules(kinds):
    """A tag is an entry and a count in a transaction, which writes both twice; a word is an entry, a visit its day."""
    writes = {"short": 3 * 4 + 6, "new": 3 * 4 + 17, "go": 1, "patch": 11 + 11, "delete": 3 * 4 + 17 + 1}
    assert {name: kinds[name + cost.FOLLOWED].writes for name in writes} == writes
    assert len(cost.TITLES[0]) == len(cost.TITLES[1]) == 60
    # Half a unit for each of 100 links, and half a unit for each 4 KB of 101 entries; all 51 counts are in one.
    reads = {"by_tag": 50 + 2, "by_word": 50 + 2.5, "all_tags": 0.5 + 0.5, "visits": 1 + 0.5}
    assert {name: kinds[name].all("reads") for name in reads} == reads
    # A deletion looks for days, of which there is one, by a consistent read.
    reads = {"short": 0, "new": 0, "go": 0, "patch": 0, "delete": 1}
    assert {name: kinds[name + cost.FOLLOWED].reads for name in reads} == reads
    for name in ("by_tag", "by_word", "all_tags", "visits"):
        kind = kinds[name]
        assert (kind.invocations, kind.addon.invocations, kind.addon.api, kind.addon.answers) == (1, 1, 0, 0)
    assert kinds["by_tag"].out == pytest.approx(kinds["list"].out, rel=0.1), "a hundred links"
    for kind in (kinds[name + cost.FOLLOWED] for name in writes):
        assert (kind.api, kind.answers, kind.invocations, kind.out, kind.log) == (0, 0, 1, 0, 0)


def test_the_index_takes_the_bytes_of_what_it_gets(handler, dynamodb, template):
    with loading.addon(handler, dynamodb) as (search, tables):
        properties = {handler.TABLE: template["Resources"]["Table"]["Properties"]}
        call, meter = handler.call, billing.Meter(handler, dynamodb, properties | tables)
        meter.kind = billing.Kind("by hand")
        link = {"link_id": "id", "link": "see url", "url": "https://a", "created_at": "2026", "title": "one"}
        there = {image: handler.encode_all(link | {"tags": ["a"]}) for image in ("NewImage", "OldImage")}
        for images in (["NewImage"], ["NewImage"], ["OldImage"]):  # put, again, deleted
            search.follow([{"dynamodb": {image: there[image] for image in images}}])
            if images == ["OldImage"]:
                assert meter.kind.indexed == 5 + 6 + 6 + 100, "the count of a tag stays, as 0"
        handler.call = call


def test_the_function_of_the_add_on_has_as_much_memory(template):
    search, _ = decode(str(loading.SEARCH))
    sizes = [each["Resources"]["Function"]["Properties"]["MemorySize"] for each in (template, search)]
    assert sizes[0] == sizes[1], "prices are reckoned by that of the store"


def test_the_largest_record_takes_a_unit_for_each_kb(kinds):
    kb = -(-kinds["put"].stored // 1024)
    assert kb > 50
    # It is taken, so a put fails; then the table, one index, and the other one twice.
    assert kinds["put"].writes == kb + kb + kb + 2 * kb
    assert kinds["largest"].reads == kinds["search"].reads
    assert 900_000 < kinds["largest"].out < 2**20


@pytest.fixture
def meter(handler, dynamodb, template):
    """A meter of the handler, on an empty table."""
    call = handler.call
    meter = billing.Meter(handler, dynamodb, {"links": template["Resources"]["Table"]["Properties"]})
    meter.kind = billing.Kind("by hand")
    yield meter
    handler.call = call


def test_a_write_that_fails_takes_units_of_the_larger_item(meter, handler, dynamodb):
    item = {name: {"S": "a"} for name in ("link_id", "link", "owner", "created_at", "updated_at")}
    dynamodb.put_item(TableName="links", Item=item | {"notes": {"S": "a" * 1500}})
    for notes, units in (("", 2), ("a" * 2500, 3)):
        meter.kind.writes, other = 0, item | {"notes": {"S": notes}}
        done, _ = handler.write("PutItem", handler.FREE, "new", Item=other)
        assert (done, meter.kind.writes) == (False, units)


def test_calls_and_bytes_are_those_of_the_handler(kinds, events_api):
    calls = {"options": 0, "page": 0, "index": 0, "new": 1, "get": 1, "list": 1, "search": 1, "go": 2, "uncounted": 1}
    assert {name: kinds[name].calls for name in calls} == calls
    answer = events_api("GET", "/")
    del answer.headers["Content-Length"]  # which is not the function's
    headers = sum(len(f"{name}: {value}\r\n") for name, value in answer.headers.items())
    # Other hosts and stages are as long.
    assert kinds["index"].out == len(answer.content) + headers
    assert kinds["page"].out > len((ROOT / "handler" / "page.html").read_bytes())


def test_the_log_line_is_measured(kinds, handler, events_api, capsys):
    events_api("POST", "/link", cost.record(0))
    line = capsys.readouterr().out.strip()
    line = re.sub(r'"ms":[\d.]+', '"ms":12.3', line)
    assert kinds["new"].log == len(line)


def test_item_sizes_are_those_of_the_developer_guide():
    item = {
        "é": {"S": "é€"},  # 2 + 5
        "n": {"N": "1200"},  # 1 + 1 for two digits + 1: zeroes at the end are none
        "o": {"N": "123"},  # 1 + 2 + 1
        "tags": {"L": [{"S": "ab"}, {"S": ""}]},  # 4 + 3 + (1 + 2) + (1 + 0)
    }
    assert billing.item_bytes(item) == 7 + 3 + 4 + 11


def test_a_request_that_fails_is_a_sentence(template, monkeypatch):
    monkeypatch.setattr(cost, "record", lambda number: {"link": "none"})
    with pytest.raises(cost.CostError, match="^POST /link failed: .*absolute URL.*\n.*scripts/cost.py"):
        cost.measured(template)


def test_an_operation_without_a_rule_is_a_sentence(meter, handler):
    with pytest.raises(SystemExit, match="does not know what DynamoDB bills for ListTables;"):
        handler.call("ListTables", {})


def test_metrics_are_those_in_the_log_line():
    line = """{"resource": "/link", "method": "GET", "ms": 5, "errors": 0, "_aws": {"Timestamp": 1,
        "CloudWatchMetrics": [{"Namespace": "apidb", "Dimensions": [["resource"], ["resource", "method"], []],
        "Metrics": [{"Name": "ms"}, {"Name": "errors"}]}]}}"""
    assert len(cost.metrics_of(line)) == 3 * 2
    assert cost.metrics_of(line.replace("/link", "/tags")) & cost.metrics_of(line) == {
        ("apidb", "ms"),
        ("apidb", "errors"),
    }
    assert cost.metrics_of('{"resource": "/link"}') == set()


# --- What is reckoned


def by_hand(template):
    """Return prices with which one can reckon by hand."""
    usd = {"api_request": 10, "lambda_request": 20, "lambda_gb_second": 2, "write_unit": 1000, "read_unit": 100}
    usd |= {"stored_gb_month": 8, "backup_gb_month": 4, "log_gb": 2, "log_gb_month": 0, "metric_month": 73}
    usd |= {"alarm_month": 1, "out_gb": 3}
    per = {"log_gb": 2**-30, "out_gb": 2**-30, "stored_gb_month": 2**-30, "backup_gb_month": 2**-30}
    assumed = {"request_ms": 5, "call_ms": 10, "item_ms": 0.5, "out_kb_ms": 1, "cold_start_ms": 4000}
    assumed |= {"gateway_bytes": 400, "log_event_bytes": 26, "reserved_concurrency": 10}
    price = {name: {"usd": usd[name], "per": per.get(name, 1)} for name in usd}
    prices = cost.Prices({"price": price, "assumed": assumed}, template)
    assert prices.memory == 512, "reckon again"
    return prices


KIND = billing.Kind("by hand", calls=2, items=3, reads=1.5, writes=4, out=2048, log=74, stored=300, metrics={1, 2})
PARTS = {
    "API Gateway": 10,
    "Lambda": 20,
    "Lambda's time": 0.029,  # 5 + 2 x 10 + 3 x 0.5 + 2 x 1 = 28.5 ms, whole ones, x 1/4 GB x 4
    "DynamoDB": 150 + 4000,
    "Log": (74 + 26) * 2,
    "Transfer": (2048 + 400) * 3,
}


def test_a_request_by_hand(template):
    assert by_hand(template).request(KIND) == pytest.approx(PARTS)


def test_a_request_that_waits_for_the_add_on_by_hand(template):
    addon = billing.Kind("inner", api=0, answers=0, calls=1, items=1, reads=2, writes=1, out=1024)
    kind = dataclasses.replace(KIND, addon=addon)
    # The add-on: 5 + 10 + 0.5 + 1 = 16.5 ms, so 17; the store: 28.5 as above, 10 for the call, and those 17.
    assert by_hand(template).seconds(kind) == 0.056
    more = {"Lambda": 20, "Lambda's time": 0.056 - 0.029 + 0.017, "DynamoDB": 200 + 1000}
    parts = {name: usd + more.get(name, 0) for name, usd in PARTS.items()}
    assert by_hand(template).request(kind) == pytest.approx(parts)
    assert (kind.all("reads"), kind.all("writes")) == (3.5, 5)


def test_a_month_with_the_add_on_by_hand(template):
    followed = billing.Kind("followed", api=0, answers=0, calls=1, writes=3, indexed=1000)
    kinds = {"by hand": KIND, "new": KIND, "page": KIND, "by hand, followed": followed, "new, followed": followed}
    month = {"links": 10, "requests": {"by hand": 2}}
    alone, both = (by_hand(template).month(month | more, kinds) for more in ({}, {"has_search": True}))
    more = {"Lambda": 2 * 20, "Lambda's time": 2 * 0.015, "DynamoDB": 2 * 3000, "Storage": 10 * 1000 * 8}
    assert both == pytest.approx({name: usd + more.get(name, 0) for name, usd in alone.items()})


def test_a_month_by_hand(template):
    month = {"links": 10, "hours": 10, "cold_starts": 5, "requests": {"by hand": 2}}
    kinds = {"by hand": KIND, "new": KIND, "page": KIND}
    assert by_hand(template).month(month, kinds) == pytest.approx(
        {name: 2 * usd for name, usd in PARTS.items()}
        | {"Lambda's time": 2 * 0.029 + 5 * 4}  # 4 s x 1/4 GB x 4
        | {"Metrics": 2 * 73 * 10 / 730, "Storage": 10 * 400 * 3 * 8, "Backup": 10 * 400 * 4}
    )


def test_a_flood_by_hand(template):
    prices = by_hand(template)
    prices.rate, prices.burst = 400, 1000
    asked, each = 400 * 3600 + 1000, sum(PARTS.values())
    assert prices.flood(KIND) == pytest.approx(asked * each)
    done = 10 / 0.029 * 3600  # the rest is billed by API Gateway: the request, and an answer of its own
    assert prices.flood(KIND, 10) == pytest.approx(done * each + (asked - done) * (10 + 400 * 3))


# --- What is printed


@pytest.fixture
def printed(kinds, data, template):
    return cost.report(kinds, data, cost.Prices(data, template)) + "\n"


def test_it_prints_the_same_each_time(printed):
    assert run() == (0, printed, "")


def test_requests_are_in_the_order_of_their_price(printed):
    for table, least in zip(printed.split("\n\n"), (15, 9)):
        prices = [float(usd) for usd in re.findall(r"^\| .* \| ([\d.]+) \| \d+% \|$", table, re.M)]
        assert len(prices) >= least and prices == sorted(prices)


def test_a_row_by_hand(printed, kinds):
    new = kinds["new"]
    usd = 3.50 + 0.20 + 3 * 0.625 + 12 * 512 / 1024 / 1000 * 13.3334  # 3 + 8 ms, and some for 0.6 KB
    usd += (new.log + 26) / 2**30 * 1_000_000 * (0.50 + 0.03 * 30 * 24 / 730) + (new.out + 400) / 2**30 * 90_000
    row = cells(printed, "`POST /link`, a new link")
    assert row == ["0", "3", str(new.out), str(new.log), "12", f"{usd:.2f}", "1%"]
    gb = 10_000_000 * (new.stored + 100) / 2**30
    (idle,) = re.findall(r"^\| Nobody calls \| 10,000,000 \| 0 (\|.*)", printed, re.M)
    assert idle.endswith(f"| {gb * 3 * 0.25:.2f} | {gb * 0.20:.2f} | {gb * 0.95:.2f} |")


@pytest.mark.parametrize("name", tomllib.loads(PRICES.read_text())["price"])
def test_each_price_matters(name, data, template, kinds):
    before = cost.report(kinds, data, cost.Prices(data, template))
    data["price"][name]["usd"] *= 3
    assert cost.report(kinds, data, cost.Prices(data, template)) != before


def test_each_price_has_a_source(data):
    for name, price in data["price"].items():
        assert price.keys() == {"usd", "per", "source", "checked"}, name
        assert price["source"].startswith("https://aws.amazon.com/"), name


def test_an_unknown_kind_of_request_is_a_sentence(kinds, data, template):
    data["month"][-1]["requests"]["serch"] = 1
    with pytest.raises(cost.CostError, match="^There is no kind of request 'serch'; there are options, .*search"):
        cost.report(kinds, data, cost.Prices(data, template))


def test_prices_that_cannot_be_read_are_a_sentence(tmp_path):
    missing, broken = tmp_path / "missing.toml", tmp_path / "broken.toml"
    broken.write_text("as_of = \n")
    for path, sentence in ((missing, "No such file"), (broken, "Invalid value")):
        code, text, error = run("--prices", path)
        assert (code, text, error.count("\n")) == (1, "", 1)
        assert sentence in error


def test_the_document_has_what_it_prints(printed):
    document = (ROOT / "docs" / "cost.md").read_text()
    found = re.findall(r"^<!-- make cost -->\n(.*?)^<!-- end -->$", document, re.M | re.S)
    assert [text.strip() for text in found] == [printed.strip()], "put into docs/cost.md what `make cost` prints"
