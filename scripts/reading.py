"""Read a file of links: bookmarks as browsers write them, JSON, CSV, or a list of URLs.

A reader is a generator of (line, record) or, where there is none, of (line, what is wrong).
"""

import csv
import io
import json
import re
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser

from program import Stop
from record import EPOCH, FIELDS, rfc3339

# Folders that a browser made, not a person.
ROOTS = {
    *("bookmarks bar", "bookmarks toolbar", "bookmarks menu", "bookmarksbar", "bookmarksmenu"),
    *("other bookmarks", "mobile bookmarks", "favorites", "favourites", "favorites bar", "favourites bar"),
}


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


def read_text(path, text):
    """Return the reader of a file's text, by what it begins with. Stop if it has no form that is known."""
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
