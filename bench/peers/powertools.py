"""Powertools for AWS Lambda: its resolver for REST APIs, and its logger."""

import os
import uuid

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayRestResolver

app = APIGatewayRestResolver()
logger = Logger(service="links")
table = boto3.resource("dynamodb").Table(os.environ["TABLE"])


@app.post("/link")
def post_link():
    item = {"link_id": str(uuid.uuid4()), "link": app.current_event.json_body["link"]}
    table.put_item(Item=item)
    logger.info("stored")
    return item


@app.get("/link")
def list_links():
    logger.info("listed")
    return table.scan()["Items"]


@logger.inject_lambda_context
def lambda_handler(event, context):
    return app.resolve(event, context)
