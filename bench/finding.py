"""Find 1,000 links of a tag, and of a word, among many on the local engine, and print what that takes, in Markdown.

The store and the add-on search are deployed from their templates, with IAM
enforced, and asked over HTTP. Links are written into the table at once, and of
the index what the 1,000 links have, with the mark that all is in it; the
function is taken off the stream before. The engine's times say nothing of AWS.
"""

import argparse
import contextlib
import io
import json
import os
import socket
import sys
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from unittest import mock

import boto3

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import addons  # noqa: E402 it is in scripts/
import api  # noqa: E402
import local  # noqa: E402
import reindex  # noqa: E402
import stack  # noqa: E402
from record import handler, rfc3339  # noqa: E402
from reindex import search  # noqa: E402

FOUND = 1000
START = datetime(2020, 1, 1, tzinfo=timezone.utc)  # of the first link; the others follow, one each minute
STORE = "apidb"


def link_of(number, found):
    """Return the item of a link as the handler stores it; one that is to be found has a tag and a word more."""
    link, when = f"https://example.com/{number:060}", rfc3339(START + timedelta(minutes=number))
    tags = [f"topic-{(number + each) % 50:02}" for each in range(3)]
    title = f"{number:060}"
    if found:
        tags, title = [*tags, "needle"], title[:-7] + " needle"
    item = {"link_id": handler.link_id_of(link), "link": link, "owner": handler.OWNER, "created_at": when}
    return item | {"updated_at": when, "etag": f"{number:032x}", "title": title, "tags": tags}


def fill(table, index, count):
    """Write so many links, of which each `count / FOUND`th is to be found, and the entries of these."""
    with table.batch_writer() as links, index.batch_writer() as entries:
        for number in range(count):
            found = number % (count // FOUND) == 0
            link = link_of(number, found)
            links.put_item(Item=link)
            for term, place in search.entries_of(link) if found else ():
                entries.put_item(Item={"term": term, "place": place, "link": link["link"]})
        entries.put_item(Item={"term": search.MADE, "place": search.MADE})


def asked(send, query):
    """Return how many requests it takes to walk through a query, and the ids that are found, in their order."""
    requests, ids, path = 0, [], f"?{query}"
    while path:
        answer = send("GET", path)
        ids += [record["link_id"] for record in answer.value]
        path, requests = api.following(answer), requests + 1
    return requests, ids


def measured(count):
    """Yield a row for each query among so many links on the engine of the environment."""
    with contextlib.redirect_stdout(io.StringIO()):
        url = addons.deploy(STORE, ROOT / "setupapidb.yml", ["search"], {}, presets=local.NEVER_THROTTLED)["APIUrl"]
    client = boto3.client("cloudformation")
    ids = {name: reindex.ids_of(client, stack.describe(client, name)) for name in (STORE, f"{STORE}-search")}
    index, dynamodb = ids[f"{STORE}-search"], boto3.resource("dynamodb")
    reindex.follow(boto3.client("lambda"), index["Mapping"], False)
    fill(dynamodb.Table(ids[STORE]["Table"]), dynamodb.Table(index["Index"]), count)
    send = api.client(stack.reachable(url, client.meta.endpoint_url))
    wanted = [link_of(number, True)["link_id"] for number in range(0, count, count // FOUND)][::-1]
    for query in ("tag=needle", "q=needle", "tag=needle&q=example"):
        requests, found = asked(send, query)
        if found != wanted:
            wrong = Counter(wanted)
            wrong.subtract(found)
            sys.exit(f"{query} finds {len(found)} links of {FOUND}, or not in order: {json.dumps(wrong)[:300]}")
        yield f"| `?{query}` | {count:,} | {requests} | {len(found):,} |"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("links", type=int, nargs="*", default=[10_000], help=f"how many, from {FOUND} on (10000)")
    options = parser.parse_args()
    print("| Asked for | Links in the store | Requests | Links found |\n|---|--:|--:|--:|")
    for count in options.links:
        with local.engine(free_port()) as running, mock.patch.dict(os.environ, running.settings, clear=True):
            for row in measured(count):
                print(row, flush=True)


if __name__ == "__main__":
    main()
