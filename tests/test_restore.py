"""Links as they were before: on moto, which knows the call, and on the local engine. Both restore to now, whatever the
time: so what happens "since" happens right after the second table is made."""

import json
import re
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import boto3
import pytest

import restore
from conftest import aws, named, resource_ids
from exchange import BASE
from program import Stop
from programs import make, run

AT = datetime.now(timezone.utc) - timedelta(hours=1)


def send_of(api):
    """Return an Api as a client of scripts/api.py."""

    def send(method, path="", body=None, headers={}):
        answer = api(method, "/link" + path, body, headers)
        value = answer.json() if answer.content else None
        sentence = value["Error"] if answer.status_code >= 300 else ""
        return SimpleNamespace(status=answer.status_code, headers=answer.headers, value=value, sentence=sentence)

    return send


@pytest.fixture
def before(handler, dynamodb, events_api, monkeypatch, tmp_path):
    """A store on moto; `since` is a list of functions that are called when the second table is made."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "AWS_ENDPOINT_URL": dynamodb.meta.endpoint_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client, since = boto3.client("dynamodb"), []
    client.meta.events.register("after-call.dynamodb.RestoreTableToPointInTime", lambda **_: [each() for each in since])
    yield SimpleNamespace(api=events_api, send=send_of(events_api), dynamodb=client, since=since)
    assert [name for name in client.list_tables()["TableNames"] if name.startswith("links-at-")] == []
    client.close()


def differences(before, table="links"):
    with restore.restored(before.dynamodb, table, AT) as second:
        return restore.compare(before.send, second, table)


def said(capsys):
    """Return the lines that were printed, without those of the handler's log, and on the second table."""
    return [line for line in capsys.readouterr().out.splitlines() if not line.startswith(("{", "Making "))]


def put(before, **fields):
    before.dynamodb.put_item(TableName="links", Item={name: {"S": value} for name, value in fields.items()})


def test_what_was_deleted_and_changed_comes_back_and_what_was_added_stays(before, capsys):
    api = before.api
    links = {name: api.post(BASE + name, title=name, tags=["t"], notes="n", visits=3) for name in "abcd"}
    api(
        "PUT", "/link/home", {"link": BASE + "home", "title": "Home", "created_at": "2020-01-01T00:00:00Z", "visits": 7}
    )
    then = {each["link_id"]: each for each in api.all()}
    # What is no link: how often one was used on a day, and that one was deleted.
    put(before, link_id="away", link="#2026-11-21", visits="7")
    put(before, link_id="gone", link="see url", etag="1", owner="everyone", updated_at="x", deleted_at="x")

    def since():
        for path in (links["a"]["link_id"], "home"):
            assert api("DELETE", f"/link/{path}").status_code == 204
        patch = {"title": "B", "tags": None, "notes": "other"}
        assert api("PATCH", f"/link/{links['b']['link_id']}", patch).status_code == 200
        for title in "C", "c":  # changed, and changed back
            api("PATCH", f"/link/{links['c']['link_id']}", {"title": title})
        api("GET", f"/go/{links['d']['link_id']}")
        api.post(BASE + "new")

    before.since.append(since)
    changes, added = differences(before)
    restore.show(changes, added, "store", AT)
    printed = said(capsys)
    assert sorted(printed[1:3]) == [f"  deleted  {BASE}a", f"  deleted  {BASE}home"]
    assert printed[3:] == [
        f"  changed  {BASE}b",
        "             title: was b; is B",
        "             tags: was ['t']; is none",
        "             notes: was n; is other",
        f"  added    {BASE}new",
    ]
    assert restore.import_back(before.send, changes, "store", yes=True) == 0
    printed = said(capsys)
    path = re.fullmatch(r"(links-store-\S+\.jsonl) has what these 1 are now\.", printed[0])[1]
    with open(path) as file:
        assert json.load(file)["title"] == "B"
    assert printed[1:] == ["3 brought back, 0 not"]
    now = {each["link_id"]: each for each in api.all()}
    (new,) = now.keys() - then.keys()
    assert now[new]["link"] == BASE + "new"
    later = lambda record: ("updated_at", "visits", "visited_at") if record["link"] == BASE + "d" else ("updated_at",)
    kept = lambda record: {name: record[name] for name in record if name not in later(record)}
    assert {link_id: kept(now[link_id]) for link_id in then} == {link_id: kept(then[link_id]) for link_id in then}
    assert now[links["d"]["link_id"]]["visits"] == 4, "visits since are kept"


def test_nothing_newer_is_lost_without_saying_so(before, capsys):
    api = before.api
    links = {name: api.post(BASE + name, title="then")["link_id"] for name in "abc"}

    def since():
        api("DELETE", f"/link/{links['a']}")
        for name in "bc":
            api("PATCH", f"/link/{links[name]}", {"title": "since"})

    before.since.append(since)
    changes, _ = differences(before)
    api.post(BASE + "a", title="anew")
    api("PATCH", f"/link/{links['b']}", {"title": "after it was shown"})
    assert restore.import_back(before.send, changes, "store", yes=True) == 1
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "1 brought back, 2 not"
    assert sorted(told.err.splitlines()) == [
        f"{BASE}a: it was not stored: there already",
        f"{BASE}b: it was changed meanwhile, and stays so.",
    ]
    titles = {each["link"].removeprefix(BASE): each["title"] for each in api.all()}
    assert titles == {"a": "anew", "b": "after it was shown", "c": "then"}


def test_it_is_asked_first_and_each_kind_by_itself(before, capsys, monkeypatch):
    api = before.api
    links = {name: api.post(BASE + name, title="then")["link_id"] for name in "ab"}
    before.since.append(lambda: api("DELETE", f"/link/{links['a']}"))
    before.since.append(lambda: api("PATCH", f"/link/{links['b']}", {"title": "since"}))
    changes, _ = differences(before)
    assert restore.import_back(before.send, changes, "store", yes=False) == 0
    assert said(capsys) == ["Nothing is brought back. YES=1 brings it back."]
    asked, answers = [], iter(["no", "", "yes", "no"])
    monkeypatch.setattr(restore.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or next(answers))
    for done in "Nothing is brought back.", "1 brought back, 0 not":
        assert restore.import_back(before.send, changes, "store", yes=False) == 0
        assert said(capsys) == [done]
    assert asked[:2] == [
        "Bring back the 1 that were deleted? Type yes: ",
        "Set back the 1 that were changed? What was written since is lost then. Type yes: ",
    ]
    assert {each["title"] for each in api.all()} == {"then", "since"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_second_table_goes_whatever_happens(before, error):
    with pytest.raises(error), restore.restored(before.dynamodb, "links", AT) as second:
        assert second in before.dynamodb.list_tables()["TableNames"]
        raise error
    before.since.append(lambda: (_ for _ in ()).throw(error))
    with pytest.raises(error):  # before it is known whether the table is made
        differences(before)


class Busy:
    """A client of DynamoDB whose new tables are being made when they are to be deleted, until they are waited for."""

    def __init__(self, dynamodb, ready):
        self.dynamodb, self.ready = dynamodb, ready

    def __getattr__(self, name):
        return getattr(self.dynamodb, name)

    def get_waiter(self, name):
        self.ready.append("waited")
        if self.ready[:1] != ["waited"] or len(self.ready) > 2:
            raise KeyboardInterrupt
        return self.dynamodb.get_waiter(name)

    def delete_table(self, **table):
        if len(self.ready) < 2:
            response = {"Error": {"Code": "ResourceInUseException", "Message": "It is being created."}}
            raise self.dynamodb.exceptions.ResourceInUseException(response, "DeleteTable")
        self.dynamodb.delete_table(**table)


def test_a_table_that_is_still_made_is_waited_for(before, capsys):
    with restore.restored(Busy(before.dynamodb, []), "links", AT) as second:
        pass
    assert capsys.readouterr().err == f"{second} is deleted as soon as it is made. Ctrl-C leaves it there.\n"


def test_a_table_that_could_not_be_deleted_is_named(before, capsys):
    class Kept(Busy):
        def delete_table(self, **table):
            raise before.dynamodb.exceptions.LimitExceededException({"Error": {"Code": "L"}}, "DeleteTable")

    with pytest.raises(before.dynamodb.exceptions.LimitExceededException):
        with restore.restored(Kept(before.dynamodb, []), "links", AT) as second:
            pass
    assert capsys.readouterr().err.splitlines() == [
        f"{second} could not be deleted, and costs storage. Delete it:",
        f"  aws dynamodb delete-table --table-name {second}",
    ]
    before.dynamodb.delete_table(TableName=second)


def test_a_time_that_cannot_be_restored_is_said(before):
    with pytest.raises(Stop, match="^absent cannot be restored: .*"):
        differences(before, "absent")


@pytest.mark.parametrize(
    "at, sentence",
    [
        ("", "At which time[?] For example: make restore AT=.*"),
        ("yesterday", "At which time[?] For example: make restore AT=.*"),
        ("2026-11-20T12:00", "In which time zone is 2026-11-20T12:00[?] Z is UTC. .*"),
        ("2999-01-01T00:00Z", "2999-01-01T00:00Z is yet to come."),
    ],
)
def test_a_time_that_is_none_is_a_sentence(at, sentence):
    code, printed, problems = make("restore", f"AT={at}")
    assert (code, printed) == (2, []) and re.fullmatch(sentence, problems[0])


@pytest.mark.parametrize("key", [False, True])
def test_the_whole_way_on_the_local_engine(engine, stack_api, locked, monkeypatch, tmp_path, capsys, key):
    name, api = ("key", locked.api) if key else (named("tests"), stack_api)
    monkeypatch.chdir(tmp_path)
    for variable, value in engine.settings.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("APIDB_KEY", raising=False)
    link_id = api.post(BASE + "a", title="A")["link_id"]
    made = []

    def since(**more):
        made.append(more["parsed"]["TableDescription"]["TableName"])
        assert api("DELETE", f"/link/{link_id}").status_code == 204

    boto3.setup_default_session()
    boto3.DEFAULT_SESSION.events.register("after-call.dynamodb.RestoreTableToPointInTime", since)
    try:
        assert restore.restore(name, AT, yes=True) == 0
    finally:
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    assert capsys.readouterr().out.splitlines() == [
        f"Making {made[0]}, which takes minutes, or with many links hours",
        f"Since {AT:%Y-%m-%d %H:%M:%S} UTC, in {name}:",
        f"  deleted  {BASE}a",
        "1 brought back, 0 not",
    ]
    assert [each["link_id"] for each in api.all()] == [link_id]
    assert made[0].startswith(resource_ids(engine, name)["Table"] + "-at-")
    assert made[0] not in aws(engine, "dynamodb", "list-tables")["TableNames"]


def test_make_restore_changes_nothing_where_nothing_differs(engine, store):
    store.api.post(BASE + "a")
    before = store.api.all()
    code, printed, problems = make("restore", "AT=2026-01-01T00:00Z", f"STACK={named('tests')}", **engine.settings)
    assert (code, problems, printed[1:]) == (
        0,
        [],
        [f"Since 2026-01-01 00:00:00 UTC, in {named('tests')}:", "  nothing was deleted or changed"],
    )
    assert store.api.all() == before
    code, printed, problems = run("restore", "--stack", "absent", "--at", "2026-01-01T00:00Z", **engine.settings)
    assert (code, printed, problems) == (2, [], ["There is no stack absent in us-east-1."])
