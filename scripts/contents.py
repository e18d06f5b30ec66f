"""What a stack holds: count it, export its tables, and empty its buckets, before the stack is deleted."""

import base64
import json
import time
from contextlib import suppress
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

import boto3
from boto3.dynamodb.types import Binary, TypeDeserializer
from botocore.exceptions import BotoCoreError, ClientError

import embed
import stack
from aws import pages_of_table
from program import Stop, printable
from stack import StackError
from writing import save

COUNTED_PAGES = 10  # of 1 MB of a table, which cost 1,280 read units, or of 1,000 objects; more is not counted


def noun(there):
    """Return what the tables of a stack hold, in a word."""
    return "links" if stack.is_store(there.get("Description")) else "items"


def counts(there, resources):
    """Return how much a stack holds, as (label, words) for each table, bucket and queue."""
    found, label = [], noun(there).capitalize()
    tables = tables_of(resources)
    for logical, table in tables.items():
        found.append((label, count_of(table, label == "Links") + (f" in {logical}" if len(tables) > 1 else "")))
    for kind, logical, physical in resources:
        if kind == stack.BUCKET:
            found.append(("Objects", f"{objects_in(physical)} in {logical}"))
        if kind == stack.QUEUE:
            with suppress(boto3.client("sqs").exceptions.QueueDoesNotExist):
                found.append(("Messages", f"{messages_in(physical)} in {logical}"))
    return found


def messages_in(queue):
    """Return how many messages are in the queue with this URL, about."""
    asked = {"QueueUrl": queue, "AttributeNames": ["ApproximateNumberOfMessages"]}
    (count,) = boto3.client("sqs").get_queue_attributes(**asked)["Attributes"].values()
    return int(count)


# --- Tables


def tables_of(resources):
    """Return what DynamoDB says of the tables among resources that are there, by logical ID."""
    dynamodb, tables = boto3.client("dynamodb"), {}
    for kind, logical, physical in resources:
        if kind == stack.TABLE:
            with suppress(dynamodb.exceptions.ResourceNotFoundException):
                tables[logical] = dynamodb.describe_table(TableName=physical)["Table"]
    return tables


def count_of(table, of_store):
    """Return in words how many items a table has: counted if it is small, else as DynamoDB last did.

    Links of a store that were deleted or have expired do not count.
    """
    dynamodb, count, request = boto3.client("dynamodb"), 0, {}
    if of_store:
        request = {
            # DynamoDB deletes what has expired, but days later, and what was deleted after a month.
            "FilterExpression": "attribute_not_exists(deleted_at)"
            " AND (attribute_not_exists(expires_at) OR expires_at > :now)",
            "ExpressionAttributeValues": {":now": {"N": str(int(time.time()))}},
        }
    for _ in range(COUNTED_PAGES):
        page = dynamodb.scan(TableName=table["TableName"], Select="COUNT", **request)
        count += page["Count"]
        if "LastEvaluatedKey" not in page:
            return f"{count:,}"
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"]
    # TableDescription: ItemCount is updated approximately every six hours.
    return f"about {max(count, table['ItemCount']):,}, as DynamoDB counted up to six hours ago"


def can_be_made_again(there, logical):
    """Return whether what a table of a stack holds can be made from the links: make reindex."""
    return stack.is_search(there.get("Description")) and logical == "Index"


def export(there, logical, table, which):
    """Export a table of a stack into a new file of the current folder; StackError if that fails.

    That of a store has links, as `make import` takes them; another one items, as pages_of_items() has them.
    `which` is how `make` is told the stack.
    """
    name, what, date = there["StackName"], noun(there), f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}"
    of_store = what == "links"
    path = Path(f"links-{name}-{date}.jsonl" if of_store else f"{name}-{logical}-{date}.jsonl")
    try:
        if path.exists():
            raise Stop(f"{path} is there already.")
        count = save(path, pages_of_table(table) if of_store else pages_of_items(table), what)
    except (Stop, OSError, ClientError, BotoCoreError) as error:
        raise StackError(
            f"The {what} could not be exported, so nothing is deleted: {error}"
            f"\nTo delete them without an export: make teardown {which} EXPORT=no"
        ) from None
    if count:
        back = f"; they come back by: make import FILE={path} API=URL" if of_store else ""
        print(f"{path} has the {what}, {count:,}{back}", flush=True)
    else:
        path.unlink(missing_ok=True)
        print(f"There are no {what} to export.", flush=True)


def pages_of_items(table):
    """Yield the items of a DynamoDB table, a list for each page, as JSON has them.

    A set is a sorted array, a binary value base64, a number a number; but a
    fraction with more digits than a double keeps is a string of them.
    """
    of_type = TypeDeserializer().deserialize
    # A consistent Scan has all that was stored before it.
    for page in boto3.client("dynamodb").get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        items = [{name: of_type(value) for name, value in item.items()} for item in page["Items"]]
        yield json.loads(json.dumps(items, default=plain))


def plain(value):
    """Return a value of an item that JSON has no word for, as it can have it; TypeError for another."""
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            return int(value)
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, Binary):
        return base64.b64encode(value.value).decode()
    if isinstance(value, set):
        return sorted(value, key=lambda each: each.value if isinstance(each, Binary) else each)
    raise TypeError(type(value))


# --- Buckets


def buckets_to_empty(client, there, resources):
    """Return how many objects there are, in words, in each bucket that goes with the stack and has any."""
    buckets, found = {logical: name for kind, logical, name in resources if kind == stack.BUCKET}, {}
    if not buckets:
        return found
    template, s3 = client.get_template(StackName=there["StackId"])["TemplateBody"], boto3.client("s3")
    nodes = embed.resources(template if isinstance(template, str) else json.dumps(template))
    for logical, bucket in buckets.items():
        policy = embed.child(nodes.get(logical), "DeletionPolicy")
        if policy and policy.value.startswith("Retain"):
            continue
        objects = versions = 0
        with suppress(s3.exceptions.NoSuchBucket):
            for page in versions_of(bucket):
                versions += len(page)
                objects += sum(each["IsLatest"] and "ETag" in each for each in page)
        if versions:
            count = "1 object" if objects == 1 else f"{objects:,} objects"
            found[bucket] = count + (f" in {versions:,} versions" if versions > objects else "")
    return found


def objects_in(bucket):
    """Return in words how many objects a bucket has: counted if they are few, and none if it is gone."""
    count, s3 = 0, boto3.client("s3")
    with suppress(s3.exceptions.NoSuchBucket):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        for number, page in enumerate(pages, 1):
            count += page["KeyCount"]
            if number == COUNTED_PAGES and page["IsTruncated"]:
                return f"more than {count:,}"
    return f"{count:,}"


def versions_of(bucket):
    """Yield the objects of a bucket, with all their versions and delete markers, a list for each thousand."""
    for page in boto3.client("s3").get_paginator("list_object_versions").paginate(Bucket=bucket):
        # The local engine begins a page with the last one of the page before.
        before = page.get("KeyMarker"), page.get("VersionIdMarker")
        found = page.get("Versions", []) + page.get("DeleteMarkers", [])
        yield [each for each in found if (each["Key"], each["VersionId"]) != before]


def empty(bucket):
    """Delete all objects of a bucket, with all their versions; StackError if one stays."""
    print(f"Emptying bucket {bucket}", flush=True)
    # What comes meanwhile goes too, as each time the first thousand is asked for, as many as DeleteObjects takes.
    while page := next(versions_of(bucket)):
        objects = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in page]
        done = boto3.client("s3").delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        for error in done.get("Errors", []):
            raise StackError(
                f"{error['Key']} in bucket {bucket} cannot be deleted, and so the stack is not:"
                f" {printable(error['Message'])}"
            )
