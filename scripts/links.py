"""Put links from a file, a table or another API into a link store, or all links of a store into a file.

Import takes what browsers, bookmark servers, read-later services and link
shorteners export (HTML, JSON, CSV, a zip of these), what `curl $API` prints,
and a plain list of URLs; or dynamodb:TABLE, a server as linkding:https://host,
or the URL at which another API lists its links. It can be run again safely.
Export writes what import takes back: .jsonl, .csv or .html; of dynamodb:TABLE
it reads the table of a store, without its API. docs/import.md says more.

The environment variable APIDB_KEY is the API's key, if it wants one; --sign
signs the requests with the AWS credentials. What an import reads gets neither.
"""

import argparse
import sys
from collections import Counter

from tqdm import tqdm

from api import ADDED, CHANGED, THERE, anyone_reads, client, pages, store
from aws import TABLE, pages_of_table
from program import Stop, add_api, end, in_parallel, printable
from record import canonical, fitted, name_of, problem_of
from sources import read
from writing import save

PRIVATE = "private"


def entries(source):
    """Return a list of dialects.Found in which each link is once, and is as the API takes it.

    Browsers keep a link in two folders: the tags are united, else the first one counts. It is private if one is.
    """
    links = {}
    for found in read(source):
        problem = found.problem
        if not problem:
            record, said = fitted(found.record)
            problem = problem_of(record)
            found = found._replace(record=record, problem=problem, said=[*found.said, *said])
        key = len(links) if problem else (name_of(found.record), canonical(found.record["link"]))
        if key in links:
            first = links[key]
            record, said = fitted(found.record | first.record | united(first.record, found.record))
            said = list(dict.fromkeys([*first.said, *found.said, *said]))
            lost = [*first.lost, *found.lost]
            found = first._replace(record=record, private=first.private or found.private, said=said, lost=lost)
        links[key] = found
    return list(links.values())


def united(first, second):
    tags = list(dict.fromkeys(first.get("tags", []) + second.get("tags", [])))
    return {"tags": tags} if tags else {}


def describe(found):
    """Print of what kinds links are, and what they have that a link has not."""
    for kind, count in Counter(each.kind for each in found if each.kind).items():
        print(f"{kind}, {count:,} link{'s' * (count != 1)}")
    lost = list(dict.fromkeys(name for each in found for name in each.lost))
    if lost:
        print(printable(f"Not kept, as a link has no such field: {', '.join(lost)}."))


def import_file(source, api, dry_run=False, signed=False, merge=False, private=False):
    """Store the links of a source; print what is refused or shortened, and the counts.

    Those that are private are left out if anyone can read the API, but not if `private` says to send them. Return
    1 if any was refused, else 0.
    """
    counts, found = Counter(), entries(source)
    describe(found)
    if private or not any(each.private for each in found):
        hidden = False
    else:
        hidden = anyone_reads(api) if api else True
    send = None if dry_run else client(api, signed)

    def work(entry):
        if entry.problem or (entry.private and hidden):
            return entry.problem or PRIVATE
        return ADDED if dry_run else store(send, entry.record, merge)

    try:
        for entry, outcome in in_parallel(work, found):
            counts[outcome if outcome in (ADDED, CHANGED, THERE, PRIVATE) else "refused"] += 1
            told = [] if outcome == PRIVATE else entry.said
            for sentence in [*told, *([] if outcome in (ADDED, CHANGED, THERE, PRIVATE) else [outcome])]:
                line = remark(source, entry.place, entry.record.get("link"), sentence)
                tqdm.write(line, file=sys.stderr)
    except (Stop, KeyboardInterrupt):
        if counts:
            left = found[counts.total() :]
            rest = f"; {len(left)} left, from {printable(f'{source}:{left[0].place}')} on" if left else ""
            print(f"Not complete: {tally(counts)}{rest}. Run it again to go on.", file=sys.stderr)
        raise
    if counts[PRIVATE]:
        why = "anyone can read the store" if api else "a store that anyone can read gets none"
        print(f"{counts[PRIVATE]} private ones are not sent: {why}. PRIVATE=yes sends them.")
    print(f"{counts[ADDED]} links to send, {counts['refused']} refused" if dry_run else tally(counts))
    return 1 if counts["refused"] else 0


def remark(source, place, link, sentence):
    """Return the line that says this of a link."""
    return printable(f"{source}:{place}: " + (f"{link!s:.300}: " if link is not None else "") + sentence)


def tally(counts):
    changed = f"{counts[CHANGED]} {CHANGED}, " if counts[CHANGED] else ""
    return f"{counts[ADDED]} {ADDED}, {changed}{counts[THERE]} {THERE}, {counts['refused']} refused"


def export_table(table, path):
    """Write all links of an apidb's table to a file, without its API; return how many. Stop if it cannot be done.

    What has been stored before is in it, in no order; what changes meanwhile may be.
    """
    return save(path, pages_of_table(table))


def export_file(path, api, signed):
    """Write all links of the API, or of dynamodb:TABLE, to a file, and print how many."""
    if api.startswith(TABLE):
        count = export_table(api.removeprefix(TABLE), path)
    else:
        count = save(path, pages(client(api, signed)))
    print(f"{count} links in {path}")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["import", "export"])
    file = "a file; an import also takes dynamodb:TABLE, linkding:URL, karakeep:URL, linkwarden:URL, shlink:URL, or the"
    file += " URL at which another API lists its links"
    parser.add_argument("file", nargs="?", default="", help=file)
    add_api(parser, "; an export also takes dynamodb:TABLE, the table of a store")
    parser.add_argument("--dry-run", action="store_true", help="only say what an import would do")
    parser.add_argument("--merge", action="store_true", help="give links that are there already what they lack")
    parser.add_argument("--private", action="store_true", help="send private ones also where anyone can read them")
    options = parser.parse_args()
    end(lambda: run(options))


def run(options):
    file = "bookmarks.html" if options.action == "import" else "links.jsonl"
    example = f"For example: make {options.action} FILE={options.file or file} API=https://.../prod/link"
    if not options.file:
        raise Stop(f"Which file? {example}")
    if not options.api and not options.dry_run:
        raise Stop(f"Which API? {example}")
    if options.action == "import":
        more = options.dry_run, options.sign, options.merge, options.private
        return import_file(options.file, options.api, *more)
    return export_file(options.file, options.api, options.sign)


if __name__ == "__main__":
    main()
