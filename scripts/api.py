"""Talk to the API of a link store.

    send = client(api)                      # the API's URL ends in /link; a key is in APIDB_KEY
    for page in pages(send): ...            # all links, newest first: lists of records
    store(send, record)                     # ADDED, THERE, or why it is refused
    change(send, link_id, patch_of)         # CHANGED, SAME, GONE, or why it is refused
    send("GET", "/home").value              # any other request, below the API's URL

Each of them raises Stop, a sentence for the person, if the API does not work:
then there is no point in going on. They may be called by several threads.
"""

import json
import logging
import os
import re
from types import SimpleNamespace

import urllib3

from aws import signer
from program import WORKERS, Stop
from record import TAGS, canonical, name_of

# A POST, a PUT of a new name, and what has If-Match may be sent twice: what the API has stored stays as it is.
RETRY = urllib3.Retry(
    total=None,
    connect=5,
    read=5,
    other=5,
    status=30,  # Retry-After is 1 s, and all workers wait for a throttled API
    status_forcelist=[429, 502, 503, 504],
    allowed_methods=None,  # all
    raise_on_status=False,
    backoff_factor=0.2,
    backoff_max=10,
    backoff_jitter=0.2,
    retry_after_max=60,
)
TIMEOUT = urllib3.Timeout(connect=10, read=40)  # API Gateway waits 29 s

TOO_LARGE = "With all its fields this is larger than the API takes."
LISTLESS = "it is not a link store, or not at this URL; that of a store ends in /link."


def connect(url, signed=False, key=""):
    """Return a function that sends a request (method, path or query below the URL, body, headers).

    It returns the urllib3 response, whatever that is; Stop if none comes.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # each retry would be a warning
    pool = urllib3.PoolManager(maxsize=WORKERS, retries=RETRY, timeout=TIMEOUT)
    common = {"Accept": "application/json", "Content-Type": "application/json"}  # of each request
    try:
        at = urllib3.util.parse_url(url)
    except urllib3.exceptions.LocationParseError:
        at = urllib3.util.Url()
    if at.scheme not in ("http", "https") or not at.host:
        raise Stop(f"The API must be a URL that starts with http:// or https://, not {url}")
    if at.host.endswith(".localhost"):  # is loopback (RFC 6761, 6.3), but not every system resolves it
        common["Host"] = at.netloc
        at = at._replace(host="127.0.0.1")
    base = at._replace(query=None, fragment=None).url
    sign = signer(url) if signed else None

    def send(method, path="", body=None, headers={}):
        body = body and json.dumps(body).encode()
        headers = common | headers
        if sign:  # once for all attempts: API Gateway takes a signature for five minutes
            headers = sign(method, base + path, body, headers)
        if key:  # is not signed: API Gateway's answer to a wrong signature repeats what should have been
            headers["x-api-key"] = key
        try:
            return pool.request(method, base + path, body=body, headers=headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            cause = getattr(error, "reason", None) or error
            raise Stop(f"The API at {url} cannot be reached: {cause}") from None

    return send


def client(api, signed=False):
    """Return a function that sends a request (method, path or query below the API, body, headers).

    It returns the response, with JSON, if that is about this one request: a
    status below 300, or 400, 404, 409, 412 and 413, the last of which may be
    without JSON. Stop for another.
    """
    key = os.environ.get("APIDB_KEY", "")
    if not re.fullmatch("[!-~]*", key):
        raise Stop("APIDB_KEY has a blank or another character that no key has: set it to the key, and nothing else.")
    ask = connect(api.rstrip("/"), signed, key)

    def send(*request):
        answer = ask(*request)
        try:
            value = answer.json()
            sentence = str(value["Error"]) if answer.status >= 300 else ""
        except (ValueError, LookupError, TypeError):
            # What is before an API says these in its own words, or without any.
            if answer.status not in (413, *RETRY.status_forcelist):
                raise Stop(
                    f"What answers at {api} is not a link store: it said {answer.status} {answer.reason}."
                    " Take the URL that `make run` or `make deploy` prints; it ends in /link."
                ) from None
            value, sentence = None, TOO_LARGE if answer.status == 413 else "It is busy or down; try again later."
        if answer.status == 403:
            raise Stop(f"The API at {api} answered 403: {first_line(sentence)} {way_in(sentence, signed, key)}")
        if answer.status == 405:
            raise Stop(f"{api} is not the URL of an API, which `make run` and `make deploy` print; it ends in /link.")
        if answer.status >= 300 and answer.status not in (400, 404, 409, 412, 413):
            raise Stop(f"The API at {api} answered {answer.status}: {sentence}")
        return SimpleNamespace(status=answer.status, headers=answer.headers, value=value, sentence=sentence)

    return send


def first_line(sentence):
    return f"{sentence}.".splitlines()[0].rstrip(".") + "."


def way_in(sentence, signed, key):
    """Return what to do about a 403, of which API Gateway says this."""
    about_signature = re.search("(?i)token|signature|credential|denied|not authorized", sentence)
    if about_signature or (signed and "API_KEY" not in sentence):
        if signed:
            return "The AWS credentials must be those of a user or role that may execute-api:Invoke it."
        return "It wants signed requests: add SIGN=1, which signs them with your AWS credentials."
    if key:
        return "It does not take the key in the environment variable APIDB_KEY."
    return "It wants a key: put it into the environment with export APIDB_KEY=..., and run this again."


def following(answer):
    """Return the query of the next page, on the host and path of this one, or None."""
    found = re.search(r'<[^>?]*(\?[^>]*)>; rel="?next', answer.headers.get("Link", ""))
    return found and found[1]


def pages(send):
    """Yield the pages of all links, newest first: lists of records."""
    query = "?limit=1000"
    while query is not None:
        answer = send("GET", query)
        if not isinstance(answer.value, list):
            raise Stop(f"The API did not list its links: {answer.sentence or LISTLESS}")
        yield answer.value
        query = following(answer)


ADDED, CHANGED, THERE = "added", "changed", "there already"
SAME, GONE = "as it was", "gone"


def store(send, record, merge=False):
    """Store a link; return ADDED, THERE, or why it is refused. Stop if the API does not work.

    `record` has `link` and what FIELDS of it there are, and `link_id` if it has a name. What is there is not
    changed, but with `merge`: then it gets what it lacks of title, notes and tags, which is CHANGED.
    """
    name = name_of(record)
    body = {field: value for field, value in record.items() if field != "link_id"}
    if name is None:
        answer = send("POST", "", body)
    else:
        answer = send("PUT", f"/{name}", body, {"If-None-Match": "*"})
    there = answer.value
    if answer.status == 412:  # also when the answer to what stored it was lost
        there = send("GET", f"/{name}").value
        if there.get("link") != canonical(record["link"]):
            return f"the name {name} is taken."
    elif answer.status == 404:
        raise Stop(f"The API has no such path: {answer.sentence}")
    elif answer.sentence or answer.status == 201:
        return answer.sentence or ADDED
    if not merge or not lacking(there, record):
        return THERE
    outcome = change(send, there["link_id"], lambda now: lacking(now, record))
    return {SAME: THERE, GONE: "it was deleted at the same moment."}.get(outcome, outcome)


def lacking(there, record):
    """Return a patch with what a record has of title, notes and tags, and the one that is there has not.

    Tags are as many as there may be.
    """
    patch = {name: record[name] for name in ("title", "notes") if record.get(name) and not there.get(name)}
    tags = there.get("tags", [])
    more = [tag for tag in record.get("tags", []) if tag not in tags][: TAGS - len(tags)]
    return patch | ({"tags": tags + more} if more else {})


def change(send, link_id, patch_of):
    """Change a link; return CHANGED, SAME, GONE, or why it is refused. Stop if the API does not work.

    patch_of(record) returns a JSON merge patch, as PATCH takes it, or {} to leave the link as it is. What
    somebody else changes at the same time is not overwritten: the link is read again, and patch_of asked again.
    """
    while True:
        there = send("GET", f"/{link_id}")
        if there.status == 404:
            return GONE
        if there.sentence:
            return there.sentence
        patch = patch_of(there.value)
        if not patch:
            return SAME
        answer = send("PATCH", f"/{link_id}", patch, {"If-Match": there.headers["ETag"]})
        if answer.status == 404:
            return GONE
        if answer.status != 412:  # which is also the answer to what was sent twice, as the first was lost
            return answer.sentence or CHANGED


def anyone_reads(api):
    """Return whether the links of an API are there for anyone who asks, without a key or a signature."""
    return connect(api.rstrip("/"))("GET", "?limit=1").status == 200
