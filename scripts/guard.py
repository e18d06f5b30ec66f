"""Run the local engine, ministack, behind a guard against web pages, and save what it holds while it runs.

By itself the engine takes any signature in a query, and looks at neither Host nor
Origin, so that every page in a browser on this machine could run code on it.
scripts/local.py starts this in its place, with the engine's own settings.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import sys
from urllib.parse import parse_qs

import ministack.app as engine
from ministack.core.persistence import PERSIST_STATE, save_all
from ministack.services import apigateway_v1

# --- What may pass

# As the engine's router has it, letter by letter: of any other host it goes by headers and query instead.
API_HOST = re.compile(r"([a-f0-9]{8})\.execute-api\.localhost(?::\d+)?")
OWN_HOST = re.compile(r"(?:127\.0\.0\.1|localhost)(?::\d+)?", re.IGNORECASE)

# Where the engine has each API at its own host, too, as the router has it.
ALIAS = re.compile(r"/restapis/([a-f0-9]{8})/([^/]+)/_user_request_(?:/|$)")

# How paths begin that the router takes for services of its own before it looks for an API.
RESERVED = re.compile(
    r"_.*|health|log(?:in|out)|oauth2|v2|v20180820|iceberg.*|WriteGetObjectResponse"
    r"|(?:Batch)?Execute(?:Statement)?|(?:Begin|Commit|Rollback)Transaction"
)


def refusal(scope):
    """Return why a request must not reach the engine, as a sentence; None if it may.

    `scope` is ASGI's, of HTTP or a WebSocket.
    """
    headers = [(name.lower(), value.decode("latin-1")) for name, value in scope["headers"]]
    hosts = [value for name, value in headers if name == b"host"]
    host = hosts[0] if len(hosts) == 1 else ""
    if is_for_an_api(scope, host):
        return None
    # A page whose own name was made to lead here sends that name.
    if not OWN_HOST.fullmatch(host):
        return (
            "The local engine answers at http://127.0.0.1 and http://localhost, and each API that is deployed"
            " at its own URL; make status prints the URL of yours."
        )
    # A page of this origin may read on below an alias, but not use the engine: it may be a file that somebody stored.
    alias = ALIAS.match(scope["path"])
    known = {"none", "same-origin"} if alias and is_deployed(*alias.groups()) else {"none"}
    sites = [value for name, value in headers if name == b"sec-fetch-site"]
    if any(name == b"origin" for name, _ in headers) or not known.issuperset(sites):
        return (
            "No web page may use the local engine, but only an API at its own URL: make status prints the URL of yours."
        )
    # A link in a mail is opened as if the person had typed it.
    if sites and "Action" in parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        return "A browser may not call actions of the local engine: use the AWS CLI, with --endpoint-url."
    return None


def is_for_an_api(scope, host):
    """Tell whether the router can only take this for a request to a REST API that is deployed."""
    api, segments = API_HOST.fullmatch(host), scope["path"].split("/")
    if scope["type"] != "http" or not api or segments[0] or len(segments) < 2 or RESERVED.fullmatch(segments[1]):
        return False
    return is_deployed(api[1], segments[1])


def is_deployed(api, stage):
    """Tell whether there is a REST API of this ID with a stage of this name."""
    return stage in apigateway_v1.stages_for_api(api)


async def refuse(scope, send, sentence):
    """Answer 403 with this sentence, as JSON."""
    kind = "websocket.http" if scope["type"] == "websocket" else "http"
    body = json.dumps({"message": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": f"{kind}.response.start", "status": 403, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": body})


# --- Saving

LONGEST_SAVE = 50  # seconds; less than the server waits for the engine's end


def deploys():
    """Tell whether CloudFormation works on a stack: saved so, it would never become complete."""
    cloudformation = sys.modules.get("ministack.services.cloudformation")
    states = [each.get("StackStatus", "") for each in cloudformation._stacks.all_values()] if cloudformation else []
    return any(state.endswith("_IN_PROGRESS") and state != "REVIEW_IN_PROGRESS" for state in states)


def begin_to_save():
    """Save all that the engine holds in a process of its own; return its ID.

    That has the state of this moment, however long it takes to write it, while this
    one goes on to serve. It ends with 0 if all is written; OSError if it cannot begin.
    """
    if child := os.fork():
        return child
    failures = []
    try:
        signal.set_wakeup_fd(-1)
        os.closerange(3, 65536)  # or connections that the engine ends would stay open
        logging.getLogger("persistence").addFilter(lambda record: failures.append(record) or True)
        save_all(engine._build_persistence_save_dict())
        os._exit(1 if failures else 0)
    finally:
        os._exit(1)


async def end_of(child):
    """Return the exit status of a process when it has ended."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        await asyncio.sleep(0.05)


async def save():
    """Save all that the engine holds; return whether that worked. What was saved before stays if not."""
    try:
        child = begin_to_save()
    except OSError:
        return False
    status = None
    try:
        status = await asyncio.wait_for(end_of(child), LONGEST_SAVE)
    except TimeoutError:
        logging.error("A save took more than %s s, and was given up.", LONGEST_SAVE)
    finally:
        if status is None:
            # The engine's own save at the end writes to the same files.
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
    return status == 0


def read_streams_from_their_beginning():
    """Let functions follow what changes from now on: the engine saves how far a stream was read, but not the stream."""
    if functions := sys.modules.get("ministack.services.lambda_svc"):
        functions._dynamodb_stream_positions.clear()


class Guard:
    """The engine as an ASGI application that refuses web pages, and saves its state every `seconds`."""

    def __init__(self, app, seconds):
        self.app, self.seconds, self.unsaved = app, seconds, 0

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.live(scope, receive, send)
        elif sentence := refusal(scope):
            await refuse(scope, send, sentence)
        else:
            try:
                await self.app(scope, receive, send)
            finally:
                # Not before: a save in the meantime may have been too early for it.
                self.unsaved += scope.get("method") not in ("GET", "HEAD", "OPTIONS")

    async def live(self, scope, receive, send):
        """Run the engine from its start to its end, and save until the end begins."""
        saving = asyncio.create_task(self.save_again_and_again())

        async def receive_and_stop():
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                saving.cancel()
                await asyncio.wait({saving})
            return message

        async def start_and_send(message):
            if message["type"] == "lifespan.startup.complete":  # and what was saved is there
                read_streams_from_their_beginning()
            await send(message)

        await self.app(scope, receive_and_stop, start_and_send)

    async def save_again_and_again(self):
        while PERSIST_STATE:
            await asyncio.sleep(self.seconds)
            if self.unsaved and not deploys():
                writes, self.unsaved = self.unsaved, 0
                if not await save():
                    self.unsaved += writes


def main():
    engine.app = Guard(engine.app, float(os.environ["SAVE_SECONDS"]))
    engine.main()


if __name__ == "__main__":
    main()
