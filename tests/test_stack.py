"""The whole stack on the local engine: what the gateway, IAM and CloudFormation do around the handler."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import TEMPLATE, aws, create_stack, dynamodb_of, followed, http_api, outputs, resource_ids, settled

GOOGLE = "https://www.google.com"


@pytest.fixture
def api(stack_api):
    return stack_api


def delete_stack(engine, stack):
    stack_id = settled(engine, stack)["StackId"]
    aws(engine, *f"cloudformation delete-stack --stack-name {stack}".split())
    assert settled(engine, stack_id)["StackStatus"] == "DELETE_COMPLETE"


def everything(engine):
    """Return what a stack could leave in the account: the names by kind."""
    lists = {
        "dynamodb list-tables": "TableNames",
        "iam list-roles": "Roles[].RoleName",
        "lambda list-functions": "Functions[].FunctionName",
        "logs describe-log-groups": "logGroups[].logGroupName",
        "apigateway get-rest-apis": "items[].id",
        "cloudformation describe-stacks": "Stacks[].StackName",
    }
    return {command: sorted(aws(engine, *command.split(), "--query", query) or []) for command, query in lists.items()}


# --- The gateway


@pytest.mark.parametrize(
    "path, works",
    [("/link", "GET, POST"), ("/link/x", "GET, PUT, PATCH, DELETE"), ("/tags", "GET"), ("/link/x/visits", "GET")],
)
def test_a_browser_may_use_what_works(api, path, works):
    asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "PATCH"}
    answer = api("OPTIONS", path, headers=asked)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Methods"] == answer.headers["Allow"] == f"{works}, HEAD, OPTIONS"
    allowed = set(answer.headers["Access-Control-Allow-Headers"].split(","))
    assert {"Content-Type", "If-Match", "If-None-Match", "X-Api-Key", "Authorization", "X-Amz-Date"} <= allowed
    assert answer.headers["Access-Control-Max-Age"] == "7200"  # the most that Chromium keeps


def test_who_asks_too_often_is_told_to_wait(engine):
    url = create_stack(engine, "slow", {"RequestsPerSecond": "1", "RequestBurst": "1"})
    with http_api(engine, url) as api, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: api("GET", "/link"), range(16)))
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["Error"] == "API Gateway refused this: THROTTLED."
    delete_stack(engine, "slow")


def test_an_integration_that_fails_answers_like_the_api(engine):
    with http_api(engine, create_stack(engine, "broken")) as api:
        function = resource_ids(engine, "broken")["Function"]
        aws(engine, "lambda", "delete-function", "--function-name", function)
        answer = api("GET", "/link")
        assert answer.status_code == 500  # 503 on AWS, see test_template.py
        assert answer.headers["Retry-After"] == "1"
        assert answer.json()["Error"] == "The API could not answer; try again soon."
    delete_stack(engine, "broken")


def test_urls_are_those_that_the_engine_was_asked(api):
    location = api("POST", "/link", {"link": GOOGLE}).headers["Location"]
    assert location == f"http://{api.host}/prod/link/{api.all()[0]['link_id']}"


# --- Visits, and the order of links


def test_visits_need_not_be_counted(engine):
    with http_api(engine, create_stack(engine, "uncounted", {"CountVisits": "false"})) as api:
        api("PUT", "/link/docs", {"link": GOOGLE})
        assert api("GET", "/go/docs").headers["Location"] == GOOGLE
        assert "visits" not in api("GET", "/link/docs").json()
    delete_stack(engine, "uncounted")


def test_links_of_the_same_millisecond_are_all_listed(api):
    with ThreadPoolExecutor(8) as threads:
        posted = list(threads.map(lambda n: api.post(f"{GOOGLE}/{n}"), range(400)))
    assert len({record["created_at"] for record in posted}) < 400, "some share their time"
    for limit in (7, 100, 1000):
        found = api.all(f"/link?limit={limit}")
        assert sorted(record["link"] for record in found) == sorted(record["link"] for record in posted)
        times = [record["created_at"] for record in found]
        assert times == sorted(times, reverse=True)


# --- The role


def policy_of(engine, role):
    (name,) = aws(engine, "iam", "list-role-policies", "--role-name", role)["PolicyNames"]
    held = aws(engine, "iam", "get-role-policy", "--role-name", role, "--policy-name", name)
    return name, held["PolicyDocument"]


def rights(document):
    """Yield each right of a policy, an action on a resource, and the policy without it."""
    as_list = lambda value: value if isinstance(value, list) else [value]
    split = [
        {"Effect": "Allow", "Action": action, "Resource": resource}
        for statement in document["Statement"]
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    ]
    for right in split:
        rest = [each for each in split if each != right]
        yield right, {"Version": document["Version"], "Statement": rest}


def test_requests_need_each_of_the_rights(engine):
    """What the stream needs besides, test_template.py has."""
    with http_api(engine, create_stack(engine, "rights")) as api, dynamodb_of(engine) as client:
        ids = resource_ids(engine, "rights")
        role, places = ids["Role"], {ids["Table"]: "table", ids["Index"]: "index", "*": "newest, changed"}
        name, whole = policy_of(engine, role)

        def put(document):
            command = f"iam put-role-policy --role-name {role} --policy-name {name}"
            aws(engine, *command.split(), "--policy-document", json.dumps(document))

        path = f"/link/{api.post(GOOGLE, tags=['tag'])['link_id']}"
        followed(client, ids["Table"])
        probes = {
            ("dynamodb:PutItem", "table"): ("POST", "/link", {"link": GOOGLE}),
            ("dynamodb:UpdateItem", "table"): ("PATCH", path, {"title": "T"}),
            ("dynamodb:Query", "table"): ("GET", path),
            ("dynamodb:Query", "newest, changed"): ("GET", "/link"),
            ("dynamodb:Query", "index"): ("GET", "/tags"),
            ("dynamodb:BatchGetItem", "table"): ("GET", "/link?tag=tag"),
        }
        tried = []
        for right, rest in rights(whole):
            probe = right["Action"], places.get(right["Resource"].split("/")[-1])
            if probe not in probes:
                continue
            tried.append(probe)
            put(rest)
            assert api(*probes[tried[-1]]).status_code == 500, f"{right} is not needed"
            put(whole)
            assert api(*probes[tried[-1]]).status_code < 300
        assert sorted(tried) == sorted(probes)
    delete_stack(engine, "rights")


def test_the_log_group_of_the_stack_gets_a_line_a_request(engine, api):
    answer = api("GET", "/link/unknown")
    group = resource_ids(engine, "tests")["LogGroup"]
    reference = answer.json()["Reference"]
    search = f'logs filter-log-events --log-group-name {group} --filter-pattern "{reference}"'
    (found,) = aws(engine, *search.split(), "--query", "events[].message")
    line = json.loads(found)
    assert (line["method"], line["resource"], line["status"]) == ("GET", "/link/{link_id}", 404)
    groups = aws(engine, "logs", "describe-log-groups", "--query", "logGroups[].[logGroupName,retentionInDays]")
    assert [group, 30] in groups


# --- CloudFormation


def test_create_update_and_delete(engine, tmp_path):
    before = everything(engine)
    url = create_stack(engine, "first", {})
    assert re.fullmatch(r"https://[a-z0-9]+\.execute-api\.us-east-1\.amazonaws\.com/prod/link", url)
    with http_api(engine, url) as api:
        record = api.post(GOOGLE, title="T")

        changed = TEMPLATE.read_text().replace("The body must be a JSON object", "The body should be one")
        changed = changed.replace("MemorySize: 512", "MemorySize: 1024")
        (tmp_path / "changed.yml").write_text(changed)
        update = f"cloudformation update-stack --stack-name first --template-body file://{tmp_path}/changed.yml"
        aws(engine, *update.split(), "--capabilities", "CAPABILITY_NAMED_IAM")
        assert settled(engine, "first")["StackStatus"] == "UPDATE_COMPLETE"
        assert api("POST", "/link", "x").json()["Error"].startswith("The body should be one")
        assert api.all() == [record], "an update keeps the links, and the URL"

    delete_stack(engine, "first")
    assert everything(engine) == before


def test_two_stacks_are_apart(engine):
    ids = []
    for name in ("one", "two"):
        with http_api(engine, create_stack(engine, name, {})) as api:
            assert api.all() == []
            api.post(GOOGLE, title=name)
            ids.append(set(resource_ids(engine, name).values()) - {"prod"})
    assert not ids[0] & ids[1]
    delete_stack(engine, "one")
    with http_api(engine, outputs(engine, "two")["APIUrl"]) as api:
        assert [record["title"] for record in api.all()] == ["two"]
    delete_stack(engine, "two")


@pytest.mark.parametrize(
    "parameter, sentence",
    [
        ("RequestsPerSecond=0", "RequestsPerSecond"),
        ("RequestBurst=many", "RequestBurst"),
        ("LogRetentionInDays=2", "LogRetentionInDays"),
        ("DeletionProtection=yes", "DeletionProtection"),
    ],
)
def test_a_parameter_out_of_range_creates_nothing(engine, parameter, sentence):
    name, value = parameter.split("=")
    command = "cloudformation create-stack --stack-name wrong --capabilities CAPABILITY_NAMED_IAM"
    given = f"--template-body file://{TEMPLATE} --parameters ParameterKey={name},ParameterValue={value}"
    assert sentence in aws(engine, *command.split(), *given.split(), fails=True)
    missing = aws(engine, *"cloudformation describe-stacks --stack-name wrong".split(), fails=True)
    assert "does not exist" in missing
