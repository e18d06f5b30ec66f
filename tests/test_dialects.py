"""What other programs leave: each fixture, what it is said to be, what is said to be lost, and the records of it."""

import re
import uuid

import pytest

import dialects
import links
import servers
from conftest import ROOT
from exchange import FORMS, NO_URL, SAMPLES, by_id

POCKET, RAINDROP, INSTAPAPER, PINBOARD, OMNIVORE, WALLABAG, LINKDING = (
    f"https://{name}.example/" for name in "pocket raindrop instapaper pinboard omnivore wallabag linkding".split()
)
FAIR = {
    "link_id": "fair",
    "link": "https://shlink.example/fair?year=2022",
    "title": "The fair",
    "tags": ["events", "town"],
    "created_at": "2022-01-03T04:05:06.000Z",
    "visits": 1048,
}
ONE = {
    "link_id": "ozh",
    "link": "https://yourls.example/one",
    "title": "One",
    "created_at": "2014-10-11T12:13:14.000Z",
    "visits": 42,
}
# fixture: (kinds, lost, records, private links, lines that are said)
LEFT = {
    "pocket.csv": (
        ["Pocket export, 4 links"],
        "",
        [
            {
                "link": POCKET + "long",
                "title": "A long read",
                "tags": ["history", "long reads", "unread"],
                "created_at": "2017-03-20T08:53:21.000Z",
            },
            {
                "link": POCKET + "quoted?a=1&b=2",
                "title": 'Quoted, "twice"',
                "tags": ["archived"],
                "created_at": "2017-03-20T08:53:22.000Z",
            },
            {"link": POCKET + "untitled", "tags": ["unread"], "created_at": "2017-03-20T08:53:23.000Z"},
            {
                "link": POCKET + "music",
                "title": "'90s music",
                "tags": ["music", "archived"],
                "created_at": "2017-03-20T08:53:24.000Z",
            },
        ],
    ),
    "raindrop.csv": (
        ["Raindrop export, 2 links"],
        "cover, highlights",
        [
            {
                "link": RAINDROP + "knots",
                "title": "Knots",
                "notes": "Try the second one\nin the garden\n\nHow to tie three knots",
                "tags": ["Hobbies", "Sailing", "rope", "how-to", "starred"],
                "created_at": "2023-04-05T06:07:08.009Z",
            },
            {"link": RAINDROP + "loose", "title": "Loose end", "created_at": "2023-04-05T06:07:09.000Z"},
        ],
    ),
    "raindrop.html": (
        ["bookmark file, 1 link"],
        "last_modified, data-cover",
        [
            {
                "link": RAINDROP + "knots",
                "title": "Knots",
                "notes": "How to tie three knots",
                "tags": ["Sailing", "rope", "how-to", "starred"],
                "created_at": "2023-04-05T06:07:08.000Z",
            }
        ],
    ),
    "instapaper.csv": (
        ["Instapaper export, 4 links"],
        "",
        [
            {
                "link": INSTAPAPER + "one",
                "title": "One",
                "notes": "What was marked, as it is",
                "tags": ["science", "two words", "unread"],
                "created_at": "2022-04-15T05:20:00.000Z",
            },
            {
                "link": INSTAPAPER + "two",
                "title": "Two",
                "tags": ["archived"],
                "created_at": "2022-04-15T05:20:01.000Z",
            },
            {
                "link": INSTAPAPER + "three",
                "title": "Three",
                "tags": ["Recipes"],
                "created_at": "2022-04-15T05:20:02.000Z",
            },
            {
                "link": INSTAPAPER + "four",
                "title": "Four",
                "tags": ["starred"],
                "created_at": "2022-04-15T05:20:03.000Z",
            },
        ],
    ),
    "pinboard.json": (
        ["Pinboard export, 2 links"],
        "",
        [
            {
                "link": PINBOARD + "a",
                "title": "Title of A",
                "notes": "Notes of A,\nin two lines",
                "tags": ["web", "to-do", ".private", "unread"],
                "created_at": "2015-06-07T08:09:10.000Z",
            },
            {"link": PINBOARD + "b", "created_at": "2015-06-07T08:09:11.000Z"},
        ],
        [PINBOARD + "b"],
    ),
    "omnivore.json": (
        ["Omnivore export, 2 links"],
        "author, updatedAt, readingProgress, thumbnail, publishedAt",
        [
            {
                "link": OMNIVORE + "heron",
                "title": "A heron",
                "notes": "On standing still",
                "tags": ["birds", "water"],
                "created_at": "2023-11-16T21:22:23.000Z",
            },
            {
                "link": OMNIVORE + "crane",
                "title": "A crane",
                "tags": ["archived"],
                "created_at": "2023-11-16T21:22:24.000Z",
            },
        ],
    ),
    "wallabag.json": (
        ["wallabag export (JSON), 2 links"],
        "given_url, content, updated_at, published_by, mimetype, language, reading_time, domain_name",
        [
            {
                "link": WALLABAG + "mushrooms",
                "title": "Mushrooms",
                "tags": ["foo", "bar baz", "archived", "starred"],
                "created_at": "2020-03-04T04:06:07.000Z",
            },
            {
                "link": WALLABAG + "unread",
                "title": "Unread",
                "tags": ["unread"],
                "created_at": "2020-03-04T05:06:09.000Z",
            },
        ],
    ),
    "wallabag.csv": (
        ["wallabag export (CSV), 1 link"],
        "Content, Language",
        [
            {
                "link": WALLABAG + "mushrooms",
                "title": "Mushrooms",
                "tags": ["foo", "bar baz"],
                "created_at": "2020-03-04T05:06:07.000Z",
            }
        ],
    ),
    "readwise.csv": (
        ["Readwise Reader export, 2 links"],
        "Reading progress",
        [
            {
                "link": "https://readwise.example/tides",
                "title": "Tides",
                "tags": ["sea", "moon's", "unread"],
                "created_at": "2022-11-06T04:33:50.000Z",
            },
            {
                "link": "https://readwise.example/dunes",
                "title": "Dunes",
                "tags": ["archived"],
                "created_at": "2022-12-20T19:47:00.442Z",
            },
        ],
    ),
    "linkwarden.json": (
        ["Linkwarden, 2 links"],
        "textContent, preview, updatedAt",
        [
            {
                "link": "https://linkwarden.example/loom",
                "title": "Loom",
                "notes": "How a loom works",
                "tags": ["weaving", "how to"],
                "created_at": "2024-01-02T03:04:05.006Z",
            },
            {
                "link": "https://linkwarden.example/wool",
                "tags": ["Wool", "starred"],
                "created_at": "2019-01-02T03:04:05.000Z",
            },
        ],
    ),
    "linkace.csv": (
        ["LinkAce export, 2 links"],
        "icon, status, updated_at, thumbnail",
        [
            {
                "link": "https://linkace.example/kiln",
                "title": "Kiln",
                "notes": "Fired twice, at 900",
                "tags": ["clay", "fire", "Pottery"],
                "created_at": "2021-05-06T07:08:09.000Z",
            },
            {"link": "https://linkace.example/secret", "title": "Secret", "created_at": "2021-05-06T07:08:11.000Z"},
        ],
        ["https://linkace.example/secret"],
    ),
    "karakeep.json": (
        ["karakeep, 2 links"],
        "content.text",
        [
            {
                "link": "https://karakeep.example/comet",
                "notes": "Seen on the hill",
                "tags": ["Sky", "Comets", "stars", "archived"],
                "created_at": "2024-05-31T16:08:37.000Z",
            },
        ],
        [],
        ["15: link is missing."],
    ),
    "linkding.json": (
        ["linkding, 2 links"],
        "web_archive_snapshot_url, favicon_url, date_modified",
        [
            {
                "link": LINKDING + "a",
                "title": "Title A",
                "notes": "Description of A\n\nNotes of A",
                "tags": ["tag1", "tag2", "unread"],
                "created_at": "2020-09-26T09:46:23.006Z",
            },
            {"link": LINKDING + "b", "tags": ["archived"], "created_at": "2020-09-26T09:46:24.000Z"},
        ],
        [LINKDING + "b"],
    ),
    "linkding.html": (
        ["bookmark file, 3 links"],
        "last_modified",
        [
            {
                "link": LINKDING + "a",
                "title": 'Title "A"',
                "notes": "Description of A\n\nNotes of A, with **stars**\nand a second line",
                "tags": ["python", "web", "unread"],
                "created_at": "2022-04-15T05:20:00.000Z",
            },
            {"link": LINKDING + "b", "title": "B"},
            {
                "link": LINKDING + "c",
                "title": "C",
                "notes": "Only notes",
                "tags": ["old", "archived"],
                "created_at": "2022-04-15T05:20:02.000Z",
            },
        ],
        [LINKDING + "b"],
    ),
    "shaarli.json": (
        ["Shaarli, 2 links"],
        "updated",
        [
            {
                "link": "https://shaarli.example/first",
                "title": "First",
                "notes": "A *description*",
                "tags": ["opensource", "software"],
                "created_at": "2015-05-05T09:30:00.000Z",
            },
            {"link": "https://shaarli.example/second", "title": "Second", "created_at": "2015-05-05T09:30:01.000Z"},
        ],
        ["https://shaarli.example/second"],
    ),
    "buku.json": (
        ["buku, 2 links"],
        "",
        [
            {
                "link": "https://buku.example/vim",
                "title": "Vim",
                "notes": "How to leave it",
                "tags": ["editor", "how to"],
            },
            {"link": "https://buku.example/ed"},
        ],
    ),
    "shlink.csv": (
        ["Shlink, 2 links"],
        "domain",
        [FAIR, {"link": "https://shlink.example/nested", "created_at": "2022-01-03T04:05:07.000Z", "visits": 0}],
        [],
        [
            "3: https://shlink.example/nested: the name 'a/b' is not kept: names have letters, digits and -._~ only, 64 at most."
        ],
    ),
    "shlink.json": (
        ["Shlink, 1 link"],
        "meta.maxVisits, forwardQuery",
        [FAIR | {"expires_at": "2099-01-01T00:00:00.000Z"}],
    ),
    "yourls.json": (
        ["YOURLS, 2 links"],
        "ip",
        [
            ONE,
            {
                "link_id": "2",
                "link": "https://yourls.example/two",
                "created_at": "2014-10-11T12:13:15.000Z",
                "visits": 0,
            },
        ],
    ),
    "yourls.csv": (["YOURLS, 1 link"], "ip", [ONE]),
    "kutt.json": (
        ["Kutt, 2 links"],
        "updated_at",
        [
            {
                "link_id": "hike",
                "link": "https://hike.example/ridge",
                "notes": "The ridge, in June",
                "created_at": "2021-02-03T04:05:06.007Z",
                "visits": 12,
            },
            {
                "link_id": "x1",
                "link": "https://hike.example/hut",
                "created_at": "2021-02-03T04:05:07.000Z",
                "expires_at": "2099-02-03T04:05:06.000Z",
                "visits": 0,
            },
        ],
        ["https://hike.example/hut"],
    ),
    "sink.json": (
        ["Sink export, 2 links"],
        "updatedAt, cloaking",
        [
            {
                "link_id": "tap",
                "link": "https://sink.example/tap",
                "title": "Tap",
                "notes": "For the plumber\n\nA tap",
                "tags": ["house"],
                "created_at": "2024-06-11T15:30:09.000Z",
                "expires_at": "2100-01-01T00:00:00.000Z",
            },
            {"link_id": "drain", "link": "https://sink.example/drain", "created_at": "2024-06-11T15:30:11.000Z"},
        ],
    ),
    "bitly.json": (
        ["Bitly, 2 links"],
        "created_by",
        [
            {
                "link_id": "fig-tree",
                "link": "https://bitly.example/fig",
                "title": "Fig tree",
                "tags": ["garden"],
                "created_at": "2019-08-09T10:11:12.000Z",
            },
            {
                "link_id": "3plum",
                "link": "https://bitly.example/plum",
                "tags": ["archived"],
                "created_at": "2019-08-09T10:11:13.000Z",
            },
        ],
    ),
    "chrome.json": (
        ["Chrome bookmarks, 3 links"],
        "meta_info",
        [
            {
                "link": "https://chrome.example/bread",
                "title": "Bread & butter",
                "created_at": "2022-06-18T04:26:40.000Z",
                "visited_at": "2022-10-11T22:13:20.000Z",
            },
            {
                "link": "https://chrome.example/rye",
                "title": "Rye",
                "tags": ["Grain"],
                "created_at": "2022-06-18T04:26:40.000Z",
            },
        ],
        [],
        [f"43: chrome://settings/: {NO_URL}"],
    ),
    "firefox.html": (
        ["bookmark file, 5 links"],
        "last_modified, icon_uri",
        [
            {
                "link_id": "n",
                "link": "https://firefox.example/novel",
                "title": "A novel",
                "tags": ["Reading", "fiction", "to read"],
                "notes": "Long, but good.\nIt has a second volume & a third.",
                "created_at": "2017-07-14T02:40:03.000Z",
            },
            {
                "link": "https://firefox.example/essay",
                "title": "An essay",
                "tags": ["Reading"],
                "created_at": "2017-07-14T02:40:05.000Z",
            },
            {"link": "https://firefox.example/straße", "title": "Straße", "created_at": "2017-07-14T02:40:09.000Z"},
            {"link": "https://firefox.example/loose", "title": "Loose", "created_at": "2017-07-14T02:40:12.123Z"},
        ],
        [],
        [f"12: place:sort=8&maxResults=10: {NO_URL}"],
    ),
    "firefox.json": (
        ["Firefox bookmarks, 4 links"],
        "lastModified, iconUri",
        [
            {
                "link_id": "n",
                "link": "https://firefox.example/novel",
                "title": "A novel",
                "tags": ["Reading", "fiction", "to read"],
                "created_at": "2017-07-14T02:40:03.000Z",
            },
            {
                "link": "https://firefox.example/essay",
                "title": "An essay",
                "notes": "Short, and good",
                "tags": ["Reading"],
                "created_at": "2017-07-14T02:40:05.000Z",
            },
            {
                "link": "https://firefox.example/search?q=%s",
                "title": "Search",
                "created_at": "2017-07-14T02:40:07.000Z",
            },
        ],
        [],
        [
            f"7: place:type=6&sort=14&maxResults=10: {NO_URL}",
            "9: https://firefox.example/search?q=%s: the name 'wörter' is not kept: names have letters, digits and -._~ only, 64 at most.",
        ],
    ),
}


def parts(fixture):
    kinds, lost, records, private, said = (*LEFT[fixture], [], [])[:5]
    return kinds, [f"Not kept, as a link has no such field: {lost}."] if lost else [], records, private, said


@pytest.mark.parametrize("fixture", LEFT)
def test_what_a_program_leaves(capsys, fixture):
    path, (kinds, lost, records, private, said) = f"{SAMPLES}/{fixture}", parts(fixture)
    found = links.entries(path)
    assert [each.record for each in found if not each.problem] == records
    assert [each.record["link"] for each in found if each.private] == private
    refused = [each for each in found if each.problem]
    assert links.import_file(path, "", dry_run=True, private=True) == (1 if refused else 0)
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [*kinds, *lost, f"{len(records)} links to send, {len(refused)} refused"]
    assert printed.err.splitlines() == [f"{path}:{each}" for each in said]


def test_each_program_of_the_table_has_a_fixture():
    others = {"list of URLs"}
    tested = {kind.rpartition(", ")[0] for fixture in LEFT for kind in LEFT[fixture][0]}
    assert tested == set(dialects.DIALECTS) - others


def test_each_program_of_the_table_is_documented():
    told = (ROOT / "docs" / "import.md").read_text()
    for kind in dialects.DIALECTS:
        assert re.search(rf"^\| .*\b{kind.split()[0]}\b", told, re.M) or kind in ("bookmark file", "list of URLs"), kind


def test_each_server_is_documented():
    told = (ROOT / "docs" / "import.md").read_text()
    for kind, server in servers.SERVERS.items():
        (row,) = re.findall(rf"^\| `{kind}:.*$", told, re.M)
        assert f"`{kind.upper()}_TOKEN`" in row
        for each in server["lists"]:
            assert f"`{each.partition('?')[0]}`" in row


def test_the_table_says_nothing_that_is_not_read():
    read = {*dialects.CONVERT, *dialects.FLAGS, "known", "tags", "split", "folder", "unfiled", "private", "renamed"}
    for kind, dialect in dialects.DIALECTS.items():
        assert set(dialect) - read <= {"internal"}, kind
        assert dialect["known"] and dialect["link"], kind


def test_all_of_them_are_stored_and_come_back_from_an_export(store, tmp_path):
    wanted = {}
    for fixture in LEFT:
        links.import_file(f"{SAMPLES}/{fixture}", store.url, private=True)
        for record in parts(fixture)[2]:  # one that is there already stays as it is
            wanted.setdefault((record["link"], record.get("link_id")), record)
    stored = by_id(store)
    for (link, name), record in wanted.items():
        there = stored[name or str(uuid.uuid5(uuid.NAMESPACE_URL, link))]
        assert there | record == there, "each field is as it was read"
    assert len(stored) == len(wanted)
    for form in FORMS:
        path = tmp_path / f"links.{form}"
        links.export_file(str(path), store.url, False)
        store.clear()
        links.import_file(str(path), store.url)
        assert by_id(store) == stored
