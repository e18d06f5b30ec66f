"""Simulate a newest-first index in shards, and print what its pages take, in Markdown.

A shard is what DynamoDB's Query gives: keys in order, from a position on, up to
a limit. A page asks all of them from the same position, and merges. The sort key
of the index ends with the id, so that each link has a position of its own: links
with the same sort key come in no certain order.
"""

import argparse
import bisect
import dataclasses
import heapq
import itertools
import random
import tomllib
import uuid
import zlib
from math import ceil

from cfnlint.decode import decode

import grow
from grow import billing, cost

COUNTS = (1, 2, 4, 8, 16)
LINKS, ADDED = 20_000, 5_000
LIMIT = 100

# --- The index


def shard_of(link_id, count):
    """Return the number of a link's shard; CRC-32 is the same in each process, which Python's hash() is not."""
    return zlib.crc32(link_id.encode()) % count


class Shards:
    """An index of sort keys (created_at, link_id), in `count` partitions by the hash of link_id."""

    def __init__(self, count):
        self.parts = [[] for _ in range(count)]

    def add(self, key):
        bisect.insort(self.parts[shard_of(key[1], len(self.parts))], key)

    def query(self, part, limit, position):
        """Return up to `limit` keys of a partition before a position, newest first, and whether it has more.

        The position, None for the newest end, need not be a key of this partition.
        """
        end = bisect.bisect_left(part, position) if position else len(part)
        return part[max(end - limit, 0) : end][::-1], end > limit

    def page(self, limit, each, position=None):
        """Return up to `limit` keys before a position, newest first, and the next position, None at the end.

        Each partition is asked for `each` keys. With limit + 1 of them a page
        is full while there are more; with fewer it may be short, but never empty.
        """
        answers = [self.query(part, each, position) for part in self.parts]
        # Of what is older than its last key, a partition that has more has said nothing.
        known = max((keys[-1] for keys, more in answers if more), default=None)
        merged = heapq.merge(*(keys for keys, _ in answers), reverse=True)
        page = list(itertools.takewhile(lambda key: known is None or key >= known, merged))
        return page[:limit], page[:limit][-1] if known or len(page) > limit else None

    def pages(self, limit, each):
        """Yield all pages; keys may be added meanwhile."""
        page, position = self.page(limit, each)
        yield page
        while position:
            page, position = self.page(limit, each, position)
            yield page


# --- The simulation


def keys(chance, count, skewed):
    """Return keys of random ids: all of one millisecond, or of times as of functions whose clocks differ."""
    ids = [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(count)]
    times = [number + int(chance.gauss(0, 100)) if skewed else 0 for number in range(count)]
    return list(zip(times, ids))


def walked(shards, limit, each, added):
    """Return the pages of all keys, while others are added, some after each page."""
    pages, some, added = [], limit // 4 + 1, list(added)
    for page in shards.pages(limit, each):
        pages.append(page)
        for key in added[:some]:
            shards.add(key)
        del added[:some]
    return pages


def is_right(pages, start, added):
    """Return whether pages have each key of the start once, in order, and else only keys that were added."""
    found = [key for page in pages for key in page]
    in_order = all(newer > older for newer, older in zip(found, found[1:]))
    return in_order and set(start) <= set(found) <= {*start, *added}


def simulated(count, each, skewed):
    """Return the share of the fullest of `count` shards, and how many links a page has if each is asked for `each`.

    cost.CostError if a walk is not complete, or not in order.
    """
    chance = random.Random(count)
    given = keys(chance, LINKS + ADDED, skewed)
    chance.shuffle(given)
    start, added = given[:LINKS], given[LINKS:]
    shards = Shards(count)
    for key in start:
        shards.add(key)
    fullest = max(map(len, shards.parts)) / LINKS
    pages = walked(shards, LIMIT, each, added)
    if not is_right(pages, start, added):
        raise cost.CostError(f"With {count} shards a walk is not complete, or not in order.")
    return fullest, sum(map(len, pages[:-1])) / len(pages[:-1])  # the last one ends with the links


def lists(kind, size, prices):
    """Return a table of shards, given a list of 100 links as a grow.Kind, the bytes of a link, and prices."""
    head = ("Shards", "New links a second", "Asked of each", "Links a page", "Read units a page")
    rows = [(*head, "Read units for 100 links", "USD a million times 100 links")]
    for count in COUNTS:
        for each in dict.fromkeys(min(ceil(share * (LIMIT + 1) / count), LIMIT + 1) for share in (count, 2, 1)):
            simulated(count, each, skewed=False)  # must be right, too
            fullest, links = simulated(count, each, skewed=True)
            units = count * max(ceil(each * size / 4096), 1) / 2
            full = LIMIT / links
            page = dataclasses.replace(kind, calls=count, items=count * each, reads=units, out=kind.out / full)
            usd = cost.usd(prices.each(page) * full * 1_000_000)
            figures = f"{grow.PARTITION_WRITES / fullest:,.0f}", each, f"{links:.0f}", f"{units:g}"
            rows.append((count, *figures, f"{units * full:.1f}", usd))
    return cost.table(*rows)


def cursors(index):
    """Return a table of the bytes of a cursor, with the positions of so many shards."""
    rows = [("Bytes of a cursor", *(f"{count} position" + "s" * (count > 1) for count in COUNTS))]
    for name, size in (("URLs of 80 characters", 80), ("The longest sort keys", index.SORT_KEY_BYTES)):
        key = [index.rfc3339(grow.START), str(uuid.UUID(int=0)), "h" * size]
        rows.append((name, *(f"{len(index.cursor_of(key * count, 'created_at')):,}" for count in COUNTS)))
    return cost.table(*rows)


def report(template, data):
    """Return the tables, given the template and prices.toml's content."""
    with grow.stores(template) as (index, store, meter):
        kind = grow.measured(index, store, meter, LINKS)[0]
        size = billing.item_bytes(store.make(0))
        return "\n\n".join([lists(kind, size, cost.Prices(data, template)), cursors(index)])


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    template, _ = decode(str(grow.ROOT / "setupapidb.yml"))
    print(report(template, tomllib.loads((grow.ROOT / "scripts" / "prices.toml").read_text())))
    print(f"\nEach walk of {LINKS:,} links, with {ADDED:,} added meanwhile, had all of them, once and in order.")


if __name__ == "__main__":
    main()
