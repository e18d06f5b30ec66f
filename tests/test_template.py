"""What a deployment relies on and the local engine does not show: asserted on the template itself."""

import ast
import json
import re
import subprocess

import pytest
import yaml
from cfnlint.decode import decode

import embed
from conftest import ROOT, TEMPLATE, plain


@pytest.fixture
def resources(template):
    return plain(template["Resources"])


def of_type(resources, kind):
    return {name: each for name, each in resources.items() if each["Type"] == f"AWS::{kind}"}


# --- Outline


def test_sections_stand_in_their_order(template):
    order = "AWSTemplateFormatVersion Description Metadata Parameters Mappings Conditions Resources Outputs"
    assert list(template) == order.split()


def test_every_parameter_explains_itself(template):
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [name for group in groups for name in group["Parameters"]]
    assert sorted(grouped) == sorted(template["Parameters"])
    assert all(group["Label"]["default"] for group in groups)
    for parameter in template["Parameters"].values():
        assert {"Type", "Description", "Default", "ConstraintDescription"} <= parameter.keys()
        assert {"AllowedValues", "AllowedPattern", "MinValue"} & parameter.keys()


def test_the_throttle_can_be_what_an_account_has(template):
    """By default 10,000 requests a second, and 5,000 at once (API Gateway quotas)."""
    for name, most in (("RequestsPerSecond", 10_000), ("RequestBurst", 5_000)):
        assert (template["Parameters"][name]["MinValue"], template["Parameters"][name]["MaxValue"]) == (1, most)


def test_outputs_are_described(template):
    assert all(output["Description"] for output in template["Outputs"].values())


def test_what_add_ons_import_is_exported(template):
    """By the name of the store's stack, of which there is one in a region; some of it by another add-on."""
    exported = {name for name, output in template["Outputs"].items() if "Export" in output}
    for name in exported:
        assert template["Outputs"][name]["Export"] == {"Name": {"Fn::Sub": f"${{AWS::StackName}}-{name}"}}
    imported = set()
    for addon in sorted(ROOT.glob("addons/*.yml")):
        imported |= set(re.findall(r'Fn::ImportValue: !Sub "?\$\{Store\}-(\w+)', addon.read_text()))
        exported |= set(re.findall(r'Export: \{Name: !Sub "\$\{Store\}-(\w+)"', addon.read_text()))
    assert imported == exported


def evaluate(template, value, parameters):
    """Return a part of the template as CloudFormation has it with these parameters, all else by default."""
    given = {name: str(each["Default"]) for name, each in template["Parameters"].items()} | parameters
    if isinstance(value, list):
        return [evaluate(template, each, parameters) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((function, of),) = value.items()
        if function == "Ref" and of in given:
            return given[of]
        if function == "Condition":
            return evaluate(template, template["Conditions"][of], parameters)
        if function == "Fn::If":
            return evaluate(
                template, of[1] if evaluate(template, {"Condition": of[0]}, parameters) else of[2], parameters
            )
        of = evaluate(template, of, parameters)
        if function == "Fn::Equals":
            return str(of[0]) == str(of[1])
        if function == "Fn::Not":
            return not of[0]
        if function == "Fn::Or":
            return any(of)
        if function == "Fn::FindInMap":
            return template["Mappings"][of[0]][of[1]][of[2]]
    return {key: evaluate(template, each, parameters) for key, each in value.items()}


def made(template, **parameters):
    """Return the resources that the stack has with these parameters, by logical ID."""
    there = {
        name: each
        for name, each in plain(template["Resources"]).items()
        if "Condition" not in each or evaluate(template, {"Condition": each["Condition"]}, parameters)
    }
    return {name: evaluate(template, each, parameters) for name, each in there.items()}


MODES = ("open", "read", "key", "iam")


# --- Parameters that change what is made


@pytest.mark.parametrize("access", MODES)
def test_who_may_call(template, access):
    resources = made(template, Access=access)
    root = {"Fn::GetAtt": ["Api", "RootResourceId"]}
    paths = {str(root): ""}
    for name, each in of_type(resources, "ApiGateway::Resource").items():
        above = each["Properties"]["ParentId"]
        paths[str({"Ref": name})] = paths[str(above)] + "/" + each["Properties"]["PathPart"]
    doors = {}
    for each in of_type(resources, "ApiGateway::Method").values():
        wants = each["Properties"]
        door = "key" if wants.get("ApiKeyRequired") in (True, "true") else wants["AuthorizationType"]
        doors[wants["HttpMethod"], paths[str(wants["ResourceId"])]] = door
    reading, writing = {"read": ("NONE", "key"), "key": ("key", "key"), "iam": ("AWS_IAM", "AWS_IAM")}.get(
        access, ("NONE",) * 2
    )
    assert doors == {
        ("ANY", ""): "NONE",
        ("ANY", "/health"): "NONE",
        ("ANY", "/go/{proxy+}"): "NONE",
        ("OPTIONS", "/{proxy+}"): "NONE",
        ("GET", "/{proxy+}"): reading,
        ("HEAD", "/{proxy+}"): reading,
        ("ANY", "/{proxy+}"): writing,
    }
    keys = [
        name for kind in ("ApiKey", "UsagePlan", "UsagePlanKey") for name in of_type(resources, f"ApiGateway::{kind}")
    ]
    assert len(keys) == (3 if access in ("read", "key") else 0)
    assert evaluate(template, plain(template["Outputs"]["Access"]["Value"]), {"Access": access}).startswith(access)


def test_another_access_is_another_deployment(template):
    """Else an update of Access would change methods, and publish nothing."""
    chosen = {}
    for access in MODES:
        resources = made(template, Access=access)
        ((chosen[access], deployment),) = of_type(resources, "ApiGateway::Deployment").items()
        assert resources["Stage"]["Properties"]["DeploymentId"] == {"Ref": chosen[access]}
    assert len(set(chosen.values())) == len(MODES)


def test_an_api_key_is_limited(template):
    plan = made(template, Access="key")["UsagePlan"]["Properties"]
    assert plan["Throttle"] == {"RateLimit": "200", "BurstLimit": "500"}
    assert plan["ApiStages"] == [{"ApiId": {"Ref": "Api"}, "Stage": {"Ref": "Stage"}}]


def test_the_origin_is_everywhere(template):
    assert {"ALLOWED_ORIGIN": {"Ref": "AllowedOrigin"}}.items() <= template["Resources"]["Function"]["Properties"][
        "Environment"
    ]["Variables"].items()
    text = TEMPLATE.read_text()
    assert len(re.findall(r"Allow-Origin: !Sub \"'\$\{AllowedOrigin\}'\"", text)) == 3
    assert len(re.findall("Allow-Origin: ", text)) == 3 + 1  # and that it is sent


def test_concurrency(template):
    key = "ReservedConcurrentExecutions"
    assert made(template)["Function"]["Properties"][key] == {"Ref": "AWS::NoValue"}
    assert made(template, ReservedConcurrency="5")["Function"]["Properties"][key] == "5"


def test_the_version_is_typed_once(template):
    version = evaluate(template, plain(template["Outputs"]["Version"]["Value"]), {})
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert made(template)["Function"]["Properties"]["Environment"]["Variables"]["VERSION"] == version
    assert TEMPLATE.read_text().count(version) == 1


def test_all_that_is_released_has_the_version_of_the_store(template):
    version = template["Mappings"]["Apidb"]["Version"]["Number"]
    others = [*ROOT.glob("addons/*.yml"), *ROOT.glob("stacks/*.yml")]
    said = {path.name: decode(str(path))[0]["Metadata"]["Version"] for path in others}
    contract = yaml.safe_load((ROOT / "openapi.yml").read_text())
    (health,) = re.findall(r"\{version: ([\d.]+)\}", (ROOT / "openapi.yml").read_text())
    newest = re.search(r"^## \[(\d.*)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    said |= {"openapi.yml": contract["info"]["version"], "its example": health, "CHANGELOG.md": newest[1]}
    assert said == dict.fromkeys(said, version)


def test_the_url_assumes_no_partition(template):
    url = template["Outputs"]["APIUrl"]["Value"]["Fn::Sub"]
    assert url == "https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}/${Stage}/link"
    assert "arn:aws:" not in TEMPLATE.read_text() and "amazonaws.com/" not in TEMPLATE.read_text()


def test_no_physical_name_is_typed_in(resources):
    names = r"(Table|Function|Role|LogGroup|Policy|ManagedPolicy|UsagePlan|ApiKey)Name$"
    for resource in resources.values():
        named = [key for key in resource.get("Properties", {}) if re.search(names, key)]
        assert [key for key in named if not isinstance(resource["Properties"][key], dict)] == []
    assert resources["Api"]["Properties"]["Name"] == {"Ref": "AWS::StackName"}


# --- Table and log


def test_the_table(resources):
    table = resources["Table"]["Properties"]
    assert table["KeySchema"] == [
        {"AttributeName": "link_id", "KeyType": "HASH"},
        {"AttributeName": "link", "KeyType": "RANGE"},
    ]
    for index, order in zip(table["GlobalSecondaryIndexes"], ("created_at", "updated_at"), strict=True):
        assert index["KeySchema"] == [
            {"AttributeName": "owner", "KeyType": "HASH"},
            {"AttributeName": order, "KeyType": "RANGE"},
        ]
        assert index["Projection"] == {"ProjectionType": "ALL"}
    assert {each["AttributeType"] for each in table["AttributeDefinitions"]} == {"S"}
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["SSESpecification"] == {"SSEEnabled": True}
    assert table["StreamSpecification"] == {"StreamViewType": "NEW_AND_OLD_IMAGES"}  # which the add-on search follows
    # The local engine and moto delete nothing by it, and the handler does not wait for it.
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert table["DeletionProtectionEnabled"] == {"Ref": "DeletionProtection"}


def test_the_table_goes_with_the_stack_and_stays_when_replaced(resources):
    assert resources["Table"]["DeletionPolicy"] == "Delete"
    assert resources["Table"]["UpdateReplacePolicy"] == "Retain"
    policies = {
        each.get(policy, "Delete")
        for each in resources.values()
        for policy in ("DeletionPolicy", "UpdateReplacePolicy")
        if each is not resources["Table"]
    }
    assert policies == {"Delete"}, "delete-stack leaves nothing"


def test_the_log(resources):
    assert resources["LogGroup"]["Properties"] == {"RetentionInDays": {"Ref": "LogRetentionInDays"}}
    logging = resources["Function"]["Properties"]["LoggingConfig"]
    # Below WARN Lambda would add three lines of its own to each request.
    assert logging == {"LogGroup": {"Ref": "LogGroup"}, "LogFormat": "JSON", "SystemLogLevel": "WARN"}


# --- Function and role


def test_the_function(resources):
    function = resources["Function"]["Properties"]
    assert function["Handler"] == "index.lambda_handler"
    assert function["Architectures"] == ["arm64"]
    assert re.fullmatch(r"python3\.\d+", function["Runtime"])
    assert function["MemorySize"] >= 128
    code = (ROOT / "handler" / "index.py").read_text()
    assert without_docstrings(function["Code"]["ZipFile"]) == without_docstrings(code)


def test_the_function_knows_its_stack(resources):
    """STACK_ID signs cursors: unlike the stack's name, nobody can guess it."""
    assert resources["Function"]["Properties"]["Environment"]["Variables"] == {
        "STACK": {"Ref": "AWS::StackName"},
        "STACK_ID": {"Ref": "AWS::StackId"},
        "TABLE": {"Ref": "Table"},
        "VERSION": {"Fn::FindInMap": ["Apidb", "Version", "Number"]},
        "ALLOWED_ORIGIN": {"Ref": "AllowedOrigin"},
        "COUNT_VISITS": {"Ref": "CountVisits"},
        "ACCESS": {"Ref": "Access"},
        "ENDPOINT": {"Fn::Sub": "https://dynamodb.${AWS::Region}.${AWS::URLSuffix}"},
        "LAMBDA": {"Fn::Sub": "https://lambda.${AWS::Region}.${AWS::URLSuffix}"},
    }


def without_docstrings(code):
    """Return what Python makes of code, but for its docstrings."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


def test_the_role_has_the_actions_that_the_code_calls(resources):
    policies = resources["Role"]["Properties"]["Policies"]
    statements = [each for policy in policies for each in policy["PolicyDocument"]["Statement"]]
    allowed = {}
    for statement in statements:
        assert statement["Effect"] == "Allow"
        actions, targets = statement["Action"], statement["Resource"]
        for action in [actions] if isinstance(actions, str) else actions:
            allowed[action] = targets if isinstance(targets, list) else [targets]
    table, log = {"Fn::GetAtt": ["Table", "Arn"]}, {"Fn::GetAtt": ["LogGroup", "Arn"]}
    names = [index["IndexName"] for index in resources["Table"]["Properties"]["GlobalSecondaryIndexes"]]
    indexes = [{"Fn::Sub": f"${{Table.Arn}}/index/{name}"} for name in names]
    code = (ROOT / "handler" / "index.py").read_text()
    called = {f"dynamodb:{name}" for name in re.findall(r'"(\w+Item|Query|Scan)"', code)}
    assert allowed.keys() == called | {"lambda:InvokeFunction", "logs:CreateLogStream", "logs:PutLogEvents"}
    (addon,) = allowed.pop("lambda:InvokeFunction")
    assert addon["Fn::Sub"].endswith(":${AWS::Region}:${AWS::AccountId}:function:${AWS::StackName}-search")
    assert allowed.pop("dynamodb:Query") == [table, *indexes]
    for action, targets in allowed.items():
        assert targets == [log if action.startswith("logs:") else table]
    assert "ManagedPolicyArns" not in resources["Role"]["Properties"]
    assumed = resources["Role"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert assumed == {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}


def test_only_this_api_may_call_the_function(resources):
    (permission,) = of_type(resources, "Lambda::Permission").values()
    assert permission["Properties"]["Principal"] == "apigateway.amazonaws.com"
    arn = permission["Properties"]["SourceArn"]["Fn::Sub"]
    assert re.search(r":\$\{AWS::AccountId\}:\$\{Api\}/", arn)


# --- API


def test_every_path_reaches_the_function(resources):
    for name, each in of_type(resources, "ApiGateway::Method").items():
        integration = each["Properties"]["Integration"]
        if each["Properties"]["HttpMethod"] == "OPTIONS":
            assert integration["Type"] == "MOCK"
        else:
            assert (integration["Type"], integration["IntegrationHttpMethod"]) == ("AWS_PROXY", "POST"), name
            assert "/functions/${Function.Arn}/invocations" in integration["Uri"]["Fn::Sub"]


def test_options_name_what_works(resources, module):
    (mock,) = [
        each["Properties"]
        for each in of_type(resources, "ApiGateway::Method").values()
        if each["Properties"]["HttpMethod"] == "OPTIONS"
    ]
    (answer,) = mock["Integration"]["IntegrationResponses"]
    (declared,) = mock["MethodResponses"]
    assert answer["ResponseParameters"].keys() == declared["ResponseParameters"].keys()
    allowed = answer["ResponseParameters"]["method.response.header.Access-Control-Allow-Methods"]
    works = {method for methods in module.ROUTES.values() for method in methods}
    assert set(allowed.strip("'").split(",")) == {*works, "HEAD", "OPTIONS"}
    # What a page sends: bodies, conditions, a key or a signature, of temporary credentials too.
    headers = answer["ResponseParameters"]["method.response.header.Access-Control-Allow-Headers"].strip("'")
    assert headers.split(",") == (
        "Authorization Content-Type If-Match If-None-Match X-Amz-Date X-Amz-Security-Token X-Api-Key".split()
    )


def test_errors_of_the_gateway_look_like_ours(resources):
    responses = of_type(resources, "ApiGateway::GatewayResponse").values()
    kinds = {each["Properties"]["ResponseType"]: each["Properties"] for each in responses}
    assert kinds.keys() == {"DEFAULT_4XX", "DEFAULT_5XX"}
    for properties in kinds.values():
        (body,) = properties["ResponseTemplates"].values()
        assert json.loads(body).keys() == {"Error", "Reference"}
        assert json.loads(body)["Error"].endswith(".")
        # A message of API Gateway can have quotes and ends of lines in it, the name of a type cannot.
        assert set(re.findall(r"\$[a-zA-Z.]+[a-zA-Z]", body)) <= {"$context.error.responseType", "$context.requestId"}


def test_what_the_function_could_not_answer_may_be_sent_again(resources):
    """A function that may not run yet would be a 500 (Lambda Developer Guide); the engine keeps the gateway's status."""
    properties = resources["ServerErrors"]["Properties"]
    assert properties["StatusCode"] == "503"
    assert properties["ResponseParameters"]["gatewayresponse.header.Retry-After"] == "'1'"


def test_long_answers_are_compressed(resources):
    """The engine stores this, and compresses nothing."""
    assert resources["Api"]["Properties"]["MinimumCompressionSize"] == 1024


def test_the_stage_is_throttled(resources):
    (stage,) = of_type(resources, "ApiGateway::Stage").values()
    assert stage["Properties"]["StageName"] == "prod"
    (settings,) = stage["Properties"]["MethodSettings"]
    assert settings["ThrottlingRateLimit"] == {"Ref": "RequestsPerSecond"}
    assert settings["ThrottlingBurstLimit"] == {"Ref": "RequestBurst"}
    assert (settings["HttpMethod"], settings["ResourcePath"]) == ("*", "/*")


def test_what_a_deployment_publishes_depends_on_no_condition(resources):
    """CloudFormation removes what is gone after all else, so a new deployment would still have it, open as it was."""
    for each in resources.values():
        assert each["Type"] not in embed.PUBLISHED or "Condition" not in each


def test_deployments_come_last_and_are_named_by_what_they_publish(resources):
    published = {*of_type(resources, "ApiGateway::Method"), *of_type(resources, "ApiGateway::GatewayResponse")}
    for name, deployment in of_type(resources, "ApiGateway::Deployment").items():
        assert name.endswith("Deployment" + embed.deployment_hash(TEMPLATE.read_text()))
        assert set(deployment["DependsOn"]) == published


# --- scripts/embed.py


@pytest.fixture
def copy(tmp_path):
    """A copy of the template, with its handler and a text beside it, to play with."""
    (tmp_path / "handler").mkdir()
    (tmp_path / "handler" / "index.py").write_text((ROOT / "handler" / "index.py").read_text())
    (tmp_path / "stack.yml").write_text(TEMPLATE.read_text())
    return tmp_path / "stack.yml"


def run(monkeypatch, *arguments):
    """Run the script; return what it says when it fails, None when it succeeds."""
    monkeypatch.setattr("sys.argv", ["embed.py", *map(str, arguments)])
    try:
        embed.main()
    except SystemExit as end:
        return end.code


def test_check_writes_nothing_and_says_what_mends(copy, monkeypatch, capsys):
    assert run(monkeypatch, "--check", copy) is None
    assert capsys.readouterr().out.startswith(f"{copy}: {len(TEMPLATE.read_bytes()):,} of 51,200 bytes\n")
    handler = copy.parent / "handler" / "index.py"
    handler.write_text(handler.read_text().replace("\nimport hmac\n", "\nimport hmac  # so\n"))
    before = copy.read_text()
    assert run(monkeypatch, "--check", copy) == f"{copy} differs from its sources. Run: make embed"
    assert copy.read_text() == before
    assert run(monkeypatch, copy) is None
    assert run(monkeypatch, "--check", copy) is None
    assert copy.read_text() == before.replace("import hmac\n", "import hmac  # so\n")


@pytest.mark.parametrize(
    "old, new, published",
    [
        ('PathPart: "{proxy+}"', 'PathPart: "{all+}"', True),
        ("HttpMethod: ANY", "HttpMethod: POST", True),
        ("'GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS'", "'GET'", True),
        ("ResponseType: DEFAULT_4XX", "ResponseType: ACCESS_DENIED", True),
        ("Types: [REGIONAL]", "Types: [EDGE]", True),
        ("MemorySize: 512", "MemorySize: 1024", False),
        ("StageName: prod", "StageName: v1", False),
        ("MinimumCompressionSize: 1024", "MinimumCompressionSize: 0", True),
        ("# The function knows the paths", "# Another comment", False),
    ],
)
def test_the_deployment_changes_its_name_with_the_api_only(copy, monkeypatch, old, new, published):
    before = TEMPLATE.read_text()
    name = re.search("Deployment[0-9a-f]{10}", before)[0]
    assert old in before
    changed = before.replace(old, new, 1)
    copy.write_text(changed)
    stale = f"The name of the deployment in {copy} is stale. Run: make embed"
    assert run(monkeypatch, "--check", copy) == (stale if published else None)
    assert copy.read_text() == changed
    assert run(monkeypatch, copy) is None
    after = copy.read_text()
    assert (name not in after) == published
    names = re.findall("Deployment[0-9a-f]{10}", after)
    assert len(names) == 8 and len(set(names)) == 1
    assert after.replace(names[0], name) == changed


def test_a_template_that_is_too_large_is_refused(copy, monkeypatch, capsys):
    handler = copy.parent / "handler" / "index.py"
    room = 51_200 - len(copy.read_bytes())
    line = "# " + "x" * 92 + "\n"  # 100 bytes when indented
    handler.write_text(handler.read_text() + line * (room // 100))
    assert run(monkeypatch, copy) is None
    assert "close to what create-stack takes" in capsys.readouterr().out
    small = copy.read_text()
    handler.write_text(handler.read_text() + line)
    assert "more than create-stack takes" in run(monkeypatch, copy)
    assert copy.read_text() == small


@pytest.mark.parametrize("code", ["x = '\u00e9'\n", "x = 1\r\n", "x = 1", "x = 1\n\n", "if x:\n\ty = 1\n", "x = 1 \n"])
def test_code_that_yaml_would_not_give_back_is_refused(copy, monkeypatch, code):
    (copy.parent / "handler" / "index.py").write_text(code, newline="")
    assert "must be ASCII" in run(monkeypatch, copy)
    assert copy.read_text() == TEMPLATE.read_text()


@pytest.mark.parametrize("code", ["pass\n", "a = '''\n\n  ${x} !Sub '\"|>#:\n\n'''\nb = 1\n", "\n\nx\n"])
def test_code_is_embedded_as_it_is(copy, monkeypatch, code):
    (copy.parent / "handler" / "index.py").write_text(code)
    assert run(monkeypatch, copy) is None
    block = embed.child(embed.resources(copy.read_text())["Function"], "Properties", "Code", "ZipFile")
    assert block.value == code
    assert run(monkeypatch, "--check", copy) is None


def test_code_is_embedded_without_docstrings(copy, monkeypatch):
    code = '''"""What it is."""

import os


class A(Exception):
    """What a is.

    More.
    """

    def b(self, c):
        """What b is."""
        # Why.
        if c:
            return """
    as it is"""


def d():
    """What d is, and there is nothing else."""
'''
    (copy.parent / "handler" / "index.py").write_text(code)
    assert run(monkeypatch, copy) is None
    block = embed.child(embed.resources(copy.read_text())["Function"], "Properties", "Code", "ZipFile")
    assert without_docstrings(block.value) == without_docstrings(code)
    assert block.value.startswith(
        "import os\n\n\nclass A(Exception):\n    def b(self, c):\n        # Why.\n        if c:\n"
    )
    assert block.value.endswith('def d():\n    """What d is, and there is nothing else."""\n')


@pytest.mark.parametrize(
    "text, line_by_line",
    [
        ("<p>\\n ${x} 'a' \"b\" \\\n", "<p>\\n ${x} 'a' \"b\" \\\n"),
        ("<\n\n  indented\n", "<\n\n  indented\n"),
        ("// Why.\na // b\n\n  // How.\n  // When.\n  'https://c'\n", "a // b\n\n  'https://c'\n"),
    ],
)
def test_a_text_that_the_code_reads_is_embedded_without_its_comments(copy, monkeypatch, text, line_by_line):
    handler = copy.parent / "handler"
    (handler / "index.py").write_text(
        'from pathlib import Path\nA = Path(__file__).with_name("page.html").read_text()\n'
    )
    (handler / "page.html").write_text(text)
    assert run(monkeypatch, copy) is None
    block = embed.child(embed.resources(copy.read_text())["Function"], "Properties", "Code", "ZipFile")
    embedded = {}
    exec(block.value, embedded)
    assert embedded["A"] == line_by_line
    (handler / "page.html").write_text(text + "<p>\n")
    assert run(monkeypatch, "--check", copy) == f"{copy} differs from its sources. Run: make embed"


@pytest.mark.parametrize("text", ['a """ b\n', "\u00e9\n", 'ends with "', "ends with \\"])
def test_a_text_that_code_cannot_hold_is_refused(copy, monkeypatch, text):
    (copy.parent / "handler" / "index.py").write_text('A = Path(__file__).with_name("page.html").read_text()\n')
    (copy.parent / "handler" / "page.html").write_text(text)
    assert "must " in run(monkeypatch, copy)
    assert copy.read_text() == TEMPLATE.read_text()


def test_all_templates_are_looked_at(copy, monkeypatch):
    """And what is wrong with one does not hide what is wrong with another."""
    done = subprocess.run(["make", "check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in ("setupapidb.yml", *(f"addons/{path.name}" for path in ROOT.glob("addons/*.yml"))):
        assert f"{path}: {len((ROOT / path).read_bytes()):,} of 51,200 bytes\n" in done.stdout
    stale = copy.with_name("other.yml")
    stale.write_text(copy.read_text().replace("import hmac\n", ""))
    assert run(monkeypatch, "--check", "nowhere.yml", stale, copy).count("\n") == 1


def test_a_missing_handler_or_template_is_named(copy, monkeypatch):
    (copy.parent / "handler" / "index.py").unlink()
    assert "index.py" in run(monkeypatch, copy)
    assert "nowhere.yml" in run(monkeypatch, "nowhere.yml")


def test_yaml_features_that_cloudformation_lacks_are_not_used():
    """CloudFormation takes no aliases and no merge keys (User Guide, template formats)."""
    tokens = list(yaml.scan(TEMPLATE.read_text()))
    assert not [each for each in tokens if isinstance(each, (yaml.AnchorToken, yaml.AliasToken))]
