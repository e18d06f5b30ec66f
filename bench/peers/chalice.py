"""AWS Chalice."""

import os
import uuid

import boto3
from chalice import Chalice

app = Chalice(app_name="links")
table = boto3.resource("dynamodb").Table(os.environ["TABLE"])


@app.route("/link", methods=["POST"])
def post_link():
    item = {"link_id": str(uuid.uuid4()), "link": app.current_request.json_body["link"]}
    table.put_item(Item=item)
    return item


@app.route("/link", methods=["GET"])
def list_links():
    return table.scan()["Items"]
