"""Files that are odd: encodings, zips, what is too long, what is private, what has no links at all."""

import contextlib
import io
import json
import random
import zipfile

import pytest

import links
import record
import sources
from conftest import ROOT
from exchange import BASE, SAMPLES, by_id, run, server
from reading import Unreadable

HEAD = "<!DOCTYPE NETSCAPE-Bookmark-file-1>\n"


def bookmark(title, url=BASE, more=""):
    return f'{HEAD}<DL><p>\n<DT><A HREF="{url}"{more}>{title}</A>\n</DL><p>\n'


def records(path, content):
    path.write_bytes(content)
    return [each.record for each in links.entries(str(path))]


# --- Encodings


@pytest.mark.parametrize(
    "encoding, title",
    [
        ("utf-8", "Straße 日本"),
        ("utf-8-sig", "Straße 日本"),
        ("utf-16", "Straße 日本"),
        ("utf-32", "Straße 日本"),
        ("cp1252", "Straße für Übungen – „Zitat“ déjà vu"),
        ("cp1250", "Zażółć gęślą jaźń, příliš žluťoučký kůň"),
        ("cp1251", "Закладки и новости сегодня"),
        ("koi8_r", "Закладки и новости сегодня"),
        ("cp1253", "Σελιδοδείκτες και νέα"),
        ("cp932", "日本語のブックマーク、ニュースと料理"),
        ("euc_jp", "日本語のブックマーク、ニュースと料理"),
        ("iso2022_jp", "日本語のブックマーク、ニュースと料理"),
        ("gb18030", "中文书签和新闻，食谱与旅行"),
        ("big5", "中文書籤和新聞，食譜與旅行"),
        ("euc_kr", "한국어 북마크와 뉴스"),
    ],
)
def test_the_encoding_is_found(tmp_path, encoding, title):
    many = "".join(f'<DT><A HREF="{BASE}{number}">plain {number}</A>\n' for number in range(3000))
    for content in bookmark(title), bookmark(title) + many:
        assert records(tmp_path / "b.html", content.encode(encoding))[0]["title"] == title


@pytest.mark.parametrize("encoding, title", [("iso8859_2", "Łódź"), ("shift_jis", "本"), ("cp1254", "İş")])
def test_an_encoding_that_a_file_says_counts(tmp_path, encoding, title):
    meta = f'<META HTTP-EQUIV="Content-Type" CONTENT="text/html; charset={encoding}">\n'
    content = bookmark(title).replace(HEAD, HEAD + meta).encode(encoding)
    assert records(tmp_path / "b.html", content)[0]["title"] == title


# --- Files without links


def zipped(files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, inside in files.items():
            archive.writestr(name, inside)
    return content.getvalue()


PASSWORDS = "Title,URL,Username,Password,Notes,OTPAuth\nBank,https://bank.example/,ada,secret,,\n"


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("empty.html", b"", "is empty."),
        ("blank.txt", b"\n \n", "is empty."),
        ("a.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is not read: it is a PDF."),
        ("image.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not read: it is no text."),
        ("places.sqlite", b"SQLite format 3\0\x10", "is not read: it is a database; .*"),
        ("b.jsonlz4", b"mozLz40\0\x99\x01", "is not read: it is a compressed backup of Firefox; .*.json."),
        ("b.plist", b"bplist00\xd2", "is not read: it is a property list; .*"),
        ("letter.txt", b"Dear Ada,\nsee https://example.com/.\nYours\n", "has no links in a form that is known."),
        ("page.html", b"<html><p><a href='https://example.com/'>x</a>", "is HTML, but not a bookmark file: .*"),
        ("other.json", b'{"a": [{"b": 1}]}', "is JSON, but has no links in a form that is known."),
        ("deep.json", b"[" * 100_000, "is JSON, but has no links in a form that is known."),
        ("deeper.json", b'{"a":' * 900 + b"1" + b"}" * 900, "is JSON, but has no links in a form that is known."),
        ("Passwords.csv", PASSWORDS.encode(), "has no column named link in its first row."),
        (
            "none.zip",
            zipped({"a.txt": "https://example.com/", "Passwords.csv": PASSWORDS}),
            "is a zip, but no file in it .*",
        ),
        ("broken.zip", b"PK\3\4 and no more", "is a zip that cannot be unpacked: .*"),
    ],
)
def test_a_file_without_links_is_one_sentence(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=f"{name} {sentence}$"):
        links.entries(str(path))


def test_it_ends_with_1(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.7")
    assert run("import", path, "--dry-run") == (1, [], [f"{path} is not read: it is a PDF."])


def test_a_zip_of_safari_has_its_bookmarks_and_nothing_else_is_read(tmp_path):
    folder, path = "Safari Export 2026-11-20", tmp_path / "safari.zip"
    safari = (ROOT / SAMPLES / "safari.html").read_text()
    history = {"metadata": {"data_type": "history"}, "history": [{"url": "https://secret.example/", "visit_count": 3}]}
    path.write_bytes(
        zipped(
            {
                f"{folder}/Bookmarks.html": safari,
                f"{folder}/History.json": json.dumps(history),
                f"{folder}/Passwords.csv": PASSWORDS,
            }
        )
    )
    found = links.entries(str(path))
    assert [each.record for each in found] == [each.record for each in links.entries(f"{SAMPLES}/safari.html")]
    assert found[0].place == f"{folder}/Bookmarks.html:8"


def test_a_zip_of_several_parts(tmp_path):
    header = "title,url,time_added,tags,status\n"
    parts = {f"part_{part}.csv": f"{header}T{part},{BASE}{part},1490000001,,unread\n" for part in range(3)}
    articles = {"content/a.html": "<html><body>An article</body></html>"}
    found = records(tmp_path / "pocket.zip", zipped(parts | articles))
    assert [each["link"] for each in found] == [f"{BASE}{part}" for part in range(3)]


def test_home_is_the_home_folder(tmp_path):
    (tmp_path / "list.txt").write_text(BASE)
    done = run("import", "~/list.txt", "--dry-run", HOME=str(tmp_path))
    assert done == (0, ["1 links to send, 0 refused"], [])


# --- Odd bookmark files


def test_folders_may_be_twelve_deep_tags_unclosed_icons_huge_and_lines_end_by_crlf(tmp_path):
    icon = "data:image/png;base64," + "A" * 20_000
    deep = "".join(f"<DT><H3>Folder {depth}</H3>\r\n<DL><p>\r\n" for depth in range(12))
    content = (
        f'{HEAD}<DL><p>\r\n{deep}<DT><A HREF="{BASE}deep" ICON="{icon}">Deep\r\nin it\r\n'
        f"<DD>Notes\r\nof it\r\n<DT><A HREF={BASE}unquoted>Un<b>clos</b>ed <i>A"
        f"\r\n<DT><A>No link</A><DT><A HREF='{BASE}last'>Last"
    )
    folders = [f"Folder {depth}" for depth in range(12)]
    assert records(tmp_path / "odd.html", content.encode()) == [
        {"link": f"{BASE}deep", "title": "Deep in it", "notes": "Notes\nof it", "tags": folders},
        {"link": f"{BASE}unquoted", "title": "Unclosed A", "tags": folders},
        {"link": f"{BASE}last", "title": "Last", "tags": folders},
    ]


def test_a_file_of_30_mb(tmp_path):
    icon, path = "data:image/png;base64," + "A" * 2_000, tmp_path / "big.html"
    with path.open("w") as file:
        file.write(HEAD + "<DL><p>\n")
        for number in range(14_600):
            file.write(f'<DT><A HREF="{BASE}{number}" ADD_DATE="1600000000" ICON="{icon}">Title {number}</A>\n')
    assert path.stat().st_size > 30_000_000
    code, printed, problems = run("import", path, "--dry-run")
    assert (code, printed, problems) == (0, ["14600 links to send, 0 refused"], [])


WRONG = [
    None,
    True,
    -1,
    1e400,
    "",
    "x" * 9000,
    [],
    [1, [2]],
    {"a": {"b": []}},
    "['",
    "\ud83d\0",
    "9" * 17,
    "2020-13-45",
]
WRONG += ["https://[", [{"name": {}, "value": 1}, {"name": 5}, "t"], {"name": ["x"]}]
MARKS = [b"<", b">", b'"', b"\0", b"\n", b",", b"&#0;", b"\xff", b"[", b"</DL>", b"<DL>", b"<![", b"<?"]


def damaged(content, pick):
    """Return the content of a file with values of another type, if it is JSON, else with marks in wrong places."""

    def changed(value):
        if pick.random() < 0.08:
            return pick.choice(WRONG)
        if isinstance(value, dict):
            return {name: changed(each) for name, each in value.items() if pick.random() > 0.03}
        return list(map(changed, value)) if isinstance(value, list) else value

    try:
        return json.dumps(changed(json.loads(content))).encode()
    except ValueError:
        for _ in range(pick.randint(1, 12)):
            at = pick.randrange(len(content))
            content = content[:at] + pick.choice(MARKS) + content[at + pick.randint(0, 3) :]
        return content


@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_file_is_read_or_a_sentence_says_why_not(tmp_path, seed):
    pick = random.Random(seed)
    for path in (ROOT / SAMPLES).iterdir():
        copy = tmp_path / path.name
        copy.write_bytes(damaged(path.read_bytes(), pick))
        with contextlib.suppress(Unreadable):
            for each in links.entries(str(copy)):
                assert each.problem or not record.problem_of(each.record)


# --- What is too long is shortened, and what is refused is known before it is sent

LONG = {
    "title": ("t" * 513, "t" * 512, "title shortened from 513 to 512 characters."),
    "notes": ("é" * 9000, "é" * 8192, "notes shortened from 9,000 to 8,192 characters."),
    "tags": (["x" * 65], ["x" * 64], "a tag shortened from 65 to 64 characters."),
}


def test_what_is_too_long_is_shortened_and_told(store, tmp_path):
    path = tmp_path / "links.jsonl"
    given = [{"link": f"{BASE}{name}", name: long} for name, (long, _, _) in LONG.items()]
    given += [{"link": f"{BASE}many", "tags": [f"t{number}" for number in range(40)]}]
    given += [{"link": f"{BASE}control", "title": "a\0b\ud83d", "tags": ["c\x1b", " ", "d"]}]
    path.write_text("\n".join(map(json.dumps, given)))
    said = [f"{number}: {BASE}{name}: {LONG[name][2]}" for number, name in enumerate(LONG, 1)]
    said += [
        f"4: {BASE}many: 32 of its 40 tags are kept.",
        f"5: {BASE}control: title had control characters or lone surrogates, which are blanks now.",
        f"5: {BASE}control: a tag had control characters or lone surrogates, which are blanks now.",
    ]
    said = [f"{path}:{each}" for each in said]
    assert run("import", path, "--dry-run") == (0, ["5 links to send, 0 refused"], said)
    done = run("import", path, "--api", store.url)
    assert done == (0, ["5 added, 0 there already, 0 refused"], said)
    stored = store.records("created_at")
    assert {name: stored[f"{BASE}{name}"][name] for name in LONG} == {name: LONG[name][1] for name in LONG}
    assert stored[f"{BASE}many"]["tags"] == [f"t{number}" for number in range(32)]
    assert stored[f"{BASE}control"] == {"title": "a b ", "tags": ["c ", "d"]}


def test_the_limits_are_those_of_the_handler(module):
    for name, (long, most, _) in LONG.items():
        module.check({name: most}, module.NEW)
        with pytest.raises(module.BadRequest):
            module.check({name: long}, module.NEW)
    module.check({"tags": list(map(str, range(record.TAGS)))}, module.NEW)
    with pytest.raises(module.BadRequest):
        module.check({"tags": list(map(str, range(record.TAGS + 1)))}, module.NEW)
    assert (len(LONG["title"][1]), len(LONG["notes"][1]), len(LONG["tags"][1][0])) == (
        record.TITLE,
        record.NOTES,
        record.TAG,
    )


def test_the_characters_that_are_taken_out_are_those_that_the_handler_refuses(module):
    for character in map(chr, [*range(0x3000), *range(0xD700, 0xE100), *range(0xFE00, 0x10020)]):
        try:
            module.check({"title": character}, module.NEW)
            refused = False
        except module.BadRequest:
            refused = True
        assert bool(record.CONTROL.search(character)) == refused, hex(ord(character))


REFUSED = [
    {"link": "https://"},
    {"link": "https://a b.example/"},
    {"link": "https://[::1/"},
    {"link": "https://example.com:99999/"},
    {"link": "https://example.com\\@evil.example/"},
    {"link": BASE + "x" * 8192},
    {"link": f"{BASE}\x7f"},
    {"link": BASE, "title": 5},
    {"link": BASE, "tags": "no list"},
    {"link": BASE, "tags": [1]},
    {"link": BASE, "notes": []},
    {"link": BASE, "visits": -1},
    {"link": BASE, "visits": "3"},
    {"link": BASE, "created_at": "2099-01-01T00:00:00Z"},
    {"link": BASE, "created_at": "yesterday"},
    {"link": BASE, "visited_at": 5},
    {"link": BASE, "expires_at": "2001-01-01T00:00:00Z"},
    {"link": BASE, "expires_at": "2001-13-01T00:00:00Z"},
]


def test_a_dry_run_refuses_what_the_api_refuses_in_its_words(store, tmp_path):
    path = tmp_path / "links.jsonl"
    path.write_text("\n".join(map(json.dumps, REFUSED)))
    code, printed, problems = run("import", path, "--dry-run")
    assert (code, printed) == (1, [f"0 links to send, {len(REFUSED)} refused"])
    for given, problem in zip(REFUSED, problems):
        answer = store.api("POST", "/link", given)
        assert answer.status_code == 400 and problem.endswith(answer.json()["Error"]), problem


def test_a_dry_run_takes_what_the_api_takes(store, tmp_path):
    """Random texts, of which each is either refused by both or taken by both."""
    path, pick = tmp_path / "links.jsonl", random.Random(15)
    parts = [
        "https://",
        "http:/",
        "HTTP://",
        "a",
        ".example",
        "/",
        "?q=",
        "#",
        "%",
        "é",
        " ",
        "\\",
        "@",
        ":",
        ":80",
        "[::1]",
        "\t",
        "|",
    ]
    given = [{"link": "".join(pick.choices(parts, k=pick.randint(1, 6)))} for _ in range(120)]
    given += [{"link": "https://" + "".join(pick.choices(parts, k=pick.randint(1, 6)))} for _ in range(120)]
    path.write_text("\n".join(map(json.dumps, given)))
    would = {each.record["link"] for each in links.entries(str(path)) if not each.problem}
    taken = {each["link"] for each in given if store.api("POST", "/link", each).status_code < 300}
    assert {record.canonical(each) for each in would} == {record.canonical(each) for each in taken}
    assert len(taken) > 20


# --- What is private


def test_private_ones_are_not_sent_to_a_store_that_anyone_can_read(store, locked):
    path, why = (
        f"{SAMPLES}/pinboard.json",
        "1 private ones are not sent: anyone can read the store. PRIVATE=yes sends them.",
    )
    for dry, counts in (["--dry-run"], "1 links to send, 0 refused"), ([], "1 added, 0 there already, 0 refused"):
        assert run("import", path, "--api", store.url, *dry) == (0, [why, counts], [])
    assert set(store.records()) == {"https://pinboard.example/a"}
    store.takes(path, "--private", added=1, there=1)
    assert set(store.records()) == {"https://pinboard.example/a", "https://pinboard.example/b"}
    locked.takes(path, added=2)
    why = "1 private ones are not sent: a store that anyone can read gets none. PRIVATE=yes sends them."
    assert run("import", path, "--dry-run") == (0, [why, "1 links to send, 0 refused"], [])


def test_a_link_in_two_places_is_private_if_it_is_in_one(tmp_path):
    path = tmp_path / "b.html"
    path.write_text(bookmark("A", more=' PRIVATE="0"') + bookmark("A", more=' PRIVATE="1"'))
    assert [each.private for each in links.entries(str(path))] == [True]


# --- What is there already


def test_merge_gives_a_link_what_it_lacks(store, tmp_path):
    path = tmp_path / "links.jsonl"
    store.api.post(f"{BASE}1", title="Mine", tags=["a"])
    store.api.post(f"{BASE}2", tags=[f"t{number}" for number in range(31)])
    store.api.post(f"{BASE}3", title="Whole", notes="N", tags=["a"], visits=1)
    assert store.api("PUT", "/link/named", {"link": f"{BASE}4"}).status_code == 201
    given = [
        {"link": f"{BASE}{number}", "title": "Theirs", "notes": "Notes", "tags": ["a", "b"], "visits": 9}
        for number in (1, 2, 4)
    ]
    given[2]["link_id"] = "named"
    given.append({"link": f"{BASE}3", "title": "Other", "tags": ["a"]})
    path.write_text("\n".join(map(json.dumps, given)))
    before = by_id(store)
    store.takes(path, there=4)
    assert by_id(store) == before
    assert run("import", path, "--api", store.url, "--merge") == (
        0,
        ["0 added, 3 changed, 1 there already, 0 refused"],
        [],
    )
    store.takes(path, "--merge", there=4)
    records = store.records("created_at")
    assert records[f"{BASE}1"] == {"title": "Mine", "notes": "Notes", "tags": ["a", "b"]}
    assert records[f"{BASE}2"]["tags"] == [f"t{number}" for number in range(31)] + ["a"], "there may be 32"
    assert records[f"{BASE}3"] == {"title": "Whole", "notes": "N", "tags": ["a"], "visits": 1}
    assert records[f"{BASE}4"] == {"title": "Theirs", "notes": "Notes", "tags": ["a", "b"]}


# --- Servers, which answer as their documentation says


def sample(name):
    return json.loads((ROOT / SAMPLES / name).read_text())


def pages_of(kind, path):
    """Return the status and the JSON of what a server answers to a path, or None for another path."""
    first, second = sample("linkding.json")["results"]
    star = sample("karakeep.json")["bookmarks"][0] | {
        "id": "b1",
        "createdAt": "2024-05-31T16:08:37.000Z",
        "favourited": True,
    }
    star |= {"tags": [{"id": "t1", "name": "stars", "attachedBy": "ai"}], "lists": []}
    star["content"] = star["content"] | {"title": "A comet", "description": "It comes back", "crawlStatus": "success"}
    (loom,) = sample("linkwarden.json")["collections"][0]["links"]
    wool = loom | {"id": 2, "url": "https://linkwarden.example/wool", "pinnedBy": [{"id": 1}], "tags": []}
    wool["collection"] = {"id": 2, "name": "Wool", "ownerId": 1}
    short = sample("shlink.json")["shortUrls"]["data"][0]

    def shlink(page, **more):
        return {"shortUrls": {"data": [short | more], "pagination": {"currentPage": page, "pagesCount": 2}}}

    return {
        "linkding": {
            "/api/bookmarks/?limit=100": {
                "next": "http://inside:8000/api/bookmarks/?limit=100&offset=100",
                "results": [first],
            },
            "/api/bookmarks/?limit=100&offset=100": {
                "next": None,
                "results": [first | {"url": "https://linkding.example/2"}],
            },
            "/api/bookmarks/archived/?limit=100": {"next": None, "results": [second]},
        },
        "karakeep": {
            "/api/v1/bookmarks?limit=100": {"bookmarks": [star], "nextCursor": "b/2="},
            "/api/v1/bookmarks?limit=100&cursor=b/2%3D": {"bookmarks": [], "nextCursor": None},
        },
        "linkwarden": {
            "/api/v1/search?sort=0": {"data": {"links": [loom], "nextCursor": 1}, "success": True},
            "/api/v1/search?sort=0&cursor=1": {"data": {"links": [wool], "nextCursor": None}, "success": True},
        },
        "shlink": {
            "/rest/v3/short-urls?itemsPerPage=100&page=1": shlink(1),
            "/rest/v3/short-urls?itemsPerPage=100&page=2": shlink(2, shortCode="two", title=None, tags=[]),
        },
    }[kind].get(path)


SERVED = {
    "linkding": (
        "Authorization",
        "Token secret",
        ["https://linkding.example/a", "https://linkding.example/2", "https://linkding.example/b"],
    ),
    "karakeep": ("Authorization", "Bearer secret", ["https://karakeep.example/comet"]),
    "linkwarden": (
        "Authorization",
        "Bearer secret",
        ["https://linkwarden.example/loom", "https://linkwarden.example/wool"],
    ),
    "shlink": ("X-Api-Key", "secret", ["https://shlink.example/fair?year=2022"] * 2),
}


@pytest.mark.parametrize("kind", SERVED)
def test_all_pages_of_a_server_are_read(locked, kind):
    header, value, wanted = SERVED[kind]
    asked = []

    def answer(method, path, body):
        page = pages_of(kind, path.removeprefix("/below"))
        return (404, {}, "{}") if page is None else (200, {}, json.dumps(page))

    with server(answer, asked) as url:
        source = f"{kind}:{url.removesuffix('/prod/link')}/below/"
        settings = locked.settings | {f"{kind.upper()}_TOKEN": "secret"}
        done = run("import", source, "--api", locked.url, **settings)
    assert done == (0, [f"{len(wanted)} added, 0 there already, 0 refused"], [])
    assert {each[header] for each in asked} == {value}
    assert {each["x-api-key"] for each in asked} == {value if kind == "shlink" else None}, "not that of the store"
    records = by_id(locked)
    assert sorted(each["link"] for each in records.values()) == sorted(wanted)
    tags = sorted(tag for each in records.values() for tag in each.get("tags", []))
    assert (
        tags
        == {
            "linkding": ["archived", "tag1", "tag1", "tag2", "tag2", "unread", "unread"],
            "karakeep": ["archived", "starred", "stars"],
            "linkwarden": ["Wool", "how to", "starred", "weaving"],
            "shlink": ["events", "town"],
        }[kind]
    )


@pytest.mark.parametrize("kind", SERVED)
@pytest.mark.parametrize(
    "status, body, sentence",
    [
        (401, "{}", "KIND at URL does not take the token in KIND_TOKEN: it answered 401."),
        (200, "<html>", "What answers at URL is no KIND: it said 200 OK to GET PATH."),
        (200, "[]", "What answers at URL is no KIND: it said 200 OK to GET PATH."),
        (
            200,
            '{"next": 5, "nextCursor": 5, "data": 5, "shortUrls": 5}',
            "What answers at URL is no KIND: it said 200 OK to GET PATH.",
        ),
        (404, '{"message": "no"}', "What answers at URL is no KIND: it said 404 Not Found to GET PATH."),
    ],
)
def test_a_server_that_does_not_answer_as_one_is_said(kind, status, body, sentence):
    with server(lambda *_: (status, {}, body)) as url:
        base = url.removesuffix("/prod/link")
        code, printed, (said,) = run("import", f"{kind}:{base}", "--dry-run", **{f"{kind.upper()}_TOKEN": "t"})
    path = sources.SERVERS[kind]["lists"][0].partition("?")[0]
    sentence = sentence.replace("KIND_TOKEN", f"{kind.upper()}_TOKEN").replace("KIND", kind)
    assert (code, printed, said) == (2, [], sentence.replace("URL", base).replace("PATH", path))


def test_a_token_that_is_missing_is_said():
    code, printed, problems = run("import", "karakeep:http://127.0.0.1:1", "--dry-run", KARAKEEP_TOKEN="")
    sentence = "karakeep wants a token: put it into the environment with export KARAKEEP_TOKEN=..."
    assert (code, printed, problems) == (2, [], [sentence])


def test_a_server_whose_pages_go_round_ends():
    page = json.dumps({"next": "/?limit=100&offset=100", "results": []})
    with server(lambda *_: (200, {}, page)) as url:
        code, printed, (said,) = run("import", f"linkding:{url}", "--dry-run", LINKDING_TOKEN="t")
    assert (code, printed) == (2, []) and "goes round in its pages: GET /api/bookmarks/?limit=100&offset=100" in said
