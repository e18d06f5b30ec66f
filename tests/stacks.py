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
from botocore.credentials import Credentials
from cfnlint.decode import decode
from moto import mock_aws

import faults
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
from test_access import signed

CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def template_of(name):
    """Return the template of a system as a dict, with its intrinsic functions as Fn::... and Ref."""
    content, problems = decode(str(ROOT / "stacks" / f"{name}.yml"))
    assert not problems
    return plain(content)


@contextlib.contextmanager
def handler_of(name, settings):
    """Give the function of a system as a module that has these settings, and its own common.py."""
    others = {key: value for key, value in sys.modules.items() if key not in (name, "common")}
    with (
        mock.patch.dict(os.environ, KEYS | {"TABLE": name, "ALLOWED_ORIGIN": "*"} | settings),
        mock.patch.dict(sys.modules, others, clear=True),
        mock.patch.object(sys, "path", [str(ROOT / "handler"), *sys.path]),
    ):
        yield importlib.import_module(name)


def make_table(name):
    """Create the table of a system in moto, of the shape that its template says."""
    table = template_of(name)["Resources"]["Table"]["Properties"]
    shape = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
    boto3.client("dynamodb", "us-east-1").create_table(
        TableName=name, **{part: table[part] for part in shape if part in table}
    )


@contextlib.contextmanager
def on_moto(name, settings={}):
    """Give the function of a system as a module that has these settings, on a table of moto."""
    with mock_aws(), handler_of(name, settings) as module:
        make_table(name)
        yield module


def sender(module):
    """Return a function that sends a request to a handler as an event, and sees that it logs one line."""

    def send(*request):
        with contextlib.redirect_stdout(io.StringIO()) as log:
            answer = proxy_response(module.lambda_handler(recorded(*request), None))
        (line,) = map(json.loads, log.getvalue().splitlines())
        assert line["status"] == answer.status_code
        assert (line["level"] == "ERROR") == ("error" in line) == (answer.status_code >= 500)
        send.log = line
        return answer

    return send


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
    resource = boto3.resource("dynamodb", endpoint_url=engine.settings["AWS_ENDPOINT_URL"], **CREDENTIALS)
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


@pytest.fixture(scope="module")
def loaded_system(request):
    """The function of a system as a module, on a table of moto; `system_events` empties it for each test."""
    with on_moto(request.module.STACK, getattr(request.module, "SETTINGS", {})) as module:
        yield module


@pytest.fixture
def system_events(loaded_system):
    emptied(loaded_system.table)
    return System(sender(loaded_system), loaded_system.table)


@pytest.fixture
def calls(system_events):
    """The operations of DynamoDB that the function calls, in their order."""
    made, events = [], system_events.table.meta.client.meta.events
    note = lambda model, **_: made.append(model.name)
    events.register("before-call.dynamodb", note)
    yield made
    events.unregister("before-call.dynamodb", note)


@pytest.fixture
def system_faulty(request, engine, system_stack):
    """A System whose function asks the engine's DynamoDB by a proxy; `faults` has what is to happen to its next requests."""
    endpoint = engine.settings["AWS_ENDPOINT_URL"]
    with faults.proxy(endpoint) as url, mock.patch("botocore.endpoint.time.sleep"):
        settings = {"AWS_ENDPOINT_URL_DYNAMODB": url, "TABLE": system_stack.table.name}
        with handler_of(request.module.STACK, settings) as module:
            system = System(sender(module), system_stack.table)
            system.faults, system.made = [], []

            def before_send(request, **_):
                system.made.append(request.headers["X-Amz-Target"].decode().partition(".")[2])
                if system.faults:
                    request.headers["X-Fault"] = system.faults.pop(0)

            module.table.meta.client.meta.events.register("before-send.dynamodb", before_send)
            yield system


@pytest.fixture(params=["events", "stack"])
def system(request):
    return request.getfixturevalue(f"system_{request.param}")


# --- What the tests of each system do


@contextlib.contextmanager
def without(engine, stack_name, action, role="Role", resource=""):
    """Take an action out of a role of a stack while the block runs; only on ARNs with this in them, if so."""
    iam = boto3.client("iam", endpoint_url=engine.settings["AWS_ENDPOINT_URL"], **CREDENTIALS)
    role, before = resource_ids(engine, stack_name)[role], {}
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        before[name] = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    after = json.loads(json.dumps(before))
    for policy in after.values():
        for statement in policy["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            if resource in statement["Resource"]:
                statement["Action"] = [each for each in actions if each != action]
        policy["Statement"] = [statement for statement in policy["Statement"] if statement["Action"]]
    assert after != before, action

    def put(policies):
        for name, policy in policies.items():
            iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(policy))

    put(after)
    try:
        yield
    finally:
        put(before)


def fails_inside(answer):
    """See that an answer is a 500 that says nothing of the inside."""
    assert answer.status_code == 500
    assert answer.json()["Error"] == "Something went wrong here; the log has it under the reference."


def is_cors(system, path, allowed):
    """See what OPTIONS and a method that there is not say of a path, whose methods are these."""
    answer = system("OPTIONS", path, headers={"Origin": "https://a.example", "Access-Control-Request-Method": "POST"})
    assert answer.status_code == 200
    assert answer.headers["Allow"] == answer.headers["Access-Control-Allow-Methods"] == allowed
    assert answer.headers["Access-Control-Allow-Headers"] == "*, Authorization"
    # API Gateway may take a method from a header, after it has let OPTIONS pass without a signature.
    system.refuses(400, "X-HTTP-Method-Override is not taken", "POST", path, {}, {"X-HTTP-Method-Override": "POST"})
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - set(allowed.split(", ")):
        refused = system.refuses(405, f"{method} does not work here", method, path, {})
        assert refused.headers["Allow"] == allowed


def is_closed(engine, name, paths, body):
    """See that with Access=iam a system answers signed requests only; `paths` are one to GET, one to POST this body to.

    Return how many items it has then.
    """
    with system_at(engine, name, f"iam-{name}", NEVER_THROTTLED | {"Access": "iam"}) as system:
        user = Credentials("test", "test")
        for method, path, sent in (("GET", paths[0], None), ("POST", paths[1], body)):
            refused = system(method, path, sent)
            assert refused.status_code == 403
            assert refused.json()["Error"] == "API Gateway refused this: MISSING_AUTHENTICATION_TOKEN."
            answer = system(method, path, sent and json.dumps(sent), signed(system, user, method, path, sent))
            assert answer.status_code in (200, 201), answer.text
            assert system("OPTIONS", path).status_code == 200
        assert outputs(engine, f"iam-{name}")["Access"] == "iam"
        return len(system.items())
