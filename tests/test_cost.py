"""`make cost`: what it measures and reckons, against what was reckoned by hand."""

import re
import subprocess
import sys
import tomllib

import pytest

import cost
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
    writes = {"new": 3, "there": 1, "get": 0, "list": 0, "search": 0, "tags": 0, "go": 1, "uncounted": 0}
    # What is left of a link that was deleted is not in `newest`, and has another key in `changed`.
    writes |= {"patch": 1 + 1 + 2, "delete": 1 + 1 + 2, "page": 0, "options": 0, "refused": 0}
    # Three tags, each with its count, in transactions, which write twice; six words; a total of visits.
    writes |= {"new, followed": 3 * 2 * 2 + 6, "go, followed": 3}
    assert "there, followed" not in kinds
    assert {name: kinds[name].writes for name in writes} == writes
    # A strongly consistent read of up to 4 KB is a unit, a page of an index half a unit for each 4 KB.
    size = kinds["new"].stored
    reads = {"new": 0, "there": 0, "get": 1, "go": 1, "uncounted": 1, "patch": 1, "delete": 1, "page": 0}
    reads |= {"by_tag": 52, "by_word": 52.5, "go, followed": 1}  # half a unit for each link, the rest for entries
    reads |= {"list": -(-101 * size // 4096) / 2, "tags": 0.5, "search": 2**20 / 4096 / 2}
    assert {name: kinds[name].reads for name in reads} == reads


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
    meter = cost.Meter(handler, dynamodb, template["Resources"])
    meter.kind = cost.Kind("by hand")
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
    assert cost.item_bytes(item) == 7 + 3 + 4 + 11


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


KIND = cost.Kind("by hand", calls=2, items=3, reads=1.5, writes=4, out=2048, log=74, stored=300, metrics={1, 2})
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


@pytest.fixture(scope="module")
def printed():
    code, text, error = run()
    assert (code, error) == (0, "")
    return text


def test_it_prints_the_same_each_time(printed, kinds, data, template):
    assert printed == cost.report(kinds, data, cost.Prices(data, template)) + "\n"


def test_requests_are_in_the_order_of_their_price(printed):
    prices = [float(usd) for usd in re.findall(r"^\| .* \| ([\d.]+) \| \d+% \|$", printed, re.M)]
    assert len(prices) >= 15 and prices == sorted(prices)


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
    with pytest.raises(cost.CostError, match="^There is no kind of request 'serch'; there are refused, .*search"):
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
