"""Reviews, stacks/reviews.yml: create, read, update, delete, and an index that lists newest first."""

import re
from collections import Counter

import pytest

from conftest import NEVER_THROTTLED, aws, settled
from stacks import fails_inside, is_closed, is_cors, system_at, without
from test_races import CLIENTS, at_once, winner

STACK = "reviews"
UNKNOWN = "/reviews/00000000-0000-7000-8000-000000000000"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[57][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
NONE = "There is no review with this id."


@pytest.fixture
def post(system):
    """A function that stores a review, and returns its path, record and entity tag."""

    def post(**review):
        answer = system("POST", "/reviews", {"review": "Loved it"} | review)
        assert answer.status_code == 201, answer.text
        path = "/" + answer.headers["Location"].split("/prod/")[1]
        assert path == f"/reviews/{answer.json()['id']}"
        return path, answer.json(), answer.headers["ETag"]

    return post


def test_a_review_is_created_changed_listed_and_deleted(system, post):
    path, record, _ = post(name="Ada")
    assert list(record) == ["id", "review", "name", "createdAt", "updatedAt"]
    assert re.fullmatch(ID, record["id"]) and re.fullmatch(TIME, record["createdAt"])
    assert (record["review"], record["name"], record["updatedAt"]) == ("Loved it", "Ada", record["createdAt"])
    assert system("GET", path).json() == record
    changed = system("PUT", path, {"review": "Liked it"})
    assert changed.status_code == 200
    assert changed.json() == record | {"review": "Liked it", "updatedAt": changed.json()["updatedAt"]}
    # After an update all of them still work, and times are text.
    assert re.fullmatch(TIME, changed.json()["updatedAt"]) and changed.json()["updatedAt"] >= record["updatedAt"]
    assert system("GET", path).json() == changed.json()
    assert system("GET", "/reviews").json() == [changed.json()]
    deleted = system("DELETE", path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert system("GET", "/reviews").json() == []
    system.refuses(404, NONE, "GET", path)


def test_put_keeps_a_name_that_it_does_not_give(system, post):
    path, _, _ = post(name="Ada")
    assert system("PUT", path, {"review": "R"}).json()["name"] == "Ada"
    assert system("PUT", path, {"review": "R", "name": "Bob"}).json()["name"] == "Bob"


def test_a_reviewer_without_a_name_gets_a_made_up_one(system_events):
    names = Counter()
    for n in range(100):
        answer = system_events("POST", "/reviews", {"review": "R"}, {"Idempotency-Key": str(n)})
        again = system_events("POST", "/reviews", {"review": "R"}, {"Idempotency-Key": str(n)})
        names[answer.json()["name"]] += 1
        assert again.json() == answer.json()
    assert len(names) > 30 and all(re.fullmatch("[A-Z][a-z]+ [A-Z][a-z]+", name) for name in names)


def test_what_is_not_there_is_not_created(system):
    for path in (UNKNOWN, "/reviews/x", f"/reviews/{'9' * 3000}", UNKNOWN.upper(), "/reviews/%00", "/reviews/a%23b"):
        path = path.replace("/REVIEWS", "/reviews")
        for headers in ({}, {"If-Match": '"x"'}, {"If-Match": "*"}):
            system.refuses(404, NONE, "PUT", path, {"review": "R"}, headers)
            system.refuses(404, NONE, "DELETE", path, None, headers)
        system.refuses(404, NONE, "GET", path)
    assert system.items() == []


TEXT = "review must be a string of 1 to 10000 characters"
BAD = [
    *[(body, "The body must be a JSON object.") for body in (None, "", "review", "[]", '"R"', "{", b"\xff")],
    *[({"review": review}, TEXT) for review in ("", " ", "\t\n", 5, None, True, ["R"], {"x": 1}, "x" * 10_001)],
    *[({"review": f"R{bad}"}, TEXT) for bad in ("\0", "\x1f", "\x7f", "\x9f", "\ud800", "\ufffe")],
    ({}, TEXT),
    ({"name": "Ada"}, TEXT),
    *[({"review": "R", "name": name}, "name must be a string of 1 to 100") for name in ("", " ", 5, None, "x" * 101)],
    ({"review": "R", "id": "x"}, "'id' cannot be set; review, name can."),
    ({"review": "R", "list": "x"}, "'list' cannot be set"),
    ({"review": "R", "createdAt": "2026-11-20T19:39:05.588Z"}, "'createdAt' cannot be set"),
]


@pytest.mark.parametrize("body, sentence", BAD, ids=range(len(BAD)))
def test_what_is_no_review_is_refused(system_events, body, sentence):
    path = "/reviews/" + system_events("POST", "/reviews", {"review": "R", "name": "Ada"}).json()["id"]
    system_events.refuses(400, sentence, "POST", "/reviews", body)
    system_events.refuses(400, sentence, "PUT", path, body)


def test_the_longest_review_is_kept_as_it_was_sent(system, post):
    review = "\U0001f600\r\n\t\u2028<b>" * 1250
    path, _, _ = post(review=review, name="x" * 100)
    assert len(review) == 10_000 and system("GET", path).json()["review"] == review


def test_the_newest_come_first_by_pages(system):
    reviews = [f"Review {n}" for n in range(250)]
    for n, review in enumerate(reviews):
        item = {"id": f"{n * 7919 % 250:08x}{UNKNOWN[-28:]}", "review": review, "name": "Ada", "list": "all"}
        time = f"2026-11-20T19:39:{n // 10 % 60:02}.{n % 10}00Z"
        system.table.put_item(Item=item | {"createdAt": time, "updatedAt": time, "etag": "0" * 32})
    pages, seen = system.pages("/reviews"), []
    for page in pages:
        seen.append([record["review"] for record in page])
        system("POST", "/reviews", {"review": "Added meanwhile"})
    assert [len(page) for page in seen] == [100, 100, 50]
    assert sum(seen, []) == reviews[::-1]
    assert [record["review"] for record in system("GET", "/reviews?limit=3").json()] == ["Added meanwhile"] * 3


def test_reviews_of_one_moment_are_all_listed(system):
    moment = {"createdAt": "2026-11-20T19:39:05.588Z", "updatedAt": "2026-11-20T19:39:05.588Z"}
    for n in range(25):
        item = {"id": f"{n:08}{UNKNOWN[-28:]}", "review": str(n), "name": "Ada", "list": "all", "etag": "0" * 32}
        system.table.put_item(Item=item | moment)
    pages = list(system.pages("/reviews?limit=10"))
    assert [len(page) for page in pages] == [10, 10, 5]
    assert {record["review"] for page in pages for record in page} == set(map(str, range(25)))


CURSOR = "2026-11-20T19:39:05.588Z_00000000-0000-5000-8000-000000000000"
CURSORS = [
    "x",
    "1",
    CURSOR[:-1],
    CURSOR + "0",
    CURSOR.replace("_", ""),
    "_",
    CURSOR + "%00",
    "*",
    "%20",
]


@pytest.mark.parametrize("cursor", CURSORS)
def test_a_cursor_that_is_none_is_refused(system_events, cursor):
    system_events.refuses(400, "cursor must be one from a Link header.", "GET", f"/reviews?cursor={cursor}")


@pytest.mark.parametrize("cursor", [CURSOR, CURSOR.replace("2026", "9999"), "-" * 23 + CURSOR[23:]])
def test_a_forged_cursor_only_says_where_to_go_on(system, post, cursor):
    _, record, _ = post()
    answer = system("GET", f"/reviews?cursor={cursor}")
    assert (answer.status_code, answer.json() in ([], [record])) == (200, True)


# --- Entity tags


def test_an_entity_tag_changes_with_each_write_and_with_nothing_else(system, post):
    path, record, etag = post()
    tags = [etag]
    for _ in range(3):
        assert system("GET", path).headers["ETag"] == tags[-1]
        tags.append(system("PUT", path, {"review": record["review"]}).headers["ETag"])
    system.refuses(400, "", "PUT", path, {})
    assert system("HEAD", path).headers["ETag"] == tags[-1]
    assert len(set(tags)) == 4 and all(re.fullmatch('"[0-9a-f]{32}"', tag) for tag in tags)


def test_if_none_match(system, post):
    path, record, etag = post()
    assert system("GET", path, headers={"If-None-Match": etag}).status_code == 304
    system("PUT", path, {"review": "R"})
    assert system("GET", path, headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_if_match(system, post, method):
    path, _, etag = post()
    body = {"review": "R"} if method == "PUT" else None
    for wrong in ('"x"', f"W/{etag}", etag.strip('"'), "x", "", f'"{"0" * 32}", "y"'):
        refused = system.refuses(412, "If-Match does not hold; the ETag is", method, path, body, {"If-Match": wrong})
        assert etag in refused.json()["Error"]
    many = ", ".join(f'"{n}"' for n in range(101))
    system.refuses(400, "If-Match may have at most 100 entity tags.", method, path, body, {"If-Match": many})
    right = f'"x", {etag}' if method == "PUT" else f"{etag}"
    assert system(method, path, body, {"If-Match": right}).status_code in (200, 204)


# --- Repeated requests


def test_a_key_makes_creating_idempotent(system):
    key, body = {"Idempotency-Key": "order 66"}, {"review": "R", "name": "Ada"}
    first = system("POST", "/reviews", body, key)
    assert first.status_code == 201
    again = system("POST", "/reviews", body, key)
    assert (again.status_code, again.json(), again.headers["ETag"]) == (200, first.json(), first.headers["ETag"])
    assert again.headers["Location"] == first.headers["Location"]
    for other in ({"review": "S", "name": "Ada"}, {"review": "R"}, {"review": "R", "name": "Bob"}):
        system.refuses(409, "This Idempotency-Key was used for another review.", "POST", "/reviews", other, key)
    # Also when it was changed meanwhile: what was sent counts, and what is there is the answer.
    changed = system("PUT", f"/reviews/{first.json()['id']}", {"review": "S"})
    again = system("POST", "/reviews", body, key)
    assert (again.status_code, again.json()) == (200, changed.json())
    assert system("POST", "/reviews", body, {"Idempotency-Key": "order 67"}).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 129, "\u00e4", "a\tb"])
def test_a_key_is_short_and_printable(system_events, key):
    system_events.refuses(
        400, "Idempotency-Key must have", "POST", "/reviews", {"review": "R"}, {"Idempotency-Key": key}
    )


# --- Many at once, and what fails


def test_of_one_key_sent_at_once_one_creates(system_stack):
    answers = at_once(lambda n: system_stack("POST", "/reviews", {"review": "R"}, {"Idempotency-Key": "K"}))
    first = winner(answers, 201, 200)
    assert all(answer.json() == first.json() for answer in answers)
    assert system_stack("GET", "/reviews").json() == [first.json()]
    other = at_once(lambda n: system_stack("POST", "/reviews", {"review": str(n)}, {"Idempotency-Key": "L"}))
    winner(other, 201, 409)


def created(system):
    answer = system("POST", "/reviews", {"review": "R"})
    return f"/reviews/{answer.json()['id']}", answer.headers["ETag"]


def test_of_changes_of_one_etag_one_wins(system_stack):
    path, etag = created(system_stack)
    answers = at_once(lambda n: system_stack("PUT", path, {"review": str(n)}, {"If-Match": etag}))
    first = winner(answers, 200, 412)
    assert system_stack("GET", path).json() == first.json()


def test_of_deletions_one_wins(system_stack):
    path, _ = created(system_stack)
    winner(at_once(lambda n: system_stack("DELETE", path)), 204, 404)


def test_a_change_and_a_deletion_of_one_etag_exclude_each_other(system_stack):
    path, etag = created(system_stack)
    requests = [("PUT", path, {"review": "S"}), ("DELETE", path, None)]
    counts = Counter(each.status_code for each in at_once(lambda n: system_stack(*requests[n % 2], {"If-Match": etag})))
    if counts[200]:
        assert counts == {200: 1, 412: CLIENTS - 1}
    else:
        assert counts == {204: 1, 404: CLIENTS - 1}
    assert len(system_stack.items()) == counts[200]


LOST = pytest.mark.parametrize("fault", ["answer lost", "half an answer", "answer cut"])


@LOST
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "K"}], ids=["no key", "key"])
def test_a_lost_answer_to_a_creation(system_faulty, fault, headers):
    system_faulty.faults[:] = [fault]
    answer = system_faulty("POST", "/reviews", {"review": "R"}, headers)
    assert (answer.status_code, system_faulty.made) == (201, ["PutItem"] * 2)
    (item,) = system_faulty.items()
    assert (item["id"], f'"{item["etag"]}"') == (answer.json()["id"], answer.headers["ETag"])


@LOST
@pytest.mark.parametrize("guarded", [False, True], ids=["any", "of one ETag"])
def test_a_lost_answer_to_a_change_or_a_deletion(system_faulty, fault, guarded):
    path, etag = created(system_faulty)
    system_faulty.faults[:] = [fault]
    answer = system_faulty("PUT", path, {"review": "S"}, {"If-Match": etag} if guarded else {})
    assert (answer.status_code, answer.json()["review"]) == (200, "S")
    (item,) = system_faulty.items()
    assert f'"{item["etag"]}"' == answer.headers["ETag"] == system_faulty("GET", path).headers["ETag"]
    system_faulty.faults[:] = [fault]
    headers = {"If-Match": answer.headers["ETag"]} if guarded else {}
    assert system_faulty("DELETE", path, headers=headers).status_code == 204
    assert system_faulty.items() == []
    assert system_faulty("DELETE", path, headers=headers).status_code == 404
    assert system_faulty.made == ["PutItem", *["UpdateItem"] * 2, "GetItem", *["DeleteItem"] * 3]


# --- The stack


REQUESTS = {
    "PutItem": ("POST", "/reviews", {"review": "R"}),
    "GetItem": ("GET", UNKNOWN),
    "UpdateItem": ("PUT", UNKNOWN, {"review": "R"}),
    "DeleteItem": ("DELETE", UNKNOWN),
    "Query": ("GET", "/reviews"),
}


@pytest.mark.parametrize("action, request_", REQUESTS.items(), ids=REQUESTS)
def test_the_role_has_what_is_needed(engine, system_stack, action, request_):
    with without(engine, "tests-reviews", f"dynamodb:{action}"):
        fails_inside(system_stack(*request_))
    assert system_stack(*request_).status_code in (201, 404, 200)


def test_methods_and_preflights(system):
    is_cors(system, "/reviews", "GET, POST, HEAD, OPTIONS")
    is_cors(system, UNKNOWN, "GET, PUT, DELETE, HEAD, OPTIONS")


def test_a_page_of_another_origin(engine):
    parameters = NEVER_THROTTLED | {"AllowedOrigin": "https://page.example"}
    with system_at(engine, STACK, "origin-reviews", parameters) as system:
        system.origin = "https://page.example"  # which each answer must name
        for request in REQUESTS.values():
            answer = system(*request, **({} if len(request) > 2 else {"body": None}))
            assert "Access-Control-Allow-Credentials" not in answer.headers
        system.refuses(400, "", "POST", "/reviews", {})
        assert system("OPTIONS", "/reviews").status_code == 200


def test_access_iam_and_two_stacks_side_by_side(engine, system_stack):
    assert is_closed(engine, STACK, ["/reviews"] * 2, {"review": "R"}) == 1
    assert system_stack("GET", "/reviews").json() == []


def test_a_stack_is_deleted_and_created_again(engine):
    for _ in range(2):
        with system_at(engine, STACK, "again-reviews") as system:
            assert system("GET", "/reviews").json() == []
            assert system("POST", "/reviews", {"review": "R"}).status_code == 201
        stack_id = settled(engine, "again-reviews")["StackId"]
        aws(engine, *"cloudformation delete-stack --stack-name again-reviews".split())
        assert settled(engine, stack_id)["StackStatus"] == "DELETE_COMPLETE"
        assert system.table.name not in aws(engine, "dynamodb", "list-tables")["TableNames"]
