"""Pets: stacks/pets.yml."""

STACK = "pets"
REX = {"id": 1, "name": "Rex"}


def test_a_pet_is_created_found_and_listed(system):
    answer = system("POST", "/pets", REX)
    assert (answer.status_code, answer.json()) == (201, REX)
    assert answer.headers["Location"].endswith("/prod/pets/1")
    assert system("GET", "/pets/1").json() == REX
    assert system("GET", "/pets").json() == [REX]
    system.refuses(404, "There is no pet with this id.", "GET", "/pets/2")
