"""The handlers as modules, on DynamoDB as moto has it, for what asks them without API Gateway and Lambda."""

import contextlib
import importlib.util
import json
import logging
import os
import sys
import uuid
from pathlib import Path
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import boto3
from botocore.httpsession import URLLib3Session
from cfnlint.decode import decode
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).parent.parent
SEARCH = ROOT / "addons" / "search.yml"
EVENT = json.loads((ROOT / "tests" / "events" / "get.json").read_text())  # a recorded one


def module(name, **beside):
    """Return a source of handler/ as a module, which imports from these beside it."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "handler" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules |= beside
    try:
        spec.loader.exec_module(loaded)
    finally:
        for each in beside:
            del sys.modules[each]
    return loaded


@contextlib.contextmanager
def loaded(settings):
    """Give the handler as a module that has these settings, and a client of its DynamoDB, moto's server in a thread."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line a request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    aws = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ENDPOINT_URL": url}
    aws |= {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
    try:
        with mock.patch.dict(os.environ, settings | aws, clear=True):
            index = module("index")
            client = boto3.client("dynamodb")
        # moto takes seconds to search a megabyte.
        index.http = URLLib3Session(timeout=60, socket_options=index.at_once)
        with contextlib.closing(client):
            yield index, client
    finally:
        server.stop()


@contextlib.contextmanager
def table_of(template, client, name, resource="Table"):
    """Let there be an empty table of this name, of the shape of the template's resource, while the block runs."""
    properties = template["Resources"][resource]["Properties"]
    shape = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode", "StreamSpecification")
    given = {part: properties[part] for part in shape if part in properties}
    if "StreamSpecification" in given:
        # CloudFormation takes it for granted.
        given["StreamSpecification"] = given["StreamSpecification"] | {"StreamEnabled": True}
    client.create_table(TableName=name, **given)
    try:
        yield
    finally:
        client.delete_table(TableName=name)


@contextlib.contextmanager
def handler(template):
    """Give the handler with the template's settings, on an empty table, and a client of its DynamoDB."""
    settings, parameters = {}, template["Parameters"]
    variables = template["Resources"]["Function"]["Properties"]["Environment"]["Variables"]
    for name, value in variables.items():  # plain ones, parameters, and what only AWS knows
        parameter = parameters.get(value.get("Ref")) if isinstance(value, dict) else {"Default": value}
        settings[name] = str(parameter["Default"]) if parameter else name
    settings["TABLE"] = uuid.uuid4().hex  # all of moto's servers share their tables
    with loaded(settings) as (index, client), table_of(template, client, index.TABLE):
        yield index, client


def event_of(method, path, body):
    parts = urlsplit(path)
    proxy = parts.path.strip("/")
    context = EVENT["requestContext"] | {"httpMethod": method, "path": "/prod" + parts.path}
    return EVENT | {
        "resource": "/{proxy+}" if proxy else "/",
        "path": parts.path,
        "httpMethod": method,
        "requestContext": context,
        "pathParameters": {"proxy": proxy} if proxy else None,
        "multiValueQueryStringParameters": parse_qs(parts.query) or None,
        "body": body and json.dumps(body),
    }


@contextlib.contextmanager
def addon(index, client):
    """Give the add-on search, as a module, on empty tables, and the properties of these by name."""
    template, _ = decode(str(SEARCH))
    names = {"INDEX": uuid.uuid4().hex, "VISITS": uuid.uuid4().hex}
    logical = {names["INDEX"]: "Index", names["VISITS"]: "Visits"}
    with contextlib.ExitStack() as tables, mock.patch.dict(os.environ, names):
        for name, resource in logical.items():
            tables.enter_context(table_of(template, client, name, resource))
        search = module("search", index=index)
        search.THREADS = 1  # so that what is counted is so each time
        search.call = lambda operation, values=None, **request: index.call(operation, values, **request)
        search.is_made()
        yield search, {name: template["Resources"][resource]["Properties"] for name, resource in logical.items()}


def asker(search, meter):
    """Return a function that asks the add-on search in the place of Lambda, counted in `addon` of the meter's kind."""

    def ask(question, cursor=None, must=False, **asked):
        kind = meter.kind
        if kind:
            kind.addon = meter.kind = kind.addon or type(kind)(question, api=0, answers=0)
        event = json.loads(json.dumps({"question": question, "cursor": cursor, **asked}))
        answer = json.dumps(search.lambda_handler(event, None))
        if kind:
            kind.addon.out, meter.kind = len(answer), kind
        return json.loads(answer)

    return ask
