"""The systems of stacks/ in the two ways that the link store is tested: on moto, and whole on the local engine.

A test module says by STACK which one it is about.
"""

import contextlib
import importlib
import io
import json
import os
import sys
from unittest import mock

import boto3
import pytest
from cfnlint.decode import decode
from moto import mock_aws

from conftest import (
    NEVER_THROTTLED,
    ROOT,
    Api,
    create,
    http_api,
    outputs,
    plain,
    proxy_response,
    recorded,
    resource_ids,
)

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def template_of(name):
    """Return the template of a system as a dict, with its intrinsic functions as Fn::... and Ref."""
    content, problems = decode(str(ROOT / "stacks" / f"{name}.yml"))
    assert not problems
    return plain(content)


@contextlib.contextmanager
def handler_of(name):
    """Give the function of a system as a module, on an empty table of moto."""
    modules = {key: value for key, value in sys.modules.items() if key not in (name, "common")}
    table = template_of(name)["Resources"]["Table"]["Properties"]
    shape = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
    with (
        mock.patch.dict(os.environ, KEYS | {"TABLE": name, "ALLOWED_ORIGIN": "*"}),
        mock.patch.dict(sys.modules, modules, clear=True),
        mock.patch.object(sys, "path", [str(ROOT / "handler"), *sys.path]),
        mock_aws(),
    ):
        client = boto3.client("dynamodb")
        client.create_table(TableName=name, **{part: table[part] for part in shape if part in table})
        yield importlib.import_module(name)


def emptied(table):
    """Delete all items of a boto3 Table."""
    keys = [key["AttributeName"] for key in table.key_schema]
    names = {f"#{name}": name for name in keys}
    with table.batch_writer() as batch:
        for item in items_of(table, ProjectionExpression=", ".join(names), ExpressionAttributeNames=names):
            batch.delete_item(Key=item)


def items_of(table, **request):
    """Return all items of a boto3 Table."""
    items, page = [], {"LastEvaluatedKey": None}
    while "LastEvaluatedKey" in page:
        start = page["LastEvaluatedKey"]
        page = table.scan(**request, **({"ExclusiveStartKey": start} if start else {}))
        items += page["Items"]
    return items


class System(Api):
    """A client of a system, whose items are at hand."""

    def __init__(self, send, table):
        super().__init__(send)
        self.table = table

    def items(self):
        return sorted(items_of(self.table), key=lambda item: json.dumps(item, default=int, sort_keys=True))

    def refuses(self, status, sentence, *request, **more):
        """Send a request that must be refused so, and must leave the table as it is."""
        before = self.items()
        answer = self(*request, **more)
        assert (answer.status_code, self.items()) == (status, before), answer.text
        assert sentence in answer.json()["Error"], answer.text
        return answer


def deployed_table(engine, name):
    """Return the boto3 Table of a stack on the local engine."""
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    resource = boto3.resource("dynamodb", endpoint_url=engine.settings["AWS_ENDPOINT_URL"], **keys)
    return resource.Table(resource_ids(engine, name)["Table"])


@contextlib.contextmanager
def system_at(engine, name, stack_name, parameters=NEVER_THROTTLED):
    """Create a stack of a system, and give a System for it."""
    create(engine, stack_name, f"stacks/{name}.yml", parameters)
    url = outputs(engine, stack_name)["APIUrl"]
    with http_api(engine, url[: url.index("/prod") + len("/prod")]) as api:
        system = System(api.send, deployed_table(engine, stack_name))
        system.url, system.host = api.url, api.host
        yield system


@pytest.fixture(scope="module")
def deployed_system(request, engine):
    with system_at(engine, request.module.STACK, f"tests-{request.module.STACK}") as system:
        yield system


@pytest.fixture
def system_stack(deployed_system):
    emptied(deployed_system.table)
    return deployed_system


@pytest.fixture
def system_handler(request):
    with handler_of(request.module.STACK) as module:
        yield module


@pytest.fixture
def system_events(system_handler):
    def send(*request):
        with contextlib.redirect_stdout(io.StringIO()) as log:
            answer = proxy_response(system_handler.lambda_handler(recorded(*request), None))
        (line,) = log.getvalue().splitlines()
        assert json.loads(line)["status"] == answer.status_code
        return answer

    return System(send, system_handler.table)


@pytest.fixture(params=["events", "stack"])
def system(request):
    return request.getfixturevalue(f"system_{request.param}")
