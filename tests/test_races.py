"""Many clients at once on the whole stack: one wins, and what is counted is exact."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from conftest import alone, eventually

GOOGLE = "https://www.google.com"
CLIENTS = 50


def warm_up(send, path="/nowhere"):
    """Let a function have a process for each of many clients: to start all of them at once takes too long.

    Nothing is at this path.
    """

    def are_answered(clients):
        with ThreadPoolExecutor(clients) as threads:
            answers = threads.map(lambda _: send("GET", path, {}, None), range(clients))
            return {answer.status_code for answer in answers} == {404}

    with alone():
        for clients in range(5, CLIENTS + 1, 5):
            eventually(lambda clients=clients: are_answered(clients), "an answer to each client")


@pytest.fixture(scope="module")
def warm(deployed):
    warm_up(deployed.send, "/link/none")


@pytest.fixture
def api(stack_api, warm):
    return stack_api


def at_once(request):
    """Return the answers to request(0), request(1) and so on, which begin when all threads are ready.

    Who is answered 503, as on a machine that is too busy for so many, asks again: it may have been done or not.
    """
    ready = Barrier(CLIENTS)

    def send(number):
        ready.wait()
        for _ in range(10):
            answer = request(number)
            if getattr(answer, "status_code", None) != 503:
                break
        return answer

    with alone(), ThreadPoolExecutor(CLIENTS) as threads:
        return list(threads.map(send, range(CLIENTS)))


def winner(answers, won, lost):
    """Return the one answer with the status `won`; all others must have `lost`."""
    assert Counter(answer.status_code for answer in answers) == {won: 1, lost: CLIENTS - 1}
    return next(answer for answer in answers if answer.status_code == won)


def test_posts_of_one_url_leave_one_link(api):
    answers = at_once(lambda n: api("POST", "/link", {"link": GOOGLE, "title": str(n)}))
    first = winner(answers, 201, 200)
    assert all(answer.json() == first.json() for answer in answers)
    assert all(answer.headers["ETag"] == first.headers["ETag"] for answer in answers)
    assert api.all() == [first.json()]


def test_one_puts_a_new_name_and_the_others_replace_it(api):
    answers = at_once(lambda n: api("PUT", "/link/docs", {"link": f"{GOOGLE}/{n}"}))
    created = winner(answers, 201, 200).json()["created_at"]
    (record,) = api.all()
    assert record in [answer.json() for answer in answers]
    assert {answer.json()["created_at"] for answer in answers} == {created}
    assert len({answer.headers["ETag"] for answer in answers}) == CLIENTS


def test_one_takes_a_name_that_must_be_free(api):
    put = lambda n: api("PUT", "/link/docs", {"link": f"{GOOGLE}/{n}"}, {"If-None-Match": "*"})
    first = winner(at_once(put), 201, 412)
    assert api.all() == [first.json()]


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_of_changes_of_one_etag_one_wins(api, method):
    etag = api("PUT", "/link/docs", {"link": GOOGLE}).headers["ETag"]
    change = lambda n: api(method, "/link/docs", {"link": GOOGLE, "title": str(n)}, {"If-Match": etag})
    first = winner(at_once(change), 200, 412)
    assert api.all() == [first.json()]
    assert api("GET", "/link/docs").headers["ETag"] == first.headers["ETag"]


@pytest.mark.parametrize("guarded", [False, True], ids=["any", "of one ETag"])
def test_of_deletions_one_wins(api, guarded):
    etag = api("PUT", "/link/docs", {"link": GOOGLE}).headers["ETag"]
    headers = {"If-Match": etag} if guarded else {}
    winner(at_once(lambda n: api("DELETE", "/link/docs", headers=headers)), 204, 404)
    assert api.all() == []


def test_a_change_and_a_deletion_of_one_etag_exclude_each_other(api):
    """Of fifty, every second deletes: one change or one deletion is done, and all are told which."""
    etag = api("PUT", "/link/docs", {"link": GOOGLE}).headers["ETag"]
    requests = [("PATCH", "/link/docs", json.dumps({"title": "T"})), ("DELETE", "/link/docs", None)]
    answers = at_once(lambda n: api(*requests[n % 2], {"If-Match": etag}))
    counts = Counter(answer.status_code for answer in answers)
    if counts[200]:
        assert counts == {200: 1, 412: CLIENTS - 1}
        assert [record["title"] for record in api.all()] == ["T"]
    else:
        assert counts == {204: 1, 404: CLIENTS - 1}
        assert api.all() == []


def test_changes_of_different_fields_are_all_kept(api):
    """PATCH writes the fields that it names, and no others."""
    path = f"/link/{api.post(GOOGLE)['link_id']}"
    fields = [{"title": "T"}, {"notes": "N"}, {"tags": ["t"]}]
    answers = at_once(lambda n: api("PATCH", path, fields[n % 3]))
    assert {answer.status_code for answer in answers} == {200}
    record = api("GET", path).json()
    assert {name: record[name] for name in ("title", "notes", "tags")} == {"title": "T", "notes": "N", "tags": ["t"]}


def test_visits_are_all_counted(api):
    for path in (f"/link/{api.post(GOOGLE)['link_id']}", "/link/docs"):
        api("PUT", path, {"link": GOOGLE})
        for rounds in (1, 2):
            answers = at_once(lambda _, path=path: api("GET", path.replace("/link/", "/go/")))
            assert {answer.status_code for answer in answers} == {302}
            assert api("GET", path).json()["visits"] == rounds * CLIENTS
