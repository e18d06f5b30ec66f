"""What a link is: the names of its fields, by the handler, and when two are the same.

A record is a dict with some of the fields RECORD, as the API gives it.
"""

import ast
import re
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path

HANDLER = Path(__file__).parent.parent / "handler" / "index.py"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def constants(path):
    """Return what the constants of a module are, as ast has it, by name.

    The handler cannot be imported for them: it wants a table, and asks it at once.
    """
    assigned = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
    return {node.targets[0].id: node.value for node in assigned if isinstance(node.targets[0], ast.Name)}


def names(node):
    """Return the names in a constant of the handler: the keys of a dict, or what is in a tuple, in its order."""
    if isinstance(node, ast.Name):
        return names(CONSTANTS[node.id])
    if isinstance(node, ast.BinOp):
        return names(node.left) + names(node.right)
    if isinstance(node, ast.Starred):
        return names(node.value)
    if isinstance(node, (ast.Dict, ast.Tuple)):
        return tuple(name for each in getattr(node, "keys", None) or node.elts for name in names(each))
    return (ast.literal_eval(node),)


CONSTANTS = constants(HANDLER)
FIELDS = names(CONSTANTS["NEW"])  # what a new link may have besides its URL, in the API's order
RECORD = names(CONSTANTS["RECORD"])  # all that a record has
COLUMNS = tuple(dict.fromkeys(["link_id", "link", *FIELDS, *RECORD]))  # what a person looks for first
NAME = ast.literal_eval(CONSTANTS["NAME"])
SEE_URL = ast.literal_eval(CONSTANTS["SEE_URL"])  # the link of an item of apidb whose URL is in its attribute url


def rfc3339(when):
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def of_seconds(seconds):
    """Return the RFC 3339 time of a number of seconds since 1970."""
    return rfc3339(EPOCH + timedelta(seconds=seconds))


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
