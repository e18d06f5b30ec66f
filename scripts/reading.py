"""Read a file of links: bookmarks as browsers write them, JSON, CSV, or a list of URLs.

A reader is a generator of (line, row, folders): a dict with the names that the file has, which
dialects.py makes a record of; or, where there is none, of (line, what is wrong, ()).
"""

import csv
import io
import json
import re
from html.parser import HTMLParser

from dialects import OURS, kind_of
from program import Stop

# Folders that a browser made, not a person.
ROOTS = {
    *("bookmarks bar", "bookmarks toolbar", "bookmarks menu", "bookmarksbar", "bookmarksmenu"),
    *("other bookmarks", "mobile bookmarks", "favorites", "favourites", "favorites bar", "favourites bar"),
}
CHROME_ROOTS = {"bookmark_bar", "other", "synced"}  # the keys of such folders in its JSON


class Unreadable(Stop):
    """A file that has no links in a form that is known."""

    code = 1


class Bookmarks(HTMLParser):
    """Collects (line, row, folders) of each <A> of a Netscape bookmark file in `found`."""

    def __init__(self):
        super().__init__()
        self.found, self.row = [], None
        self.folders, self.folder = [], None  # open ones, "" for a browser's own; the one about to open
        self.field, self.words = None, []  # what the text is that comes now

    def handle_starttag(self, tag, attributes):
        given = {name: value or "" for name, value in attributes}
        if tag == "br":
            self.words.append("\n")
        if tag in ("a", "h3", "dd", "dt", "dl", "hr"):
            self.end_text()
        if tag == "a" and "href" in given:
            self.row = given | {"text": ""}
            self.found.append((self.getpos()[0], self.row, tuple(filter(None, self.folders))))
            self.field = "text"
        elif tag == "h3":
            self.row, self.field = None, "folder"
            self.own = {"personal_toolbar_folder", "unfiled_bookmarks_folder"} & set(given)
        elif tag == "dl":
            self.folders.append(self.folder)
            self.row = self.folder = None
        elif tag == "dd" and self.row:
            self.field = "notes"

    def handle_endtag(self, tag):
        if tag in ("a", "h3", "dl"):
            self.end_text()
        if tag == "dl":
            self.row = self.folder = None
            del self.folders[-1:]

    def handle_data(self, data):
        self.words.append(data)

    def end_text(self):
        """Keep the text since the last tag that matters as the field that it is."""
        text = "".join(self.words).strip(" \t\n\f")
        if self.field == "folder":
            top = all(folder is None for folder in self.folders)  # the outermost <DL> has no name
            self.folder = "" if self.own or (top and text.casefold() in ROOTS) else text
        elif self.field == "notes":  # linkding puts a description and notes into one
            self.row["notes"] = re.sub(r"\s*\[/?linkding-notes\]\s*", "\n\n", text).strip("\n")
        elif self.field:
            self.row[self.field] = text
        self.field, self.words = None, []


def read_html(text):
    """Read Netscape bookmarks: a row has the attributes of an <A>, its text, and the notes that follow."""
    text = re.sub("\r\n?", "\n", text)
    # Browsers write the & of a URL as it is, and HTML has no reference in ?a=1&copy=2.
    text = re.sub(r"&(?!#\d+;|#[xX][0-9a-fA-F]+;|[A-Za-z][A-Za-z0-9]*;)", "&amp;", text)
    text = text.replace("<![", "&lt;![")  # HTMLParser fails on some of these
    parser = Bookmarks()
    parser.feed(text)
    parser.close()
    parser.end_text()
    yield from parser.found


def read_json(text):
    """Read the links anywhere in JSON values, which come one a line, or in arrays."""
    decoder, between, line, at = json.JSONDecoder(), re.compile(r"[\s,\[\]]*"), 1, 0
    while (start := between.match(text, at).end()) < len(text):
        line += text.count("\n", at, start)
        try:
            value, at = decoder.raw_decode(text, start)
            yield from rows(value, text[start:at], line)
        except (ValueError, RecursionError):
            following = re.compile(r"\n(?=[\s,\[]*\{)").search(text, start)  # the next object
            at = following.start() if following else len(text)
            goes_on = line + text.count("\n", start, at) + 1
            read = f"it is read again from line {goes_on} on" if following else "nothing from here on is read"
            yield line, f"This is not JSON; {read}.", ()
        line += text.count("\n", start, at)


def rows(value, text="", line=1):
    """Yield (line, row, folders) of the links in a JSON value, whose text begins at this line."""
    if not isinstance(value, dict):
        yield line, "This is not a JSON object.", ()
    elif kind_of(value) or not (inside := list(walk(value))):
        yield line, value, ()
    else:
        at = 0
        for row, folders in inside:
            words = next((row[name] for name in ("url", "uri", *row) if isinstance(row.get(name), str)), "")
            nearby = (text.find(each, at, at + 10**6) for each in (words, words.replace("/", "\\/")))  # PHP's JSON
            found = max(nearby)
            if found >= 0:
                line, at = line + text.count("\n", at, found), found
            yield line, row, folders


def walk(value, folders=(), key="", lists={}):
    """Yield (row, folders) of the objects in a JSON value that are links of a known kind.

    What has `children` or `links` is a folder, if a person named it; a link may say the ids of `lists`.
    """
    if isinstance(value, list):
        for each in value:
            yield from walk(each, folders, key, lists)
    elif isinstance(value, dict) and (kind := kind_of(value)):
        if isinstance(value.get("lists"), list):
            value = value | {"lists": [name for each in value["lists"] for name in path_of(each, lists)]}
        yield (value if kind == OURS else value | {"in": key}), folders
    elif isinstance(value, dict):
        named = value.get("name") or value.get("title")
        is_own = "root" in value or key in CHROME_ROOTS
        if isinstance(named, str) and not is_own and ("children" in value or "links" in value):
            folders = (*folders, named)
        if isinstance(value.get("lists"), list):
            lists = {str(each.get("id")): each for each in value["lists"] if isinstance(each, dict)}
        for name, each in value.items():
            yield from walk(each, folders, name, lists)


def path_of(list_id, lists):
    """Return the names of a list and those that it is in, from the outermost on, given the lists by id."""
    each, rest = lists.get(str(list_id)), {name: value for name, value in lists.items() if name != str(list_id)}
    return [*path_of(each.get("parentId"), rest), each.get("name")] if each else []


def read_csv(text, comma):
    """Read CSV with a header; an empty cell is no value.

    In an export of apidb one apostrophe before a value is a guard, and tags are a row of CSV in their cell.
    """
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=comma, strict=True)
    header, line = None, 1
    while True:
        try:
            row = next(lines, None)
            if row is None:
                return
            if header is None and any(row):
                header = [name.strip() for name in row]
            elif any(row):
                cells = dict(zip(header, row))
                if kind_of(cells) == OURS:
                    cells = {name: cell.removeprefix("'") for name, cell in cells.items() if cell}
                    if "tags" in cells:
                        tags = csv.reader(io.StringIO(cells["tags"], newline=""), strict=True)
                        cells["tags"] = [tag for row in tags for tag in row]
                    if re.fullmatch("[0-9]{1,16}", cells.get("visits", "")):
                        cells["visits"] = int(cells["visits"])
                yield line, cells, ()
        except csv.Error as error:
            yield line, f"This is not CSV: {error}.", ()
        line = lines.line_num + 1


def read_urls(text):
    for line, url in enumerate(re.split("\r\n?|\n", text), 1):
        if url.strip():
            yield line, {"the line": url.strip()}, ()


def read_text(path, text):
    """Return the reader of a file's text, by what it begins with. Unreadable if it has no form that is known."""
    start = text.lstrip()
    header = re.split("[\r\n]", start[:4096], maxsplit=1)[0]
    commas = [comma for comma in ",;\t" if kind_of({name.strip(' "'): "" for name in header.split(comma)})]
    if start.startswith("<"):
        if not re.search(r"(?i)<!doctype netscape-bookmark|<dt>\s*<a\s", text):
            raise Unreadable(f"{path} is HTML, but not a bookmark file: export the bookmarks from the browser.")
        return read_html(text)
    if start.startswith(("{", "[")):
        found = list(read_json(text))
        if not any(isinstance(row, dict) and kind_of(row) for _, row, _ in found):
            raise Unreadable(f"{path} is JSON, but has no links in a form that is known.")
        return found
    if commas:
        return read_csv(text, commas[0])
    if start and path.lower().endswith(".csv"):
        raise Unreadable(f"{path} has no column named link in its first row.")
    lines = [line for line in re.split("[\r\n]+", start) if line.strip()]
    if sum(bool(re.match(r"(?i)\s*https?://", line)) for line in lines) * 2 < len(lines):
        raise Unreadable(f"{path} has no links in a form that is known.")
    return read_urls(text)
