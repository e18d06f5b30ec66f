"""What grows with the store and what does not, and the index in shards of docs/scale.md."""

import contextlib
import json
import random
import sys
import tomllib
import zlib

import pytest
from boto3.dynamodb.conditions import Key
from hypothesis import given, settings
from hypothesis import strategies as st

import billing
import cost
import loading
from conftest import ROOT, client, named, plain

sys.path.append(str(ROOT / "bench"))

import finding  # noqa: E402 it is in bench/
import grow  # noqa: E402
import shards  # noqa: E402
from shards import Shards, is_right, shard_of, walked  # noqa: E402

# --- What grows


@pytest.fixture(scope="module")
def kinds(template):
    """The kinds of requests by name, for each number of links."""
    with grow.stores(template) as stores:
        return [{kind.name: kind for kind in grow.measured(*stores, count)} for count in grow.COUNTS]


@pytest.fixture
def stores(template):
    """The handler, a store of links by arithmetic, and a meter."""
    with grow.stores(template) as stores:
        yield stores


def test_nothing_that_a_request_reads_or_writes_grows(kinds):
    _, many, most = kinds
    for name, kind in most.items():
        counted = ("calls", "items", "bytes", "reads", "writes")
        assert [kind.all(each) for each in counted] == [many[name].all(each) for each in counted], name
    assert {each.links for each in most.values()} == {1_000_000}


def test_a_page_reads_one_link_more_than_it_has(kinds):
    size = kinds[-1]["`GET /link/{link_id}`"].bytes
    for name in ("`GET /link`, the newest 100", "`GET /link?cursor=`, 100 from the middle on"):
        kind = kinds[-1][name]
        assert (kind.calls, kind.items, kind.bytes) == (1, 101, 101 * size)
        assert kind.reads == -(-kind.bytes // 4096) / 2


def test_units_are_those_of_a_store_that_is_not_made_by_arithmetic(kinds, template):
    measured, here = cost.measured(template), kinds[1]
    pairs = {"list": "`GET /link`, the newest 100", "get": "`GET /link/{link_id}`", "new": "`POST /link`"}
    pairs |= {"go": "`GET /go/{link_id}`, counted", "search": "`GET /link?q=`, one request"}
    for name, other in pairs.items():
        assert (measured[name].reads, measured[name].writes) == (here[other].reads, here[other].writes), name
    by_tag = here[f"`GET /link?tag=`, 100 of 1,000{grow.WITH_SEARCH}"]
    # Their URLs are as long, but as their times are given, half a unit more may be needed for as many entries.
    assert measured["by_tag"].all("calls") == by_tag.all("calls") == 2
    assert by_tag.all("reads") - measured["by_tag"].all("reads") in (0, 0.5)
    assert (measured["list"].out, measured["new"].out) == (here[pairs["list"]].out, here[pairs["new"]].out)


@pytest.mark.parametrize("count", grow.COUNTS[1:])
@pytest.mark.parametrize("query", ["tag=topic-00", "q=example"])
def test_a_thousand_links_are_found_in_ten_requests_whatever_there_is(stores, count, query):
    requests, units = grow.found(*stores, count, query)
    assert requests == 10 and units <= 600


@pytest.fixture
def on_the_engine(engine, monkeypatch):
    """bench/finding.py on the engine, with 200 links to be found."""
    for name, value in engine.settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(finding, "FOUND", 200)
    monkeypatch.setattr(finding, "STORE", named("sought"))


def test_the_links_that_are_sought_are_found_on_the_engine(on_the_engine):
    rows = list(finding.measured(400))
    assert [row.split(" | ", 1)[1] for row in rows] == ["400 | 2 | 200 |"] * 3


def test_a_link_that_is_not_found_on_the_engine_is_told(on_the_engine, monkeypatch):
    monkeypatch.setattr(finding, "STORE", named("lost"))
    fill = finding.fill

    def all_but_one(table, index, count):
        fill(table, index, count)
        entry = index.query(KeyConditionExpression=Key("term").eq("#needle"), Limit=1)["Items"][0]
        index.delete_item(Key={name: entry[name] for name in ("term", "place")})

    monkeypatch.setattr(finding, "fill", all_but_one)
    with pytest.raises(SystemExit, match="^tag=needle finds 199 links of 200, or not in order"):
        list(finding.measured(400))


def test_links_that_are_not_found_are_missed(stores, monkeypatch):
    _, store, _ = stores
    entries = store.entries
    monkeypatch.setattr(store, "entries", lambda *asked: entries(*asked) | {"Items": entries(*asked)["Items"][1:]})
    with pytest.raises(cost.CostError, match="^990 of 1000 links are found by tag=topic-00"):
        grow.found(*stores, 10_000, "tag=topic-00")


def test_an_index_partition_takes_its_units_and_no_more(kinds):
    a_second = {name: round(1 / kind.all("busiest")) for name, kind in kinds[-1].items() if kind.all("busiest")}
    assert (a_second["`POST /link`"], a_second["`GET /go/{link_id}`, counted"]) == (1000, 1000)
    assert a_second["`PATCH /link/{link_id}`"] == 500  # the index of changes deletes and puts
    assert a_second["`GET /link?q=`, one request"] == 3000 // 128
    # A page of a tag, or of a word, reads five half units of the entries; the links are spread by their ids.
    for what in ("tag", "q"):
        assert a_second[f"`GET /link?{what}=`, 100 of 1,000{grow.WITH_SEARCH}"] == 3000 / 2.5
    assert "`GET /link/{link_id}`" not in a_second


def test_a_scan_without_its_next_pages_leaves_links_out(stores):
    one, every = grow.scanned(grow.textbook_client(), 10_000)
    assert (one.items, one.items * 200 <= 2**20 < (one.items + 1) * 200) == (5242, True)
    assert (every.items, every.bytes) == (10_000, 2_000_000)


def test_a_scan_by_arithmetic_ends_where_that_of_moto_ends(dynamodb):
    """With items of 200,000 bytes, so that a few are 1 MB."""

    def make(number):
        return grow.textbook(number) | {"notes": {"S": "n" * 199_795}}

    schema = {"AttributeDefinitions": [{"AttributeName": "link_id", "AttributeType": "S"}]}
    schema |= {"KeySchema": [{"AttributeName": "link_id", "KeyType": "HASH"}], "BillingMode": "PAY_PER_REQUEST"}
    dynamodb.create_table(TableName="textbook", **schema)
    for number in range(7):
        dynamodb.put_item(TableName="textbook", Item=make(number))
    real = dynamodb.scan(TableName="textbook")
    dynamodb.delete_table(TableName="textbook")
    store, client = grow.Store(make), grow.textbook_client()
    store.scanned_by(client)
    store.count = 7
    ours = client.scan(TableName="textbook")
    assert billing.item_bytes(make(0)) == 200_000
    assert len(real["Items"]) == len(ours["Items"]) == 5
    assert real["LastEvaluatedKey"].items() <= ours["LastEvaluatedKey"].items()


def test_a_walk_has_all_links(stores):
    index, store, _ = stores
    pages = [grow.walk(index, store, count) for count in (1, 999, 1000, 1001, 4200)]
    assert pages == [1, 1, 1, 2, 5]


def test_a_walk_that_misses_a_link_fails(stores, monkeypatch):
    index, store, _ = stores
    page = store.page
    monkeypatch.setattr(store, "page", lambda asked: page(asked) | {"Items": page(asked)["Items"][1:]})
    with pytest.raises(cost.CostError, match="Link 1499 should come, and 1498 came"):
        grow.walk(index, store, 1500)


def test_a_search_goes_through_all_links(stores):
    index, store, meter = stores
    store.count, calls, path, meter.kind = 10_000, 0, "/link?q=nothing", grow.Kind("a search")
    while path:
        answer, _ = grow.send(index, "GET", path)
        assert json.loads(answer["body"]) == []
        path, calls = grow.following(answer), calls + 1
    kind, meter.kind = meter.kind, None
    assert (calls, kind.calls, kind.items) == (4, 4, 10_000)


def test_an_unknown_query_is_a_sentence(stores):
    index, store, _ = stores
    with pytest.raises(SystemExit, match="does not know what is read for such a query; add it to Store."):
        grow.send(index, "GET", "/link?since=2026-01-01T00:00:00Z")


# --- What docs/scale.md says


@pytest.mark.parametrize("bench", [grow, shards], ids=["grow", "shards"])
def test_the_document_has_what_is_printed(bench, template):
    printed = bench.report(template, tomllib.loads((ROOT / "scripts" / "prices.toml").read_text()))
    document = (ROOT / "docs" / "scale.md").read_text()
    for table in printed.split("\n\n"):
        assert table in document, f"put into docs/scale.md what bench/{bench.__name__}.py prints:\n{table}"


# --- The index in shards

IDS = st.uuids().map(str)
TIMES = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 2**40))  # equal, nearly equal, and far apart
LINKS = st.dictionaries(IDS, TIMES, max_size=60).map(lambda times: [(time, one) for one, time in times.items()])


@given(st.integers(1, 16), st.integers(1, 70), st.data(), LINKS, LINKS)
@settings(deadline=None)
def test_a_merged_walk_has_each_link_once_and_in_order(count, limit, data, start, added):
    each = data.draw(st.integers(1, limit + 1))
    index = Shards(count)
    for key in start:
        index.add(key)
    added = [key for key in added if key not in start]
    pages = walked(index, limit, each, added)
    assert is_right(pages, start, added)
    assert all(1 <= len(page) <= limit for page in pages[:-1])
    if each > limit:
        assert all(len(page) == limit for page in pages[:-1]), "a page is full while there are more"
    if not added:
        assert sum(pages, []) == sorted(start, reverse=True)


def test_what_is_right_can_be_wrong():
    start, added = [(2, "b"), (1, "a")], [(3, "c")]
    assert is_right([[(3, "c")], [(2, "b"), (1, "a")]], start, added)
    for pages in ([[(2, "b")]], [[(1, "a"), (2, "b")]], [[(2, "b")], [(2, "b"), (1, "a")]]):
        assert not is_right(pages, start, added)
    assert not is_right([[(2, "b"), (1, "a")], [(0, "d")]], start, added)


class ByTime(Shards):
    """An index whose sort key is the time alone: links of one millisecond come in an order of DynamoDB's own."""

    def query(self, part, limit, position):
        place = lambda key: (key[0], zlib.crc32(key[1].encode()))
        left = sorted((key for key in part if not position or place(key) < place(position)), key=place, reverse=True)
        return left[:limit], len(left) > limit


@pytest.mark.parametrize("index, lost", [(Shards, False), (ByTime, True)])
def test_by_the_time_alone_a_walk_can_lose_links_of_one_millisecond(index, lost):
    start, found = shards.keys(random.Random(1), 300, skewed=False), []
    index = index(3)
    for key in start:
        index.add(key)
    with contextlib.suppress(IndexError):  # of a page without links, from which no position leads on
        for page in index.pages(10, 11):
            found += page
    assert (set(found) < set(start)) == lost


@pytest.fixture(params=["moto", "engine"])
def table_client(request, template, dynamodb):
    """A client of a DynamoDB that has the table `links`."""
    there = dynamodb if request.param == "moto" else client(request.getfixturevalue("engine"), "dynamodb")
    with loading.table_of(plain(template), there, "links"):
        yield there


@pytest.fixture
def sharded(module, table_client):
    """A table with 60 links in 3 shards, some of the same millisecond, whose sort key ends with the id."""
    index = Shards(3)
    for number in range(60):
        key = f"2026-11-20T23:00:00.{number // 20:03}Z", module.link_id_of(f"https://a.com/{number}")
        index.add(key)
        owner, when = f"everyone#{shard_of(key[1], 3)}", " ".join(key)
        item = {"owner": owner, "created_at": when, "updated_at": when, "link_id": key[1], "link": "see url"}
        table_client.put_item(TableName="links", Item=module.encode_all(item))
    return index


def test_one_position_does_for_the_queries_of_all_shards(table_client, sharded):
    """DynamoDB's Query takes as ExclusiveStartKey what is no item; on moto and the local engine at least."""

    def query(shard, limit, position):
        start = {}
        if position:
            names = ("owner", "created_at", "link_id", "link")
            values = (f"everyone#{shard}", " ".join(position), position[1], "see url")
            start = {"ExclusiveStartKey": {name: {"S": value} for name, value in zip(names, values)}}
        page = table_client.query(
            TableName="links",
            IndexName="newest",
            KeyConditionExpression="#owner = :owner",
            ExpressionAttributeNames={"#owner": "owner"},
            ExpressionAttributeValues={":owner": {"S": f"everyone#{shard}"}},
            ScanIndexForward=False,
            Limit=limit,
            **start,
        )
        return [tuple(item["created_at"]["S"].split(" ")) for item in page["Items"]]

    everything = sorted(sum(sharded.parts, []), reverse=True)
    for position in (None, *everything):
        for shard, part in enumerate(sharded.parts):
            assert query(shard, 5, position) == sharded.query(part, 5, position)[0]
