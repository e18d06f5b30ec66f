"""Posts, stacks/posts.yml: one table for users, posts and comments, where each view is one Query."""

import random
import re

import pytest

from stacks import fails_inside, is_closed, is_cors, without
from test_races import CLIENTS, at_once, winner

STACK = "posts"
UNKNOWN = "00000000-0000-7000-8000-000000000000"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
ID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
NO_USER, NO_POST = "There is no user with this id.", "There is no post with this id."


def made(system, path, body):
    """Create something, and return its record."""
    answer = system("POST", path, body)
    assert answer.status_code == 201, answer.text
    assert "PK" not in answer.json() and "SK" not in answer.json() and answer.headers["ETag"]
    return answer.json()


def a_user(system, **user):
    return made(system, "/users", {"firstName": "Ada"} | user)["userId"]


def a_post(system, user_id, **post):
    return made(system, "/post", {"userId": user_id, "postText": "Hello"} | post)["postId"]


def a_comment(system, post_id, user_id, **comment):
    return made(system, "/comment", {"postId": post_id, "userId": user_id, "commentText": "Hi"} | comment)["commentId"]


def test_a_user_posts_and_another_comments(system):
    user = made(system, "/users", {"firstName": "Ada", "lastName": "L", "profilePicture": "https://a.example/a.png"})
    assert list(user) == ["userId", "firstName", "lastName", "profilePicture", "createdAt", "updatedAt"]
    assert re.fullmatch(ID, user["userId"]) and re.fullmatch(TIME, user["createdAt"])
    assert system("GET", f"/users/{user['userId']}").json() == user
    post = made(system, "/post", {"userId": user["userId"], "postText": "Hello"})
    assert post["status"] == "published"
    assert post.keys() == {"userId", "postId", "postText", "status", "createdAt", "updatedAt"}
    changed = system("PUT", f"/post/{post['postId']}", {"userId": user["userId"], "postText": "Hello!"})
    assert changed.status_code == 200
    assert changed.json() == post | {"postText": "Hello!", "updatedAt": changed.json()["updatedAt"]}
    assert system("GET", f"/users/{user['userId']}/posts").json() == [user, changed.json()]
    assert system("GET", f"/post/{post['postId']}").json() == changed.json()
    assert system("GET", "/post").json() == [changed.json()]
    other = a_user(system, firstName="Bob")
    comment = made(system, "/comment", {"postId": post["postId"], "userId": other, "commentText": "Hi"})
    assert comment.keys() == {"postId", "commentId", "userId", "commentText", "createdAt", "updatedAt"}
    assert system("GET", f"/post/{post['postId']}/comments").json() == [comment]


def test_what_is_new_says_where_it_is(system):
    def there(path, body):
        answer = system("POST", path, body)
        return answer.json(), "/" + answer.headers["Location"].split("/prod/")[1]

    user, path = there("/users", {"firstName": "Ada"})
    assert system("GET", path).json() == user
    post, path = there("/post", {"userId": user["userId"], "postText": "Hello"})
    assert system("GET", path).json() == post
    comment, path = there("/comment", {"userId": user["userId"], "postId": post["postId"], "commentText": "Hi"})
    assert system("GET", path).json() == [comment]


# --- Views


def test_each_view_is_one_query(system_events, calls):
    user = a_user(system_events)
    post = a_post(system_events, user)
    a_comment(system_events, post, user)
    assert calls == ["PutItem", "TransactWriteItems", "TransactWriteItems"]
    for path in (f"/users/{user}/posts", f"/post/{post}/comments", "/post"):
        for query in ("", "?limit=1"):
            calls.clear()
            assert len(system_events("GET", path + query).json()) >= 1
            assert calls == ["Query"]
    calls.clear()
    system_events("PUT", f"/post/{post}", {"userId": user, "status": "draft"})
    assert calls == ["UpdateItem"]


def test_a_user_and_all_their_posts_by_pages(system_stack):
    system = system_stack
    user, other = a_user(system), a_user(system)
    posts = []
    for n in range(250):
        posts.append(a_post(system, user, postText=f"Post {n}"))
        if n % 50 == 0:
            a_post(system, other)
    pages = list(system.pages(f"/users/{user}/posts"))
    assert [len(page) for page in pages] == [100, 100, 51]
    first, *rest = sum(pages, [])
    assert first["firstName"] == "Ada" and not [record for record in rest if "firstName" in record]
    assert [record["postId"] for record in rest] == posts, "in the order of creation"


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_of_any_size_have_all(system, limit):
    user = a_user(system)
    post, *posts = [a_post(system, user) for _ in range(3)]
    comments = [a_comment(system, post, user) for _ in range(3)]
    pages = list(system.pages(f"/users/{user}/posts?limit={limit}"))
    assert [record.get("postId") for page in pages for record in page] == [None, post, *posts]
    pages = list(system.pages(f"/post/{post}/comments?limit={limit}"))
    assert [record["commentId"] for page in pages for record in page] == comments
    pages = list(system.pages(f"/post?limit={limit}"))
    assert [record["postId"] for page in pages for record in page] == [post, *posts][::-1]


def test_posts_of_more_than_a_megabyte_are_all_there(system_stack):
    system = system_stack
    user = a_user(system)
    posts = [a_post(system, user, postText="x" * 10_000) for _ in range(150)]
    pages = list(system.pages(f"/users/{user}/posts?limit=1000"))
    assert len(pages) == 2
    assert [record["postId"] for page in pages for record in page if "postId" in record] == posts


def test_only_posts_are_shown_as_posts(system):
    """Whatever else is kept below a user or a post some day."""
    user = a_user(system)
    post = a_post(system, user)
    for n in range(5):
        system.table.put_item(Item={"PK": f"USER#{user}", "SK": f"NOTE#{n}", "createdAt": "then"})
        system.table.put_item(Item={"PK": f"POST#{post}", "SK": f"LIKE#{n}", "createdAt": "then"})
    comment = a_comment(system, post, user)
    for limit in (1, 3, 100):
        pages = list(system.pages(f"/users/{user}/posts?limit={limit}"))
        assert [record.get("postId") for page in pages for record in page] == [None, post]
        pages = list(system.pages(f"/post/{post}/comments?limit={limit}"))
        assert [record["commentId"] for page in pages for record in page] == [comment]


def test_the_newest_published_posts_of_all_users(system_stack):
    system = system_stack
    users = [a_user(system, firstName=f"User {n}") for n in range(10)]
    posts = []
    for n in range(300):
        posts.append(a_post(system, users[n % 10]))
        if n % 30 == 0:
            a_post(system, users[0], status="draft")
    pages = list(system.pages("/post"))
    assert [len(page) for page in pages][:3] == [100] * 3
    records = sum(pages, [])
    assert [record["postId"] for record in records] == posts[::-1]
    assert [record["userId"] for record in records] == [users[n % 10] for n in range(300)][::-1]


def test_a_draft_is_not_among_the_newest(system):
    user = a_user(system)
    post = a_post(system, user, status="draft")
    newest = lambda: [record["postId"] for record in system("GET", "/post").json()]
    assert newest() == []
    assert system("GET", f"/users/{user}/posts").json()[1]["status"] == "draft"
    for status, shown in (("published", [post]), ("published", [post]), ("draft", []), ("draft", [])):
        answer = system("PUT", f"/post/{post}", {"userId": user, "status": status})
        assert (answer.json()["status"], newest()) == (status, shown)
        system("PUT", f"/post/{post}", {"userId": user, "postText": "changed"})
        assert newest() == shown, "another change leaves it there"


def test_a_comment_finds_its_post_at_once(system_stack):
    system = system_stack
    user = a_user(system)
    for _ in range(100):
        a_comment(system, a_post(system, user), user)


@pytest.mark.parametrize("path", ["/users/{}/posts", "/post/{}/comments"])
def test_a_cursor_reaches_nothing_else(system, path):
    user = a_user(system)
    post = a_post(system, user)
    path = path.format(user if "users" in path else post)
    for cursor in (
        "x",
        "AAAA_0",
        "ZZZZ_0",
        "POST#",
        "POST_",
        f"USER_{user}",
        "_",
        "1",
        "METADATA_",
        f"0_{post}",
        "%00",
    ):
        system.refuses(400, "cursor must be one from a Link header.", "GET", f"{path}?cursor={cursor}")
    forged = "POST_0" if "users" in path else "COMMENT_~"
    assert system("GET", f"{path}?cursor={forged.replace('~', 'z')}").status_code == 200


def test_a_cursor_of_the_newest(system):
    user = a_user(system)
    post = a_post(system, user)
    for cursor in ("x", post, f"{post}_", f"{post}_{user}_", f"POST_{post}", f"{post}{user}"):
        system.refuses(400, "cursor must be one from a Link header.", "GET", f"/post?cursor={cursor}")
    assert system("GET", f"/post?cursor={UNKNOWN}_{UNKNOWN}").json() == []


# --- Nothing half there


def test_what_is_not_there_is_not_changed(system):
    user, other = a_user(system), a_user(system)
    post = a_post(system, user)
    for user_id, post_id in ((user, UNKNOWN), (other, post), (UNKNOWN, post), (UNKNOWN, UNKNOWN)):
        for headers in ({}, {"If-Match": "*"}):
            system.refuses(404, NO_POST, "PUT", f"/post/{post_id}", {"userId": user_id, "postText": "x"}, headers)
    system.refuses(404, NO_USER, "PUT", f"/users/{UNKNOWN}", {"firstName": "x"})


def test_nothing_is_stored_for_what_is_not_there(system):
    user = a_user(system)
    post = a_post(system, user)
    assert [len(system("GET", f"/users/{a_user(system)}/posts").json())] == [1], "a user without posts"
    assert system("GET", f"/post/{post}/comments").json() == []
    system.refuses(404, NO_USER, "GET", f"/users/{UNKNOWN}")
    system.refuses(404, NO_USER, "GET", f"/users/{UNKNOWN}/posts")
    system.refuses(404, NO_POST, "GET", f"/post/{UNKNOWN}")
    system.refuses(404, NO_POST, "GET", f"/post/{UNKNOWN}/comments")
    system.refuses(404, NO_USER, "POST", "/post", {"userId": UNKNOWN, "postText": "x"})
    comment = {"postId": post, "userId": user, "commentText": "x"}
    system.refuses(404, NO_POST, "POST", "/comment", comment | {"postId": UNKNOWN})
    system.refuses(404, NO_USER, "POST", "/comment", comment | {"userId": UNKNOWN})
    system.refuses(404, NO_POST, "POST", "/comment", comment | {"userId": UNKNOWN, "postId": UNKNOWN})


def test_put_changes_what_it_is_given(system):
    user = a_user(system)
    given = {"postText": "Hello", "postImage": "https://a.example/a.png", "status": "draft"}
    post = made(system, "/post", {"userId": user} | given)
    for change in ({"status": "published"}, {"postText": "x"}, {"postImage": "http://b.example"}):
        answer = system("PUT", f"/post/{post['postId']}", {"userId": user} | change)
        post |= change | {"updatedAt": answer.json()["updatedAt"]}
        assert answer.json() == post
    record = system("PUT", f"/users/{user}", {"lastName": "L"}).json()
    assert (record["firstName"], record["lastName"]) == ("Ada", "L")
    assert system("PUT", f"/users/{user}", {"firstName": "B"}).json()["lastName"] == "L"
    path = f"/post/{post['postId']}"
    system.refuses(400, "The body must have something of the post to change.", "PUT", path, {"userId": user})
    system.refuses(400, "userId must be an id", "PUT", path, {"postText": "x"})
    system.refuses(400, "'postId' cannot be set", "PUT", path, {"userId": user, "postId": UNKNOWN})
    system.refuses(400, "The body must have something of the user", "PUT", f"/users/{user}", {})


# --- Bad input


IDS = ["x", "1", "x#y", "a$b", "", " ", "..", "%", UNKNOWN + "#", UNKNOWN.upper()[:-1] + "A", UNKNOWN + "\n", "9" * 300]
LONG_URL = "https://a.example/" + "x" * 2031  # a byte too many
URLS = [
    "",
    "x",
    "a.example",
    "//a.example",
    "javascript:alert(1)",
    "data:,x",
    "ftp://a.example",
    "https://",
    "http:///x",
]
URLS += [
    "https://a b",
    "https://a.example/\n",
    "https://a\\b",
    'https://a/"',
    "https://a/<b>",
    " https://a",
    "https://?x",
]
URLS += [5, None, LONG_URL, "https://a.example/" + "\u00e4" * 1020, "https://a\0"]
NO_TEXT = ["", " ", "\n", 5, None, True, ["x"], {"x": 1}, "x\0", "x\ud800"]
BAD = {
    "/users": {
        "firstName": (*NO_TEXT, "x" * 101),
        "lastName": (*NO_TEXT, "x" * 101),
        "profilePicture": URLS,
        "userId": [UNKNOWN],
        "PK": ["USER#x"],
        "createdAt": ["2026-11-20T19:39:05.588Z"],
    },
    "/post": {
        "userId": [*IDS, 5, None, ["x"]],
        "postText": (*NO_TEXT, "x" * 10_001),
        "postImage": URLS,
        "status": ["", "Draft", "deleted", 5, None, ["draft"], True],
        "list": ["published"],
        "postId": [UNKNOWN],
    },
    "/comment": {
        "userId": [*IDS, 5, None, ["x"]],
        "postId": [*IDS, 5, None, ["x"]],
        "commentText": (*NO_TEXT, "x" * 2001),
        "commentId": [UNKNOWN],
    },
}


@pytest.mark.parametrize("path, name", [(path, name) for path, names in BAD.items() for name in names])
def test_what_is_bad_is_refused(system_events, path, name):
    user = a_user(system_events)
    good = {
        "/users": {"firstName": "Ada"},
        "/post": {"userId": user, "postText": "Hello"},
        "/comment": {"userId": user, "postId": a_post(system_events, user), "commentText": "Hi"},
    }[path]
    for value in BAD[path][name]:
        system_events.refuses(400, name, "POST", path, good | {name: value})
    if name in good:
        system_events.refuses(400, name, "POST", path, {key: value for key, value in good.items() if key != name})
    for body in (None, "", "x", "[]", "1", "null", "NaN", b"\xff"):
        system_events.refuses(400, "The body must be a JSON object.", "POST", path, body)
    assert system_events("POST", path, good).status_code == 201


def test_the_longest_that_is_taken(system):
    url = LONG_URL[:-1]
    assert len(url) == 2048
    user = a_user(system, firstName="\U0001f600" * 100, profilePicture=url)
    post = a_post(system, user, postText="\u00e4" * 10_000, postImage="http://u:p@[::1]:80/a?b=c&d=e#f")
    a_comment(system, post, user, commentText="x" * 2000)


@pytest.mark.parametrize("id_", ["x", "x%23y", "a%24b", "%23", "9" * 300, UNKNOWN.replace("0", "G"), "%00"])
def test_an_id_reaches_no_other_partition(system, id_):
    user = a_user(system)
    a_post(system, user)
    for method, path, body in (
        ("GET", "/users/{}", None),
        ("GET", "/users/{}/posts", None),
        ("PUT", "/users/{}", {"firstName": "x"}),
        ("GET", "/post/{}", None),
        ("GET", "/post/{}/comments", None),
        ("PUT", "/post/{}", {"userId": user, "postText": "x"}),
    ):
        system.refuses(404, "There is no", method, path.format(id_), body)
    system.refuses(404, "There is no", "GET", f"/users/{user}%23{id_}")


def test_queries(system_events):
    user = a_user(system_events)
    for path in (f"/users/{user}/posts", "/post"):
        for query in ("limit=0", "limit=1001", "limit=x", "limit=1&limit=1", "status=draft"):
            system_events.refuses(400, "", "GET", f"{path}?{query}")


# --- Entity tags


def test_entity_tags(system):
    user = a_user(system)
    for path, change in (
        (f"/users/{user}", {"firstName": "B"}),
        (f"/post/{a_post(system, user)}", {"userId": user, "postText": "B"}),
    ):
        etag = system("GET", path).headers["ETag"]
        assert system("GET", path, headers={"If-None-Match": etag}).status_code == 304
        system.refuses(412, "If-Match does not hold", "PUT", path, change, {"If-Match": '"x"'})
        changed = system("PUT", path, change, {"If-Match": etag})
        assert changed.status_code == 200 and changed.headers["ETag"] != etag
        assert system("GET", path, headers={"If-None-Match": etag}).status_code == 200
        system.refuses(412, "If-Match does not hold", "PUT", path, change, {"If-Match": etag})


# --- Many at once, and what fails


def test_of_changes_of_one_etag_one_wins(system_stack):
    user = a_user(system_stack)
    post = f"/post/{a_post(system_stack, user)}"
    headers = {"If-Match": system_stack("GET", post).headers["ETag"]}
    put = lambda n: system_stack("PUT", post, {"userId": user, "postText": str(n)}, headers)
    first = winner(at_once(put), 200, 412)
    assert system_stack("GET", post).json() == first.json()


def test_many_posts_at_once_are_all_there(system_stack):
    user = a_user(system_stack)
    answers = at_once(lambda n: system_stack("POST", "/post", {"userId": user, "postText": str(n)}))
    assert {answer.status_code for answer in answers} == {201}
    _, *posts = system_stack("GET", f"/users/{user}/posts").json()
    assert sorted(post["postId"] for post in posts) == sorted(answer.json()["postId"] for answer in answers)
    assert [post["postId"] for post in posts] == sorted(post["postId"] for post in posts)
    assert len({post["postId"] for post in system_stack("GET", "/post").json()}) == CLIENTS
    markers = [item for item in system_stack.items() if item["PK"].startswith("POST#")]
    assert {item["PK"] for item in markers} == {f"POST#{post['postId']}" for post in posts}


@pytest.mark.parametrize("fault", ["answer lost", "half an answer", "answer cut"])
def test_a_lost_answer_stores_once(system_faulty, fault):
    def lost(*request):
        system_faulty.faults[:] = [fault]
        return system_faulty(*request)

    user = lost("POST", "/users", {"firstName": "Ada"}).json()["userId"]
    answer = lost("POST", "/post", {"userId": user, "postText": "Hello"})
    assert (answer.status_code, system_faulty.made[-2:]) == (201, ["TransactWriteItems"] * 2)
    post = answer.json()["postId"]
    assert lost("POST", "/comment", {"userId": user, "postId": post, "commentText": "Hi"}).status_code == 201
    assert len(system_faulty.items()) == 1 + 2 + 1
    change = {"userId": user, "postText": "Hello!"}
    changed = lost("PUT", f"/post/{post}", change, {"If-Match": answer.headers["ETag"]})
    assert (changed.status_code, changed.json()["postText"]) == (200, "Hello!")
    assert system_faulty("GET", f"/post/{post}").headers["ETag"] == changed.headers["ETag"]


def conflicts(system, monkeypatch, count):
    """Let so many transactions be refused as they meet others; return the list of those that are sent."""
    client, sent = system.table.meta.client, []
    send = client.transact_write_items

    def transact(**request):
        sent.append(request)
        if len(sent) > count:
            return send(**request)
        reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
        told = {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons}
        told["ResponseMetadata"] = {"HTTPStatusCode": 400}
        raise client.exceptions.TransactionCanceledException(told, "TransactWriteItems")

    monkeypatch.setattr(client, "transact_write_items", transact)
    monkeypatch.setattr(random, "random", lambda: 0)
    return sent


def test_transactions_that_meet_are_tried_again(system_events, monkeypatch):
    user = a_user(system_events)
    sent = conflicts(system_events, monkeypatch, 5)
    a_post(system_events, user)
    assert len(sent) == 6 and len(system_events.items()) == 3


def test_transactions_that_always_meet_are_503(system_events, monkeypatch):
    user = a_user(system_events)
    conflicts(system_events, monkeypatch, 6)
    refused = system_events.refuses(503, "The table is busy", "POST", "/post", {"userId": user, "postText": "Hello"})
    assert refused.headers["Retry-After"] == "1"


# --- The stack


def test_the_role_has_what_is_needed(engine, system_stack):
    user = a_user(system_stack)
    post = a_post(system_stack, user)
    new = ("POST", "/post", {"userId": user, "postText": "Hello"})
    requests = {
        "GetItem": [("GET", f"/users/{user}")],
        "PutItem": [("POST", "/users", {"firstName": "Ada"}), new],
        "UpdateItem": [("PUT", f"/users/{user}", {"firstName": "B"})],
        "ConditionCheckItem": [new, ("POST", "/comment", {"postId": post, "userId": user, "commentText": "Hi"})],
        "Query": [("GET", f"/users/{user}/posts"), ("GET", "/post"), ("GET", f"/post/{post}/comments")],
    }
    for action, each in requests.items():
        with without(engine, "tests-posts", f"dynamodb:{action}"):
            for request in each:
                before = system_stack.items()
                fails_inside(system_stack(*request))
                assert system_stack.items() == before
        for request in each:
            assert system_stack(*request).status_code in (200, 201)


def test_methods_and_preflights(system):
    is_cors(system, "/users", "POST, OPTIONS")
    is_cors(system, f"/users/{UNKNOWN}", "GET, PUT, HEAD, OPTIONS")
    is_cors(system, f"/users/{UNKNOWN}/posts", "GET, HEAD, OPTIONS")
    is_cors(system, "/post", "GET, POST, HEAD, OPTIONS")
    is_cors(system, f"/post/{UNKNOWN}", "GET, PUT, HEAD, OPTIONS")
    is_cors(system, "/comment", "POST, OPTIONS")
    system.refuses(404, "There is no such path here; there are /users", "GET", "/posts")


def test_access_iam_and_two_stacks_side_by_side(engine, system_stack):
    user = {"firstName": "Ada"}
    assert is_closed(engine, STACK, ("/post", "/users"), user) == 1
    assert system_stack.items() == []
