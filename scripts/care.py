"""Look at the pages of a store's links: fill in titles and notes that are missing, and find what is gone.

The store itself never fetches what it stores; this does, from your machine. A
link gets the tag `dead` when it was gone in two runs a week apart, and loses it
when it lives again. A file in the folder `.care` has what earlier runs found:
a run that was stopped goes on where it was. Where a link leads for good is only
said. With --save the Wayback Machine is asked to keep a copy of what is there.
"""

import argparse
import os
import queue
import sqlite3
import sys
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import urllib3
from tqdm import tqdm

import visiting
from api import CHANGED, GONE, SAME, change, client, pages
from folder import alone, file_name_of
from program import WORKERS, Stop, add_api, end, printable
from titles import described
from visiting import ALIVE, NO_HOST, UNCLEAR

DEAD = "dead"  # the tag
# A week, less what a run may take longer than the one before. So long ago must a link have been looked at to be
# looked at again, and have been found gone to be dead.
WEEK_DAYS = 6.5
ARCHIVE = "https://web.archive.org/save/"
EXAMPLE = "For example: make care API=https://.../prod/link"


class Seen(NamedTuple):
    """What is known of a link: its URL, and when (seconds since 1970) it was looked at, found gone first, and saved.

    `tagged`: it got its tag `dead` here. `savable`: its page is there, for all to see.
    """

    link_id: str
    link: str
    at: float = 0
    gone_since: float | None = None
    tagged: bool = False
    savable: bool = False
    saved: float | None = None


class State:
    """What earlier runs found, in a file: a Seen for each link."""

    def __init__(self, path):
        self.file = sqlite3.connect(path, isolation_level=None)  # each statement is kept at once
        self.file.execute(f"CREATE TABLE IF NOT EXISTS seen ({', '.join(Seen._fields)}, PRIMARY KEY (link_id))")
        self.close = self.file.close

    def all(self):
        rows = self.file.execute(f"SELECT {', '.join(Seen._fields)} FROM seen")
        return {row[0]: Seen(*row) for row in rows}

    def keep(self, seen):
        self.file.execute(f"REPLACE INTO seen VALUES ({', '.join('?' * len(seen))})", seen)

    def forget(self, link_ids):
        self.file.executemany("DELETE FROM seen WHERE link_id = ?", [(each,) for each in link_ids])


def due(send, state, now, week):
    """Return the links to look at, as (Seen, what is wanted of it), and the number of others.

    Of links that are deleted nothing more is known then.
    """
    known, found, others, there = state.all(), [], 0, set()
    for page in pages(send):
        for record in page:
            link_id, link = record["link_id"], record["link"]
            there.add(link_id)
            seen = known.get(link_id) or Seen(link_id, link)
            if seen.link != link:  # it is a name, which leads elsewhere now
                seen = Seen(link_id, link, tagged=seen.tagged)
            if now - seen.at < week:
                others += 1
            else:
                found.append((seen, [name for name in ("title", "notes") if not record.get(name)]))
    state.forget(known.keys() - there)
    return found, others


class Hosts:
    """One request a host at a time, and a pause after each."""

    def __init__(self, pause):
        self.pause, self.locks, self.lock = pause, defaultdict(threading.Lock), threading.Lock()

    @contextmanager
    def hold(self, host):
        with self.lock:
            mine = self.locks[host]
        with mine:
            yield
            time.sleep(self.pause)


def settle(send, seen, visit, wanted, now, week):
    """Write to the store what a visit found of a link, if it is new; return the Seen of now, and (word, sentence)s.

    The words are for the counts; a sentence is "" if there is nothing to print. What somebody else has written
    meanwhile is kept: the link is read again.
    """
    alive, gone = visit.outcome == ALIVE, visit.outcome == visiting.GONE
    gone_since = None if alive else seen.gone_since or (now if gone else None)
    dead = gone and not seen.tagged and seen.gone_since is not None and now - seen.gone_since >= week
    fields = described(visit.body, visit.kind) if visit.body else {}
    fields = {name: text for name, text in fields.items() if name in wanted}
    sent = {}

    def patch_of(record):
        sent.clear()
        if record["link"] == seen.link:
            sent.update({name: text for name, text in fields.items() if not record.get(name)})
            tags = record.get("tags", [])
            if dead and DEAD not in tags:
                sent["tags"] = [*tags, DEAD]
            if alive and seen.tagged and DEAD in tags:
                sent["tags"] = [tag for tag in tags if tag != DEAD] or None
        return dict(sent)

    told = [(visit.outcome, "" if alive else visit.said)]
    outcome = change(send, seen.link_id, patch_of) if fields or dead or (alive and seen.tagged) else SAME
    if outcome == GONE:
        return None, [("deleted meanwhile", "")]
    if outcome not in (CHANGED, SAME):
        return None, [*told, ("refused", outcome)]
    if outcome == CHANGED:
        told += [("filled in", "")] if sent.keys() & {"title", "notes"} else []
        told += [("tagged dead" if dead else "alive again", visit.said)] if "tags" in sent else []
    told += [("moved for good", f"leads to {visit.moved}")] if alive and visit.moved else []
    tagged = (seen.tagged and not alive) or (outcome == CHANGED and dead and "tags" in sent)
    savable = alive and visit.public
    return seen._replace(at=now, gone_since=gone_since, tagged=tagged, savable=savable), told


def look(send, state, links, visit, week, now, told):
    """Visit links, (Seen, what is wanted) each, a host's one after another; told(seen, word, sentence) of each.

    visit(url, wanted) returns a visiting.Visit. Stop if the API does not work.
    """
    done, over, hosts = queue.Queue(), threading.Event(), defaultdict(list)
    for seen, wanted in links:
        hosts[of_host(seen.link)].append((seen, wanted))

    def work(of_one):
        for seen, wanted in of_one:
            if over.is_set():
                return
            try:
                found = visit(seen.link, bool(wanted))
                # Whether this machine is online is known at the end.
                late = found.outcome == NO_HOST
                done.put((seen, found, None if late else settle(send, seen, found, wanted, now(), week)))
            except BaseException as error:
                done.put((seen, None, error))

    pool, unknown, answered = ThreadPoolExecutor(WORKERS), [], False
    try:
        for of_one in hosts.values():
            pool.submit(work, of_one)
        with tqdm(total=len(links), unit=" links", disable=None) as bar:
            for _ in links:
                seen, found, outcome = done.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                if outcome is None:
                    unknown.append((seen, found))
                else:
                    answered = answered or found.said.startswith("answered")
                    note(state, seen, *outcome, told)
                bar.update()
    finally:
        over.set()
        pool.shutdown(wait=False, cancel_futures=True)
    for seen, found in unknown:
        if answered:
            found = found._replace(outcome=visiting.GONE)
        else:
            found = found._replace(outcome=UNCLEAR, said=f"{found.said}, or this machine is offline")
        note(state, seen, *settle(send, seen, found, [], now(), week), told)


def of_host(link):
    try:
        return visiting.host_of(link)
    except visiting.NotSeen:
        return link


def note(state, seen, after, said, told):
    if after:
        state.keep(after)
    for word, sentence in said:
        told(seen, word, sentence)


def save(state, ask, pause, now, told):
    """Ask for a copy of each page that is there and of which none was asked for, until the archive has had enough."""
    links = [seen for seen in state.all().values() if seen.savable and not seen.saved]
    for seen in tqdm(links, unit=" copies", disable=None):
        parts = urlsplit(seen.link)
        if "@" in parts.netloc:  # a user and a password are for nobody else
            told(seen, "not saved", "has a user or a password in it")
            continue
        answer = ask(urlunsplit(parts._replace(fragment="")))
        if answer == 429:
            left = len(links) - links.index(seen)
            print(f"The Wayback Machine takes no more for now; {left} left. Run it again to go on.", file=sys.stderr)
            return
        if answer in (401, 403):
            raise Stop(
                f"The Wayback Machine answered {answer}. It may want the key of an account: put that into the"
                " environment with export ARCHIVE_KEY=access:secret, from https://archive.org/account/s3.php"
            )
        if answer < 300:
            state.keep(seen._replace(saved=now()))
        told(seen, "saved" if answer < 300 else "not saved", "" if answer < 300 else f"the archive answered {answer}")
        time.sleep(pause)


def archive(url, key):
    """Return a function that asks the archive at a URL to keep a copy of a page, and returns the status.

    That is "Save Page Now 2": a POST with the page's URL, and a copy of the last 30 days is enough.
    """
    pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=10, read=120))
    headers = {"User-Agent": visiting.AGENT, "Accept": "application/json"}
    headers |= {"Authorization": f"LOW {key}"} if key else {}

    def ask(page):
        fields = {"url": page, "if_not_archived_within": "30d"}
        try:
            answer = pool.request("POST", url, fields=fields, headers=headers, encode_multipart=False, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise Stop(f"The Wayback Machine cannot be reached: {getattr(error, 'reason', None) or error}") from None
        return answer.status

    return ask


def care(send, folder, name, options, visit=visiting.visit, now=time.time):
    """Look at the links of a store, and print what was found; return 1 if the API refused a change, else 0.

    `name` is that of the file in `folder` which has what is known. `options` has week and pause in seconds, private,
    limits, and ask, the function of archive(), or None. Stop if the API does not work.
    """
    counts = Counter()

    def told(seen, word, sentence):
        counts[word] += 1
        if sentence:
            tqdm.write(printable(f"{word}: {seen.link:.300}: {sentence}"), file=sys.stdout)

    hosts = Hosts(options.pause)
    looked = lambda url, wanted: visit(url, wanted, options.private, options.limits, hosts.hold)
    with alone(folder, "care"), closing(State(folder / f"{name}.sqlite")) as state:
        links, others = due(send, state, now(), options.week)
        try:
            look(send, state, links, looked, options.week, now, told)
            if options.ask:
                save(state, options.ask, options.pause, now, told)
        except (Stop, KeyboardInterrupt):
            print(f"Not complete: {tally(counts, others)}. Run it again to go on.", file=sys.stderr)
            raise
    print(tally(counts, others))
    return 1 if counts["refused"] else 0


def tally(counts, others):
    counts = [f"{count} {word}" for word, count in counts.items()]
    return ", ".join(counts + ([f"{others} looked at before"] if others else [])) or "nothing was looked at"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_api(parser)
    parser.add_argument("--private", action="store_true", help="visit also what is in private networks, or here")
    parser.add_argument("--save", action="store_true", help="ask the Wayback Machine to keep copies")
    parser.add_argument("--state", type=Path, default=Path(".care"), help="folder for what was found (.care)")
    parser.add_argument("--week", type=float, default=WEEK_DAYS, help=f"days between two looks ({WEEK_DAYS})")
    parser.add_argument("--pause", type=float, default=1, help="seconds after each request to a host (1)")
    parser.add_argument("--seconds", type=float, default=visiting.USUAL.seconds, help="that a visit may take (30)")
    parser.add_argument("--archive", default=ARCHIVE, help=f"where to ask for copies ({ARCHIVE})")
    options = parser.parse_args()
    end(lambda: run(options))


def run(options):
    if not options.api:
        raise Stop(f"Which API? {EXAMPLE}")
    given = SimpleNamespace(
        week=options.week * 86400,
        pause=options.pause,
        private=options.private,
        limits=visiting.USUAL._replace(seconds=options.seconds),
        ask=archive(options.archive, os.environ.get("ARCHIVE_KEY", "")) if options.save else None,
    )
    return care(client(options.api, options.sign), options.state, file_name_of(options.api), given)


if __name__ == "__main__":
    main()
