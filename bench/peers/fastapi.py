"""FastAPI, which Mangum lets API Gateway call."""

import os
import uuid

import boto3
from fastapi import FastAPI
from mangum import Mangum
from pydantic import BaseModel

app = FastAPI()
table = boto3.resource("dynamodb").Table(os.environ["TABLE"])


class Link(BaseModel):
    link: str


@app.post("/link")
def post_link(given: Link):
    item = {"link_id": str(uuid.uuid4()), "link": given.link}
    table.put_item(Item=item)
    return item


@app.get("/link")
def list_links():
    return table.scan()["Items"]


handler = Mangum(app)
