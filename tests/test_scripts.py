"""The commands of the Makefile that run and deploy the stack, as a person runs them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT, TEMPLATE, aws, free_port, http_api, outputs, resource_ids, settled


def script(engine, *arguments):
    """Run scripts/stack.py on the local engine; return its exit code and what it printed."""
    command = [sys.executable, "scripts/stack.py", *map(str, arguments)]
    done = subprocess.run(
        command, env=engine.settings, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


# --- make deploy and make teardown


def test_deploy_shows_what_is_made_and_teardown_that_it_is_gone(engine):
    code, printed = script(engine, "deploy", "--stack", "made")
    assert code == 0, printed
    lines = printed.splitlines()
    assert lines[0] == "Creating stack made"
    for name in ("Table", "Role", "Function", "Stage", "made"):
        assert f"  CREATE_COMPLETE  {name}" in lines
    (url,) = set(re.findall(r"http://\S+/prod/link", printed))
    assert url.split(".")[0].split("/")[-1] in outputs(engine, "made")["APIUrl"]
    assert f"""  curl -X POST -d '{{"link": "https://www.google.com"}}' {url}""" in lines
    with http_api(engine, outputs(engine, "made")["APIUrl"]) as api:
        api.post("https://www.google.com")

        code, printed = script(engine, "deploy", "--stack", "made")
        assert (code, printed.splitlines()[0]) == (0, "Stack made is up to date")
        assert url in printed
        assert len(api.all()) == 1

    code, printed = script(engine, "teardown", "--stack", "made")
    assert code == 0, printed
    lines = printed.splitlines()
    assert (lines[0], lines[-1]) == ("Deleting stack made", "Stack made is gone.")
    assert "  DELETE_COMPLETE  Table" in lines
    assert script(engine, "teardown", "--stack", "made") == (1, "There is no stack made in us-east-1.\n")


def parameters(engine, stack):
    return {each["ParameterKey"]: each["ParameterValue"] for each in settled(engine, stack)["Parameters"]}


def test_a_parameter_that_is_not_there_is_refused(engine):
    code, printed = script(engine, "deploy", "--stack", "wrong", "RequestPerSecond=1")
    assert code == 1
    assert printed.startswith("setupapidb.yml has no parameter RequestPerSecond; it has CountVisits, DeletionProtection,")
    assert "does not exist" in aws(engine, *"cloudformation describe-stacks --stack-name wrong".split(), fails=True)


def test_parameters_that_were_set_stay_set(engine, tmp_path):
    deploy = ["deploy", "--stack", "set"]
    code, printed = script(engine, *deploy, "RequestBurst=7", "LogRetentionInDays=1")
    assert code == 0, printed
    code, printed = script(engine, *deploy, "RequestBurst=8")
    assert (code, printed.splitlines()[0]) == (0, "Updating stack set")
    assert parameters(engine, "set") == {
        "RequestsPerSecond": "200",
        "RequestBurst": "8",
        "DeletionProtection": "false",
        "CountVisits": "true",
        "LogRetentionInDays": "1",
    }
    # A template that knows a parameter less, and one more.
    other = TEMPLATE.read_text().replace("LogRetentionInDays", "DaysOfLog")
    (tmp_path / "handler").symlink_to(ROOT / "handler")
    (tmp_path / "other.yml").write_text(other)
    code, printed = script(engine, *deploy, "--template", tmp_path / "other.yml")
    assert code == 0, printed
    assert parameters(engine, "set")["DaysOfLog"] == "30"
    assert parameters(engine, "set")["RequestBurst"] == "8"
    script(engine, "teardown", "--stack", "set")


def test_a_deployment_that_fails_names_the_cause_and_can_be_repeated(engine, tmp_path):
    broken = TEMPLATE.read_text().replace(
        "\nOutputs:", "\n Broken:\n  Type: AWS::Lambda::EventInvokeConfig\n  Properties: {}\n\nOutputs:"
    )
    (tmp_path / "broken.yml").write_text(broken)
    code, printed = script(engine, "deploy", "--stack", "again", "--template", tmp_path / "broken.yml")
    assert code == 1
    assert re.search(r"^Stack again is in status ROLLBACK_COMPLETE\. Broken: \S", printed, re.M), printed
    assert "Traceback" not in printed
    code, printed = script(engine, "deploy", "--stack", "again")
    assert code == 0, printed
    assert "What a failed creation left of stack again is deleted first." in printed
    code, printed = script(engine, "deploy", "--stack", "again", "--template", tmp_path / "broken.yml")
    assert code == 1
    assert "Stack again is in status UPDATE_ROLLBACK_COMPLETE. Broken: " in printed
    code, printed = script(engine, "deploy", "--stack", "again")
    assert (code, "Stack again is up to date" in printed, "curl" in printed) == (0, True, True), printed
    script(engine, "teardown", "--stack", "again")


def test_a_protected_table_is_not_torn_down(engine):
    code, printed = script(engine, "deploy", "--stack", "kept", "DeletionProtection=true")
    assert code == 0, printed
    with http_api(engine, outputs(engine, "kept")["APIUrl"]) as api:
        record = api.post("https://www.google.com")
        code, printed = script(engine, "teardown", "--stack", "kept")
        assert (code, printed.splitlines()[0]) == (
            1,
            "Table of stack kept is protected from deletion. To delete it all the same:",
        )
        assert api.all() == [record]
    mend = re.search(r'^  make deploy STACK=kept PARAMETERS="(\S+)" && make teardown STACK=kept$', printed, re.M)
    assert script(engine, "deploy", "--stack", "kept", mend[1])[0] == 0
    code, printed = script(engine, "teardown", "--stack", "kept")
    assert code == 0, printed


def test_a_stack_whose_table_somebody_deleted_is_torn_down(engine):
    script(engine, "deploy", "--stack", "bare")
    table = resource_ids(engine, "bare")["Table"]
    # The engine takes the parameter's text, "false", for protected.
    aws(engine, *f"dynamodb update-table --table-name {table} --no-deletion-protection-enabled".split())
    aws(engine, *f"dynamodb delete-table --table-name {table}".split())
    code, printed = script(engine, "teardown", "--stack", "bare")
    assert (code, printed.splitlines()[-1]) == (0, "Stack bare is gone.")


@pytest.mark.parametrize("action", ["deploy", "teardown"])
def test_who_has_no_settings_of_aws_is_told(engine, action):
    unset = {key: value for key, value in engine.settings.items() if key != "AWS_DEFAULT_REGION"}
    code, printed = script(engine._replace(settings=unset), action)
    assert code == 1
    assert printed.endswith(" Set AWS_PROFILE, or AWS_REGION and credentials, or run: aws configure\n")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["deploy", "LogRetentionInDays=2"], "LogRetentionInDays"),
        (["deploy", "LogRetentionInDays"], "NAME=VALUE, not by LogRetentionInDays"),
        (["deploy", "--template", "nowhere.yml"], "nowhere.yml"),
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


# --- make run


class Run:
    """A `make run` in a folder and on a port of its own."""

    def __init__(self, folder, port):
        self.folder = folder
        self.port = port
        (folder / "tmp").mkdir(exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        # What a user's shell may hold must not matter.
        environment |= {"AWS_PROFILE": "nobody", "TMPDIR": str(folder / "tmp"), "http_proxy": "http://127.0.0.1:1"}
        with (folder / "output").open("w") as output:
            self.process = subprocess.Popen(
                ["make", "run", f"PORT={port}", f"STATE={folder}/state"],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def printed(self):
        return (self.folder / "output").read_text()

    def until(self, text):
        """Wait until it has printed this."""
        while text not in self.printed:
            assert self.process.poll() is None, self.printed
            time.sleep(0.05)
        return self

    def stop(self, number=signal.SIGINT):
        """Send it, and what it started, the signal of Ctrl-C; wait for its end."""
        os.killpg(self.process.pid, number)
        self.process.wait(60)

    @property
    def commands(self):
        return re.findall(r"^  (curl .*)$", self.printed, re.M)


@pytest.fixture
def runs(tmp_path):
    started = []

    def run(name="here", port=None):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        started.append(Run(folder, port or free_port()))
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


def test_run_refuses_to_run_twice(runs):
    first = runs().until("Ctrl-C stops it.")
    twice = runs()
    assert twice.process.wait(60) != 0
    assert f"It runs already, with the data in {twice.folder}/state. Stop it first." in twice.printed
    elsewhere = runs("elsewhere", port=first.port)
    assert elsewhere.process.wait(60) != 0
    assert f"Port {first.port} is in use." in elsewhere.printed
    assert "Traceback" not in twice.printed + elsewhere.printed
    assert first.process.poll() is None


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
