"""The link store behind the API of setupapidb.yml: one function, one table.

lambda_handler() gets each request as a Lambda proxy event of API Gateway; a
route, found by path and method, returns a proxy response. `make embed` copies
this file into the template.

An item is a record, and what only the store sees: `owner`, the hash key of the
indexes; `etag`, new at every change; `visit`, new at every visit; and `url`,
the whole URL where the sort key `link` is not it.
For a month after a deletion it is what is left of that: its key, `owner`,
`etag`, `updated_at`, `deleted_at`, and when DynamoDB is to sweep it,
`expires_at`. Without `created_at` it is in the index of changes only.

What has tags or words is found by reading all links, 1 MB a request, or, if it
is there, by the add-on search (handler/search.py), which has an index of them.

DynamoDB is asked by its low-level API, JSON over HTTPS, with the SDK's signer
and HTTP session: starting a client of the SDK takes longer than all else here.
A cold start is kept short, and so is the first request after it: garbage is
not looked for until all is imported, as all of that stays; and the connection
to the table is made while Lambda gives more CPU than later. bench/README.md
has what each of these is worth.
"""

import gc

gc.disable()

import base64
import functools
import hmac
import ipaddress
import json
import os
import random
import re
import socket
import string
import time
import traceback
import unicodedata
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

# The template gives each of these; without one the function does not start.
ACCESS = os.environ["ACCESS"]
ALLOWED_ORIGIN = os.environ["ALLOWED_ORIGIN"]
COUNT_VISITS = os.environ["COUNT_VISITS"]
STACK = os.environ["STACK"]
STACK_ID = os.environ["STACK_ID"]
REGION = os.environ["AWS_REGION"]
TABLE = os.environ["TABLE"]
VERSION = os.environ["VERSION"]
ENDPOINT = os.environ.get("AWS_ENDPOINT_URL") or os.environ["ENDPOINT"]
LAMBDA = os.environ.get("AWS_ENDPOINT_URL") or os.environ["LAMBDA"]

OWNER = "everyone"  # the one partition of the indexes
BODY_CHARACTERS = 262_144  # a record with all that it can have takes less, in each encoding of JSON
LINK_BYTES = 8192
SORT_KEY_BYTES = 1024  # the most that DynamoDB takes
SEE_URL = "see url"  # the sort key of a longer link, and of one with a name
NAME = "[A-Za-z0-9][A-Za-z0-9._~-]{0,63}"
DELETED_FOR = 30 * 86400  # seconds that it is told what was deleted
ID = "[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"  # a UUIDv5

# --- Errors


class Error(Exception):
    """An answer other than success: a sentence, with a status and maybe headers."""

    status, headers = 500, {}
    sentence = "Something went wrong here; the log has it under the reference."

    def __str__(self):
        return super().__str__() or self.sentence


# fmt: off
class BadRequest(Error): status = 400
class NotFound(Error): status = 404
class MethodNotAllowed(Error): status = 405
class Conflict(Error): status = 409
class Gone(Error): status = 410
class PreconditionFailed(Error): status = 412
class ContentTooLarge(Error): status = 413
# fmt: on


class ServiceUnavailable(Error):
    status, headers, sentence = 503, {"Retry-After": "1"}, "The store is busy; try again soon."


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
    require(isinstance(value, list) and len(value) <= most, f"{name} must be an array of at most {most} strings.")
    for tag in value:
        require(text(f"Each of {name}", tag, 64).strip(), f"Each of {name} must not be blank.")
    return list(dict.fromkeys(value))


def moment(name, value):
    """Return a datetime, in UTC, of RFC 3339 text."""
    shape = r"(?a)\d{4}(-\d\d){2}T\d\d(:\d\d){2}(\.\d+)?(Z|[+-]\d\d:[0-5]\d)"
    try:
        return datetime.fromisoformat(re.fullmatch(shape, value)[0]).astimezone(timezone.utc)
    except (TypeError, ValueError, OverflowError):
        raise BadRequest(f"{name} must be a date and time like 2030-12-31T23:59:59Z.") from None


def rfc3339(when):
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_of(seconds):
    return rfc3339(datetime.fromtimestamp(seconds, timezone.utc))


def past(name, value):
    """Return a time that has been, as a record has it."""
    when = moment(name, value)
    require(when <= datetime.now(timezone.utc), f"{name} must be in the past.")
    return rfc3339(when)


def future(name, value):
    """Return a time to come in whole seconds since 1970, which is what DynamoDB's TTL takes."""
    when = moment(name, value)
    require(when > datetime.now(timezone.utc), f"{name} must be in the future.")
    return int(when.replace(microsecond=0).timestamp())


def number(name, value, most):
    fits = type(value) in (int, float) and 0 <= value <= most and not value % 1
    require(fits, f"{name} must be a whole number from 0 to {most}.")
    return int(value)


# What may be said of a link besides its URL: the rule of a field, and the limit if it has one.
FIELDS = {"title": (text, 512), "tags": (tags, 32), "notes": (text, 8192), "expires_at": (future,)}
# What a new link may bring along from where it was before.
NEW = FIELDS | {"created_at": (past,), "visits": (number, 10**15), "visited_at": (past,)}
RECORD = ("link_id", "link", "created_at", "updated_at", *FIELDS, "visits", "visited_at")


def check(body, fields):
    """Return what a body has besides the link as it is to be stored: these fields, by their rules."""
    checked = {}
    for name, value in body.items():
        require(name in ("link", *fields), f"{name[:64]!r} cannot be set; {', '.join(['link', *fields])} can.")
        if name != "link":
            rule, *limit = fields[name]
            checked[name] = rule(name, value, *limit)
    return checked


def canonical(link):
    """Return the form of an absolute http(s) URL in which equal ones are one link.

    Scheme and host in lower case, no white space around it, no default port, no
    slash that ends it after the host; all else as given. A backslash is refused
    where browsers would take it for a slash, and go to another host.
    """
    given = text("link", link, LINK_BYTES)
    trimmed = given.strip()
    bad = re.search(r"[\x7f-\x9f]", given) or re.search(r"\s", trimmed)
    require(not bad, "link must not contain white space or control characters; a space is %20.")
    parts = re.fullmatch(r"(?ai)(https?)://([^/?#]*)(.*)", trimmed)
    require(parts, "link must be an absolute URL that starts with http:// or https://.")
    scheme, authority, rest = parts[1].lower(), parts[2], parts[3]
    user, at, host_and_port = authority.rpartition("@")
    named = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^][<>\\^|:]+)(:[0-9]*)?", host_and_port)
    valid = named and "\\" not in user
    try:
        port = urlsplit(trimmed).port
        if valid and named[1].startswith("["):
            ipaddress.IPv6Address(named[1][1:-1])
    except ValueError:  # or characters that browsers turn into a / or an @
        valid = False
    require(valid, "link must have a valid host after the //, and a port up to 65535 if any.")
    kept_port = "" if port in (None, {"http": 80, "https": 443}[scheme]) else named[2]
    url = f"{scheme}://{user}{at}{named[1].lower()}{kept_port}{rest if rest != '/' else ''}"
    size = len(url.encode())
    require(size <= LINK_BYTES, f"link must have at most {LINK_BYTES} bytes, not {size}.")
    return url


def uuid_of(text):
    """Return the UUIDv5 of a text in the URL namespace (RFC 9562, 5.5)."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, text))


def link_id_of(link):
    """Return the id of a canonical URL: one URL, one id, one item."""
    return uuid_of(link)


# --- Words

# Scripts that put no spaces between words: Thai to Lao, Burmese, Khmer, kana and Han.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
RUN = re.compile(rf"([{UNSPACED}]+)|[^\s{UNSPACED}]+")
NOISE = re.compile(r"https?://|\bwww\.|\.(com|org|html?|php)\b")  # which many URLs have
EDGES = ",.;:!?/\"'()[]{}<>\u00ab\u00bb\u201c\u201d\u3002\u300c\u300d"  # of a part of q, where they say nothing
WORDS, LETTERS = 200, 64  # the most of a link, and of a word

Search = namedtuple("Search", "tags words others")


def plain(text):
    """Return a text without differences of case, of form (Unicode, NFKC) and of percent-encoding."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", unquote(text)).casefold())


def words_of(text):
    """Return the words of a plain text, each once: runs of letters, marks and digits.

    Where a script has no spaces each two characters in a row are a word, and so is the last one.
    """
    spaced = "".join(each if unicodedata.category(each)[0] in "LMN" else " " for each in NOISE.sub(" ", text))
    words = []
    for run in RUN.finditer(spaced):
        words += [run[0][at : at + 2] for at in range(len(run[0]))] if run[1] else [run[0][:LETTERS]]
    return list(dict.fromkeys(words))


def search_of(query):
    """Return what a query looks for: tags, words of q, and parts of q that are more than a word, all in plain text."""
    wanted = tags("tag", query.get("tag", []), 32)
    parts = plain(text("q", query.get("q", [""])[0], 512)).split()
    words = {part.strip(EDGES) or part: words_of(part) for part in parts}
    return Search(wanted, sum(words.values(), []), [part for part in words if words[part] != [part]])


def said_of(item):
    """Return in plain text what a link can be found by."""
    url = item.get("url", item["link"])
    return plain("\n".join([item.get("title", ""), *item.get("tags", []), url, item.get("notes", "")]))


def matches(item, wanted):
    """Return whether a link has all tags, for each word one that it begins, and all others as they are."""
    if not set(wanted.tags).issubset(item.get("tags", [])):
        return False
    said = said_of(item) if wanted.words or wanted.others else ""
    if not all(each in said for each in wanted.words + wanted.others):
        return False
    own = words_of(said)[:WORDS]
    return all(any(each.startswith(word) for each in own) for word in wanted.words)


# --- DynamoDB

# Seconds that an attempt may take to connect and to read, and all attempts of a call. A request makes two
# calls at most, the function has 25 s, and API Gateway waits 29.
CONNECT, READ, DEADLINE = 1, 2, 8
# What passes by itself, besides 5xx, 408 and 429 (Developer Guide, "Error handling with DynamoDB").
PASSING = """ProvisionedThroughputExceededException ReplicatedWriteConflictException RequestLimitExceeded
    ThrottlingException TransactionConflictException""".split()

Credentials = namedtuple("Credentials", "access_key secret_key token")
keys = map(os.environ.get, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"))
credentials = Credentials(*keys)
signer = SigV4Auth(credentials, "dynamodb", REGION)
at_once = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]  # else each request waits 40 ms
http = URLLib3Session(os.environ.get("AWS_CA_BUNDLE") or True, timeout=(CONNECT, READ), socket_options=at_once)


def encode(value):
    """Return a value as an attribute in DynamoDB's JSON."""
    if isinstance(value, list):
        return {"L": list(map(encode, value))}
    return {"S": value} if isinstance(value, str) else {"N": str(value)}


def encode_all(values, mark=""):
    return {mark + name: encode(value) for name, value in values.items()}


def decode(value):
    """Return the value of an attribute, and all else in DynamoDB's JSON as it is."""
    if len(value) > 1:
        return value
    if "S" in value:
        return value["S"]
    return json.loads(value["N"]) if "N" in value else value.get("L", value)


def ask(operation, body):
    """Return what DynamoDB answers to one request: what was asked for, or how a condition failed.

    ConnectionError: it did not do it, or its answer is damaged, and it may be asked again.
    """
    headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"DynamoDB_20120810.{operation}"}
    request = AWSRequest("POST", ENDPOINT, headers, body)
    signer.add_auth(request)
    answer = http.send(request.prepare())
    status, content = answer.status_code, answer.content
    whole = int(answer.headers.get("x-amz-crc32", 0)) in (0, zlib.crc32(content))
    value = json.loads(content, object_hook=decode) if whole else None
    if not isinstance(value, dict):
        raise ConnectionError(f"DynamoDB's answer to {operation} came damaged: {status}, {len(content)} bytes.")
    code = str(value.get("__type", "")).rpartition("#")[2]
    reasons = [reason["Code"] for reason in value.get("CancellationReasons", [])]  # of a transaction
    if code == "ConditionalCheckFailedException" or "ConditionalCheckFailed" in reasons or status == 200 and not code:
        return value
    passing = status >= 500 or status in (408, 429) or reasons or code in PASSING
    said = str(content[:500], errors="replace")
    raise (ConnectionError if passing else RuntimeError)(f"DynamoDB answered {operation} with {status}: {said}")


def call(operation, values=None, attempts=3, **request):
    """Return what DynamoDB answers to an operation, if its expressions have these values on TABLE or the table named.

    It is asked again if need be, and `repeated` in the answer is whether it was: then a condition may have failed
    on what was done before. ServiceUnavailable: DynamoDB throttles, or is out of reach.
    """
    if values:
        request = {"TableName": TABLE, "ExpressionAttributeValues": encode_all(values, ":")} | request
    body = json.dumps(request).encode()
    end = time.monotonic() + DEADLINE
    for attempt in range(attempts):
        try:
            return ask(operation, body) | {"repeated": attempt > 0}
        except (ConnectionError, BotoCoreError, ValueError) as failure:  # the last for what is no JSON
            wait = random.random() * 2**attempt / 4
            if attempt + 1 == attempts or time.monotonic() + wait + CONNECT + READ > end:
                raise ServiceUnavailable from failure
        time.sleep(wait)


# --- The add-on search

SEARCH_SECONDS = 10  # that it has to answer; reading all links takes up to 8 s more
ABSENT_SECONDS = 60  # until a store without it looks for it again
absent_until = 0


@functools.cache
def http_of_search():
    return URLLib3Session(os.environ.get("AWS_CA_BUNDLE") or True, timeout=(CONNECT, SEARCH_SECONDS))


def ask_addon(question, cursor=None, must=False, **asked):
    """Return what the add-on search answers to a question: values, and a cursor to go on, or None.

    None is its answer if it cannot find by this, or not all links are in its index yet; or there is no such add-on,
    or it fails. ServiceUnavailable if it fails and must be asked, as to go on with a list that it began.
    """
    global absent_until
    must = must or cursor
    if time.monotonic() < absent_until and not must:
        return None
    body = json.dumps({"question": question, "cursor": cursor, **asked}).encode()
    url = f"{LAMBDA}/2015-03-31/functions/{STACK}-search/invocations"
    request = AWSRequest("POST", url, {"Content-Type": "application/json"}, body)
    SigV4Auth(credentials, "lambda", REGION).add_auth(request)
    try:
        answer = http_of_search().send(request.prepare())
        found, failed = json.loads(answer.content), "X-Amz-Function-Error" in answer.headers
        if answer.status_code == 404:
            absent_until, found = time.monotonic() + ABSENT_SECONDS, None
        elif answer.status_code != 200 or failed:
            raise ConnectionError(f"The add-on search answered {answer.status_code}: {found}")
    except (BotoCoreError, ConnectionError, ValueError) as failure:
        if must:
            raise ServiceUnavailable from failure
        found = None
    if found and "error" in found:
        raise BadRequest(found["error"])
    return found


# --- Storage


def record_of(item):
    """Return the record that clients see of an item."""
    record = {name: item[name] for name in RECORD if name in item}
    if "url" in item:
        record["link"] = item["url"]
    if "expires_at" in item:
        record["expires_at"] = rfc3339_of(record["expires_at"])
    return record


def deletion_of(item):
    """Return what clients see of an item that was deleted, or has expired, which counts as that."""
    return {"link_id": item["link_id"], "deleted_at": item.get("deleted_at") or rfc3339_of(item["expires_at"])}


def key_of(item):
    return encode_all({name: item[name] for name in ("link_id", "link")})


def etag_of(item):
    return f'"{item["etag"]}"'


def is_live(item):
    return bool(item) and "deleted_at" not in item and ("expires_at" not in item or item["expires_at"] > time.time())


def live(item):
    """Return the item; NotFound if there is none, or it was deleted or has expired."""
    if not is_live(item):
        raise NotFound("There is no link with this id.")
    return item


def find(link_id):
    """Return the item with this id as it is now, deleted or not, or None; its sort key is not known from the id."""
    if not re.fullmatch(NAME, link_id):
        return None
    page = call("Query", {"id": link_id}, KeyConditionExpression="link_id = :id", ConsistentRead=True)
    return next(iter(page["Items"]), None)


def page_of(query, count, newest=False):
    """Return up to `count` records that the query asks for, and the cursor to go on, or None.

    They come newest first, or with `since` in the order of their changes, with
    what was deleted, whatever else is asked for; by words alone in the order of
    the add-on search, if it is there, unless they must be the newest. The work
    is one Query of up to 1 MB: there may be fewer, or none, though more follow.
    """
    wanted = search_of(query)
    index, order = ("changed", "updated_at") if "since" in query else ("newest", "created_at")
    since = rfc3339(moment("since", query["since"][0])) if "since" in query else None
    cursor = query.get("cursor", [None])[0]
    start = key_in(cursor, order)
    if not since and not start and (wanted.tags or wanted.words and not newest):
        found = ask_addon("links", cursor, **wanted._asdict(), count=count)
        if found:
            return found["values"], found["cursor"]
    condition, values, request = "#owner = :owner", {"owner": OWNER}, {}
    if cursor is not None:
        request["ExclusiveStartKey"] = start_of(start, order)
    elif since:
        condition += " AND updated_at >= :since"
        values["since"] = since
    if not any(wanted):
        request["Limit"] = count + 1  # one more tells whether another page follows
    names = {f"#{name}": name for name in ("url", "deleted_at", *RECORD)}
    request |= {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": {"#owner": "owner", **names}}
    request |= {"IndexName": index, "KeyConditionExpression": condition, "ScanIndexForward": "since" in query}
    page = call("Query", values, **request)
    items, records = [], []
    for item in page["Items"]:
        if not is_live(item):
            record = deletion_of(item) if since else None
        else:
            record = record_of(item) if matches(item, wanted) else None
        if record:
            items.append(item)
            records.append(record)
    last = items[count - 1] if len(items) > count else page.get("LastEvaluatedKey")
    cursor = last and cursor_of([last[name] for name in (order, "link_id", "link")], order)
    return records[:count], cursor


def cursor_of(key, order):
    """Return a key of the index with this order as an opaque text; it is signed, but no secret."""
    key = "\n".join(key).encode()
    signature = hmac.digest(STACK_ID.encode(), order.encode() + key, "sha256")[:12]
    return base64.urlsafe_b64encode(signature + key).decode().rstrip("=")


def key_in(cursor, order):
    """Return the parts of the key that a cursor of this order has; None if it is not one."""
    try:
        key = base64.urlsafe_b64decode(cursor + "==")[12:].decode().split("\n")
    except (TypeError, ValueError):
        return None
    intact = hmac.compare_digest(cursor_of(key, order).encode(), cursor.encode(errors="replace"))
    return key if intact else None


def start_of(key, order):
    require(key, "cursor must be one from a Link header of this API.")
    return encode_all(dict(zip(("owner", order, "link_id", "link"), [OWNER, *key])))


def stamp():
    """Return what each write renews."""
    return {"updated_at": rfc3339(datetime.now(timezone.utc)), "etag": uuid.uuid4().hex}


FREE, TAKEN = True, False  # what an id must be for a write


def write(operation, must_be, etag, values={}, also="", **request):
    """Write if the id is FREE or TAKEN, and if `also` a condition holds, and leave an item with this etag, or None.

    Return whether it is done, and the item as the operation returns it, or else the one that is there, {} for none.
    """
    # DynamoDB deletes what has expired, but days later.
    condition = "(attribute_not_exists(link_id) OR attribute_exists(deleted_at) OR expires_at <= :now)"
    condition = (condition if must_be is FREE else "NOT " + condition) + also
    request |= {"ConditionExpression": condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    answer = call(operation, {"now": int(time.time()), **values}, **request)
    if "__type" not in answer:
        return True, answer.get("Attributes", {})
    there = answer.get("Item", {})
    return was_done_before(answer, there, etag), there


def was_done_before(answer, there, etag):
    """Return whether a write failed on what it had done itself, in an attempt whose answer was lost."""
    return answer["repeated"] and there.get("etag") == etag


def create(link_id, link, fields):
    """Store a link if the id is free; return whether it was, and the item that is there now.

    An id always comes with the same sort key, so that it is there once.
    """
    now = stamp()
    item = {"link_id": link_id, "link": link, "owner": OWNER, "created_at": now["updated_at"]} | now | fields
    if link_id != link_id_of(link) or len(link.encode()) > SORT_KEY_BYTES:
        item |= {"link": SEE_URL, "url": link}
    new, there = write("PutItem", FREE, now["etag"], Item=encode_all(item))
    return new, item if new else there


# --- Requests


class Request:
    """What a Lambda proxy event of API Gateway says of a request."""

    def __init__(self, event):
        context, headers = event["requestContext"], event["multiValueHeaders"] or {}
        self.event, self.method, self.id = event, event["httpMethod"], context["requestId"]
        # Lines of one name are one (RFC 9110, 5.3).
        self.headers = {name.lower(): ", ".join(lines) for name, lines in headers.items()}
        proxy = unquote((event["pathParameters"] or {}).get("proxy", ""))
        self.path = event["resource"].replace("{proxy+}", proxy).strip("/").split("/")
        # Before that comes the stage, or the base path of a custom domain.
        asked, below = (re.findall("[^/]+", each) for each in (context["path"], "/".join(self.path)))
        scheme = "https" if self.headers.get("x-forwarded-proto") == "https" else "http"
        self.root = [f"{scheme}://{self.headers.get('host', '')}", *asked[: len(asked) - len(below)]]

    def url(self, *path):
        """Return the URL of a path of the API."""
        return "/".join([*self.root, *path])

    def is_wanted(self, etag):
        """Return whether If-Match, if it is sent, has an entity tag, or is * (RFC 9110, 13.1.1)."""
        return re.search(rf"^\s*\*\s*$|(^|,)\s*{etag}\s*(,|$)", self.headers.get("if-match", "*"))

    def is_seen(self, etag):
        """Return whether If-None-Match has an entity tag, or a *; the comparison is weak (RFC 9110, 13.1.2)."""
        return re.search(rf"(^|,)\s*(W/)?(\*|{etag})\s*(,|$)", self.headers.get("if-none-match", ""))

    def query(self, *names):
        """Return the values of the query parameters: there may be these, each once but for tag."""
        given = self.event["multiValueQueryStringParameters"] or {}
        fits = set(given) <= set(names) and all(len(given[name]) == 1 for name in given if name != "tag")
        require(fits, f"The query may have {', '.join(names)}, each once but for tag; an & inside one is %26.")
        return given

    def json(self):
        """Return the JSON object in the body, whatever its Content-Type."""
        body = self.event["body"] or ""
        if len(body) > BODY_CHARACTERS:
            raise ContentTooLarge(f"The body must have at most {BODY_CHARACTERS} characters.")
        try:
            if self.event["isBase64Encoded"]:
                body = base64.b64decode(body, validate=True).decode()
            value = json.loads(body, object_pairs_hook=unique)
        except (ValueError, RecursionError):
            value = None
        require(isinstance(value, dict), "The body must be a JSON object.")
        return value


def unique(members):
    require(len(dict(members)) == len(members), "The body must not name a member of an object twice.")
    return dict(members)


# --- Answers

HEADERS = {
    "Access-Control-Allow-Origin": ALLOWED_ORIGIN,
    "Access-Control-Expose-Headers": "ETag, Link, Location",
    "Cache-Control": "no-cache",
    "Content-Type": "application/json",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
HTML = {"Content-Type": "text/html; charset=utf-8"}
HTML["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"

to_json = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode


def reply(status, body="", headers={}):
    return {"statusCode": status, "headers": HEADERS | headers, "body": body and body + "\n"}


def reply_item(status, item, headers={}):
    return reply(status, to_json(record_of(item)), {"ETag": etag_of(item)} | headers)


def reply_list(request, query, values, cursor):
    """Return a JSON array, a line for each value, with a link to the next page if there is a cursor."""
    headers = {}
    if cursor:
        following = urlencode({**query, "cursor": cursor}, doseq=True, quote_via=quote)
        headers["Link"] = f'<{request.url(*request.path)}?{following}>; rel="next"'
    return reply(200, "[" + ",\n".join(map(to_json, values)) + "]", headers)


def reply_error(request, error):
    """Return an Error as an answer: JSON, or for a person who follows a short link a page."""
    if request.path[0] == "go" and "text/html" in request.headers.get("accept", ""):
        sentence, reference = escape(str(error)), escape(request.id)  # which a client may choose
        body = f"<!doctype html><title>{error.status}</title><p>{sentence}<p><small>{reference}</small>"
        return reply(error.status, body, HTML | error.headers)
    return reply(error.status, to_json({"Error": str(error), "Reference": request.id}), error.headers)


def unless_seen(request, answer):
    """Return the answer to a GET, or 304 if the client has it."""
    etag = answer["headers"]["ETag"]
    if not request.is_wanted(etag):
        raise PreconditionFailed(f"If-Match does not hold; the ETag is {etag}.")
    return reply(304, headers={"ETag": etag}) if request.is_seen(etag) else answer


# --- Routes


def link_of(body, link_id=""):
    """Return the canonical URL in a body, which an id of a URL must be the id of."""
    require("link" in body, "link is missing.")
    link = canonical(body["link"])
    if re.fullmatch(ID, link_id) and link_id != link_id_of(link):
        raise Conflict("The URL of an id like this cannot change; PUT the other URL under a name of your own.")
    return link


def change(request, item, operation, etag, values={}, **more):
    """Write over an item, if If-Match and If-None-Match allow; return the new one, or what the operation returns."""
    asks_for_etag = request.headers.get("if-match", "*").strip() != "*" or "if-none-match" in request.headers
    also = " AND etag = :seen" if asks_for_etag else ""
    done = False
    while not done:
        seen = etag_of(live(item))
        if not request.is_wanted(seen) or request.is_seen(seen):
            raise PreconditionFailed(f"If-Match or If-None-Match does not hold; the ETag is {seen}.")
        expected = {"seen": item["etag"]} if asks_for_etag else {}
        done, item = write(operation, TAKEN, etag, values | expected, also, **more)
    return item


def update(request, item, fields, link):
    """Set these fields of an item, and its link if given; remove fields that are None."""
    fields = stamp() | fields
    if link and item["link"] == SEE_URL:
        fields["url"] = link
    kept = {name: value for name, value in fields.items() if value is not None}
    expression = "SET " + ", ".join(f"#{name} = :{name}" for name in kept)
    if len(kept) < len(fields):
        expression += " REMOVE " + ", ".join(f"#{name}" for name in fields if name not in kept)
    names = {f"#{name}": name for name in fields}
    more = {"UpdateExpression": expression, "ExpressionAttributeNames": names, "ReturnValues": "ALL_NEW"}
    return reply_item(200, change(request, item, "UpdateItem", fields["etag"], kept, Key=key_of(item), **more))


def list_links(request):
    """GET /link: a page of links, newest first, or the one that has the URL asked for."""
    query = request.query("limit", "cursor", "link", "tag", "q", "since")
    limit = query.get("limit", ["100"])[0]
    require(re.fullmatch("[1-9][0-9]{0,2}|1000", limit), "limit must be a whole number from 1 to 1000.")
    if "link" in query:
        request.query("link", "limit")  # nothing else with it
        item = find(link_id_of(canonical(query["link"][0])))
        return reply_list(request, query, [record_of(item)] if is_live(item) else [], None)
    return reply_list(request, query, *page_of(query, int(limit)))


def post_link(request):
    """POST /link: store a link, or return the one that is there for this URL."""
    body = request.json()
    link = link_of(body)
    link_id = link_id_of(link)
    new, item = create(link_id, link, check(body, NEW))
    return reply_item(201 if new else 200, item, {"Location": request.url("link", link_id)})


def get_link(request, link_id):
    """GET /link/{link_id}: a link, or 304 if the client has it as it is."""
    return unless_seen(request, reply_item(200, live(find(link_id))))


def put_link(request, link_id):
    """PUT /link/{link_id}: store a link under a name, or replace what is there."""
    is_name = re.fullmatch(NAME, link_id)
    require(is_name, "A name has 1 to 64 letters, digits and -._~, and starts with a letter or digit.")
    body = request.json()
    link, fields = link_of(body, link_id), check(body, NEW)
    while True:
        if "if-match" in request.headers:
            item = find(link_id)
            if not is_live(item):
                raise PreconditionFailed("There is no link with this name, so If-Match cannot hold.")
        else:
            new, item = create(link_id, link, fields)
            if new:
                return reply_item(201, item, {"Location": request.url("link", link_id)})
        if request.is_seen(etag_of(item)):
            raise PreconditionFailed(f"This name is taken; the ETag of its link is {etag_of(item)}.")
        try:
            return update(request, item, {name: fields.get(name) for name in FIELDS}, link)
        except NotFound:  # it was deleted at the same moment
            pass


def patch_link(request, link_id):
    """PATCH /link/{link_id}: apply a JSON merge patch (RFC 7396) to the fields."""
    patch = request.json()
    link = link_of(patch, link_id) if "link" in patch else None
    removed = {name: None for name, value in patch.items() if value is None and name in FIELDS}
    fields = check({name: value for name, value in patch.items() if name not in removed}, FIELDS)
    return update(request, live(find(link_id)), fields | removed, link)


def delete_link(request, link_id):
    """DELETE /link/{link_id}: forget a link, but for the fact that it was deleted."""
    item = live(find(link_id))
    now = stamp()
    deleted = {name: item[name] for name in ("link_id", "link", "owner")} | now
    deleted |= {"deleted_at": now["updated_at"], "expires_at": int(time.time()) + DELETED_FOR}
    change(request, item, "PutItem", now["etag"], Item=encode_all(deleted))
    return reply(204)


def go(request, link_id):
    """GET /go/{link_id}: redirect to the link, and count the visit.

    When the count is repeated, the item is as the first attempt left it. What
    is not ASCII in the link is percent-encoded (RFC 3987, 3.1); all else stays
    as it was stored. Where reading needs a key, an id would tell anyone which
    URLs are stored: only names lead on.
    """
    if ACCESS in ("key", "iam") and re.fullmatch(ID, link_id):
        raise NotFound("There is no link with this name.")
    item = find(link_id)
    if item and not is_live(item) and not re.fullmatch(ID, link_id):
        raise Gone("This link was deleted, or has expired.")
    live(item)
    if COUNT_VISITS == "true" and request.method == "GET":
        values = {"one": 1, "visit": uuid.uuid4().hex, "at": stamp()["updated_at"]}
        expression = "SET visited_at = :at, visit = :visit ADD visits :one"
        more = {"Key": key_of(item), "UpdateExpression": expression, "ReturnValues": "ALL_NEW"}
        _, item = write("UpdateItem", TAKEN, None, values, " AND NOT visit = :visit", **more)
    return reply(302, headers={"Location": quote(record_of(live(item))["link"], string.punctuation)})


def list_visits(request, link_id):
    """GET /link/{link_id}/visits: the days on which a link was visited, and how often, as the add-on search has it."""
    query = request.query("from", "to")
    first, last = (query.get(name, [None])[0] for name in ("from", "to"))
    found = ask_addon("visits", must=True, link=record_of(live(find(link_id))), first=first, last=last)
    if not found:
        raise NotFound("Visits by day are counted by the add-on search, and this store has none.")
    return reply_list(request, query, found["values"], None)


def list_tags(request):
    """GET /tags: all tags and how many links have each; without the add-on search, or a filter, those of a page."""
    query = request.query("cursor", "tag", "q")
    cursor = query.get("cursor", [None])[0]
    if query.keys() <= {"cursor"} and not key_in(cursor, "created_at"):
        found = ask_addon("tags", cursor)
        if found:
            return reply_list(request, query, found["values"], found["cursor"])
    records, cursor = page_of(query, 1000)
    counts = Counter(tag for record in records for tag in record.get("tags", []))
    return reply_list(request, query, [{"tag": tag, "count": counts[tag]} for tag in sorted(counts)], cursor)


def feed(request):
    """GET /feed: the newest 50 links in Atom (RFC 4287), or 304 if the client has them."""
    query = request.query("tag", "q")
    records = page_of(query, 1000, newest=True)[0][:50]  # some of the newest may have expired
    asked = "?" + urlencode(query, doseq=True, quote_via=quote)
    here = escape(request.url("feed") + asked.rstrip("?"))
    updated = max((record["updated_at"] for record in records), default="1970-01-01T00:00:00Z")
    lines = [
        '<feed xmlns="http://www.w3.org/2005/Atom"><title>Links</title><author><name>apidb</name></author>',
        f'<id>urn:uuid:{uuid_of(TABLE + asked)}</id><updated>{updated}</updated><link rel="self" href="{here}"/>',
    ]
    for record in records:
        title = escape((record.get("title") or record["link"])[:512])
        tagged = [f'<category term="{escape(tag)}"/>' for tag in record.get("tags", [])]
        lines += [
            f"<entry><title>{title}</title><id>urn:uuid:{uuid_of(TABLE + record['link_id'])}</id>",
            f"<published>{record['created_at']}</published><updated>{record['updated_at']}</updated>",
            f'<link href="{escape(record["link"])}"/>{"".join(tagged)}',
            f"<summary>{escape(record.get('notes', ''))}</summary></entry>",
        ]
    body = "\n".join([*lines, "</feed>"])
    headers = {"Content-Type": "application/atom+xml", "ETag": f'"{uuid_of(body).replace("-", "")}"'}
    return unless_seen(request, reply(200, body, headers))


def index(request):
    """GET /: the URLs of the API, as templates (RFC 6570)."""
    return reply(200, to_json({path: request.url(path[1:]) for path in ROUTES}))


def health(request):
    """GET /health: the version that is deployed, if the table answers."""
    try:
        find("health")
    except Exception as failure:
        raise ServiceUnavailable from failure
    return reply(200, to_json({"version": VERSION}))


ROUTES = {
    "/": {"GET": index},
    "/link": {"GET": list_links, "POST": post_link},
    "/link/{link_id}": {"GET": get_link, "PUT": put_link, "PATCH": patch_link, "DELETE": delete_link},
    "/link/{link_id}/visits": {"GET": list_visits},
    "/go/{link_id}": {"GET": go},
    "/tags": {"GET": list_tags},
    "/feed": {"GET": feed},
    "/health": {"GET": health},
}

# --- Entry point

METRICS = [{"Name": "requests"}, {"Name": "errors"}, {"Name": "ms", "Unit": "Milliseconds"}]
METRICS = [{"Namespace": STACK, "Dimensions": [["resource"]], "Metrics": METRICS}]


def dispatch(request, route, names):
    """Return the answer of a route."""
    if route not in ROUTES:
        raise NotFound(f"There is no such path here; there are {', '.join(ROUTES)}.")
    # API Gateway may follow it after it has looked at the key, which some methods do not need.
    require("x-http-method-override" not in request.headers, "X-HTTP-Method-Override is not taken.")
    methods = ROUTES[route]
    allowed = ", ".join([*methods, "HEAD", "OPTIONS"])
    if request.method == "OPTIONS":  # of an open path; on others API Gateway answers it
        cors = {"Access-Control-Allow-Methods": allowed, "Access-Control-Allow-Headers": "*"}
        return reply(200, headers={"Allow": allowed, "Access-Control-Max-Age": "7200", **cors})
    answer = methods.get("GET" if request.method == "HEAD" else request.method)
    if not answer:
        error = MethodNotAllowed(f"{request.method} does not work here; {allowed} do.")
        error.headers = {"Allow": allowed}
        raise error
    return answer(request, *names)


def lambda_handler(event, context):
    """Answer a Lambda proxy event with a proxy response, whatever happens, and log one line.

    HEAD is GET without a body (RFC 9110, 9.3.2). CloudWatch makes metrics of
    the line, by its embedded metric format.
    """
    start, request = time.perf_counter(), Request(event)
    first, *rest = request.path
    names = rest[:1]
    route = "/".join(["", first, *("{link_id}" for _ in names), *rest[1:]])
    log = {"level": "INFO", "method": request.method, "resource": route if route in ROUTES else "unknown"}
    try:
        answer = dispatch(request, route, names)
    except Exception as failure:
        error = failure if isinstance(failure, Error) else Error()
        if error.status >= 500:
            told = traceback.format_exception(failure.__cause__ or failure)
            log |= {"level": "ERROR", "error": "".join(told)}
        answer = reply_error(request, error)
    if request.method == "HEAD":
        answer["body"] = ""
    status, ms = answer["statusCode"], round((time.perf_counter() - start) * 1000, 1)
    log |= {"status": status, "ms": ms, "request_id": request.id, "requests": 1, "errors": int(status >= 500)}
    log["_aws"] = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": METRICS}
    print(json.dumps(log, separators=(",", ":")))
    return answer


# --- Ready

try:
    call("Query", {"id": "-"}, 1, KeyConditionExpression="link_id = :id")
except Exception:  # the first request tries again, and is answered
    pass
gc.freeze()
gc.enable()
