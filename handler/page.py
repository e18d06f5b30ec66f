"""The page for people of a link store: page.html, which calls the store's API from the browser.

lambda_handler() gets each request as a Lambda proxy event of API Gateway, and
returns a proxy response. The page holds no links and is the same for everyone,
so all of it is made once, at import. `make embed` copies this file and
page.html into addons/page.yml.
"""

import base64
import hashlib
import json
import os
import re
import time
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

# --- The page

STORE_URL = os.environ["STORE_URL"]  # of the API, such as https://host/prod/link
PAGE = Path(__file__).with_name("page.html").read_text()  # `make embed` puts its text here
# It goes into an attribute, so that the script, and so its hash, is that of every store.
PAGE = PAGE.replace("STORE_URL", escape(STORE_URL))
ETAG = f'W/"{hashlib.sha256(PAGE.encode()).hexdigest()[:32]}"'  # weak: API Gateway may compress the page


def csp_hash(code):
    """Return what a Content-Security-Policy calls a piece of code of the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


HASHES = " ".join(map(csp_hash, re.findall("<(?:style|script)>(.*?)</", PAGE, re.S)))
STORE = urlsplit(STORE_URL)
POLICY = [
    f"default-src {HASHES}",
    f"connect-src {STORE.scheme}://{STORE.netloc}",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
]

# --- Requests and answers

METHODS = "GET, HEAD, OPTIONS"
COMMON = {
    "Cache-Control": "no-cache",
    "Content-Type": "application/json",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# A 304 has all of them too: without a type API Gateway says JSON, and browsers renew what they keep by it.
HTML = COMMON | {
    "Content-Security-Policy": "; ".join(POLICY),
    "Content-Type": "text/html; charset=utf-8",
    "Cross-Origin-Opener-Policy": "same-origin",
    "ETag": ETAG,
}


def is_seen(event):
    """Return whether If-None-Match has the page's entity tag; the comparison is weak (RFC 9110, 13.1.2)."""
    given = event["multiValueHeaders"] or {}
    lines = [line for name, lines in given.items() if name.lower() == "if-none-match" for line in lines]
    seen = [etag.strip().removeprefix("W/") for etag in ",".join(lines).split(",")]
    return "*" in seen or ETAG.removeprefix("W/") in seen


def answer(event):
    """Return the status, headers and body for an event."""
    method = event["httpMethod"]
    if method == "OPTIONS":
        return 200, COMMON | {"Allow": METHODS}, ""
    if method not in ("GET", "HEAD"):
        error = f"{method} does not work here; {METHODS} do."
        body = json.dumps({"Error": error, "Reference": event["requestContext"]["requestId"]})
        return 405, COMMON | {"Allow": METHODS}, body + "\n"
    if is_seen(event):
        return 304, HTML, ""
    return 200, HTML, PAGE if method == "GET" else ""


# --- Entry point


def lambda_handler(event, context):
    """Answer a Lambda proxy event with a proxy response, and log one line."""
    start = time.perf_counter()
    status, headers, body = answer(event)
    ms = round((time.perf_counter() - start) * 1000, 1)
    log = {"level": "INFO", "method": event["httpMethod"], "resource": "/", "status": status, "ms": ms}
    print(json.dumps(log | {"request_id": event["requestContext"]["requestId"]}, separators=(",", ":")))
    return {"statusCode": status, "headers": headers, "body": body}
