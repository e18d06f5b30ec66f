"""Make records of what other programs call by other names, by the table in dialects.toml."""

import ast
import json
import re
import tomllib
from collections import namedtuple
from datetime import datetime, timedelta, timezone
from pathlib import Path

from record import EPOCH, FIELDS, NAME, RECORD, rfc3339

DIALECTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
OURS = "apidb export"
FLAGS = ("unread", "archived", "starred")  # the tags that a state of a link becomes
ITEM = {*RECORD, "url", "owner", "etag", "visit"}  # what an item of apidb has, of which nothing is lost
EPOCH_1601 = datetime(1601, 1, 1, tzinfo=timezone.utc)  # from which Chrome counts

# What is found at a place of a source: a record, or what is wrong instead; the program it is of; whether it is
# private; the names of what it has and a link has not; and sentences on what was changed.
Found = namedtuple("Found", "place record problem kind private lost said", defaults=[None, None, False, (), ()])


def kind_of(row):
    """Return the program a row is of: a name of DIALECTS, OURS, or None."""
    for kind, dialect in DIALECTS.items():
        if all(name in row for name in dialect["known"]):
            return kind
    return OURS if "link" in row else None


def found(place, row, folders=()):
    """Return the Found of a row: a dict, in these folders; or what is wrong instead, as a text."""
    if isinstance(row, str):
        return Found(place, {}, row)
    kind = kind_of(row) or OURS
    if kind == OURS:
        record = {name: row[name] for name in ("link_id", "link", *FIELDS) if row.get(name) is not None}
        return Found(place, record, None, kind, lost=[name for name in row if name not in ITEM])
    dialect = DIALECTS[kind]
    record, said = {}, []
    for field, convert in CONVERT.items():
        values = [value for name in listed(dialect.get(field)) if (value := value_at(row, name)) is not None]
        value = convert(values) if values else None
        if value is not None:
            record[field] = value
    tags = tags_of(row, dialect, folders)
    if tags:
        record["tags"] = tags
    if "name" in record:
        name = record.pop("name")
        if re.fullmatch(NAME, name):
            record["link_id"] = name
        else:
            said.append(f"the name {name!r} is not kept: names have letters, digits and -._~ only, 64 at most.")
    if record.get("title") == record.get("link"):  # which browsers show of what has no title
        record.pop("title", None)
    if "data-rest" in row:
        try:
            rest = dict(json.loads(row["data-rest"]))
        except (ValueError, TypeError, RecursionError):
            return Found(place, {}, "DATA-REST is not a JSON object.", kind)
        record |= {name: rest[name] for name in ("link_id", *FIELDS) if name in rest}
    record = {name: value for name, value in record.items() if value is not None}
    private = any(holds(row, each) for each in listed(dialect.get("private")))
    return Found(place, record, None, kind, private, lost_of(row, dialect), said)


# --- Where a value is


def listed(names):
    return names if isinstance(names, list) else [names] if names else []


def value_at(row, path):
    """Return what is at a path in a row, None if nothing is; in a list of named values a name leads to its value."""
    for name in path.split("."):
        if isinstance(row, list):
            row = {str(each.get("name")): each.get("value") for each in row if isinstance(each, dict)}
        row = row.get(name) if isinstance(row, dict) else None
    return None if row in ("", [], {}) else row


def holds(row, condition):
    """Return whether a condition of the table holds: a name, name=value, or !name."""
    name, equals, wanted = condition.lstrip("!").partition("=")
    value = value_at(row, name)
    if equals:
        return str(value).casefold() == wanted.casefold()
    true = str(value).casefold() not in ("none", "", "0", "false", "no")
    return true != condition.startswith("!")


def lost_of(row, dialect):
    """Return the names in a row that have a value, but no place in a link."""
    internal = {*dialect.get("internal", []), "in"}
    used = set(dialect["known"])
    for field in (*CONVERT, "tags", "folder", *FLAGS, "private"):
        used |= {each.lstrip("!").partition("=")[0] for each in listed(dialect.get(field))}
    lost = []
    for name, value in row.items():
        inside = isinstance(value, dict) and any(each.startswith(f"{name}.") for each in used)
        for path in [f"{name}.{each}" for each in value] if inside else [name]:
            taken = path in used or any(each.startswith(f"{path}.") for each in used) or {name, path} & internal
            if not taken and value_at(row, path) not in (None, False):
                lost.append(path)
    return lost


# --- What a value is here


def first(convert):
    """Return a function that gives the first of its values that can be converted."""
    return lambda values: next(filter(lambda value: value is not None, map(convert, values)), None)


def stripped(value):
    return value.strip() if isinstance(value, str) else None


def one_line(text):
    return re.sub("[ \t\r\n\f]+", " ", text)


def title(value):
    return one_line(value.strip()) or None if isinstance(value, str) else None


def notes(values):
    """Return all the texts, each once, with an empty line between them."""
    return "\n\n".join(dict.fromkeys(filter(None, map(stripped, values)))) or None


def number(value):
    return int(value) if re.fullmatch("[0-9]{1,16}", str(value)) else None


def short_name(value):
    """Return a name: the text, or the path of the URL that it is."""
    value = value[0] if isinstance(value, list) else value
    return re.sub("(?i)^https?://[^/]*/*", "", value.strip()).strip("/") or None if isinstance(value, str) else None


def datetime_of(value):
    """Return the datetime of a text or number: s, ms or us since 1970, us since 1601, or ISO 8601; None of another.

    What does not say its time zone is taken as UTC; wallabag writes day/month/year.
    """
    value = re.sub(r"^(\d\d)/(\d\d)/(\d{4})\b", r"\3-\2-\1", str(value).strip())
    try:
        if re.fullmatch(r"[0-9]{17}", value):
            return EPOCH_1601 + timedelta(microseconds=int(value))
        if digits := re.fullmatch(r"([0-9]{1,16})(\.[0-9]+)?", value):
            unit = 10**6 if len(digits[1]) < 12 else 10**3 if len(digits[1]) < 15 else 1
            return EPOCH + timedelta(microseconds=int(digits[1]) * unit)
        when = datetime.fromisoformat(value)
        return when.astimezone(timezone.utc) if when.tzinfo else when.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):
        return None


def moment(value):
    return (when := datetime_of(value)) and rfc3339(when)


def past_moment(value):
    """Return the RFC 3339 time of a value; None if it cannot be right, as programs write 0 for none."""
    when = datetime_of(value)
    return rfc3339(when) if when and EPOCH < when < datetime.now(timezone.utc) else None


CONVERT = {
    "link": first(stripped),
    "title": first(title),
    "notes": notes,
    "name": first(short_name),
    "created_at": first(past_moment),
    "visits": first(number),
    "visited_at": first(past_moment),
    "expires_at": first(moment),
}


def tags_of(row, dialect, folders):
    """Return the tags of a row: its folders, its tags, and its states."""
    states = {flag: [each for each in listed(dialect.get(flag)) if holds(row, each)] for flag in FLAGS}
    said = {each.partition("=")[2] for conditions in states.values() for each in conditions}
    filed = [name for path in listed(dialect.get("folder")) for name in names(value_at(row, path), " / ")]
    folders = [each for each in (*folders, *filed) if each not in said and each not in dialect.get("unfiled", [])]
    given = [each for path in listed(dialect.get("tags")) for each in names(value_at(row, path), dialect.get("split"))]
    renamed = [dialect.get("renamed", {}).get(each, each) for each in given]
    return list(dict.fromkeys([*folders, *renamed, *(flag for flag in FLAGS if states[flag])]))


def names(value, split):
    """Return the names in a list of texts or named objects, in JSON or Python of it, or in a text split so."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            value = [value]
    if isinstance(value, str):
        value = value.split() if split == " " else value.split(split) if split else [value]
    if not isinstance(value, list):
        return []
    texts = [each.get("name", each.get("label")) if isinstance(each, dict) else each for each in value]
    return [each.strip() for each in texts if isinstance(each, str) and each.strip()]
