"""What the functions of stacks/ share: errors, checks, requests and answers of API Gateway, entity tags, pages.

`make embed` puts into a template what its function imports from here, with all
that that needs, and nothing else. The link store shares none of it: it starts
sooner without the SDK's client, answers in HTML and metrics too, and its one
file is there to be read alone.
"""

import json
import os
import re
import time
import traceback
import uuid
from datetime import datetime, timezone
from urllib.parse import unquote

import boto3
from boto3.dynamodb.conditions import Attr
from boto3.dynamodb.types import TypeDeserializer
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

# --- Settings

# Three attempts of at most 3 s, and the waits between; the function has 25 s.
config = Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard"})
table = boto3.resource("dynamodb", config=config).Table(os.environ["TABLE"])

# --- Errors


class Error(Exception):
    """An answer other than success: a status, a sentence, and maybe headers."""

    def __init__(self, status, sentence, headers={}):
        super().__init__(sentence)
        self.status, self.headers = status, headers


def require(holds, sentence):
    """Raise an Error, 400 with this sentence, if something does not hold."""
    if not holds:
        raise Error(400, sentence)


def found(what, there):
    """Return what is there; Error 404 if that is nothing."""
    if not there:
        raise Error(404, f"There is no {what} with this id.")
    return there


PASSING = "Throttling|Throughput|RequestLimit|Transaction"


def error_of(failure):
    """Return the Error that a client is told of whatever was raised: 503 if it passes by itself, else 500.

    What passes is no answer, 5xx and PASSING (DynamoDB Developer Guide, "Error handling with DynamoDB").
    """
    if isinstance(failure, Error):
        return failure
    passes = isinstance(failure, BotoCoreError)
    if isinstance(failure, ClientError):
        told = failure.response
        passes = told["ResponseMetadata"]["HTTPStatusCode"] >= 500 or re.search(PASSING, told["Error"]["Code"])
    if passes:
        return Error(503, "The table is busy; try again soon.", {"Retry-After": "1"})
    return Error(500, "Something went wrong here; the log has it under the reference.")


# --- Checks of what comes in


def text(name, value, most):
    """Return text that is not blank, without what UTF-8 cannot hold; tabs and ends of lines are fine."""
    bad = "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]"
    fits = isinstance(value, str) and value.strip() and len(value) <= most and not re.search(bad, value)
    require(fits, f"{name} must be a string of 1 to {most} characters, not blank, without control characters.")
    return value


def number(name, value, most):
    """Return a whole number from 1."""
    require(type(value) is int and 1 <= value <= most, f"{name} must be a whole number from 1 to {most}.")
    return value


def check(given, fields, needed=()):
    """Return the members of a body that are given or needed as they are to be stored.

    `fields` has for each its rule and its limit. A rule raises Error 400 for
    what does not fit, such as the None of a member that is not there.
    """
    for name in given:
        require(name in fields, f"{name[:64]!r} cannot be set; {', '.join(fields)} can.")
    names = [name for name in fields if name in given or name in needed]
    return {name: fields[name][0](name, given.get(name), fields[name][1]) for name in names}


# --- Requests


class Request:
    """What a Lambda proxy event of API Gateway says of a request; header lines of one name are one (RFC 9110, 5.3)."""

    def __init__(self, event):
        context, lines = event["requestContext"], event["multiValueHeaders"] or {}
        self.event, self.method, self.id = event, event["httpMethod"], context["requestId"]
        self.headers = headers = {name.lower(): ", ".join(values) for name, values in lines.items()}
        self.path = "/" + unquote(event["pathParameters"]["proxy"]).strip("/")
        self.url = f"{headers.get('x-forwarded-proto', 'http')}://{headers.get('host')}{context['path']}".rstrip("/")

    def json(self):
        """Return the JSON object in the body, whatever its Content-Type."""
        try:
            value = json.loads(self.event["body"] or "")
        except (ValueError, RecursionError):
            value = None
        require(isinstance(value, dict), "The body must be a JSON object.")
        return value

    def page(self, cursor):
        """Return how many items a page may have, and the match of the cursor with this pattern, None for the first."""
        given = {"limit": ["100"], "cursor": [""]} | (self.event["multiValueQueryStringParameters"] or {})
        fits = len(given) == 2 and len(given["limit"]) == len(given["cursor"]) == 1
        require(fits, "The query may have limit and cursor, each once.")
        limit, start = given["limit"][0], re.fullmatch(cursor, given["cursor"][0])
        require(re.fullmatch("[1-9][0-9]{0,2}|1000", limit), "limit must be a whole number from 1 to 1000.")
        require(start or given["cursor"] == [""], "cursor must be one from a Link header.")
        return int(limit), start


# --- Answers

HEADERS = {
    "Access-Control-Allow-Origin": os.environ["ALLOWED_ORIGIN"],
    "Access-Control-Expose-Headers": "ETag, Link, Location",
    "Cache-Control": "no-cache",
    "Content-Type": "application/json",
    "X-Content-Type-Options": "nosniff",
}


def reply(status, body="", headers={}):
    return {"statusCode": status, "headers": HEADERS | headers, "body": body and body + "\n"}


def to_json(value):
    """Return a value as JSON; the numbers of DynamoDB are whole ones."""
    return json.dumps(value, default=int, ensure_ascii=False)


def reply_item(request, status, record, etag, headers={}):
    """Return a record with its entity tag; for a GET of what the client has already, 304 (RFC 9110, 13.1.2)."""
    headers = {"ETag": f'"{etag}"'} | headers
    seen = request.headers.get("if-none-match", "")
    if request.method in ("GET", "HEAD") and (etag in seen or seen == "*"):
        return reply(304, headers=headers)
    return reply(status, to_json(record), headers)


def reply_list(request, records, limit, cursor):
    """Return a JSON array, a line for each record, with a link to the next page if there is a cursor."""
    headers = {"Link": f'<{request.url}?limit={limit}&cursor={cursor}>; rel="next"'} if cursor else {}
    return reply(200, "[" + ",\n".join(map(to_json, records)) + "]", headers)


# --- Storage

ID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # a UUID, as uuid writes it


def now():
    """Return the time in UTC as a record has it (RFC 3339)."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def uuid7():
    """Return a UUID whose text sorts by time (RFC 9562, 5.7 and 6.2, method 3); Python has one from 3.14 on."""
    milliseconds, rest = divmod(time.time_ns(), 10**6)
    return str(uuid.UUID(f"{milliseconds:012x}7{rest * 4096 // 10**6:03x}{uuid.uuid4().hex[16:]}"))


def new(item):
    """Return an item as it is to be stored first."""
    moment = now()
    return item | {"createdAt": moment, "updatedAt": moment, "etag": uuid.uuid4().hex}


def if_match(request):
    """Return the condition of a write that an item is there, and has an entity tag of If-Match, if that is sent.

    A weak tag never matches (RFC 9110, 13.1.1).
    """
    given = request.headers.get("if-match", "*")
    if given.strip() == "*":
        return Attr("etag").exists()
    tags = re.findall(r'(?<!W/)"([^"]*)"', given)
    require(len(tags) <= 100, "If-Match may have at most 100 entity tags.")  # what IN takes
    return Attr("etag").is_in(tags or ["none"])


def write(operation, etag, condition, **request):
    """Do a conditional write, such as table.put_item, that leaves an item with this etag, or None for no item.

    Return whether it is done, and the item as the operation returns it, or else
    the one that is there, {} for none. When an answer is lost the SDK writes
    again, and fails on what it did before; that is done.
    """
    request |= {"ConditionExpression": condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    try:
        return True, operation(**request).get("Attributes", {})
    except table.meta.client.exceptions.ConditionalCheckFailedException as failure:
        there = failure.response.get("Item", {})  # in DynamoDB's JSON, with the type of each value
        item = {name: TypeDeserializer().deserialize(value) for name, value in there.items()}
        repeated = failure.response["ResponseMetadata"]["RetryAttempts"] > 0
        return repeated and item.get("etag") == etag, item


def update(key, condition, values):
    """Set these attributes of an item, or remove those that are None, if the condition holds; see write()."""
    values = values | {"updatedAt": now(), "etag": uuid.uuid4().hex}
    kept = {name: value for name, value in values.items() if value is not None}
    expression = "SET " + ", ".join(f"#{name} = :{name}" for name in kept)
    if len(kept) < len(values):
        expression += " REMOVE " + ", ".join(f"#{name}" for name in values if name not in kept)
    request = {"Key": key, "UpdateExpression": expression, "ReturnValues": "ALL_NEW"}
    request["ExpressionAttributeNames"] = {f"#{name}": name for name in values}
    request["ExpressionAttributeValues"] = {f":{name}": value for name, value in kept.items()}
    return write(table.update_item, values["etag"], condition, **request)


def changed(what, done, item):
    """Return the item of a write() under if_match() that is done; Error 404 for no item, 412 for another entity tag."""
    found(what, done or item)
    if not done:
        etag = item["etag"]
        raise Error(412, f'If-Match does not hold; the ETag is "{etag}".')
    return item


# --- Entry point


def dispatch(request, methods, names):
    """Return the answer of the method of a route. HEAD is GET without a body (RFC 9110, 9.3.2).

    No method is taken from a header: API Gateway may do that after it has looked for a signature, which OPTIONS does
    not need. A page may send all headers; * does not stand for Authorization (Fetch, "CORS non-wildcard
    request-header name").
    """
    require("x-http-method-override" not in request.headers, "X-HTTP-Method-Override is not taken.")
    allowed = ", ".join([*methods, *["HEAD"] * ("GET" in methods), "OPTIONS"])
    if request.method == "OPTIONS":
        cors = {"Access-Control-Allow-Methods": allowed, "Access-Control-Allow-Headers": "*, Authorization"}
        return reply(200, headers={"Allow": allowed, "Access-Control-Max-Age": "7200", **cors})
    answer = methods.get("GET" if request.method == "HEAD" else request.method)
    if not answer:
        raise Error(405, f"{request.method} does not work here; {allowed} do.", {"Allow": allowed})
    return answer(request, *names)


def respond(event, routes):
    """Answer a Lambda proxy event with a proxy response, whatever happens, and log one line.

    `routes` has the methods of each path, such as /pets/{id}, and for each a
    function that takes a Request and the parts of the path that stand for {id}.
    """
    start, request = time.perf_counter(), Request(event)
    log = {"level": "INFO", "method": request.method}
    try:
        for route, methods in routes.items():
            match = re.fullmatch(re.sub(r"\{\w+\}", "([^/]+)", route), request.path)
            if match:
                log["resource"] = route
                answer = dispatch(request, methods, match.groups())
                break
        else:
            raise Error(404, f"There is no such path here; there are {', '.join(routes)}.")
    except Exception as failure:
        error = error_of(failure)
        if error.status >= 500:
            log |= {"level": "ERROR", "error": traceback.format_exc()}
        answer = reply(error.status, to_json({"Error": str(error), "Reference": request.id}), error.headers)
    if request.method == "HEAD":
        answer["body"] = ""
    ms = round((time.perf_counter() - start) * 1000, 1)
    print(json.dumps(log | {"status": answer["statusCode"], "ms": ms, "request_id": request.id}))
    return answer
