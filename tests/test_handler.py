"""What only the handler alone can show: failures of DynamoDB, the log, odd events."""

import itertools
import json
import time

import botocore.exceptions
import pytest
from botocore.awsrequest import AWSResponse

from conftest import operation_of, proxy_response, recorded

GOOGLE = "https://www.google.com"
LINK = {"link": GOOGLE}


@pytest.fixture
def api(events_api):
    return events_api


@pytest.fixture
def no_waiting(monkeypatch):
    """Let it ask again at once."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture
def before_send(on_the_way, no_waiting):
    """Let a test answer the handler's requests to DynamoDB in the place of moto."""
    return on_the_way


class Raw:
    """The body of an HTTP response as botocore reads it."""

    def __init__(self, content):
        self.content = content

    def stream(self, **_):
        yield self.content


def failing(status, code):
    """Return a function that answers every request with this error of DynamoDB's."""
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "no"}).encode()
    return answering(status, body)


def answering(status, body, headers={}):
    return lambda request: AWSResponse(request.url, status, headers, Raw(body))


def raising(error):
    def answer(request):
        raise error

    return answer


REQUESTS = [
    ("POST", "/link", LINK),
    ("GET", "/link", None),
    ("GET", "/link/x", None),
    ("PATCH", "/link/x", {"title": "T"}),
    ("PUT", "/link/x", LINK),
    ("DELETE", "/link/x", None),
    ("GET", "/go/x", None),
    ("GET", "/tags", None),
    ("GET", "/feed", None),
]
URL = "https://dynamodb.example"
TRANSIENT = {
    "throttled": failing(400, "ProvisionedThroughputExceededException"),
    "throttled on demand": failing(400, "ThrottlingException"),
    "over the account's limit": failing(400, "RequestLimitExceeded"),
    "in a transaction": failing(400, "TransactionConflictException"),
    "written in another region": failing(400, "ReplicatedWriteConflictException"),
    "broken": failing(500, "InternalServerError"),
    "away": failing(503, "ServiceUnavailable"),
    "away, as a page": answering(503, b"<html>"),
    "too slow": failing(408, "RequestTimeout"),
    "too often": failing(429, "TooManyRequests"),
    "no JSON": answering(200, b"<html>"),
    "no text": answering(200, b"\xff"),
    "nothing": answering(200, b""),
    "no object": answering(200, b"[]"),
    "no object, and an error": answering(503, b"null"),
    "a lone attribute": answering(200, b'{"S": "x"}'),
    "an error in a success": answering(200, b'{"__type": "ThrottlingException"}'),
    "damaged": answering(200, b"{}", {"x-amz-crc32": "1"}),
    "damaged error": answering(400, b"{}", {"X-Amz-CRC32": "1"}),
    "no connection": raising(botocore.exceptions.EndpointConnectionError(endpoint_url=URL)),
    "no connection in time": raising(botocore.exceptions.ConnectTimeoutError(endpoint_url=URL)),
    "no answer in time": raising(botocore.exceptions.ReadTimeoutError(endpoint_url=URL)),
    "connection lost": raising(botocore.exceptions.ConnectionClosedError(endpoint_url=URL)),
}
LASTING = {
    "access denied": failing(400, "AccessDeniedException"),
    "no table": failing(400, "ResourceNotFoundException"),
    "not understood": failing(400, "ValidationException"),
    "token expired": failing(400, "ExpiredTokenException"),
    "a bug": raising(KeyError("secret of the inside")),
}


def last_log(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: f"{request[0]} {request[1]}")
@pytest.mark.parametrize("case", TRANSIENT)
def test_when_dynamodb_fails_for_now(api, before_send, capsys, request_, case):
    before_send(TRANSIENT[case])
    answer = api(*request_)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.json()["Error"] == "The store is busy; try again soon."
    log = last_log(capsys)
    assert (log["status"], log["level"]) == (503, "ERROR")
    assert "Traceback" in log["error"] and "busy" not in log["error"], "the cause, not what the client is told"
    assert log["request_id"] == answer.json()["Reference"]


@pytest.mark.parametrize("case", LASTING)
def test_when_something_else_fails(api, before_send, capsys, case):
    before_send(LASTING[case])
    answer = api("GET", "/link")
    assert answer.status_code == 500
    assert answer.json()["Error"] == "Something went wrong here; the log has it under the reference."
    assert "Retry-After" not in answer.headers
    log = last_log(capsys)
    assert (log["status"], log["level"], log["errors"]) == (500, "ERROR", 1)
    assert "Traceback" in log["error"]
    assert log["request_id"] == answer.json()["Reference"]


def test_an_error_of_dynamodb_is_logged_plainly(api, before_send, capsys):
    """The last line of the traceback is what `make status` shows."""
    before_send(LASTING["token expired"])
    assert api("POST", "/link", LINK).status_code == 500
    error = last_log(capsys)["error"].splitlines()[-1]
    assert error.startswith("RuntimeError: DynamoDB answered PutItem with 400: {") and "#ExpiredTokenException" in error


@pytest.mark.parametrize("code", [400, 404, 413])
def test_what_does_not_pass_is_not_asked_again(api, before_send, code):
    attempts = []
    refuse = failing(code, "ValidationException")
    before_send(lambda request: attempts.append(request) or refuse(request))
    assert api("GET", "/link").status_code == 500
    assert len(attempts) == 1


@pytest.mark.parametrize("seconds, attempts", [(0, 3), (2, 3), (2.3, 2), (3, 2), (9, 1)])
def test_a_call_ends_in_time(handler, api, on_the_way, monkeypatch, seconds, attempts):
    """Each attempt takes so long; another one begins only if it can end within the deadline."""
    clock, made, began = [0.0], [], []

    def slow(request):
        began.append(clock[0])
        clock[0] += seconds
        raise botocore.exceptions.ReadTimeoutError(endpoint_url=URL)

    def wait(length):
        clock[0] += length
        made.append(length)

    on_the_way(slow)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.sleep", wait)
    monkeypatch.setattr("random.random", lambda: 1)
    assert api("GET", "/link").status_code == 503
    assert len(began) == attempts and made == [0.25, 0.5][: attempts - 1]
    assert all(start + handler.CONNECT + handler.READ <= handler.DEADLINE for start in began)


def test_waits_differ(handler, api, on_the_way, monkeypatch):
    """So that those who failed together do not try again together."""
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    on_the_way(TRANSIENT["throttled"])
    for _ in range(20):
        api("GET", "/link")
    first, second = waits[::2], waits[1::2]
    assert len(set(waits)) == 40 and max(first) <= 0.25 and max(second) <= 0.5
    assert min(waits) < 0.1 and max(second) > 0.25


def test_a_failure_that_passes_is_tried_again(api, before_send):
    attempts = []

    def twice(request):
        attempts.append(request)
        return TRANSIENT["broken"](request) if len(attempts) < 3 else None

    before_send(twice)
    assert api("POST", "/link", LINK).status_code == 201
    assert len(attempts) == 3


@pytest.fixture
def lose_answers(handler, on_the_way, no_waiting):
    """Lose DynamoDB's first answer to each write: it is done, and asked for again."""
    send, seen = handler.http.send, set()

    def forget(request):
        if operation_of(request) != "Query" and request.body not in seen:
            seen.add(request.body)
            assert send(request).status_code in (200, 400)
            TRANSIENT["no answer in time"](request)

    on_the_way(forget)


def test_a_lost_answer_of_dynamodb_changes_no_answer(api, lose_answers):
    posted = api("POST", "/link", LINK)
    path = f"/link/{posted.json()['link_id']}"
    assert posted.status_code == 201
    assert api("POST", "/link", LINK).status_code == 200
    seen = {"If-Match": posted.headers["ETag"]}
    patched = api("PATCH", path, {"title": "T"}, seen)
    assert (patched.status_code, patched.json()["title"]) == (200, "T")
    assert api("PATCH", path, {"title": "U"}, seen).status_code == 412
    assert api("GET", path).json() == patched.json()
    assert api("DELETE", path).status_code == 204
    assert api("DELETE", path).status_code == 404
    for status in (201, 200):
        put = api("PUT", "/link/docs", LINK)
        assert put.status_code == status
        assert api("PUT", "/link/docs", LINK, {"If-None-Match": "*"}).status_code == 412
        assert api("PUT", "/link/docs", LINK, {"If-Match": put.headers["ETag"]}).status_code == 200
    for visits in (1, 2):
        assert api("GET", "/go/docs").headers["Location"] == GOOGLE
        assert api("GET", "/link/docs").json()["visits"] == visits


@pytest.fixture
def when_found(handler, monkeypatch):
    """Let something happen to an item right after the handler has read it, before it writes."""
    find = handler.find

    def register(happen):
        def find_and_happen(link_id):
            item = find(link_id)
            monkeypatch.setattr(handler, "find", find)
            happen(handler.key_of(item))
            return item

        monkeypatch.setattr(handler, "find", find_and_happen)

    return register


CHANGES = [("PATCH", "/link/docs", {"title": "T"}), ("DELETE", "/link/docs", None)]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[0])
def test_a_link_that_is_deleted_during_a_change_stays_away(dynamodb, api, when_found, change):
    api("PUT", "/link/docs", LINK)
    when_found(lambda key: dynamodb.delete_item(TableName="links", Key=key))
    assert api(*change).status_code == 404
    assert api.all() == []


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[0])
def test_a_link_that_expires_during_a_change_stays_away(dynamodb, api, when_found, change):
    api("PUT", "/link/docs", LINK)
    when_found(
        lambda key: dynamodb.update_item(
            TableName="links",
            Key=key,
            UpdateExpression="SET expires_at = :past",
            ExpressionAttributeValues={":past": {"N": "1"}},
        )
    )
    assert api(*change).status_code == 404
    assert api.all() == []
    assert api("PUT", "/link/docs", LINK).status_code == 201


def test_a_name_that_is_deleted_during_a_put_is_stored_again(handler, api, monkeypatch):
    api("PUT", "/link/docs", LINK)
    update = handler.update

    def delete_and_update(*arguments):
        monkeypatch.setattr(handler, "update", update)
        assert api("DELETE", "/link/docs").status_code == 204
        return update(*arguments)

    monkeypatch.setattr(handler, "update", delete_and_update)
    assert api("PUT", "/link/docs", LINK).status_code == 201
    monkeypatch.setattr(handler, "update", delete_and_update)
    assert api("PUT", "/link/docs", LINK, {"If-Match": "*"}).status_code == 412


@pytest.mark.parametrize(
    "method, body, status", [("PATCH", {"title": "T"}, 200), ("PUT", LINK, 200), ("DELETE", None, 204)]
)
def test_a_change_by_somebody_else_that_if_none_match_allows_is_no_matter(api, when_found, method, body, status):
    api("PUT", "/link/docs", LINK)
    if method != "PUT":
        when_found(lambda key: api("PATCH", "/link/docs", {"notes": "N"}))
    assert api(method, "/link/docs", body, {"If-None-Match": '"other"'}).status_code == status


def test_attributes_of_others_are_left_alone(api, dynamodb):
    """Somebody may add some to an item, by the table's own API."""
    api("PUT", "/link/docs", LINK)
    for name, value in (
        ("N", {"N": "1.5"}),
        ("S", {"N": "1E+30"}),
        ("L", {"L": [{"N": "0.5"}]}),
        ("x", {"BOOL": True}),
    ):
        dynamodb.update_item(
            TableName="links",
            Key={"link_id": {"S": "docs"}, "link": {"S": "see url"}},
            UpdateExpression="SET #name = :value",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={":value": value},
        )
        for request in (("GET", "/link/docs"), ("PATCH", "/link/docs", {"title": name}), ("PUT", "/link/docs", LINK)):
            assert api(*request).json()["link"] == GOOGLE
        assert api("GET", "/go/docs").headers["Location"] == GOOGLE
    assert len(api.all()) == 1


def test_a_damaged_answer_is_not_logged(api, before_send, capsys):
    before_send(answering(200, b'{"Items": [{"title": {"S": "secret"}}]}', {"x-amz-crc32": "1"}))
    assert api("GET", "/link").status_code == 503
    assert "secret" not in capsys.readouterr().out


def test_a_change_by_somebody_else_during_ones_own_is_seen(api, when_found):
    etag = api("PUT", "/link/docs", LINK).headers["ETag"]
    for method, body in (("PATCH", {"title": "T"}), ("PUT", LINK), ("DELETE", None)):
        when_found(lambda key: api("PATCH", "/link/docs", {"notes": "N"}))
        assert api(method, "/link/docs", body, {"If-Match": etag}).status_code == 412
        etag = api("GET", "/link/docs").headers["ETag"]


@pytest.fixture
def queries(on_the_way):
    """The requests of Query that the handler makes."""
    made = []

    def note(request):
        if operation_of(request) == "Query":
            made.append(json.loads(request.body))

    on_the_way(note)
    return made


def test_a_link_is_read_as_it_is_now(api, queries):
    """Neither moto nor the engine is ever late, so the request itself is looked at."""
    path = f"/link/{api.post(GOOGLE)['link_id']}"
    for request in (("GET", path), ("GET", f"/link?link={GOOGLE}"), ("PATCH", path, {}), ("DELETE", path)):
        queries.clear()
        assert api(*request).status_code < 300
        assert [query["ConsistentRead"] for query in queries] == [True]


def test_an_id_that_no_key_can_be_is_not_looked_for(api, queries):
    """DynamoDB takes partition keys of 1 to 2,048 bytes, and has an error for others."""
    assert api("GET", "/link/" + "x" * 2049).status_code == 404
    assert queries == []


def test_a_short_link_costs_one_query(api, queries):
    api("PUT", "/link/docs", LINK)
    assert api("GET", "/go/docs").status_code == 302
    assert [query["ConsistentRead"] for query in queries] == [True]


def test_a_url_that_is_the_sort_key_is_stored_once(dynamodb, api):
    path = f"/link/{api.post(GOOGLE)['link_id']}"
    for method in ("PUT", "PATCH"):
        assert api(method, path, LINK).status_code == 200
        (item,) = dynamodb.scan(TableName="links")["Items"]
        assert item["link"] == {"S": GOOGLE} and "url" not in item


def test_a_page_costs_one_query_of_one_link_more(api, queries):
    """DynamoDB gives a LastEvaluatedKey at the very end too, when the limit is reached there."""
    for n in range(2):
        api.post(f"{GOOGLE}/{n}")
    queries.clear()
    assert "Link" not in api("GET", "/link?limit=2").headers
    assert [query["Limit"] for query in queries] == [3]


def test_a_search_without_the_index_reads_a_megabyte_at_once(api, queries):
    api.post(GOOGLE)
    for n in range(20):
        api.post(f"https://example.com/{n}")
    api("GET", "/tags")
    queries.clear()
    assert [record["link"] for record in api("GET", "/link?limit=1&q=go").json()] == [GOOGLE]
    assert ["Limit" in query for query in queries] == [False]


# --- The log


def test_a_request_is_logged_in_one_line(api, capsys):
    secret = {"link": "https://user:password@example.com/", "title": "secret", "notes": "secret"}
    link_id = api("POST", "/link", secret, {"x-api-key": "secret"}).json()["link_id"]
    api("GET", f"/link/{link_id}", headers={"Authorization": "secret"})
    api("GET", "/link?limit=secret")
    api("POST", "/link", {"secret": 1})
    api("PATCH", f"/link/{link_id}", '{"secret')
    out = capsys.readouterr().out
    assert "secret" not in out and "password" not in out
    lines = [json.loads(line) for line in out.splitlines()]
    assert max(map(len, out.splitlines())) <= 400
    assert [(line["method"], line["resource"], line["status"]) for line in lines] == [
        ("POST", "/link", 201),
        ("GET", "/link/{link_id}", 200),
        ("GET", "/link", 400),
        ("POST", "/link", 400),
        ("PATCH", "/link/{link_id}", 400),
    ]
    for line in lines:
        told = {"level", "method", "resource", "status", "ms", "request_id", "requests", "errors", "_aws"}
        assert line.keys() == told
        assert (line["requests"], line["errors"]) == (1, 0), "an error of the client is none of the store"
        assert (
            line["ms"] >= 0 and line["request_id"] == recorded("GET", "/link", {}, None)["requestContext"]["requestId"]
        )


def test_cloudwatch_makes_metrics_of_a_line(api, before_send, capsys):
    """By the specification of the embedded metric format; botocore validates nothing here, so it is spelt out."""
    api("GET", "/link")
    before_send(TRANSIENT["broken"])
    api("GET", "/link/docs")
    fine, failed = map(json.loads, capsys.readouterr().out.splitlines())
    for line in (fine, failed):
        ((directive,), now) = line["_aws"]["CloudWatchMetrics"], line["_aws"]["Timestamp"]
        assert abs(now / 1000 - time.time()) < 60, "milliseconds since 1970"
        assert directive["Namespace"] == "store"
        assert directive["Dimensions"] == [["resource"]]
        assert [metric["Name"] for metric in directive["Metrics"]] == ["requests", "errors", "ms"]
        assert directive["Metrics"][2]["Unit"] == "Milliseconds"
        assert all(isinstance(line[metric["Name"]], (int, float)) for metric in directive["Metrics"])
    assert (fine["resource"], fine["requests"], fine["errors"]) == ("/link", 1, 0)
    assert (failed["resource"], failed["requests"], failed["errors"]) == ("/link/{link_id}", 1, 1)


def test_the_log_has_the_time_in_milliseconds(api, capsys, monkeypatch):
    monkeypatch.setattr("time.perf_counter", itertools.count(step=0.0123).__next__)
    api("GET", "/")
    assert last_log(capsys)["ms"] == 12.3


def test_paths_that_are_not_there_make_no_metrics_of_their_own(api, capsys):
    for path in ("/admin", "/link/a/b", "/go"):
        api("GET", path)
    assert {json.loads(line)["resource"] for line in capsys.readouterr().out.splitlines()} == {"unknown"}


@pytest.mark.parametrize("case", [*TRANSIENT, *LASTING])
def test_health_is_503_when_the_table_does_not_answer(api, before_send, capsys, case):
    before_send((TRANSIENT | LASTING)[case])
    answer = api("GET", "/health")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert json.loads(capsys.readouterr().out)["level"] == "ERROR"


def test_health_tells_the_version_that_the_template_gave(api):
    assert api("GET", "/health").json() == {"version": "0.0.1"}


# --- Errors


def test_a_header_of_one_error_is_not_in_the_next(api, before_send):
    assert api("POST", "/tags").headers["Allow"] == "GET, HEAD, OPTIONS"
    before_send(LASTING["no table"])
    for path, status in (("/link/x", 500), ("/nowhere", 404), ("/link?limit=x", 400)):
        answer = api("GET", path)
        assert (answer.status_code, {"allow", "retry-after"} & set(answer.headers)) == (status, set())


def test_a_page_of_an_error_has_its_headers_too(api, before_send):
    html = {"Accept": "text/html"}
    answer = api("POST", "/go/docs", headers=html)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    before_send(TRANSIENT["away"])
    answer = api("GET", "/go/docs", headers=html)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.headers["Content-Type"].startswith("text/html")


# --- Events


def test_headers_of_one_name_are_one_list(handler, api):
    etag = api("POST", "/link", LINK).headers["ETag"]
    path = f"/link/{api.all()[0]['link_id']}"
    event = recorded("GET", path, {}, None)
    event["multiValueHeaders"]["if-none-match"] = ['"other"', etag]
    assert handler.lambda_handler(event, None)["statusCode"] == 304


def test_an_event_without_headers(handler):
    """So does the console of API Gateway test a method when it is given none."""
    for method, body, status in (("POST", json.dumps(LINK), 201), ("GET", None, 200)):
        event = recorded(method, "/link", {}, body) | {"headers": None, "multiValueHeaders": None}
        assert handler.lambda_handler(event, None)["statusCode"] == status


def test_urls_are_those_that_aws_was_asked(api):
    answer = api("POST", "/link", LINK)
    host = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com"
    assert answer.headers["Location"] == f"{host}/prod/link/{answer.json()['link_id']}"


@pytest.mark.parametrize("base", ["", "/prod", "/base", "/some/base"])
def test_urls_have_the_stage_or_the_base_path_of_a_domain(handler, api, base):
    for proxy, path in (("link", f"{base}/link"), ("link/", f"{base}/link/")):
        event = recorded("POST", "/link", {}, json.dumps(LINK))
        event["requestContext"]["path"], event["pathParameters"] = path, {"proxy": proxy}
        answer = proxy_response(handler.lambda_handler(event, None))
        assert answer.headers["Location"].split("amazonaws.com")[1] == f"{base}/link/{answer.json()['link_id']}"


def test_a_path_may_be_percent_encoded(handler, api):
    api("PUT", "/link/a~b", LINK)
    event = recorded("GET", "/link/a~b", {}, None) | {"pathParameters": {"proxy": "link/a%7Eb"}}
    assert handler.lambda_handler(event, None)["statusCode"] == 200


def test_a_page_of_an_error_has_no_markup_of_the_request(handler):
    event = recorded("<b>", "/go/x", {"Accept": "text/html"}, None)
    answer = handler.lambda_handler(event, None)
    assert answer["statusCode"] == 405 and "<b>" not in answer["body"] and "&lt;b&gt;" in answer["body"]


def test_a_request_id_that_a_client_chose_is_no_markup(handler):
    event = recorded("GET", "/go/unknown", {"Accept": "text/html"}, None)
    event["requestContext"]["requestId"] = "<script>alert(1)</script>"
    answer = handler.lambda_handler(event, None)
    assert (
        answer["statusCode"] == 404 and "<small>&lt;script&gt;" in answer["body"] and "<script>" not in answer["body"]
    )


@pytest.mark.parametrize("cursor", ["\ud800", "\u00e9", "a\udfff", "\0"])
def test_a_cursor_that_is_no_text_is_refused(handler, cursor):
    event = recorded("GET", "/link", {}, None)
    event["multiValueQueryStringParameters"] = {"cursor": [cursor]}
    answer = handler.lambda_handler(event, None)
    assert (answer["statusCode"], "cursor must be one from" in answer["body"]) == (400, True)


def test_a_cursor_of_another_stack_is_refused(handler, api, monkeypatch):
    for n in range(2):
        api.post(f"{GOOGLE}/{n}")
    path = api("GET", "/link?limit=1").links["next"]["url"].split("/prod")[1]
    assert api("GET", path).status_code == 200
    monkeypatch.setattr(handler, "STACK_ID", "another")
    api.refuses(400, "^cursor must be one", "GET", path)
