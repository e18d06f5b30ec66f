"""Put links from a file, a table or another API into a link store, or all links of a store into a file.

Import takes bookmarks of a browser or of a bookmark server (Netscape HTML), the
JSON or CSV of an export, what `curl $API` prints, and a plain list of URLs; or
dynamodb:TABLE, or the URL at which another API lists its links. It can be run
again safely. Export writes what import takes back: .jsonl, .csv or .html; of
dynamodb:TABLE it reads the table of a store, without its API.

The environment variable APIDB_KEY is the API's key, if it wants one; --sign
signs the requests with the AWS credentials. What an import reads gets neither.
"""

import argparse
import csv
import io
import json
import logging
import os
import re
import sys
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from html import escape
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl

import boto3
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
from tqdm import tqdm

# --- Settings

WORKERS = 12
BATCH = 500  # links that are given to the workers at once
# A POST, and a PUT of a new name, may be sent twice: what the API has stored stays as it is.
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

# What a new link may have, in the API's order, and all that a record has.
FIELDS = ("title", "tags", "notes", "expires_at", "created_at", "visits", "visited_at")
COLUMNS = tuple("link_id link title tags notes created_at updated_at expires_at visits visited_at".split())
RECORD = tuple("link_id link created_at updated_at title tags notes expires_at visits visited_at".split())
NAME = "[A-Za-z0-9][A-Za-z0-9._~-]{0,63}"
# The first characters by which a spreadsheet takes a cell for a formula; full-width ones count too.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")
# Folders that a browser made, not a person.
ROOTS = {
    *("bookmarks bar", "bookmarks toolbar", "bookmarks menu", "bookmarksbar", "bookmarksmenu"),
    *("other bookmarks", "mobile bookmarks", "favorites", "favourites", "favorites bar", "favourites bar"),
}
TOO_LARGE = "With all its fields this is larger than the API takes."
LISTS = "it must be the URL at which an API lists its links"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
LISTLESS = "it is not a link store, or not at this URL; that of a store ends in /link."
TABLE = "dynamodb:"  # comes before the name of a table
SEE_URL = "see url"  # the link of an item of apidb whose URL is in its attribute url (handler/index.py)


class Stop(Exception):
    """Why it cannot go on, as a sentence for the person who runs the command."""


# --- Reading: generators of (line, record) or, where there is none, (line, what is wrong)


class Bookmarks(HTMLParser):
    """Collects (line, record) of each <A> of a Netscape bookmark file in `found`."""

    def __init__(self):
        super().__init__()
        self.found, self.record = [], None
        self.folders, self.folder = [], None  # open ones, "" for a browser's own; the one about to open
        self.field, self.words = None, []  # what the text is that comes now

    def handle_starttag(self, tag, attributes):
        given = {name: value or "" for name, value in attributes}
        if tag == "br":
            self.words.append("\n")
        if tag in ("a", "h3", "dd", "dt", "dl", "hr"):
            self.end_text()
        if tag == "a" and "href" in given:
            tags = [*filter(None, self.folders), *given.get("tags", "").split(",")]
            self.record = {
                "link": given["href"].strip(),
                "tags": list(dict.fromkeys(filter(None, map(str.strip, tags)))) or None,
                "created_at": moment(given.get("add_date", "")),
                "rest": given.get("data-rest", "{}"),
            }
            self.found.append((self.getpos()[0], self.record))
            self.field = "title"
        elif tag == "h3":
            self.record, self.field = None, "folder"
            self.own = {"personal_toolbar_folder", "unfiled_bookmarks_folder"} & set(given)
        elif tag == "dl":
            self.folders.append(self.folder)
            self.record = self.folder = None
        elif tag == "dd" and self.record:
            self.field = "notes"

    def handle_endtag(self, tag):
        if tag in ("a", "h3", "dl"):
            self.end_text()
        if tag == "dl":
            self.record = self.folder = None
            del self.folders[-1:]

    def handle_data(self, data):
        self.words.append(data)

    def end_text(self):
        """Keep the text since the last tag that matters as the field that it is."""
        text = "".join(self.words).strip(" \t\n\f")
        if self.field == "folder":
            top = all(folder is None for folder in self.folders)  # the outermost <DL> has no name
            self.folder = "" if self.own or (top and text.casefold() in ROOTS) else text
        elif self.field == "title":
            self.record["title"] = one_line(text)
        elif self.field == "notes":
            self.record["notes"] = text
        self.field, self.words = None, []


def one_line(text):
    return re.sub("[ \t\r\n\f]+", " ", text)


def moment(add_date):
    """Return the RFC 3339 time of an ADD_DATE in s, ms or us since 1970; None if it cannot be right."""
    if not re.fullmatch("[0-9]{1,16}", add_date):
        return None
    unit = 10**6 if len(add_date) < 12 else 10**3 if len(add_date) < 15 else 1
    when = EPOCH + timedelta(microseconds=min(int(add_date) * unit, 10**17))
    return rfc3339(when) if EPOCH < when < datetime.now(timezone.utc) else None


def rfc3339(when):
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_html(text):
    """Read Netscape bookmarks; folders become tags, and DATA-REST wins over what else an <A> says."""
    text = re.sub("\r\n?", "\n", text)
    # Browsers write the & of a URL as it is, and HTML has no reference in ?a=1&copy=2.
    text = re.sub(r"&(?!#\d+;|#[xX][0-9a-fA-F]+;|[A-Za-z][A-Za-z0-9]*;)", "&amp;", text)
    text = text.replace("<![", "&lt;![")  # HTMLParser fails on some of these
    parser = Bookmarks()
    parser.feed(text)
    parser.close()
    parser.end_text()
    for line, record in parser.found:
        if record.get("title") in ("", record["link"]):  # browsers show the URL of what has no title
            del record["title"]
        try:
            rest = dict(json.loads(record.pop("rest")))
            record |= {name: rest[name] for name in ("link_id", *FIELDS) if name in rest}
            yield line, {name: value for name, value in record.items() if value is not None}
        except (ValueError, TypeError, RecursionError):
            yield line, "DATA-REST is not a JSON object."


def read_json(text):
    """Read JSON objects, one a line, or in arrays."""
    decoder, between, line, at = json.JSONDecoder(), re.compile(r"[\s,\[\]]*"), 1, 0
    while (start := between.match(text, at).end()) < len(text):
        line += text.count("\n", at, start)
        try:
            value, at = decoder.raw_decode(text, start)
            yield line, value if isinstance(value, dict) else "This is not a JSON object."
        except (ValueError, RecursionError):
            following = re.compile(r"\n(?=[\s,\[]*\{)").search(text, start)  # the next object
            at = following.start() if following else len(text)
            goes_on = line + text.count("\n", start, at) + 1
            read = f"it is read again from line {goes_on} on" if following else "nothing from here on is read"
            yield line, f"This is not JSON; {read}."
        line += text.count("\n", start, at)


def read_csv(text, comma):
    """Read CSV with a header; an empty cell is no value, and one apostrophe before a value is a guard."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=comma, strict=True)
    header, line = None, 1
    while True:
        try:
            row = next(rows, None)
            if row is None:
                return
            if header is None and any(row):
                header = [name.strip() for name in row]
            elif any(row):
                cells = {name: cell.removeprefix("'") for name, cell in zip(header, row) if cell}
                if "tags" in cells:
                    tags = csv.reader(io.StringIO(cells["tags"], newline=""), strict=True)
                    cells["tags"] = [tag for row in tags for tag in row]
                if re.fullmatch("[0-9]{1,16}", cells.get("visits", "")):
                    cells["visits"] = int(cells["visits"])
                yield line, cells
        except csv.Error as error:
            yield line, f"This is not CSV: {error}."
        line = rows.line_num + 1


def read_urls(text):
    for line, url in enumerate(re.split("\r\n?|\n", text), 1):
        if url.strip():
            yield line, {"link": url.strip()}


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
    start = text.lstrip()
    header = re.split("[\r\n]", start[:4096], maxsplit=1)[0]
    commas = [comma for comma in ",;\t" if "link" in [name.strip(' "') for name in header.split(comma)]]
    if start.startswith("<"):
        if not re.search(r"(?i)<!doctype netscape-bookmark|<dt>\s*<a\s", text):
            raise Stop(f"{path} is HTML, but not a bookmark file: export the bookmarks from the browser.")
        return read_html(text)
    if start.startswith(("{", "[")):
        return read_json(text)
    if commas:
        return read_csv(text, commas[0])
    if start and path.lower().endswith(".csv"):
        raise Stop(f"{path} has no column named link in its first row.")
    return read_urls(text)


def name_of(record):
    """Return the link_id of a record if that is a name; None if it is the link's UUIDv5, or not there."""
    link = record["link"].encode(errors="replace").decode()  # JSON can have lone surrogates
    link_id = record.get("link_id")
    return None if link_id == str(uuid.uuid5(uuid.NAMESPACE_URL, link)) else link_id


def problem_of(record):
    """Return why the API would refuse a record for sure, in its words, or None."""
    if record.get("link") is None:
        return "link is missing."
    if not isinstance(record["link"], str):
        return "link must be a string."
    if not re.match("(?i)https?://", record["link"].strip()):
        return "link must be an absolute URL that starts with http:// or https://."
    if (name := name_of(record)) is not None and not re.fullmatch(NAME, str(name)):
        return "A name has 1 to 64 letters, digits and -._~, and one of the first two first."


def nearly_canonical(link):
    """Return a form in which URLs are equal that differ in the case of the host, its port or a slash after it."""
    host, rest = re.fullmatch("(?s)([^/]*//[^/?#]*)(.*)", link.strip()).groups()
    host = re.sub("^(http:.*):80$|^(https:.*):443$", r"\1\2", host.lower())
    return host + (rest if rest != "/" else "")


def entries(path):
    """Return a list of (line, record, what is wrong or None) in which each link is once.

    Browsers keep a link in two folders: the tags are united, else the first one counts.
    """
    found = {}
    for line, given in read(path):
        record, problem = ({}, given) if isinstance(given, str) else (given, problem_of(given))
        record = {name: record[name] for name in ("link_id", "link", *FIELDS) if record.get(name) is not None}
        key = len(found) if problem else (name_of(record), nearly_canonical(record["link"]))
        if key in found:
            line, first, problem = found[key]
            both = first.get("tags", []), record.get("tags", [])
            record |= first
            if all(isinstance(tags, list) for tags in both) and any(both):
                record["tags"] = both[0] + [tag for tag in both[1] if tag not in both[0]]
        found[key] = line, record, problem
    return list(found.values())


# --- Tables


@contextmanager
def aws(region="", table=""):
    """Make what the AWS SDK raises while the block runs a Stop."""
    settings = "Set AWS_PROFILE, or AWS_DEFAULT_REGION and credentials, or run: aws configure"
    try:
        yield
    except NoRegionError:
        raise Stop(f"There is no AWS region. {settings}") from None
    except NoCredentialsError:
        raise Stop(f"There are no AWS credentials. {settings}") from None
    except ClientError as error:
        code, sentence = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        if code == "ResourceNotFoundException":
            raise Stop(
                f"There is no table {table} in {region}. See which there are: aws dynamodb list-tables;"
                " AWS_DEFAULT_REGION sets another region."
            ) from None
        if code == "AccessDeniedException":
            raise Stop(f"These AWS credentials may not read the table {table}: {sentence}") from None
        raise Stop(f"The table {table} in {region} cannot be read: {code}: {sentence}") from None
    except (BotoCoreError, ValueError) as error:  # the latter of a wrong AWS_ENDPOINT_URL
        raise Stop(f"AWS cannot be asked: {error}") from None


def scan(table):
    """Yield the items of a DynamoDB table, a list for each page; Stop if it cannot be read.

    What has expired is left out, as the API does; DynamoDB deletes it days later.
    """
    # A consistent Scan has all that was stored before it. The index `newest` would give an order,
    # but follows the table a moment later; and of a backup before a deletion nothing may be missing.
    if not table:
        raise Stop(f"Which table? For example: {TABLE}linkTable")
    with aws():
        session = boto3.Session()
        dynamodb = session.client("dynamodb")
    with aws(session.region_name, table):
        for page in dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
            yield [item for item in page["Items"] if not is_past(plain(item.get("expires_at")))]


def is_past(expires_at):
    return isinstance(expires_at, int) and expires_at <= time.time()


def plain(value):
    """Return the plain value of an attribute in DynamoDB's typed JSON, None if no field of a link is of its type."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    ((kind, inner),) = value.items()
    if kind == "L" and isinstance(inner, list):
        return [plain(each) for each in inner]
    if kind == "N" and re.fullmatch("-?[0-9]{1,38}", str(inner)):
        return int(inner)
    return inner if kind in ("S", "SS", "N") else None


def record_of(item):
    """Return the record of an item, typed or plain, as the API gives it (handler/index.py)."""
    item = {name: plain(value) for name, value in item.items()}
    record = {name: item[name] for name in RECORD if item.get(name) is not None}
    if record.get("link") == SEE_URL and "url" in item:
        record["link"] = item["url"]
    expires_at = record.get("expires_at")
    if isinstance(expires_at, int) and 0 <= expires_at < 253402300800:  # the year 10000
        record["expires_at"] = rfc3339(EPOCH + timedelta(seconds=expires_at))
    return record


# --- Writing: generators of text, from an iterable of records


def write_json(records):
    for record in records:
        yield json.dumps(record, ensure_ascii=False) + "\n"


def write_csv(records):
    """Write CSV; tags are a row of CSV in their cell, and a cell that a spreadsheet would run is guarded."""
    row = csv.writer(SimpleNamespace(write=str), quoting=csv.QUOTE_ALL).writerow
    inner = csv.writer(SimpleNamespace(write=str)).writerow
    yield "\ufeff" + row(COLUMNS)  # spreadsheets take it for UTF-8 by that
    for record in records:
        if "tags" in record:
            record = record | {"tags": inner(record["tags"]).removesuffix("\r\n")}
        cells = {name: str(record[name]) for name in COLUMNS if name in record}
        guarded = {name for name, cell in cells.items() if not cell or cell.startswith(FORMULA)}
        yield row("'" * (name in guarded) + cells.get(name, "") for name in COLUMNS)


def write_html(records):
    """Write Netscape bookmarks, which browsers take."""
    yield (
        "<!DOCTYPE NETSCAPE-Bookmark-file-1>\n"
        '<META HTTP-EQUIV="Content-Type" CONTENT="text/html; charset=UTF-8">\n'
        "<TITLE>Bookmarks</TITLE>\n<H1>Bookmarks</H1>\n<DL><p>\n"
    )
    for record in records:
        _, read = next(read_html(bookmark(record)))
        wanted = record if name_of(record) else record | {"link_id": None}
        rest = {name: wanted.get(name) for name in ("link_id", *FIELDS) if wanted.get(name) != read.get(name)}
        yield bookmark(record, {"DATA-REST": json.dumps(rest, ensure_ascii=False)} if rest else {})
    yield "</DL><p>\n"


def bookmark(record, more={}):
    """Return a record as a bookmark, with these attributes more, as far as the form goes."""
    times = record["created_at"], record["updated_at"]
    created, updated = (int(datetime.fromisoformat(time).timestamp()) for time in times)
    attributes = {"HREF": record["link"], "ADD_DATE": str(created), "LAST_MODIFIED": str(updated)}
    if record.get("tags"):
        attributes["TAGS"] = one_line(",".join(record["tags"]))
    shown = "".join(f' {name}="{escape(value)}"' for name, value in (attributes | more).items())
    title = escape(one_line(record.get("title") or record["link"]))
    notes = f"<DD>{escape(record['notes'])}\n" if record.get("notes") else ""
    return f"    <DT><A{shown}>{title}</A>\n{notes}"


WRITERS = {".jsonl": write_json, ".csv": write_csv, ".html": write_html}
WRITERS |= {".htm": write_html}

# --- The API


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


def signer(url):
    """Return a function that adds the AWS signature of a request (method, URL, body, headers) to its headers."""
    with aws():
        session = boto3.Session()
        credentials = session.get_credentials()
        in_url = re.search(r"\.execute-api\.([a-z0-9-]+)\.", url)
        region = in_url[1] if in_url else session.region_name
        if not credentials:
            raise NoCredentialsError
        if not region:
            raise NoRegionError

    def sign(method, url, body, headers):
        # Given apart from the URL, the query is signed in the form that API Gateway brings it into.
        url, _, query = url.partition("?")
        request = AWSRequest(method, url, headers, body, parse_qsl(query, keep_blank_values=True))
        with aws():  # which may have to renew the credentials
            SigV4Auth(credentials.get_frozen_credentials(), "execute-api", region).add_auth(request)
        return dict(request.headers.items())

    return sign


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


def pages(send):
    """Yield the pages of all links, newest first: lists of records."""
    query = "?limit=1000"
    while query is not None:
        answer = send("GET", query)
        if not isinstance(answer.value, list):
            raise Stop(f"The API did not list its links: {answer.sentence or LISTLESS}")
        yield answer.value
        query = following(answer)


ADDED, THERE = "added", "there already"


def store(send, record):
    """Store a link; return ADDED, THERE, or why it is refused. Stop if the API does not work."""
    name = name_of(record)
    body = {field: value for field, value in record.items() if field != "link_id"}
    if name is None:
        answer = send("POST", "", body)
    else:
        answer = send("PUT", f"/{name}", body, {"If-None-Match": "*"})
    if answer.status == 412:  # also when the answer to what stored it was lost
        there = send("GET", f"/{name}").value
        return (
            THERE
            if nearly_canonical(there.get("link", "//")) == nearly_canonical(record["link"])
            else f"the name {name} is taken."
        )
    if answer.status == 404:
        raise Stop(f"The API has no such path: {answer.sentence}")
    return answer.sentence or (ADDED if answer.status == 201 else THERE)


# --- Commands


def import_file(path, api, dry_run, signed):
    """Store the links of a file, table or URL; print what is refused, and the counts. Return 1 if any was, else 0."""
    counts, found = Counter(), entries(path)
    send = None if dry_run else client(api, signed)

    def work(entry):
        _, record, problem = entry
        return problem or (ADDED if dry_run else store(send, record))

    pool = ThreadPoolExecutor(WORKERS)
    try:
        with tqdm(total=len(found), unit=" links", disable=None) as bar:
            for first in range(0, len(found), BATCH):
                batch = found[first : first + BATCH]
                for (line, record, _), outcome in zip(batch, pool.map(work, batch)):
                    counts[outcome if outcome in (ADDED, THERE) else "refused"] += 1
                    if outcome not in (ADDED, THERE):
                        tqdm.write(refusal(path, line, record.get("link"), outcome), file=sys.stderr)
                    bar.update()
    except (Stop, KeyboardInterrupt):
        if counts:
            left = found[counts.total() :]
            rest = f"; {len(left)} left, from {printable(f'{path}:{left[0][0]}')} on" if left else ""
            print(f"Not complete: {tally(counts)}{rest}. Run it again to go on.", file=sys.stderr)
        raise
    print(
        f"{counts[ADDED]} links to send, {counts['refused']} refused without asking the API"
        if dry_run
        else tally(counts)
    )
    return 1 if counts["refused"] else 0


def refusal(path, line, link, reason):
    return printable(f"{path}:{line}: " + (f"{link!s:.300}: " if link is not None else "") + reason)


def printable(text):
    """Return text as a terminal may show it: neither a bookmark nor a server writes to it what it likes."""
    return "".join(each if each.isprintable() else "?" for each in text)


def tally(counts):
    return f"{counts[ADDED]} {ADDED}, {counts[THERE]} {THERE}, {counts['refused']} refused"


def save(path, lists):
    """Write lists of records to a file, which is there only when it is complete; return how many."""
    write = WRITERS.get(Path(path).suffix.lower())
    if not write:
        raise Stop(f"{path} must end in .jsonl, .csv or .html, which says the form to write.")
    part, count = Path(f"{path}.part"), 0

    def records(bar):
        nonlocal count
        for page in lists:
            count += len(page)
            bar.update(len(page))
            yield from page

    try:
        with part.open("w", encoding="utf-8", newline="") as file, tqdm(unit=" links", disable=None) as bar:
            try:
                file.writelines(write(records(bar)))
            except BaseException:
                part.unlink()
                raise
        os.replace(part, path)
    except OSError as error:
        raise Stop(f"{error.filename or path}: {error.strerror}.") from None
    return count


def export_table(table, path):
    """Write all links of an apidb's table to a file, without its API; return how many. Stop if it cannot be done.

    What has been stored before is in it, in no order; what changes meanwhile may be.
    """
    return save(path, pages_of_table(table))


def pages_of_table(table):
    for items in scan(table):
        if not all("etag" in item for item in items):
            raise Stop(f"{table} is no table of an apidb. To import one: make import FILE={TABLE}{table} API=...")
        yield [record_of(item) for item in items]


def export_file(path, api, signed):
    """Write all links of the API, or of dynamodb:TABLE, to a file, and print how many."""
    if api.startswith(TABLE):
        count = export_table(api.removeprefix(TABLE), path)
    else:
        count = save(path, pages(client(api, signed)))
    print(f"{count} links in {path}")
    return 0


def main():
    key = "The environment variable APIDB_KEY is the API's key, if it wants one."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=key)
    parser.add_argument("action", choices=["import", "export"])
    file = "a file; an import also takes dynamodb:TABLE, or the URL at which another API lists its links"
    parser.add_argument("file", nargs="?", default="", help=file)
    api = "URL of the API (the variable API); an export also takes dynamodb:TABLE, the table of a store"
    parser.add_argument("--api", default=os.environ.get("API", ""), help=api)
    parser.add_argument("--sign", action="store_true", help="sign the requests to the API with the AWS credentials")
    parser.add_argument("--dry-run", action="store_true", help="only say what an import would do")
    options = parser.parse_args()
    file = "bookmarks.html" if options.action == "import" else "links.jsonl"
    example = f"For example: make {options.action} FILE={options.file or file} API=https://.../prod/link"
    try:
        if not options.file:
            raise Stop(f"Which file? {example}")
        if not options.api and not options.dry_run:
            raise Stop(f"Which API? {example}")
        if options.action == "import":
            code = import_file(options.file, options.api, options.dry_run, options.sign)
        else:
            code = export_file(options.file, options.api, options.sign)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        code = 130
    except Stop as error:
        print(printable(str(error)), file=sys.stderr)
        code = 2
    except OSError as error:
        print(f"{error.filename or options.file}: {error.strerror}.", file=sys.stderr)
        code = 2
    sys.stdout.flush()
    os._exit(code)  # without a wait for requests that are under way; they can be sent again


if __name__ == "__main__":
    main()
