"""Pets behind the API of stacks/pets.yml: one table whose key is a number.

The caller chooses the id. So creating is idempotent: sent again, it finds what
it has created before, and changes nothing. An id has a limit up to which all
readers of JSON have a whole number as it is (RFC 8259, 6).
"""

import re
import uuid

from common import Error, check, number, reply_item, reply_list, respond, table, text

# --- What a pet is made of

MOST = 2**53 - 1
ID = "[1-9][0-9]{0,15}"
FIELDS = {"id": (number, MOST), "name": (text, 100)}


def record_of(item):
    """Return the pet that clients see of an item; its etag is in a header."""
    return {name: item[name] for name in FIELDS}


def find(pet_id):
    """Return the item with this id as it is now, or None."""
    return table.get_item(Key={"id": pet_id}, ConsistentRead=True).get("Item")


# --- Routes


def list_pets(request):
    """GET /pets: a page of pets, in the order in which DynamoDB has them."""
    limit, start = request.page(ID)
    after = {"ExclusiveStartKey": {"id": int(start[0])}} if start else {}
    page = table.scan(Limit=limit, **after)
    last = page.get("LastEvaluatedKey")
    return reply_list(request, map(record_of, page["Items"]), limit, last and str(last["id"]))


def create_pet(request):
    """POST /pets: store a pet, or return the one that is there with this id if it has the same name.

    The condition is part of the write: of many at once, one stores the pet.
    """
    pet = check(request.json(), FIELDS, needed=FIELDS)
    item = there = pet | {"etag": uuid.uuid4().hex}
    try:
        table.put_item(Item=item, ConditionExpression="attribute_not_exists(id)")
    except table.meta.client.exceptions.ConditionalCheckFailedException:
        # With our etag it is ours: the answer was lost, and the SDK sent it again.
        there = find(pet["id"])
    if there["name"] != pet["name"]:
        raise Error(409, "There is a pet with this id and another name.")
    headers = {"Location": f"{request.url}/{pet['id']}"}
    return reply_item(request, 201 if there == item else 200, pet, there["etag"], headers)


def get_pet(request, pet_id):
    """GET /pets/{id}: a pet, or 304 if the client has it."""
    item = find(int(pet_id)) if re.fullmatch(ID, pet_id) else None
    if not item:
        raise Error(404, "There is no pet with this id.")
    return reply_item(request, 200, record_of(item), item["etag"])


ROUTES = {"/pets": {"GET": list_pets, "POST": create_pet}, "/pets/{id}": {"GET": get_pet}}


def lambda_handler(event, context):
    return respond(event, ROUTES)
