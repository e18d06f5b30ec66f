"""The documents say what is: their transcripts are run, their tables are compared, their links lead somewhere."""

import json
import re
import subprocess
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from cfnlint.decode import decode

import stack
from conftest import ROOT, create_stack, http_api, settled

DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text() for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")])
}
README, API = DOCUMENTS["README.md"], DOCUMENTS["docs/api.md"]
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)


def rows(text):
    """Return the first cells of the tables in Markdown, without backquotes."""
    return [row.split("|")[1].strip().strip("`") for row in text.splitlines() if row.startswith("|")]


def section(text, heading):
    """Return what stands below a heading, up to the next one of its level or a higher one."""
    level, rest = re.split(rf"^(#+) {heading}$", text, maxsplit=1, flags=re.M)[1:]
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.M)[0]


# --- What is said is so


def test_parameters_are_documented():
    operate = section(DOCUMENTS["docs/operate.md"], "Add-ons")
    for told, paths in ((section(README, "Parameters"), ["setupapidb.yml"]), (operate, ROOT.glob("addons/*.yml"))):
        declared = {}
        for path in paths:
            parameters = decode(str(ROOT / path))[0]["Parameters"]
            declared |= parameters
            for name, parameter in parameters.items():
                assert f"| `{name}` | {parameter['Default']} |" in told, path
        assert set(rows(told)[2:]) == set(declared)


def test_routes_are_documented(module):
    documented = {tuple(cell.split("?")[0].split(" ", 1)) for cell in rows(API) if " /" in cell}
    routes = {(method, path) for path, methods in module.ROUTES.items() for method in methods}
    assert documented == routes


def test_statuses_are_documented(module):
    documented = {int(cell) for cell in rows(API) if cell.isdigit()}
    raised = {each.status for each in [module.Error, *module.Error.__subclasses__()]}
    assert documented == raised | {429}  # which the gateway answers


def test_fields_and_limits_are_documented(module):
    told = section(API, "A link")
    assert sorted(re.findall(r"\w+", " ".join(rows(told)[2:]))) == sorted(module.RECORD)
    (post,) = re.findall(r"^\| `POST /link` .*$", API, re.M)
    assert set(module.FIELDS) <= set(re.findall(r"\w+", post))
    for limit in (512, 32, 64, 8192):
        assert re.search(rf"\b{limit:,}\s(characters|different|bytes)", told), limit


def test_the_rules_that_do_not_fit_have_their_reasons():
    ignored = yaml.safe_load((ROOT / ".cfnlintrc").read_text())["ignore_checks"]
    assert ignored and not [rule for rule in ignored if rule not in DOCUMENTS["docs/security.md"]]


def test_make_targets_are_listed():
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for document, text in DOCUMENTS.items():
        for target in re.findall(r"(?:`|or: |^ *)make ([a-z]+)", text, re.M):
            assert re.search(rf"^{target}\s", listed, re.M), (document, target)


# --- A stranger finds the way


def test_the_readme_is_short():
    assert README.count("\n") <= 200


def test_the_sizes_of_the_templates_are_in_the_readme():
    """In thousands of bytes; `make check` prints them exactly."""
    (told,) = re.findall(r"the store has (\d+) KB, the page (\d+),\s+search (\d+), alarms (\d+)\.", README)
    paths = ("setupapidb.yml", "addons/page.yml", "addons/search.yml", "addons/alarms.yml")
    assert [round((ROOT / path).stat().st_size, -3) // 1000 for path in paths] == [*map(int, told)]


def test_each_document_is_in_the_readme():
    there = {path for path in DOCUMENTS if not path.endswith("README.md")}
    assert there <= set(re.findall(r"\]\(([\w./]+)", README))


def test_files_are_in_the_readme():
    (files,) = re.findall(r"^\| File \|.*?^$", section(README, "What is where"), re.M | re.S)
    named = rows(files)[2:]
    assert not [cell for cell in named if not (ROOT / cell).exists()]
    kinds = [path for kind in ("py", "yml", "md") for path in ROOT.glob(f"[!.]*/*.{kind}")]
    assert {f"{path.parent.name}/" for path in kinds} | {path.name for path in ROOT.glob("*.yml")} <= set(named)


def test_files_that_are_named_are_there():
    folders = "addons|bench|docs|handler|scripts|tests"
    for document, text in DOCUMENTS.items():
        for path in re.findall(rf"\b(?:{folders})/[\w/.-]+\.[a-z]+\b", text):
            assert (ROOT / path).exists(), (document, path)


def anchors(text):
    """Return the anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    targets = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", DOCUMENTS[document]))
    for target in targets:
        if re.match("https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / document).parent / path).resolve() if path else ROOT / document
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file.read_text()), target


def test_the_workflow_calls_what_is_run_here():
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)


# --- Commands and what they print


def variable(text):
    """Return the text with what differs from run to run in one form."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME", text)
    text = re.sub(r'"Reference": "[0-9a-f-]{36}"', '"Reference": "ID"', text)
    text = re.sub(r"\b[0-9a-f]{32}\b", "ETAG", text)
    return re.sub(r"https?://[^/]+/prod/(\S+cursor=)[\w-]+", r"URL/\1", text)


@pytest.mark.parametrize("document", ["README.md", "docs/api.md"])
def test_the_transcript_is_what_happens(engine, curl, document):
    name = re.sub(r"\W", "-", document)
    url = stack.reachable(create_stack(engine, name), engine.settings["AWS_ENDPOINT_URL"])
    host = urlsplit(url).netloc
    (transcript,) = re.findall(r"^```console\n(.*?)^```", DOCUMENTS[document], re.M | re.S)
    steps = re.findall(r"^\$ (.*)\n((?:[^$\n].*\n)*)", transcript, re.M)
    assert len(steps) == transcript.count("$ curl") > 5
    for command, printed in steps:
        # Older curls do not know *.localhost; the README's URL is on AWS.
        command = command.replace("curl", f"curl -sS --resolve {host}:127.0.0.1", 1)
        settings = engine.settings | {"API": url}
        done = subprocess.run(command, shell=True, env=settings, capture_output=True, text=True, check=True)
        assert variable(done.stdout) == variable(printed), command


def shell(engine, commands):
    """Run commands of a document where `aws` is the CLI of .venv; return what they print."""
    settings = engine.settings | {"PATH": f"{ROOT}/.venv/bin:{engine.settings['PATH']}"}
    done = subprocess.run(commands, shell=True, env=settings, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def block(words):
    """Return the one block of commands in the documents that has these words."""
    store = "\n".join(text for document, text in DOCUMENTS.items() if re.match(r"README|docs/", document))
    blocks = re.findall(r"^```sh\n(.*?)^```", store, re.M | re.S)
    (found,) = [each for each in blocks if words in each]
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
