"""The link store behind the API of setupapidb.yml: one function, one table.

lambda_handler() gets each request as a Lambda proxy event of API Gateway; a
route, found by path and method, returns a proxy response. `make embed` copies
this file into the template.

An item is a record, and what only the store sees: `owner`, the hash key of the
indexes; `etag`, new at every change; `visit`, new at every visit; and `url`,
the whole URL where the sort key `link` is not it.

DynamoDB is asked by its low-level API, JSON over HTTPS, with the SDK's signer
and HTTP session: starting a client of the SDK takes longer than all else here.
A cold start is kept short, and so is the first request after it: garbage is
not looked for until all is imported, as all of that stays; and the connection
to the table is made while Lambda gives more CPU than later, but not waited for
where DynamoDB is out of reach. bench/README.md has what each of these is worth.
"""

import gc

gc.disable()

import base64
import hmac
import ipaddress
import json
import os
import random
import re
import socket
import threading
import time
import traceback
import uuid
import zlib
from collections import Counter, namedtuple
from datetime import datetime, timezone
from html import escape
from urllib.parse import quote, unquote, urlencode, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session

# --- Settings

names = ("ACCESS", "ALLOWED_ORIGIN", "COUNT_VISITS", "STACK", "STACK_ID", "TABLE", "VERSION")
ACCESS, ALLOWED_ORIGIN, COUNT_VISITS, STACK, STACK_ID, TABLE, VERSION = map(os.environ.get, names)
ENDPOINTS = map(os.environ.get, ("AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL", "ENDPOINT"))
ENDPOINT = next(filter(None, ENDPOINTS))

OWNER = "everyone"  # the one partition of the indexes
BODY_BYTES = 262_144  # a record with all that it can have takes less, in each encoding of JSON
LINK_BYTES = 8192
SORT_KEY_BYTES = 1024  # the most that DynamoDB takes
SEE_URL = "see url"  # the sort key of a longer link, and of one with a name
NAME = "[A-Za-z0-9][A-Za-z0-9._~-]{0,63}"
ID = "[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"  # a UUIDv5

# What a call of DynamoDB may take, in seconds. A request makes two at most; the
# function has 25 s for them, and API Gateway waits 29 s.
ATTEMPTS, CONNECT, READ, DEADLINE = 3, 1, 2, 8
# What passes by itself, besides 5xx (Developer Guide, "Error handling with DynamoDB"; the SDK's standard mode).
PASSING = {
    "InternalServerError",
    "ProvisionedThroughputExceededException",
    "ReplicatedWriteConflictException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
}

# --- Errors


class Error(Exception):
    """An answer other than success: a sentence, with a status and maybe headers."""

    status, headers = 500, {}


class BadRequest(Error): status = 400
class NotFound(Error): status = 404
class MethodNotAllowed(Error): status = 405
class Conflict(Error): status = 409
class PreconditionFailed(Error): status = 412
class ContentTooLarge(Error): status = 413
class ServiceUnavailable(Error): status, headers = 503, {"Retry-After": "1"}


BUSY = "The store is busy; try again soon."


def require(holds, sentence):
    """Raise BadRequest with this sentence if something does not hold."""
    if not holds:
        raise BadRequest(sentence)


# --- What a link is made of


def text(name, value, most):
    """Return text without what XML or UTF-8 cannot hold; tabs and ends of lines are fine."""
    require(isinstance(value, str), f"{name} must be a string.")
    require(len(value) <= most, f"{name} must have at most {most} characters, not {len(value)}.")
    bad = re.search("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", value)
    require(not bad, f"{name} must not contain control characters or lone surrogates.")
    return value


def tags(name, value, most):
    few = isinstance(value, list) and len(value) <= most
    require(few, f"{name} must be an array of at most {most} strings.")
    for tag in value:
        require(text(f"Each of {name}", tag, 64).strip(), f"Each of {name} must not be blank.")
    return list(dict.fromkeys(value))


def moment(name, value, tense=None):
    """Return a datetime of RFC 3339 text, which must be in the past or the future if a tense says so."""
    try:
        if not re.fullmatch(r"(?a)\d{4}(-\d\d){2}T\d\d(:\d\d){2}(\.\d+)?(Z|[+-]\d\d:[0-5]\d)", value):
            raise ValueError
        when = datetime.fromisoformat(value).astimezone(timezone.utc)
    except (TypeError, ValueError, OverflowError):
        raise BadRequest(f"{name} must be a date and time like 2030-12-31T23:59:59Z.") from None
    is_past = when <= datetime.now(timezone.utc)
    require(tense in (None, "past" if is_past else "future"), f"{name} must be in the {tense}.")
    return when


def rfc3339(when):
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def timestamp(name, value, tense):
    """Return the time in UTC as a record has it."""
    return rfc3339(moment(name, value, tense))


def seconds(name, value, tense):
    """Return the time in whole seconds since 1970, which is what DynamoDB's TTL takes."""
    return int(moment(name, value, tense).replace(microsecond=0).timestamp())


def number(name, value, most):
    fits = type(value) in (int, float) and 0 <= value <= most and not value % 1
    require(fits, f"{name} must be a whole number from 0 to {most}.")
    return int(value)


# What may be said of a link besides its URL: the rule and the limit of a field.
FIELDS = {"title": (text, 512), "tags": (tags, 32), "notes": (text, 8192), "expires_at": (seconds, "future")}
# What a new link may bring along from where it was before.
NEW = FIELDS | {"created_at": (timestamp, "past"), "visits": (number, 10**15), "visited_at": (timestamp, "past")}
RECORD = ("link_id", "link", "created_at", "updated_at", *FIELDS, "visits", "visited_at")


def check(given, fields):
    """Return the fields of a body as they are to be stored."""
    for name in given:
        require(name in fields, f"{name[:64]!r} cannot be set; {', '.join(['link', *fields])} can.")
    return {name: fields[name][0](name, value, fields[name][1]) for name, value in given.items()}


def canonical(link):
    """Return the form of an absolute http(s) URL in which equal ones are one link.

    Scheme and host in lower case, no white space around it, no default port, no
    slash that ends it after the host; all else as given. A backslash is refused
    where browsers would take it for a slash, and go to another host.
    """
    given = text("link", link, LINK_BYTES)
    link = given.strip()
    bad = re.search(r"[\x7f-\x9f]", given) or re.search(r"\s", link)
    require(not bad, "link must not contain white space or control characters; a space is %20.")
    parts = re.fullmatch(r"(?ai)(https?)://([^/?#]*)(.*)", link)
    require(parts, "link must be an absolute URL that starts with http:// or https://.")
    scheme, authority, rest = parts[1].lower(), parts[2], parts[3]
    user, at, place = authority.rpartition("@")
    place = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^][<>\\^|:]+)(:[0-9]*)?", place)
    try:
        port = urlsplit(link).port
        if place and place[1].startswith("["):
            ipaddress.IPv6Address(place[1][1:-1])
    except ValueError:  # or characters that browsers turn into a / or an @
        place = None
    valid = place and "\\" not in user
    require(valid, "link must have a valid host after the //, and a port up to 65535 if any.")
    port = "" if port in (None, {"http": 80, "https": 443}[scheme]) else place[2]
    link = f"{scheme}://{user}{at}{place[1].lower()}{port}{rest if rest != '/' else ''}"
    size = len(link.encode())
    require(size <= LINK_BYTES, f"link must have at most {LINK_BYTES} bytes, not {size}.")
    return link


def link_id_of(link):
    """Return the UUIDv5 of a canonical URL (RFC 9562, 5.5): one URL, one id, one item."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, link))


# --- DynamoDB

Credentials = namedtuple("Credentials", "access_key secret_key token")
keys = map(os.environ.get, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"))
signer = SigV4Auth(Credentials(*keys), "dynamodb", os.environ["AWS_REGION"])
at_once = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]  # else each request waits 40 ms
certificates = os.environ.get("AWS_CA_BUNDLE", True)
http = URLLib3Session(certificates, timeout=(CONNECT, READ), socket_options=at_once)


class Passing(Exception):
    """An answer of DynamoDB after which the same may be asked again."""


class ConditionFailed(Exception):
    """The item that is there is not as a write wants it; {} for none."""

    def __init__(self, item):
        self.item, self.repeated = item, False


def ask(operation, body):
    """Return what DynamoDB answers to one request."""
    headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"DynamoDB_20120810.{operation}"}
    request = AWSRequest("POST", ENDPOINT, headers, body)
    signer.add_auth(request)
    answer = http.send(request.prepare())
    status, content = answer.status_code, answer.content
    if status >= 500 or status in (408, 429):
        raise Passing(f"DynamoDB answered {operation} with {status}: {content[:500]}")
    if int(answer.headers.get("x-amz-crc32", -1)) not in (-1, zlib.crc32(content)):
        raise Passing(f"DynamoDB's answer to {operation} came damaged.")
    value = json.loads(content)
    if status == 200:
        return value
    code = value.get("__type", "").rpartition("#")[2]
    if code == "ConditionalCheckFailedException":
        raise ConditionFailed(value.get("Item", {}))
    message = f"DynamoDB refused {operation}: {code}: {value.get('message') or value.get('Message')}"
    raise (Passing if code in PASSING else RuntimeError)(message)


def call(operation, **request):
    """Return what DynamoDB answers to an operation on the table, asked again when it did not do it.

    ConditionFailed tells whether it was repeated, and so may have met what it
    did itself. ServiceUnavailable: DynamoDB is throttling, or out of reach.
    """
    body = json.dumps({"TableName": TABLE, **request}).encode()
    end = time.monotonic() + DEADLINE
    for attempt in range(ATTEMPTS):
        try:
            return ask(operation, body)
        except ConditionFailed as failure:
            failure.repeated = attempt > 0
            raise
        except (Passing, BotoCoreError, ValueError) as failure:  # or no answer, or one that is no JSON
            wait = random.random() * 2**attempt / 2
            if attempt + 1 == ATTEMPTS or time.monotonic() + wait + CONNECT + READ > end:
                raise ServiceUnavailable(BUSY) from failure
        time.sleep(wait)


# --- Storage

# DynamoDB deletes what has expired, but days later.
FREE = "(attribute_not_exists(link_id) OR expires_at <= :now)"
LIVE = "NOT " + FREE


def encode(value):
    if isinstance(value, list):
        return {"L": [encode(each) for each in value]}
    return {"S": value} if isinstance(value, str) else {"N": str(value)}


def decode(attribute):
    if "S" in attribute:
        return attribute["S"]
    return int(attribute["N"]) if "N" in attribute else list(map(decode, attribute["L"]))


def record_of(item):
    """Return the record that clients see of an item."""
    record = {name: decode(item[name]) for name in RECORD if name in item}
    if "url" in item:
        record["link"] = decode(item["url"])
    if "expires_at" in item:
        record["expires_at"] = rfc3339(datetime.fromtimestamp(record["expires_at"], timezone.utc))
    return record


def key_of(item):
    return {name: item[name] for name in ("link_id", "link")}


def etag_of(item):
    return f'"{decode(item["etag"])}"'


def is_live(item):
    return bool(item) and ("expires_at" not in item or decode(item["expires_at"]) > time.time())


def live(item):
    """Return the item; NotFound if there is none, or it has expired."""
    if not is_live(item):
        raise NotFound("There is no link with this id.")
    return item


def find(link_id):
    """Return the item with this id as it is now, or None; its sort key is not known from the id."""
    if not re.fullmatch(NAME, link_id):
        return None
    page = call(
        "Query",
        KeyConditionExpression="link_id = :link_id",
        ExpressionAttributeValues={":link_id": encode(link_id)},
        ConsistentRead=True,
    )
    return next(filter(is_live, page["Items"]), None)


def page_of(query, count):
    """Return up to `count` records that the query asks for, and the cursor to go on, or None.

    They come newest first, or with `since` in the order of their changes. The
    work is one Query of up to 1 MB: there may be fewer, or none, though more follow.
    """
    wanted = set(tags("tag", query.get("tag", []), 32))
    words = text("q", query.get("q", [""])[0], 512).casefold().split()
    index, order = ("changed", "updated_at") if "since" in query else ("newest", "created_at")
    condition, values, request = "#owner = :owner", {":owner": encode(OWNER)}, {}
    since = rfc3339(moment("since", query["since"][0])) if "since" in query else None
    if "cursor" in query:
        request["ExclusiveStartKey"] = start_of(query["cursor"][0], order)
    elif since:
        condition += " AND updated_at >= :since"
        values[":since"] = encode(since)
    if not wanted and not words:
        request["Limit"] = count + 1  # one more tells whether another page follows
    names = {f"#{name}": name for name in ("url", *RECORD)}
    page = call(
        "Query",
        IndexName=index,
        KeyConditionExpression=condition,
        ExpressionAttributeNames={"#owner": "owner", **names},
        ExpressionAttributeValues=values,
        ProjectionExpression=", ".join(names),
        ScanIndexForward="since" in query,
        **request,
    )
    records, last = [], page.get("LastEvaluatedKey")
    for item in filter(is_live, page["Items"]):
        record = record_of(item)
        tagged = record.get("tags", [])
        texts = [record["link"], record.get("title", ""), record.get("notes", ""), *tagged]
        searched = "\n".join(texts).casefold() if words else ""
        if wanted.issubset(tagged) and all(word in searched for word in words):
            if len(records) == count:
                last = before
                break
            records.append(record)
            before = item
    return records, last and cursor_of([decode(last[name]) for name in (order, "link_id", "link")], order)


def cursor_of(key, order):
    """Return a key of the index with this order as an opaque text; it is signed, but no secret."""
    key = "\n".join(key).encode()
    signature = hmac.digest(STACK_ID.encode(), order.encode() + key, "sha256")[:12]
    return base64.urlsafe_b64encode(signature + key).decode().rstrip("=")


def start_of(cursor, order):
    try:
        key = base64.urlsafe_b64decode(cursor + "==")[12:].decode().split("\n")
    except ValueError:
        key = []
    intact = hmac.compare_digest(cursor_of(key, order).encode(), cursor.encode(errors="replace"))
    require(intact, "cursor must be one from a Link header of this API.")
    return dict(zip(("owner", order, "link_id", "link"), map(encode, [OWNER, *key])))


def stamp():
    """Return what each write renews."""
    return {"updated_at": rfc3339(datetime.now(timezone.utc)), "etag": uuid.uuid4().hex}


def write(operation, etag, condition, values, **request):
    """Do a conditional write that leaves an item with this etag, or None for no item.

    Return whether it is done, and the item as the operation returns it, or else
    the one that is there, {} for none. When an answer is lost it is written
    again, and fails on what it did before; that is done.
    """
    values = {"now": int(time.time()), **values}
    try:
        done = call(
            operation,
            ConditionExpression=condition,
            ExpressionAttributeValues={f":{name}": encode(value) for name, value in values.items()},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
            **request,
        )
        return True, done.get("Attributes", {})
    except ConditionFailed as failure:
        return failure.repeated and failure.item.get("etag") == (etag and encode(etag)), failure.item


def create(link_id, link, fields):
    """Store a link if the id is free; return whether it was, and the item that is there now.

    An id always comes with the same sort key, so that it is there once.
    """
    now = stamp()
    item = {"link_id": link_id, "link": link, "owner": OWNER, "created_at": now["updated_at"]} | now | fields
    if link_id != link_id_of(link) or len(link.encode()) > SORT_KEY_BYTES:
        item |= {"link": SEE_URL, "url": link}
    item = {name: encode(value) for name, value in item.items()}
    new, there = write("PutItem", now["etag"], FREE, {}, Item=item)
    return new, item if new else there


# --- Requests and answers


def headers_of(event):
    """Return the headers by names in lower case; lines of one name are one (RFC 9110, 5.3)."""
    given = event["multiValueHeaders"] or {}
    return {name.lower(): ", ".join(lines) for name, lines in given.items()}


def path_of(event):
    """Return the segments of the path below the stage."""
    proxy = (event["pathParameters"] or {}).get("proxy", "")
    return event["resource"].replace("{proxy+}", unquote(proxy)).strip("/").split("/")


def url_of(event, *path):
    """Return the URL of a path below the stage, or below the base path of a custom domain."""
    headers = headers_of(event)
    scheme = "https" if headers.get("x-forwarded-proto") == "https" else "http"
    asked = event["requestContext"]["path"].strip("/").split("/")
    stage = asked[: len(asked) - len(path_of(event))]
    return f"{scheme}://{headers.get('host', '')}/{'/'.join([*stage, *path])}"


def query_of(event, *names):
    """Return the values of the query parameters: there may be these, each once but for tag."""
    given = event["multiValueQueryStringParameters"] or {}
    fits = set(given) <= set(names) and all(len(given[name]) == 1 for name in given if name != "tag")
    require(fits, f"The query may have {', '.join(names)}, each once but for tag; an & inside one is %26.")
    return given


def etags_of(event, name):
    """Return the members of If-Match or If-None-Match (RFC 9110, 13.1), None if not sent."""
    header = headers_of(event).get(name)
    return None if header is None else [etag.strip() for etag in header.split(",")]


def json_of(event):
    """Return the JSON object in the body, whatever its Content-Type."""
    body = event["body"] or ""
    if len(body) > BODY_BYTES:
        raise ContentTooLarge(f"The body must have at most {BODY_BYTES} bytes.")
    try:
        if event["isBase64Encoded"]:
            body = base64.b64decode(body, validate=True).decode()
        value = json.loads(body, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        value = None
    require(isinstance(value, dict), "The body must be a JSON object.")
    return value


def unique(members):
    require(len(dict(members)) == len(members), "The body must not name a member of an object twice.")
    return dict(members)


def link_of(given, link_id):
    """Take the link out of a body, and return it as it is to be stored with this id."""
    require("link" in given, "link is missing.")
    link = canonical(given.pop("link"))
    if re.fullmatch(ID, link_id) and link_id != link_id_of(link):
        raise Conflict("The URL of an id like this cannot change; PUT the other URL under a name of your own.")
    return link


to_json = json.JSONEncoder(ensure_ascii=False).encode
HTML = {"Content-Type": "text/html; charset=utf-8"}
HTML["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"


def reply(status, body="", headers={}):
    common = {
        "Access-Control-Allow-Origin": ALLOWED_ORIGIN,
        "Access-Control-Expose-Headers": "ETag, Link, Location",
        "Cache-Control": "no-cache",
        "Content-Type": "application/json",
        "Referrer-Policy": "no-referrer",
        "Strict-Transport-Security": "max-age=31536000",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
    return {"statusCode": status, "headers": common | headers, "body": body and body + "\n"}


def reply_item(status, item, headers={}):
    return reply(status, to_json(record_of(item)), {"ETag": etag_of(item)} | headers)


def reply_list(event, query, values, cursor):
    """Return a JSON array, a line for each value, with a link to the next page if there is a cursor."""
    headers = {}
    if cursor:
        following = urlencode({**query, "cursor": cursor}, doseq=True, quote_via=quote)
        headers["Link"] = f'<{url_of(event, *path_of(event))}?{following}>; rel="next"'
    return reply(200, "[" + ",\n".join(map(to_json, values)) + "]", headers)


def reply_error(event, error):
    """Return an Error as an answer: JSON, or for a person who follows a short link a page."""
    reference = event["requestContext"]["requestId"]  # which a client may choose
    if path_of(event)[0] == "go" and "text/html" in headers_of(event).get("accept", ""):
        sentence, small = escape(str(error)), escape(reference)
        body = f"<!doctype html><title>{error.status}</title><p>{sentence}<p><small>{small}</small>"
        return reply(error.status, body, HTML | error.headers)
    return reply(error.status, to_json({"Error": str(error), "Reference": reference}), error.headers)


def is_seen(event, etag):
    """Return whether If-None-Match has an entity tag; the comparison is weak (RFC 9110, 13.1.2)."""
    seen = [each.removeprefix("W/") for each in etags_of(event, "if-none-match") or []]
    return "*" in seen or etag in seen


def is_wanted(event, etag):
    """Return whether If-Match, if it is sent, has an entity tag (RFC 9110, 13.1.1)."""
    wanted = etags_of(event, "if-match")
    return wanted in (None, ["*"]) or etag in wanted


def unless_seen(event, answer):
    """Return the answer to a GET, or 304 if the client has it."""
    etag = answer["headers"]["ETag"]
    if not is_wanted(event, etag):
        raise PreconditionFailed(f"The ETag is now {etag}.")
    return reply(304, headers={"ETag": etag}) if is_seen(event, etag) else answer


# --- Routes


def write_if_match(event, item, operation, etag, values, **request):
    """Change or delete an item, if If-Match and If-None-Match allow; return the new one."""
    condition, seen = LIVE, etag_of(item)
    if etags_of(event, "if-match") not in (None, ["*"]) or etags_of(event, "if-none-match"):
        condition += " AND etag = :seen"  # "" is never there
        allowed = is_wanted(event, seen) and not is_seen(event, seen)
        values["seen"] = decode(item["etag"]) if allowed else ""
    done, item = write(operation, etag, condition, values, Key=key_of(item), **request)
    if done:
        return item
    etag = etag_of(live(item))
    raise PreconditionFailed(f"If-Match or If-None-Match does not allow it; the ETag of the link is now {etag}.")


def update(event, item, fields, link):
    """Set these fields of an item, and its link if given; remove fields that are None."""
    fields = stamp() | fields
    if link and item["link"] == encode(SEE_URL):
        fields["url"] = link
    kept = {name: value for name, value in fields.items() if value is not None}
    expression = "SET " + ", ".join(f"#{name} = :{name}" for name in kept)
    if len(kept) < len(fields):
        expression += " REMOVE " + ", ".join(f"#{name}" for name in fields if name not in kept)
    names = {f"#{name}": name for name in fields}
    request = {"UpdateExpression": expression, "ExpressionAttributeNames": names, "ReturnValues": "ALL_NEW"}
    return reply_item(200, write_if_match(event, item, "UpdateItem", fields["etag"], kept, **request))


def list_links(event):
    """GET /link: a page of links, newest first, or the one that has the URL asked for."""
    query = query_of(event, "limit", "cursor", "link", "tag", "q", "since")
    limit = query.get("limit", ["100"])[0]
    limit = int(limit) if re.fullmatch("[0-9]{1,4}", limit) else 0
    require(1 <= limit <= 1000, "limit must be a whole number from 1 to 1000.")
    if "link" in query:
        query_of(event, "link", "limit")  # nothing else with it
        item = find(link_id_of(canonical(query["link"][0])))
        return reply_list(event, query, [record_of(item)] if item else [], None)
    return reply_list(event, query, *page_of(query, limit))


def post_link(event):
    """POST /link: store a link, or return the one that is there for this URL."""
    given = json_of(event)
    link = link_of(given, "")
    link_id = link_id_of(link)
    new, item = create(link_id, link, check(given, NEW))
    return reply_item(201 if new else 200, item, {"Location": url_of(event, "link", link_id)})


def get_link(event, link_id):
    """GET /link/{link_id}: a link, or 304 if the client has it as it is."""
    return unless_seen(event, reply_item(200, live(find(link_id))))


def put_link(event, link_id):
    """PUT /link/{link_id}: store a link under a name, or replace what is there."""
    valid = re.fullmatch(NAME, link_id)
    require(valid, "A name has 1 to 64 letters, digits and -._~, and starts with a letter or digit.")
    given = json_of(event)
    link = link_of(given, link_id)
    fields = check(given, NEW)
    matching = etags_of(event, "if-match") is not None
    new, item = (False, find(link_id)) if matching else create(link_id, link, fields)
    if new:
        return reply_item(201, item, {"Location": url_of(event, "link", link_id)})
    if not item:
        raise PreconditionFailed("There is no link with this name, so If-Match cannot hold.")
    if is_seen(event, etag_of(item)):
        raise PreconditionFailed(f"This name is taken; the ETag of its link is {etag_of(item)}.")
    try:
        return update(event, item, {name: fields.get(name) for name in FIELDS}, link)
    except NotFound:  # it was deleted at the same moment
        return put_link(event, link_id)


def patch_link(event, link_id):
    """PATCH /link/{link_id}: apply a JSON merge patch (RFC 7396) to the fields."""
    given = json_of(event)
    link = link_of(given, link_id) if "link" in given else None
    removed = {name: None for name, value in given.items() if value is None and name in FIELDS}
    fields = check({name: value for name, value in given.items() if name not in removed}, FIELDS)
    return update(event, live(find(link_id)), fields | removed, link)


def delete_link(event, link_id):
    """DELETE /link/{link_id}: forget a link."""
    write_if_match(event, live(find(link_id)), "DeleteItem", None, {})
    return reply(204)


def go(event, link_id):
    """GET /go/{link_id}: redirect to the link, and count the visit.

    When the SDK repeats the count, the item is as the first attempt left it.
    What is not ASCII in the link is percent-encoded (RFC 3987, 3.1); all else
    stays as it was stored.
    """
    if ACCESS in ("key", "iam") and re.fullmatch(ID, link_id):
        raise NotFound("There is no link with this name.")  # ids would tell which URLs are stored
    item = live(find(link_id))
    if COUNT_VISITS == "true" and event["httpMethod"] == "GET":
        _, item = write(
            "UpdateItem",
            None,
            LIVE + " AND NOT visit = :visit",
            {"one": 1, "visit": uuid.uuid4().hex, "at": stamp()["updated_at"]},
            Key=key_of(item),
            UpdateExpression="SET visited_at = :at, visit = :visit ADD visits :one",
            ReturnValues="ALL_NEW",
        )
    safe = "".join(map(chr, range(0x21, 0x7F)))
    return reply(302, headers={"Location": quote(record_of(live(item))["link"], safe)})


def list_tags(event):
    """GET /tags: the tags of a page of links, and how many of these have each."""
    query = query_of(event, "cursor", "tag", "q")
    records, cursor = page_of(query, 1000)
    counts = Counter(tag for record in records for tag in record.get("tags", []))
    return reply_list(event, query, [{"tag": tag, "count": counts[tag]} for tag in sorted(counts)], cursor)


def feed(event):
    """GET /feed: the newest 50 links in Atom (RFC 4287), or 304 if the client has them."""
    query = query_of(event, "tag", "q")
    records = page_of(query, 1000)[0][:50]  # some of the newest may have expired
    asked = "?" + urlencode(query, doseq=True, quote_via=quote)
    here = escape(url_of(event, "feed") + asked.rstrip("?"))
    updated = max((record["updated_at"] for record in records), default="1970-01-01T00:00:00Z")
    lines = [
        '<feed xmlns="http://www.w3.org/2005/Atom"><title>Links</title><author><name>apidb</name></author>',
        f"<id>urn:uuid:{link_id_of(TABLE + asked)}</id><updated>{updated}</updated>",
        f'<link rel="self" href="{here}"/>',
    ]
    for record in records:
        link, title = escape(record["link"]), escape((record.get("title") or record["link"])[:512])
        tagged = [f'<category term="{escape(tag)}"/>' for tag in record.get("tags", [])]
        lines += [
            f"<entry><title>{title}</title><id>urn:uuid:{link_id_of(TABLE + record['link_id'])}</id>",
            f"<published>{record['created_at']}</published><updated>{record['updated_at']}</updated>",
            f'<link href="{link}"/>{"".join(tagged)}<summary>{escape(record.get("notes", ""))}</summary></entry>',
        ]
    body = "\n".join([*lines, "</feed>"])
    headers = {"Content-Type": "application/atom+xml", "ETag": f'"{uuid.uuid5(uuid.NAMESPACE_URL, body).hex}"'}
    return unless_seen(event, reply(200, body, headers))


def index(event):
    """GET /: the URLs of the API, as templates (RFC 6570)."""
    return reply(200, to_json({path: url_of(event, path[1:]) for path in ROUTES}))


def health(event):
    """GET /health: the version that is deployed, if the table answers."""
    try:
        find("health")
    except Exception as failure:
        raise ServiceUnavailable(BUSY) from failure
    return reply(200, to_json({"version": VERSION}))


ROUTES = {
    "/": {"GET": index},
    "/link": {"GET": list_links, "POST": post_link},
    "/link/{link_id}": {"GET": get_link, "PUT": put_link, "PATCH": patch_link, "DELETE": delete_link},
    "/go/{link_id}": {"GET": go},
    "/tags": {"GET": list_tags},
    "/feed": {"GET": feed},
    "/health": {"GET": health},
}

# --- Entry point

METRICS = [{"Name": "requests"}, {"Name": "errors"}, {"Name": "ms", "Unit": "Milliseconds"}]
METRICS = [{"Namespace": STACK, "Dimensions": [["resource"]], "Metrics": METRICS}]


# What the function answers to a preflight on open paths, and API Gateway's mock on others.
PREFLIGHT = {
    "Access-Control-Allow-Headers": "Authorization,Content-Type,If-Match,If-None-Match,X-Amz-Date,X-Amz-Security-Token,X-Api-Key",
    "Access-Control-Max-Age": "7200",
}


def dispatch(event, route, names):
    """Return the answer of a route."""
    if route not in ROUTES:
        raise NotFound(f"There is no such path here; there are {', '.join(ROUTES)}.")
    # API Gateway may follow it after it has looked at the key, which some methods do not need.
    overridden = "x-http-method-override" in headers_of(event)
    require(not overridden, "X-HTTP-Method-Override is not taken; send the method itself.")
    method, methods = event["httpMethod"], ROUTES[route]
    allowed = ", ".join([*methods, "HEAD", "OPTIONS"])
    if method == "OPTIONS":
        return reply(200, headers={"Allow": allowed, "Access-Control-Allow-Methods": allowed} | PREFLIGHT)
    answer = methods.get("GET" if method == "HEAD" else method)
    if not answer:
        error = MethodNotAllowed(f"{method} does not work here; {allowed} do.")
        error.headers = {"Allow": allowed}
        raise error
    return answer(event, *names)


def lambda_handler(event, context):
    """Answer a Lambda proxy event with a proxy response, whatever happens, and log one line.

    HEAD is GET without a body (RFC 9110, 9.3.2). CloudWatch makes metrics of
    the line, by its embedded metric format.
    """
    start = time.perf_counter()
    first, *names = path_of(event)
    route = f"/{first}" + "/{link_id}" * len(names)
    log = {"level": "INFO", "method": event["httpMethod"], "resource": route if route in ROUTES else "unknown"}
    try:
        answer = dispatch(event, route, names)
    except Exception as error:
        if not isinstance(error, Error):
            error = Error("Something went wrong here; the log has it under the reference.")
        if error.status >= 500:
            log |= {"level": "ERROR", "error": traceback.format_exc()}
        answer = reply_error(event, error)
    if event["httpMethod"] == "HEAD":
        answer["body"] = ""
    status, ms = answer["statusCode"], round((time.perf_counter() - start) * 1000, 1)
    log |= {"status": status, "ms": ms, "request_id": event["requestContext"]["requestId"]}
    log |= {"requests": 1, "errors": int(status >= 500)}
    log["_aws"] = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": METRICS}
    print(json.dumps(log, separators=(",", ":")))
    return answer


# --- Ready


def connect():
    """Make the connection to the table; what fails here fails again, and is answered, in the first request."""
    try:
        find("health")
    except Exception:
        pass


thread = threading.Thread(target=connect, daemon=True)
thread.start()
thread.join(1)
gc.freeze()
gc.enable()
