"""Write all links of a store into a new file of a folder, and keep the newest of them. Made for cron.

It says nothing if all went well and nobody looks on, and ends with another
code than 0 if the new file could not be made whole: then no older one is
deleted. Files of other stores in the folder are left alone.
"""

import argparse
import os
import re
import sys
from datetime import datetime, timezone
from pathlib import Path

from api import client, pages
from aws import TABLE, pages_of_table
from folder import alone, file_name_of
from program import Stop, add_api, end
from writing import save

EXAMPLE = "For example: make backup DIR=backups KEEP=30 API=https://.../prod/link"


def flush(path):
    """Return when a file, or the names in a folder, are on the disk, not only on their way there."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def backup(api, folder, keep, signed=False):
    """Write all links of an API, or of dynamodb:TABLE, to a new file; delete all but the newest `keep` files.

    Return the file, and how many links it has. Stop or OSError if it is not whole: then nothing is deleted.
    """
    prefix = f"links-{file_name_of(api)}-"
    with alone(folder, "backup"):
        for part in folder.glob(f"{prefix}*.part"):  # of a run that was killed
            part.unlink()
        older = sorted(each for each in folder.glob(f"{prefix}*.jsonl") if is_backup(each.name, prefix))
        new = folder / f"{prefix}{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%fZ}.jsonl"
        links = pages_of_table(api.removeprefix(TABLE)) if api.startswith(TABLE) else pages(client(api, signed))
        count = save(str(new), links)
        flush(new)
        flush(folder)
        if not count and any(each.stat().st_size for each in older):
            raise Stop(f"The store is empty. {new} says so; the older backups, which have links, are all kept.")
        for each in older[: len(older) + 1 - keep]:
            each.unlink()
    return new, count


def is_backup(name, prefix):
    return re.fullmatch(r"\d{8}T\d{6}\.\d{6}Z\.jsonl", name.removeprefix(prefix))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, default=Path("backups"), help="the folder (backups)")
    parser.add_argument("--keep", type=int, default=30, help="how many files are kept (30)")
    add_api(parser, ", or dynamodb:TABLE, the table of a store")
    options = parser.parse_args()
    if options.keep < 1:
        parser.error("At least one file must be kept: the new one.")
    end(lambda: run(options))


def run(options):
    if not options.api:
        raise Stop(f"Which API? {EXAMPLE}")
    path, count = backup(options.api, options.dir, options.keep, options.sign)
    if sys.stdout.isatty():
        print(f"{count} links in {path}")
    return 0


if __name__ == "__main__":
    main()
