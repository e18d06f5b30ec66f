"""The function of the page, by recorded events; and what a deployment of addons/page.yml relies on."""

import base64
import hashlib
import importlib.util
import json
import re
from html.parser import HTMLParser

import pytest
import yaml
from cfnlint.decode import decode

import embed
from conftest import ROOT, plain, proxy_response, recorded

TEMPLATE = ROOT / "addons" / "page.yml"
STORE_URL = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/prod/link"
HOSTILE_URL = "https://example.com/\"'><script>alert(1)</script>&amp;\\u0022/link"


def page_of(store_url):
    """Return the module handler/page.py as it is with this URL of a store."""
    spec = importlib.util.spec_from_file_location("page", ROOT / "handler" / "page.py")
    page = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORE_URL", store_url)
        spec.loader.exec_module(page)
    return page


@pytest.fixture
def ask():
    """Send the function a request for its page, and get what API Gateway answers."""
    page = page_of(STORE_URL)
    return lambda method="GET", path="/", **headers: proxy_response(
        page.lambda_handler(recorded(method, path, headers, None), None)
    )


class Parts(HTMLParser):
    """What a browser finds in the page: the texts of styles and scripts, and the attributes of meta elements."""

    def __init__(self, html):
        super().__init__()
        self.inside, self.codes, self.metas = None, [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        if tag == "meta":
            self.metas.append(dict(attributes))

    def handle_data(self, data):
        if self.inside in ("style", "script"):
            self.codes.append(data)

    def handle_endtag(self, tag):
        self.inside = None


# --- The page and its policy


@pytest.mark.parametrize("store_url", [STORE_URL, HOSTILE_URL])
def test_the_url_of_the_store_is_an_attribute_whatever_is_in_it(store_url):
    parts = Parts(page_of(store_url).PAGE)
    assert [meta["content"] for meta in parts.metas if meta.get("name") == "store"] == [store_url]
    assert len(parts.codes) == 2
    assert "STORE_URL" not in page_of(store_url).PAGE


def test_the_policy_allows_the_page_and_the_store_alone(ask):
    answer = ask()
    directives = dict(each.split(" ", 1) for each in answer.headers["Content-Security-Policy"].split("; "))
    digests = [hashlib.sha256(code.encode()).digest() for code in Parts(answer.text).codes]
    assert directives == {
        "default-src": " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests),
        "connect-src": STORE_URL.removesuffix("/prod/link"),
        "img-src": "'self'",
        "manifest-src": "'self'",
        "worker-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


@pytest.mark.parametrize(
    "url, origin",
    [
        ("https://links.example.com/link", "https://links.example.com"),
        ("http://a1.execute-api.localhost:4566/prod/link", "http://a1.execute-api.localhost:4566"),
    ],
)
def test_the_origin_of_the_store_has_its_port(url, origin):
    files = page_of(url).FILES
    assert f"; connect-src {origin};" in files[""][0]["Content-Security-Policy"]
    assert files["worker.js"][0]["Content-Security-Policy"] == f"default-src 'none'; connect-src 'self' {origin}"


def test_another_store_changes_neither_code_nor_hashes():
    one, other = page_of(STORE_URL), page_of(HOSTILE_URL)
    assert one.HASHES == other.HASHES and Parts(one.PAGE).codes == Parts(other.PAGE).codes
    assert one.FILES[""][0]["ETag"] != other.FILES[""][0]["ETag"]


# --- What installs it


def test_the_manifest_installs_the_page_as_something_to_share_to(ask):
    answer = ask(path="/manifest.webmanifest")
    assert answer.headers["Content-Type"] == "application/manifest+json"
    manifest = answer.json()
    assert (manifest["start_url"], manifest["display"]) == ("./", "standalone")
    # It is sent as a query, which GET, the default, makes of params (Web Share Target, 4.1).
    assert manifest["share_target"] == {
        "action": "./",
        "params": {"title": "title", "text": "notes", "url": "link"},
    }
    (icon,) = manifest["icons"]
    served = ask(path=f"/{icon['src']}")
    assert served.headers["Content-Type"] == icon["type"] == "image/svg+xml"
    assert served.text.startswith("<svg ")


@pytest.mark.parametrize("path", ["/worker.js", "/manifest.webmanifest", "/icon.svg"])
def test_what_installs_it_loads_nothing(ask, path):
    policy = ask(path=path).headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert ask(path=path, **{"If-None-Match": ask(path=path).headers["ETag"]}).status_code == 304


def test_the_worker_is_a_script_of_its_own(ask):
    answer = ask(path="/worker.js")
    assert answer.headers["Content-Type"] == "text/javascript"
    assert answer.text == (ROOT / "handler" / "worker.js").read_text()


@pytest.mark.parametrize("path", ["/link", "/page.html", "/../worker.js", "/worker.js/x"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
def test_there_is_nothing_else(ask, method, path):
    answer = ask(method, path)
    assert (answer.status_code, answer.json()["Error"]) == (404, "There is no such path here; there is /.")


# --- Requests and answers


def test_every_answer_is_safe_to_show(ask):
    known = {"If-None-Match": "*"}
    for answer in (
        ask(),
        ask("HEAD"),
        ask("OPTIONS"),
        ask("POST"),
        ask(path="/x"),
        ask(path="/icon.svg"),
        ask(**known),
    ):
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert ask().headers["Content-Type"] == "text/html; charset=utf-8"
    assert ask().headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_head_is_get_without_a_body(ask):
    assert (ask("HEAD").status_code, ask("HEAD").content) == (200, b"")
    differ = set(ask().headers.items()) ^ set(ask("HEAD").headers.items())
    assert {name for name, _ in differ} == {"content-length"}


ETAG = page_of(STORE_URL).FILES[""][0]["ETag"]


@pytest.mark.parametrize(
    "given, status",
    [
        (ETAG, 304),
        (ETAG.removeprefix("W/"), 304),
        (f'"other", {ETAG}', 304),
        (f'W/"other",{ETAG} ', 304),
        ("*", 304),
        ('"other"', 200),
        (ETAG.replace('"', ""), 200),
        (ETAG[:-2] + '"', 200),
        ("", 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", ["If-None-Match", "if-none-match"])
def test_a_page_that_is_known_is_not_sent(ask, method, name, given, status):
    answer = ask(method, **{name: given})
    assert answer.status_code == status
    assert (answer.text == "") == (status == 304 or method == "HEAD")
    # Of a 304 a browser takes the headers for those of the page that it has.
    for name in ("Content-Security-Policy", "Content-Type", "ETag"):
        assert answer.headers[name] == ask().headers[name]


def test_lines_of_one_header_are_one_list():
    page, event = page_of(STORE_URL), recorded("GET", "/", {}, None)
    event["multiValueHeaders"]["If-None-Match"] = ['"other"', ETAG]
    assert page.lambda_handler(event, None)["statusCode"] == 304
    event["multiValueHeaders"] = None
    assert page.lambda_handler(event, None)["statusCode"] == 200


def test_the_entity_tag_is_weak_and_of_the_body():
    """API Gateway compresses the page, and leaves its ETag (RFC 9110, 8.8.1)."""
    digest = hashlib.sha256(page_of(STORE_URL).PAGE.encode()).hexdigest()
    assert re.fullmatch('W/"([0-9a-f]{32})"', ETAG)[1] == digest[:32]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "get"])
def test_other_methods_are_refused_with_those_that_work(ask, method):
    answer = ask(method)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert answer.headers["Content-Type"] == "application/json"
    reference = recorded("GET", "/", {}, None)["requestContext"]["requestId"]
    assert answer.json() == {"Error": f"{method} does not work here; GET, HEAD, OPTIONS do.", "Reference": reference}


def test_options_are_told(ask):
    answer = ask("OPTIONS")
    assert (answer.status_code, answer.content, answer.headers["Allow"]) == (200, b"", "GET, HEAD, OPTIONS")


def test_a_request_is_one_line_of_the_log(ask, capsys):
    ask("POST", **{"X-Api-Key": "secret"})
    (line,) = capsys.readouterr().out.splitlines()
    log = json.loads(line)
    assert list(log) == ["level", "method", "resource", "status", "ms", "request_id"]
    assert (log["level"], log["method"], log["resource"], log["status"]) == ("INFO", "POST", "/", 405)
    assert log["request_id"] == recorded("GET", "/", {}, None)["requestContext"]["requestId"]


def test_the_program_needs_the_standard_library_only():
    code = (ROOT / "handler" / "page.py").read_text()
    imported = set(re.findall(r"^(?:import|from) (\w+)", code, re.M))
    assert imported <= {"base64", "hashlib", "html", "json", "os", "pathlib", "re", "time", "urllib"}


def test_the_page_has_one_place_for_the_url():
    assert (ROOT / "handler" / "page.html").read_text().count("STORE_URL") == 1


# --- The template


@pytest.fixture(scope="module")
def template():
    content, problems = decode(str(TEMPLATE))
    assert not problems
    return plain(content)


@pytest.fixture
def resources(template):
    return template["Resources"]


def of_type(resources, kind):
    return {name: each for name, each in resources.items() if each["Type"] == f"AWS::{kind}"}


def test_sections_stand_in_their_order(template):
    assert (
        list(template)
        == "AWSTemplateFormatVersion Description Metadata Parameters Conditions Resources Outputs".split()
    )
    assert template["Description"].startswith("apidb-page, "), "scripts tell stacks apart by it"


def test_every_parameter_explains_itself(template):
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [name for group in groups for name in group["Parameters"]]
    assert grouped == list(template["Parameters"])
    assert all(group["Label"]["default"] for group in groups)
    for parameter in template["Parameters"].values():
        assert {"Type", "Description", "Default", "ConstraintDescription"} <= parameter.keys()
        assert {"AllowedValues", "AllowedPattern", "MinValue"} & parameter.keys()


def test_parameters_that_the_store_has_too_are_the_same(template):
    store = plain(decode(str(ROOT / "setupapidb.yml"))[0]["Parameters"])
    for name in template["Parameters"].keys() & store.keys():
        assert {**template["Parameters"][name], "Description": ""} == {**store[name], "Description": ""}


@pytest.mark.parametrize(
    "url, allowed",
    [
        ("", True),
        (STORE_URL, True),
        ("https://links.example.com/link", True),
        ("https://links.example.com/base/path/link", True),
        ("http://a1.execute-api.localhost:4566/prod/link", True),
        ("http://127.0.0.1:4566/restapis/a1/prod/_user_request_/link", True),
        ("https://links.example.com", False),
        ("https://links.example.com/link/", False),
        ("https://links.example.com/link?a=b", False),
        ("javascript:alert(1)/link", False),
        ("https://links.example.com; script-src */link", False),
        ("https://links.example.com\n/link", False),
        ("https://user@links.example.com/link", False),
        (HOSTILE_URL, False),
    ],
)
def test_the_url_can_only_be_a_url(template, url, allowed):
    pattern = template["Parameters"]["StoreUrl"]["AllowedPattern"]
    assert bool(re.fullmatch(pattern, url, re.A)) == allowed


def test_something_of_the_store_is_imported_whatever_the_url_is(template, resources):
    """Else CloudFormation would delete a store that a page uses."""
    imported = {"Fn::ImportValue": {"Fn::Sub": "${Store}-APIUrl"}}
    assert resources["Api"]["Properties"]["Description"] == imported
    variables = resources["Function"]["Properties"]["Environment"]["Variables"]
    assert variables == {"STORE_URL": {"Fn::If": ["HasStoreUrl", {"Ref": "StoreUrl"}, imported]}}
    assert template["Conditions"] == {"HasStoreUrl": {"Fn::Not": [{"Fn::Equals": [{"Ref": "StoreUrl"}, ""]}]}}
    store = plain(decode(str(ROOT / "setupapidb.yml"))[0]["Outputs"]["APIUrl"])
    assert store["Export"] == {"Name": {"Fn::Sub": "${AWS::StackName}-APIUrl"}}


def test_the_url_of_the_page_assumes_no_partition(template):
    (output,) = template["Outputs"].values()
    assert output["Description"]
    assert output["Value"] == {"Fn::Sub": "https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}/${Stage}/"}
    assert "arn:aws:" not in TEMPLATE.read_text() and "amazonaws.com/" not in TEMPLATE.read_text()


def test_no_physical_name_is_typed_in(resources):
    for name, each in resources.items():
        named = [
            key
            for key in each["Properties"]
            if re.search("(Function|Role|LogGroup|RestApi)?Name$", key) and key != "StageName"
        ]
        assert [key for key in named if not isinstance(each["Properties"][key], dict)] == [], name
    assert resources["Api"]["Properties"]["Name"] == {"Ref": "AWS::StackName"}


def test_nothing_stays_when_the_stack_goes(resources):
    log = resources["LogGroup"]
    assert (log["DeletionPolicy"], log["UpdateReplacePolicy"]) == ("Delete", "Delete")
    assert log["Properties"] == {"RetentionInDays": {"Ref": "LogRetentionInDays"}}
    assert {each.get("DeletionPolicy", "Delete") for each in resources.values()} == {"Delete"}


def test_the_function_runs_what_is_in_handler(resources):
    function = resources["Function"]["Properties"]
    assert function["Handler"] == "index.lambda_handler"
    assert (function["Runtime"], function["Architectures"]) == ("python3.14", ["arm64"])
    assert function["LoggingConfig"] == {"LogGroup": {"Ref": "LogGroup"}, "LogFormat": "JSON", "SystemLogLevel": "WARN"}
    embedded, sources = {"__name__": "index"}, page_of(STORE_URL)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORE_URL", STORE_URL)
        exec(function["Code"]["ZipFile"], embedded)
    for name, (headers, body) in sources.FILES.items():
        stated, given = embedded["FILES"][name]
        # The copy has neither comments nor indentation, which each line of the source may begin with.
        assert [line for line in given.splitlines() if line] == [
            line.strip() for line in body.splitlines() if line.strip() and not line.strip().startswith("//")
        ]
        assert stated.keys() == headers.keys() and stated["Content-Type"] == headers["Content-Type"]
    assert embed.with_sources(TEMPLATE) == TEMPLATE.read_text()


def test_the_role_writes_the_log_and_nothing_else(resources):
    (role,) = of_type(resources, "IAM::Role").values()
    assert role["Properties"].keys() == {"AssumeRolePolicyDocument", "Policies"}
    assumed = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert assumed == {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    (policy,) = role["Properties"]["Policies"]
    log = {"Fn::GetAtt": ["LogGroup", "Arn"]}
    actions = ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert policy["PolicyDocument"]["Statement"] == [{"Effect": "Allow", "Action": actions, "Resource": log}]


def test_only_this_api_may_call_the_function(resources):
    (permission,) = of_type(resources, "Lambda::Permission").values()
    assert permission["Properties"]["Principal"] == "apigateway.amazonaws.com"
    assert permission["Properties"]["SourceArn"]["Fn::Sub"].endswith(":${AWS::AccountId}:${Api}/*")


def test_the_api_is_open_and_the_function_has_all_paths(resources):
    assert of_type(resources, "ApiGateway::ApiKey") == {}
    (paths,) = of_type(resources, "ApiGateway::Resource").values()
    root = {"Fn::GetAtt": ["Api", "RootResourceId"]}
    assert (paths["Properties"]["ParentId"], paths["Properties"]["PathPart"]) == (root, "{proxy+}")
    methods = [each["Properties"] for each in of_type(resources, "ApiGateway::Method").values()]
    assert [each["ResourceId"] for each in methods] == [root, {"Ref": "Paths"}]
    for wants in methods:
        assert (wants["HttpMethod"], wants["AuthorizationType"]) == ("ANY", "NONE")
        assert (wants["Integration"]["Type"], wants["Integration"]["IntegrationHttpMethod"]) == ("AWS_PROXY", "POST")
    api = resources["Api"]["Properties"]
    assert (api["EndpointConfiguration"], api["MinimumCompressionSize"]) == ({"Types": ["REGIONAL"]}, 1024)


def test_errors_of_the_gateway_look_like_the_functions(resources):
    responses = [each["Properties"] for each in of_type(resources, "ApiGateway::GatewayResponse").values()]
    kinds = {each["ResponseType"]: each.get("StatusCode") for each in responses}
    assert kinds == {"DEFAULT_4XX": None, "DEFAULT_5XX": "503"}
    for each in responses:
        (body,) = each["ResponseTemplates"].values()
        assert json.loads(body).keys() == {"Error", "Reference"}
        assert json.loads(body)["Error"].endswith(".")
        assert set(re.findall(r"\$[a-zA-Z.]+[a-zA-Z]", body)) <= {"$context.error.responseType", "$context.requestId"}


def test_the_stage_is_throttled(resources):
    (stage,) = of_type(resources, "ApiGateway::Stage").values()
    assert stage["Properties"]["StageName"] == "prod"
    (settings,) = stage["Properties"]["MethodSettings"]
    assert settings["ThrottlingRateLimit"] == {"Ref": "RequestsPerSecond"}
    assert settings["ThrottlingBurstLimit"] == {"Ref": "RequestBurst"}
    assert (settings["HttpMethod"], settings["ResourcePath"]) == ("*", "/*")


def test_the_deployment_comes_last_and_is_named_by_what_it_publishes(resources):
    ((name, deployment),) = of_type(resources, "ApiGateway::Deployment").items()
    assert name == "Deployment" + embed.deployment_hash(TEMPLATE.read_text())
    assert set(deployment["DependsOn"]) == {
        *of_type(resources, "ApiGateway::Method"),
        *of_type(resources, "ApiGateway::GatewayResponse"),
    }
    assert resources["Stage"]["Properties"]["DeploymentId"] == {"Ref": name}


def test_the_template_is_small_and_plain_yaml():
    """CloudFormation takes no aliases and no merge keys (User Guide, template formats)."""
    assert len(TEMPLATE.read_bytes()) <= embed.MOST_BYTES
    tokens = list(yaml.scan(TEMPLATE.read_text()))
    assert not [each for each in tokens if isinstance(each, (yaml.AnchorToken, yaml.AliasToken))]
