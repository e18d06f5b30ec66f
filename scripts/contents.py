"""What a stack holds: count it, and export it before the stack is deleted."""

import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

import links
import stack
from stack import StackError

COUNTED_PAGES = 10  # of 1 MB, which cost 1,280 read units; a larger table is not counted


def tables_of(resources):
    """Return what DynamoDB says of the tables among resources that are there, by logical ID."""
    dynamodb, tables = boto3.client("dynamodb"), {}
    for kind, logical, physical in resources:
        if kind == stack.TABLE:
            with suppress(dynamodb.exceptions.ResourceNotFoundException):
                tables[logical] = dynamodb.describe_table(TableName=physical)["Table"]
    return tables


def count_of(table):
    """Return in words how many links a table has: counted if it is small, else as DynamoDB last did."""
    dynamodb, count, request = boto3.client("dynamodb"), 0, {}
    for _ in range(COUNTED_PAGES):
        page = dynamodb.scan(
            TableName=table["TableName"],
            Select="COUNT",
            # DynamoDB deletes what has expired, but days later, and what was deleted after a month.
            FilterExpression="attribute_not_exists(deleted_at)"
            " AND (attribute_not_exists(expires_at) OR expires_at > :now)",
            ExpressionAttributeValues={":now": {"N": str(int(time.time()))}},
            **request,
        )
        count += page["Count"]
        if "LastEvaluatedKey" not in page:
            return f"{count:,}"
        request = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
    # TableDescription: ItemCount is updated approximately every six hours.
    return f"about {max(count, table['ItemCount']):,}, as DynamoDB counted up to six hours ago"


def save(name, table):
    """Export a table into a new file of the current folder; StackError if that fails."""
    path = Path(f"links-{name}-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}.jsonl")
    try:
        if path.exists():
            raise links.Stop(f"{path} is there already.")
        count = links.export_table(table, path)
    except (links.Stop, OSError, ClientError, BotoCoreError) as error:
        raise StackError(
            f"The links could not be exported, so nothing is deleted: {error}"
            f"\nTo delete them without an export: make teardown STACK={name} EXPORT=no"
        ) from None
    if count:
        print(f"{path} has the links, {count:,}; they come back by: make import FILE={path} API=URL", flush=True)
    else:
        path.unlink(missing_ok=True)
        print("There are no links to export.", flush=True)
