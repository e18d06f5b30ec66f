"""The commands of the Makefile that run and deploy the stack, as a person runs them."""

import itertools
import json
import os
import pty
import queue
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from types import SimpleNamespace
from urllib.parse import urlsplit

import boto3
import httpx
import pytest

import contents
import deleting
import deploying
import embed
import local
import logs
import manage
import show
import stack
from conftest import ROOT, TEMPLATE, aws, create_stack, free_port, http_api, outputs, resource_ids, settled


class Program:
    """A command that runs in a folder, and what it has printed there."""

    def __init__(self, command, folder, environment, **more):
        self.output = folder / "output"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [*map(str, command)],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **more,
            )

    @property
    def printed(self):
        return self.output.read_text()

    @property
    def commands(self):
        return re.findall(r"^  (curl .*)$", self.printed, re.M)

    def until(self, text):
        """Wait until it has printed this, two minutes at most."""
        end = time.monotonic() + 120
        while text not in self.printed:
            assert time.monotonic() < end, self.printed
            assert self.process.poll() is None, self.printed
            time.sleep(0.05)
        return self

    def stop(self, number=signal.SIGINT):
        """Send it, and what it started, the signal of Ctrl-C; wait for its end."""
        os.killpg(self.process.pid, number)
        self.process.wait(60)


def manage_py(*arguments):
    return [sys.executable, ROOT / "scripts" / "manage.py", *map(str, arguments)]


def run(engine, command, folder=ROOT):
    """Run a command on the local engine, without a terminal; return its exit code and what it printed."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run([*map(str, command)], env=engine.settings, cwd=folder, text=True, **pipes)
    return done.returncode, done.stdout


def make(engine, *arguments):
    return run(engine, ["make", "--no-print-directory", *arguments])


def script(engine, *arguments, folder=ROOT):
    template = [] if folder == ROOT else ["--template", TEMPLATE]
    return run(engine, manage_py(*arguments, *template), folder)


def succeeds(engine, *arguments, folder=ROOT):
    """Run scripts/manage.py, and return the lines that it printed."""
    code, printed = script(engine, *arguments, folder=folder)
    assert code == 0, printed
    return printed.splitlines()


def change_sets(engine, name):
    return aws(engine, *f"cloudformation list-change-sets --stack-name {name}".split())["Summaries"]


@pytest.fixture
def altered(tmp_path):
    """A function that writes a copy of the template with other texts in it, and returns its path."""

    def write(*pairs, resources="", without_code=False):
        text = re.sub("(?m)^ {0,3}#.*\n", "", TEMPLATE.read_text())  # its comments, to have room
        if without_code:  # which leaves no room
            block = embed.child(embed.resources(text)["Function"], "Properties", "Code", "ZipFile")
            text = text[: block.start_mark.index] + "pass\n\n" + text[block.end_mark.index :]
        for old, new in [*pairs, ("\nOutputs:", f"\n{resources}\nOutputs:")]:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / f"{len(list(tmp_path.glob('*.yml')))}.yml"
        path.write_text(text)
        return path

    return write


BROKEN = """
 Broken:
  Type: AWS::Lambda::EventInvokeConfig
  Properties: {}
"""
# It waits for a signal, which `signalled` sends.
WAITER = """
 Waiter:
  Type: AWS::CloudFormation::WaitCondition
  CreationPolicy: {ResourceSignal: {Timeout: PT5M}}
"""
# A resource that takes its time, or fails, when it is deleted or updated.
GUARD = """
 Guard:
  Type: Custom::Guard
  Properties: {ServiceToken: !GetAtt Guardian.Arn, Fails: %s, Seconds: %s}
 Guardian:
  Type: AWS::Lambda::Function
  Properties:
   Runtime: python3.13
   Handler: index.handler
   Timeout: 60
   Role: !GetAtt Role.Arn
   Code:
    ZipFile: |
     import json, time, urllib.request

     def handler(event, context):
         given, kind = event["ResourceProperties"], event["RequestType"]
         time.sleep(int(given["Seconds"]) if kind == "Delete" else 0)
         answer = {name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")}
         answer |= {"PhysicalResourceId": "guard", "Reason": "The guard says no"}
         answer["Status"] = "FAILED" if kind == given["Fails"] else "SUCCESS"
         body = json.dumps(answer).encode()
         urllib.request.urlopen(urllib.request.Request(event["ResponseURL"], body, method="PUT"))
"""
# A change of its name replaces the table; UpdateReplacePolicy keeps the old one.
RENAMED = ("BillingMode: PAY", 'TableName: !Sub "${AWS::StackName}-new"\n   BillingMode: PAY')


def here(engine):
    return f"in us-east-1 ({engine.settings['AWS_ENDPOINT_URL']})"


# --- make deploy


def test_deploy_shows_what_is_made_and_teardown_that_it_is_gone(engine, tmp_path):
    lines = succeeds(engine, "deploy", "--stack", "made")
    assert lines[0] == f"Creating stack made {here(engine)}"
    for name in ("Table", "Role", "Function", "Stage", "made"):
        assert f"  CREATE_COMPLETE  {name}" in lines
    (url,) = {url for line in lines for url in re.findall(r"http://\S+/prod/link", line)}
    assert url.split(".")[0].split("/")[-1] in outputs(engine, "made")["APIUrl"]
    assert f"""  curl -X POST -d '{{"link": "https://www.google.com"}}' {url}""" in lines
    table = resource_ids(engine, "made")["Table"]
    with http_api(engine, outputs(engine, "made")["APIUrl"]) as api:
        api.post("https://www.google.com")

        lines = succeeds(engine, "deploy", "--stack", "made")
        assert lines[0] == "Stack made is up to date"
        assert lines[-1].endswith(url) or url in lines[-2]
        assert change_sets(engine, "made") == []
        assert len(api.all()) == 1

    lines = succeeds(engine, "teardown", "--stack", "made", folder=tmp_path)
    assert lines[1] == f"Deleting stack made {here(engine)}"
    assert "  DELETE_COMPLETE  Table" in lines
    assert lines[-2] == "Nothing is left of stack made."
    assert f"{table}$DeletedTableBackup" in lines[-1]
    assert script(engine, "teardown", "--stack", "made") == (1, "There is no stack made in us-east-1.\n")


def parameters(engine, stack):
    return {each["ParameterKey"]: each["ParameterValue"] for each in settled(engine, stack)["Parameters"]}


def test_the_status_of_before_is_not_the_end(monkeypatch):
    """CloudFormation may still tell it for a moment after an update has begun; the engine does not."""
    statuses = ["CREATE_COMPLETE", "CREATE_COMPLETE", "UPDATE_COMPLETE"]
    news = [[], ["UPDATE_IN_PROGRESS"], ["UPDATE_COMPLETE"]]
    event = {"LogicalResourceId": "a", "PhysicalResourceId": "id"}
    monkeypatch.setattr(stack, "describe", lambda *_: {"StackStatus": statuses.pop(0)})
    monkeypatch.setattr(stack, "events", lambda *_: [event | {"ResourceStatus": state} for state in news.pop(0)])
    monkeypatch.setattr(stack, "pause", lambda _: None)
    assert stack.follow(None, "id", set()) == ("UPDATE_COMPLETE", "")


def test_a_parameter_that_is_not_there_is_refused(engine):
    code, printed = script(engine, "deploy", "--stack", "wrong", "RequestPerSecond=1")
    assert code == 1
    assert printed.startswith("There is no parameter RequestPerSecond: setupapidb.yml has Access, AllowedOrigin, ")
    assert "does not exist" in aws(engine, *"cloudformation describe-stacks --stack-name wrong".split(), fails=True)


def test_parameters_that_were_set_stay_set(engine, altered, template):
    deploy = ["deploy", "--stack", "set"]
    succeeds(engine, *deploy, "RequestBurst=7", "LogRetentionInDays=1")
    assert succeeds(engine, *deploy)[0] == "Stack set is up to date"
    assert f"Updating stack set {here(engine)}" in succeeds(engine, *deploy, "RequestBurst=8")
    defaults = {name: str(each["Default"]) for name, each in template["Parameters"].items()}
    assert parameters(engine, "set") == defaults | {"RequestBurst": "8", "LogRetentionInDays": "1"}
    # A template that knows a parameter less, and one more.
    succeeds(engine, *deploy, "--template", altered(("LogRetentionInDays", "DaysOfLog")))
    assert parameters(engine, "set")["DaysOfLog"] == "30"
    assert parameters(engine, "set")["RequestBurst"] == "8"


def test_an_update_is_shown_before_it_is_done(engine, altered):
    succeeds(engine, "deploy", "--stack", "shown")
    template = altered(
        ("StageName: prod", "StageName: prod\n   Description: x"),
        resources="""
 Other:
  Type: AWS::SQS::Queue
""",
    )
    lines = succeeds(engine, "deploy", "--stack", "shown", "--template", template, "CountVisits=false")
    done = lines.index(f"Updating stack shown {here(engine)}")
    assert lines[0] == "Changes of stack shown:"
    assert "  changed          Function (AWS::Lambda::Function)" in lines[:done]
    assert "  added            Other (AWS::SQS::Queue)" in lines[:done]
    assert "  may be replaced  Stage (AWS::ApiGateway::Stage)" in lines[:done]
    assert "  UPDATE_COMPLETE  shown" in lines[done:]
    lines = succeeds(engine, "deploy", "--stack", "shown", "CountVisits=true")
    assert "  removed          Other (AWS::SQS::Queue)" in lines[: lines.index(f"Updating stack shown {here(engine)}")]
    assert change_sets(engine, "shown") == []


def test_a_change_of_outputs_only_is_made(engine, altered):
    succeeds(engine, "deploy", "--stack", "said")
    template = altered(("Outputs:\n", "Outputs:\n More: {Description: x, Value: '7'}\n"))
    assert (
        succeeds(engine, "deploy", "--stack", "said", "--template", template)[0]
        == f"Updating stack said {here(engine)}"
    )
    assert outputs(engine, "said")["More"] == "7"
    assert succeeds(engine, "deploy", "--stack", "said", "--template", template)[0] == "Stack said is up to date"
    assert change_sets(engine, "said") == []


def test_what_costs_the_links_or_the_url_is_not_done_unasked(engine, altered, tmp_path):
    succeeds(engine, "deploy", "--stack", "dear")
    before = resource_ids(engine, "dear")
    with http_api(engine, outputs(engine, "dear")["APIUrl"]) as api:
        api.post("https://www.google.com")
    renamed = [("!Ref Api", "!Ref Other"), ("!GetAtt Api.", "!GetAtt Other."), ("${Api}", "${Other}")]
    other_api = altered((" Api:\n", " Other:\n"), *renamed)
    code, printed = script(engine, "deploy", "--stack", "dear", "--template", other_api)
    assert (code, printed.splitlines()[-2:]) == (
        1,
        [
            "Api is removed: the URL of now then leads nowhere.",
            "Nothing is changed. To have it so, add YES=1 to the same command.",
        ],
    )
    template = altered(RENAMED)
    code, printed = script(engine, "deploy", "--stack", "dear", "--template", template)
    assert code == 1
    assert "  REPLACED         Table (AWS::DynamoDB::Table)" in printed
    sentence = f"Table is replaced: the API then has none of the links in {before['Table']}; they stay there."
    assert sentence in printed
    assert (resource_ids(engine, "dear"), change_sets(engine, "dear")) == (before, [])

    code, printed = make(engine, "deploy", "STACK=dear", "YES=1", f"TEMPLATE={template}", "ADDONS=")
    assert (code, sentence in printed) == (0, True), printed
    assert resource_ids(engine, "dear")["Table"] == "dear-new"
    # The old table is in no list of the stack's resources any more.
    lines = succeeds(engine, "teardown", "--stack", "dear", folder=tmp_path)
    assert lines[-3:-1] == ["Left of stack dear:", f"  AWS::DynamoDB::Table     {before['Table']}"]


def test_at_a_terminal_it_asks(engine, altered, tmp_path):
    succeeds(engine, "deploy", "--stack", "asked")
    before, template = resource_ids(engine, "asked"), altered(RENAMED)

    def asked(answer):
        """Answer the question; None is Ctrl-C. Return the exit code and what was printed."""
        ours, its = pty.openpty()
        command = manage_py("deploy", "--stack", "asked", "--template", template)
        program = Program(command, tmp_path, engine.settings, stdin=its, cwd=ROOT)
        program.until("Type the stack's name to go on: ")
        program.stop() if answer is None else os.write(ours, answer)
        program.process.wait(60)
        os.close(ours)
        os.close(its)
        return program.process.returncode, program.printed

    for answer in (b"yes\n", b"\x04", None):  # \x04 is Ctrl-D
        code, printed = asked(answer)
        assert (code, printed.endswith("\nNothing is changed.\n")) == (1, True), printed
        assert (resource_ids(engine, "asked"), change_sets(engine, "asked")) == (before, [])
    code, printed = asked(b"asked\n")
    assert (code, resource_ids(engine, "asked")["Table"]) == (0, "asked-new"), printed


def change(kind, action, **more):
    given = {"ResourceType": kind, "Action": action, "LogicalResourceId": "It", "PhysicalResourceId": "it-1"}
    return given | more


LEADS_NOWHERE = ": the URL of now then leads nowhere."
HAS_NONE = ": the API then has none of the links in it-1; they "


@pytest.mark.parametrize(
    "given, sentence",
    [
        (change(stack.API, "Modify", Replacement="True"), f"It is replaced{LEADS_NOWHERE}"),
        (change(stack.API, "Remove"), f"It is removed{LEADS_NOWHERE}"),
        (
            change(stack.TABLE, "Modify", Replacement="True", PolicyAction="ReplaceAndRetain"),
            f"It is replaced{HAS_NONE}stay there.",
        ),
        (
            change(stack.TABLE, "Modify", Replacement="Conditional"),
            f"It may be replaced{HAS_NONE}may be deleted with it.",
        ),
        (change(stack.TABLE, "Remove", PolicyAction="Delete"), f"It is removed{HAS_NONE}are deleted with it."),
        (change(stack.TABLE, "Remove", PolicyAction="Retain"), f"It is removed{HAS_NONE}stay there."),
        (change(stack.TABLE, "Modify", Replacement="False"), None),
        (change(stack.TABLE, "Add"), None),
        (change(stack.API, "Modify", Replacement="Conditional"), None),
        (change(stack.LOG, "Remove", PolicyAction="Delete"), None),
    ],
)
def test_what_is_lost_is_said_and_not_done_unasked(monkeypatch, capsys, given, sentence):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    there = {"StackName": "a", "Description": "apidb, a store"}
    deploying.confirm(there, [given], True)
    assert capsys.readouterr().out == (f"{sentence}\n" if sentence else "")
    if sentence:
        with pytest.raises(stack.StackError, match="YES=1"):
            deploying.confirm(there, [given], False)
    else:
        deploying.confirm(there, [given], False)


def test_on_aws_nothing_is_updated_without_a_change_set(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    client = boto3.client("cloudformation", region_name="us-east-1")
    monkeypatch.setattr(client, "update_stack", lambda **_: pytest.fail("nobody has seen what it changes"))
    assert not deploying.updates_without_change_set(client, {})


def test_changes_of_all_pages_are_shown(monkeypatch):
    """The local engine has all changes in one page, and makes a change set at once."""
    client = boto3.client("cloudformation", region_name="us-east-1")
    change = {"Type": "Resource", "ResourceChange": {"Action": "Add", "LogicalResourceId": "A"}}
    answers = iter(
        [
            {"Status": "CREATE_PENDING", "Changes": []},
            {"Status": "CREATE_COMPLETE", "Changes": [change] * 2, "NextToken": "more"},
            {"Status": "CREATE_COMPLETE", "Changes": [change]},
        ]
    )
    monkeypatch.setattr(client, "describe_change_set", lambda **_: next(answers))
    monkeypatch.setattr(stack, "pause", lambda _: None)
    status, _, changes = deploying.review(client, {"StackName": "a", "ChangeSetName": "b"})
    assert (status, len(changes)) == ("CREATE_COMPLETE", 3)


OTHER = """
Description: a queue, and nothing else
Resources:
 Other: {Type: AWS::SQS::Queue}
"""


@pytest.mark.parametrize("action", ["deploy", "teardown"])
def test_a_stack_of_another_template_is_left_alone(engine, tmp_path, action):
    (tmp_path / "other.yml").write_text(OTHER)
    command = f"cloudformation create-stack --stack-name of-{action} --template-body file://{tmp_path}/other.yml"
    aws(engine, *command.split())
    before = resource_ids(engine, f"of-{action}")
    code, printed = script(engine, action, "--stack", f"of-{action}")
    assert (code, resource_ids(engine, f"of-{action}")) == (1, before)
    assert printed == (
        f"Stack of-{action} is of another template than setupapidb.yml: its description is"
        " 'a queue, and nothing else'. Nothing is changed; take another STACK, or its TEMPLATE.\n"
    )
    succeeds(engine, "teardown", "--stack", f"of-{action}", "--template", tmp_path / "other.yml")


@pytest.mark.parametrize("action", ["deploy", "teardown", "status", "logs"])
def test_no_name_is_not_the_first_stack(engine, action):
    assert script(engine, action, "--stack", "") == (1, "A stack has a name: give it as STACK=name.\n")


def test_a_stack_that_is_gone_is_no_stack_by_its_arn_either(engine):
    succeeds(engine, "deploy", "--stack", "gone")
    arn = settled(engine, "gone")["StackId"]
    succeeds(engine, "teardown", "--stack", arn, "--no-export")
    assert script(engine, "teardown", "--stack", arn) == (1, f"There is no stack {arn} in us-east-1.\n")


@pytest.mark.parametrize("said, asked", [("1", True), ("yes", True), ("no", False), ("0", False), ("", False)])
def test_yes_means_yes(said, asked):
    command = ["make", "-n", "deploy", f"YES={said}"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ("--yes" in printed) == asked


# --- What fails


def test_a_deployment_that_fails_names_the_cause_and_can_be_repeated(engine, altered):
    broken = altered(resources=BROKEN)
    cause = "What failed first is Broken (AWS::Lambda::EventInvokeConfig): Lambda function not found."
    code, printed = script(engine, "deploy", "--stack", "again", "--template", broken)
    assert (code, printed.splitlines()[-2:]) == (
        1,
        ["Stack again is in status ROLLBACK_COMPLETE. What it had made is deleted again.", cause],
    )
    lines = succeeds(engine, "deploy", "--stack", "again")
    assert lines[0] == "What a failed creation left of stack again is deleted first."
    code, printed = script(engine, "deploy", "--stack", "again", "--template", broken)
    assert (code, printed.splitlines()[-2:]) == (
        1,
        ["Stack again is in status UPDATE_ROLLBACK_COMPLETE. All is as it was before.", cause],
    )
    assert f"What failed  {cause.split(' is ')[1]}" in succeeds(engine, "status", "--stack", "again")
    lines = succeeds(engine, "deploy", "--stack", "again")
    assert (lines[0], "curl" in lines[-2]) == ("Stack again is up to date", True)
    assert change_sets(engine, "again") == []


def test_what_a_validation_finds_is_the_cause(engine, altered):
    profile = "\n Sign:\n  Type: AWS::Signer::SigningProfile\n  Properties: {PlatformId: none}\n"
    template = altered(resources=profile)
    code, printed = script(engine, "deploy", "--stack", "invalid", "--template", template)
    assert code == 1
    assert "\nWhat failed first is Sign (AWS::Signer::SigningProfile): none is not a valid enum value." in printed


def test_what_a_validation_finds_in_a_change_set_is_the_reason(monkeypatch):
    """The engine makes change sets without a look at values, which AWS validates."""
    asked, found = [], {"LogicalResourceId": "Table", "ResourceType": stack.TABLE, "EventType": "VALIDATION_ERROR"}
    found["ValidationStatusReason"] = "No such property."

    def paginate(**where):
        asked.append(where)
        return [{"OperationEvents": [found]}]

    client = SimpleNamespace(create_change_set=lambda **_: None)
    client.get_paginator = lambda name: SimpleNamespace(paginate=paginate)
    monkeypatch.setattr(stack, "events", lambda *_: [])
    monkeypatch.setattr(deploying, "discard", lambda *_: None)
    monkeypatch.setattr(deploying, "review", lambda *_: ("FAILED", "Validation failed: call DescribeEvents.", []))
    there = {"StackName": "a", "StackId": "b", "StackStatus": "UPDATE_COMPLETE"}
    with pytest.raises(stack.StackError, match=r"refuses it: Table \(AWS::DynamoDB::Table\): No such property\.$"):
        deploying.update(client, there, TEMPLATE, {}, False)
    assert [where.keys() for where in asked] == [{"StackName", "ChangeSetName"}]


@pytest.mark.parametrize(
    "reason, words",
    [
        ("No.", "No."),
        (
            'Resource handler returned message: "Role is invalid (Service: Lambda, Status Code: 400, Request ID: 6)'
            ' (SDK Attempt Count: 1)" (RequestToken: 7, HandlerErrorCode: InvalidRequest)',
            "Role is invalid.",
        ),
    ],
)
def test_the_cause_is_what_failed_first_by_itself(reason, words):
    """As AWS tells it: all that was under way is cancelled, and what is undone may fail too."""
    told = [
        ("Table", "CREATE_IN_PROGRESS", ""),
        ("LogGroup", "CREATE_FAILED", "Resource creation cancelled"),
        ("Api", "UPDATE_FAILED", "Resource update cancelled"),
        ("Role", "CREATE_FAILED", reason),
        ("apidb", "ROLLBACK_IN_PROGRESS", "The following resource(s) failed to create: [LogGroup, Role]."),
        ("Table", "DELETE_FAILED", "Table is being created"),
        ("apidb", "ROLLBACK_FAILED", "The following resource(s) failed to delete: [Table]."),
    ]
    names = ("LogicalResourceId", "ResourceStatus", "ResourceStatusReason")
    past = [dict(zip(names, event), ResourceType="AWS::Some::Thing") for event in told]
    assert stack.cause_of(None, past) == f"Role (AWS::Some::Thing): {words}"


def test_an_output_that_is_in_use_is_the_cause():
    """As AWS tells it of the stack, when all its resources are updated; the engine lets outputs change."""
    told = [
        ("Table", "UPDATE_COMPLETE", ""),
        (
            "apidb",
            "UPDATE_ROLLBACK_IN_PROGRESS",
            "Export apidb-TableName cannot be updated as it is in use by apidb-alarms",
        ),
        ("apidb", "UPDATE_ROLLBACK_COMPLETE", ""),
    ]
    names = ("LogicalResourceId", "ResourceStatus", "ResourceStatusReason")
    past = [dict(zip(names, event), ResourceType="AWS::CloudFormation::Stack") for event in told]
    sentence = "Export apidb-TableName cannot be updated as it is in use by apidb-alarms."
    assert stack.cause_of(None, past) == f"apidb (AWS::CloudFormation::Stack): {sentence}"


def stuck(engine, altered, status):
    """Bring a stack, which it returns the name of, into a status from which no update goes."""
    name = status.replace("_", "").lower()

    def by_hand(action, template, *more):
        given = f"--stack-name {name} --capabilities CAPABILITY_NAMED_IAM --template-body file://{template}"
        aws(engine, "cloudformation", action, *given.split(), *more)

    if status == "CREATE_FAILED":
        by_hand("create-stack", altered(resources=BROKEN), "--disable-rollback")
    elif status == "REVIEW_IN_PROGRESS":
        by_hand("create-change-set", TEMPLATE, *"--change-set-type CREATE --change-set-name a".split())
    elif status == "UPDATE_IN_PROGRESS":
        succeeds(engine, "deploy", "--stack", name)
        by_hand("update-stack", altered(resources=WAITER))
    elif status == "UPDATE_FAILED":
        succeeds(engine, "deploy", "--stack", name)
        by_hand("update-stack", altered(resources=BROKEN), "--disable-rollback")
    elif status == "UPDATE_ROLLBACK_FAILED":
        guarded = altered(resources=GUARD % ("Update", 0), without_code=True)
        failing = altered(resources=GUARD % ("never", 0) + BROKEN + "  DependsOn: Guard\n", without_code=True)
        succeeds(engine, "deploy", "--stack", name, "--template", guarded)
        code, printed = script(engine, "deploy", "--stack", name, "--template", failing)
        assert (code, "What failed first is Broken" in printed) == (1, True), printed
    elif status == "DELETE_FAILED":
        guarded = altered(resources=GUARD % ("Delete", 0), without_code=True)
        succeeds(engine, "deploy", "--stack", name, "--template", guarded)
        code, printed = script(engine, "teardown", "--stack", name, "--no-export")
        assert code == 1
        assert "What failed first is Guard (Custom::Guard): The guard says no.\n" in printed
        # Lambda has made a log group of its own for the guardian, which has no LoggingConfig.
        group = rf"  AWS::Logs::LogGroup      /aws/lambda/{name}-Guardian\S*\n"
        assert re.search(rf"\nLeft of stack {name}:\n{group}  Custom::Guard            guard\n", printed), printed
    if not status.endswith("_IN_PROGRESS"):
        assert settled(engine, name)["StackStatus"] == status
    return name


@pytest.mark.parametrize(
    "status, sentence",
    [
        ("CREATE_FAILED", r"Delete that: make teardown STACK={0}"),
        ("REVIEW_IN_PROGRESS", r"Delete it: make teardown STACK={0}"),
        ("UPDATE_FAILED", r"Undo it: aws cloudformation rollback-stack --stack-name {0}"),
        ("UPDATE_ROLLBACK_FAILED", r"go on: aws cloudformation continue-update-rollback --stack-name {0}"),
        ("DELETE_FAILED", r"go on: make teardown STACK={0}"),
    ],
)
def test_a_stack_that_is_stuck_comes_with_a_way_out(engine, altered, status, sentence):
    name = stuck(engine, altered, status)
    code, printed = script(engine, "deploy", "--stack", name)
    assert (code, printed.startswith(f"Stack {name} is in status {status}. ")) == (1, True), printed
    sentence = sentence.format(name)
    assert printed.endswith(sentence + "\n")
    assert f"Status       {status}" in succeeds(engine, "status", "--stack", name)
    if status == "UPDATE_ROLLBACK_FAILED":
        aws(engine, *f"{sentence.split('aws ')[1]} --resources-to-skip Guard".split())
    elif "aws " in sentence:
        aws(engine, *sentence.split("aws ")[1].split())
    if status == "DELETE_FAILED":
        aws(engine, *f"cloudformation delete-stack --stack-name {name} --deletion-mode FORCE_DELETE_STACK".split())
    elif "aws " in sentence:
        while not settled(engine, name)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE":
            pass
        assert "Updating" in "".join(succeeds(engine, "deploy", "--stack", name, "CountVisits=false"))
    else:
        succeeds(engine, "teardown", "--stack", name)


def test_a_stack_that_is_being_changed_is_left_alone(engine, altered):
    name = stuck(engine, altered, "UPDATE_IN_PROGRESS")
    sentence = (
        f"Stack {name} is being changed, and in status UPDATE_IN_PROGRESS."
        f" Wait for the end of that: make status STACK={name}\n"
    )
    assert script(engine, "deploy", "--stack", name) == (1, sentence)
    assert script(engine, "teardown", "--stack", name) == (1, sentence)
    signalled(engine, name)
    assert settled(engine, name)["StackStatus"] == "UPDATE_COMPLETE"
    succeeds(engine, "teardown", "--stack", name, "--no-export")


def signalled(engine, name):
    """Let a stack that waits for a signal go on."""
    command = "cloudformation signal-resource --logical-resource-id Waiter --unique-id a --status SUCCESS"
    aws(engine, *f"{command} --stack-name {name}".split())


@pytest.mark.parametrize("action", ["deploy", "teardown", "status", "logs"])
def test_who_has_no_settings_of_aws_is_told(engine, action):
    unset = {key: value for key, value in engine.settings.items() if key != "AWS_DEFAULT_REGION"}
    code, printed = script(engine._replace(settings=unset), action)
    assert code == 1
    assert printed.endswith(" Set AWS_PROFILE, or AWS_DEFAULT_REGION and credentials, or run: aws configure\n")


@pytest.mark.parametrize("action", ["teardown", "status", "logs"])
def test_a_stack_that_is_not_there_is_named(engine, action):
    assert script(engine, action, "--stack", "nowhere") == (1, "There is no stack nowhere in us-east-1.\n")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["deploy", "LogRetentionInDays=2"], "LogRetentionInDays"),
        (["deploy", "LogRetentionInDays"], "NAME=VALUE, not by LogRetentionInDays"),
        (["deploy", "--template", "nowhere.yml"], "nowhere.yml"),
        (["deploy", "--template", "requirements.in"], "Template"),
    ],
)
def test_a_deployment_that_is_refused_says_why(engine, arguments, sentence):
    code, printed = script(engine, *arguments, "--stack", "refused")
    assert (code, sentence in printed, "Traceback" in printed) == (1, True, False), printed


def test_a_template_that_is_too_large_is_not_sent(engine, tmp_path):
    large = tmp_path / "large.yml"
    large.write_text(TEMPLATE.read_text() + "#" * 51_200)
    code, printed = script(engine, "deploy", "--template", large)
    assert (code, printed) == (1, f"{large} has more than the 51,200 bytes that CloudFormation takes.\n")


# --- The deployment of the API


def deployment(engine, name):
    (found,) = [logical for logical in resource_ids(engine, name) if "Deployment" in logical]
    return found


def test_a_parameter_that_changes_is_published(engine):
    (committed,) = set(re.findall(r"OpenDeployment[0-9a-f]{10}", TEMPLATE.read_text()))
    succeeds(engine, "deploy", "--stack", "published")
    assert deployment(engine, "published") == committed
    lines = succeeds(engine, "deploy", "--stack", "published", "CountVisits=false")
    changed = deployment(engine, "published")
    assert changed != committed
    assert f"  added            {changed} (AWS::ApiGateway::Deployment)" in lines
    for given in ([], ["CountVisits=false"]):  # the value that was kept, and the same one again
        assert succeeds(engine, "deploy", "--stack", "published", *given)[0] == "Stack published is up to date"
    succeeds(engine, "deploy", "--stack", "published", "CountVisits=true")
    assert deployment(engine, "published") == committed


def test_each_of_several_deployments_gets_its_name(altered):
    name = re.search(r"Deployment[0-9a-f]{10}", TEMPLATE.read_text())[0]
    digits = name[-10:]
    other = f"\n DeploymentKey{digits}:\n  Type: AWS::ApiGateway::Deployment\n  Properties: {{}}\n"
    text = altered((name, f"DeploymentOpen{digits}"), resources=other, without_code=True).read_text()
    assert embed.with_deployment(text) == text
    changed = embed.with_deployment(text, {"Access": "key"})
    (other,) = set(re.findall(r"Deployment(?:Open|Key)([0-9a-f]{10})", changed))
    assert (other != digits, changed.replace(other, digits)) == (True, text)
    assert embed.with_deployment(changed) == text
    assert embed.with_deployment(text, {"Access": "read"}) not in (text, changed)


# --- make teardown


def test_teardown_leaves_a_file_that_imports_again(engine, tmp_path):
    succeeds(engine, "deploy", "--stack", "moved")
    with http_api(engine, outputs(engine, "moved")["APIUrl"]) as api:
        api.post("https://www.google.com", tags=["a"], notes="b")
        api("PUT", "/link/short", {"link": "https://docs.aws.amazon.com/", "title": "\u00e4"})
        records = api.all()
    lines = succeeds(engine, "teardown", "--stack", "moved", folder=tmp_path)
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"links-moved-\d{8}T\d{6}Z\.jsonl", path.name)
    assert lines[0] == f"{path.name} has the links, 2; they come back by: make import FILE={path.name} API=URL"
    assert lines[1] == f"Deleting stack moved {here(engine)}"

    succeeds(engine, "deploy", "--stack", "moved")
    with http_api(engine, outputs(engine, "moved")["APIUrl"]) as api:
        url = f"http://{api.host}/prod/link"
        code, printed = make(engine, "import", f"FILE={path}", f"API={url}")
        assert (code, "2 added" in printed) == (0, True), printed
        assert api.all() == [each | {"updated_at": now["updated_at"]} for each, now in zip(records, api.all())]
    assert make(engine, "teardown", "STACK=moved", "EXPORT=no")[0] == 0
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_table_leaves_no_file(engine, tmp_path):
    succeeds(engine, "deploy", "--stack", "empty")
    assert succeeds(engine, "teardown", "--stack", "empty", folder=tmp_path)[0] == "There are no links to export."
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_not_deleted(engine, tmp_path):
    succeeds(engine, "deploy", "--stack", "full")
    with http_api(engine, outputs(engine, "full")["APIUrl"]) as api:
        record = api.post("https://www.google.com")
        # No file may have a byte, as on a full disk.
        no_room = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh"]
        code, printed = run(
            engine, [*no_room, *manage_py("teardown", "--stack", "full", "--template", TEMPLATE)], tmp_path
        )
        first, second = printed.splitlines()
        assert (code, first.startswith("The links could not be exported, so nothing is deleted: ")) == (1, True)
        assert second == "To delete them without an export: make teardown STACK=full EXPORT=no"
        assert api.all() == [record]
    lines = succeeds(engine, "teardown", "--stack", "full", "--no-export", folder=tmp_path)
    assert lines[0] == f"Deleting stack full {here(engine)}"


def test_no_file_is_overwritten_by_the_export(monkeypatch, tmp_path):
    class Noon(datetime):
        @classmethod
        def now(cls, zone):
            return datetime(2026, 1, 1, 12, tzinfo=zone)

    monkeypatch.setattr(contents, "datetime", Noon)
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "links-a-20260101T120000Z.jsonl"
    there.write_text("of before")
    with pytest.raises(stack.StackError, match=f"so nothing is deleted: {there.name} is there already."):
        contents.export({"StackName": "a", "Description": "apidb, a store"}, "Table", "table", "STACK=a")
    assert there.read_text() == "of before"


def test_a_protected_table_is_protected_on_aws_too(engine, monkeypatch):
    """The local engine has a text where AWS has a boolean."""
    for key, value in engine.settings.items():
        monkeypatch.setenv(key, value)
    succeeds(engine, "deploy", "--stack", "guarded")
    there = {"Table": {"TableName": "t", "DeletionProtectionEnabled": True}}
    monkeypatch.setattr(contents, "tables_of", lambda _: there)
    monkeypatch.setattr(contents, "export", lambda *_: pytest.fail("it goes on"))
    with pytest.raises(stack.StackError, match="^Table of stack guarded is protected from deletion"):
        deleting.teardown("guarded", TEMPLATE)
    succeeds(engine, "teardown", "--stack", "guarded", "--no-export")


def test_a_protected_table_is_not_torn_down(engine):
    succeeds(engine, "deploy", "--stack", "kept", "DeletionProtection=true")
    with http_api(engine, outputs(engine, "kept")["APIUrl"]) as api:
        record = api.post("https://www.google.com")
        code, printed = script(engine, "teardown", "--stack", "kept")
        assert (code, printed.splitlines()[0]) == (
            1,
            "Table of stack kept is protected from deletion. To delete it all the same:",
        )
        assert api.all() == [record]
    mend = re.search(r'^  make deploy STACK=kept PARAMETERS="(\S+)" && make teardown STACK=kept$', printed, re.M)
    succeeds(engine, "deploy", "--stack", "kept", mend[1])


def test_a_stack_whose_table_somebody_deleted_is_torn_down(engine):
    succeeds(engine, "deploy", "--stack", "bare")
    drop_table(engine, "bare")
    assert succeeds(engine, "teardown", "--stack", "bare")[-1] == "Nothing is left of stack bare."


def drop_table(engine, name):
    table = resource_ids(engine, name)["Table"]
    # The engine takes the parameter's text, "false", for protected.
    aws(engine, *f"dynamodb update-table --table-name {table} --no-deletion-protection-enabled".split())
    aws(engine, *f"dynamodb delete-table --table-name {table}".split())


def test_what_is_left_is_listed(engine, altered):
    template = altered(("DeletionPolicy: Delete\n  UpdateReplacePolicy: Delete", "DeletionPolicy: Retain"))
    succeeds(engine, "deploy", "--stack", "rest", "--template", template)
    ids = resource_ids(engine, "rest")
    own = f"/aws/lambda/{ids['Function']}"  # which Lambda makes without LoggingConfig
    of_stage = f"API-Gateway-Execution-Logs_{ids['Api']}/prod"  # which API Gateway makes when it logs
    for group in (own, of_stage):
        aws(engine, "logs", "create-log-group", "--log-group-name", group)
    lines = succeeds(engine, "teardown", "--stack", "rest", "--no-export")
    groups = (own, of_stage, ids["LogGroup"])
    left = sorted(f"  AWS::Logs::LogGroup      {group}" for group in groups)
    assert lines[-5:-1] == ["Left of stack rest:", *left]
    for group in groups:
        aws(engine, "logs", "delete-log-group", "--log-group-name", group)


def test_what_goes_a_moment_later_is_not_left(monkeypatch):
    """AWS may know for a moment what it has deleted; the engine does not."""
    looked = []
    monkeypatch.setattr(stack, "events", lambda *_: [])
    monkeypatch.setattr(stack, "pause", lambda _: None)
    monkeypatch.setattr(deleting, "is_there", lambda _, name: looked.append(name) or name == "stays" or len(looked) < 3)
    had = [(stack.TABLE, "Table", "goes"), (stack.LOG, "LogGroup", "stays")]
    assert deleting.left_of(None, "id", had) == [(stack.LOG, "stays")]


@pytest.mark.parametrize("name", deleting.LOOKUPS)
def test_what_is_not_there_is_not_found(engine, monkeypatch, name):
    for key, value in engine.settings.items():
        monkeypatch.setenv(key, value)
    named = {"AWS::Lambda::LayerVersion": "arn:aws:lambda:us-east-1:000000000000:layer:nothing:1"}
    named["AWS::Lambda::EventSourceMapping"] = "00000000-0000-0000-0000-000000000000"
    assert not deleting.is_there(name, named.get(name, "nothing"))


# --- Ctrl-C


GOES_ON = """
CloudFormation goes on without being watched. See how far it is with:
  make status STACK={0}
  aws cloudformation describe-stack-events --stack-name {0}
"""


def interrupted(engine, folder, text, *arguments):
    """Run scripts/manage.py and send it Ctrl-C when it has printed this text; return what it printed."""
    run = Program(manage_py(*arguments), folder, engine.settings, cwd=ROOT).until(text)
    run.stop()
    assert run.process.returncode == 1
    assert "Traceback" not in run.printed
    return run.printed


def test_ctrl_c_leaves_a_deployment_to_cloudformation(engine, altered, tmp_path):
    waits = altered(resources=WAITER)
    deploy = ["deploy", "--stack", "left", "--template", waits]
    assert interrupted(engine, tmp_path, "CREATE_COMPLETE  Api", *deploy).endswith(GOES_ON.format("left"))
    assert "Status       CREATE_IN_PROGRESS" in succeeds(engine, "status", "--stack", "left")
    signalled(engine, "left")
    assert settled(engine, "left")["StackStatus"] == "CREATE_COMPLETE"

    succeeds(engine, "deploy", "--stack", "left")
    assert interrupted(engine, tmp_path, "UPDATE_COMPLETE  Api", *deploy).endswith(GOES_ON.format("left"))
    assert "Status       UPDATE_IN_PROGRESS" in succeeds(engine, "status", "--stack", "left")
    signalled(engine, "left")
    assert settled(engine, "left")["StackStatus"] == "UPDATE_COMPLETE"
    assert change_sets(engine, "left") == []


def test_ctrl_c_leaves_a_deletion_to_cloudformation(engine, altered, tmp_path):
    template = altered(resources=GUARD % ("never", 5), without_code=True)
    succeeds(engine, "deploy", "--stack", "going", "--template", template)
    stack_id = settled(engine, "going")["StackId"]
    teardown = ["teardown", "--stack", "going", "--no-export"]
    assert interrupted(engine, tmp_path, "Deleting stack going", *teardown).endswith(GOES_ON.format("going"))
    assert "Status       DELETE_IN_PROGRESS" in succeeds(engine, "status", "--stack", "going")
    while settled(engine, stack_id)["StackStatus"] == "DELETE_IN_PROGRESS":
        pass
    assert settled(engine, stack_id)["StackStatus"] == "DELETE_COMPLETE"


def test_a_second_signal_cuts_off_nothing():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    try:
        manage.stop_in_order()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        for number in numbers:
            signal.raise_signal(number)
    except KeyboardInterrupt:
        pytest.fail("the second one is not ignored")
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


def test_ctrl_c_leaves_no_change_set_whenever_it_comes(engine, tmp_path):
    succeeds(engine, "deploy", "--stack", "early")
    for tenths in (8, 10, 12):  # after its start; any moment will do
        command = manage_py("deploy", "--stack", "early", f"RequestBurst={tenths}")
        program = Program(command, tmp_path, engine.settings, cwd=ROOT)
        time.sleep(tenths / 10)
        program.stop()
        assert "StackError" not in program.printed
        settled(engine, "early")
        assert change_sets(engine, "early") == [], program.printed


# --- make status and make logs


def test_status_says_how_the_stack_is(engine):
    succeeds(engine, "deploy", "--stack", "seen")
    url = stack.reachable(outputs(engine, "seen")["APIUrl"], engine.settings["AWS_ENDPOINT_URL"])
    with http_api(engine, outputs(engine, "seen")["APIUrl"]) as api:
        api.post("https://www.google.com")
        api.post("https://expired.example", expires_at="2099-01-01T00:00:00Z")
        code, printed = make(engine, "status", "STACK=seen")
        assert code == 0, printed
        time_of = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
        expected = (
            f"Stack        seen, in us-east-1\nStatus       CREATE_COMPLETE\nLast did     create, at {time_of}\n"
            f"Until        CREATE_COMPLETE of seen, at {time_of}\nAPI          {re.escape(url)}\n"
            "Version      1.0.0\n"
            "Access       open: anyone on the internet may read, add, change and delete links\n"
            "Links        2\nErrors       none in the last 24 hours\n"
        )
        assert re.fullmatch(expected, printed), printed
        drop_table(engine, "seen")
        answer = api("GET", "/link/a")
        assert answer.status_code == 500
    lines = succeeds(engine, "status", "--stack", "seen")
    assert lines[-2:-1] == [""]
    cause = 'RuntimeError: DynamoDB answered Query with 400: {"__type"'
    assert f" 500 GET /link/{{link_id}} {answer.json()['Reference']}  {cause}" in lines[-1]
    succeeds(engine, "teardown", "--stack", "seen")


def test_many_links_are_counted_about(engine, monkeypatch):
    for key, value in engine.settings.items():
        monkeypatch.setenv(key, value)
    succeeds(engine, "deploy", "--stack", "many")
    name = resource_ids(engine, "many")["Table"]
    client = boto3.client("dynamodb")

    def put(number, **more):
        item = {"link_id": {"S": f"{number}"}, "link": {"S": "-"}, "notes": {"S": "x" * 390_000}, **more}
        client.put_item(TableName=name, Item=item)

    def count():
        return contents.count_of(client.describe_table(TableName=name)["Table"], of_store=True)

    put(0, expires_at={"N": "1"})
    for number in range(1, 6):
        put(number)
    assert count() == "5", "what has expired is no link"
    for number in range(6, 40):
        put(number)
    assert re.fullmatch("about (39|40), as DynamoDB counted up to six hours ago", count())
    succeeds(engine, "teardown", "--stack", "many", "--no-export")


@pytest.fixture
def log(engine, monkeypatch):
    """A function that writes a line of some age, in seconds, to the log of stack `spoken`."""
    for key, value in engine.settings.items():
        monkeypatch.setenv(key, value)
    succeeds(engine, "deploy", "--stack", "spoken")
    group = resource_ids(engine, "spoken")["LogGroup"]
    where, client = {"logGroupName": group, "logStreamName": "a"}, boto3.client("logs")
    client.create_log_stream(**where)

    def write(age, message):
        at = int((time.time() - age) * 1000)
        client.put_log_events(**where, logEvents=[{"timestamp": at, "message": message}])

    yield write
    succeeds(engine, "teardown", "--stack", "spoken", "--no-export")


def test_status_shows_the_five_newest_errors_of_a_day(engine, log):
    for number in range(6, 0, -1):
        log(number, json.dumps({"level": "ERROR", "error": f"Traceback\n\x1b[2Jnumber {number}"}))
    log(25 * 3600, '{"level": "ERROR", "error": "of yesterday"}')
    log(0, '{"level": "INFO", "method": "ERROR", "status": 405}')
    log(0, "ERROR, but no JSON")
    lines = succeeds(engine, "status", "--stack", "spoken")
    found = lines[lines.index("The newest errors of the last 24 hours:") + 2 :]
    assert [line.partition(" UTC    ")[2] for line in found] == [f"?[2Jnumber {number}" for number in range(5, 0, -1)]


LOG = json.loads((ROOT / "tests" / "events" / "log.json").read_text())


NO_IMPORT = "  Runtime.ImportModuleError: Unable to import module 'index': No module named 'ijson'"


@pytest.mark.parametrize(
    "names, found",
    [
        # awslambdaric 4.0.1 wrote log_level, and what came after it writes level.
        (["import_done", "import", "import_report"], [NO_IMPORT]),
        (["import_as_next", "import_report"], [NO_IMPORT]),
        (["raised", "raised_report"], ["8f6f4fd2-3f4e-4b3c-9a5e-6d0a4a0c2b1e  ValueError: no such thing"]),
        (["timeout"], ["6d68ca91-49c9-448d-89b8-7ca3e6dc66aa  Sandbox.Timedout: timeout after 25000.0 ms"]),
        (["timeout_without_type"], ["6d68ca91-49c9-448d-89b8-7ca3e6dc66ab  timeout after 25000.0 ms"]),
        (["memory"], ["6d68ca91-49c9-448d-89b8-7ca3e6dc66ac  Runtime.OutOfMemory: error after 812.4 ms"]),
        (["success"], None),
        (
            ["handler"],
            [
                "500 GET /link/{link_id} 8288cb8c-01a8-4a7e-a1b0-643969a2f390"
                '  RuntimeError: DynamoDB answered Query with 400: {"__type": "ResourceNotFoundException"}'
            ],
        ),
    ],
)
def test_status_knows_the_errors_of_handler_runtime_and_lambda(monkeypatch, capsys, names, found):
    """Lines as the handler wrote them on the engine, awslambdaric in this form of log, and Lambda by its documentation."""
    now = int(time.time() * 1000)
    events = [{"timestamp": now, "message": json.dumps(LOG[name])} for name in names]
    monkeypatch.setattr(logs, "log_events", lambda *_, **__: events)
    logs.show_errors({"group": "Function"})
    printed = capsys.readouterr().out.splitlines()
    if found is None:
        assert printed == ["Errors       none in the last 24 hours"]
    else:
        assert [line.partition(" UTC  ")[2] for line in printed[3:]] == found


def test_logs_begin_ten_minutes_ago_and_miss_no_line_that_comes_late(engine, log, tmp_path):
    log(11 * 60, "too old")
    log(9 * 60, "old\x1b[2J\nenough")
    log(0, "now")
    following = Program(["make", "logs", "STACK=spoken"], tmp_path, engine.settings, cwd=ROOT).until("now")
    log(20, "late")
    log(0, "last")
    following.until("last").stop()
    assert re.findall(" UTC  (.*)", following.printed) == ["old?[2J enough", "now", "late", "last"]


def test_logs_follow_the_log(engine, tmp_path):
    succeeds(engine, "deploy", "--stack", "told")
    with http_api(engine, outputs(engine, "told")["APIUrl"]) as api:
        first = api("GET", "/link/a").json()["Reference"]
        log = Program(["make", "logs", "STACK=told"], tmp_path, engine.settings, cwd=ROOT).until(first)
        second = api("GET", "/link/b").json()["Reference"]
        log.until(second).stop()
    assert log.printed.count(first) == log.printed.count(second) == 1
    assert "Traceback" not in log.printed
    succeeds(engine, "teardown", "--stack", "told", "--no-export")


# --- What an Access asks for


def test_the_commands_carry_the_key_which_is_not_printed(engine, curl):
    lines = succeeds(engine, "deploy", "--stack", "keyed", "Access=key")
    printed = "\n".join(lines)
    key_id = outputs(engine, "keyed")["ApiKeyId"]
    key = aws(engine, *f"apigateway get-api-key --api-key {key_id} --include-value".split())["value"]
    assert key not in printed
    commands = re.findall("^  (.*(?:curl |boto3).*)$", printed, re.M)
    shown, export, post, get = commands
    # Another shell, that has other settings of AWS or none.
    shell = {name: value for name, value in engine.settings.items() if not name.startswith("AWS_")}

    def typed(command):
        done = subprocess.run(command, shell=True, env=shell, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout

    assert typed(shown) == key + "\n"
    assert export == f"export APIDB_KEY=$({shown})"
    assert typed(f"{export}; echo $APIDB_KEY") == key + "\n"
    assert all(' -H "x-api-key: $APIDB_KEY" ' in command for command in (post, get))
    assert json.loads(typed(f"{export}; {post}"))["link"] == "https://www.google.com"
    assert len(json.loads(typed(f"{export}; {get}"))) == 1
    succeeds(engine, "teardown", "--stack", "keyed", "--no-export")


def test_on_aws_the_key_is_read_with_the_settings_of_the_owner(monkeypatch, capsys):
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    url = "https://a.execute-api.eu-west-1.amazonaws.com/prod/link"
    show.show({"APIUrl": url, "Access": "key", "ApiKeyId": "k1"}, TEMPLATE)
    command = "aws apigateway get-api-key --api-key k1 --include-value --query value --output text"
    printed = capsys.readouterr().out
    assert f"\n  {command}\n" in printed
    assert f"""  export APIDB_KEY=$({command})\n  curl -H "x-api-key: $APIDB_KEY" -X POST -d """ in printed
    assert f"""\n  curl -H "x-api-key: $APIDB_KEY" {url}\n""" in printed
    show.show({"APIUrl": url, "Access": "read", "ApiKeyId": "k1"}, TEMPLATE)
    printed = capsys.readouterr().out
    assert 'curl -H "x-api-key: $APIDB_KEY" -X POST -d ' in printed
    assert f"\n  curl {url}\n" in printed
    show.show({"APIUrl": url, "Access": "iam"}, TEMPLATE)
    sign = '--aws-sigv4 "aws:amz:eu-west-1:execute-api" --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"'
    token = '-H "x-amz-security-token: $AWS_SESSION_TOKEN"'
    assert f"\n  curl {sign} {token} {url}\n" in capsys.readouterr().out


def test_with_iam_the_commands_are_signed(engine, curl):
    lines = succeeds(engine, "deploy", "--stack", "signed", "Access=iam")
    post, get = [line.strip() for line in lines if line.startswith("  curl")]
    for command in (post, get):
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
        assert "https://www.google.com" in done.stdout
        unsigned = re.sub(' --aws-sigv4 "[^"]*" --user "[^"]*"', "", command)
        assert "Error" in subprocess.run(unsigned, shell=True, capture_output=True, text=True, check=True).stdout
    succeeds(engine, "teardown", "--stack", "signed", "--no-export")


# --- make run


class Run(Program):
    """A `make run` in a folder and on a port of its own."""

    def __init__(self, folder, port, *arguments):
        self.folder, self.port = folder, port
        (folder / "tmp").mkdir(exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        # What a user's shell may hold must not matter.
        environment |= {"AWS_PROFILE": "nobody", "TMPDIR": str(folder / "tmp"), "http_proxy": "http://127.0.0.1:1"}
        command = ["make", "run", f"PORT={port}", f"STATE={folder}/state", *arguments]
        super().__init__(command, folder, environment, cwd=ROOT)


@pytest.fixture
def runs(tmp_path):
    started = []

    def run(name="here", port=None, arguments=()):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        started.append(Run(folder, port or free_port(), *arguments))
        return started[-1]

    yield run
    for each in started:
        if each.process.poll() is None:
            each.stop()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_run_prints_commands_that_work_and_keeps_the_links(runs, curl):
    first = runs().until("Ctrl-C stops it.")
    post, get = first.commands
    posted = subprocess.run(post, shell=True, capture_output=True, text=True, check=True).stdout
    assert json.loads(posted)["link"] == "https://www.google.com"
    listed = subprocess.run(get, shell=True, capture_output=True, text=True, check=True).stdout
    assert json.loads(listed) == [json.loads(posted)]
    first.stop()
    assert "Stopped." in first.printed and "Traceback" not in first.printed
    assert not listens(first.port)
    assert list((first.folder / "tmp").iterdir()) == [], "nothing is left behind"

    second = runs(port=first.port).until("Ctrl-C stops it.")
    assert "Stack apidb is up to date" in second.printed
    assert second.commands == [post, get]
    assert subprocess.run(get, shell=True, capture_output=True, text=True).stdout == listed
    second.stop(signal.SIGTERM)
    assert not listens(first.port)


def test_run_keeps_what_was_acknowledged_before_it_was_stopped(runs):
    """The stop comes while clients store links; what they were told is stored is there the next time."""
    acknowledged, port = [], None
    for number in (signal.SIGINT, signal.SIGTERM, None):
        run = runs(port=port).until("Ctrl-C stops it.")
        port, url = run.port, urlsplit(re.search("^The API is at (.*)$", run.printed, re.M)[1])
        settings = {"base_url": f"http://127.0.0.1:{port}", "headers": {"Host": url.netloc}, "trust_env": False}
        with httpx.Client(timeout=60, **settings) as client, ThreadPoolExecutor(CLIENTS) as threads:
            if not number:
                listed = client.get(url.path, params={"limit": 1000}).json()
                break
            told = queue.SimpleQueue()
            for each in range(CLIENTS):
                threads.submit(store_until_refused, client, url.path, f"https://example.com/{number}/{each}/", told)
            acknowledged += [told.get(timeout=60) for _ in range(20 * CLIENTS)]
            run.stop(number)
        assert "Traceback" not in run.printed
        while not told.empty():
            acknowledged.append(told.get())
    assert len(listed) < 1000
    links = [record["link"] for record in listed]
    assert set(acknowledged) <= set(links) and len(set(links)) == len(links)


CLIENTS = 4


def store_until_refused(client, path, start, told):
    """Post one link after the other until the engine is gone; tell of each that is acknowledged."""
    with suppress(httpx.HTTPError):
        for number in itertools.count():
            link = f"{start}{number}"
            if client.post(path, json={"link": link}).status_code == 201:
                told.put(link)


def test_a_kill_loses_what_came_since_the_last_save(monkeypatch, tmp_path):
    """So says docs/local.md."""
    port = free_port()

    def link(number):
        return f"https://example.com/{number}"

    def post(api, number):
        api.post(link(number))
        until(lambda: link(number) in saved(tmp_path, "dynamodb"))

    monkeypatch.setattr(local, "SAVE_SECONDS", 0.1)
    with local.engine(port, tmp_path) as running:
        url = create_stack(running, "killed")
        with http_api(running, url) as api:
            post(api, 1)
            post(api, 2)  # with which all of the save of the first is done
        running.process.kill()
    monkeypatch.setattr(local, "SAVE_SECONDS", 3600)
    with local.engine(port, tmp_path) as running:
        assert outputs(running, "killed")["APIUrl"] == url
        with http_api(running, url) as api:
            assert {each["link"] for each in api.all()} == {link(1), link(2)}
            api.post(link(3))
        running.process.kill()
    with local.engine(port, tmp_path) as running, http_api(running, url) as api:
        assert {each["link"] for each in api.all()} == {link(1), link(2)}
        assert not [*tmp_path.glob("*.tmp")], "a save at the end has ended those that were cut off"


def until(condition):
    """Wait until this is so, a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def saved(state, service):
    """Return what the engine has saved of a service, as text."""
    path = state / f"{service}.json"
    return path.read_text() if path.exists() else ""


def test_a_save_that_fails_leaves_the_one_before_and_is_tried_again(monkeypatch, tmp_path):
    monkeypatch.setattr(local, "SAVE_SECONDS", 0.1)
    with local.engine(free_port(), tmp_path) as running, http_api(running, create_stack(running, "saved")) as api:
        api.post("https://example.com/1")
        until(lambda: "https://example.com/1" in saved(tmp_path, "dynamodb"))
        (tmp_path / "dynamodb.json.tmp").mkdir()  # where the next save begins to write it
        before, others = saved(tmp_path, "dynamodb"), saved(tmp_path, "cloudwatch_logs")
        api.post("https://example.com/2")
        until(lambda: saved(tmp_path, "cloudwatch_logs") != others)
        assert saved(tmp_path, "dynamodb") == before
        assert len(api.all()) == 2, "it goes on to serve"
        (tmp_path / "dynamodb.json.tmp").rmdir()
        until(lambda: "https://example.com/2" in saved(tmp_path, "dynamodb"))


def test_no_stack_is_saved_half_made(monkeypatch, tmp_path):
    """Nobody would go on with it after a crash."""
    monkeypatch.setattr(local, "SAVE_SECONDS", 0.01)

    def states():
        return re.findall('"StackStatus": "([A-Z_]+)"', saved(tmp_path, "cloudformation"))

    with local.engine(free_port(), tmp_path) as running:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
        key, secret, region = (running.settings[name] for name in names)
        client = boto3.client(
            "cloudformation",
            endpoint_url=running.settings["AWS_ENDPOINT_URL"],
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            region_name=region,
        )
        client.create_stack(StackName="waits", TemplateBody="Resources:" + WAITER)
        seen = [client.describe_stacks()["Stacks"][0]["StackStatus"] for _ in range(200)]  # each of which is counted
        half = states()
        signalled(running, "waits")  # before anything fails: the engine does not stop while it waits
        assert (set(seen), half) == ({"CREATE_IN_PROGRESS"}, [])
        until(lambda: states() == ["CREATE_COMPLETE"])


def test_links_are_stored_while_they_are_saved(monkeypatch, tmp_path):
    """Each save is whole, and the last one, at the end, has all."""
    monkeypatch.setattr(local, "SAVE_SECONDS", 0.01)
    port = free_port()
    with local.engine(port, tmp_path) as running, http_api(running, create_stack(running, "busy")) as api:
        with ThreadPoolExecutor(CLIENTS) as threads:
            stored = threads.map(lambda number: api.post(f"https://example.com/{number}"), range(200))
            texts = set()
            until(lambda: texts.add(saved(tmp_path, "dynamodb")) or len(texts) == 5)
        links = {each["link"] for each in stored}
    assert all(json.loads(text) for text in texts if text)
    with local.engine(port, tmp_path) as running, http_api(running, outputs(running, "busy")["APIUrl"]) as api:
        assert {each["link"] for each in api.all()} == links


def test_run_refuses_to_run_twice(runs):
    first = runs().until("Ctrl-C stops it.")
    twice = runs()
    assert twice.process.wait(60) != 0
    assert f"It runs already, with the data in {twice.folder}/state. Stop it first, or leave out PORT " in twice.printed
    elsewhere = runs("elsewhere", port=first.port)
    assert elsewhere.process.wait(60) != 0
    assert f"Port {first.port} is in use." in elsewhere.printed
    assert "Traceback" not in twice.printed + elsewhere.printed
    assert first.process.poll() is None


def test_a_run_that_was_killed_leaves_no_two_engines_on_one_folder(runs):
    """Its engine lives on, and saves; another one on the same folder would overwrite what that has."""
    killed = runs().until("Ctrl-C stops it.")
    os.killpg(killed.process.pid, signal.SIGKILL)
    killed.process.wait(60)
    again = runs()
    assert again.process.wait(60) != 0
    (engine,) = re.findall(r"this ends its engine, which saves all: kill (\d+)", again.printed)
    os.kill(int(engine), signal.SIGTERM)
    end = time.monotonic() + 60
    while listens(killed.port):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "Stack apidb is up to date" in runs(port=killed.port).until("Ctrl-C stops it.").printed


def test_run_that_is_stopped_at_once_can_run_again(runs):
    run = runs().until("Creating stack")
    run.stop()
    assert not listens(run.port)
    assert list((run.folder / "tmp").iterdir()) == []
    assert "Traceback" not in run.printed
    runs(port=run.port).until("Ctrl-C stops it.").stop()


@pytest.mark.parametrize("port", [65536, -1])
def test_run_refuses_a_port_that_is_none(runs, port):
    refused = runs(port=port)
    assert refused.process.wait(60) != 0
    assert f"A port is a number from 1 to 65535, not {port}." in refused.printed


def test_run_closes_its_folder(runs):
    """It holds the links, and the API's key."""
    run = runs().until("Ctrl-C stops it.")
    folder = run.folder / "state"
    run.stop()
    assert {path.stat().st_mode & 0o077 for path in [folder, *folder.rglob("*")]} == {0}
    folder.chmod(0o755)
    runs(port=run.port).until("Ctrl-C stops it.").stop()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_run_leaves_a_folder_of_others_alone(runs, tmp_path):
    (tmp_path / "here" / "state").mkdir(parents=True, mode=0o755)
    (tmp_path / "here" / "state" / "letter").touch()
    refused = runs()
    assert refused.process.wait(60) != 0
    assert "here/state has other files in it. Name a folder for the data alone" in refused.printed
    assert (tmp_path / "here" / "state").stat().st_mode & 0o777 == 0o755


def test_run_sets_the_access(runs, curl):
    """The key of a run works as printed, and the next run keeps the access."""
    run = runs(arguments=["ACCESS=key"]).until("Ctrl-C stops it.")
    (export,) = re.findall("^  (export .*)$", run.printed, re.M)
    post, get = run.commands
    done = subprocess.run(f"{export}; {post}", shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["link"] == "https://www.google.com"
    run.stop()
    again = runs(port=run.port).until("Ctrl-C stops it.")
    assert "Stack apidb is up to date" in again.printed
    again.stop()


def test_run_starts_the_page_which_knows_the_store_of_this_run(runs):
    """The store's URL has the port of the engine in it, and so another with each port."""
    for _ in range(2):
        run = runs(port=free_port()).until("Ctrl-C stops it.")
        (page,) = re.findall("^Its page is at (.*)$", run.printed, re.M)
        at, store_url = urlsplit(page), re.search("^The API is at (.*)$", run.printed, re.M)[1]
        answer = httpx.get(f"http://127.0.0.1:{run.port}{at.path}", headers={"Host": at.netloc}, trust_env=False)
        assert (answer.status_code, store_url in answer.text) == (200, True)
        run.stop()
    without = runs("without", arguments=["ADDONS="]).until("Ctrl-C stops it.")
    assert "Its page is at" not in without.printed
