"""The page for people of a link store: page.html, which calls the store's API from the browser.

lambda_handler() gets each request as a Lambda proxy event of API Gateway, and
returns a proxy response. The page holds no links and is the same for everyone,
so all of it is made once, at import, and so is what installs it: a service
worker, a web manifest and an icon. `make embed` copies this file, page.html and
worker.js into addons/page.yml.

STORE_URL is that of the API, such as https://host/prod/link. It goes into an
attribute of the page, so that the script, and so its hash, is that of every store.
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

# --- The page, and what installs it

STORE_URL = os.environ["STORE_URL"]
PAGE = Path(__file__).with_name("page.html").read_text().replace("STORE_URL", escape(STORE_URL))
WORKER = Path(__file__).with_name("worker.js").read_text()
MANIFEST = {
    "name": "Links",
    "start_url": "./",
    "display": "standalone",
    "icons": [{"src": "icon.svg", "sizes": "any", "type": "image/svg+xml"}],
    "share_target": {"action": "./", "params": {"title": "title", "text": "notes", "url": "link"}},
}
ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
<path fill="#1f50c8" d="M0 0h32v32H0z"/><path fill="#fff" d="M10 7h12v18l-6-5-6 5z"/></svg>
"""
CODES = re.findall("<(?:style|script)>(.*?)</", PAGE, re.S)
HASHES = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in CODES)
STORE = urlsplit(STORE_URL)
ORIGIN = f"{STORE.scheme}://{STORE.netloc}"
POLICY = f"default-src {HASHES}; connect-src {ORIGIN}; img-src 'self'; manifest-src 'self'; worker-src 'self'"
POLICY += "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

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


def file(kind, body, policy="default-src 'none'; frame-ancestors 'none'"):
    """Return the headers and the body of a file; a 304 has all of the headers too.

    Without a type API Gateway says JSON, and browsers renew what they keep by it. The entity tag is weak, as API
    Gateway may compress the body.
    """
    etag = f'W/"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'
    headers = {"Content-Security-Policy": policy, "Content-Type": kind, "ETag": etag}
    return COMMON | headers | {"Cross-Origin-Opener-Policy": "same-origin"}, body


FILES = {
    "": file("text/html; charset=utf-8", PAGE, POLICY),
    "worker.js": file("text/javascript", WORKER, f"default-src 'none'; connect-src 'self' {ORIGIN}"),
    "manifest.webmanifest": file("application/manifest+json", json.dumps(MANIFEST)),
    "icon.svg": file("image/svg+xml", ICON),
}


def is_seen(event, etag):
    """Return whether If-None-Match has an entity tag; the comparison is weak (RFC 9110, 13.1.2)."""
    headers = event["multiValueHeaders"] or {}
    given = ",".join(line for name in headers if name.lower() == "if-none-match" for line in headers[name])
    return given.strip() == "*" or etag.removeprefix("W/") in given


def answer(event):
    """Return the status, headers and body for an event."""
    method, name = event["httpMethod"], (event["pathParameters"] or {}).get("proxy", "")
    refused = COMMON | {"Allow": METHODS}
    if name in FILES and method == "OPTIONS":
        return 200, refused, ""
    if name not in FILES or method not in ("GET", "HEAD"):
        status, error = 405, f"{method} does not work here; {METHODS} do."
        if name not in FILES:
            status, error = 404, "There is no such path here; there is /."
        return status, refused, json.dumps({"Error": error, "Reference": event["requestContext"]["requestId"]}) + "\n"
    headers, body = FILES[name]
    if is_seen(event, headers["ETag"]):
        return 304, headers, ""
    return 200, headers, body if method == "GET" else ""


# --- Entry point


def lambda_handler(event, context):
    """Answer a Lambda proxy event with a proxy response, and log one line."""
    start = time.perf_counter()
    status, headers, body = answer(event)
    ms = round((time.perf_counter() - start) * 1000, 1)
    log = {"level": "INFO", "method": event["httpMethod"], "resource": event["resource"], "status": status, "ms": ms}
    print(json.dumps(log | {"request_id": event["requestContext"]["requestId"]}, separators=(",", ":")))
    return {"statusCode": status, "headers": headers, "body": body}
