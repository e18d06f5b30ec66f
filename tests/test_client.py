"""What import and export do with an API that wants a key or a signature, is busy, or goes wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

import api
from conftest import NEVER_THROTTLED, ROOT, create_stack, free_port, http_api
from exchange import BASE, FORMS, SAMPLES, command, error, record, run, server, without_settings


def test_a_key_opens_the_api(locked, tmp_path):
    path = tmp_path / "links.jsonl"
    path.write_text('{"link_id": "home", "link": "https://example.com/a"}\n{"link": "https://example.com/b"}')
    locked.takes(path, added=2)
    locked.takes(path, there=2)
    locked.gives(tmp_path / "out.csv", 2)


@pytest.mark.parametrize(
    "key, sentence",
    [
        (
            "",
            "The API at URL answered 403: API Gateway refused this: INVALID_API_KEY. It wants a key: .* export APIDB_KEY=.*",
        ),
        (
            "not-the-key-of-this-api",
            "The API at URL answered 403: API Gateway refused this: INVALID_API_KEY. It does not take the key .* APIDB_KEY.",
        ),
        ("secret\n", "APIDB_KEY has a blank or another character that no key has: .*"),
        ("two secrets", "APIDB_KEY has a blank or another character that no key has: .*"),
        ("sécret", "APIDB_KEY has a blank or another character that no key has: .*"),
    ],
)
def test_a_key_that_does_not_open_is_said_but_never_shown(locked, tmp_path, key, sentence):
    for action, file in ("import", f"{SAMPLES}/safari.html"), ("export", tmp_path / "links.csv"):
        code, printed, (said,) = run(action, file, "--api", locked.url, APIDB_KEY=key)
        assert (code, printed) == (2, []) and re.fullmatch(sentence, said.replace(locked.url, "URL"))
        assert not key or key.strip() not in said
    assert locked.api.all() == [] and list(tmp_path.iterdir()) == []


def test_key_and_signature_are_for_the_api_alone(locked, tmp_path):
    other, asked, path = [], [], tmp_path / "links.csv"
    with server(lambda *_: (200, {}, '["https://example.com/a"]'), other) as elsewhere:
        with server(lambda *_: (307, {"Location": elsewhere}, error("Moved.")), asked) as url:
            sentences = [f"The API at {url} answered 307: Moved."]
            assert run("export", path, "--api", url, "--sign", **locked.settings) == (2, [], sentences)
        assert other == [], "no redirect was followed"
        locked.takes(elsewhere, "--sign", added=1)
    (given,) = asked
    assert given["x-api-key"] == locked.api.key
    # API Gateway's answer to a wrong signature repeats the headers that were signed.
    signed = "accept;content-type;host;x-amz-date"
    assert f" SignedHeaders={signed}, " in given["Authorization"]
    assert [(each["x-api-key"], each["Authorization"], each["X-Amz-Date"]) for each in other] == [(None, None, None)]


@pytest.fixture(scope="module")
def iam_url(engine):
    """The URL of an API that wants a signature, which the engine checks, but for that of its root."""
    url = create_stack(engine, "iam", NEVER_THROTTLED | {"Access": "iam"})
    with http_api(engine, url) as api:
        return f"http://{api.host}/prod/link"


def test_a_signature_opens_the_api(iam_url, users, tmp_path):
    path, again = tmp_path / "links.jsonl", tmp_path / "again.jsonl"
    big = [{"link_id": f"n~{number}", "link": BASE, "notes": "é" * 8192} for number in range(70)]  # 2 pages
    path.write_text("\n".join(map(json.dumps, big)))
    make = ["make", "-s", "-o", ".venv/installed", f"bin={os.path.dirname(sys.executable)}", f"API={iam_url}"]
    for target, file, printed in (
        ("import", path, "apidb export, 70 links\n70 added, 0 there already, 0 refused\n"),
        ("import", path, "apidb export, 70 links\n0 added, 70 there already, 0 refused\n"),
        ("export", again, f"70 links in {again}\n"),
    ):
        command, settings = [*make, target, f"FILE={file}", "SIGN=1"], without_settings() | users.caller
        done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True)
        assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)
    ids = [json.loads(line)["link_id"] for line in again.read_text().splitlines()]
    assert sorted(ids) == sorted(each["link_id"] for each in big)


def test_a_signature_that_is_missing_or_wrong_is_said(iam_url, users, tmp_path):
    path, said = tmp_path / "links.csv", f"The API at {iam_url} answered 403: "
    sentence = said + "API Gateway refused this: MISSING_AUTHENTICATION_TOKEN. It wants signed requests: add SIGN=1, .*"
    code, _, problems = run("export", path, "--api", iam_url, APIDB_KEY="a-key")
    assert code == 2 and re.fullmatch(sentence, *problems)
    wrong = users.caller | {"AWS_SECRET_ACCESS_KEY": "wrong"}
    sentence = (
        said + "API Gateway refused this: [A-Z_]+. The AWS credentials must be those of .* may execute-api:Invoke it."
    )
    code, _, problems = run("export", path, "--api", iam_url, "--sign", **wrong)
    assert code == 2 and re.fullmatch(sentence, *problems)
    assert list(tmp_path.iterdir()) == []


def test_of_what_aws_says_of_a_wrong_signature_one_line_is_told(users, tmp_path):
    """AWS repeats the whole request in it, header by header."""
    told = "The request signature we calculated does not match.\n\nThe Canonical String was\n'GET\nhost:secret'"
    with server(lambda *_: (403, {}, error(told))) as url:
        code, _, (said,) = run("export", tmp_path / "links.csv", "--api", url, "--sign", **users.caller)
    assert code == 2 and "does not match. The AWS credentials must be" in said
    assert "Canonical" not in said and "secret" not in said


def test_a_signature_is_for_the_region_in_the_url(users, tmp_path):
    asked = []
    with server(lambda *_: (200, {}, "[]"), asked) as url:
        for given, region in (url, "us-east-1"), (f"{url}/x.execute-api.eu-west-3.amazonaws.com/link", "eu-west-3"):
            assert run("export", tmp_path / "links.csv", "--api", given, "--sign", **users.caller)[0] == 0
            assert f"/{region}/execute-api/aws4_request, " in asked[-1]["Authorization"]


@pytest.mark.parametrize("action", ["import", "export"])
def test_what_is_missing_is_said_with_an_example(action, tmp_path):
    path = tmp_path / "links.html"
    make = ["make", "-s", "-o", ".venv/installed", action, f"bin={os.path.dirname(sys.executable)}"]
    environment = without_settings()
    for given, asked in (["API=http://127.0.0.1:1/link"], "file"), ([f"FILE={path}"], "API"):
        done = subprocess.run(make + given, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith(f"Which {asked}? For example: make {action} FILE=")
        assert "Traceback" not in done.stderr


def test_make_passes_on_what_is_given(store, tmp_path):
    path = tmp_path / "with a blank.jsonl"
    make = ["make", "-s", "-o", ".venv/installed", f"bin={os.path.dirname(sys.executable)}", f"API={store.url}"]
    for target, printed in (
        (
            ["import", f"FILE={SAMPLES}/safari.html", "DRY_RUN=1"],
            "bookmark file, 4 links\n4 links to send, 0 refused\n",
        ),
        (["import", f"FILE={SAMPLES}/safari.html"], "bookmark file, 4 links\n4 added, 0 there already, 0 refused\n"),
        (
            ["import", f"FILE={SAMPLES}/pinboard.json", "PRIVATE=yes"],
            "Pinboard export, 2 links\n2 added, 0 there already, 0 refused\n",
        ),
        (
            ["import", f"FILE={path}", "MERGE=yes"],
            "apidb export, 1 link\n0 added, 1 changed, 0 there already, 0 refused\n",
        ),
        (["export", f"FILE={path}"], f"6 links in {path}\n"),
    ):
        path.write_text('{"link": "https://safari.example/one", "tags": ["new"]}')
        done = subprocess.run(make + target, cwd=ROOT, capture_output=True, text=True)
        assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)
    assert len(path.read_text().splitlines()) == 6


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
    unreadable = "is HTML" in said
    assert (code, printed) == (1 if unreadable else 2, []) and re.fullmatch(sentence, said)


def test_csv_without_links_is_not_a_list_of_urls(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("url,title\nhttps://example.com,A\n")
    assert run("import", path, "--dry-run") == (1, [], [f"{path} has no column named link in its first row."])


def test_a_wrong_url_of_the_api_is_said(stack_api, tmp_path):
    stage = f"http://{stack_api.host}/prod/"
    code, _, (sentence,) = run("export", tmp_path / "links.csv", "--api", stage)
    assert code == 2 and "is not a link store" in sentence and "ends in /link" in sentence
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
    path.write_text(
        "<!DOCTYPE NETSCAPE-Bookmark-file-1><DL><p>" + entry.format("X", "A.example/") + entry.format("Y", "a.example")
    )
    store.takes(path, added=1)
    (record,) = store.api.all()
    assert (record["link"], record["tags"]) == ("https://a.example", ["X", "Y"])


@pytest.mark.parametrize("status", [401, 500])
def test_an_api_that_does_not_work_stops_it(status):
    with server(lambda *_: (status, {}, error("No\x1b[31m."))) as url:
        code, printed, problems = run("import", f"{SAMPLES}/safari.html", "--api", url)
    assert (code, printed) == (2, []) and problems == [f"The API at {url} answered {status}: No?[31m."]


@pytest.mark.parametrize(
    "status, headers, body",
    [
        (429, {"Retry-After": "1"}, error("Too many requests.")),
        (503, {"Retry-After": "1"}, error("Busy.")),
        (503, {}, error("Busy.")),
        (503, {}, "<h1>Busy</h1>"),
    ],
)
def test_a_busy_api_is_asked_again(tmp_path, status, headers, body):
    path, asked = tmp_path / "links.jsonl", []
    path.write_text(f'{{"link": "{BASE}1"}}\n{{"link": "{BASE}2", "link_id": "two"}}\n')

    def answer(*request):
        asked.append(request)
        if asked.count(request) < 3:
            return status, headers, body
        return (200, {}, json.dumps([record(1)])) if request[0] == "GET" else (201, {}, json.dumps(request[2]))

    with server(answer) as url:
        assert run("import", path, "--api", url) == (0, ["2 added, 0 there already, 0 refused"], [])
        assert run("export", path, "--api", url) == (0, [f"1 links in {path}"], [])
        assert run("import", url, "--api", url) == (0, ["1 added, 0 there already, 0 refused"], [])
    made = [(method, path.removeprefix("/prod")) for method, path, _ in asked]
    expected = [
        ("POST", "/link"),
        ("PUT", "/link/two"),
        ("PUT", "/link/n1"),
        ("GET", "/link?limit=1000"),
        ("GET", "/link"),
    ]
    assert {each: made.count(each) for each in made} == dict.fromkeys(expected, 3)


@pytest.mark.parametrize(
    "body, sentence", [(error("Busy."), "Busy."), ("", "It is busy or down; try again later.")], ids=["JSON", "empty"]
)
def test_an_api_that_stays_busy_ends_an_import_which_says_what_is_left(tmp_path, body, sentence):
    path, asked = tmp_path / "links.jsonl", []
    path.write_text("".join(json.dumps({"link": f"{BASE}{number}"}) + "\n" for number in range(20)))

    def answer(method, _, given):
        asked.append(given["link"])
        if given["link"] != f"{BASE}7":
            return 201, {}, json.dumps(given)
        return 503, {}, body

    # It asks thirty times, which is minutes.
    program = "import api, links; api.RETRY = api.RETRY.new(status=3); links.main()"
    with server(answer) as url:
        done = subprocess.run(
            [sys.executable, "-c", program, "import", path, "--api", url],
            cwd=ROOT / "scripts",
            env=without_settings(),
            capture_output=True,
            text=True,
        )
    assert (done.returncode, done.stdout) == (2, "apidb export, 20 links\n")
    assert done.stderr.splitlines() == [
        f"Not complete: 7 added, 0 there already, 0 refused; 13 left, from {path}:8 on. Run it again to go on.",
        f"The API at {url} answered 503: {sentence}",
    ]
    assert asked.count(f"{BASE}7") == 4


@pytest.mark.parametrize(
    "body, sentence",
    [
        (error("The body may have 262,144 bytes."), "The body may have 262,144 bytes."),
        ('{"message": "Request Too Long"}', api.TOO_LARGE),
        ("<h1>413</h1>", api.TOO_LARGE),
        ("", api.TOO_LARGE),
        ("null", api.TOO_LARGE),
    ],
)
def test_what_is_too_large_is_refused_and_the_import_goes_on(tmp_path, body, sentence):
    path = tmp_path / "links.jsonl"
    given = [{"link": BASE}, {"link": f"{BASE}2", "notes": "n" * 8000}, {"link": f"{BASE}3"}]
    given += [{"link_id": "four", "link": f"{BASE}4", "notes": "n" * 8000}, {"link_id": "five", "link": f"{BASE}5"}]
    path.write_text("".join(json.dumps(each) + "\n" for each in given))

    def answer(_, __, given):
        return (413, {"Retry-After": "1"}, body) if "notes" in given else (201, {}, json.dumps(given))

    with server(answer) as url:
        code, printed, problems = run("import", path, "--api", url)
    assert (code, printed) == (1, ["3 added, 0 there already, 2 refused"])
    assert problems == [f"{path}:2: {BASE}2: {sentence}", f"{path}:4: {BASE}4: {sentence}"]


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
    assert program.returncode == 130
    if action == "import":
        assert printed == "apidb export, 20 links\n"
        assert re.fullmatch("(Not complete: 1 added, .*\n)?Interrupted.\n", problems)
    else:
        assert (printed, problems, list(tmp_path.iterdir())) == ("", "Interrupted.\n", [])


# --- Changing a link, which programs that keep links in order do


@pytest.fixture
def send(store):
    return api.client(store.url)


def test_a_link_is_changed(store, send):
    there = store.api.post(BASE, title="Old", notes="Kept")
    link_id = there["link_id"]
    assert api.change(send, link_id, lambda record: {"title": record["title"] + "er"}) == api.CHANGED
    assert store.api("GET", f"/link/{link_id}").json()["title"] == "Older"
    before = store.api.all()
    assert api.change(send, link_id, lambda record: {}) == api.SAME
    assert api.change(send, link_id, lambda record: {"title": 5}) == "title must be a string."
    assert api.change(send, "absent", lambda record: {"title": "New"}) == api.GONE
    assert store.api.all() == before


def test_what_somebody_else_changes_meanwhile_is_not_overwritten(store, send):
    link_id, seen = store.api.post(BASE, tags=["a"])["link_id"], []

    def patch_of(record):
        seen.append(record["tags"])
        if len(seen) == 1:
            assert store.api("PATCH", f"/link/{link_id}", {"tags": ["a", "theirs"]}).status_code == 200
        return {"tags": [*record["tags"], "ours"]}

    assert api.change(send, link_id, patch_of) == api.CHANGED
    assert seen == [["a"], ["a", "theirs"]]
    assert store.api.all()[0]["tags"] == ["a", "theirs", "ours"]


def test_what_is_deleted_meanwhile_is_gone(store, send):
    link_id = store.api.post(BASE)["link_id"]

    def patch_of(record):
        assert store.api("DELETE", f"/link/{link_id}").status_code == 204
        return {"title": "Too late"}

    assert api.change(send, link_id, patch_of) == api.GONE
    assert store.api.all() == []
