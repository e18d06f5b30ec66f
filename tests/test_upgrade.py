"""A stack of an older template, with links, is updated to today's and keeps them all."""

import json
import os
import subprocess
import sys
from urllib.parse import quote

import pytest
from cfnlint.decode.cfn_yaml import loads
from conftest import ROOT, aws, http_api, outputs, resource_ids, settled

# The last commit of what had no names yet, and of what had; git keeps their templates.
OLDER = {"without names": "2f5c43c", "with names": "2dd2e17"}


def template_of(commit):
    """Return the template as it was then; skip the test where there is no git history, but fail in CI."""
    command = ["git", "show", f"{commit}:setupapidb.yml"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if shown.returncode:
        missing = f"this test needs the git history: git has no {commit} here"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return shown.stdout


def place(resource):
    """Return what there can be only one of in an API: two resources with the same place exclude each other."""
    kind, properties = resource["Type"], resource.get("Properties", {})
    names = {
        "AWS::ApiGateway::Method": ("ResourceId", "HttpMethod"),
        "AWS::ApiGateway::Resource": ("ParentId", "PathPart"),
        "AWS::ApiGateway::GatewayResponse": ("ResponseType",),
        "AWS::ApiGateway::Stage": ("StageName",),
    }.get(kind)
    return names and (kind, *(str(properties[name]) for name in names))


@pytest.mark.parametrize("commit", OLDER.values(), ids=OLDER)
def test_what_an_api_can_have_once_keeps_its_logical_id(template, commit):
    """CloudFormation makes the new before it deletes the old; API Gateway then refuses the second (409)."""
    old, new = loads(template_of(commit))["Resources"], template["Resources"]
    before = {place(each): logical for logical, each in old.items() if place(each)}
    now = {place(each): logical for logical, each in new.items() if place(each)}
    assert {what: now[what] for what in before.keys() & now} == {what: before[what] for what in before.keys() & now}


@pytest.mark.parametrize("commit", OLDER.values(), ids=OLDER)
def test_an_update_keeps_every_link(engine, tmp_path, commit):
    has_names, name = commit != OLDER["without names"], f"older-{commit}"
    (tmp_path / "older.yml").write_text(template_of(commit))
    create = f"cloudformation create-stack --stack-name {name} --template-body file://{tmp_path}/older.yml"
    limits = ["ParameterKey=RequestsPerSecond,ParameterValue=10000"]
    aws(engine, *create.split(), "--capabilities", "CAPABILITY_NAMED_IAM", "--parameters", *limits)
    assert settled(engine, name)["StackStatus"] == "CREATE_COMPLETE"
    url = outputs(engine, name)["APIUrl"]
    with http_api(engine, url) as api:
        ids = [store(api, {"link": f"https://example.com/{n}"}) for n in range(30)]
        ids += [store(api, {"link": "https://example.com/" + "\u00e4" * n}) for n in (500, 502, 503, 4086)]
        said = {"title": "T\u00eftle", "tags": ["web", "a b"], "notes": "line\n\ttab \U0001f600"}
        ids += [store(api, {"link": f"https://example.com/said/{n}", **said}) for n in range(3)]
        assert api("PATCH", f"/link/{ids[0]}", {"title": "changed"}).status_code == 200
        if has_names:
            for each in ("docs", "a.b~c_d"):
                body = {"link": "https://example.com/" + "x" * 3000, "expires_at": "2999-01-01T00:00:00Z"}
                assert api("PUT", f"/link/{each}", body | said).status_code == 201
                assert api("GET", f"/go/{each}").status_code == 302
                ids.append(each)
            assert api("PUT", "/link/gone", {"link": "https://example.com/gone", "tags": ["web"]}).status_code == 201
            expire(engine, resource_ids(engine, name)["Table"], "gone")
        before = reads(api, ids)
        deploy = [sys.executable, "scripts/store.py", "deploy", "--stack", name]
        done = subprocess.run(deploy, cwd=ROOT, env=engine.settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert outputs(engine, name)["APIUrl"] == url

        assert reads(api, ids) == before
        records = {link_id: record for link_id, (_, record) in before.items()}
        for path in ("/link?limit=10", "/link?since=2000-01-01T00:00:00Z&limit=10", "/link?q=EXAMPLE"):
            assert sorted(record["link_id"] for record in api.all(path)) == sorted(ids)
        assert [record["created_at"] for record in api.all()] == sorted(
            (record["created_at"] for record in records.values()), reverse=True
        )
        tagged = 5 if has_names else 3
        assert api.all("/tags") == [{"tag": "a b", "count": tagged}, {"tag": "web", "count": tagged}]
        for link_id, record in records.items():
            if link_id in ids[:3] + ids[30:]:
                assert api("GET", f"/go/{link_id}").headers["Location"] == quote(record["link"], safe=":/")
            if len(quote(record["link"])) < 5000 and "-" in link_id:
                assert api("GET", f"/link?link={quote(record['link'])}").json()[0]["link_id"] == link_id
        assert api("GET", "/go/gone").status_code == 404
        again = api("POST", "/link", {"link": records[ids[0]]["link"]})
        assert (again.status_code, again.json()["title"]) == (200, "changed")
        for link_id in ids:
            assert api("DELETE", f"/link/{link_id}", headers={"If-Match": before[link_id][0]}).status_code == 204
        assert api.all() == []
    aws(engine, *f"cloudformation delete-stack --stack-name {name}".split())


def store(api, body):
    answer = api("POST", "/link", body)
    assert answer.status_code == 201, answer.text
    return answer.json()["link_id"]


def expire(engine, table, name):
    """Let a name have expired, which the API lets only time do."""
    key = {"link_id": {"S": name}, "link": {"S": "see url"}}
    command = f"dynamodb update-item --table-name {table} --update-expression".split()
    values = ["--expression-attribute-values", '{":past": {"N": "1"}}']
    aws(engine, *command, "SET expires_at = :past", "--key", json.dumps(key), *values)


def reads(api, ids):
    """Return the entity tag and the record of each link by its id."""
    answers = {link_id: api("GET", f"/link/{link_id}") for link_id in ids}
    return {link_id: (answer.headers.get("ETag"), answer.json()) for link_id, answer in answers.items()}
