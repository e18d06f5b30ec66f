"""Pets, stacks/pets.yml: a table with a number as key, where creating is idempotent."""

import pytest

from conftest import NEVER_THROTTLED
from stacks import fails_inside, is_closed, is_cors, system_at, without
from test_races import CLIENTS, at_once, winner

STACK = "pets"
REX = {"id": 1, "name": "Rex"}
MOST = 2**53 - 1


def test_a_pet_is_created_found_and_listed(system):
    answer = system("POST", "/pets", REX)
    assert (answer.status_code, answer.json()) == (201, REX)
    assert answer.headers["Location"] == f"{answer.headers['Location'].split('/pets')[0]}/pets/1"
    found = system("GET", "/pets/1")
    assert (found.status_code, found.json(), found.headers["ETag"]) == (200, REX, answer.headers["ETag"])
    assert system("GET", answer.headers["Location"].partition("/prod")[2]).json() == REX
    assert system("GET", "/pets").text == '[{"id": 1, "name": "Rex"}]\n'
    assert system("GET", "/pets/").json() == [REX]
    system.refuses(404, "There is no pet with this id.", "GET", "/pets/2")


def test_creating_is_idempotent_and_never_changes_a_pet(system):
    first = system("POST", "/pets", REX)
    again = system("POST", "/pets", REX)
    assert (again.status_code, again.json(), again.headers["ETag"]) == (200, REX, first.headers["ETag"])
    assert again.headers["Location"] == first.headers["Location"]
    system.refuses(409, "There is a pet with this id and another name.", "POST", "/pets", REX | {"name": "Max"})
    assert system("GET", "/pets").json() == [REX]


@pytest.mark.parametrize("pet", [{"id": MOST, "name": "x"}, {"id": 2, "name": "\u00e4\U0001f600\n" * 33 + "x"}])
def test_the_limits_are_within(system, pet):
    assert system("POST", "/pets", pet).status_code == 201
    assert system("GET", f"/pets/{pet['id']}").json() == pet


def test_a_name_comes_back_as_it_was_sent(system):
    pet = {"id": 3, "name": '<script>alert("1")</script>'}
    assert system("POST", "/pets", pet).json() == pet
    answer = system("GET", "/pets/3")
    assert answer.json() == pet
    assert (answer.headers["Content-Type"], answer.headers["X-Content-Type-Options"]) == ("application/json", "nosniff")


ID, NAME, OBJECT = "id must be a whole number", "name must be a string", "The body must be a JSON object."
NUMBERS = ["0", "-1", "1.5", "1.0", "true", '"1"', "null", "[]", str(2**53), "1e400", "1e2", "NaN", "-Infinity"]
BAD = [
    *[(body, OBJECT) for body in ("", "[]", "1", "null", "NaN", "{", '"x"', "[" * 100_000, b"\xff\xfe")],
    *[(f'{{"id": {number}, "name": "Rex"}}', ID) for number in NUMBERS],
    (f'{{"id": {"9" * 5000}, "name": "Rex"}}', OBJECT),  # what Python does not read
    ({"name": "Rex"}, ID),
    ({"id": 1}, NAME),
    *[({"id": 1, "name": name}, NAME) for name in ("", " ", " \n\t", "x" * 101, 5, None, ["Rex"], {"x": "Rex"}, True)],
    *[({"id": 1, "name": f"Rex{bad}"}, NAME) for bad in ("\0", "\x1b", "\x7f", "\x85", "\ud800", "\udfff", "\uffff")],
    (REX | {"colour": "brown"}, "'colour' cannot be set; id, name can."),
    ('{"id": 1, "name": "Rex", "etag": NaN}', "'etag' cannot be set"),
    (REX | {"\ud800" * 100: 1}, "cannot be set"),
]


@pytest.mark.parametrize("body, sentence", BAD, ids=range(len(BAD)))
def test_what_is_no_pet_is_refused(system, body, sentence):
    system.refuses(400, sentence, "POST", "/pets", body)


@pytest.mark.parametrize("path", ["/x", "/01", "/-1", "/0", "/1.0", "/9007199254740992", "/99999999999999999", "/%F0"])
def test_what_is_no_id_is_not_found(system, path):
    system("POST", "/pets", REX)
    system.refuses(404, "There is no pet with this id.", "GET", f"/pets{path}")


@pytest.mark.parametrize("path", ["/pets/1/2", "/pet", "/petss", "/prod/pets"])
def test_what_is_no_path_is_not_found(system, path):
    system.refuses(404, "There is no such path here; there are /pets, /pets/{id}.", "GET", path)


QUERIES = ["limit=0", "limit=1001", "limit=-1", "limit=1.0", "limit=", "limit=1&limit=1", "limit=%D9%A1", "cursor=x"]
QUERIES += ["cursor=0", "cursor=-1", "cursor=1&cursor=1", "cursor=01", "cursor=1%0A", "id=1", "cursor=1_1", "Limit=1"]
QUERIES += ["cursor=2026-11-20T19:39:05.588Z_00000000-0000-5000-8000-000000000000"]  # of reviews


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_limit_and_cursor(system_events, query):
    system_events.refuses(400, "", "GET", f"/pets?{query}")


def test_all_pets_are_listed_by_pages(system):
    pets = {n: f"Pet {n}" for n in range(1, 251)}
    with system.table.batch_writer() as batch:
        for number, name in pets.items():
            batch.put_item({"id": number, "name": name, "etag": "0" * 32})
    pages = list(system.pages("/pets"))
    assert [len(page) for page in pages] == [100, 100, 50]
    assert {pet["id"]: pet["name"] for page in pages for pet in page} == pets
    pages = list(system.pages("/pets?limit=125"))
    assert [len(page) for page in pages][:2] == [125, 125] and sum(pages[2:], []) == [], "the limit goes along"
    assert len(system("GET", "/pets?limit=1000").json()) == 250
    # A cursor is where to go on, which need not be there.
    assert system("GET", f"/pets?cursor={MOST}").status_code == 200


def test_a_pet_that_a_client_has_is_not_sent(system):
    etag = system("POST", "/pets", REX).headers["ETag"]
    for seen in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = system("GET", "/pets/1", headers={"If-None-Match": seen})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    assert system("GET", "/pets/1", headers={"If-None-Match": '"x"'}).json() == REX
    assert system("POST", "/pets", REX, {"If-None-Match": etag}).status_code == 200, "it is for GET"


def test_head_is_get_without_a_body(system):
    system("POST", "/pets", REX)
    for path in ("/pets", "/pets/1"):
        answer = system("HEAD", path)
        assert (answer.status_code, answer.content) == (200, b"")
    assert system("HEAD", "/pets/2").status_code == 404


def test_methods_and_preflights(system):
    is_cors(system, "/pets", "GET, POST, HEAD, OPTIONS")
    is_cors(system, "/pets/1", "GET, HEAD, OPTIONS")
    assert system("OPTIONS", "/nowhere").status_code == 404


# --- Many at once, and what fails


def test_of_many_names_at_once_one_wins(system_stack):
    answers = at_once(lambda n: system_stack("POST", "/pets", {"id": 1, "name": f"Pet {n}"}))
    first = winner(answers, 201, 409)
    assert system_stack("GET", "/pets").json() == [first.json()]


def test_of_one_name_sent_at_once_one_creates(system_stack):
    answers = at_once(lambda n: system_stack("POST", "/pets", REX))
    first = winner(answers, 201, 200)
    assert {answer.headers["ETag"] for answer in answers} == {first.headers["ETag"]}
    assert len(answers) == CLIENTS and system_stack("GET", "/pets").json() == [REX]


@pytest.mark.parametrize("fault", ["answer lost", "half an answer", "answer cut"])
def test_a_lost_answer_is_still_a_creation(system_faulty, fault):
    system_faulty.faults[:] = [fault]
    assert system_faulty("POST", "/pets", REX).status_code == 201
    assert system_faulty.made == ["PutItem", "PutItem", "GetItem"]
    assert len(system_faulty.items()) == 1


@pytest.mark.parametrize("fault", ["throttled", "internal error", "unavailable", "dropped on the way"])
@pytest.mark.parametrize("request_", [("POST", "/pets", REX), ("GET", "/pets"), ("GET", "/pets/1")], ids=str)
def test_what_passes_is_tried_again_and_then_503(system_faulty, fault, request_):
    system_faulty.faults[:] = [fault] * 2
    assert system_faulty(*request_).status_code in (200, 201, 404)
    before = system_faulty.items()
    system_faulty.faults[:] = [fault] * 3
    answer = system_faulty(*request_)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json()["Error"] == "The table is busy; try again soon."
    assert (system_faulty.faults, system_faulty.items()) == ([], before)
    assert "Traceback" in system_faulty.send.log["error"]


# --- The stack


@pytest.mark.parametrize(
    "action, request_",
    {"PutItem": ("POST", "/pets", REX), "GetItem": ("GET", "/pets/1"), "Scan": ("GET", "/pets")}.items(),
)
def test_the_role_has_what_is_needed(engine, system_stack, action, request_):
    with without(engine, "tests-pets", f"dynamodb:{action}"):
        fails_inside(system_stack(*request_))
    assert system_stack(*request_).status_code in (201, 404, 200)


def test_access_iam_and_two_stacks_side_by_side(engine, system_stack):
    assert is_closed(engine, STACK, ["/pets"] * 2, REX) == 1
    assert system_stack("GET", "/pets").json() == []
    with system_at(engine, STACK, "beside-pets", NEVER_THROTTLED | {"AllowedOrigin": "https://page.example"}) as beside:
        beside.origin = "https://page.example"
        assert beside("POST", "/pets", REX).status_code == 201
        assert beside("OPTIONS", "/pets").status_code == 200
        beside.refuses(404, "no pet", "GET", "/pets/2", headers={"Origin": "https://other.example"})
    assert system_stack("GET", "/pets").json() == []
