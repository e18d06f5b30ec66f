"""The add-on search: what finds a link, that its tables are exact whatever happens, and that readers look at the links.

`pytest -s tests/test_search.py -k random` prints what happened in the random test.
"""

import contextlib
import json
import random
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from threading import Barrier, Lock
from urllib.parse import quote, urlencode

import botocore.exceptions
import httpx
import pytest
from cfnlint.decode import decode
from hypothesis import given
from hypothesis import strategies as st

import faults
import loading
from conftest import (
    SEARCH,
    Api,
    Stream,
    aws,
    client,
    create,
    create_stack,
    delete_stack,
    emptied,
    eventually,
    http_api,
    items_of,
    named,
    operation_of,
    plain,
    resource_ids,
)
from stacks import without
from test_faults import TIMEOUTS, Faults
from test_hostile import some
from test_races import at_once, warm_up

BASE = "https://example.com/"
END = "\U0010ffff"


def following(send, follow):
    """Return a function that sends requests, but none that reads what the stream makes before it has been followed."""

    def in_order(method, path, headers, body):
        if method == "GET" and re.search("^/tags|/visits|[?&](tag|q)=", path):
            follow()
        return send(method, path, headers, body)

    return in_order


@pytest.fixture
def api(events_api, addon):
    return Api(following(events_api.send, addon.follow))


@pytest.fixture(params=["index", "reading"])
def way(request, addon):
    """Search by the index, or by reading: both must find the same."""
    addon.gone = request.param == "reading"
    return request.param


def next_of(answer):
    """Return the path of the next page, or None."""
    url = answer.links.get("next", {}).get("url")
    return url and "/" + url.split("/", 4)[4]


def numbers_of(records):
    return [int(record["link"].removeprefix(BASE)) for record in records]


def all_items(dynamodb, table):
    pages = dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return [item for page in pages for item in page["Items"]]


# --- What finds a link

FOUND_BY = {
    "the beginning of a word": ({"title": "Wikipedia"}, "wik"),
    "a whole word": ({"title": "Wikipedia"}, "wikipedia"),
    "other case": ({"title": "STRASSE"}, "stra\u00dfe"),
    "other form": ({"title": "\uff37\uff49\uff4b\uff49"}, "wiki"),
    "composed": ({"title": "cafe\u0301"}, "caf\u00e9"),
    "decomposed": ({"title": "caf\u00e9"}, "cafe\u0301"),
    "a long word": ({"title": "w" * 300}, "w" * 300),
    "as long a word as there is": ({"title": "\U00010437" * 512}, "\U00010437" * 100),
    "notes": ({"notes": "line\nneedle"}, "need"),
    "a tag": ({"tags": ["to do", "needle/work"]}, "work"),
    "all words": ({"title": "one two", "notes": "three"}, "thr two one"),
    "a host": ({"link": "https://www.wikipedia.org/x"}, "wikipedia.org"),
    "a path": ({"link": BASE + "a/needle.html"}, "needle"),
    "a whole URL": ({"link": "https://www.wikipedia.org/wiki/Needle"}, "https://www.wikipedia.org/wiki/Needle"),
    "what is percent-encoded": ({"link": BASE + "stra%C3%9Fenbau"}, "strassenb"),
    "Chinese": ({"title": "\u4e2d\u534e\u4eba\u6c11\u5171\u548c\u56fd"}, "\u4eba\u6c11"),
    "more Chinese": ({"title": "\u4e2d\u534e\u4eba\u6c11\u5171\u548c\u56fd"}, "\u4eba\u6c11\u5171\u548c"),
    "one Chinese character": ({"title": "\u4e2d\u534e"}, "\u534e"),
    "Japanese": ({"title": "\u6771\u4eac\u30bf\u30ef\u30fc"}, "\u30bf\u30ef\u30fc"),
    "Japanese of half width": ({"title": "\u30bf\u30ef\u30fc"}, "\uff80\uff9c\uff70"),
    "Korean": ({"title": "\ud55c\uad6d\uc5b4 \uc704\ud0a4"}, "\ud55c\uad6d"),
    "Thai": ({"notes": "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22"}, "\u0e44\u0e17\u0e22"),
    "Khmer": ({"notes": "\u1797\u17b6\u179f\u17b6\u1781\u17d2\u1798\u17c2\u179a"}, "\u1781\u17d2\u1798\u17c2\u179a"),
    "Hindi": ({"title": "\u0939\u093f\u0928\u094d\u0926\u0940"}, "\u0939\u093f\u0928\u094d"),
    "Arabic": ({"title": "\u0627\u0644\u0639\u0631\u0628\u064a\u0629"}, "\u0627\u0644\u0639\u0631"),
    "Cyrillic": ({"title": "\u041c\u043e\u0441\u043a\u0432\u0430"}, "\u043c\u043e\u0441"),
    "Greek": ({"title": "\u039f\u0394\u039f\u03a3"}, "\u03bf\u03b4\u03cc\u03c2".replace("\u03cc", "\u03bf")),
    "digits": ({"title": "RFC 9110"}, "911"),
    "two letters": ({"title": "Go"}, "go"),
    "one letter": ({"title": "R & C"}, "c"),
    "no word": ({"title": "R & C"}, "&"),
    "no word beside one": ({"title": "needle & C"}, "& needle"),
    "a word with signs": ({"title": "C++ and C#"}, "c++ c#"),
    "words with a dot": ({"title": "node.js"}, "node.js"),
    "a word in quotation marks": ({"title": "needle"}, "\u201cneedle\u201d,"),
    "Chinese in quotation marks": ({"title": "\u4e2d\u534e\u4eba"}, "\u300c\u4e2d\u534e\u300d\u3002"),
    "a percent-encoded URL": ({"link": BASE + "stra%C3%9Fe/%E4%B8%AD?a=b%20c"}, BASE + "stra%C3%9Fe/%E4%B8%AD?a=b%20c"),
    "what was encoded, in notes": ({"notes": "see stra%C3%9Fe"}, "stra\u00dfe"),
    "an emoji": ({"title": "tea \U0001f375"}, "\U0001f375"),
    "two scripts": ({"title": "AI\u6771\u4eac"}, "ai\u6771\u4eac"),
}
NOT_FOUND_BY = {
    "the end of a word": ({"title": "Wikipedia"}, "pedia"),
    "one of two words": ({"title": "Wikipedia"}, "wiki other"),
    "a longer word": ({"title": "Wiki"}, "wikipedia"),
    "an ending of many URLs": ({"link": BASE + "a"}, "com"),
    "the scheme": ({"link": BASE + "a"}, "https"),
    "another tag": ({"tags": ["one"]}, "two"),
    "Chinese that is apart": ({"title": "\u4e2d\u534e\u4eba"}, "\u4e2d\u4eba"),
    "a word, but not the sign beside it": ({"title": "needle C"}, "& needle"),
    "a word, but not the sign in it": ({"title": "C and nodejs"}, "c++"),
    "a word, but not the dot in it": ({"title": "node and js"}, "node.js"),
}


@pytest.mark.parametrize("case", FOUND_BY)
def test_a_link_is_found_by(api, way, case):
    fields, words = FOUND_BY[case]
    record = api.post(**{"link": BASE} | fields)
    api.post("https://nothing.example/")
    assert api.all("/link?" + urlencode({"q": words})) == [record]


@pytest.mark.parametrize("case", NOT_FOUND_BY)
def test_a_link_is_not_found_by(api, way, case):
    fields, words = NOT_FOUND_BY[case]
    api.post(**{"link": BASE} | fields)
    assert api.all("/link?" + urlencode({"q": words})) == []


# What begins with three letters, or two of a script without spaces, is looked up; all else is read.
@pytest.mark.parametrize(
    "q, by_index",
    [("wik", True), ("wi", False), ("& wiki", True), ("&", False), ("\u4eba\u6c11", True), ("\u4eba", False)],
)
def test_what_is_found_by_the_index(api, addon, on_the_way, q, by_index):
    api.post(BASE)
    addon.follow()
    made = []
    on_the_way(lambda request: made.append((operation_of(request), json.loads(request.body)["TableName"])))
    api("GET", "/link?" + urlencode({"q": q}))
    assert made == [("Query", "index" if by_index else "links")]


def test_several_tags_and_words_are_all_asked_for(api, way):
    for n in range(30):
        tags = [name for name, each in (("even", 2), ("third", 3), ("fifth", 5)) if n % each == 0]
        api.post(f"{BASE}{n}", tags=tags, title=f"number {n} {'prime' if n in (2, 3, 5, 7) else 'other'}")
    for query, numbers in (
        ("tag=even", range(0, 30, 2)),
        ("tag=even&tag=third", range(0, 30, 6)),
        ("tag=third&tag=even&q=number", range(0, 30, 6)),
        ("tag=even&q=prim", [2]),
        ("tag=even&tag=third&tag=fifth", [0]),
        ("q=number+prime", [2, 3, 5, 7]),
        ("tag=nothing&q=number", []),
        ("tag=even&tag=nothing", []),
    ):
        for limit in ("", "&limit=1", "&limit=4"):
            assert numbers_of(api.all(f"/link?{query}{limit}")) == sorted(numbers, reverse=True)


def test_of_a_word_the_very_word_comes_first_and_then_longer_ones(api):
    for n, title in enumerate(["wiki", "wikis", "wikipedia wiki", "wikis", "\u0432\u0438\u043a", "wiki wikia"]):
        api.post(f"{BASE}{n}", title=title)
    for limit in ("", "&limit=1", "&limit=2"):
        assert numbers_of(api.all(f"/link?q=wiki{limit}")) == [5, 2, 0, 3, 1], "each once, where its first word is"


def test_a_page_has_as_many_links_as_asked_for_and_a_hundred_at_most(api):
    for n in range(105):
        api.post(f"{BASE}{n}", tags=["tag"])
    for limit, sizes in (("", [100, 5]), ("?limit=1000", [100, 5]), ("?limit=60", [60, 45]), ("?limit=35", [35] * 3)):
        pages = list(api.pages("/link?tag=tag" + limit.replace("?", "&")))
        assert [len(page) for page in pages] == sizes
        assert numbers_of(sum(pages, [])) == list(range(104, -1, -1))


def test_a_tag_is_matched_as_it_is(api, way):
    tags = ["a", "A", "a b", " a", "a\nb", "#a", "#", "\u00e9", "e\u0301", "\U0001f600" * 64]
    records = {tag: api.post(f"{BASE}{n}", tags=[tag]) for n, tag in enumerate(tags)}
    for tag, record in records.items():
        assert api.all("/link?tag=" + quote(tag)) == [record]
    assert {each["tag"]: each["count"] for each in api.all("/tags")} == dict.fromkeys(tags, 1)
    assert [each["tag"] for each in api.all("/tags")] == sorted(tags)


def test_a_link_has_at_most_200_words(api, way, dynamodb):
    """Those of the URL and the title come before those of the notes."""
    api.post(BASE, title="title", notes=" ".join(f"word{n:03}" for n in range(300)))
    assert len(api.all("/link?q=word197")) == 1, "with example and title it is the last"
    assert api.all("/link?q=word198") == []
    if way == "index":
        assert len(all_items(dynamodb, "index")) == 200 + 1, "and the mark that the index is made"


# --- Which entries are read


@pytest.fixture
def terms(on_the_way):
    """The terms of the entries that are asked for, in their order."""
    asked = []

    def look(request):
        body = json.loads(request.body)
        if operation_of(request) == "Query" and body["TableName"] == "index":
            asked.append(body["ExpressionAttributeValues"][":term"]["S"])

    on_the_way(look)
    return asked


def test_the_tag_that_the_fewest_have_is_read_and_to_the_end(api, terms):
    """Though others have fewer by then."""
    for n in range(6):
        api.post(f"{BASE}{n}", tags=["common", "rare"] if n < 3 else ["common"], title="needle")
    first = api("GET", "/link?tag=common&tag=rare&q=needle&limit=1")
    for n in range(6, 20):
        api.post(f"{BASE}{n}", tags=["rare"])
    rest = api.all(next_of(first))
    assert numbers_of(first.json() + rest) == [2, 1, 0]
    assert set(terms) == {"#rare"}
    terms.clear()
    assert numbers_of(api.all("/link?tag=rare&tag=common")) == [2, 1, 0]
    assert terms == ["#common"], "which now the fewest have"


def test_of_words_the_longest_is_read(api, terms):
    api.post(BASE, title="needle in a haystack")
    assert len(api.all("/link?q=needle+hays+in")) == 1
    assert terms == ["nee"]


# --- Going on with a list


@pytest.mark.parametrize("other", ["tag=b", "q=wikipe", "q=wikidata", "q=other", "tag=a&tag=b", "tag=a&q=wiki"])
def test_a_cursor_of_another_search_is_refused(api, other):
    for n in range(2):
        api.post(f"{BASE}{n}", tags=["a", "b"], title="wikipedia wikidata other")
    for query in ("tag=a", "q=wikipedia"):
        cursor = next_of(api("GET", f"/link?{query}&limit=1")).split("cursor=")[1]
        assert len(api("GET", f"/link?{query}&cursor={cursor}").json()) == 1
        for refused in (f"/link?{other}&cursor={cursor}", f"/link?cursor={cursor}", f"/tags?cursor={cursor}"):
            api.refuses(400, "^cursor must be one", "GET", refused)


@pytest.mark.parametrize("query", ["tag=a", "q=needle"])
def test_a_list_that_was_begun_by_reading_goes_on_so(api, addon, handler, query):
    for n in range(4):
        api.post(f"{BASE}{n}", tags=["a"], title="needle")
    addon.gone = True
    first = api("GET", f"/link?{query}&limit=1")
    addon.gone, handler.absent_until = False, 0
    addon.asked.clear()
    assert numbers_of(first.json() + api.all(next_of(first))) == [3, 2, 1, 0]
    assert addon.asked == []


FAILURES = {
    "no connection": botocore.exceptions.ConnectTimeoutError(endpoint_url="https://lambda"),
    "no answer": botocore.exceptions.ReadTimeoutError(endpoint_url="https://lambda"),
    "an exception": httpx.Response(200, json={"errorMessage": "x"}, headers={"X-Amz-Function-Error": "Unhandled"}),
    "throttled": httpx.Response(429, json={"Type": "User", "message": "Rate Exceeded."}),
    "not allowed": httpx.Response(403, json={"Message": "User is not authorized."}),
    "no JSON": httpx.Response(502, text="<html>"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_list_that_the_index_began_waits_for_it(api, addon, failure):
    for n in range(4):
        api.post(f"{BASE}{n}", tags=["a"], title="needle")
    first = api("GET", "/link?tag=a&limit=1")
    addon.failure = FAILURES[failure]
    answer = api("GET", next_of(first))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    addon.failure = None
    assert numbers_of(first.json() + api.all(next_of(first))) == [3, 2, 1, 0]


def test_a_list_that_the_index_began_cannot_go_on_without_it(api, addon):
    for n in range(4):
        api.post(f"{BASE}{n}", tags=["a"])
    first = api("GET", "/link?tag=a&limit=1")
    addon.gone = True
    api.refuses(400, "^cursor must be one", "GET", next_of(first))


@pytest.mark.parametrize("failure", FAILURES)
def test_a_list_begins_by_reading_if_the_add_on_fails(api, addon, failure):
    record = api.post(BASE, tags=["a"], title="needle")
    addon.failure = FAILURES[failure]
    assert api.all("/link?tag=a") == api.all("/link?q=nee") == [record]
    assert api.all("/tags") == [{"tag": "a", "count": 1}]
    assert len(addon.asked) == 3, "it is asked each time"
    assert api("GET", f"/link/{record['link_id']}/visits").status_code == 503, "which nothing else knows"


def test_that_there_is_no_add_on_is_remembered_for_a_minute(api, addon, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now)
    record = api.post(BASE, tags=["a"])
    addon.gone = True
    for path in ("/link?tag=a", "/link?q=exam", "/tags", "/feed?tag=a"):
        assert api("GET", path).status_code == 200
    assert len(addon.asked) == 1
    addon.gone, now = False, now + 59
    assert api.all("/link?tag=a") == [record]
    assert len(addon.asked) == 1
    now += 2
    assert api.all("/link?tag=a") == [record]
    assert len(addon.asked) == 2
    assert addon.asked[1]["question"] == "links"


def test_what_only_the_add_on_knows_it_is_asked_though_it_was_not_there(api, addon, handler, monkeypatch):
    """Other functions that run at the same time may have found it since."""
    older, newer = (api.post(f"{BASE}{n}", tags=["a"]) for n in range(2))
    addon.follow()
    following = api("GET", "/link?tag=a&limit=1").links["next"]["url"]
    monkeypatch.setattr(handler, "absent_until", time.monotonic() + 60)
    assert api("GET", "/" + following.split("/", 4)[4]).json() == [older]
    assert api("GET", f"/link/{newer['link_id']}/visits").json() == []


def test_a_feed_has_the_newest(api, addon):
    """Of a tag by the index, which has them so; of words by reading, as there the very word comes first."""
    for n, title in enumerate(["needle", "needles", "needle", "other"] * 20):
        api.post(f"{BASE}{n}", tags=["tag"] if n % 2 else [], title=title)
    addon.asked.clear()
    for query, numbers in (
        ("tag=tag", range(79, 0, -2)),
        ("q=needle", [n for n in range(79, -1, -1) if n % 4 != 3][:50]),
        ("tag=tag&q=needle", range(77, 0, -4)),
    ):
        found = re.findall(rf'<link href="{BASE}(\d+)"/>', api("GET", f"/feed?{query}").text)
        assert list(map(int, found)) == list(numbers)
    assert [(each["tags"], each["words"]) for each in addon.asked] == [(["tag"], []), (["tag"], ["needle"])]


def test_what_has_changed_is_read(api, addon):
    record = api.post(BASE + "0", tags=["tag"], title="needle")
    api.post(BASE + "1")
    gone = api.post(BASE + "2")
    api("DELETE", f"/link/{gone['link_id']}")
    found = api.all("/link?since=2020-01-01T00:00:00Z&tag=tag&q=needle")
    assert found[0] == record and found[1]["link_id"] == gone["link_id"] and len(found) == 2
    assert addon.asked == []


def test_links_from_before_are_read_until_the_index_is_made(api, addon, search, dynamodb, monkeypatch):
    """A store that had links before it had the add-on."""
    mark = {"term": {"S": "made"}, "place": {"S": "made"}}
    dynamodb.delete_item(TableName="index", Key=mark)
    monkeypatch.setattr(search, "made", False)
    record = api.post(BASE, tags=["tag"], title="needle")
    addon.stream.records()
    for _ in range(2):
        assert api.all("/link?tag=tag") == api.all("/link?q=needle") == [record]
        assert api.all("/tags") == [{"tag": "tag", "count": 1}]
        assert search.lambda_handler({"question": "made", "cursor": None}, None) is False
    dynamodb.put_item(TableName="index", Item=mark)
    assert search.lambda_handler({"question": "made", "cursor": None}, None) is True
    assert api.all("/link?tag=tag") == api.all("/tags") == [], "now it is asked, and has nothing"


def test_an_index_is_not_made_by_what_fills_a_page(api, addon, search, dynamodb, monkeypatch):
    """Of links so large that DynamoDB's page ends with them, before the others that were there."""
    dynamodb.delete_item(TableName="index", Key={"term": {"S": "made"}, "place": {"S": "made"}})
    monkeypatch.setattr(search, "made", False)
    api.post(BASE + "before", tags=["tag"])
    addon.stream.records()
    for n in range(40):
        api.post(f"{BASE}{n}", notes="\U0001f517" * 8192, created_at="1990-01-01T00:00:00Z")
    addon.follow()
    assert search.lambda_handler({"question": "made"}, None) is False


@pytest.mark.parametrize("before", [False, True], ids=["the first ones", "others were there"])
def test_an_index_is_made_if_all_links_came_into_it(api, addon, search, dynamodb, monkeypatch, before):
    """Store and add-on are made without being asked anything, and links come at once."""
    mark = {"term": {"S": "made"}, "place": {"S": "made"}}
    dynamodb.delete_item(TableName="index", Key=mark)
    monkeypatch.setattr(search, "made", False)
    if before:
        api.post(BASE + "before", tags=["tag"])
        addon.stream.records()
    for n in range(3):
        api.post(f"{BASE}{n}", tags=["tag"])
    addon.follow()
    assert search.lambda_handler({"question": "made", "cursor": None}, None) is not before
    api("PATCH", f"/link/{api.all()[-1]['link_id']}", {"title": "changed"})
    addon.follow()
    assert search.lambda_handler({"question": "made", "cursor": None}, None) is not before
    assert len(api.all("/link?tag=tag")) == 3 + before


# --- Readers look at the links


def test_no_entry_shows_what_no_longer_is(api, addon):
    """The stream stops after the first writes: all that the index says from then on is stale."""
    kept = api.post(BASE + "kept", tags=["tag"], title="needle")
    changed = api.post(BASE + "changed", tags=["tag"], title="needle")
    deleted = api.post(BASE + "deleted", tags=["tag"], title="needle")
    api("PUT", "/link/again", {"link": BASE, "tags": ["tag"], "title": "needle", "created_at": "2001-01-01T00:00:00Z"})
    assert len(api.all("/link?tag=tag")) == len(api.all("/link?q=needle")) == 4
    addon.stopped = True
    api("PATCH", f"/link/{changed['link_id']}", {"tags": ["other"], "title": "pin"})
    api("DELETE", f"/link/{deleted['link_id']}")
    api("DELETE", "/link/again")
    api("PUT", "/link/again", {"link": BASE, "tags": ["tag"], "title": "needle"})
    for query in ("tag=tag", "q=needle", "q=nee&tag=tag"):
        assert api.all(f"/link?{query}") == [kept], "the one of another time is found when its entry is there"
    assert api.all("/link?tag=other") == [], "and so is the new tag"
    addon.stopped = False
    assert len(api.all("/link?tag=tag")) == 2 and len(api.all("/link?tag=other")) == 1


def test_an_orphaned_entry_is_passed_over(api, dynamodb):
    record = api.post(BASE, tags=["tag"])
    for n in range(3):
        entry = {"term": "#tag", "place": f"2999-01-0{n + 1}T00:00:00.000Z gone-{n}", "link": "see url"}
        dynamodb.put_item(TableName="index", Item={name: {"S": value} for name, value in entry.items()})
    for limit in ("", "&limit=1", "&limit=2"):
        assert api.all(f"/link?tag=tag{limit}") == [record]


@pytest.fixture
def later(monkeypatch):
    """A function that lets so many seconds pass."""
    passed, now = 0, time.time

    def add(seconds):
        nonlocal passed
        passed += seconds

    monkeypatch.setattr("time.time", lambda: now() + passed)
    return add


def test_what_has_expired_is_neither_found_nor_counted(api, addon, dynamodb, later):
    """DynamoDB deletes it days later; then it must not be subtracted any more. What expires no more is counted."""
    soon = datetime.fromtimestamp(time.time() + 3600, timezone.utc).isoformat()
    kept = api.post(BASE + "1", tags=["both", "kept"], title="needle")
    gone = api.post(BASE + "2", tags=["both", "gone"], title="needle", expires_at=soon)
    changed = api.post(BASE + "3", tags=["both"], expires_at=soon)
    assert api.all("/tags") == [{"tag": "both", "count": 3}, {"tag": "gone", "count": 1}, {"tag": "kept", "count": 1}]
    addon.stopped = True
    api("PATCH", f"/link/{changed['link_id']}", {"expires_at": None})
    later(7200)
    for stopped in (True, False, False):
        addon.stopped = stopped
        assert api.all("/link?q=needle") == [kept] and api.all("/link?tag=gone") == []
        assert api.all("/tags") == [{"tag": "both", "count": 2}, {"tag": "kept", "count": 1}]
        if not stopped:
            key = {name: {"S": gone[name]} for name in ("link_id", "link")}
            dynamodb.delete_item(TableName="links", Key=key)


def test_unprocessed_keys_are_asked_for_again(api, search, handler, monkeypatch):
    """DynamoDB, which answers two keys at a time, is asked for the rest, but not for ever."""
    for n in range(5):
        api.post(f"{BASE}{n}", tags=["tag"])
    assert len(api.all("/link?tag=tag")) == 5
    call, asked = search.call, []

    def two(operation, values=None, **request):
        if operation != "BatchGetItem":
            return call(operation, values, **request)
        ((table, given),) = request["RequestItems"].items()
        asked.append(len(given["Keys"]))
        answer = call(operation, RequestItems={table: given | {"Keys": given["Keys"][:2]}})
        left = json.loads(json.dumps(given["Keys"][2:]), object_hook=handler.decode)
        return answer | {"UnprocessedKeys": {table: given | {"Keys": left}} if left else {}}

    monkeypatch.setattr(search, "call", two)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert numbers_of(api.all("/link?tag=tag")) == [4, 3, 2, 1, 0]
    assert asked == [5, 3, 1]
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with pytest.raises(handler.ServiceUnavailable):
        search.lambda_handler(
            {"question": "links", "cursor": None, "tags": ["tag"], "words": [], "others": [], "count": 9}, None
        )


def test_a_page_costs_one_query_and_one_batch(api, on_the_way):
    for n in range(7):
        api.post(f"{BASE}{n}", tags=["tag", "other"], title="needle")
    api.all("/link?tag=tag")
    made = []
    on_the_way(lambda request: made.append(operation_of(request)))
    for query in ("tag=tag", "q=needle"):
        assert [len(page) for page in api.pages(f"/link?{query}&limit=3")] == [3, 3, 1]
        assert made == ["Query", "BatchGetItem"] * 3
        made.clear()
    assert [len(page) for page in api.pages("/link?tag=tag&tag=other&limit=4")] == [4, 3]
    assert made == ["BatchGetItem", "Query", "BatchGetItem", "Query", "BatchGetItem"], "first which the fewest have"
    made.clear()
    assert len(api.all("/tags")) == 2
    assert made == ["Query", "Query"], "the second for those that have expired"


def test_a_page_is_not_larger_than_lambda_answers(api, search):
    """6 MB, of JSON in JSON; what it says of a quotation mark is the longest."""
    for n in range(40):
        api.post(f"{BASE}{n}/".ljust(8000, '"'), notes='"' * 8192, tags=["tag"])
    pages, path = [], "/link?tag=tag"
    while path:
        pages.append(api("GET", path))
        path = next_of(pages[-1])
    found = sum((page.json() for page in pages), [])
    assert [int(record["link"].split("/")[3]) for record in found] == list(range(39, -1, -1))
    sizes = [len(page.text.encode()) for page in pages]
    assert len(pages) == 2 and max(sizes) < search.FOUND_BYTES + 50_000
    assert max(len(json.dumps({"body": page.text})) for page in pages) < 6_000_000


# --- The tags


def test_tags_are_counted_exactly_however_often_a_change_is_followed(api, addon, search):
    bodies = [{"tags": ["a", "b"]}, {"tags": ["b", "c"]}, {"tags": []}, {"tags": ["a", "c"]}]
    api("PUT", "/link/other", {"link": BASE, "tags": ["a"]})
    for body in bodies:
        api("PUT", "/link/docs", {"link": BASE, **body})
        records = addon.stream.records()
        for _ in range(3):
            search.lambda_handler({"Records": records}, None)
        counts = Counter(["a", *body["tags"]])
        assert api.all("/tags") == [{"tag": tag, "count": counts[tag]} for tag in sorted(counts)]
    for tag in ("d", "e", "d", "f"):  # followed at once
        api("PUT", "/link/docs", {"link": BASE, "tags": [tag]})
    assert api.all("/tags") == [{"tag": "a", "count": 1}, {"tag": "f", "count": 1}]
    for name in ("docs", "other"):
        api("DELETE", f"/link/{name}")
        records = addon.stream.records()
        for _ in range(3):
            search.lambda_handler({"Records": records}, None)
    assert api.all("/tags") == []


def test_tags_come_in_pages(api, dynamodb):
    """More than 1 MB, which is more than a Query answers; a line feed in a tag, on which a page ends, is kept."""
    api.all("/tags")
    for n in range(30):
        tag = {"term": {"S": "#"}, "place": {"S": f"{n:02}\nx"}, "count": {"N": str(n)}, "more": {"S": "x" * 60_000}}
        dynamodb.put_item(TableName="index", Item=tag)
    pages = list(api.pages("/tags"))
    assert len(pages) > 1
    found = [(each["tag"], each["count"]) for page in pages for each in page]
    assert found == [(f"{n:02}\nx", n) for n in range(1, 30)], "and none that no link has"


def test_tags_of_a_search_are_counted_on_its_page(api, addon):
    api.post(BASE + "1", tags=["a", "b"], title="needle")
    api.post(BASE + "2", tags=["a"])
    assert api.all("/tags?q=needle") == [{"tag": "a", "count": 1}, {"tag": "b", "count": 1}]
    assert api.all("/tags?tag=a") == [{"tag": "a", "count": 2}, {"tag": "b", "count": 1}]
    assert {each["question"] for each in addon.asked} == {"links"}


# --- What the stream leads to


def test_the_entries_of_a_link(api, addon, dynamodb):
    """As handler/search.py says."""
    expires = int(time.time()) + 3600
    soon = datetime.fromtimestamp(expires, timezone.utc).isoformat()
    record = api.post("https://www.python.org/x", title="Of \u6771\u4eac\u90fd", tags=["aws", "a b"], expires_at=soon)
    addon.follow()
    at = f"{record['created_at']} {record['link_id']}"
    words = ("python", "of", "\u6771\u4eac", "\u4eac\u90fd", "aws")
    entries = {(word[:3], word + END + at) for word in words} | {("#aws", at), ("#a b", at)}
    entries.add(("!", f"{expires:015} {record['link_id']}"))
    found = all_items(dynamodb, "index")
    assert {(item["term"]["S"], item["place"]["S"]) for item in found if "link" in item} == entries
    assert {item["link"]["S"] for item in found if "link" in item} == {record["link"]}
    counts = {(item["term"]["S"], item["place"]["S"]): item["count"]["N"] for item in found if "count" in item}
    assert counts == {("#", "aws"): "1", ("#", "a b"): "1"}


RECORDS = {
    "no record": {},
    "without images": {"dynamodb": {"Keys": {"link_id": {"S": "a"}}}},
    "of an item that is no link": {"dynamodb": {"NewImage": {"link_id": {"S": "a"}, "other": {"S": "b"}}}},
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_record_that_cannot_be_followed_is_raised(api, addon, search, case):
    """So that Lambda bisects, and the others are followed."""
    api.post(BASE, tags=["tag"])
    records = addon.stream.records()
    with pytest.raises(KeyError):
        search.lambda_handler({"Records": [*records, RECORDS[case]]}, None)
    search.lambda_handler({"Records": records}, None)
    assert len(api.all("/link?tag=tag")) == 1


@pytest.mark.parametrize("operation", ["TransactWriteItems", "BatchWriteItem", "UpdateItem", "DeleteItem"])
def test_a_write_that_fails_is_raised_and_done_when_it_comes_again(
    api, addon, search, handler, on_the_way, operation, monkeypatch
):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    api("PUT", "/link/docs", {"link": BASE, "tags": ["tag"]})
    api("PUT", "/link/gone", {"link": BASE})
    visit(api, "docs"), visit(api, "gone")
    addon.follow()
    api("PATCH", "/link/docs", {"tags": ["other"], "title": "needle"})
    api("DELETE", "/link/gone")
    visit(api, "docs")
    records, failing = addon.stream.records(), True

    def refuse(request):
        if failing and operation_of(request) == operation:
            raise botocore.exceptions.ReadTimeoutError(endpoint_url=request.url)

    on_the_way(refuse)
    with pytest.raises(handler.ServiceUnavailable):
        search.lambda_handler({"Records": records}, None)
    failing = False
    search.lambda_handler({"Records": records}, None)
    assert api.all("/link?tag=tag") == [] and len(api.all("/link?tag=other&q=needle")) == 1
    assert api.all("/tags") == [{"tag": "other", "count": 1}]
    assert sum(days_of(api, "docs").values()) == 2


def test_a_count_that_another_function_changes_at_the_same_moment_is_changed_again(api, on_the_way, monkeypatch):
    """A table's stream has several shards, each with a function that follows it."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    reasons = {"CancellationReasons": [{"Code": "None"}, {"Code": "TransactionConflict"}]}
    canceled = {"__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException", **reasons}
    seen = []

    def conflict(request):
        if operation_of(request) == "TransactWriteItems":
            seen.append(request.body)
            return httpx.Response(400, json=canceled) if seen.count(request.body) < 3 else None

    on_the_way(conflict)
    api.post(BASE + "1", tags=["tag"])
    api.post(BASE + "2", tags=["tag"])
    assert api.all("/tags") == [{"tag": "tag", "count": 2}]
    assert len(seen) == 6 and len(api.all("/link?tag=tag")) == 2


def test_what_is_left_undone_of_a_batch_is_written_again(api, addon, search, handler, dynamodb, monkeypatch):
    call, written = search.call, []

    def three(operation, values=None, **request):
        if operation != "BatchWriteItem":
            return call(operation, values, **request)
        ((table, asked),) = request["RequestItems"].items()
        written.append(len(asked))
        answer = call(operation, RequestItems={table: asked[:3]})
        left = json.loads(json.dumps(asked[3:]), object_hook=handler.decode)
        return answer | {"UnprocessedItems": {table: left} if left else {}}

    monkeypatch.setattr(search, "call", three)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    path = f"/link/{api.post(BASE, title='one two three four five six seven')['link_id']}"
    addon.follow()
    assert written == [8, 5, 2]
    assert len(all_items(dynamodb, "index")) == 8 + 1, "with the mark that the index is made"
    api("PATCH", path, {"title": "eight"})
    addon.follow()
    assert written[3:] == [8, 5, 2], "seven deleted, one put"
    assert sorted(item["term"]["S"] for item in all_items(dynamodb, "index")) == ["eig", "exa", "made"]


# --- Any Unicode

letters = st.characters(exclude_categories=["Cs", "Cc"])


@some
@given(
    title=st.text(letters, max_size=40),
    notes=st.text(letters, max_size=40),
    tags=st.lists(st.text(letters, min_size=1, max_size=64), max_size=3),
    created=st.datetimes(timezones=st.just(timezone.utc)),
)
def test_each_beginning_of_each_word_finds_the_link(handler, search_module, title, notes, tags, created):
    """By the index's own keys and by comparing, which must agree; and the keys are such as DynamoDB takes."""
    link = {"link_id": "x" * 64, "link": "see url", "url": BASE, "title": title, "notes": notes}
    link |= {"created_at": created.isoformat(timespec="milliseconds"), "tags": [tag for tag in tags if tag.strip()]}
    keys = search_module.entries_of(link)
    for tag in link["tags"]:
        assert ("#" + tag, f"{link['created_at']} {link['link_id']}") in keys
        assert handler.matches(link, handler.search_of({"tag": [tag]}))
    for word in handler.words_of(handler.said_of(link)):
        for length in range(1, len(word) + 1):
            wanted = handler.Search([], [word[:length]], [])
            assert handler.matches(link, wanted)
            term, beginning = search_module.term_of(wanted)
            assert bool(term) or length < 3
            if term:
                assert any(one == term and place.startswith(beginning) for one, place in keys)
    for part in f"{title} {notes}".split():
        assert handler.matches(link, handler.search_of({"q": [part]})), "as it was written"
    assert all(0 < len(place.encode()) <= 1024 and 0 < len(term.encode()) <= 2048 for term, place in keys)


@some
@given(
    said=st.lists(st.text("ab\u00e9\u4e2d\u534e", min_size=1, max_size=4), max_size=6),
    asked=st.text("ab\u00e9\u4e2d\u534e", min_size=1),
)
def test_what_matches_is_what_the_index_finds(handler, search_module, said, asked):
    link = {"link_id": "x", "link": "see url", "url": "https://h/", "created_at": "2026", "title": " ".join(said)}
    wanted = handler.search_of({"q": [asked]})
    term, beginning = search_module.term_of(wanted)
    found = any(one == term and place.startswith(beginning) for one, place in search_module.entries_of(link))
    if term and handler.matches(link, wanted):
        assert found and search_module.first_place(link, term, beginning)
    if term and found and len(wanted.words) == 1:
        assert handler.matches(link, wanted)


@some
@given(text=st.text("ab\u00e9\u00c9 \n.,-\u4e2d\u534e\u0e17", max_size=20))
def test_words_are_runs_of_letters_and_pairs_without_spaces(handler, text):
    """Said again, letter by letter."""
    words, run = [], ""
    for letter in text.lower() + " ":
        spaced = letter in "ab\u00e9"
        if run and (letter in " \n.,-" or spaced != (run[-1] in "ab\u00e9")):
            words += [run] if run[-1] in "ab\u00e9" else [run[at : at + 2] for at in range(len(run))]
            run = ""
        run += letter.strip(" \n.,-")
    assert handler.words_of(handler.plain(text)) == list(dict.fromkeys(words))


# --- Visits


def today():
    return datetime.now(timezone.utc).date().isoformat()


def visit(api, name, count=1):
    for _ in range(count):
        assert api("GET", f"/go/{name}").status_code == 302


def days_of(api, name, query=""):
    """Return the visits of a link by day, which come in the order of days."""
    answer = api("GET", f"/link/{name}/visits{query}")
    assert answer.status_code == 200, answer.text
    days = {each["day"]: each["visits"] for each in answer.json()}
    assert list(days) == sorted(days) and len(days) == len(answer.json())
    return days


@pytest.fixture
def on_day(handler, monkeypatch):
    """A function that lets it be this day."""
    stamp = handler.stamp
    return lambda day: monkeypatch.setattr(handler, "stamp", lambda: stamp() | {"updated_at": f"{day}T10:00:00.000Z"})


def test_visits_are_told_by_day(api, on_day):
    api("PUT", "/link/docs", {"link": BASE})
    assert days_of(api, "docs") == {}
    posted = api.post(BASE)["link_id"]
    on_day("2026-09-30")
    visit(api, "docs", 2)
    assert days_of(api, "docs") == {"2026-09-30": 2}
    visit(api, "docs")
    visit(api, posted)
    on_day("2026-10-01")
    visit(api, "docs", 4)
    assert api("HEAD", "/go/docs").status_code == 302, "which asks, but does not visit"
    assert days_of(api, "docs") == {"2026-09-30": 3, "2026-10-01": 4}
    assert days_of(api, posted) == {"2026-09-30": 1}
    record = api("GET", "/link/docs").json()
    assert (record["visits"], record["visited_at"]) == (7, "2026-10-01T10:00:00.000Z")
    for change in ({"title": "T"}, {"tags": ["t"]}, {"link": BASE + "other"}):
        api("PATCH", "/link/docs", change)
    assert days_of(api, "docs") == {"2026-09-30": 3, "2026-10-01": 4}


@pytest.mark.parametrize(
    "query, days",
    [
        ("", [10, 11, 20, 30]),
        ("?from=2026-09-11", [11, 20, 30]),
        ("?to=2026-09-20", [10, 11, 20]),
        ("?to=2026-09-19", [10, 11]),
        ("?from=2026-09-11&to=2026-09-11", [11]),
        ("?from=2026-09-12&to=2026-09-19", []),
        ("?from=2026-10-01", []),
        ("?from=2026-09-30&to=2026-09-01", []),
        ("?from=2026-09-00&to=2026-13-99", [10, 11, 20, 30]),
    ],
)
def test_visits_of_some_days(api, on_day, query, days):
    api("PUT", "/link/docs", {"link": BASE})
    for day in (10, 11, 20, 30):
        on_day(f"2026-09-{day}")
        visit(api, "docs", day // 10)
    assert days_of(api, "docs", query) == {f"2026-09-{day}": day // 10 for day in days}


@pytest.mark.parametrize(
    "day", ["", "2026-9-1", "2026-09-01T00:00:00Z", "x", "20260901", "\u0662026-01-01", "2026-09-01~", "2026-09-01%0A"]
)
@pytest.mark.parametrize("name", ["from", "to"])
def test_a_day_that_is_none_is_refused(api, name, day):
    api("PUT", "/link/docs", {"link": BASE})
    api.refuses(400, f"^{name} must be a day like 2026-11-21", "GET", f"/link/docs/visits?{name}={day}")


def test_visits_of_what_is_not_there(api, addon):
    api.refuses(404, "^There is no link", "GET", "/link/none/visits")
    api("PUT", "/link/docs", {"link": BASE})
    assert api("DELETE", "/link/docs").status_code == 204
    api.refuses(404, "^There is no link", "GET", "/link/docs/visits")
    api.refuses(400, "^The query may have from, to", "GET", "/link/docs/visits?limit=1")
    assert api.refuses(405, "^POST", "POST", "/link/docs/visits").headers["Allow"] == "GET, HEAD, OPTIONS"
    for path in ("/link/docs/other", "/go/docs/visits", "/link/docs/visits/x"):
        assert api("GET", path).status_code == 404
    assert addon.asked == []


def test_without_the_add_on_there_are_no_days(api, addon):
    addon.gone = True
    api("PUT", "/link/docs", {"link": BASE})
    visit(api, "docs", 2)
    api.refuses(404, "^Visits by day are counted by the add-on search", "GET", "/link/docs/visits")
    assert api("GET", "/link/docs").json()["visits"] == 2


def test_a_total_has_what_a_link_brought_along(api):
    api("PUT", "/link/docs", {"link": BASE, "visits": 40, "visited_at": "2020-01-01T00:00:00Z"})
    assert days_of(api, "docs") == {}
    visit(api, "docs", 2)
    record = api("GET", "/link/docs").json()
    assert record["visits"] == 42 and record["visited_at"] > "2020-01-02"
    assert sum(days_of(api, "docs").values()) == 2
    for method, body in (("PATCH", {"title": "T"}), ("PUT", {"link": BASE, "visits": 1})):
        assert api(method, "/link/docs", body).json()["visits"] == 42
    visit(api, "docs")
    assert api("GET", "/link/docs").json()["visits"] == 43
    assert sum(days_of(api, "docs").values()) == 3


@pytest.mark.parametrize("created_at", [{}, {"created_at": "2020-01-01T00:00:00Z"}], ids=["now", "as before"])
@pytest.mark.parametrize("brought", [0, 3, 5, 9])
def test_a_new_life_begins_without_visits(api, created_at, brought):
    """Also if it brings along what it had, as an undone deletion does."""
    api("PUT", "/link/docs", {"link": BASE, **created_at})
    visit(api, "docs", 5)
    assert sum(days_of(api, "docs").values()) == 5
    for _ in range(2):
        assert api("DELETE", "/link/docs").status_code == 204
        assert api("PUT", "/link/docs", {"link": BASE, "visits": brought, **created_at}).status_code == 201
        assert days_of(api, "docs") == {}
        visit(api, "docs")
        assert api("GET", "/link/docs").json()["visits"] == brought + 1
        assert sum(days_of(api, "docs").values()) == 1


@pytest.mark.parametrize("first", [True, False], ids=["followed at each step", "followed at once"])
@pytest.mark.parametrize("brought", [0, 3, 9])
def test_a_life_that_ends_takes_its_days_along(api, addon, dynamodb, first, brought):
    """Also if the next begins with the same time, and is told of at once."""
    body = {"link": BASE, "created_at": "2020-01-01T00:00:00Z"}
    api("PUT", "/link/docs", body)
    visit(api, "docs", 5)
    if first:
        addon.follow()
    api("DELETE", "/link/docs")
    api("PUT", "/link/docs", body | {"visits": brought})
    visit(api, "docs")
    assert sum(days_of(api, "docs").values()) == 1
    visit(api, "docs")
    api("DELETE", "/link/docs")
    addon.follow()
    assert all_items(dynamodb, "visits") == []


@pytest.mark.parametrize("visited", [0, 5])
@pytest.mark.parametrize("brought", [0, 3, 5, 9])
def test_a_new_life_of_what_has_expired_begins_without_visits(api, later, visited, brought):
    """It is written over what DynamoDB has not deleted yet."""
    soon = datetime.fromtimestamp(time.time() + 3600, timezone.utc).isoformat()
    created_at = {"created_at": "2020-01-01T00:00:00Z"}
    api("PUT", "/link/docs", {"link": BASE, "expires_at": soon, **created_at})
    visit(api, "docs", visited)
    assert sum(days_of(api, "docs").values()) == visited
    later(7200)
    assert api("PUT", "/link/docs", {"link": BASE, "visits": brought, **created_at}).status_code == 201
    assert days_of(api, "docs") == {}
    visit(api, "docs")
    assert api("GET", "/link/docs").json()["visits"] == brought + 1
    assert sum(days_of(api, "docs").values()) == 1


def test_the_days_of_a_deleted_link_are_deleted(api, addon, dynamodb, on_day):
    """Whether it is deleted by a client, or by DynamoDB."""
    for name in ("docs", "gone", "kept"):
        api("PUT", f"/link/{name}", {"link": BASE})
        for day in ("2026-09-30", "2026-10-01"):
            on_day(day)
            visit(api, name, 2)
    addon.follow()
    assert len(all_items(dynamodb, "visits")) == 6
    api("DELETE", "/link/docs")
    dynamodb.delete_item(TableName="links", Key={"link_id": {"S": "gone"}, "link": {"S": "see url"}})
    addon.follow()
    assert [item["life"]["S"].split()[0] for item in all_items(dynamodb, "visits")] == ["kept"] * 2


def test_visits_may_be_followed_again_late_and_in_pieces(api, addon, search, on_day):
    api("PUT", "/link/docs", {"link": BASE})
    batches = []
    for day in ("2026-09-30", "2026-09-30", "2026-10-01"):
        on_day(day)
        visit(api, "docs", 3)
        batches.append(addon.stream.records())
    expected = {"2026-09-30": 6, "2026-10-01": 3}
    for records in batches:
        for piece in (records[:2], records[:1], records):
            search.lambda_handler({"Records": piece}, None)
    assert days_of(api, "docs") == expected
    for records in reversed(batches):
        search.lambda_handler({"Records": records}, None)
        assert days_of(api, "docs") == expected
    api("DELETE", "/link/docs")
    api("PUT", "/link/docs", {"link": BASE})
    assert days_of(api, "docs") == {}


def test_no_more_is_kept_of_a_visit_than_its_day(api, addon, dynamodb):
    api("PUT", "/link/docs", {"link": BASE})
    api("GET", "/go/docs", headers={"User-Agent": "Someone's", "Referer": "https://from.example"})
    addon.follow()
    (day,) = all_items(dynamodb, "visits")
    assert day.keys() == {"life", "day", "visits_before", "visits_after"}
    kept = json.dumps([day, *all_items(dynamodb, "links"), *all_items(dynamodb, "index")])
    assert "from.example" not in kept and "Someone" not in kept


@pytest.mark.parametrize(
    "clients, each, losing",
    [(1, 20, 1), (20, 10, None), (20, 10, 5)],
    ids=["all answers lost", "twenty clients", "twenty clients, each fifth answer lost"],
)
def test_visits_are_counted_once(handler, api, on_the_way, monkeypatch, clients, each, losing):
    """A count whose answer is lost is written again; that counts twice if another came in between (docs/limits.md)."""
    api("PUT", "/link/docs", {"link": BASE})
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    send, lock, ready = handler.http.send, Lock(), Barrier(clients)
    seen, lost, again = set(), [], []

    def lose(request):
        if operation_of(request) != "UpdateItem" or b'"links"' not in request.body:
            return
        with lock:
            (again.append if request.body in seen else seen.add)(request.body)
            loses = losing and request.body not in again and len(seen) % losing == 0
        if loses:
            assert send(request).status_code == 200
            lost.append(request)
            raise botocore.exceptions.ReadTimeoutError(endpoint_url=request.url)

    on_the_way(lose)

    def visitor(_):
        ready.wait()
        return [api.send("GET", "/go/docs", {}, None).status_code for _ in range(each)]

    with ThreadPoolExecutor(clients) as threads:
        assert sum(threads.map(visitor, range(clients)), []) == [302] * clients * each
    total = api("GET", "/link/docs").json()["visits"]
    assert sum(days_of(api, "docs").values()) == total
    assert len(lost) == (clients * each // losing if losing else 0)
    assert clients * each <= total <= clients * each + (len(again) if clients > 1 else 0)


# --- All is exact, whatever happens

SEED = 7
CHANGES = 3000
WRITERS = [f"name-{n}" for n in range(15)]
# What is said, and the words of two letters or more that are in it; and so of the tags.
SAID = {
    "alpha": ["alpha"],
    "Alphabet": ["alphabet"],
    "beta": ["beta"],
    "b\u00e9ta-beta": ["b\u00e9ta", "beta"],
    "gamma delta": ["gamma", "delta"],
    "\u6771\u4eac\u90fd": ["\u6771\u4eac", "\u4eac\u90fd"],
    "x & y": [],
}
TAGS = {"a": [], "b": [], "B": [], "to do": ["to", "do"], "a\nb": [], "#": [], "\u6771\u4eac": ["\u6771\u4eac"]}


@pytest.fixture
def on_the_engine(template, handler, search, engine, monkeypatch):
    """The three tables are on the local engine, which is faster; gives a client of it."""
    addon, _ = decode(str(SEARCH))
    dynamodb = client(engine, "dynamodb")
    with contextlib.ExitStack() as stack:
        stack.enter_context(loading.table_of(plain(template), dynamodb, "links"))
        for name in ("Index", "Visits"):
            stack.enter_context(loading.table_of(plain(addon), dynamodb, name.lower(), name))
        monkeypatch.setattr(handler, "ENDPOINT", engine.settings["AWS_ENDPOINT_URL"])
        yield dynamodb


@pytest.fixture
def proxy(engine):
    """The URL of a proxy to the engine, which lets requests fail."""
    with faults.proxy(engine.settings["AWS_ENDPOINT_URL"]) as url:
        yield url


class Courier:
    """Hands records of the stream over as Lambda does, but half of the batches twice, some in pieces, and with faults."""

    def __init__(self, search, stream, faults, chance):
        self.search, self.stream, self.faults, self.chance = search, stream, faults, chance
        self.done = Counter()

    def deliver(self, records):
        """Hand records over; after a failure again, by halves."""
        self.done["batches"] += 1
        try:
            self.search.lambda_handler({"Records": records}, None)
        except self.search.ServiceUnavailable:
            self.done["batches that failed"] += 1
            self.faults.rate = 0  # it passes meanwhile
            half = len(records) // 2
            for part in filter(None, (records[:half], records[half:])):
                self.deliver(part)

    def follow(self):
        """Hand over all that the stream has by now; return whether there was something."""
        records = self.stream.records()
        if not records:
            return False
        self.done["records"] += len(records)
        parts = [records]
        if self.chance.random() < 0.3:
            self.done["batches in pieces"] += 1
            cut = self.chance.randrange(len(records))
            parts = [records[:cut], records[cut:]]
        if self.chance.random() < 0.5:
            self.done["batches twice"] += 1
            parts.append(records)
        self.faults.active = True
        for part in filter(None, parts):
            self.deliver(part)
        self.faults.active = False
        return True


class Writer:
    """Changes links at random, and knows what became of them: `there` has by id what was put there, and its visits."""

    def __init__(self, api, dynamodb, chance):
        self.api, self.dynamodb, self.chance, self.there = api, dynamodb, chance, {}

    def fields(self):
        fields = {"title": " ".join(self.chance.sample(list(SAID), 2))}
        fields["tags"] = self.chance.sample(list(TAGS), self.chance.randrange(3))
        if self.chance.random() < 0.2:
            fields["expires_at"] = "2999-01-01T00:00:00Z"
        return fields

    def keep(self, answer):
        record = answer.json()
        new = {"brought": record.get("visits", 0), "visits": 0}
        if answer.status_code in (200, 201):
            known = new if answer.status_code == 201 else self.there[record["link_id"]]
            self.there[record["link_id"]] = record | {name: known[name] for name in new}

    def post(self):
        self.keep(self.api("POST", "/link", {"link": f"{BASE}{self.chance.randrange(10)}", **self.fields()}))

    def put(self, name):
        """As new, it may bring along the time that it had before, and visits."""
        body = {"link": BASE, **self.fields()}
        body |= self.chance.choice(({}, {"created_at": "2020-01-01T00:00:00Z", "visits": self.chance.randrange(9)}))
        self.keep(self.api("PUT", f"/link/{name}", body))

    def patch(self, name):
        self.keep(self.api("PATCH", f"/link/{name}", self.fields()))

    def delete(self, name):
        if self.api("DELETE", f"/link/{name}").status_code == 204:
            del self.there[name]

    def visit(self, name):
        if self.api("GET", f"/go/{name}").status_code == 302:
            self.there[name]["visits"] += 1

    def expire(self, name):
        """Delete as DynamoDB does, in its time, what has expired, and what is left of a deleted link."""
        self.dynamodb.delete_item(TableName="links", Key={"link_id": {"S": name}, "link": {"S": "see url"}})
        self.there.pop(name, None)

    def change(self):
        kinds = (self.put, self.patch, self.delete, self.visit, self.expire, self.post)
        kind = self.chance.choices(kinds, (25, 20, 7, 35, 2, 11))[0]
        kind() if kind == self.post else kind(self.chance.choice(WRITERS))

    def entries(self):
        """Return what Index must have: terms and places, and counts of tags."""
        entries, counts = set(), Counter()
        for link_id, record in self.there.items():
            at = f"{record['created_at']} {link_id}"
            words = {"example"}.union(*(words for said, words in SAID.items() if said in record["title"]))
            words |= {word for tag in record.get("tags", []) for word in TAGS[tag]}
            entries |= {(word[:3], word + END + at) for word in words}
            entries |= {("#" + tag, at) for tag in record.get("tags", [])}
            entries |= {("!", f"000032472144000 {link_id}")} if "expires_at" in record else set()
            counts.update(record.get("tags", []))
        return entries, counts

    def visited(self):
        """Return what the days of each life that was visited must add up to."""
        lives = {f"{link_id} {record['created_at']}": record["visits"] for link_id, record in self.there.items()}
        return {life: visits for life, visits in lives.items() if visits}


@pytest.mark.engine("requests are dropped on the way to it")
def test_after_random_changes_all_is_that_of_the_links(
    handler, search, on_the_engine, proxy, events_api, on_the_way, monkeypatch
):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    chance, injected = random.Random(SEED), Faults(handler.http, SEED)
    injected.active, made = False, Counter()

    def before_send(request):
        made[operation_of(request)] += 1
        injected.before_send(request)
        if "X-Fault" in request.headers:
            request.url = proxy

    on_the_way(before_send)
    stamp, seconds = handler.stamp, iter(range(CHANGES * 2))

    def stamped():
        """Let a change come each twenty minutes, so that there are days."""
        at = datetime.fromtimestamp(1.7e9 + next(seconds) * 1200, timezone.utc)
        return stamp() | {"updated_at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z")}

    monkeypatch.setattr(handler, "stamp", stamped)
    writer = Writer(events_api, on_the_engine, chance)
    courier = Courier(search, Stream(on_the_engine), injected, chance)
    for _ in range(CHANGES):
        writer.change()
        if chance.random() < 0.04:
            courier.follow()
    while courier.follow():
        pass
    items = all_items(on_the_engine, "index")
    entries = {(item["term"]["S"], item["place"]["S"]) for item in items if "link" in item}
    counts = {item["place"]["S"]: int(item["count"]["N"]) for item in items if item["term"]["S"] == "#"}
    days = all_items(on_the_engine, "visits")
    visited = Counter()
    for day in days:
        visited[day["life"]["S"]] += int(day["visits_after"]["N"]) - int(day["visits_before"]["N"])
    ought, ought_counts = writer.entries()
    wrong = {tag for tag in counts | ought_counts if counts.get(tag, 0) != ought_counts[tag]}
    lives = writer.visited()
    rows = {"changes": CHANGES, **courier.done, "faults": injected.injected.total()}
    rows |= {f"- {fault}": count for fault, count in injected.injected.items()}
    rows |= made
    rows |= {"links at the end": len(writer.there), "entries": len(entries)}
    rows |= {"entries missing": len(ought - entries), "entries too many": len(entries - ought)}
    rows |= {"tags": len(ought_counts), "tags counted wrong": len(wrong), "days": len(days)}
    rows |= {"visits": sum(lives.values()), "lives with wrong visits": len(lives.items() ^ visited.items())}
    print("", *(f"{label:<28}{count:>7,}" for label, count in rows.items()), sep="\n")
    assert (ought - entries, entries - ought, wrong) == (set(), set(), set())
    assert visited == lives
    for link_id, record in writer.there.items():
        stored = events_api("GET", f"/link/{link_id}").json()
        assert stored.get("visits", 0) == record["brought"] + record["visits"]
    assert len(ought) > 60 and len(days) > len(lives) > 3 and len(injected.injected) == len((*faults.WIRE, *TIMEOUTS))
    assert min(courier.done[f"batches {what}"] for what in ("that failed", "in pieces", "twice")) > 20


# --- On the whole stack


class Whole:
    """A store with the add-on search on the engine, or on AWS: `api`, and its tables `links`, `index` and `visits`."""

    def __init__(self, engine, api, store):
        self.engine, self.api, self.store, self.addon = engine, api, store, f"{store}-search"
        self.dynamodb = client(engine, "dynamodb", "resource")
        self.links = self.table(store, "Table")

    def create(self):
        """Create the add-on by CloudFormation, as the README says."""
        create(self.engine, self.addon, "addons/search.yml", {"Store": self.store})
        self.ids = resource_ids(self.engine, self.addon)
        self.index, self.visits = (self.table(self.addon, name) for name in ("Index", "Visits"))

    def table(self, stack, name):
        return self.dynamodb.Table(resource_ids(self.engine, stack)[name])

    def ask(self, question):
        """Return what the function answers to a question without more."""
        payload = json.dumps({"question": question, "cursor": None})
        answer = client(self.engine, "lambda").invoke(FunctionName=self.addon, Payload=payload)
        return json.load(answer["Payload"])

    def have(self):
        """Return what the index has: terms and places, and how many links have a tag, of those that some have."""
        items = items_of(self.index, ConsistentRead=True)
        counts = {item["place"]: int(item["count"]) for item in items if item["term"] == "#" and item["count"]}
        return {(item["term"], item["place"]) for item in items if "link" in item}, counts

    def is_followed(self):
        """Return whether the index has each link's tags, and no more."""
        links = [item for item in items_of(self.links, ConsistentRead=True) if "created_at" in item]
        entries, counts = self.have()
        tagged = {
            ("#" + tag, f"{link['created_at']} {link['link_id']}") for link in links for tag in link.get("tags", [])
        }
        urls = sum("example" in link.get("url", link["link"]) for link in links)
        words = sum(place.startswith("example" + END) for term, place in entries if term == "exa")
        tags = Counter(term[1:] for term, _ in tagged)
        return {entry for entry in entries if entry[0].startswith("#")} == tagged and counts == tags and words == urls

    def settle(self):
        eventually(self.is_followed, "what was written in the index")


@contextlib.contextmanager
def whole_at(engine, name):
    """Deploy a store, and the add-on search to it."""
    with http_api(engine, create_stack(engine, named(name))) as api:
        whole = Whole(engine, api, named(name))
        whole.create()
        assert whole.ask("made") is True, "there is no link yet"
        yield whole


@pytest.fixture(scope="module")
def deployed_whole(engine):
    with whole_at(engine, "searched") as whole:
        yield whole


@pytest.fixture
def whole(deployed_whole):
    emptied(deployed_whole.links)
    deployed_whole.settle()
    eventually(lambda: items_of(deployed_whole.visits, ConsistentRead=True) == [], "no visits")
    return deployed_whole


@pytest.mark.parametrize("case", ["the beginning of a word", "a whole URL", "Chinese", "Thai", "Hindi", "no word"])
def test_a_link_is_found_on_the_whole_stack(whole, case):
    fields, words = FOUND_BY[case]
    record = whole.api.post(**{"link": BASE} | fields)
    other = whole.api.post("https://nothing.example/")
    path = "/link?" + urlencode({"q": words})
    eventually(lambda: whole.api.all(path) == [record], "the link")
    whole.api("PATCH", f"/link/{record['link_id']}", {"title": None, "notes": None})
    assert other in whole.api.all() and other not in whole.api.all(path)


def test_a_list_goes_on_on_the_whole_stack(whole):
    """The order is that of the index; by reading all would come newest first."""
    for n in range(12):
        even = n % 2 == 0
        whole.api.post(f"{BASE}{n}", tags=["tag", "even"] if even else ["tag"], title="needles" if even else "needle")
    whole.settle()
    pages = list(whole.api.pages("/link?q=needle&limit=5"))
    assert [numbers_of(page) for page in pages] == [[11, 9, 7, 5, 3], [1, 10, 8, 6, 4], [2, 0]]
    assert numbers_of(whole.api.all("/link?tag=tag&q=needles&limit=2")) == [10, 8, 6, 4, 2, 0]
    assert numbers_of(whole.api.all("/link?tag=tag&tag=even&limit=4")) == [10, 8, 6, 4, 2, 0]
    assert whole.api.all("/tags") == [{"tag": "even", "count": 6}, {"tag": "tag", "count": 12}]
    whole.api.refuses(400, "^cursor must be one", "GET", "/link?tag=tag&cursor=x")
    whole.api.refuses(400, "^cursor must be one", "GET", "/tags?cursor=x")


def test_visits_by_day_on_the_whole_stack(whole):
    for name in ("docs", "other"):
        whole.api("PUT", f"/link/{name}", {"link": BASE, "visits": 7})
    before = today()
    visit(whole.api, "docs", 3)
    visit(whole.api, "other")
    eventually(lambda: sum(days_of(whole.api, "docs").values()) == 3, "three visits")
    assert set(days_of(whole.api, "docs")) <= {before, today()}
    assert days_of(whole.api, "docs", "?to=2020-01-01") == {}
    whole.api.refuses(400, "^from must be a day", "GET", "/link/docs/visits?from=x")
    whole.api("DELETE", "/link/docs")
    whole.api("PUT", "/link/docs", {"link": BASE})
    is_deleted = lambda: all(item["life"].startswith("other ") for item in items_of(whole.visits, ConsistentRead=True))
    eventually(is_deleted, "the end of the days of the link that was deleted")
    assert days_of(whole.api, "docs") == {}
    eventually(lambda: sum(days_of(whole.api, "other").values()) == 1, "the other's visit")


def test_fifty_at_once_are_counted_once_each(whole):
    warm_up(whole.api.send, "/link/none")
    put = lambda n: whole.api("PUT", f"/link/name-{n % 10}", {"link": BASE, "tags": ["all", f"t{n}"]})
    assert {answer.status_code for answer in at_once(put)} == {200, 201}
    whole.settle()
    records = whole.api.all()
    assert sorted(record["link_id"] for record in whole.api.all("/link?tag=all")) == [f"name-{n}" for n in range(10)]
    tags = Counter(tag for record in records for tag in record["tags"])
    assert whole.api.all("/tags") == [{"tag": tag, "count": tags[tag]} for tag in sorted(tags)]
    assert tags["all"] == 10 and len(tags) == 11
    answers = at_once(lambda n: whole.api("GET", f"/go/name-{n % 2}"))
    assert {answer.status_code for answer in answers} == {302}
    for name in ("name-0", "name-1"):
        assert whole.api("GET", f"/link/{name}").json()["visits"] == 25
        eventually(lambda name=name: sum(days_of(whole.api, name).values()) == 25, "all visits")


def test_a_stream_that_stops_leaves_what_is_found_right(engine, whole):
    """Readers go on with what the index had; what changed since is not found, and nothing wrong is."""
    api = whole.api
    old = api.post(BASE + "old", tags=["tag"])
    gone = api.post(BASE + "gone", tags=["tag"])
    whole.settle()
    assert api.all("/link?tag=tag") == [gone, old]
    mapping = f"lambda update-event-source-mapping --uuid {whole.ids['Mapping']}".split()
    state = f"lambda get-event-source-mapping --uuid {whole.ids['Mapping']}".split()

    def switch(option, wanted):
        aws(engine, *mapping, option)
        eventually(lambda: aws(engine, *state)["State"] == wanted, f"{wanted} of the mapping")

    switch("--no-enabled", "Disabled")
    try:
        had = whole.have()
        new = api.post(BASE + "new", tags=["tag"])
        assert api("DELETE", f"/link/{gone['link_id']}").status_code == 204
        visit(api, old["link_id"], 2)
        visited = api("GET", f"/link/{old['link_id']}").json()
        assert api.all("/link?tag=tag") == [visited] and new in api.all()
        assert api.all("/tags") == [{"tag": "tag", "count": 2}]
        assert visited["visits"] == 2 and days_of(api, old["link_id"]) == {}
        assert whole.have() == had
    finally:
        switch("--enabled", "Enabled")
    whole.settle()
    assert [record["link"] for record in api.all("/link?tag=tag")] == [BASE + "new", BASE + "old"]
    eventually(lambda: sum(days_of(api, old["link_id"]).values()) == 2, "the visits from before")


def test_a_function_that_fails_is_passed_over(engine, whole):
    """Its role may not read the index for a while: lists begin by reading, one that the index began has to wait."""
    for n in range(4):
        whole.api.post(f"{BASE}{n}", tags=["tag"])
    whole.settle()
    first = whole.api("GET", "/link?tag=tag&limit=1")
    with without(engine, whole.addon, "dynamodb:BatchGetItem"):
        eventually(lambda: whole.api("GET", next_of(first)).status_code == 503, "a refusal")
        assert numbers_of(whole.api.all("/link?tag=tag&limit=2")) == [3, 2, 1, 0]
    eventually(lambda: whole.api("GET", next_of(first)).status_code == 200, "an answer")
    assert numbers_of(first.json() + whole.api.all(next_of(first))) == [3, 2, 1, 0]


def test_a_store_works_without_the_add_on_and_with_it_again(engine):
    """It reads until the index is made, as it had links before."""
    with whole_at(engine, "again") as whole:
        api = whole.api
        records = [api.post(f"{BASE}{n}", tags=["tag"], title=f"needle {n}") for n in range(3)]
        newest = records[::-1]
        visit(api, records[0]["link_id"])
        whole.settle()
        first = api("GET", "/link?tag=tag&limit=1")
        delete_stack(engine, whole.addon)
        found = eventually(lambda: (answer := api("GET", next_of(first))).status_code == 400 and answer, "a refusal")
        assert found.json()["Error"].startswith("cursor must be one")
        by_reading = api("GET", "/link?tag=tag&limit=1")
        assert [each["link_id"] for each in api.all("/link?tag=tag&q=nee")] == [each["link_id"] for each in newest]
        assert api.all("/tags") == [{"tag": "tag", "count": 3}]
        api.refuses(404, "^Visits by day are counted by the add-on", "GET", f"/link/{records[0]['link_id']}/visits")
        whole.create()
        assert whole.ask("made") is False
        assert numbers_of(by_reading.json() + api.all(next_of(by_reading))) == [2, 1, 0]
        api.post(f"{BASE}3", tags=["tag"], title="needle 3")
        assert numbers_of(api.all("/link?tag=tag")) == numbers_of(api.all("/link?q=needle")) == [3, 2, 1, 0]
