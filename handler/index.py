"""The link store behind the API of setupapidb.yml: one function, one table.

lambda_handler() gets each request as a Lambda proxy event of API Gateway. A
route, found by resource and httpMethod, reads or writes items of the table
and returns a proxy response. `make embed` copies this file into the template.

An item is a record, and what only the store sees: `owner`, with `created_at`
the key of the newest-first index; `etag`, new at every write; and `url`, the
whole URL if it is too long for the sort key `link`.
"""

import base64
import hmac
import ipaddress
import json
import os
import re
import time
import traceback
import uuid
from datetime import datetime, timezone
from urllib.parse import urlencode, urlsplit

import boto3
from botocore import exceptions
from botocore.config import Config

# --- Settings

TABLE = os.environ["TABLE"]
CURSOR_KEY = os.environ["CURSOR_KEY"].encode()

INDEX = "newest"
OWNER = "everyone"  # the one partition of the index
LINK_BYTES = 8192
SORT_KEY_BYTES = 1024  # the most that DynamoDB takes
LONG_LINK = "see url"  # the sort key of a longer link
BODY_LENGTH = 262_144  # the largest record fits, each character escaped
PAGE_BYTES = 2_000_000  # Lambda escapes it again, and returns up to 6 MB

# A call ends within 12 s: three attempts of 1 + 2 s, and waits. A request makes
# two at most; the function has 25 s for them, and API Gateway waits 29 s.
RETRIES = {"mode": "standard", "total_max_attempts": 3}
CONFIG = Config(connect_timeout=1, read_timeout=2, retries=RETRIES)
dynamodb = boto3.client("dynamodb", config=CONFIG)

# --- Errors


class Error(Exception):
    """An answer other than success: a status, a sentence, and maybe headers."""

    status = 500

    def __init__(self, sentence, headers={}):
        super().__init__(sentence)
        self.headers = headers


class BadRequest(Error): status = 400
class NotFound(Error): status = 404
class MethodNotAllowed(Error): status = 405
class PreconditionFailed(Error): status = 412
class ContentTooLarge(Error): status = 413
class ServiceUnavailable(Error): status = 503


# --- What a link is made of


def text(name, value, most):
    """Return value if it is a string of at most `most` characters, all valid in UTF-8."""
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a string.")
    if len(value) > most:
        raise BadRequest(f"{name} must have at most {most} characters, not {len(value)}.")
    if re.search("[\0\ud800-\udfff]", value):
        raise BadRequest(f"{name} must not contain NUL or a lone surrogate.")
    return value


def tags(name, value, most):
    """Return value, without repetitions, if it is an array of at most `most` tags."""
    if not isinstance(value, list) or len(value) > most:
        raise BadRequest(f"{name} must be an array of at most {most} strings.")
    for tag in value:
        if not text(f"Each of {name}", tag, 64).strip():
            raise BadRequest(f"Each of {name} must not be blank.")
    return list(dict.fromkeys(value))


# What may be said of a link besides its URL: the rule and the limit of a field.
FIELDS = {"title": (text, 512), "tags": (tags, 32), "notes": (text, 8192)}
RECORD = ("link_id", "link", "created_at", "updated_at", *FIELDS)


def check(name, value):
    """Return the value of a field as it is to be stored."""
    if name not in FIELDS:
        raise BadRequest(f"{name[:64]!r} cannot be set; {', '.join(FIELDS)} can.")
    rule, most = FIELDS[name]
    return rule(name, value, most)


def canonical(link):
    """Return the form of an absolute http(s) URL in which equal ones are one link.

    It has scheme and host in lower case, no white space around it, no default
    port and no slash that ends it after the host; all else is as given.
    """
    given = text("link", link, BODY_LENGTH)
    link = given.strip()
    if re.search(r"[\0-\x08\x0e-\x1f\x7f-\x9f]", given) or re.search(r"\s", link):
        raise BadRequest("link must not contain white space or control characters; a space is %20.")
    parts = re.fullmatch(r"(?ai)(https?)://([^/?#]*)(.*)", link)
    if not parts:
        raise BadRequest("link must be an absolute URL that starts with http:// or https://.")
    scheme, authority, rest = parts[1].lower(), parts[2], parts[3]
    user, at, place = authority.rpartition("@")
    place = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^][<>\\^|:]+)(:[0-9]*)?", place)
    try:
        number = urlsplit(link).port
        if place and place[1].startswith("["):
            ipaddress.IPv6Address(place[1][1:-1])
    except ValueError:  # or characters that browsers turn into a / or an @
        place = None
    # Browsers take a backslash for a slash, and would go to another host.
    if not place or "\\" in user:
        raise BadRequest("link must have a valid host after the //, and a port up to 65535 if any.")
    host, port = place[1].lower(), place[2]
    if number in (None, {"http": 80, "https": 443}[scheme]):
        port = ""
    link = f"{scheme}://{user}{at}{host}{port}{rest if rest != '/' else ''}"
    if len(link.encode()) > LINK_BYTES:
        raise BadRequest(f"link must have at most {LINK_BYTES} bytes, not {len(link.encode())}.")
    return link


# --- Storage


def link_id_of(link):
    """Return the UUIDv5 of a canonical URL (RFC 9562, 5.5): one URL, one id, one item."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, link))


def encode(value):
    """Return a string or a list of strings as DynamoDB takes it."""
    return {"S": value} if isinstance(value, str) else {"L": [encode(each) for each in value]}


def decode(attribute):
    """Return what encode() was given."""
    return attribute["S"] if "S" in attribute else [decode(each) for each in attribute["L"]]


def record_of(item):
    """Return the record that clients see of an item."""
    record = {name: decode(item[name]) for name in RECORD if name in item}
    if "url" in item:
        record["link"] = decode(item["url"])
    return record


def etag_of(item):
    return f'"{decode(item["etag"])}"'


def stamp():
    """Return what each write renews: updated_at (RFC 3339, UTC, milliseconds) and etag."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    return {"updated_at": now.replace("+00:00", "Z"), "etag": uuid.uuid4().hex}


def find(link_id):
    """Return the item with this id as it is now, or None."""
    if not 0 < len(link_id) <= 64:
        return None
    page = dynamodb.query(
        TableName=TABLE,
        KeyConditionExpression="link_id = :link_id",
        ExpressionAttributeValues={":link_id": encode(link_id)},
        ConsistentRead=True,
    )
    return next(iter(page["Items"]), None)


def newest(count, start):
    """Return up to `count` items or 1 MB, newest first, and whether there may be more.

    They come after the index key `start`; None is before the first.
    """
    names = {f"#{name}": name for name in ("url", *RECORD)}
    page = dynamodb.query(
        TableName=TABLE,
        IndexName=INDEX,
        KeyConditionExpression="#owner = :owner",
        ExpressionAttributeNames={"#owner": "owner", **names},
        ExpressionAttributeValues={":owner": encode(OWNER)},
        ProjectionExpression=", ".join(names),
        ScanIndexForward=False,
        Limit=count,
        **({"ExclusiveStartKey": start} if start else {}),
    )
    return page["Items"], "LastEvaluatedKey" in page


def cursor_of(item):
    """Return an opaque text from which start_of() has the index key of an item."""
    return signed("\n".join(decode(item[name]) for name in ("created_at", "link_id", "link")).encode())


def start_of(cursor):
    try:
        key = base64.urlsafe_b64decode(cursor + "==")[12:]
    except ValueError:
        key = b""
    if not hmac.compare_digest(signed(key).encode(), cursor.encode()):
        raise BadRequest("cursor must be one from a Link header of this API.")
    names = ("owner", "created_at", "link_id", "link")
    return dict(zip(names, map(encode, [OWNER, *key.decode().split("\n")])))


def signed(key):
    """Return the cursor of a key, signed so that an altered one is refused; it is no secret."""
    signature = hmac.digest(CURSOR_KEY, key, "sha256")[:12]
    return base64.urlsafe_b64encode(signature + key).decode().rstrip("=")


def write(operation, etag, **request):
    """Do a conditional write that leaves an item with this etag, or None for no item.

    Return whether it is done, and the item as the operation returns it, or
    else the one that is there, {} for none. When an answer is lost the SDK
    writes again, and fails on what it did before: the etag tells.
    """
    request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    try:
        return True, operation(TableName=TABLE, **request).get("Attributes", {})
    except dynamodb.exceptions.ConditionalCheckFailedException as error:
        item = error.response.get("Item", {})
        again = error.response["ResponseMetadata"]["RetryAttempts"] > 0
        return again and item.get("etag") == (etag and encode(etag)), item


# --- Routes


def headers_of(event):
    """Return the headers by their names in lower case; lines of one name are one (RFC 9110, 5.3)."""
    given = event["multiValueHeaders"] or {}
    return {name.lower(): ", ".join(lines) for name, lines in given.items()}


def url_of(event):
    """Return the URL that was asked for, without a query and a slash at its end."""
    headers = headers_of(event)
    scheme = "https" if headers.get("x-forwarded-proto") == "https" else "http"
    path = event["requestContext"]["path"].rstrip("/")
    return f"{scheme}://{headers.get('host', '')}{path}"


def query_of(event, *names):
    """Return the query parameters, of which there may be these, each once."""
    given = event["multiValueQueryStringParameters"] or {}
    if not set(given) <= set(names) or any(len(values) > 1 for values in given.values()):
        known = ", ".join(names)
        raise BadRequest(f"The query may have {known}, each once; an & inside one is %26.")
    return {name: values[0] for name, values in given.items()}


def etags_of(event, name):
    """Return the members of If-Match or If-None-Match (RFC 9110, 13.1), None if not sent."""
    header = headers_of(event).get(name)
    return None if header is None else [etag.strip() for etag in header.split(",")]


def json_of(event):
    """Return the JSON object in the body, whatever its Content-Type."""
    body = event["body"] or ""
    if len(body) > BODY_LENGTH:
        raise ContentTooLarge(f"The body must have at most {BODY_LENGTH} characters.")
    try:
        if event["isBase64Encoded"]:
            body = base64.b64decode(body, validate=True).decode()
        value = json.loads(body, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    return value


def unique(members):
    """Return a JSON object's members as a dict if no two have one name (RFC 8259, 4)."""
    if len(dict(members)) < len(members):
        raise BadRequest("The body must not name a member of an object twice.")
    return dict(members)


def to_json(value):
    return json.dumps(value, ensure_ascii=False)


def reply(status, body="", headers={}):
    """Return a proxy response with a body of JSON."""
    common = {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Expose-Headers": "ETag, Link, Location",
        "Content-Type": "application/json",
    }
    return {"statusCode": status, "headers": common | headers, "body": body and body + "\n"}


def reply_item(status, item, headers={}):
    return reply(status, to_json(record_of(item)), {"ETag": etag_of(item)} | headers)


def existing(item):
    if not item:
        raise NotFound("There is no link with this id.")
    return item


def asked_for(event):
    """Return the item that the path names."""
    return existing(find(event["pathParameters"]["link_id"]))


def rewrite(event, operation, etag, values, **expressions):
    """Change or delete the item that the path names, if If-Match allows; return the new one."""
    item = asked_for(event)
    condition, values = "link_id = :link_id", {":link_id": item["link_id"], **values}
    wanted = etags_of(event, "if-match")
    if wanted not in (None, ["*"]):
        condition += " AND etag = :seen"  # "" is never there
        values[":seen"] = item["etag"] if etag_of(item) in wanted else encode("")
    done, item = write(
        operation,
        etag,
        Key={"link_id": item["link_id"], "link": item["link"]},
        ConditionExpression=condition,
        ExpressionAttributeValues=values,
        **expressions,
    )
    if done:
        return item
    etag = etag_of(existing(item))
    raise PreconditionFailed(f"If-Match is not what the link's ETag is now, {etag}.")


def store(event):
    """POST /link: store a link, or return the one that is there for this URL."""
    given = json_of(event)
    if "link" not in given:
        raise BadRequest("link is missing.")
    link = canonical(given.pop("link"))
    fields = {name: check(name, value) for name, value in given.items()}
    now = stamp()
    item = {"link_id": link_id_of(link), "link": link, "owner": OWNER, **now, **fields}
    item["created_at"] = now["updated_at"]
    if len(link.encode()) > SORT_KEY_BYTES:
        item |= {"link": LONG_LINK, "url": link}
    item = {name: encode(value) for name, value in item.items()}
    new, there = write(
        dynamodb.put_item,
        now["etag"],
        Item=item,
        ConditionExpression="attribute_not_exists(link_id)",
    )
    location = {"Location": f"{url_of(event)}/{link_id_of(link)}"}
    return reply_item(201, item, location) if new else reply_item(200, there, location)


def list_links(event):
    """GET /link: a page of links, newest first, or the one that has the URL asked for."""
    query = query_of(event, "limit", "cursor", "link")
    limit = query.get("limit", "100")
    limit = int(limit) if re.fullmatch("[0-9]{1,4}", limit) else 0
    if not 1 <= limit <= 1000:
        raise BadRequest("limit must be a whole number from 1 to 1000.")
    start = start_of(query["cursor"]) if "cursor" in query else None
    if "link" in query:
        item = find(link_id_of(canonical(query["link"])))
        return reply(200, to_json([record_of(item)] if item else []))
    # One item more tells whether another page follows.
    items, more = newest(limit + 1, start)
    lines, size = [], 0
    for item in items[:limit]:
        line = to_json(record_of(item))
        size += len(line.encode())
        if lines and size > PAGE_BYTES:
            break
        lines.append(line)
    headers = {}
    if more or len(lines) < len(items):
        following = urlencode(query | {"cursor": cursor_of(items[len(lines) - 1])})
        headers["Link"] = f'<{url_of(event)}?{following}>; rel="next"'
    return reply(200, "[" + ",\n".join(lines) + "]", headers)


def read(event):
    """GET /link/{link_id}: a link, or 304 if the client has it as it is."""
    item = asked_for(event)
    # The comparison is the weak one (RFC 9110, 13.1.2).
    seen = [etag.removeprefix("W/") for etag in etags_of(event, "if-none-match") or []]
    if seen == ["*"] or etag_of(item) in seen:
        return reply(304, headers={"ETag": etag_of(item)})
    return reply_item(200, item)


def change(event):
    """PATCH /link/{link_id}: apply a JSON merge patch (RFC 7396) to the fields."""
    values = stamp()
    for name, value in json_of(event).items():
        values[name] = None if value is None and name in FIELDS else check(name, value)
    kept = {name: value for name, value in values.items() if value is not None}
    update = "SET " + ", ".join(f"#{name} = :{name}" for name in kept)
    if len(kept) < len(values):
        update += " REMOVE " + ", ".join(f"#{name}" for name in values if name not in kept)
    item = rewrite(
        event,
        dynamodb.update_item,
        values["etag"],
        {f":{name}": encode(value) for name, value in kept.items()},
        UpdateExpression=update,
        ExpressionAttributeNames={f"#{name}": name for name in values},
        ReturnValues="ALL_NEW",
    )
    return reply_item(200, item)


def remove(event):
    """DELETE /link/{link_id}: forget a link."""
    rewrite(event, dynamodb.delete_item, None, {})
    return reply(204)


ROUTES = {
    "/link": {"GET": list_links, "POST": store},
    "/link/{link_id}": {"GET": read, "PATCH": change, "DELETE": remove},
}

# --- Entry point


def is_transient(error):
    """Return whether DynamoDB was throttling or out of reach, at all the SDK's attempts."""
    if isinstance(error, exceptions.ClientError):
        metadata = error.response["ResponseMetadata"]
        return "MaxAttemptsReached" in metadata or "RetryQuotaReached" in metadata
    return isinstance(error, (exceptions.ConnectionError, exceptions.HTTPClientError))


def dispatch(event):
    """Return the answer of the route that the event is for."""
    method, routes = event["httpMethod"], ROUTES[event["resource"]]
    route = routes.get("GET" if method == "HEAD" else method)
    if not route:
        allowed = ", ".join([*routes, "HEAD", "OPTIONS"])
        raise MethodNotAllowed(f"{method} does not work here; {allowed} do.", {"Allow": allowed})
    return route(event)


def lambda_handler(event, context):
    """Answer a Lambda proxy event with a proxy response, whatever happens, and log one line."""
    start = time.perf_counter()
    reference = event["requestContext"]["requestId"]
    log = {"level": "INFO", "method": event["httpMethod"], "resource": event["resource"]}
    try:
        answer = dispatch(event)
    except Exception as error:
        if not isinstance(error, Error):
            log |= {"level": "ERROR", "error": traceback.format_exc()}
            if is_transient(error):
                error = ServiceUnavailable("The store is busy; try again soon.", {"Retry-After": "1"})
            else:
                error = Error("Something went wrong here; the log has it under the reference.")
        body = to_json({"Error": str(error), "Reference": reference})
        answer = reply(error.status, body, error.headers)
    if event["httpMethod"] == "HEAD":  # is GET without a body (RFC 9110, 9.3.2)
        answer["body"] = ""
    ms = round((time.perf_counter() - start) * 1000, 1)
    print(json.dumps(log | {"status": answer["statusCode"], "ms": ms, "request_id": reference}))
    return answer
