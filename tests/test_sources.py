"""Tables, and other APIs, into the store."""

import json
import re
import uuid

import pytest

from conftest import named, resource_ids
from exchange import BASE, NO_LIST, NO_URL, aws_settings, by_id, error, run, server


def not_kept(source):
    return f"The link_ids of {source} are not kept: each link gets the id that belongs to its URL."


def test_the_table_of_a_tutorial(locked, tutorial):
    source, refused = "dynamodb:linkTable", [f"sixth: example.com: {NO_URL}"]
    locked.takes(source, added=5, refused=refused, said=[not_kept(source)])
    locked.takes(source, there=5, refused=refused, said=[not_kept(source)])
    links = [f"{BASE}{number}" for number in range(5)]
    assert by_id(locked).keys() == {str(uuid.uuid5(uuid.NAMESPACE_URL, link)) for link in links}


def test_the_table_of_an_apidb_keeps_all(engine, store, hostile, locked):
    source = f"dynamodb:{resource_ids(engine, named('tests'))['Table']}"
    locked.takes(source, added=len(hostile))
    locked.takes(source, there=len(hostile))
    assert by_id(locked) == by_id(store)


def test_another_apidb_keeps_all(store, hostile, locked):
    locked.takes(f"{store.url}?limit=7", added=len(hostile))
    assert by_id(locked) == by_id(store)


ITEM = {"link_id": "1f0c", "link": BASE + "a"}
TYPED = {"link_id": {"S": "1f0c"}, "link": {"S": BASE + "a"}, "title": {"NULL": True}, "tags": {"SS": ["t"]}}


@pytest.mark.parametrize(
    "value, dropped, fields",
    [
        ([ITEM], True, {}),
        ([TYPED], True, {"tags": ["t"]}),
        ({"Items": [ITEM], "Count": 1, "ScannedCount": 1}, True, {}),
        ({"Items": [TYPED | {"tags": {"L": [{"S": "u"}]}}]}, True, {"tags": ["u"]}),
        ({"statusCode": 200, "body": json.dumps({"Items": [ITEM]})}, True, {}),
        ({"statusCode": 200, "body": [TYPED | {"visits": {"N": "3"}}]}, True, {"tags": ["t"], "visits": 3}),
        (json.dumps([ITEM]), True, {}),
        ([BASE + "a"], False, {}),
    ],
)
def test_the_lists_of_tutorials(store, value, dropped, fields):
    with server(lambda *_: (200, {}, json.dumps(value))) as url:
        store.takes(url, added=1, said=[not_kept(url)] if dropped else [])
    assert store.records("created_at") == {BASE + "a": fields}


def test_what_cannot_be_taken_of_a_list_is_said(store):
    items = [ITEM, 5, {"link_id": "second"}, {"link": {"S": "ftp://example.com"}}, {"link": {"M": {}}}]
    with server(lambda *_: (200, {}, json.dumps({"Items": items, "LastEvaluatedKey": {"link_id": "x"}}))) as url:
        refused = [
            "2: This is not a JSON object.",
            "second: link is missing.",
            f"4: ftp://example.com: {NO_URL}",
            "5: link is missing.",
            "LastEvaluatedKey: The API does not list all links. Read its table instead: FILE=dynamodb:NAME",
        ]
        store.takes(url, added=1, refused=refused, said=[not_kept(url)])


@pytest.mark.parametrize(
    "status, body, sentence",
    [
        (200, "<html>", f"does not answer with JSON: {NO_LIST}"),
        (200, "[" * 9999, f"does not answer with JSON: {NO_LIST}"),
        (200, '{"body": "no"}', f"does not answer with JSON: {NO_LIST}"),
        (200, '{"message": "Hello"}', f"does not answer with a list: {NO_LIST}"),
        (200, "5", f"does not answer with a list: {NO_LIST}"),
        (302, "", f"answered 302 Found: {NO_LIST}"),
        (403, error("Forbidden"), "answered 403 Forbidden: export it to a file, and import that."),
    ],
)
def test_a_url_that_lists_no_links_is_said(status, body, sentence):
    with server(lambda *_: (status, {"Location": "/"}, body)) as url:
        assert run("import", url, "--dry-run") == (2, [], [f"{url} {sentence}"])


@pytest.mark.parametrize(
    "table, settings, sentence",
    [
        ("absent", {}, "There is no table absent in us-east-1. .*"),
        ("absent", {"AWS_DEFAULT_REGION": "eu-west-3"}, "There is no table absent in eu-west-3. .*"),
        ("a/b", {}, "The table a/b in us-east-1 cannot be read: ValidationException: .*"),
        ("", {}, "Which table? .*"),
        ("any", {"AWS_DEFAULT_REGION": ""}, "There is no AWS region. Set .*"),
        ("any", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "There are no AWS credentials. Set .*"),
        ("any", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "AWS cannot be asked: Could not connect .*127.0.0.1:1.*"),
        ("any", {"AWS_ENDPOINT_URL": "127.0.0.1:1"}, "AWS cannot be asked: Invalid endpoint: 127.0.0.1:1"),
        ("any", {"AWS_PROFILE": "absent"}, "AWS cannot be asked: The config profile .absent. could not be found"),
    ],
)
def test_a_table_that_cannot_be_read_is_said(engine, tmp_path, table, settings, sentence):
    # Neither a file of the person nor the metadata service of a cloud has credentials for this.
    given = aws_settings(engine) | {"AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1"} | settings
    environment = {name: value for name, value in given.items() if value}
    path = tmp_path / "links.jsonl"
    for arguments in ("import", f"dynamodb:{table}", "--dry-run"), ("export", path, "--api", f"dynamodb:{table}"):
        code, printed, (said,) = run(*arguments, **environment)
        assert (code, printed) == (2, []) and re.fullmatch(sentence.replace("?", "[?]"), said), said
    assert list(tmp_path.iterdir()) == []


def test_who_may_not_read_the_table_or_has_nothing_to_sign_with_is_told(engine, users, tutorial, tmp_path):
    code, _, (said,) = run("import", "dynamodb:linkTable", "--dry-run", **users.nobody)
    assert code == 2 and said.startswith("These AWS credentials may not read the table linkTable: User: arn:aws:iam:")
    arguments = ["export", tmp_path / "links.csv", "--api", "http://127.0.0.1:1/link", "--sign"]
    for missing, sentence in ("KEY", "are no AWS credentials"), ("REGION", "is no AWS region"):
        settings = {name: value for name, value in users.caller.items() if missing not in name}
        code, _, (said,) = run(*arguments, **settings, AWS_EC2_METADATA_DISABLED="true")
        assert code == 2 and said.startswith(f"There {sentence}. Set AWS_PROFILE"), said
