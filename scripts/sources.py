"""Where an import reads from: a file, a zip, a table, a server, or the URL at which an API lists its links."""

import io
import json
import re
import zipfile
from itertools import chain
from pathlib import Path

import charset_normalizer

from api import connect, following
from aws import TABLE, record_of, scan
from dialects import ITEM, found
from program import Stop, printable
from reading import Unreadable, read_text
from servers import SERVERS, read_server

LISTS = "it must be the URL at which an API lists its links"
LARGEST = 3 * 10**8  # bytes that a file in a zip may have
# What text may be in that is not UTF-8 and does not say so, the likeliest first if charset-normalizer cannot tell.
ENCODINGS = "cp1252 cp1251 cp1250 koi8_r cp1253 cp932 euc_jp gb18030 big5 euc_kr".split()
MARKS = {"utf-8-sig": b"\xef\xbb\xbf", "utf-32": b"\xff\xfe\0\0", "utf-16": (b"\xff\xfe", b"\xfe\xff")}
# What a file begins with that is no text.
KINDS = {
    b"%PDF": "a PDF",
    b"mozLz40\0": "a compressed backup of Firefox; Backup in its library of bookmarks writes one that is read, .json",
    b"bplist": "a property list; let Safari export its bookmarks",
    b"SQLite format 3\0": "a database; let the browser export its bookmarks",
    b"\x1f\x8b": "compressed; unpack it first",
}


def read(source):
    """Return an iterable of dialects.Found: the links of a file, a zip, a table (dynamodb:TABLE), a server, or a URL.

    Stop if it cannot be read, Unreadable if it is a file without links.
    """
    kind, _, rest = source.partition(":")
    if source.startswith(TABLE):
        return read_items(source, chain.from_iterable(scan(rest)), "DynamoDB table")
    if kind in SERVERS and rest.startswith("http"):
        return (found(*each) for each in read_server(kind, rest))
    if re.match("(?i)https?://", source):
        return read_url(source)
    return read_file(source, Path(source).expanduser().read_bytes())


# --- Files


def read_file(path, content):
    if content.startswith(b"PK\3\4"):
        return read_zip(path, content)
    return [found(*each) for each in read_text(path, text_of(path, content))]


def read_zip(path, content):
    """Return the links of the files in a zip that have some, as Safari, Pocket and Omnivore pack them."""
    links = []
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                if re.search(r"(?i)\.(html?|json|jsonl|csv)$", info.filename) and info.file_size <= LARGEST:
                    try:
                        inside = read_file(info.filename, archive.read(info))
                    except Unreadable:  # the articles of Omnivore, the passwords of Safari
                        continue
                    links += [each._replace(place=f"{info.filename}:{each.place}") for each in inside]
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise Unreadable(f"{path} is a zip that cannot be unpacked: {error}") from None
    if not links:
        raise Unreadable(f"{path} is a zip, but no file in it has links in a form that is known.")
    return links


def text_of(path, content):
    """Return the text of a file, in the encoding that it says or seems to be in. Unreadable if it is none."""
    for start, kind in KINDS.items():
        if content.startswith(start):
            raise Unreadable(f"{path} is not read: it is {kind}.")
    if not content.strip():
        raise Unreadable(f"{path} is empty.")
    try:
        for encoding, marks in MARKS.items():
            if content.startswith(marks):
                return content.decode(encoding)
        if b"\0" in content:
            raise Unreadable(f"{path} is not read: it is no text.")
        if b"\x1b$" in content:  # all else of it is ASCII
            return content.decode("iso2022_jp")
        return content.decode()
    except UnicodeDecodeError:
        pass
    declared = re.search(rb"(?i)<meta[^>]+charset=[\"']?([\w-]+)", content[:4096])
    try:
        return content.decode(declared[1].decode())
    except (TypeError, LookupError, UnicodeDecodeError):
        telling = b"\n".join(line for line in content.splitlines() if not line.isascii())[: 10**6]
        fits = charset_normalizer.from_bytes(telling, cp_isolation=ENCODINGS)
        best = min(fits, key=lambda fit: (fit.chaos, -fit.coherence, ENCODINGS.index(fit.encoding)), default=None)
        return content.decode(best.encoding if best else ENCODINGS[0], "replace")


# --- Tables, and APIs as tutorials make them


def read_items(source, items, kind):
    """Read what a table or an API has, by link_id, or by number where there is none.

    Items with a created_at are of an apidb; other link_ids are random, and not kept.
    """
    dropped = False
    for number, item in enumerate(items, 1):
        item = {"link": item} if isinstance(item, str) else item
        if not isinstance(item, dict):
            yield found(number, "This is not a JSON object.")
            continue
        record = record_of(item)
        place = record.get("link_id", number)
        if "created_at" not in record:
            dropped = record.pop("link_id", None) is not None or dropped
        yield found(place, record)._replace(kind=kind, lost=[name for name in item if name not in ITEM])
    if dropped:
        print(printable(f"The link_ids of {source} are not kept: each link gets the id that belongs to its URL."))


def read_url(url):
    """Read what a URL answers: the list of an apidb, page by page, or one as tutorials make it."""
    items, complete = [], True
    for value in answers(url):
        while isinstance(value, str) or (isinstance(value, dict) and "body" in value):
            value = from_json(url, value) if isinstance(value, str) else value["body"]
        if isinstance(value, dict) and "LastEvaluatedKey" in value:
            complete = False
        inside = value.get("Items") if isinstance(value, dict) else value
        if not isinstance(inside, list):
            raise Stop(f"{url} does not answer with a list: {LISTS}.")
        items += inside
    yield from read_items(url, items, "list of an API")
    if not complete:  # a Scan ends after 1 MB, which tutorials do not mind
        problem = f"The API does not list all links. Read its table instead: FILE={TABLE}NAME"
        yield found("LastEvaluatedKey", problem)


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
