"""Users, posts and comments behind the API of stacks/posts.yml: one table for all three, each view one Query.

    item                           PK             SK
    user                           USER#userId    METADATA#userId
    post                           USER#userId    POST#postId
    that a post is there           POST#postId    METADATA#postId
    comment                        POST#postId    COMMENT#commentId

Items that are read together have one PK, and their SK puts them in order. Ids
are UUIDs that sort by time. A post is found by its id alone through the third
item: an index would do that too, but lags behind, so that a comment right
after its post might not find it. The index `newest` is sparse: only published
posts have the attribute `list`, its key.
"""

import random
import re
import time

from boto3.dynamodb.conditions import Key

from common import (
    ID,
    changed,
    check,
    found,
    if_match,
    new,
    reply_item,
    reply_list,
    require,
    respond,
    table,
    text,
    update,
    uuid7,
)

# --- Keys

LIST = "published"


def key_of(owner, owner_id, kind, kind_id):
    """Return the key of an item; Error 404 for an id that this API has not made."""
    for each in (owner_id, kind_id):
        found(owner.lower(), re.fullmatch(ID, each))
    return {"PK": f"{owner}#{owner_id}", "SK": f"{kind}#{kind_id}"}


def user_key(user_id):
    return key_of("USER", user_id, "METADATA", user_id)


def post_key(user_id, post_id):
    return key_of("USER", user_id, "POST", post_id)


def marker_key(post_id):
    return key_of("POST", post_id, "METADATA", post_id)


def comment_key(post_id, comment_id):
    return key_of("POST", post_id, "COMMENT", comment_id)


# --- What a user, a post and a comment are made of


def url(name, value, most):
    """Return an absolute http(s) URL of at most so many bytes; nothing is fetched."""
    text(name, value, most)
    fits = re.fullmatch(r"https?://[^\s\"<>\\/?#]+[^\s\"<>\\]*", value) and len(value.encode()) <= most
    require(fits, f"{name} must be a URL that starts with http:// or https://, of at most {most} bytes.")
    return value


def one_of(name, value, values):
    require(value in values, f"{name} must be {' or '.join(values)}.")
    return value


def identifier(name, value, pattern):
    require(isinstance(value, str) and re.fullmatch(pattern, value), f"{name} must be an id, as this API gives them.")
    return value


# For each member its rule, and the limit of that.
USER = {"firstName": (text, 100), "lastName": (text, 100), "profilePicture": (url, 2048)}
POST = {"userId": (identifier, ID), "postText": (text, 10_000), "postImage": (url, 2048)}
POST |= {"status": (one_of, ["published", "draft"])}
COMMENT = {"postId": (identifier, ID), "userId": (identifier, ID), "commentText": (text, 2000)}
RECORD = ["userId", "postId", "commentId", *USER, *POST, *COMMENT, "createdAt", "updatedAt"]


def record_of(item):
    """Return what clients see of an item of any kind."""
    return {name: item[name] for name in RECORD if name in item}


# --- Storage


def find(what, key):
    """Return the item with this key as it is now; Error 404 if there is none."""
    return found(what, table.get_item(Key=key, ConsistentRead=True).get("Item"))


def transact(needed, *items):
    """Put these items if what is needed is there, a dict of what that is to its key; all is done, or nothing.

    Error 404 for what is not there. Transactions that meet at an item refuse each other, so that they are tried again,
    which the SDK does not do (DynamoDB Developer Guide, "Transactions: How it works").
    """
    client, of, there = table.meta.client, {"TableName": table.name}, {"ConditionExpression": "attribute_exists(PK)"}
    parts = [{"ConditionCheck": {"Key": key, **there, **of}} for key in needed.values()]
    parts += [{"Put": {"Item": item, **of}} for item in items]
    for attempt in range(6):
        try:
            return client.transact_write_items(TransactItems=parts)
        except client.exceptions.TransactionCanceledException as failure:
            reasons = [reason["Code"] for reason in failure.response["CancellationReasons"]]
            for what, reason in zip(needed, reasons):
                found(what, reason != "ConditionalCheckFailed")
            if attempt == 5 or "TransactionConflict" not in reasons:
                raise
        time.sleep(random.random() * 2**attempt / 20)


def change(request, what, key, given):
    """Change what is given of an item; return the answer to that."""
    require(given, f"The body must have something of the {what} to change.")
    item = changed(what, *update(key, if_match(request), given))
    return reply_item(request, 200, record_of(item), item["etag"])


def view(request, what, key, first, last, shown):
    """Return a page of the items of one PK whose SK is from `first` to `last`, those that begin as in `shown`.

    It is one Query. Without an item there is none of what the PK is of: 404.
    """
    limit, start = request.page(r"([A-Z]+)_([\w-]{1,64})")
    start = start and f"{start[1]}#{start[2]}"
    require(not start or first <= start <= last, "cursor must be one from a Link header.")
    after = {"ExclusiveStartKey": key | {"SK": start}} if start else {}
    asked = Key("PK").eq(key["PK"]) & Key("SK").between(first, last)
    page = table.query(KeyConditionExpression=asked, Limit=limit, ConsistentRead=True, **after)
    found(what, page["Items"] or start)
    records = [record_of(item) for item in page["Items"] if item["SK"].startswith(shown)]
    end = page.get("LastEvaluatedKey")
    return reply_list(request, records, limit, end and end["SK"].replace("#", "_", 1))


# --- Users


def create_user(request):
    """POST /users: store a user."""
    user_id, given = uuid7(), check(request.json(), USER, needed=["firstName"])
    item = new(user_key(user_id) | {"userId": user_id} | given)
    table.put_item(Item=item)  # an id is made once
    return reply_item(request, 201, record_of(item), item["etag"], {"Location": f"{request.url}/{user_id}"})


def get_user(request, user_id):
    """GET /users/{userId}: a user, or 304 if the client has it."""
    item = find("user", user_key(user_id))
    return reply_item(request, 200, record_of(item), item["etag"])


def put_user(request, user_id):
    """PUT /users/{userId}: change what is given of a user."""
    return change(request, "user", user_key(user_id), check(request.json(), USER))


def list_user_posts(request, user_id):
    """GET /users/{userId}/posts: a user, and then, oldest first, their posts, by pages."""
    key = user_key(user_id)
    # $ follows # in ASCII: up to here go all posts.
    return view(request, "user", key, key["SK"], "POST$", ("METADATA#", "POST#"))


# --- Posts


def list_posts(request):
    """GET /post: a page of the published posts of all users, newest first."""
    limit, start = request.page(f"({ID})_({ID})")
    after = {"ExclusiveStartKey": post_key(start[2], start[1]) | {"list": LIST}} if start else {}
    newest = {"IndexName": "newest", "ScanIndexForward": False}
    page = table.query(KeyConditionExpression=Key("list").eq(LIST), Limit=limit, **newest, **after)
    end = page.get("LastEvaluatedKey")
    cursor = end and f"{end['SK'].removeprefix('POST#')}_{end['PK'].removeprefix('USER#')}"
    return reply_list(request, map(record_of, page["Items"]), limit, cursor)


def create_post(request):
    """POST /post: store a post, and that it is there, if there is the user."""
    post_id, given = uuid7(), check(request.json(), POST, needed=["userId", "postText"])
    user_id = given["userId"]
    item = new(post_key(user_id, post_id) | {"postId": post_id, "status": "published"} | given)
    if item["status"] == "published":
        item["list"] = LIST
    transact({"user": user_key(user_id)}, item, marker_key(post_id) | {"userId": user_id})
    return reply_item(request, 201, record_of(item), item["etag"], {"Location": f"{request.url}/{post_id}"})


def get_post(request, post_id):
    """GET /post/{postId}: a post, or 304 if the client has it; whose it is has to be found first."""
    user_id = find("post", marker_key(post_id))["userId"]
    item = find("post", post_key(user_id, post_id))
    return reply_item(request, 200, record_of(item), item["etag"])


def put_post(request, post_id):
    """PUT /post/{postId}: change what is given of a post of this user."""
    given = check(request.json(), POST, needed=["userId"])
    key = post_key(given.pop("userId"), post_id)
    if "status" in given:
        given["list"] = LIST if given["status"] == "published" else None
    return change(request, "post", key, given)


# --- Comments


def create_comment(request):
    """POST /comment: store a comment if there are the post and the user."""
    comment_id, given = uuid7(), check(request.json(), COMMENT, needed=COMMENT)
    post_id = given["postId"]
    item = new(comment_key(post_id, comment_id) | {"commentId": comment_id} | given)
    transact({"post": marker_key(post_id), "user": user_key(given["userId"])}, item)
    location = f"{request.url.removesuffix('comment')}post/{post_id}/comments"
    return reply_item(request, 201, record_of(item), item["etag"], {"Location": location})


def list_comments(request, post_id):
    """GET /post/{postId}/comments: the comments of a post, oldest first, by pages."""
    key = marker_key(post_id)  # behind all comments, and there if there are none
    return view(request, "post", key, "COMMENT#", key["SK"], "COMMENT#")


ROUTES = {
    "/users": {"POST": create_user},
    "/users/{userId}": {"GET": get_user, "PUT": put_user},
    "/users/{userId}/posts": {"GET": list_user_posts},
    "/post": {"GET": list_posts, "POST": create_post},
    "/post/{postId}": {"GET": get_post, "PUT": put_post},
    "/post/{postId}/comments": {"GET": list_comments},
    "/comment": {"POST": create_comment},
}


def lambda_handler(event, context):
    return respond(event, ROUTES)
