"""One life of a function as Lambda leads it: import a handler, answer requests, say what each took.

Usage: worker.py FILE NAME EVENTS RESULT START. The handler is NAME in FILE.
EVENTS is a JSON file with a POST, whose body has a number in it, and a list.
START is what time.monotonic() gave before this process was started. RESULT
gets, as JSON, seconds: `cold`, from the start to the first answer, and
`first`, of the first request alone, each as CPU and wall; CPU of each `post`
and `list`; the bytes of `log` a request, and the last answer, `listed`.
What the handler logs goes to stdout and stderr, as on Lambda.
"""

import importlib.util
import json
import os
import sys
import time
from types import SimpleNamespace

POSTS, LISTS = 100, 20
CONTEXT = SimpleNamespace(
    function_name="links",
    memory_limit_in_mb=256,
    invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:links",
    aws_request_id="0b1c6d2e-5f70-4a3b-9c8d-7e6f5a4b3c2d",
)


def imported(path, name):
    spec = importlib.util.spec_from_file_location("index", path)
    module = sys.modules["index"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def clocks():
    return time.process_time(), time.monotonic()


def timed(handler, event):
    """Return the CPU time of a request, its wall time and its answer, which must be a success."""
    cpu, wall = clocks()
    answer = handler(event, CONTEXT)
    used, passed = clocks()
    assert answer["statusCode"] in (200, 201), answer
    return used - cpu, passed - wall, answer


def main(path, name, events, result, start):
    handler = imported(path, name)
    with open(events) as file:
        post, listing = json.load(file)
    posts = [post | {"body": post["body"] % number} for number in range(POSTS)]
    *first, _ = timed(handler, posts[0])
    cpu, wall = clocks()
    before = os.fstat(1).st_size
    post = [timed(handler, event)[0] for event in posts[1:]]
    log = (os.fstat(1).st_size - before) / len(post)
    lists = [timed(handler, listing) for _ in range(LISTS)]
    figures = {"cold": (cpu, wall - float(start)), "first": first, "post": post}
    figures |= {"list": [cpu for cpu, _, _ in lists], "log": log, "listed": lists[-1][2]["body"]}
    with open(result, "w") as file:
        json.dump(figures, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
