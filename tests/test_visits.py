"""Visits by day: each counts once, in the life of its link, and the total follows."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from threading import Barrier, Lock

import botocore.exceptions
import pytest

from conftest import operation_of

GOOGLE = "https://www.google.com"


def today():
    return datetime.now(timezone.utc).date().isoformat()


def visit(api, name, count=1):
    for _ in range(count):
        assert api("GET", f"/go/{name}").status_code == 302


def test_visits_are_told_by_day(api):
    api("PUT", "/link/docs", {"link": GOOGLE})
    assert api("GET", "/link/docs/visits").json() == []
    before = today()
    visit(api, "docs", 3)
    days = api("GET", "/link/docs/visits").json()
    assert sum(day["visits"] for day in days) == 3 and {day["day"] for day in days} <= {before, today()}
    assert api("HEAD", "/go/docs").status_code == 302
    assert api("GET", "/link/docs/visits").json() == days, "which asks, but does not visit"
    posted = api.post(GOOGLE)
    visit(api, posted["link_id"])
    assert [day["visits"] for day in api("GET", f"/link/{posted['link_id']}/visits").json()] == [1]


@pytest.fixture
def calendar(handler, events_api, dynamodb):
    """A link with visits on some days, 10 on the 10th and so on."""
    events_api("PUT", "/link/docs", {"link": GOOGLE})
    item = handler.find("docs")
    for day in (10, 11, 20, 30):
        key = {"link_id": "docs", "link": handler.day_of(item, f"2026-09-{day}")}
        more = {"visits": day, "visited_at": f"2026-09-{day}T10:00:00.000Z"}
        dynamodb.put_item(TableName="links", Item=handler.encode_all(key | more))
    return events_api


@pytest.mark.parametrize(
    "query, days",
    [
        ("", [10, 11, 20, 30]),
        ("?from=2026-09-11", [11, 20, 30]),
        ("?to=2026-09-20", [10, 11, 20]),
        ("?from=2026-09-11&to=2026-09-11", [11]),
        ("?from=2026-10-01", []),
        ("?from=2026-09-30&to=2026-09-01", []),
    ],
)
def test_visits_of_some_days(calendar, query, days):
    told = calendar("GET", f"/link/docs/visits{query}").json()
    assert told == [{"day": f"2026-09-{day}", "visits": day} for day in days]


@pytest.mark.parametrize(
    "day", ["", "2026-9-1", "2026-09-01T00:00:00Z", "x", "20260901", "\u0662026-01-01", "2026-09-01~"]
)
@pytest.mark.parametrize("name", ["from", "to"])
def test_a_day_that_is_none_is_refused(api, name, day):
    api("PUT", "/link/docs", {"link": GOOGLE})
    api.refuses(400, f"^{name} must be a day like 2026-11-21", "GET", f"/link/docs/visits?{name}={day}")


def test_days_in_the_wrong_order_are_none(api):
    """DynamoDB would take it for a mistake; moto would not."""
    api("PUT", "/link/docs", {"link": GOOGLE})
    visit(api, "docs")
    assert api("GET", "/link/docs/visits?from=2999-01-01&to=2000-01-01").json() == []


def test_visits_of_what_is_not_there(api):
    api.refuses(404, "^There is no link", "GET", "/link/none/visits")
    api("PUT", "/link/docs", {"link": GOOGLE})
    assert api("DELETE", "/link/docs").status_code == 204
    api.refuses(404, "^There is no link", "GET", "/link/docs/visits")
    api.refuses(400, "^The query may have from, to", "GET", "/link/docs/visits?limit=1")
    assert api.refuses(405, "^POST", "POST", "/link/docs/visits").headers["Allow"] == "GET, HEAD, OPTIONS"
    for path in ("/link/docs/other", "/go/docs/visits", "/link/docs/visits/x"):
        assert api("GET", path).status_code == 404


def test_a_total_has_what_a_link_brought_along(api):
    api("PUT", "/link/docs", {"link": GOOGLE, "visits": 40, "visited_at": "2020-01-01T00:00:00Z"})
    visit(api, "docs", 2)
    record = api("GET", "/link/docs").json()
    assert record["visits"] == 42 and record["visited_at"] > "2020-01-02"
    assert sum(day["visits"] for day in api("GET", "/link/docs/visits").json()) == 2
    for method, body in (("PATCH", {"title": "T"}), ("PUT", {"link": GOOGLE, "visits": 1})):
        assert api(method, "/link/docs", body).json()["visits"] == 42
    visit(api, "docs")
    assert api("GET", "/link/docs").json()["visits"] == 43 == api.all()[0]["visits"]


def test_a_new_life_begins_without_visits(api):
    """Also if it brings the visits along that it had, as an undone deletion does."""
    for visits, total in ((None, 1), (5, 6)):
        api("PUT", "/link/docs", {"link": GOOGLE, "created_at": "2020-01-01T00:00:00Z"})
        visit(api, "docs", 5)
        assert api("DELETE", "/link/docs").status_code == 204
        body = {"link": GOOGLE, "created_at": "2020-01-01T00:00:00Z"} | ({"visits": visits} if visits else {})
        assert api("PUT", "/link/docs", body).status_code == 201
        assert api("GET", "/link/docs/visits").json() == []
        visit(api, "docs")
        assert api("GET", "/link/docs").json()["visits"] == total
        assert [day["visits"] for day in api("GET", "/link/docs/visits").json()] == [1]
        assert api("DELETE", "/link/docs").status_code == 204


def test_the_days_of_a_deleted_link_are_deleted(events_api, dynamodb):
    events_api("PUT", "/link/docs", {"link": GOOGLE})
    visit(events_api, "docs", 2)
    assert len(dynamodb.scan(TableName="links")["Items"]) == 2
    events_api("DELETE", "/link/docs")
    events_api.settle()
    (item,) = dynamodb.scan(TableName="links")["Items"]
    assert item.keys() == {"link_id", "link", "owner", "updated_at", "etag", "deleted_at", "expires_at"}


def test_a_visit_after_the_deletion_leaves_nothing(events_api, handler, dynamodb):
    """One that read the link before it was deleted, and is counted after the stream has told of that."""
    events_api("PUT", "/link/docs", {"link": GOOGLE})
    item = handler.find("docs")
    events_api("DELETE", "/link/docs")
    events_api.settle()
    handler.count_visit(item)
    assert len(dynamodb.scan(TableName="links")["Items"]) == 2
    events_api.settle()
    assert len(dynamodb.scan(TableName="links")["Items"]) == 1


def test_a_link_from_before_days_were_counted_keeps_its_visits(events_api, handler, dynamodb):
    events_api("PUT", "/link/docs", {"link": GOOGLE, "visits": 10})
    key = handler.encode_all({"link_id": "docs", "link": "see url"})
    dynamodb.update_item(TableName="links", Key=key, UpdateExpression="REMOVE life")
    visit(events_api, "docs", 2)
    assert events_api("GET", "/link/docs").json()["visits"] == 12
    visit(events_api, "docs")
    assert events_api("GET", "/link/docs").json()["visits"] == 13
    assert [day["visits"] for day in events_api("GET", "/link/docs/visits").json()] == [3]


def test_a_total_may_be_summed_again_and_late(events_api, handler, stream):
    events_api("PUT", "/link/docs", {"link": GOOGLE})
    visit(events_api, "docs", 2)
    records = stream()
    for _ in range(3):
        handler.lambda_handler({"Records": records}, None)
        assert events_api("GET", "/link/docs").json()["visits"] == 2
    visit(events_api, "docs")
    handler.lambda_handler({"Records": records}, None)
    assert events_api("GET", "/link/docs").json()["visits"] == 3


def test_no_more_is_kept_of_a_visit_than_its_day(events_api, dynamodb):
    events_api("PUT", "/link/docs", {"link": GOOGLE})
    events_api("GET", "/go/docs", headers={"User-Agent": "Someone's", "Referer": "https://from.example"})
    day, _ = dynamodb.query(
        TableName="links",
        KeyConditionExpression="link_id = :id",
        ExpressionAttributeValues={":id": {"S": "docs"}},
    )["Items"]
    assert {name for name in day if name[0] != "v"} == {"link_id", "link"}
    assert day.keys() >= {"visits", "visited_at", "v0"}
    assert "from.example" not in json.dumps(day) and "Someone" not in json.dumps(day)


def test_two_hundred_visits_by_twenty_clients_are_two_hundred_though_answers_are_lost(
    handler, events_api, on_the_way, monkeypatch
):
    """Each fifth answer to a count is lost, so that it is written again while the others go on."""
    events_api("PUT", "/link/docs", {"link": GOOGLE})
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    send, seen, lock, ready = handler.http.send, set(), Lock(), Barrier(20)
    lost = []

    def lose(request):
        if operation_of(request) != "UpdateItem":
            return
        with lock:
            first = request.body not in seen
            seen.add(request.body)
            losing = first and len(seen) % 5 == 0
        if losing:
            assert send(request).status_code == 200
            lost.append(request)
            raise botocore.exceptions.ReadTimeoutError(endpoint_url=request.url)

    on_the_way(lose)

    def client(_):
        ready.wait()
        return [events_api.send("GET", "/go/docs", {}, None).status_code for _ in range(10)]

    with ThreadPoolExecutor(20) as threads:
        assert sum(threads.map(client, range(20)), []) == [302] * 200
    assert len(lost) == 40
    assert sum(day["visits"] for day in events_api("GET", "/link/docs/visits").json()) == 200
    events_api.settle()
    assert events_api("GET", "/link/docs").json()["visits"] == 200
