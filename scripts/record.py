"""What a link is: its fields and the rules for them, which are the handler's, and what is done so that they hold.

A record is a dict with some of the fields RECORD, as the API gives it.
"""

import ast
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

HANDLER = Path(__file__).parent.parent / "handler" / "index.py"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# What the handler takes at most: characters, and tags; and what it takes in no text.
TITLE, NOTES, TAG, TAGS = 512, 8192, 64, 32
CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def rules(path, index=None):
    """Return what a handler defines without its environment: functions, classes, and constants like FIELDS.

    It cannot be imported: it wants a table, and asks it at once. What it imports from handler/index.py is
    that of `index`, which are the rules of that one.
    """
    module, left = {"__name__": path.stem, **(vars(index) if index else {})}, {"os"}
    for node in ast.parse(path.read_text()).body:
        mentioned = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        if isinstance(node, ast.ImportFrom) and node.module == HANDLER.stem:
            continue
        if isinstance(node, ast.Assign) and mentioned & left:
            left |= {
                each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
            }
        elif isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign)):
            exec(compile(ast.Module([node], []), path, "exec"), module)
    return SimpleNamespace(**module)


handler = rules(HANDLER)
FIELDS = tuple(handler.NEW)  # what a new link may have besides its URL, in the API's order
RECORD = handler.RECORD  # all that a record has
COLUMNS = tuple(dict.fromkeys(["link_id", "link", *FIELDS, *RECORD]))  # what a person looks for first
NAME = handler.NAME
SEE_URL = handler.SEE_URL  # the link of an item of apidb whose URL is in its attribute url


def rfc3339(when):
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def of_seconds(seconds):
    """Return the RFC 3339 time of a number of seconds since 1970."""
    return rfc3339(EPOCH + timedelta(seconds=seconds))


def name_of(record):
    """Return the link_id of a record if that is a name; None if it is the link's UUIDv5, or not there."""
    link = record["link"].encode(errors="replace").decode()  # JSON can have lone surrogates
    link_id = record.get("link_id")
    return None if link_id == handler.link_id_of(link) else link_id


def canonical(link):
    """Return the form in which URLs that are one link are equal; handler.Error if it is no link."""
    return handler.canonical(link)


def problem_of(record):
    """Return why the API refuses a record whatever it has stored, in its words, or None."""
    if record.get("link") is None:
        return "link is missing."
    try:
        canonical(record["link"])
        if (name := name_of(record)) is not None and not re.fullmatch(NAME, str(name)):
            return "A name has 1 to 64 letters, digits and -._~, and one of the first two first."
        handler.check({name: record[name] for name in FIELDS if name in record}, handler.NEW)
    except handler.Error as error:
        return str(error)


def fitted(record):
    """Return a record with texts and tags that the API takes, and a list of sentences on what was done to it.

    Neither the link nor its name is ever changed, nor what is of a wrong type.
    """
    fit, said = dict(record), []
    for name, most in {"title": TITLE, "notes": NOTES}.items():
        if isinstance(fit.get(name), str):
            fit[name] = shortened(name, fit[name], most, said)
    tags = fit.get("tags")
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        tags = [shortened("a tag", tag, TAG, said) for tag in tags]
        fit["tags"] = list(dict.fromkeys(tag for tag in tags if tag.strip()))
        if len(fit["tags"]) > TAGS:
            said.append(f"{TAGS} of its {len(fit['tags'])} tags are kept.")
            del fit["tags"][TAGS:]
    return fit, said


def shortened(name, text, most, said):
    """Return a text as the API takes it; what was done is added to `said`."""
    clean = CONTROL.sub(" ", text)
    if clean != text:
        said.append(f"{name} had control characters or lone surrogates, which are blanks now.")
    if len(clean) > most:
        said.append(f"{name} shortened from {len(clean):,} to {most:,} characters.")
    return clean[:most]
