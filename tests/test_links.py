"""scripts/links.py as a person runs it: files of links in and out of the store."""

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import ROOT, free_port

SAMPLES = "tests/bookmarks"
NO_URL = "link must be an absolute URL that starts with http:// or https://."
FORMS = ("jsonl", "csv", "html")


def command(action, *arguments):
    return [sys.executable, "scripts/links.py", action, *map(str, arguments)]


def run(*arguments, **environment):
    """Run the program; return its exit code, and what it printed to stdout and to stderr, as lists of lines."""
    environment = {name: value for name, value in os.environ.items() if name != "API"} | environment
    done = subprocess.run(command(*arguments), cwd=ROOT, env=environment, capture_output=True, encoding="utf-8")
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


class Store:
    """The program and the API on an empty stack."""

    def __init__(self, api):
        self.api, self.url = api, f"http://{api.host}/prod/link"

    def takes(self, path, *arguments, added=0, there=0, refused=()):
        """Import a file, of which these must be the counts, and these the lines on what is refused."""
        code, printed, problems = run("import", path, "--api", self.url, *arguments)
        assert problems == [f"{path}:{each}" for each in refused]
        assert printed == [f"{added} added, {there} there already, {len(refused)} refused"]
        assert code == (1 if refused else 0)

    def reads(self, sample, added, refused=()):
        """Import a sample, of which a dry run must store nothing, and a second run nothing more."""
        path = f"{SAMPLES}/{sample}"
        _, (would,), _ = run("import", path, "--dry-run")
        assert re.fullmatch(r"\d+ links to send, \d+ refused without asking the API", would)
        assert run("import", path, "--dry-run", "--api", self.url)[1] == [would]
        assert self.api.all() == []
        self.takes(path, added=added, refused=refused)
        before = self.api.all()
        self.takes(path, there=added, refused=refused)
        assert self.api.all() == before and len(before) == added

    def gives(self, path, count):
        """Export to a file, which must then be there, with this many links."""
        assert run("export", path, "--api", self.url) == (0, [f"{count} links in {path}"], [])
        assert path.exists() and list(path.parent.glob("*.part")) == []

    def records(self, *but):
        """Return all records by link, without what each store makes itself, and without these fields."""
        return {
            each["link"]: {name: each[name] for name in each if name not in ("link_id", "link", "updated_at", *but)}
            for each in self.api.all("/link?limit=1000")
        }

    def clear(self):
        for record in self.api.all("/link?limit=1000"):
            assert self.api("DELETE", f"/link/{record['link_id']}").status_code == 204


@pytest.fixture
def store(stack_api):
    return Store(stack_api)


@contextlib.contextmanager
def server(answer):
    """Run an HTTP server for which answer(method, path, body) gives (status, headers, body); give its API's URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = answer(self.command, self.path, json.loads(body or "null"))
            with contextlib.suppress(ConnectionError):  # the program may be gone
                self.send_response(status)
                for name, value in {**headers, "Content-Length": len(body)}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

        do_POST = do_PUT = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}/prod/link"
        finally:
            running.shutdown()
            thread.join()


def error(sentence):
    return json.dumps({"Error": sentence, "Reference": "1"})


# --- Import: the forms


def test_chrome(store):
    refused = [f"25: javascript:alert(1): {NO_URL}", f"26: chrome://settings/: {NO_URL}"]
    store.reads("chrome.html", added=5, refused=refused)
    records = store.records()
    assert records.pop("https://chrome.example/phone").pop("created_at") > "2026", "ADD_DATE is in the future"
    assert records.pop("https://chrome.example/untitled").keys() == {"created_at"}, "and its ADD_DATE is 0"
    assert records == {
        "https://chrome.example/news?a=1&copy=2&lang=en": {
            "title": "News & more",
            "created_at": "2020-09-13T12:26:41.000Z",
        },
        "https://chrome.example/bread": {
            "title": "Bread",
            "tags": ["Cooking", "Favorites"],
            "created_at": "2020-09-13T12:26:43.000Z",
        },
        "https://chrome.example/leek": {
            "title": "Leek <soup>",
            "tags": ["Cooking", "Soups, hot"],
            "created_at": "2020-09-13T12:26:45.000Z",
        },
    }


def test_firefox(store):
    refused = [f"12: place:sort=8&maxResults=10: {NO_URL}"]
    store.reads("firefox.html", added=4, refused=refused)
    assert store.records() == {
        "https://firefox.example/novel": {
            "title": "A novel",
            "tags": ["Reading", "fiction", "to read"],
            "notes": "Long, but good.\nIt has a second volume & a third.",
            "created_at": "2017-07-14T02:40:03.000Z",
        },
        "https://firefox.example/essay": {
            "title": "An essay",
            "tags": ["Reading"],
            "created_at": "2017-07-14T02:40:05.000Z",
        },
        "https://firefox.example/straße": {"title": "Straße", "created_at": "2017-07-14T02:40:09.000Z"},
        "https://firefox.example/loose": {"title": "Loose", "created_at": "2017-07-14T02:40:12.123Z"},
    }


def test_safari(store):
    store.reads("safari.html", added=4)
    assert store.records("created_at") == {
        "https://safari.example/one": {"title": "One"},
        "https://safari.example/two": {"title": "Two", "tags": ["Trips"]},
        "https://safari.example/three": {"title": "Three"},
        "https://safari.example/four": {"title": "Four", "tags": ["Reading List"]},
    }


def test_linkding(store):
    store.reads("linkding.html", added=2)
    assert store.records("created_at") == {
        "https://linkding.example/a": {"title": 'Title "A"', "tags": ["python", "web"], "notes": "Notes of A"},
        "https://linkding.example/b": {"title": "B"},
    }


def test_shaarli(store):
    store.reads("shaarli.html", added=2, refused=[f"13: /shaare/WDWyig: {NO_URL}"])
    assert store.records("created_at") == {
        "https://shaarli.example/first": {
            "title": "First",
            "tags": ["opensource", "software"],
            "notes": "One line,\n<b>and another</b>\nand a third",
        },
        "https://shaarli.example/last": {"title": "Last", "tags": ["secret"]},
    }


def test_pinboard(store):
    store.reads("pinboard.html", added=2)
    assert store.records("created_at") == {
        "https://pinboard.example/x": {"title": "X", "tags": ["to", "do"]},
        "https://pinboard.example/y": {"title": "Y", "notes": "Without an end of the A"},
    }


def test_a_list_of_urls_in_an_old_encoding(store):
    store.reads("list.txt", added=3, refused=[f"4: not a URL: {NO_URL}"])
    assert store.records("created_at") == {
        "https://list.example/a": {},
        "https://list.example/b": {},
        "https://list.example/café": {},
    }


def test_csv_of_a_person(store):
    store.reads("links.csv", added=3, refused=["5: link is missing."])
    assert store.records("created_at") == {
        "https://csv.example/a": {"title": "Apostrophes", "tags": ["one", "two words"]},
        "https://csv.example/b": {"title": "Two\nlines"},
        "https://csv.example/c": {"title": "=1+1", "tags": []},
    }


def test_json_lines_with_mistakes(store):
    refused = [
        "2: https://json.example/b: tags must be an array of at most 32 strings.",
        "3: This is not JSON; it is read again from line 6 on.",
        "6: 5: link must be a string.",
        "7: https://json.example/e: expires_at must be in the future.",
        "8: https://json.example/f:"
        " A name has 1 to 64 letters, digits and -._~, and one of the first two first.",
    ]
    store.reads("broken.jsonl", added=2, refused=refused)
    assert store.records("created_at") == {"https://json.example/a": {"title": "A"}, "https://json.example/g": {}}


def test_a_json_array(store):
    store.reads("array.json", added=2)
    (home,) = [each for each in store.api.all() if each["link_id"] == "home"]
    assert (home["link"], home["visits"]) == ("https://json.example/home", 7)
    assert home["created_at"] == "2020-02-02T02:02:02.002Z"


def test_what_curl_prints(store, tmp_path):
    for number in range(3):
        store.api.post(f"https://example.com/{number}", title=f"Number {number}")
    before, path = store.records(), tmp_path / "printed"
    path.write_bytes(store.api("GET", "/link").content)
    store.clear()
    store.takes(path, added=3)
    assert store.records() == before


def test_a_byte_order_mark_is_no_part_of_the_first_line(store, tmp_path):
    path = tmp_path / "list"
    path.write_text("https://example.com/é", encoding="utf-8-sig")
    store.takes(path, added=1)
    assert store.records("created_at") == {"https://example.com/é": {}}


def test_one_link_in_many_places_is_one(store, tmp_path):
    path, link = tmp_path / "links.jsonl", "https://example.com/a"
    lines = [{"tags": ["x"]}, {"title": "A", "tags": ["y", "x"], "notes": "N"}, {"title": "B", "visits": 2}]
    path.write_text("\n".join(json.dumps({"link": link, **each}) for each in lines))
    store.takes(path, added=1)
    assert store.records("created_at") == {link: {"tags": ["x", "y"], "title": "A", "notes": "N", "visits": 2}}


def test_a_title_edited_in_an_export_counts(store, tmp_path):
    path = tmp_path / "links.html"
    store.api.post("https://example.com/a", title="Old", visits=3)
    store.gives(path, 1)
    path.write_text(path.read_text().replace(">Old<", ">New<"))
    store.clear()
    store.takes(path, added=1)
    assert store.records("created_at") == {"https://example.com/a": {"title": "New", "visits": 3}}


def test_what_a_bookmark_says_of_itself_cannot_be_another_link_nor_write_to_the_terminal(store, tmp_path):
    path = tmp_path / "links.html"
    path.write_text(
        "<!DOCTYPE NETSCAPE-Bookmark-file-1><DL><p>\n"
        """<DT><A HREF="https://example.com/a" DATA-REST='{"link": "https://evil.example", "visits": 1}'>A</A>\n"""
        '<DT><A HREF="https://example.com/b" DATA-REST="[1]">B</A>\n'
        '<DT><A HREF="ftp://example.com/\x1b[31m">C</A>\n</DL>'
    )
    refused = ["3: DATA-REST is not a JSON object.", f"4: ftp://example.com/?[31m: {NO_URL}"]
    store.takes(path, added=1, refused=refused)
    assert store.records("created_at") == {"https://example.com/a": {"title": "A", "visits": 1}}


def test_a_name_that_is_taken(store, tmp_path):
    path = tmp_path / "links.jsonl"
    names = {name: f"https://example.com/{name}" for name in ("home", "free", "same")}
    path.write_text("\n".join(json.dumps({"link_id": name, "link": link}) for name, link in names.items()))
    for name, link in {"home": "https://example.com/theirs", "same": names["same"]}.items():
        assert store.api("PUT", f"/link/{name}", {"link": link}).status_code == 201
    refused = ["1: https://example.com/home: the name home is taken."]
    store.takes(path, added=1, there=1, refused=refused)
    assert store.records().keys() == {names["free"], names["same"], "https://example.com/theirs"}


def test_hundreds_of_links_at_once(store, tmp_path):
    path, links = tmp_path / "list.txt", [f"https://example.com/{number}" for number in range(300)]
    path.write_text("\n".join(["no URL", *links, "no URL either"]))
    refused = [f"1: no URL: {NO_URL}", f"302: no URL either: {NO_URL}"]
    store.takes(path, added=300, refused=refused)
    assert store.records().keys() == set(links)


# --- Export and import again

BASE = "https://example.com/"
SAID = [
    {},
    {"title": "", "tags": [], "notes": ""},
    {"title": "<script>alert(1)</script>", "tags": ["<b>", "&amp;", '"quoted"', "it's"], "notes": "]]> --> <DT><A>"},
    {"title": "=cmd|' /C calc'!A0", "tags": ["=1+1", "+1"], "notes": "@SUM(A1)"},
    {"title": "'apostrophe", "tags": ["'"], "notes": "''two"},
    {"title": "-1", "tags": ["-", "a,b", 'c","d', "e\nf", "g\r\nh", " blank ", "\ttab"], "notes": "+1\r\n+2\n+3\r"},
    {"title": "\ttab first", "notes": "\r\nline first"},
    {"title": "\r", "notes": "\n"},
    {"title": "two  blanks and one after ", "notes": " before and after \n"},
    {"title": "\uff1d1 \uff0b \uff0d \uff20", "tags": ["\uff20", "\U0001f600"], "notes": "\uff0b1"},
    {"title": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u202e\u05d0\u05d1\u05d2 \u2028\u2029\x85\xa0", "notes": "\u2028"},
    {"title": BASE + "11", "notes": "The title is the link."},
    {"title": "&lt; &copy &copy; &#39; &amp;amp;", "tags": ["&lt", "a&b=c"], "notes": "&notit; &#0; AT&T"},
    {"visits": 0, "expires_at": "2099-12-31T23:59:59.000Z"},
    {"visits": 10**15, "visited_at": "2020-01-01T00:00:00.001Z", "created_at": "2019-12-31T23:59:59.999Z"},
    {"created_at": "1969-12-31T23:59:59.500Z", "title": "before the epoch"},
    {"created_at": "2001-09-09T01:46:40.000Z", "title": "whole seconds", "tags": ["a", "B", "a b"], "notes": "x\ny"},
    {"title": '{"json": "\\n"}', "tags": ["x" * 64] + [f"tag {number}" for number in range(31)]},
    {"title": "<![CDATA[ <!-- <style> <textarea> <plaintext>", "notes": "</DL></A><DD>" + "n" * 8000},
]
LINKS = {
    **{BASE + str(number): fields for number, fields in enumerate(SAID)},
    BASE + "?a=1&copy=2&lt;=3&quot;&#39;='\"<script>alert(1)</script>": {},
    "https://b\u00fccher.example/\u00e9\u05d0\U0001f600?q=\uff1d": {"title": "not ASCII"},
    (BASE + "long/").ljust(8192, "x"): {"title": "long"},
}
NAMES = {"g": BASE + "1", "With.All_of-them~": BASE + "named?a&b", "11111111": BASE + "2"}


@pytest.fixture
def hostile(store):
    """A store with all that may be in a record; its records by id, without updated_at."""
    for link, fields in LINKS.items():
        store.api.post(link, **fields)
    for name, link in NAMES.items():
        body = {"link": link, "title": f"{name} & more", "visits": 2}
        assert store.api("PUT", f"/link/{name}", body).status_code == 201
    return by_id(store)


def by_id(store):
    records = [each for page in store.api.pages("/link?limit=10") for each in page]
    for each in records:
        del each["updated_at"]
    return {each["link_id"]: each for each in records}


@pytest.mark.parametrize("form", FORMS)
def test_an_export_imported_again_gives_the_same_links(store, hostile, tmp_path, form):
    path, count = tmp_path / f"links.{form}", len(LINKS) + len(NAMES)
    assert len(hostile) == count
    store.gives(path, count)
    store.takes(path, there=count)
    store.clear()
    store.takes(path, added=count)
    assert by_id(store) == hostile


def test_json_lines_are_the_records(store, hostile, tmp_path):
    path = tmp_path / "links.jsonl"
    store.gives(path, len(hostile))
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    assert [json.loads(line) for line in lines] == store.api.all()


def test_no_cell_of_the_csv_is_a_formula(store, hostile, tmp_path):
    path = tmp_path / "links.csv"
    store.gives(path, len(hostile))
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file, strict=True)
    assert header[:4] == ["link_id", "link", "title", "tags"] and len(rows) == len(hostile)
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if re.match("[=+@\t\r\n\uff1d\uff0b\uff0d\uff20-]", cell)]
    assert {"'=cmd|' /C calc'!A0", "''apostrophe", "'-1", "'\ttab first", "'", "'''two"} <= set(cells)
    assert "<script>alert(1)</script>" in cells


def test_a_browser_reads_the_html(browser, store, hostile, tmp_path):
    path = tmp_path / "links.html"
    store.gives(path, len(hostile))
    with browser.new_page() as page:
        page.goto(path.as_uri())
        elements = page.evaluate("[...document.querySelectorAll('*')].map(each => each.localName)")
        links = page.evaluate("[...document.links].map(each => [each.getAttribute('href'), each.textContent])")
    assert set(elements) == {"html", "head", "meta", "title", "body", "h1", "dl", "p", "dt", "a", "dd"}
    assert [link for link, _ in links] == [each["link"] for each in store.api.all()]
    assert ["https://example.com/2", "<script>alert(1)</script>"] in links


# --- What goes wrong


@pytest.mark.parametrize("action", ["import", "export"])
def test_what_is_missing_is_said_with_an_example(action, tmp_path):
    path = tmp_path / "links.html"
    make = ["make", "-s", "-o", ".venv/installed", action, f"bin={os.path.dirname(sys.executable)}"]
    environment = {name: value for name, value in os.environ.items() if name not in ("API", "FILE")}
    for given, asked in (["API=http://127.0.0.1:1/link"], "file"), ([f"FILE={path}"], "API"):
        done = subprocess.run(make + given, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith(f"Which {asked}? For example: make {action} FILE=")
        assert "Traceback" not in done.stderr


def test_make_passes_on_what_is_given(store, tmp_path):
    path = tmp_path / "with a blank.jsonl"
    make = ["make", "-s", "-o", ".venv/installed", f"bin={os.path.dirname(sys.executable)}", f"API={store.url}"]
    for target, printed in (
        (["import", f"FILE={SAMPLES}/safari.html", "DRY_RUN=1"], "4 links to send, 0 refused without asking the API\n"),
        (["import", f"FILE={SAMPLES}/safari.html"], "4 added, 0 there already, 0 refused\n"),
        (["export", f"FILE={path}"], f"4 links in {path}\n"),
    ):
        done = subprocess.run(make + target, cwd=ROOT, capture_output=True, text=True)
        assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)
    assert len(path.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["import", "absent.html"], "absent.html: No such file or directory."),
        (["import", "tests"], "tests: Is a directory."),
        (["import", "handler/page.html"], "handler/page.html is HTML, but not a bookmark file: .*"),
        (["export", "links.xml"], r"links.xml must end in .jsonl, .csv or .html, .*"),
        (["export", "no/folder.csv"], "no/folder.csv.part: No such file or directory."),
    ],
)
def test_a_mistake_is_a_sentence(arguments, sentence):
    code, printed, (said,) = run(*arguments, API="http://127.0.0.1:1/link")
    assert (code, printed) == (2, []) and re.fullmatch(sentence, said)


def test_csv_without_links_is_not_a_list_of_urls(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("url,title\nhttps://example.com,A\n")
    assert run("import", path, "--dry-run") == (2, [], [f"{path} has no column named link in its first row."])


def test_a_wrong_url_of_the_api_is_said(stack_api, tmp_path):
    stage = f"http://{stack_api.host}/prod/"
    code, _, (sentence,) = run("export", tmp_path / "links.csv", "--api", stage)
    assert code == 2 and "is not a link store" in sentence and "it ends in /link" in sentence
    code, _, (sentence,) = run("import", f"{SAMPLES}/safari.html", "--api", stage)
    assert code == 2 and sentence.startswith(f"{stage} is not the URL of an API") and "it ends in /link" in sentence
    code, _, (sentence,) = run("export", tmp_path / "links.csv", "--api", "ftp://example.com")
    assert (code, sentence) == (2, "The API must be a URL that starts with http:// or https://, not ftp://example.com")
    assert list(tmp_path.iterdir()) == []


def test_an_api_out_of_reach_is_said():
    url = f"http://127.0.0.1:{free_port()}/prod/link"
    code, printed, problems = run("import", f"{SAMPLES}/safari.html", API=url)
    assert (code, printed, len(problems)) == (2, [], 1)
    assert problems[0].startswith(f"The API at {url} cannot be reached: ")


def test_a_name_is_there_already_however_its_url_is_written(store, tmp_path):
    path = tmp_path / "named.jsonl"
    path.write_text('{"link_id": "docs", "link": "HTTPS://Example.com/"}\n')
    store.takes(path, added=1)
    store.takes(path, there=1)


def test_a_url_with_and_without_a_slash_is_one_link(store, tmp_path):
    path = tmp_path / "two.html"
    entry = '<DT><H3>{0}</H3><DL><p><DT><A HREF="https://{1}">T</A></DL><p>'
    path.write_text("<!DOCTYPE NETSCAPE-Bookmark-file-1><DL><p>" + entry.format("X", "A.example/") + entry.format("Y", "a.example"))
    store.takes(path, added=1)
    (record,) = store.api.all()
    assert (record["link"], record["tags"]) == ("https://a.example", ["X", "Y"])


@pytest.mark.parametrize("status", [401, 403, 500])
def test_an_api_that_does_not_work_stops_it(status):
    with server(lambda *_: (status, {}, error("No\x1b[31m."))) as url:
        code, printed, problems = run("import", f"{SAMPLES}/safari.html", "--api", url)
    assert (code, printed) == (2, []) and problems == [f"The API at {url} answered {status}: No?[31m."]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_api_is_asked_again(status):
    asked = []

    def answer(method, path, body):
        asked.append(body["link"])
        if asked.count(body["link"]) == 1:
            return status, {"Retry-After": "1"}, error("Too many requests.")
        return 201, {}, json.dumps(body)

    with server(answer) as url:
        code, printed, problems = run("import", f"{SAMPLES}/safari.html", "--api", url)
    assert (code, printed, problems) == (0, ["4 added, 0 there already, 0 refused"], [])
    assert len(asked) == 8


def test_a_name_whose_first_answer_was_lost_is_there(tmp_path):
    path, stored = tmp_path / "links.jsonl", []
    path.write_text('{"link_id": "a", "link": "https://example.com/a"}')

    def answer(method, path, body):
        if method == "GET":
            return 200, {}, json.dumps(stored[0])
        stored.append(body)
        return (502 if len(stored) == 1 else 412), {}, error("There is a link with this name.")

    with server(answer) as url:
        assert run("import", path, "--api", url) == (0, ["0 added, 1 there already, 0 refused"], [])


def record(number):
    time = "2020-01-01T00:00:00.000Z"
    return {"link_id": f"n{number}", "link": f"{BASE}{number}", "created_at": time, "updated_at": time}


@pytest.mark.parametrize("form", FORMS)
def test_pages_may_be_short_or_empty_and_an_export_that_breaks_leaves_the_file_of_before(tmp_path, form):
    path, pages = tmp_path / f"links.{form}", [[record(1), record(2)], [], [record(3)]]

    def answer(method, path, body):
        number = int(path.rpartition("page=")[2]) if "page=" in path else 0
        if number == len(pages):
            return 500, {}, error("Broken.")
        more = {"Link": f'<http://elsewhere.example/link?page={number + 1}>; rel="next"'}
        return 200, more if number + 1 < len(pages) or broken else {}, json.dumps(pages[number])

    broken = False
    with server(answer) as url:
        assert run("export", path, "--api", url) == (0, [f"3 links in {path}"], [])
        before = path.read_bytes()
        broken = True
        assert run("export", path, "--api", url) == (2, [], [f"The API at {url} answered 500: Broken."])
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("action", ["import", "export"])
def test_ctrl_c_says_how_far_it_is(tmp_path, action):
    waiting, over, file = threading.Event(), threading.Event(), tmp_path / "links.jsonl"
    if action == "import":
        file.write_text("".join(json.dumps({"link": f"{BASE}{number}"}) + "\n" for number in range(20)))

    def answer(method, path, body):
        if path.endswith("link?limit=1000"):
            return 200, {"Link": '</link?page=2>; rel="next"'}, json.dumps([record(1)])
        if body == {"link": f"{BASE}0"}:
            return 201, {}, json.dumps(body)
        waiting.set()
        over.wait(30)
        return 500, {}, error("Too late.")

    with server(answer) as url:
        program = subprocess.Popen(
            command(action, file, "--api", url), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            assert waiting.wait(30)
            program.send_signal(signal.SIGINT)
            printed, problems = program.communicate(timeout=30)
        finally:
            over.set()
            program.kill()
            program.communicate()
    assert (program.returncode, printed) == (130, "")
    if action == "import":
        assert re.fullmatch("(Not complete: 1 added, .*\n)?Interrupted.\n", problems)
    else:
        assert (problems, list(tmp_path.iterdir())) == ("Interrupted.\n", [])
