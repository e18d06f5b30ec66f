"""Who may call: each Access on the local engine, with every door tried from outside."""

import json
import time
from types import SimpleNamespace

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from conftest import NEVER_THROTTLED, aws, create_stack, http_api, key_of, outputs, resource_ids, settled

GOOGLE = "https://www.google.com"
ORIGIN = "https://page.example"
OPEN = ["/", "/health", "/go/docs"]
READING = [("GET", path) for path in ("/link", "/link/docs", "/tags", "/feed", "/link?q=a", "/link/docs/", "/nowhere")]
READING += [("HEAD", "/link"), ("HEAD", "/link/docs")]
WRITING = [
    ("POST", "/link", {"link": GOOGLE}),
    ("PUT", "/link/docs", {"link": GOOGLE}),
    ("PATCH", "/link/docs", {"title": "T"}),
    ("DELETE", "/link/docs"),
    ("PURGE", "/link"),
]


@pytest.fixture(scope="module", params=["open", "read", "key", "iam"])
def stack(request, engine):
    """A stack with this Access: its Api, and the headers that open it."""
    parameters = NEVER_THROTTLED | {"Access": request.param, "AllowedOrigin": ORIGIN}
    url = create_stack(engine, f"access-{request.param}", parameters)
    key = key_of(engine, f"access-{request.param}") if request.param in ("read", "key") else None
    with http_api(engine, url) as api:
        api.origin = ORIGIN
        credentials = caller(engine) if request.param == "iam" else None

        def send(method, path, body=None, headers={}):
            headers = headers | ({"x-api-key": key} if key else {})
            if credentials:
                headers |= signed(api, credentials, method, path, body)
            return api(method, path, body and json.dumps(body), headers)

        send("PUT", "/link/docs", {"link": GOOGLE})
        yield SimpleNamespace(access=request.param, api=api, send=send, key=key, credentials=credentials)


def caller(engine, action="execute-api:Invoke"):
    """Return credentials of an IAM user who may do this and nothing else."""
    name = f"user-{action.split(':')[1]}"
    aws(engine, "iam", "create-user", "--user-name", name)
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]}
    put = f"iam put-user-policy --user-name {name} --policy-name may --policy-document"
    aws(engine, *put.split(), json.dumps(policy))
    key = aws(engine, "iam", "create-access-key", "--user-name", name)["AccessKey"]
    return Credentials(key["AccessKeyId"], key["SecretAccessKey"])


def signed(api, credentials, method, path, body=None):
    """Return the headers of a signature (AWS Signature Version 4) of a request with this JSON body."""
    url = f"http://{api.host}/prod{path}"
    request = AWSRequest(method, url, data=json.dumps(body) if body else None, headers={"Host": api.host})
    SigV4Auth(credentials, "execute-api", "us-east-1").add_auth(request)
    return {name: request.headers[name] for name in ("Authorization", "X-Amz-Date")}


def is_shut(stack, why, method, path, body=None, headers={}):
    """Try a door that must be shut for this reason."""
    answer = stack.api(method, path, body and json.dumps(body), headers)
    assert answer.status_code == 403, (method, path)
    if method != "HEAD":
        assert answer.json()["Error"] == f"API Gateway refused this: {why}."


def doors(stack):
    """Return the requests that need a key or signature with this Access."""
    return {"open": [], "read": WRITING, "key": READING + WRITING, "iam": READING + WRITING}[stack.access]


def test_what_is_open_is_open(stack):
    stack.send("PUT", "/link/docs", {"link": GOOGLE})
    for path in OPEN:
        for method in ("GET", "HEAD"):
            assert stack.api(method, path).status_code in (200, 302)
    assert stack.api("POST", "/go/docs").status_code == 405, "nothing but to follow it"
    for method, *request in READING + WRITING:
        if (method, *request) not in doors(stack):
            assert stack.api(method, *request).status_code != 403, (method, request)


def test_an_id_leads_nowhere_where_it_would_tell_which_urls_are_stored(stack):
    """Ids are public functions of URLs; a name has to be guessed."""
    link_id = stack.send("POST", "/link", {"link": f"{GOOGLE}/secret"}).json()["link_id"]
    unknown = stack.api("GET", "/go/00000000-0000-5000-8000-000000000000")
    answer = stack.api("GET", f"/go/{link_id}")
    if stack.access in ("key", "iam"):
        assert (answer.status_code, answer.json()["Error"]) == (404, unknown.json()["Error"])
        assert "visits" not in stack.send("GET", f"/link/{link_id}").json()
        stack.send("PUT", "/link/named", {"link": f"{GOOGLE}/secret"})
        assert stack.api("GET", "/go/named").headers["Location"] == f"{GOOGLE}/secret"
    else:
        assert answer.headers["Location"] == f"{GOOGLE}/secret"


def test_with_the_key_or_signature_all_works(stack):
    path = f"/link/{stack.send('POST', '/link', {'link': GOOGLE + '/new'}).json()['link_id']}"
    assert stack.send("GET", path).json()["link"] == GOOGLE + "/new"
    assert stack.send("HEAD", path).status_code == 200
    assert stack.send("PATCH", path, {"title": "T"}).json()["title"] == "T"
    assert stack.send("GET", "/link?q=new&tag=none").json() == []
    latest = time.monotonic() + 60
    while not (found := stack.send("GET", "/link?q=new").json()):
        assert time.monotonic() < latest, "it is not in the index"
    assert found[0]["title"] == "T"
    assert stack.send("DELETE", path).status_code == 204
    assert stack.send("GET", path).status_code == 404


def test_without_a_key_or_signature_nothing_else_is_open(stack):
    stack.send("PUT", "/link/docs", {"link": GOOGLE})
    why = "MISSING_AUTHENTICATION_TOKEN" if stack.access == "iam" else "INVALID_API_KEY"
    for request in doors(stack):
        is_shut(stack, why, *request)
    assert stack.send("GET", "/link/docs").status_code == 200, "it is as it was"


KEYED = pytest.mark.parametrize("stack", ["read", "key"], indirect=True)


@KEYED
def test_a_wrong_key_is_no_key(stack, engine):
    create_stack(engine, f"beside-{stack.access}", NEVER_THROTTLED | {"Access": "key"})
    of_another = key_of(engine, f"beside-{stack.access}")
    assert of_another != stack.key
    for wrong in ("", "wrong", stack.key[:-1], stack.key + "a", stack.key.swapcase(), f"{stack.key},x", of_another):
        for request in doors(stack):
            method, path, *body = request
            is_shut(stack, "INVALID_API_KEY", method, path, *(body or [None]), {"x-api-key": wrong})
    # Nor in another place.
    for headers in (
        {"Authorization": stack.key},
        {"Authorization": f"Bearer {stack.key}"},
        {"Cookie": f"x-api-key={stack.key}"},
    ):
        is_shut(stack, "INVALID_API_KEY", "POST", "/link", {"link": GOOGLE}, headers)
    is_shut(stack, "INVALID_API_KEY", "POST", f"/link?x-api-key={stack.key}", {"link": GOOGLE})


@pytest.mark.parametrize("stack", ["iam"], indirect=True)
def test_a_signature_is_of_one_request_and_one_caller(stack, engine):
    post = ("POST", "/link", {"link": GOOGLE})
    right = signed(stack.api, stack.credentials, *post)
    before = stack.send("GET", "/link").json()

    def refused(method, path, body, headers):
        answer = stack.api.send(method, path, headers, json.dumps(body) if body else None)
        assert answer.status_code == 403, answer.text

    refused("POST", "/link", {"link": GOOGLE + "/changed"}, right)
    refused("POST", "/link?a=1", {"link": GOOGLE}, right)
    refused("PUT", "/link/docs", {"link": GOOGLE}, right)
    refused(*post, right | {"X-Amz-Date": "20200101T000000Z"})
    refused(
        *post,
        right | {"Authorization": right["Authorization"][:-1] + "0" if right["Authorization"][-1] != "0" else "1"},
    )
    stranger = Credentials("AKIAIOSFODNN7EXAMPLE", stack.credentials.secret_key)
    refused(*post, signed(stack.api, stranger, *post))
    forger = Credentials(stack.credentials.access_key, "guessed")
    refused(*post, signed(stack.api, forger, *post))
    without_rights = caller(engine, "s3:ListAllMyBuckets")
    refused(*post, signed(stack.api, without_rights, *post))
    refused(*post, {"x-api-key": "any"})
    assert stack.send("GET", "/link").json() == before
    assert stack.api("POST", "/link", json.dumps(post[2]), right).status_code in (200, 201)


@pytest.mark.parametrize("origin", [ORIGIN, "https://evil.example", "null"])
def test_a_page_of_another_origin_may_not(stack, origin):
    """Api checks Access-Control-Allow-Origin of every answer: it is AllowedOrigin, whoever asks."""
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    for path in ("/link", "/link/docs", "/tags"):
        answer = stack.api("OPTIONS", path, headers=asked)
        assert answer.status_code == 200
        assert "X-Api-Key" in answer.headers["Access-Control-Allow-Headers"].split(",")
        stack.api("GET", path, headers={"Origin": origin})
    stack.api("POST", "/link", "{}", {"Origin": origin})


def test_the_output_says_who_may_call(stack, engine):
    told = outputs(engine, f"access-{stack.access}")
    assert told["Access"].startswith(stack.access)
    assert ("anyone on the internet" in told["Access"]) == (stack.access == "open")
    assert ("ApiKeyId" in told) == bool(stack.key)
    assert stack.key is None or stack.key not in json.dumps(told)


@KEYED
def test_the_key_is_in_no_log(stack, engine):
    assert stack.send("GET", "/link/log").status_code == 404
    group = resource_ids(engine, f"access-{stack.access}")["LogGroup"]
    lines = aws(engine, *f"logs filter-log-events --log-group-name {group} --query events[].message".split())
    assert lines and not [line for line in lines if stack.key in line]


@pytest.mark.parametrize(
    "parameter",
    ["Access=closed", "AllowedOrigin=example.com", "AllowedOrigin=https://a.example/b", "AllowedOrigin=https://a'b", "AllowedOrigin=https://a@b", "AllowedOrigin=https://*",
     "AllowedOrigin=https://a\r\nX: 1", "ReservedConcurrency=-1"],
)  # fmt: skip
def test_a_parameter_that_cannot_be_is_refused(engine, parameter):
    name, value = parameter.split("=", 1)
    command = "cloudformation create-stack --stack-name wrong --capabilities CAPABILITY_NAMED_IAM"
    command += " --template-body file://setupapidb.yml --parameters"
    said = aws(engine, *command.split(), json.dumps([{"ParameterKey": name, "ParameterValue": value}]), fails=True)
    assert name in said


def test_each_change_of_access_publishes_its_doors(engine):
    """A deployment is a snapshot, which the engine keeps and does not serve: so it is looked at, for keys."""
    create_stack(engine, "doors")
    api = resource_ids(engine, "doors")["Api"]
    modes = ["open", "read", "key", "iam"]
    ways = [(a, b) for a in modes for b in modes if a != b]
    walk = ["open", "read", "key", "iam", "open", "key", "read", "iam", "key", "open", "iam", "read", "open"]
    assert set(zip(walk, walk[1:])) == set(ways)
    for access in walk[1:]:
        command = "cloudformation update-stack --stack-name doors --use-previous-template"
        command += f" --capabilities CAPABILITY_NAMED_IAM --parameters ParameterKey=Access,ParameterValue={access}"
        aws(engine, *command.split())
        settled(engine, "doors")
        stage = aws(engine, *f"apigateway get-stage --rest-api-id {api} --stage-name prod".split())
        found = (
            f"apigateway get-deployment --rest-api-id {api} --deployment-id {stage['deploymentId']} --embed apisummary"
        )
        methods = aws(engine, *found.split())["apiSummary"]["/{proxy+}"]
        wanted = {"open": (0, 0, 0), "read": (0, 0, 1), "key": (1, 1, 1), "iam": (0, 0, 0)}[access]
        assert [methods[name]["apiKeyRequired"] for name in ("GET", "HEAD", "ANY")] == [bool(each) for each in wanted]


def test_access_can_change(engine):
    """The engine publishes nothing by itself that AWS would not: gateway errors come from the deployment."""
    with http_api(engine, create_stack(engine, "changing")) as api:
        assert api("POST", "/link", {"link": GOOGLE}).status_code == 201
        for access, status in (("key", 403), ("iam", 403), ("read", 200), ("open", 200)):
            command = "cloudformation update-stack --stack-name changing --use-previous-template"
            command += f" --capabilities CAPABILITY_NAMED_IAM --parameters ParameterKey=Access,ParameterValue={access}"
            aws(engine, *command.split())
            assert outputs(engine, "changing")["Access"].startswith(access)
            assert api("GET", "/link").status_code == status
            assert api("POST", "/link", {"link": GOOGLE}).status_code == (200 if access == "open" else 403)


def test_the_key_changes_as_the_readme_says(engine):
    """By way of `iam`, which leaves no door open meanwhile; between read and key it stays."""
    create_stack(engine, "rekeyed", {"Access": "key"})
    keys = {key_of(engine, "rekeyed")}
    for access, count in (("read", 1), ("key", 1), ("iam", 1), ("key", 2)):
        command = "cloudformation update-stack --stack-name rekeyed --use-previous-template"
        command += f" --capabilities CAPABILITY_NAMED_IAM --parameters ParameterKey=Access,ParameterValue={access}"
        aws(engine, *command.split())
        if access != "iam":
            settled(engine, "rekeyed")
            keys.add(key_of(engine, "rekeyed"))
        assert len(keys) == count
