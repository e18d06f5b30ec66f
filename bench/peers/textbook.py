"""The textbook way: boto3's resource, put_item, scan, and the event printed."""

import json
import os
import uuid

import boto3

table = boto3.resource("dynamodb").Table(os.environ["TABLE"])


def lambda_handler(event, context):
    print(event)
    if event["httpMethod"] == "POST":
        item = {"link_id": str(uuid.uuid4()), "link": json.loads(event["body"])["link"]}
        table.put_item(Item=item)
        return {"statusCode": 200, "body": json.dumps(item)}
    return {"statusCode": 200, "body": json.dumps(table.scan()["Items"])}
