"""Links out of the store, and in again."""

import csv
import json
import re
import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import boto3
import pytest

import aws as tables
import links
import record
from conftest import ROOT, named, resource_ids
from exchange import BASE, FORMS, LINKS, NAMES, SAID, aws_settings, by_id, run, server, without_settings


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


@pytest.mark.parametrize("form", FORMS)
def test_an_export_of_the_table_is_that_of_the_api(engine, store, hostile, tmp_path, form):
    by_api, by_table = tmp_path / f"api.{form}", tmp_path / f"table.{form}"
    store.gives(by_api, len(hostile))
    table = resource_ids(engine, named("tests"))["Table"]
    done = run("export", by_table, "--api", f"dynamodb:{table}", **aws_settings(engine))
    assert done == (0, [f"{len(hostile)} links in {by_table}"], [])
    if form == "jsonl":  # the table has no order
        assert sorted(by_table.read_text().splitlines()) == sorted(by_api.read_text().splitlines())
    store.takes(by_table, there=len(hostile))
    store.clear()
    store.takes(by_table, added=len(hostile))
    assert by_id(store) == hostile


def test_what_has_expired_or_was_deleted_is_in_no_export(engine, locked, tmp_path):
    path, table = tmp_path / "links.jsonl", resource_ids(engine, "key")["Table"]
    soon = datetime.now(timezone.utc) + timedelta(seconds=2)
    locked.api.post(BASE + "soon", expires_at=soon.isoformat())
    locked.api.post(BASE + "stays", expires_at="2099-12-31T23:59:59Z")
    deleted = locked.api.post(BASE + "deleted")
    assert locked.api("DELETE", f"/link/{deleted['link_id']}").status_code == 204
    while len(locked.api.all()) == 2:
        pass
    done = run("export", path, "--api", f"dynamodb:{table}", **locked.settings)
    assert done == (0, [f"1 links in {path}"], [])
    assert [json.loads(line) for line in path.read_text().splitlines()] == locked.api.all()
    locked.takes(f"dynamodb:{table}", there=1)


def test_a_table_is_read_as_it_is_now(engine, tutorial, monkeypatch):
    """The engine is never late, so the requests themselves are looked at."""
    for name, value in aws_settings(engine).items():
        monkeypatch.setenv(name, value)
    asked = []
    tutorial.meta.events.register("provide-client-params.dynamodb.Scan", lambda params, **_: asked.append(params))
    monkeypatch.setattr(boto3.Session, "client", lambda *_: tutorial)
    assert len(list(tables.scan("linkTable"))) == 2
    assert [request["ConsistentRead"] for request in asked] == [True, True]


def test_another_script_can_export_a_table(engine, store, tutorial, tmp_path, monkeypatch):
    for name, value in aws_settings(engine).items():
        monkeypatch.setenv(name, value)
    table, path = resource_ids(engine, named("tests"))["Table"], tmp_path / "links.jsonl"
    record = store.api.post(BASE)
    assert links.export_table(table, path) == 1
    assert json.loads(path.read_text()) == record
    for wrong, other, sentence in (
        ("absent", path, "There is no table absent in us-east-1"),
        ("linkTable", path, "linkTable is no table of an apidb. To import one: make import FILE=dynamodb:linkTable "),
        (table, tmp_path / "links.xml", "links.xml must end in .jsonl"),
        (table, tmp_path / "no" / "links.csv", "links.csv.part: No such file or directory."),
    ):
        with pytest.raises(links.Stop, match=sentence):
            links.export_table(wrong, other)
    assert json.loads(path.read_text()) == record and list(tmp_path.iterdir()) == [path]


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


# --- The fields, of which the handler is the one source


def test_the_scripts_have_the_fields_of_the_handler(module):
    assert (record.RECORD, record.FIELDS) == (module.RECORD, tuple(module.NEW))
    assert (record.NAME, record.SEE_URL) == (module.NAME, module.SEE_URL)
    assert set(record.COLUMNS) == set(module.RECORD), "a column for each"


def test_the_round_trips_have_each_field():
    given = {name for fields in SAID for name in fields}
    assert given == set(record.FIELDS), "what a record may have is in SAID"


@pytest.mark.parametrize("form", FORMS)
def test_a_field_that_the_handler_gets_is_in_an_import_and_in_an_export(tmp_path, form):
    code = record.HANDLER.read_text()
    more, found = re.subn(r'(?m)^FIELDS = {(?=\s*"title")', 'FIELDS = {"author": (text, 64), ', code)
    assert found
    (tmp_path / "handler").mkdir()
    (tmp_path / "handler" / "index.py").write_text(more)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    given = {"link_id": "a", "link": BASE, "author": "A. N.", "created_at": "2020-01-01T00:00:00.000Z"}
    given["updated_at"] = given["created_at"]
    sent = []

    def answer(method, path, body):
        if method == "GET":
            return 200, {}, json.dumps([given])
        sent.append(body)
        return 201, {}, json.dumps(body)

    with server(answer) as url:
        for action in ("export", "import"):
            program = [sys.executable, tmp_path / "scripts" / "links.py", action, tmp_path / f"links.{form}"]
            subprocess.run([*program, "--api", url], env=without_settings(), check=True, capture_output=True)
    assert sent == [{"link": BASE, "author": "A. N.", "created_at": given["created_at"]}]
