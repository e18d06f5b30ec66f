"""Where an import reads from: a file, a table, or the URL at which another API lists its links."""

import json
import re
from itertools import chain
from pathlib import Path

from api import connect, following
from aws import TABLE, record_of, scan
from program import Stop
from reading import read_text

LISTS = "it must be the URL at which an API lists its links"


def read(path):
    """Yield (line, record) or (line, what is wrong) of a file in any of the forms; Stop if it has none.

    It may also be a table, dynamodb:TABLE, or a URL.
    """
    if path.startswith(TABLE):
        return read_items(path, chain.from_iterable(scan(path.removeprefix(TABLE))))
    if re.match("(?i)https?://", path):
        return read_url(path)
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")
    return read_text(path, text)


def read_items(source, items):
    """Read what a table or an API has, by link_id, or by number where there is none.

    Items with a created_at are of an apidb; other link_ids are random, and not kept.
    """
    dropped = False
    for number, item in enumerate(items, 1):
        item = {"link": item} if isinstance(item, str) else item
        if not isinstance(item, dict):
            yield number, "This is not a JSON object."
            continue
        record = record_of(item)
        place = record.get("link_id", number)
        if "created_at" not in record:
            dropped = record.pop("link_id", None) is not None or dropped
        yield place, record
    if dropped:
        print(f"The link_ids of {source} are not kept: each link gets the id that belongs to its URL.")


def read_url(url):
    """Read what a URL answers: the list of an apidb, page by page, or one as tutorials make it."""
    items, complete = [], True
    for value in answers(url):
        while isinstance(value, str) or (isinstance(value, dict) and "body" in value):
            value = from_json(url, value) if isinstance(value, str) else value["body"]
        if isinstance(value, dict) and "LastEvaluatedKey" in value:
            complete = False
        found = value.get("Items") if isinstance(value, dict) else value
        if not isinstance(found, list):
            raise Stop(f"{url} does not answer with a list: {LISTS}.")
        items += found
    yield from read_items(url, items)
    if not complete:  # a Scan ends after 1 MB, which tutorials do not mind
        yield "LastEvaluatedKey", f"The API does not list all links. Read its table instead: FILE={TABLE}NAME"


def from_json(url, text):
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Stop(f"{url} does not answer with JSON: {LISTS}.") from None


def answers(url):
    """Yield the JSON that a URL answers and, if it is a page of an apidb, that of the next ones; Stop for another."""
    ask, query = connect(url), "".join(url.partition("#")[0].partition("?")[1:])
    while query is not None:
        answer = ask("GET", query)
        if answer.status in (401, 403):
            raise Stop(f"{url} answered {answer.status} {answer.reason}: export it to a file, and import that.")
        if answer.status != 200:
            raise Stop(f"{url} answered {answer.status} {answer.reason}: {LISTS}.")
        yield from_json(url, answer.data)
        query = following(answer)
