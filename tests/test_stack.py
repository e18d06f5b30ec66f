"""The whole stack on the local engine: what the gateway, IAM and CloudFormation do around the handler."""

import itertools
import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import (
    TEMPLATE,
    aws,
    client,
    create,
    create_stack,
    delete_stack,
    eventually,
    http_api,
    is_aws,
    named,
    outputs,
    resource_ids,
    settled,
)

GOOGLE = "https://www.google.com"


@pytest.fixture
def api(stack_api):
    return stack_api


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


@pytest.mark.parametrize("path", ["/link", "/link/x", "/tags", "/nowhere"])
def test_a_browser_may_use_what_works(api, path):
    asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "PATCH"}
    answer = api("OPTIONS", path, headers=asked)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Methods"] == "GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS"
    allowed = set(answer.headers["Access-Control-Allow-Headers"].split(","))
    assert {"Content-Type", "If-Match", "If-None-Match", "X-Api-Key", "Authorization", "X-Amz-Date"} <= allowed
    assert answer.headers["Access-Control-Max-Age"] == "7200"  # the most that Chromium keeps


def test_who_asks_too_often_is_told_to_wait(engine):
    url = create_stack(engine, named("slow"), {"RequestsPerSecond": "1", "RequestBurst": "1"})
    with http_api(engine, url) as api, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: api("GET", "/link"), range(16)))
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["Error"] == "API Gateway refused this: THROTTLED."
    delete_stack(engine, named("slow"))


def test_an_integration_that_fails_answers_like_the_api(engine):
    with http_api(engine, create_stack(engine, named("broken"))) as api:
        function = resource_ids(engine, named("broken"))["Function"]
        aws(engine, "lambda", "delete-function", "--function-name", function)
        status = 503 if is_aws(engine) else 500  # see test_template.py
        answer = eventually(lambda: (gone := api("GET", "/link")).status_code == status and gone)
        assert answer.headers["Retry-After"] == "1"
        assert answer.json()["Error"] == "The API could not answer; try again soon."
    delete_stack(engine, named("broken"))


def test_urls_are_those_that_the_engine_was_asked(api):
    location = api("POST", "/link", {"link": GOOGLE}).headers["Location"]
    assert location == f"{api.stage}/link/{api.all()[0]['link_id']}"


# --- Visits, and the order of links


def test_visits_need_not_be_counted(engine):
    with http_api(engine, create_stack(engine, named("uncounted"), {"CountVisits": "false"})) as api:
        api("PUT", "/link/docs", {"link": GOOGLE})
        assert api("GET", "/go/docs").headers["Location"] == GOOGLE
        assert "visits" not in api("GET", "/link/docs").json()
    delete_stack(engine, named("uncounted"))


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


def every_right_is_needed(engine, role, probes, least=()):
    """Take each right off a role, but those that begin with one of `least`; its probe must fail then, and not before.

    `probes` has for each right, an action and the end of a resource, a function that returns whether a use succeeds.
    """
    name, whole = policy_of(engine, role)

    def put(document):
        command = f"iam put-role-policy --role-name {role} --policy-name {name}"
        aws(engine, *command.split(), "--policy-document", json.dumps(document))

    tried = []
    for right, rest in rights(whole):
        if right["Action"].startswith(least):
            continue
        probe = next(
            probe for key, probe in probes.items() if right["Action"] == key[0] and right["Resource"].endswith(key[1])
        )
        tried.append(probe)
        put(rest)
        eventually(lambda probe=probe: not probe(), f"a need of {right}")
        put(whole)
        eventually(probe, f"what {right} gives")
    assert sorted(map(id, tried)) == sorted(map(id, probes.values())), "no probe is for nothing"


def test_the_roles_have_no_right_too_many(engine):
    store, search = named("rights"), named("rights-search")
    with http_api(engine, create_stack(engine, store)) as api:
        create(engine, search, "addons/search.yml", {"Store": store})
        path, ids = f"/link/{api.post(GOOGLE)['link_id']}", resource_ids(engine, store)
        searching = resource_ids(engine, search)

        def answers(*request):
            def probe():
                api("POST", "/link", {"link": GOOGLE})
                return api(*request).status_code // 100 == 2

            return probe

        probes = {
            ("dynamodb:PutItem", ids["Table"]): answers("POST", "/link", {"link": GOOGLE}),
            ("dynamodb:UpdateItem", ids["Table"]): answers("PATCH", path, {"title": "T"}),
            ("dynamodb:Query", ids["Table"]): answers("GET", path),
            ("dynamodb:Query", "/index/newest"): answers("GET", "/link"),
            ("dynamodb:Query", "/index/changed"): answers("GET", "/link?since=2026-01-01T00:00:00Z"),
            ("lambda:InvokeFunction", f":{search}"): answers("GET", path + "/visits"),
        }
        # The engine writes the log itself; test_template.py looks at these.
        every_right_is_needed(engine, ids["Role"], probes, least=("logs:",))
        every_right_is_needed(engine, searching["Role"], probes_of_search(engine, ids, searching), LEFT_TO_THE_ENGINE)
        delete_stack(engine, search)
    delete_stack(engine, store)


# The engine reads the stream, sends messages and writes the log itself.
LEFT_TO_THE_ENGINE = (
    "logs:",
    "sqs:",
    *map("dynamodb:".__add__, ("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams")),
)


def probes_of_search(engine, ids, searching):
    """Return probes of what the role of the add-on search, with these resources, may do for a store with those."""
    count, lambdas, name = itertools.count(), client(engine, "lambda"), searching["Function"]
    index = client(engine, "dynamodb", "resource").Table(searching["Index"])

    def succeeds(*events, made=True):
        """Hand events over to the function, which begins anew, while the index is marked as made or not."""

        def probe():
            mark = {"term": "made", "place": "made"}
            index.put_item(Item=mark) if made else index.delete_item(Key=mark)
            variables = lambdas.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
            variables |= {"PROBE": str(next(count))}
            lambdas.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
            lambdas.get_waiter("function_updated_v2").wait(FunctionName=name)
            answers = [lambdas.invoke(FunctionName=name, Payload=json.dumps(event)) for event in events]
            return not any("FunctionError" in answer for answer in answers)

        return probe

    def link(number, **more):
        fields = {"link_id": f"l{number}", "link": "see url", "url": GOOGLE, "created_at": "2026-01-01T00:00:00.000Z"}
        return {name: {"S": value} for name, value in fields.items()} | more

    def changed(old, new):
        return {"Records": [{"dynamodb": {"OldImage": old, "NewImage": new}}]}

    def tags(*names):
        return {"tags": {"L": [{"S": name} for name in names]}}

    def visits(number):
        when = "2026-01-01T00:00:00.000Z"
        return {"visits": {"N": str(number)}, "visited_at": {"S": when}, "visit": {"S": str(number)}}

    asked = {"question": "links", "words": [], "others": [], "count": 10, "cursor": None}
    tagged, untagged = changed({}, link(1, **tags("a"))), changed(link(1, **tags("a")), {})
    visited, gone = changed(link(2), link(2, **visits(1))), changed(link(2, **visits(1)), {})
    days = searching["Visits"]
    return {
        ("dynamodb:BatchGetItem", index.name): succeeds(asked | {"tags": ["a", "b"]}),
        ("dynamodb:BatchWriteItem", index.name): succeeds(changed({}, link(3, title={"S": "word"}))),
        ("dynamodb:DeleteItem", index.name): succeeds(tagged, untagged),
        ("dynamodb:PutItem", index.name): succeeds(untagged, tagged),
        ("dynamodb:Query", index.name): succeeds({"question": "tags", "cursor": None}),
        ("dynamodb:UpdateItem", index.name): succeeds(untagged, tagged),
        ("dynamodb:DeleteItem", days): succeeds(visited, gone),
        ("dynamodb:Query", days): succeeds(gone),
        ("dynamodb:UpdateItem", days): succeeds(gone, visited),
        ("dynamodb:BatchGetItem", ids["Table"]): succeeds(tagged, asked | {"tags": ["a"]}),
        ("dynamodb:Query", "/index/newest"): succeeds({"question": "made", "cursor": None}, made=False),
    }


def test_the_log_group_of_the_stack_gets_a_line_a_request(engine, api):
    answer = api("GET", "/link/unknown")
    group = resource_ids(engine, named("tests"))["LogGroup"]
    reference = answer.json()["Reference"]
    search = f'logs filter-log-events --log-group-name {group} --filter-pattern "{reference}"'
    (found,) = eventually(lambda: aws(engine, *search.split(), "--query", "events[].message"))
    line = json.loads(found)
    assert (line["method"], line["resource"], line["status"]) == ("GET", "/link/{link_id}", 404)
    groups = aws(engine, "logs", "describe-log-groups", "--log-group-name-prefix", group)["logGroups"]
    assert [each["retentionInDays"] for each in groups] == [30]


# --- CloudFormation


@pytest.mark.engine("in an account others come and go; test_aws.py looks for what a stack had")
def test_create_update_and_delete(engine, tmp_path):
    before = everything(engine)
    url = create_stack(engine, named("first"), {})
    assert re.fullmatch(r"https://[a-z0-9]+\.execute-api\.us-east-1\.amazonaws\.com/prod/link", url)
    with http_api(engine, url) as api:
        record = api.post(GOOGLE, title="T")

        changed = TEMPLATE.read_text().replace("The body must be a JSON object", "The body should be one")
        changed = changed.replace("MemorySize: 512", "MemorySize: 1024")
        (tmp_path / "changed.yml").write_text(changed)
        update = (
            f"cloudformation update-stack --stack-name {named('first')} --template-body file://{tmp_path}/changed.yml"
        )
        aws(engine, *update.split(), "--capabilities", "CAPABILITY_NAMED_IAM")
        assert settled(engine, named("first"))["StackStatus"] == "UPDATE_COMPLETE"
        assert api("POST", "/link", "x").json()["Error"].startswith("The body should be one")
        assert api.all() == [record], "an update keeps the links, and the URL"

    delete_stack(engine, named("first"))
    assert everything(engine) == before


def test_two_stacks_are_apart(engine):
    ids = []
    for name in (named("one"), named("two")):
        with http_api(engine, create_stack(engine, name, {})) as api:
            assert api.all() == []
            api.post(GOOGLE, title=name)
            ids.append(set(resource_ids(engine, name).values()) - {"prod"})
    assert not ids[0] & ids[1]
    delete_stack(engine, named("one"))
    with http_api(engine, outputs(engine, named("two"))["APIUrl"]) as api:
        assert [record["title"] for record in api.all()] == [named("two")]
    delete_stack(engine, named("two"))


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
    command = f"cloudformation create-stack --stack-name {named('wrong')} --capabilities CAPABILITY_NAMED_IAM"
    given = f"--template-body file://{TEMPLATE} --parameters ParameterKey={name},ParameterValue={value}"
    assert sentence in aws(engine, *command.split(), *given.split(), fails=True)
    missing = aws(engine, *f"cloudformation describe-stacks --stack-name {named('wrong')}".split(), fails=True)
    assert "does not exist" in missing
