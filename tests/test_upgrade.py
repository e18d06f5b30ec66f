"""A stack of the template of the last release, with links, is updated to today's and keeps them all."""

import json
import re
import subprocess
import sys
from urllib.parse import quote

from cfnlint.decode import decode, decode_str

from conftest import (
    NEVER_THROTTLED,
    ROOT,
    TEMPLATE,
    aws,
    create,
    delete_stack,
    eventually,
    http_api,
    named,
    outputs,
    plain,
    resource_ids,
)

RELEASES = ROOT / "tests" / "releases"  # the template of each release, by its version


def released():
    """Return the template of the last release.

    Where that is today's, it has other code, memory and API, so that an update has something to do.
    """
    text = TEMPLATE.read_text()
    templates = sorted(RELEASES.glob("*.yml"), key=lambda path: [*map(int, path.stem.split("."))])
    if templates and templates[-1].read_text() != text:
        return templates[-1].read_text()
    for now, before in (
        ("   MinimumCompressionSize: 1024\n", ""),
        ("MemorySize: 512", "MemorySize: 256"),
        ("There is no link with this id.", "No such link."),
        ("'7200'", "'60'"),
    ):
        assert now in text
        text = text.replace(now, before)
    return text


def test_the_template_of_each_release_is_kept():
    numbers = re.findall(r"^## \[(\d.*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    kept = {path.stem: decode(str(path))[0]["Mappings"] for path in RELEASES.glob("*.yml")}
    assert kept == {number: {"Apidb": {"Version": {"Number": number}}} for number in numbers}


def test_an_update_keeps_every_link(engine, tmp_path):
    (tmp_path / "released.yml").write_text(released())
    create(engine, named("older"), tmp_path / "released.yml", NEVER_THROTTLED)
    url = outputs(engine, named("older"))["APIUrl"]
    with http_api(engine, url) as api:
        ids = [store(api, {"link": f"https://example.com/{n}"}) for n in range(30)]
        ids += [store(api, {"link": "https://example.com/" + "\u00e4" * n}) for n in (500, 502, 503, 4086)]
        more = {"title": "T\u00eftle", "tags": ["web", "a b"], "notes": "line\n\ttab \U0001f600"}
        ids += [store(api, {"link": f"https://example.com/said/{n}", **more}) for n in range(3)]
        assert api("PATCH", f"/link/{ids[0]}", {"title": "changed"}).status_code == 200
        for each in ("docs", "a.b~c_d"):
            body = {"link": "https://example.com/" + "x" * 3000, "expires_at": "2999-01-01T00:00:00Z"}
            assert api("PUT", f"/link/{each}", body | more).status_code == 201
            assert api("GET", f"/go/{each}").status_code == 302
            ids.append(each)
        assert api("PUT", "/link/gone", {"link": "https://example.com/gone", "tags": ["web"]}).status_code == 201
        expire(engine, resource_ids(engine, named("older"))["Table"], "gone")
        before = reads(api, ids)
        deploy = [sys.executable, "scripts/manage.py", "deploy", "--stack", named("older")]
        done = subprocess.run(deploy, cwd=ROOT, env=engine.settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        body = aws(engine, *"cloudformation get-template --stack-name".split(), named("older"))["TemplateBody"]
        assert said(body) == said(TEMPLATE.read_text())
        assert outputs(engine, named("older"))["APIUrl"] == url
        todays = "There is no link with this id."
        eventually(lambda: api("GET", "/link/none").json()["Error"] == todays, "today's handler")

        assert reads(api, ids) == before
        records = {link_id: record for link_id, (_, record) in before.items()}
        for path in ("/link?limit=10", "/link?q=EXAMPLE"):
            assert sorted(record["link_id"] for record in api.all(path)) == sorted(ids)
        changes = api.all("/link?since=2000-01-01T00:00:00Z&limit=10")
        assert {each["link_id"]: "deleted_at" in each for each in changes} == dict.fromkeys(ids, False) | {"gone": True}
        assert [record["created_at"] for record in api.all()] == sorted(
            (record["created_at"] for record in records.values()), reverse=True
        )
        assert api.all("/tags") == [{"tag": "a b", "count": 5}, {"tag": "web", "count": 5}]
        for link_id, record in records.items():
            if link_id in ids[:3] + ids[30:]:
                assert api("GET", f"/go/{link_id}").headers["Location"] == quote(record["link"], safe=":/")
            if len(quote(record["link"])) < 5000 and "-" in link_id:
                assert api("GET", f"/link?link={quote(record['link'])}").json()[0]["link_id"] == link_id
        assert api("GET", "/go/gone").status_code == 410
        again = api("POST", "/link", {"link": records[ids[0]]["link"]})
        assert (again.status_code, again.json()["title"]) == (200, "changed")
        for link_id in ids:
            assert api("DELETE", f"/link/{link_id}", headers={"If-Match": before[link_id][0]}).status_code == 204
        assert api.all() == []
    delete_stack(engine, named("older"))


def said(template):
    """Return what a template says, but for the names of deployments, which `make deploy` changes to publish."""
    return plain(decode_str(re.sub("Deployment[0-9a-f]{10}", "Deployment", template))[0])


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
