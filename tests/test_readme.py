"""The README says what is: its transcript is run, its tables are compared."""

import json
import re
import subprocess
from urllib.parse import urlsplit

import httpx
import yaml
from cfnlint.decode import decode

import stack
from conftest import ROOT, create_stack, http_api, settled

README = (ROOT / "README.md").read_text()


def rows(heading):
    """Return the first cells of the table under a heading of the README, without backquotes."""
    section = re.split(r"^## ", README.split(f"\n## {heading}\n")[1], flags=re.M)[0]
    return [row.split("|")[1].strip().strip("`") for row in section.splitlines() if row.startswith("|")]


def test_parameters_are_documented(template):
    declared = set()
    for path in ("setupapidb.yml", *(f"addons/{path.name}" for path in ROOT.glob("addons/*.yml"))):
        parameters = decode(str(ROOT / path))[0]["Parameters"]
        declared |= set(parameters)
        for name, parameter in parameters.items():
            assert f"| `{name}` | {parameter['Default']} |" in README, path
    documented = {cell for cell in rows("Put it on AWS") if cell[:1].isupper()}
    assert documented - {"Parameter", "Parameter of an add-on"} == declared


def test_routes_are_documented(module):
    documented = {tuple(cell.split("?")[0].split(" ", 1)) for cell in rows("The API") if " /" in cell}
    routes = {(method, path) for path, methods in module.ROUTES.items() for method in methods}
    assert documented == routes


def test_statuses_are_documented(module):
    documented = {int(cell) for cell in rows("The API") if cell.isdigit()}
    raised = {each.status for each in [module.Error, *module.Error.__subclasses__()]}
    assert documented == raised | {429}  # which the gateway answers


def test_fields_and_limits_are_documented(module):
    for name in module.FIELDS:
        assert f"`{name}`" in README
    for limit in (512, 32, 64, 8192):
        assert re.search(rf"\b{limit:,}\s(characters|different|bytes)", README), limit


def test_files_are_documented():
    layout = rows("How it works")
    there = {f"{folder}/{path.name}" for folder in ("handler", "scripts") for path in (ROOT / folder).glob("*.*")}
    assert there == {cell for cell in layout if cell.startswith(("handler/", "scripts/"))}
    for cell in layout[2:]:
        assert (ROOT / cell).exists()


def test_make_targets_are_listed():
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in re.findall(r"(?:`|or: |^ *)make ([a-z]+)", README, re.M):
        assert re.search(rf"^{target}\s", listed, re.M), target


def variable(text):
    """Return the text with what differs from run to run in one form."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME", text)
    return re.sub(r'"Reference": "[0-9a-f-]{36}"', '"Reference": "ID"', text)


def test_the_transcript_is_what_happens(engine, curl):
    url = stack.reachable(create_stack(engine, "readme"), engine.settings["AWS_ENDPOINT_URL"])
    host = urlsplit(url).netloc
    (transcript,) = re.findall(r"^```console\n(.*?)^```", README, re.M | re.S)
    steps = re.findall(r"^\$ (.*)\n((?:[^$\n].*\n)*)", transcript, re.M)
    assert len(steps) == transcript.count("$ curl") > 5
    for command, printed in steps:
        # Older curls do not know *.localhost; the README's URL is on AWS.
        command = command.replace("curl", f"curl -sS --resolve {host}:127.0.0.1", 1)
        settings = engine.settings | {"API": url}
        done = subprocess.run(command, shell=True, env=settings, capture_output=True, text=True, check=True)
        assert variable(done.stdout) == variable(printed), command


def shell(engine, commands):
    """Run commands of the README where `aws` is the CLI of .venv; return what they print."""
    settings = engine.settings | {"PATH": f"{ROOT}/.venv/bin:{engine.settings['PATH']}"}
    done = subprocess.run(commands, shell=True, env=settings, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def block(words):
    """Return the one block of commands in the README that has these words."""
    (found,) = [each for each in re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S) if words in each]
    return found


def local(engine, commands, url):
    """Return commands that use $API as they work on the engine, whatever the curl knows of *.localhost."""
    at = stack.reachable(url, engine.settings["AWS_ENDPOINT_URL"])
    commands = commands.replace("curl ", f"curl -sS --resolve {urlsplit(at).netloc}:127.0.0.1 ")
    return f"export API={at}\n{commands}"


def test_the_commands_for_a_key_are_what_happens(engine, curl):
    url = create_stack(engine, "apidb", {"Access": "key"})
    assert shell(engine, local(engine, block("get-api-key"), url)) == "[]\n"
    assert "INVALID_API_KEY" in shell(engine, local(engine, "curl $API", url))
    delete_stack(engine, "apidb")


def test_the_command_for_a_signature_is_what_happens(engine, curl):
    url = create_stack(engine, "apidb", {"Access": "iam"})
    signed = block("--aws-sigv4")
    assert shell(engine, local(engine, signed, url)) == "[]\n"
    assert "MISSING_AUTHENTICATION_TOKEN" in shell(engine, local(engine, "curl $API", url))
    delete_stack(engine, "apidb")


def delete_stack(engine, name):
    stack_id = settled(engine, name)["StackId"]
    shell(engine, f"aws cloudformation delete-stack --stack-name {name}")
    assert settled(engine, stack_id)["StackStatus"] == "DELETE_COMPLETE"


def test_the_rules_that_do_not_fit_have_their_reasons():
    ignored = yaml.safe_load((ROOT / ".cfnlintrc").read_text())["ignore_checks"]
    assert ignored and not [rule for rule in ignored if rule not in README]


def test_the_commands_for_aws_are_what_happens(engine):
    create, wait, describe = block("--stack-name apidb --template-body").splitlines()
    log, delete = block("filter-log-events"), block("delete-stack")
    shell(engine, create)
    assert settled(engine, "apidb")["StackStatus"] == "CREATE_COMPLETE"
    shell(engine, wait)
    printed = dict(line.split("\t") for line in shell(engine, describe).splitlines())
    assert re.fullmatch(r"https://\S+/prod/link", printed["APIUrl"])
    with http_api(engine, printed["APIUrl"]) as api:
        reference = api("GET", "/link/unknown").json()["Reference"]
        page_url = shell(engine, block("addons/page.yml")).splitlines()[-1]
        assert re.fullmatch(r"https://\S+/prod/", page_url)
        page = httpx.get(
            f"http://127.0.0.1:{urlsplit(api.url).port}/prod/",
            headers={"Host": urlsplit(stack.reachable(page_url, engine.settings["AWS_ENDPOINT_URL"])).netloc},
        )
        assert (page.status_code, printed["APIUrl"] in page.text) == (200, True)
        # The engine knows no alarm on a query.
        shell(engine, block("addons/alarms.yml").rstrip() + " ParameterKey=WatchTable,ParameterValue=false")
        assert settled(engine, "apidb-alarms")["StackStatus"] == "CREATE_COMPLETE"
        for addon in ("apidb-page", "apidb-alarms"):  # else the store is not deleted
            delete_stack(engine, addon)
    line = json.loads(shell(engine, log.replace("REFERENCE", reference)))
    assert (line["status"], line["request_id"]) == (404, reference)
    stack_id = settled(engine, "apidb")["StackId"]
    shell(engine, delete)
    assert settled(engine, stack_id)["StackStatus"] == "DELETE_COMPLETE"
