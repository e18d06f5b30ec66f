"""What a page says of itself: its title and description, in HTML or Open Graph, from its bytes."""

import codecs
import re
import time
from html.parser import HTMLParser

from charset_normalizer import from_bytes

from record import CONTROL, NOTES, TITLE

SECONDS = 5  # that the start of a page may take to be read
UNFINISHED = 32768  # characters of a tag, comment or text of which the end has not come

# What pages are encoded in. Python knows other "encodings" too, some of which take hours.
CHARSETS = re.compile(
    r"utf-?8|utf-?16(-?[lb]e)?|(us-)?ascii|iso[-_]?8859[-_]\d+|latin-?\d|(windows|cp)-?\d+|koi8-[ru]|mac(intosh|roman)"
    r"|gb(k|2312|18030)|big5(-?hkscs)?|euc[-_](jp|kr)|iso-2022-(jp|kr)|(x-)?sjis|shift[-_]jis|tis-620"
)
CHARSET = r"(?i:charset)\s*=\s*[\"']?([\w.:-]+)"
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
TITLES = ("title", "og:title", "twitter:title")  # the first of these that a page has
DESCRIPTIONS = ("og:description", "description", "twitter:description")


class Head(HTMLParser):
    """Collects in `found` the title of a page and what its <meta> say, by their name or property; the first of each."""

    def __init__(self):
        super().__init__()
        self.found, self.title, self.over = {}, None, False

    def handle_starttag(self, tag, attributes):
        if self.title is not None:  # a title has no elements, but what looks like one
            self.title.append(self.get_starttag_text())
        elif self.over:  # what is in the same piece
            pass
        elif tag == "title" and "title" not in self.found:
            self.title = []
        elif tag == "meta":
            given = {name: value or "" for name, value in reversed(attributes)}  # the first of two counts
            for name in {given.get("property", "").lower().strip(), given.get("name", "").lower().strip()}:
                if name and given.get("content", "").strip():
                    self.found.setdefault(name, given["content"])
        elif tag in ("body", "svg"):
            self.over = True

    def handle_endtag(self, tag):
        if tag == "title" and self.title is not None:
            self.found["title"], self.title = "".join(self.title), None
        elif self.title is not None:
            self.title.append(f"</{tag}>")
        elif tag == "head":
            self.over = True

    def handle_data(self, data):
        if self.title is not None:
            self.title.append(data)

    def handle_comment(self, data):
        if self.title is not None:
            self.title.append(f"<!--{data}-->")


def decoded(body, kind):
    """Return the text of a page: by its mark, its Content-Type, its <meta>, or else by how it looks.

    A name that does not fit the bytes is not believed (HTML Standard, "determining the character encoding", has
    the order; it believes them).
    """
    declared = [name for mark, name in MARKS.items() if body.startswith(mark)]
    declared += re.findall(CHARSET, kind)
    declared += re.findall(rf"(?i:<meta)[^>]+{CHARSET}", body[:4096].decode("ascii", "replace"))
    for name in [*declared, "utf-8"]:
        name = name.lower()
        if CHARSETS.fullmatch(name):
            name = {"latin-1": "cp1252", "latin1": "cp1252", "iso-8859-1": "cp1252"}.get(name, name)  # as browsers do
            try:
                # The last character may be cut in two.
                return codecs.getincrementaldecoder(name)().decode(body).removeprefix("\ufeff")
            except (LookupError, UnicodeError):
                pass
    best = from_bytes(body[:65536]).best()
    return body.decode(best.encoding if best else "utf-8", "replace")


def clean(text, most):
    """Return a text on one line, of so many characters at most, without what the API takes in none."""
    text = re.sub("[\x7f-\x9f]", " ", CONTROL.sub(" ", text))
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1].rstrip() + "\u2026"


def described(body, kind, clock=time.monotonic):
    """Return the title and the notes that a page gives itself, as fields of a link; {} if it has none."""
    head, text, end = Head(), decoded(body, kind), clock() + SECONDS
    try:
        for start in range(0, len(text), 8192):
            head.feed(text[start : start + 8192])
            # HTMLParser reads what is not finished from its start again, which takes hours where it is long.
            if head.over or len(head.rawdata) > UNFINISHED or clock() > end:
                break
        else:
            head.close()
    except AssertionError:  # HTMLParser fails on some <![
        pass
    if head.title is not None:  # it ends where the page was cut
        head.found["title"] = "".join(head.title)
    fields = {}
    for field, names, most in ("title", TITLES, TITLE), ("notes", DESCRIPTIONS, NOTES):
        texts = [clean(head.found.get(name, ""), most) for name in names]
        if any(texts):
            fields[field] = next(filter(None, texts))
    return fields
