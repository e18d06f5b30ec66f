"""Write links to a file: JSON lines, CSV, or bookmarks as browsers read them.

A writer is a generator of text, from an iterable of records.
"""

import csv
import json
import os
from datetime import datetime
from html import escape
from pathlib import Path
from types import SimpleNamespace

from tqdm import tqdm

from dialects import found, one_line
from program import Stop
from reading import read_html
from record import COLUMNS, FIELDS, name_of

# The first characters by which a spreadsheet takes a cell for a formula; full-width ones count too.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")


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
        read = found(*next(read_html(bookmark(record)))).record
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


def save(path, lists, what="links"):
    """Write lists of records, which are `what`, to a file, which is there only when it is complete; return how many."""
    path = Path(path).expanduser()
    write = WRITERS.get(path.suffix.lower())
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
        with part.open("w", encoding="utf-8", newline="") as file, tqdm(unit=f" {what}", disable=None) as bar:
            try:
                file.writelines(write(records(bar)))
            except BaseException:
                part.unlink()
                raise
        os.replace(part, path)
    except OSError as error:
        raise Stop(f"{error.filename or path}: {error.strerror}.") from None
    return count
