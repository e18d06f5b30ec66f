"""Give all links that have a tag another one in its place, or take the tag off.

It finds the links that have the tag now, so that it can be run again to go on.
A link that somebody else changes at the same time is read again, and keeps what
they wrote.
"""

import argparse
import sys
from collections import Counter
from urllib.parse import urlencode

from tqdm import tqdm

from api import CHANGED, GONE, SAME, change, client, pages
from program import Stop, add_api, end, in_parallel, printable

EXAMPLE = "For example: make retag FROM=old TO=new API=https://.../prod/link"


def replaced(tags, old, new):
    """Return tags with `new` in the place of `old`, each once; without it if `new` is ""."""
    wanted = [new if tag == old else tag for tag in tags]
    return [tag for tag in dict.fromkeys(wanted) if tag]


def patch_of(record, old, new):
    """Return the merge patch that replaces a tag of a record, {} if it does not have it."""
    tags = record.get("tags", [])
    return {"tags": replaced(tags, old, new) or None} if old in tags else {}


def retag(send, old, new, dry_run=False):
    """Replace a tag of all links that have it, or take it off if `new` is ""; print the counts.

    Return 1 if a link was refused, else 0. Stop if the API does not work, or takes no such tag.
    """
    for tag in filter(None, (old, new)):
        refused = send("GET", "?" + urlencode({"limit": 1, "tag": tag})).sentence
        if refused:
            raise Stop(f"{tag[:80]!r} is no tag: {refused}")
    found = [record["link_id"] for page in pages(send, {"tag": old}) for record in page]
    if dry_run:
        print(f"{len(found)} links have the tag {printable(old)}; nothing is changed.")
        return 0
    counts = Counter()
    try:
        for link_id, outcome in in_parallel(
            lambda each: change(send, each, lambda now: patch_of(now, old, new)), found
        ):
            known = outcome in (CHANGED, SAME, GONE)
            counts[outcome if known else "refused"] += 1
            if not known:
                tqdm.write(printable(f"{link_id}: {outcome}"), file=sys.stderr)
    except (Stop, KeyboardInterrupt):
        left = len(found) - counts.total()
        print(f"Not complete: {tally(counts)}; {left} left. Run it again to go on.", file=sys.stderr)
        raise
    print(tally(counts))
    return 1 if counts["refused"] else 0


def tally(counts):
    """Return the counts in words; links that lost the tag, or went, by somebody else's hand only if there are any."""
    more = [f"{counts[each]} {each}" for each in (SAME, GONE) if counts[each]]
    return ", ".join([f"{counts[CHANGED]} {CHANGED}", *more, f"{counts['refused']} refused"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="old", default="", help="the tag that links have")
    parser.add_argument("--to", dest="new", help='the tag that they get instead; "" takes it off')
    add_api(parser)
    parser.add_argument("--dry-run", action="store_true", help="only count the links that have it")
    options = parser.parse_args()
    end(lambda: run(options))


def run(options):
    if not options.old:
        raise Stop(f"Which tag? {EXAMPLE}")
    if options.new is None:
        raise Stop(f"Which tag instead? TO= takes it off. {EXAMPLE}")
    if options.new == options.old:
        raise Stop("FROM and TO are the same tag.")
    if not options.api:
        raise Stop(f"Which API? {EXAMPLE}")
    return retag(client(options.api, options.sign), options.old, options.new, options.dry_run)


if __name__ == "__main__":
    main()
