"""The templates of stacks/: what a deployment relies on and the local engine does not show, and their README."""

import ast
import json
import re
import subprocess
from collections import Counter
from urllib.parse import quote, urlencode, urlsplit

import pytest
import yaml
from cfnlint.decode import decode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import embed
import show
import stack
from conftest import ROOT, create, outputs, plain
from stacks import System, on_moto, sender
from test_readme import shell, variable
from test_template import evaluate, made, of_type

STACKS = sorted(ROOT.glob("stacks/*.yml"))
README = (ROOT / "stacks" / "README.md").read_text()
KB = 1024
MOST_BYTES = {"pets": 15 * KB, "reviews": 20 * KB, "posts": 27 * KB, "images": 37 * KB}
THREE = [path for path in STACKS if path.stem in ("pets", "reviews", "posts")]
each_stack = pytest.mark.parametrize("path", STACKS, ids=lambda path: path.stem)
each_of_three = pytest.mark.parametrize("path", THREE, ids=lambda path: path.stem)


@pytest.fixture
def content(path):
    found, problems = decode(str(path))
    assert not problems
    return plain(found)


def functions(content):
    return of_type(content["Resources"], "Lambda::Function")


# --- Outline


@each_stack
def test_a_template_is_as_small_as_it_should_be(path):
    assert len(path.read_bytes()) <= MOST_BYTES[path.stem]


@each_stack
def test_sections_stand_in_their_order(path, content):
    order = "AWSTemplateFormatVersion Description Metadata Parameters Rules Conditions Resources Outputs".split()
    assert list(content) == [section for section in order if section in content]
    assert content["Description"].startswith(f"{path.stem}, ")


@each_stack
def test_every_parameter_explains_itself(path, content):
    groups = content["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(content["Parameters"])
    for name, parameter in content["Parameters"].items():
        assert {"Type", "Description", "Default", "ConstraintDescription"} <= parameter.keys()
        assert {"AllowedValues", "AllowedPattern", "MinValue"} & parameter.keys()
        assert f"| `{name}` | {parameter['Default']} |" in README
    assert content["Outputs"].keys() >= {"APIUrl", "Access"}
    assert all(output["Description"] for output in content["Outputs"].values())


@each_stack
def test_no_physical_name_is_typed_in(path, content):
    for name, each in content["Resources"].items():
        named = {key: value for key, value in each.get("Properties", {}).items() if key.endswith("Name")}
        named.pop("StageName", None), named.pop("PolicyName", None)
        assert all(isinstance(value, dict) for value in named.values()), name
    assert content["Resources"]["Api"]["Properties"]["Name"] == {"Ref": "AWS::StackName"}
    assert "arn:aws:" not in path.read_text() and "amazonaws.com/" not in path.read_text()
    url = content["Outputs"]["APIUrl"]["Value"]["Fn::Sub"]
    assert url.startswith("https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}/${Stage}")


@each_stack
def test_yaml_features_that_cloudformation_lacks_are_not_used(path):
    assert not [each for each in yaml.scan(path.read_text()) if isinstance(each, (yaml.AnchorToken, yaml.AliasToken))]


# --- Resources


@each_stack
def test_the_table_goes_with_the_stack_and_stays_when_replaced(path, content):
    table = content["Resources"]["Table"]
    assert (table["DeletionPolicy"], table["UpdateReplacePolicy"]) == ("Delete", "Retain")
    properties = table["Properties"]
    assert properties["BillingMode"] == "PAY_PER_REQUEST"
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert properties["SSESpecification"] == {"SSEEnabled": True}
    assert properties["DeletionProtectionEnabled"] == {"Ref": "DeletionProtection"}
    assert all(each.get("DeletionPolicy", "Delete") == "Delete" for each in content["Resources"].values())


@each_stack
def test_functions_and_their_logs(path, content):
    """Below WARN Lambda would add three lines of its own to each request."""
    for function in functions(content).values():
        properties = function["Properties"]
        assert properties["Runtime"] == "python3.14" and properties["Architectures"] == ["arm64"]
        logging = properties["LoggingConfig"]
        assert (logging["LogFormat"], logging["SystemLogLevel"]) == ("JSON", "WARN")
        group = content["Resources"][logging["LogGroup"]["Ref"]]
        assert group["Properties"] == {"RetentionInDays": {"Ref": "LogRetentionInDays"}}


ACTIONS = {
    "pets": "GetItem PutItem Scan",
    "reviews": "GetItem PutItem UpdateItem DeleteItem Query",
    "posts": "GetItem PutItem UpdateItem ConditionCheckItem Query",
}


@each_of_three
def test_the_role_has_the_actions_that_are_used_and_no_others(path, content):
    """That each of them is used is tested with each system, by taking it out."""
    (policy,) = content["Resources"]["Role"]["Properties"]["Policies"]
    table, log = {"Fn::GetAtt": ["Table", "Arn"]}, {"Fn::GetAtt": ["LogGroup", "Arn"]}
    allowed = {}
    for statement in policy["PolicyDocument"]["Statement"]:
        assert statement["Effect"] == "Allow"
        actions, on = statement["Action"], statement["Resource"]
        for action in [actions] if isinstance(actions, str) else actions:
            assert action not in allowed
            allowed[action] = on if isinstance(on, list) else [on]
    index = {"Fn::Sub": "${Table.Arn}/index/newest"}
    expected = {f"dynamodb:{action}": [table] for action in ACTIONS[path.stem].split()}
    if "dynamodb:Query" in expected:
        expected["dynamodb:Query"] = [index] if path.stem == "reviews" else [table, index]
    assert allowed == expected | {"logs:CreateLogStream": [log], "logs:PutLogEvents": [log]}
    assert content["Resources"]["Role"]["Properties"].keys() == {"AssumeRolePolicyDocument", "Policies"}


# --- API


@each_stack
def test_who_may_call(path, content):
    for access, ways in (("open", ("NONE", "NONE")), ("iam", ("AWS_IAM", "NONE"))):
        methods = of_type(made(content, Access=access), "ApiGateway::Method").values()
        doors = {each["Properties"]["HttpMethod"]: each["Properties"]["AuthorizationType"] for each in methods}
        assert doors == dict(zip(("ANY", "OPTIONS"), ways, strict=True))
        said = evaluate(content, content["Outputs"]["Access"]["Value"], {"Access": access})
        assert said.startswith(access) and ("anyone on the internet" in said) == (access == "open")
    for each in of_type(content["Resources"], "ApiGateway::Method").values():
        assert each["Properties"]["ResourceId"] == {"Ref": "Paths"}
        integration = each["Properties"]["Integration"]
        assert (integration["Type"], integration["IntegrationHttpMethod"]) == ("AWS_PROXY", "POST")
        assert "/functions/${Function.Arn}/invocations" in integration["Uri"]["Fn::Sub"]


@each_stack
def test_only_this_api_may_call_the_function(path, content):
    permissions = of_type(content["Resources"], "Lambda::Permission").values()
    (permission,) = [each for each in permissions if each["Properties"]["Principal"] == "apigateway.amazonaws.com"]
    arn = "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:${Api}/*"
    assert permission["Properties"]["SourceArn"] == {"Fn::Sub": arn}


@each_stack
def test_errors_of_the_gateway_look_like_ours(path, content):
    responses = of_type(content["Resources"], "ApiGateway::GatewayResponse").values()
    kinds = {each["Properties"]["ResponseType"]: each["Properties"] for each in responses}
    assert kinds.keys() == {"DEFAULT_4XX", "DEFAULT_5XX"}
    for properties in kinds.values():
        (body,) = properties["ResponseTemplates"].values()
        assert json.loads(body).keys() == {"Error", "Reference"} and json.loads(body)["Error"].endswith(".")
        origin = properties["ResponseParameters"]["gatewayresponse.header.Access-Control-Allow-Origin"]
        assert origin == {"Fn::Sub": "'${AllowedOrigin}'"}
    assert kinds["DEFAULT_5XX"]["StatusCode"] == "503"
    assert kinds["DEFAULT_5XX"]["ResponseParameters"]["gatewayresponse.header.Retry-After"] == "'1'"


@each_stack
def test_the_stage_is_throttled_and_publishes_what_there_is(path, content):
    resources = content["Resources"]
    (name,) = of_type(resources, "ApiGateway::Deployment")
    assert name == "Deployment" + embed.deployment_hash(path.read_text())
    published = {*of_type(resources, "ApiGateway::Method"), *of_type(resources, "ApiGateway::GatewayResponse")}
    assert set(resources[name]["DependsOn"]) == published
    assert not [each for each in resources.values() if each["Type"] in embed.PUBLISHED and "Condition" in each]
    (settings,) = resources["Stage"]["Properties"]["MethodSettings"]
    assert (settings["HttpMethod"], settings["ResourcePath"]) == ("*", "/*")
    assert settings["ThrottlingRateLimit"] == {"Ref": "RequestsPerSecond"}
    assert settings["ThrottlingBurstLimit"] == {"Ref": "RequestBurst"}
    assert resources["Stage"]["Properties"]["DeploymentId"] == {"Ref": name}


# --- The code in them


def sources():
    for path in STACKS:
        for name, function in functions(plain(decode(str(path))[0])).items():
            yield pytest.param(function["Properties"]["Code"]["ZipFile"], id=f"{path.stem}-{name}")


@pytest.mark.parametrize("code", list(sources()))
def test_embedded_code_is_one_whole_file(code):
    """Each name is bound once and used, imports are in order: as if somebody had written it so."""
    tree = ast.parse(code)
    bound = Counter(node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)))
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            bound.update((each.asname or each.name).split(".")[0] for each in node.names)
        elif isinstance(node, ast.Assign):
            bound.update(each.id for target in node.targets for each in ast.walk(target) if isinstance(each, ast.Name))
    assert [name for name, times in bound.items() if times > 1] == []
    used = {each.id for each in ast.walk(tree) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)}
    assert bound.keys() - used == {"lambda_handler"}
    assert "from common import" not in code and '"""' not in code
    ruff = [ROOT / ".venv/bin/ruff", "check", "--stdin-filename", "stacks/embedded.py", "-"]
    done = subprocess.run(ruff, input=code, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def folder(tmp_path):
    """A folder with a module that is shared, and what of it is put before which code."""
    (tmp_path / "common.py").write_text(
        '''"""Shared."""

import json
import os
from urllib.parse import quote, unquote

# --- Settings

PLACE = os.environ["PLACE"]  # why

# --- Errors


# fmt: off
class A(Exception): pass
class B(A): pass
# fmt: on


# --- Text


# Of what it is.
def of(value):
    """What it does."""
    return quote(json.dumps([value, later()]))


def unused(value):
    return unquote(value)


def later():
    return PLACE
'''
    )
    return tmp_path


SHARED = """import json
import os
import re
from urllib.parse import quote

# --- Settings

PLACE = os.environ["PLACE"]  # why


# --- Errors


class A(Exception): pass
class B(A): pass


# --- Text


# Of what it is.
def of(value):
    return quote(json.dumps([value, later()]))


def later():
    return PLACE


# --- Own

print(of(re.escape("a")), B)
"""


def test_code_is_put_together_with_what_it_needs(folder):
    code = 'import re\n\nfrom common import B, of\n\n# --- Own\n\nprint(of(re.escape("a")), B)\n'
    assert embed.with_shared(code, folder) == SHARED


def test_code_that_shares_nothing_stays_as_it_is(folder):
    code = "import gc\n\ngc.disable()\n\nimport json  # why\nfrom os import path\n"
    assert embed.with_shared(code, folder) == code


def test_a_name_that_is_not_shared_is_named(folder):
    with pytest.raises(ValueError, match="common.py has no C, D."):
        embed.with_shared("from common import A, D, C\n\nprint(A, C, D)\n", folder)


# --- The README


def section(name):
    return re.split(r"^## ", README.split(f"\n## {name.capitalize()}\n")[1], flags=re.M)[0]


@each_of_three
def test_routes_are_documented(path):
    documented = set(re.findall(r"^\| `([A-Z]+ /\S*)` \|", section(path.stem), re.M))
    tree = ast.parse((ROOT / "handler" / f"{path.stem}.py").read_text())
    (routes,) = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "ROUTES"]
    there = {route.value: methods.keys for route, methods in zip(routes.keys, routes.values)}
    assert documented == {f"{method.value} {route}" for route, methods in there.items() for method in methods}


UUID = re.compile("[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


def run(engine, url, command):
    """Run a shell command that uses $API, whatever the curl knows of *.localhost; return what it prints."""
    command = re.sub(r"\bcurl\b", f"curl -sS --resolve {urlsplit(url).netloc}:127.0.0.1", command)
    done = subprocess.run(command, shell=True, env=engine.settings | {"API": url}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), command
    return done.stdout


@each_of_three
def test_the_transcript_is_what_happens(path, engine, curl):
    create(engine, f"readme-{path.stem}", f"stacks/{path.name}", {})
    url = stack.reachable(outputs(engine, f"readme-{path.stem}")["APIUrl"], engine.settings["AWS_ENDPOINT_URL"])
    (transcript,) = re.findall(r"^```console\n(.*?)^```", section(path.stem), re.M | re.S)
    steps = re.findall(r"^\$ (.*)\n((?:[^$\n].*\n)*)", transcript, re.M)
    assert len(steps) == transcript.count("$ curl") > 5
    ids = {}  # of the README to what they are here
    of = lambda text: UUID.sub(lambda found: ids.get(found[0], found[0]), text)
    for command, printed in steps:
        answer = run(engine, url, of(command))
        for there, here in zip(UUID.findall(printed), UUID.findall(answer)):
            ids.setdefault(there, here)
        assert variable(answer) == variable(of(printed)), command


@each_of_three
def test_what_a_template_says_to_try_works(path, content, engine, curl):
    create(engine, f"try-{path.stem}", f"stacks/{path.name}", {})
    url = stack.reachable(outputs(engine, f"try-{path.stem}")["APIUrl"], engine.settings["AWS_ENDPOINT_URL"])
    said = content["Metadata"]["Try"].splitlines()
    printed = run(engine, url, "\n".join(show.completed(line, url, "", "") for line in said))
    answers = printed.splitlines()
    assert len(answers) >= 2 and answers[-1].startswith("[{") and "Error" not in printed


def test_the_commands_for_aws_are_what_happens(engine):
    (commands,) = re.findall(r"^```sh\n(aws cloudformation create-stack .*?)^```", README, re.M | re.S)
    printed = shell(engine, commands)
    assert re.search(r"^APIUrl\thttps://\S+/prod/pets$", printed, re.M)
    shell(engine, "aws cloudformation delete-stack --stack-name pets")


# --- Whatever comes in

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ODD = st.sampled_from(
    ["", "*", "0", "1", "POST_0", "METADATA_x", "\x00", "%", "x" * 3000, "http://a.example", '"x"', "W/"]
)
UUIDS = st.sampled_from([f"00000000-0000-7000-8000-00000000000{n}" for n in range(3)])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | ODD | UUIDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
MEMBERS = "id name review userId postId commentText postText status firstName lastName profilePicture PK etag".split()
CHANGES = st.dictionaries(st.sampled_from(MEMBERS) | WORDS, VALUES, max_size=2)
GOOD = {"pets": {"id": 1, "name": "Rex"}, "reviews": {"review": "R"}, "posts": {"firstName": "Ada"}}
HEADERS = st.sampled_from(["If-Match", "If-None-Match", "Idempotency-Key", "X-Forwarded-Proto", "Content-Type"])
PATHS = {
    "pets": ["pets", "pets/{}"],
    "reviews": ["reviews", "reviews/{}"],
    "posts": "users users/{} users/{}/posts post post/{} post/{}/comments comment other/{}".split(),
}


@pytest.fixture(scope="module", params=["pets", "reviews", "posts"])
def any_system(request):
    with on_moto(request.param) as module:
        yield System(sender(module), module.table), PATHS[request.param], GOOD[request.param]


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["GET", "GET", "POST", "POST", "PUT", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]),
    st.integers(0, 7),
    (UUIDS | ODD | WORDS).map(quote),
    st.dictionaries(st.sampled_from(["limit", "cursor"]) | WORDS, ODD | WORDS | UUIDS, max_size=2).map(urlencode),
    st.dictionaries(HEADERS, ODD | UUIDS, max_size=2),
    st.just({}) | CHANGES | VALUES.map(json.dumps) | WORDS | st.none(),
)
def test_whatever_comes_in_is_answered(any_system, method, number, name, query, headers, body):
    system, paths, good = any_system
    body = good | body if isinstance(body, dict) else body
    path = paths[number % len(paths)].format(name)
    answer = system(method, f"/{path}?{query}", body, headers)
    assert answer.status_code in (200, 201, 204, 304, 400, 404, 405, 409, 412), answer.text
