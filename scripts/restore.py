"""Bring back the links of a store as they were at a time of the last 35 days, by point-in-time recovery.

DynamoDB makes a second table of that time. What differs from now is shown: links
that were deleted since come back, and those that were changed since are set
back, if you say so; what was added since stays. All of it goes through the
store's API, on the condition that a link is as it was shown. The second table
is deleted in the end, however that comes.
"""

import argparse
import os
import signal
import sys
import uuid
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import NamedTuple

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError, WaiterError

import stack
from api import ADDED, client, store
from aws import record_of, scan
from program import Stop, end, in_parallel, printable
from record import FIELDS
from writing import save

EXAMPLE = "For example: make restore AT=2026-11-20T12:00Z STACK=apidb"
SECONDS, TIMES = 20, 900  # between two looks at a table that is being made, and looks: five hours
COMPARED = ("link", "title", "tags", "notes", "expires_at")


class Change(NamedTuple):
    """A link that differs: as it was then, as it is now (None if it was deleted since), and its entity tag of now."""

    then: dict
    now: dict | None = None
    etag: str = ""


# --- The second table


@contextmanager
def restored(dynamodb, table, at):
    """Give the name of a second table, as the first one was at a time, while the block runs; then delete it."""
    second = f"{table[:200]}-at-{at:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
    try:
        try:
            # Its indexes would cost time and money, and nobody reads them.
            dynamodb.restore_table_to_point_in_time(
                SourceTableName=table, TargetTableName=second, RestoreDateTime=at, GlobalSecondaryIndexOverride=[]
            )
        except ClientError as error:
            raise Stop(
                f"{table} cannot be restored: {error.response['Error']['Message']} {window(dynamodb, table)}"
            ) from None
        print(f"Making {second}, which takes minutes, or with many links hours", flush=True)
        wait(dynamodb, second)
        yield second
    finally:
        remove(dynamodb, second)


def window(dynamodb, table):
    """Return in words from when to when a table can be restored, as far as DynamoDB tells."""
    with suppress(ClientError, KeyError):
        told = dynamodb.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
        told = told["PointInTimeRecoveryDescription"]
        if told["PointInTimeRecoveryStatus"] != "ENABLED":
            return "It has no point-in-time recovery."
        first, last = (told[f"{each}RestorableDateTime"] for each in ("Earliest", "Latest"))
        return f"It can be from {stack.when(first)} to {stack.when(last)}."
    return ""


def wait(dynamodb, table):
    waiter = dynamodb.get_waiter("table_exists")  # and is active
    waiter.wait(TableName=table, WaiterConfig={"Delay": SECONDS, "MaxAttempts": TIMES})


def remove(dynamodb, second):
    """Delete the second table, if it is there; say how to, if that does not go."""
    try:
        while True:
            try:
                dynamodb.delete_table(TableName=second)
                return
            except dynamodb.exceptions.ResourceNotFoundException:
                return
            except dynamodb.exceptions.ResourceInUseException:
                print(
                    f"{second} is deleted as soon as it is made. Ctrl-C leaves it there.", file=sys.stderr, flush=True
                )
                wait(dynamodb, second)
    except BaseException:
        print(
            f"{second} could not be deleted, and costs storage. Delete it:\n"
            f"  aws dynamodb delete-table --table-name {second}",
            file=sys.stderr,
            flush=True,
        )
        raise


# --- What differs


def links_of(table):
    """Yield the items of a table that are links: neither what was deleted, nor what the store counts."""
    for items in scan(table):
        yield from (item for item in items if {"etag", "created_at"} <= item.keys() and "deleted_at" not in item)


def compare(send, then, now):
    """Return what differs between two tables: the Changes, and the links that were added since, as (id, URL).

    What a changed link is now the API says.
    """
    there = {item["link_id"]["S"]: (item["etag"]["S"], record_of(item)["link"]) for item in links_of(now)}
    changes, common = [], set()
    for item in links_of(then):
        record = record_of(item)
        etag, _ = there.get(record["link_id"], ("", ""))
        common.add(record["link_id"])
        if etag == item["etag"]["S"]:
            continue
        answer = send("GET", f"/{record['link_id']}")
        if answer.sentence:
            changes.append(Change(record))
        elif differing(record, answer.value):
            changes.append(Change(record, answer.value, answer.headers["ETag"]))
    return changes, [(link_id, link) for link_id, (_, link) in there.items() if link_id not in common]


def differing(then, now):
    return [name for name in COMPARED if (then.get(name) or None) != (now.get(name) or None)]


def show(changes, added, name, at):
    """Print what differs."""
    print(f"Since {stack.when(at)}, in {name}:")
    for change in changes:
        if change.now is None:
            print(printable(f"  deleted  {change.then['link']:.300}"))
    for change in changes:
        if change.now is not None:
            print(printable(f"  changed  {change.then['link']:.300}"))
            for field in differing(change.then, change.now):
                was, is_now = (str(record.get(field, "none"))[:200] for record in (change.then, change.now))
                print(printable(f"             {field}: was {was}; is {is_now}"))
    for _, link in added:
        print(printable(f"  added    {link:.300}"))
    if not changes:
        print("  nothing was deleted or changed" + (", only added" if added else ""))


# --- Bringing it back


def bring_back(send, change):
    """Store a link as it was; return "" or why not. It must still be as it was shown."""
    if change.now is None:
        record = {name: change.then[name] for name in ("link_id", "link", *FIELDS) if name in change.then}
        outcome = store(send, record)
        return "" if outcome == ADDED else f"it was not stored: {outcome}"
    patch = {name: change.then.get(name) for name in differing(change.then, change.now)}
    answer = send("PATCH", f"/{change.then['link_id']}", patch, {"If-Match": change.etag})
    return "it was changed meanwhile, and stays so." if answer.status == 412 else answer.sentence


def agreed(question, yes):
    """Return whether the person wants it; without a terminal only if `yes`."""
    if yes or not sys.stdin.isatty():
        return yes
    return input(f"{question} Type yes: ").strip() == "yes"


def import_back(send, changes, name, yes):
    """Bring back what the person wants of it; return 1 if some could not be, else 0.

    What links that are set back are now goes to a file before.
    """
    deleted = [change for change in changes if change.now is None]
    changed = [change for change in changes if change.now is not None]
    wanted = deleted if deleted and agreed(f"Bring back the {len(deleted)} that were deleted?", yes) else []
    if changed and agreed(f"Set back the {len(changed)} that were changed? What was written since is lost then.", yes):
        path = f"links-{name}-{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%fZ}.jsonl"
        save(path, [[change.now for change in changed]])
        print(f"{path} has what these {len(changed)} are now.")
        wanted = wanted + changed
    if not wanted:
        print("Nothing is brought back." + ("" if yes or sys.stdin.isatty() else " YES=1 brings it back."))
        return 0
    failed = 0
    for change, problem in in_parallel(lambda change: bring_back(send, change), wanted):
        if problem:
            failed += 1
            print(printable(f"{change.then['link']:.300}: {problem}"), file=sys.stderr)
    print(f"{len(wanted) - failed} brought back, {failed} not")
    return 1 if failed else 0


# --- The program


def moment(text):
    """Return the time that is meant; Stop if it is none that has been."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Stop(f"At which time? {EXAMPLE}") from None
    if at.tzinfo is None:
        raise Stop(f"In which time zone is {text}? Z is UTC. {EXAMPLE}")
    if at >= datetime.now(timezone.utc):
        raise Stop(f"{text} is yet to come.")
    return at.astimezone(timezone.utc)


def opened(there, resources):
    """Return the table of a stack, and a client of its API, with what that wants of a key or a signature."""
    outputs = stack.outputs_of(there)
    tables = [physical for kind, _, physical in resources if kind == stack.TABLE]
    if "APIUrl" not in outputs or len(tables) != 1:
        raise Stop(f"{there['StackName']} is no store of links.")
    gateway = boto3.client("apigateway")
    if outputs.get("ApiKeyId") and not os.environ.get("APIDB_KEY"):
        os.environ["APIDB_KEY"] = gateway.get_api_key(apiKey=outputs["ApiKeyId"], includeValue=True)["value"]
    url = stack.reachable(outputs["APIUrl"], gateway.meta.endpoint_url)
    return tables[0], client(url, outputs.get("Access") == "iam")


def restore(name, at, yes):
    """Show what differs from a time, and bring it back if it is wanted; return the exit code."""
    cloudformation, dynamodb = boto3.client("cloudformation"), boto3.client("dynamodb")
    there = stack.existing(cloudformation, name)
    table, send = opened(there, stack.resources_of(cloudformation, there["StackId"]))
    with restored(dynamodb, table, at) as second:
        changes, added = compare(send, second, table)
    show(changes, added, name, at)
    return import_back(send, changes, name, yes) if changes else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stack", default="apidb", help="name of the store's stack (apidb)")
    parser.add_argument("--at", default="", help="the time, such as 2026-11-20T12:00Z")
    parser.add_argument("--yes", action="store_true", help="bring back and set back without asking")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    end(lambda: run(options))


def run(options):
    at = moment(options.at)
    try:
        return restore(options.stack, at, options.yes)
    except (NoRegionError, NoCredentialsError) as error:
        settings = "Set AWS_PROFILE, or AWS_DEFAULT_REGION and credentials, or run: aws configure"
        raise Stop(f"{str(error).rstrip('.')}. {settings}") from None
    except (stack.StackError, ClientError, BotoCoreError, WaiterError) as error:
        raise Stop(str(error)) from None


if __name__ == "__main__":
    main()
