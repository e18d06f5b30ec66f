"""What only AWS can answer, asked by `pytest --on aws`.

A local engine does some of it too; that says nothing of AWS, so it is not asked.
"""

import json
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from urllib.parse import quote, urlsplit

import httpx
import pytest
from playwright.sync_api import expect

from conftest import (
    NEVER_THROTTLED,
    ROOT,
    aws,
    create,
    create_stack,
    eventually,
    http_api,
    is_aws,
    key_of,
    named,
    outputs,
    reachable,
    resource_ids,
    spend,
)
from pages import add, titles

GOOGLE = "https://www.google.com"


@pytest.fixture
def api(stack_api):
    return stack_api


def manage(engine, action, *arguments):
    """Run scripts/manage.py for a store of this run; return what it printed."""
    command = [sys.executable, "scripts/manage.py", action, "--stack", named("managed"), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=engine.settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- The gateway


@pytest.fixture(scope="module")
def readable(engine):
    """An Api that wants a key to write, and its key."""
    url = create_stack(engine, named("readable"), NEVER_THROTTLED | {"Access": "read"})
    with http_api(engine, url) as api:
        api.key = {"x-api-key": key_of(engine, named("readable"))}
        put = lambda: api("PUT", "/link/docs", {"link": GOOGLE}, api.key).status_code in (200, 201)
        eventually(put, "the right to write")
        yield api


@pytest.mark.aws("API Gateway may take the method of a request from a header, before it asks for a key or after")
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
@pytest.mark.parametrize("instead", ["DELETE", "PUT", "POST", "GET"])
def test_no_header_that_says_another_method_does_without_the_key(readable, method, instead):
    before = readable("GET", "/link/docs").json()
    body = json.dumps({"link": f"{GOOGLE}/changed"}) if "P" in method + instead else None
    for path in ("/link/docs", "/link"):
        answer = readable.send(method, path, {"X-HTTP-Method-Override": instead}, body)
        assert answer.status_code in (200, 400, 403), "it is a preflight, not taken, or not let in"
    assert readable("GET", "/link").json() == [before]


@pytest.mark.aws("API Gateway gives %XX to the function in a form of its own, in paths and in queries")
@pytest.mark.parametrize(
    "end", ["a%2Fb", "%C3%BC", "\u00fc", "?a=%26&b=%2B+%20", "%25", "a%2fb#%23", "%", "?c=a%3Db;c"]
)
def test_what_is_percent_encoded_is_found_as_it_was_sent(api, end):
    link = f"https://example.com/{end}"
    record = api.post(link)
    assert record["link"] == link
    assert api("GET", f"/link?link={quote(link, safe='')}").json() == [record]
    assert api("GET", f"/link?q={quote(link, safe='')}").json() == [record]


@pytest.mark.aws("API Gateway gives %XX to the function in a form of its own, in paths and in queries")
def test_a_name_may_be_percent_encoded_in_a_path(api):
    record = api("PUT", "/link/%64ocs%2E1%7E", {"link": GOOGLE}).json()
    assert record["link_id"] == "docs.1~"
    assert api("GET", "/link/docs%2e1~").json() == record
    assert api("GET", "/go/docs.1%7E").headers["Location"] == GOOGLE
    for path in ("/link/docs%2F1", "/link/docs%00", "/link/%2e%2e", "/%2e%2e/link"):
        assert api("GET", path).status_code in (400, 404), path


@pytest.mark.aws("API Gateway renames some headers of an answer, and leaves some out")
def test_headers_of_an_answer_arrive(api):
    posted = api("POST", "/link", {"link": GOOGLE})
    assert posted.headers["ETag"] and posted.headers["Location"]
    api.post("https://example.com/")
    assert 'rel="next"' in api("GET", "/link?limit=1").headers["Link"]
    assert api("PUT", "/link").headers["Allow"] == "GET, POST, HEAD, OPTIONS"
    assert api("OPTIONS", "/").headers["Allow"] == "GET, HEAD, OPTIONS"
    assert not [name for name in api("PUT", "/link").headers if "remapped" in name.lower()]


@pytest.mark.aws("the engine compresses nothing")
def test_what_is_large_is_compressed_for_who_takes_it(api):
    record = api.post(GOOGLE, notes="n" * 8192)
    path = f"/link/{record['link_id']}"
    plain, packed = (api("GET", path, headers={"Accept-Encoding": way}) for way in ("identity", "gzip"))
    assert ("Content-Encoding" in plain.headers, packed.headers["Content-Encoding"]) == (False, "gzip")
    assert plain.json() == packed.json() == record
    assert int(packed.headers["Content-Length"]) < 1000 < int(plain.headers["Content-Length"])
    assert packed.headers["ETag"] == plain.headers["ETag"]
    asked = {"Accept-Encoding": "gzip", "If-None-Match": packed.headers["ETag"]}
    assert api("GET", path, headers=asked).status_code == 304


# --- The function


@pytest.mark.aws("the engine runs a function on its own Python, on this machine")
def test_the_function_runs_on_python_3_14_and_arm64(engine, api):
    function = resource_ids(engine, named("tests"))["Function"]
    found = aws(engine, "lambda", "get-function-configuration", "--function-name", function)
    assert (found["Runtime"], found["Architectures"], found["State"]) == ("python3.14", ["arm64"], "Active")
    assert re.match("arn:", found["RuntimeVersionConfig"]["RuntimeVersionArn"])
    assert api("GET", "/health").status_code == 200


@pytest.mark.aws("the engine makes no metrics of the lines of a log")
def test_the_metrics_in_the_log_arrive(engine, api):
    for _ in range(3):
        assert api("GET", "/tags").status_code == 200
    now = datetime.now(timezone.utc)
    ask = "cloudwatch get-metric-statistics --period 60 --dimensions Name=resource,Value=/tags".split()
    ask += ["--namespace", named("tests"), "--start-time", f"{now - timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}"]
    ask += ["--end-time", f"{now + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"]
    for metric, statistic in (("requests", "Sum"), ("errors", "Sum"), ("ms", "Maximum")):
        asked = [*ask, "--metric-name", metric, "--statistics", statistic]
        points = eventually(lambda asked=asked: aws(engine, *asked)["Datapoints"], f"metric {metric}")
        found = sum(point[statistic] for point in points)
        assert found == 0 if metric == "errors" else found > 0


# --- What goes


@pytest.mark.aws(
    "it refuses to delete a usage plan that has a stage, and lists a key for a while; an engine does neither"
)
def test_the_key_and_its_usage_plan_go_and_nothing_is_left_in_the_end(engine):
    def is_gone(kind, identity):
        listed = aws(engine, "apigateway", f"get-{kind}", "--query", "items[].id")
        return identity not in (listed or [])

    spend(engine, stacks=3)
    manage(engine, "deploy", "--addon", "page", "--addon", "alarms", "Access=key")
    first = resource_ids(engine, named("managed"))
    manage(engine, "deploy", "Access=open")
    eventually(lambda: is_gone("usage-plans", first["UsagePlan"]), "the end of the usage plan")
    eventually(lambda: is_gone("api-keys", first["ApiKey"]), "the end of the key")
    manage(engine, "deploy", "Access=key")
    second = resource_ids(engine, named("managed"))
    printed = manage(engine, "teardown", "--no-export", "--yes")
    for name in ("managed", "managed-page", "managed-alarms"):
        assert f"Nothing is left of stack {named(name)}." in printed
    assert is_gone("usage-plans", second["UsagePlan"]) and is_gone("api-keys", second["ApiKey"])


# --- The page


@pytest.mark.aws("test_page.py asks the engine; on AWS store and page have hosts of their own, and https")
def test_the_page_works_with_its_store(engine, api, browser):
    # AWS's host of the store is none where an engine stands in for AWS.
    given = {} if is_aws(engine) else {"StoreUrl": f"{api.stage}/link"}
    create(engine, named("tests-page"), "addons/page.yml", NEVER_THROTTLED | {"Store": named("tests")} | given)
    url = reachable(engine, outputs(engine, named("tests-page"))["PageUrl"])
    at = urlsplit(url)
    if is_aws(engine):
        served = httpx.get(url, headers={"Accept-Encoding": "gzip"})
        assert served.headers["Content-Encoding"] == "gzip"
        assert f"https://{api.host}" in served.headers["Content-Security-Policy"]
    assert at.netloc != api.host
    link = "https://example.com/a"
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#empty")).to_contain_text("There is no link yet")
        add(page, URL=link, Title="A")
        expect(titles(page)).to_have_text(["A"])
    assert [each["link"] for each in eventually(lambda: api("GET", "/link").json(), "the link")] == [link]
