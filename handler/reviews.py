"""Reviews behind the API of stacks/reviews.yml: create, read, update and delete, and an index that lists.

A table has no order of its own. The index has all reviews in one partition,
whose key is the constant LIST, and in that by the time of their creation.
"""

import re
import uuid

from boto3.dynamodb.conditions import Attr, Key

from common import (
    ID,
    Error,
    changed,
    check,
    found,
    if_match,
    new,
    reply,
    reply_item,
    reply_list,
    require,
    respond,
    table,
    text,
    to_json,
    update,
    uuid7,
    write,
)

# --- What a review is made of

FIELDS = {"review": (text, 10_000), "name": (text, 100)}
RECORD = ("id", "review", "name", "createdAt", "updatedAt")
LIST = "all"
COLOURS = "Amber Azure Coral Golden Ivory Olive Ruby Silver".split()
ANIMALS = "Badger Falcon Heron Lynx Marten Otter Robin Walrus".split()


def record_of(item):
    """Return the review that clients see of an item."""
    return {name: item[name] for name in RECORD}


def key_of(review_id):
    """Return the key of an item; Error 404 if it can be none."""
    found("review", re.fullmatch(ID, review_id))
    return {"id": review_id}


def made_up(review_id):
    """Return a name for a reviewer who gave none: always the same for a review."""
    number = uuid.UUID(review_id).int
    return f"{COLOURS[number % 8]} {ANIMALS[number // 8 % 8]}"


# --- Routes


def list_reviews(request):
    """GET /reviews: a page of reviews, newest first."""
    limit, start = request.page(f"([0-9T:.-]{{23}}Z)_({ID})")
    after = {"ExclusiveStartKey": {"list": LIST, "createdAt": start[1], "id": start[2]}} if start else {}
    newest = {"IndexName": "newest", "ScanIndexForward": False}
    page = table.query(KeyConditionExpression=Key("list").eq(LIST), Limit=limit, **newest, **after)
    last = page.get("LastEvaluatedKey")
    cursor = last and f"{last['createdAt']}_{last['id']}"
    return reply_list(request, map(record_of, page["Items"]), limit, cursor)


def create_review(request):
    """POST /reviews: store one; with an Idempotency-Key its id is made of that, and a repeated request finds it."""
    given, key = check(request.json(), FIELDS, needed=["review"]), request.headers.get("idempotency-key")
    printable = key is None or re.fullmatch("[ -~]{1,128}", key)
    require(printable, "Idempotency-Key must have 1 to 128 printable ASCII characters.")
    review_id = str(uuid.uuid5(uuid.NAMESPACE_OID, key)) if key else uuid7()
    # What was sent stays known: what is stored may be changed before the request is repeated.
    sent = str(uuid.uuid5(uuid.NAMESPACE_OID, to_json(given)))
    item = new({"id": review_id, "name": made_up(review_id), "list": LIST, "sent": sent} | given)
    done, there = write(table.put_item, item["etag"], Attr("id").not_exists(), Item=item)
    if not done and there["sent"] != sent:
        raise Error(409, "This Idempotency-Key was used for another review.")
    there = item if done else there
    location = {"Location": f"{request.url}/{review_id}"}
    return reply_item(request, 201 if done else 200, record_of(there), there["etag"], location)


def get_review(request, review_id):
    """GET /reviews/{id}: a review, or 304 if the client has it."""
    item = found("review", table.get_item(Key=key_of(review_id), ConsistentRead=True).get("Item"))
    return reply_item(request, 200, record_of(item), item["etag"])


def put_review(request, review_id):
    """PUT /reviews/{id}: set the text, and the name if there is one. What is not there is not created."""
    given = check(request.json(), FIELDS, needed=["review"])
    item = changed("review", *update(key_of(review_id), if_match(request), given))
    return reply_item(request, 200, record_of(item), item["etag"])


def delete_review(request, review_id):
    """DELETE /reviews/{id}: forget a review."""
    changed("review", *write(table.delete_item, None, if_match(request), Key=key_of(review_id)))
    return reply(204)


ROUTES = {
    "/reviews": {"GET": list_reviews, "POST": create_review},
    "/reviews/{id}": {"GET": get_review, "PUT": put_review, "DELETE": delete_review},
}


def lambda_handler(event, context):
    return respond(event, ROUTES)
