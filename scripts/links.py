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
import sys
from collections import Counter

from tqdm import tqdm

from api import ADDED, THERE, client, pages, store
from aws import TABLE, pages_of_table
from program import Stop, add_api, end, in_parallel, printable
from record import FIELDS, name_of, nearly_canonical, problem_of
from sources import read
from writing import save


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


def import_file(path, api, dry_run, signed):
    """Store the links of a file, table or URL; print what is refused, and the counts. Return 1 if any was, else 0."""
    counts, found = Counter(), entries(path)
    send = None if dry_run else client(api, signed)

    def work(entry):
        _, record, problem = entry
        return problem or (ADDED if dry_run else store(send, record))

    try:
        for (line, record, _), outcome in in_parallel(work, found):
            counts[outcome if outcome in (ADDED, THERE) else "refused"] += 1
            if outcome not in (ADDED, THERE):
                tqdm.write(refusal(path, line, record.get("link"), outcome), file=sys.stderr)
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


def tally(counts):
    return f"{counts[ADDED]} {ADDED}, {counts[THERE]} {THERE}, {counts['refused']} refused"


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
    file = "a file; an import also takes dynamodb:TABLE, or the URL at which another API lists its links"
    parser.add_argument("file", nargs="?", default="", help=file)
    add_api(parser, "; an export also takes dynamodb:TABLE, the table of a store")
    parser.add_argument("--dry-run", action="store_true", help="only say what an import would do")
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
        return import_file(options.file, options.api, options.dry_run, options.sign)
    return export_file(options.file, options.api, options.sign)


if __name__ == "__main__":
    main()
