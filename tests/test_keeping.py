"""Keeping a store in order: tags that are replaced, and backups that cron makes."""

import fcntl
import json
import re
import signal
import subprocess
import sys
import threading

import pytest

import api
import retag
from conftest import ROOT, named, resource_ids
from exchange import BASE, aws_settings, error, record, server, without_settings
from programs import make, run

# --- Tags


def tags_of(store):
    return {each["link"].removeprefix(BASE): each.get("tags") for each in store.api.all()}


def test_a_tag_is_replaced_and_taken_off(store):
    for name, tags in {"a": ["old"], "b": ["x", "old", "y"], "c": ["new", "old"], "d": ["older", "x"], "e": []}.items():
        store.api.post(BASE + name, tags=tags)
    store.api("PUT", "/link/named", {"link": BASE + "f", "tags": ["old"]})
    before = store.api.all()
    arguments = "--from", "old", "--api", store.url
    assert run("retag", *arguments, "--to", "new", "--dry-run") == (
        0,
        ["4 links have the tag old; nothing is changed."],
        [],
    )
    assert store.api.all() == before
    assert run("retag", *arguments, "--to", "new") == (0, ["4 changed, 0 refused"], [])
    both = {"a": ["new"], "b": ["x", "new", "y"], "c": ["new"], "f": ["new"]}
    assert tags_of(store) == both | {"d": ["older", "x"], "e": []}
    after = store.api.all()
    assert run("retag", *arguments, "--to", "new") == (0, ["0 changed, 0 refused"], [])
    assert store.api.all() == after
    assert run("retag", "--from", "new", "--to", "", "--api", store.url) == (0, ["4 changed, 0 refused"], [])
    assert tags_of(store) == {"a": None, "b": ["x", "y"], "c": None, "f": None, "d": ["older", "x"], "e": []}


def test_make_retag_takes_any_tag(store):
    odd = 'it\'s "a" b;c, `d` -e \u00e9'
    store.api.post(BASE, tags=[odd, "x"])
    assert make("retag", f"FROM={odd}", f"TO=-{odd}", f"API={store.url}") == (0, ["1 changed, 0 refused"], [])
    assert store.api.all()[0]["tags"] == [f"-{odd}", "x"]
    assert make("retag", f"FROM=-{odd}", "TO=", f"API={store.url}") == (0, ["1 changed, 0 refused"], [])
    assert store.api.all()[0]["tags"] == ["x"]


@pytest.mark.parametrize(
    "given, sentence",
    [
        (["TO=new"], "Which tag[?] For example: make retag .*"),
        (["FROM=old"], "Which tag instead[?] TO= takes it off. For example: make retag .*"),
        (["FROM=old", "TO=old"], "FROM and TO are the same tag."),
        (["FROM=old", "TO=new", "API="], "Which API[?] For example: make retag .*"),
        (["FROM=old", f"TO={'x' * 65}"], "'x{65}' is no tag: Each of tag must have at most 64 characters, not 65[.]"),
    ],
)
def test_a_retag_that_cannot_be_is_a_sentence(store, given, sentence):
    store.api.post(BASE, tags=["old"])
    code, printed, problems = make("retag", f"API={store.url}", *given)
    assert (code, printed) == (2, []) and re.fullmatch(sentence, problems[0])
    assert store.api.all()[0]["tags"] == ["old"]


def test_what_others_change_meanwhile_is_kept(store):
    links = [store.api.post(BASE + name, tags=["old"]) for name in "abc"]
    send, meanwhile = api.client(store.url), threading.Lock()

    def slow(method, path="", *more):
        if method == "PATCH" and meanwhile.acquire(blocking=False):  # the first one
            for each, body in zip(links, ({"tags": ["mine", "old"], "title": "Mine"}, {"tags": ["other"]})):
                assert store.api("PATCH", f"/link/{each['link_id']}", body).status_code == 200
            assert store.api("DELETE", f"/link/{links[2]['link_id']}").status_code == 204
        return send(method, path, *more)

    assert retag.retag(slow, "old", "new") == 0
    first, second = (store.api("GET", f"/link/{each['link_id']}").json() for each in links[:2])
    assert (first["tags"], first["title"], second["tags"]) == (["mine", "new"], "Mine", ["other"])


def test_what_is_refused_is_named_and_the_rest_done():
    def answer(method, path, body):
        number = path.rpartition("n")[2]
        if "?" in path:
            return 200, {}, json.dumps([record(each) | {"tags": ["old"]} for each in range(3)])
        if method == "PATCH" and number == "1":
            return 400, {}, error("No.")
        return 200, {"ETag": '"1"'}, json.dumps(record(number) | {"tags": ["old"]})

    with server(answer) as url:
        assert run("retag", "--from", "old", "--to", "new", "--api", url) == (
            1,
            ["2 changed, 1 refused"],
            ["n1: No."],
        )


def test_ctrl_c_ends_a_retag_which_says_what_is_left():
    waiting, over = threading.Event(), threading.Event()

    def answer(method, path, body):
        if "?" in path:
            return 200, {}, json.dumps([record(each) | {"tags": ["old"]} for each in range(30)])
        if method == "PATCH" and path.rpartition("n")[2] != "0":
            waiting.set()
            over.wait(60)
        return 200, {"ETag": '"1"'}, json.dumps(record(0) | {"tags": ["old"]})

    with server(answer) as url:
        command = [sys.executable, "scripts/retag.py", "--from", "old", "--to", "new", "--api", url]
        program = subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=without_settings()
        )
        try:
            assert waiting.wait(60)
            program.send_signal(signal.SIGINT)
            printed, problems = program.communicate(timeout=60)
        finally:
            over.set()
            program.kill()
            program.communicate()
    assert (program.returncode, printed) == (130, "")
    assert re.fullmatch(
        r"Not complete: [01] changed, 0 refused; (30|29) left. Run it again to go on.\nInterrupted.\n", problems
    )


# --- Backups


def files(folder):
    return sorted(path for path in folder.iterdir() if path.name != ".lock")


def links_in(path):
    return {json.loads(line)["link"] for line in path.read_text().split("\n")[:-1]}


def test_backups_are_dated_complete_and_the_newest_are_kept(store, tmp_path):
    folder, others = tmp_path / "some where", []
    for number in range(4):
        store.api.post(f"{BASE}{number}")
        assert make("backup", f"DIR={folder}", "KEEP=2", f"API={store.url}") == (0, [], [])
        if not number:
            others = [folder / "links-mine.jsonl", folder / files(folder)[0].name.replace("links-", "links-another-")]
            for each in others:
                each.write_text("another's")
    newest = [each for each in files(folder) if each not in others]
    assert [each.read_text() for each in others] == ["another's"] * 2
    assert [links_in(each) for each in newest] == [{f"{BASE}{number}" for number in range(most)} for most in (3, 4)]
    name = r"links-[a-z0-9.-]+-prod-link-\d{8}T\d{6}\.\d{6}Z\.jsonl"
    assert all(re.fullmatch(name, each.name) and each.stat().st_mode & 0o77 == 0 for each in newest)


def test_a_backup_has_all_fields_and_comes_back(store, hostile, tmp_path):
    assert run("backup", "--dir", tmp_path, "--api", store.url)[0] == 0
    (file,) = files(tmp_path)
    kept = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
    assert {each["link_id"]: {name: each[name] for name in each if name != "updated_at"} for each in kept} == hostile


def test_a_table_is_backed_up_without_its_api(engine, store, tmp_path):
    store.api.post(BASE + "a")
    table = f"dynamodb:{resource_ids(engine, named('tests'))['Table']}"
    assert run("backup", "--dir", tmp_path, "--api", table, **aws_settings(engine)) == (0, [], [])
    assert [links_in(each) for each in files(tmp_path)] == [{BASE + "a"}]


@pytest.mark.parametrize("status, body", [(500, error("No.")), (200, "[]]"), (200, '{"links": []}')])
def test_a_backup_that_fails_half_way_costs_no_older_one(tmp_path, status, body):
    second = [(200, {}, json.dumps([record(2)]))]

    def answer(method, path, _):
        if "cursor" in path:
            return second[-1]
        return 200, {"Link": '<http://x/link?cursor=2>; rel="next"'}, json.dumps([record(1)])

    with server(answer) as url:
        for _ in range(2):
            assert run("backup", "--dir", tmp_path, "--keep", 1, "--api", url) == (0, [], [])
        before = files(tmp_path)
        assert len(before) == 1 and links_in(before[0]) == {f"{BASE}1", f"{BASE}2"}
        second.append((status, {}, body))
        code, printed, (problem,) = run("backup", "--dir", tmp_path, "--keep", 1, "--api", url)
    assert (code, printed) == (2, []) and url in problem or "list its links" in problem
    assert files(tmp_path) == before


def test_an_empty_store_costs_no_backup_that_has_links(store, tmp_path):
    assert run("backup", "--dir", tmp_path, "--keep", 1, "--api", store.url) == (0, [], [])
    store.api.post(BASE + "a")
    assert run("backup", "--dir", tmp_path, "--keep", 1, "--api", store.url) == (0, [], [])
    store.clear()
    code, printed, (problem,) = run("backup", "--dir", tmp_path, "--keep", 1, "--api", store.url)
    assert (code, printed) == (2, []) and problem.startswith("The store is empty.")
    assert [links_in(each) for each in files(tmp_path)] == [{BASE + "a"}, set()]


def test_one_backup_at_a_time(store, tmp_path):
    store.api.post(BASE + "a")
    with (tmp_path / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, printed, (problem,) = run("backup", "--dir", tmp_path, "--api", store.url)
    assert (code, printed, files(tmp_path)) == (2, [], []) and "is under way" in problem
    assert run("backup", "--dir", tmp_path, "--api", store.url) == (0, [], [])
    (part := files(tmp_path)[0].with_suffix(".jsonl.part")).write_text("of a run that was killed")
    assert run("backup", "--dir", tmp_path, "--api", store.url) == (0, [], [])
    assert len(files(tmp_path)) == 2 and not part.exists()


def test_a_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").touch()
    code, printed, (problem,) = run("backup", "--dir", tmp_path / "file", "--api", "http://127.0.0.1:1/link")
    assert (code, printed) == (2, []) and problem.endswith("file: File exists.")
    assert run("backup", "--dir", tmp_path)[2] == [
        "Which API? For example: make backup DIR=backups KEEP=30 API=https://.../prod/link"
    ]
    assert run("backup", "--keep", 0)[0] == 2
