"""`make reindex`: it makes the index of a store again while people write, and lets the stream be followed in each case."""

import json
import re

import pytest

import reindex
import stack
from conftest import (
    client,
    create,
    create_stack,
    eventually,
    http_api,
    named,
    resource_ids,
)
from record import handler
from reindex import search
from test_scripts import make

STORE = named("indexed")
ADDON = named("finds")  # an add-on may have any name
BASE = "https://example.com/"


@pytest.fixture(scope="module")
def store(engine):
    """An Api of a store with the add-on search."""
    url = create_stack(engine, STORE)
    create(engine, ADDON, "addons/search.yml", {"Store": STORE})
    with http_api(engine, url) as api:
        yield api


@pytest.fixture
def here(engine, monkeypatch):
    """Let this process reach the engine."""
    for name, value in engine.settings.items():
        monkeypatch.setenv(name, value)


class Index:
    """What is in the index of the store, and what must be."""

    def __init__(self, engine):
        self.dynamodb, self.lambda_ = client(engine, "dynamodb"), client(engine, "lambda")
        self.ids, self.table = resource_ids(engine, ADDON), resource_ids(engine, STORE)["Table"]

    def items(self, table):
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=table)
        found = [item for page in pages for item in page["Items"]]
        return json.loads(json.dumps(found), object_hook=handler.decode)

    def found(self):
        """Return the keys of all entries, and the counts of tags."""
        items = self.items(self.ids["Index"])
        keys = {(item["term"], item["place"]) for item in items if "link" in item}
        return keys, {item["place"]: item["count"] for item in items if item["term"] == "#"}

    def expected(self):
        links = [item for item in self.items(self.table) if "created_at" in item]
        tags = [tag for link in links for tag in link.get("tags", [])]
        return set().union(*map(search.entries_of, links)), {tag: tags.count(tag) for tag in tags}

    def is_right(self):
        """Return whether it is as it must be, but for tags that no link has any more, which may be counted as 0."""
        keys, counts = self.found()
        return (keys, {tag: count for tag, count in counts.items() if count}) == self.expected()

    def put(self, **item):
        self.dynamodb.put_item(TableName=self.ids["Index"], Item=handler.encode_all(item))

    def delete(self, term, place):
        key = handler.encode_all({"term": term, "place": place})
        self.dynamodb.delete_item(TableName=self.ids["Index"], Key=key)

    def state(self):
        """Return whether the stream is followed."""
        return self.lambda_.get_event_source_mapping(UUID=self.ids["Mapping"])["State"]


@pytest.fixture
def index(engine, store):
    return Index(engine)


def test_the_index_is_made_again_while_people_write(engine, store, index, here, monkeypatch, capsys):
    records = [store.post(f"{BASE}{n}", tags=["tag", f"t{n % 3}"], title=f"needle {n}") for n in range(30)]
    store.post(f"{BASE}once", expires_at="2999-12-31T23:59:59Z")
    eventually(index.is_right, "the index of what is stored")
    missing = list(index.found()[0])[::2]
    for key in missing:
        index.delete(*key)
    index.put(term="#tag", place="2026 nobody", link="see url")
    index.put(term="wor", place=f"word{search.END}2026 nobody", link="see url")
    index.put(term="#", place="tag", count=7)
    index.put(term="#", place="none", count=3)
    follow = reindex.follow

    def writing(lambda_, mapping, enabled):
        follow(lambda_, mapping, enabled)
        if not enabled:
            assert index.state() == "Disabled"
            assert store("DELETE", f"/link/{records[0]['link_id']}").status_code == 204
            assert store("PATCH", f"/link/{records[1]['link_id']}", {"tags": ["changed"]}).status_code == 200
            store.post(f"{BASE}during", tags=["tag"])

    monkeypatch.setattr(reindex, "follow", writing)
    reindex.reindex(STORE)
    assert index.is_right(), "before the stream is followed, or while it is"
    assert "none" not in index.found()[1]
    said = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"199 entries are put, \d+ deleted that no link has, 5 tags counted\.", said)
    store.post(f"{BASE}after", tags=["tag"])
    eventually(lambda: len(store.all("/link?tag=tag")) == 30, "what came after it")
    assert index.is_right() and index.state() == "Enabled"
    assert [each["tag"] for each in store.all("/tags")] == ["changed", "t0", "t1", "t2", "tag"]


def test_what_changed_before_it_and_is_followed_after_it_is_not_counted_twice(engine, store, index, here, monkeypatch):
    """The stream says it again of changes that the new index has already."""
    eventually(index.is_right, "the index of what is stored")
    index.lambda_.update_event_source_mapping(UUID=index.ids["Mapping"], Enabled=False)
    one, two = (store.post(f"{BASE}late-{n}", tags=["late"]) for n in range(2))
    for tags in ([], ["late"], ["late", "later"]):
        assert store("PATCH", f"/link/{one['link_id']}", {"tags": tags}).status_code == 200
    assert store("DELETE", f"/link/{two['link_id']}").status_code == 204
    reindex.reindex(STORE)
    last = store.post(f"{BASE}last", title="lastly")
    eventually(lambda: store.all("/link?q=lastly") == [last], "the end of the stream")
    eventually(index.is_right, "the index of what is stored")


def test_a_stream_that_stops_leaves_readers_what_the_index_had(store, index):
    """What docs/scale.md says of it."""
    kept, gone, untagged = (store.post(f"{BASE}{name}", tags=["stops"]) for name in ("kept", "gone", "untagged"))
    counted = lambda: {each["tag"]: each["count"] for each in store.all("/tags")}
    eventually(lambda: counted().get("stops") == 3, "three links of a tag")
    index.lambda_.update_event_source_mapping(UUID=index.ids["Mapping"], Enabled=False)
    try:
        new = store.post(f"{BASE}new", tags=["stops"], title="unheard")
        assert store("DELETE", f"/link/{gone['link_id']}").status_code == 204
        assert store("PATCH", f"/link/{untagged['link_id']}", {"tags": []}).status_code == 200
        assert store.all("/link?tag=stops") == [kept]
        assert store.all("/link?q=unheard") == []
        assert counted()["stops"] == 3
        listed = store.all()
        assert listed[0] == new and gone not in listed
        changed = [each["link_id"] for each in store.all(f"/link?since={new['updated_at']}")]
        assert changed == [each["link_id"] for each in (new, gone, untagged)]
    finally:
        index.lambda_.update_event_source_mapping(UUID=index.ids["Mapping"], Enabled=True)
    eventually(lambda: store.all("/link?tag=stops") == [new, kept], "what changed meanwhile")
    eventually(lambda: counted()["stops"] == 2, "the right count")


def test_it_puts_the_mark_that_all_links_are_in_the_index(store, index, here):
    index.delete(search.MADE, search.MADE)
    marks = lambda: [item for item in index.items(index.ids["Index"]) if item["term"] == search.MADE]
    assert marks() == []
    reindex.reindex(STORE)
    assert marks() == [{"term": search.MADE, "place": search.MADE}]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError])
def test_the_stream_is_followed_again_after_a_failure(store, index, here, monkeypatch, failure):
    def fails(*_):
        assert index.state() == "Disabled"
        raise failure

    monkeypatch.setattr(reindex, "make", fails)
    with pytest.raises(failure):
        reindex.reindex(STORE)
    assert index.state() == "Enabled"


def test_visits_by_day_are_left_alone(store, index, here):
    record = store.post(f"{BASE}visited")
    path = f"/go/{record['link_id']}"
    assert store.send("GET", path, {}, None).status_code == 302
    days = eventually(lambda: index.items(index.ids["Visits"]), "the day of a visit")
    reindex.reindex(STORE)
    assert index.items(index.ids["Visits"]) == days


def test_make_reindex(engine, store, index):
    code, printed = make(engine, "reindex", f"STACK={STORE}")
    assert code == 0 and " entries are put, 0 deleted that no link has, " in printed, printed
    assert index.is_right()


def test_a_store_without_the_add_on_is_a_sentence(engine, store, here):
    create_stack(engine, named("bare"))
    with pytest.raises(stack.StackError) as refused:
        reindex.reindex(named("bare"))
    assert str(refused.value) == (
        f"Stack {named('bare')} has no add-on search, and so no index. Deploy that too:"
        f' make deploy STACK={named("bare")} ADDONS="page search"'
    )
    with pytest.raises(stack.StackError, match="^There is no stack none in us-east-1"):
        reindex.reindex("none")
