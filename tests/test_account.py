"""`pytest --on aws` with a second engine in the place of AWS: what it runs, what it asks, and that it leaves nothing."""

import builtins
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

import account
import conftest
import local
from conftest import ROOT, aws, eventually, free_port, path_of_chromium

TESTS = ["tests/test_stack.py", "tests/test_access.py", "tests/test_addons.py", "tests/test_aws.py"]
PYTEST = [sys.executable, "-m", "pytest", "--on", "aws", "--tb", "line", "-p", "no:cacheprovider"]


@pytest.fixture(scope="module")
def second():
    """Another engine, which plays the account."""
    with local.engine(free_port()) as running:
        yield running


def on_aws(second, *arguments):
    """Run pytest as `make test ON=aws` does, without a terminal; return its exit code and what it printed."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run([*PYTEST, *arguments], cwd=ROOT, env=second.settings, text=True, **pipes)
    return done.returncode, done.stdout


def held(second):
    """Return the names of what an account holds."""
    lists = {
        "cloudformation describe-stacks": "Stacks[].StackName",
        "dynamodb list-tables": "TableNames",
        "iam list-roles": "Roles[].RoleName",
        "iam list-users": "Users[].UserName",
        "lambda list-functions": "Functions[].FunctionName",
        "logs describe-log-groups": "logGroups[].logGroupName",
        "apigateway get-rest-apis": "items[].id",
        "cloudwatch list-dashboards": "DashboardEntries[].DashboardName",
    }
    return {command: aws(second, *command.split(), "--query", names) or [] for command, names in lists.items()}


def left_by(run, second):
    """Return the exit code of a run, and what it printed; it must have left nothing."""
    before = held(second)
    code, printed = run(second)
    assert held(second) == before, printed
    assert re.search(r"\d+ stacks were made, .* Nothing is left of apidb-test-[0-9a-f]{6}\.\n", printed), printed
    return code, printed


def test_stacks_users_and_add_ons_are_made_tested_and_deleted(second):
    path_of_chromium()  # which the test of the page needs
    chosen = "two_stacks_are_apart or a_signature_is_of or alarms_are_deployed or page_works"
    code, printed = left_by(lambda second: on_aws(second, "--yes", *TESTS, "-k", chosen), second)
    # One for each of these, as the alarms are tested there without an address only.
    assert (code, bool(re.search(r"\b4 passed, \d+ deselected\b", printed))) == (0, True), printed
    assert "4 tests in account 000000000000, region us-east-1 (http://127.0.0.1:" in printed
    assert re.search(r" cost about \d\.\d\d USD,\nby scripts/prices.toml.\n", printed)


def test_what_a_failed_test_leaves_is_deleted(second):
    """The engine compresses nothing, so that this test fails, as it should."""
    code, printed = left_by(lambda second: on_aws(second, "--yes", *TESTS, "-k", "is_compressed"), second)
    assert code == 1 and "1 failed" in printed, printed


def broken_off(second):
    """Send Ctrl-C to a run that has made a stack, and again while it cleans up; it waits for metrics, which no engine has."""
    command = [*PYTEST, "--yes", *TESTS, "-k", "metrics_in_the_log"]
    pipes, printed = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}, []
    with subprocess.Popen(command, cwd=ROOT, env=second.settings, text=True, start_new_session=True, **pipes) as run:
        eventually(lambda: aws(second, "dynamodb", "list-tables")["TableNames"], "a table of the run")
        run.send_signal(signal.SIGINT)
        for line in run.stdout:
            printed.append(line)
            if line.startswith("Deleting"):
                run.send_signal(signal.SIGINT)
    return run.returncode, "".join(printed)


def test_what_a_run_leaves_that_is_broken_off_is_deleted(second):
    code, printed = left_by(broken_off, second)
    assert code == pytest.ExitCode.INTERRUPTED and "KeyboardInterrupt" in printed, printed


def test_nothing_is_made_without_asking(second):
    before = held(second)
    code, printed = on_aws(second, *TESTS, "-k", "two_stacks_are_apart")
    assert (code, held(second)) == (1, before), printed
    assert "Nothing is made. To go on without a question, add YES=1, or --yes." in printed
    assert "1 tests in account" in printed and "passed" not in printed


@pytest.mark.parametrize("said, agrees", [("yes", True), (" yes ", True), ("y", False), ("", False), (None, False)])
def test_only_yes_is_yes(monkeypatch, said, agrees):
    def answer(_):
        if said is None:  # Ctrl-D
            raise EOFError
        return said

    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(builtins, "input", answer)
    assert account.agreed() == agrees


def test_no_more_is_made_than_was_said(monkeypatch):
    there = local.Engine(None, {})
    monkeypatch.setattr(conftest, "spent", dict(conftest.MOST))
    for what in conftest.MOST:
        with pytest.raises(AssertionError, match=f"at most .* {what}\\b"):
            conftest.spend(there, **{what: 1})


def test_the_document_says_what_is_the_most():
    told = (ROOT / "docs" / "testing.md").read_text().replace("\n", " ")
    most = conftest.MOST
    assert f"{most['stacks']} stacks, {most['requests']:,} requests, {most['bytes'] // 10**6} MB" in told
    assert f"{account.most_usd():.2f} USD" in told


def test_each_test_is_for_the_engine_or_says_why_not(request):
    """pytest runs this on the engine, where what only AWS can answer is not collected."""
    marks = [mark for item in request.session.items for mark in item.iter_markers() if mark.name in ("engine", "aws")]
    assert {mark.name for mark in marks} <= {"engine"}
    assert all(mark.args and mark.args[0] for mark in marks), "a mark says why"
