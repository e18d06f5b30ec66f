"""`pytest --on aws`: the end-to-end tests on an account of AWS, which is that of the usual settings of AWS's SDKs.

They are the tests of ON_AWS that use the whole stack, as they are on the local engine, and the requests of SYSTEMS.
Where one holds on one of the two only, a mark at it says so, and why:

    @pytest.mark.engine("the account is not ours alone")
    @pytest.mark.aws("the engine compresses nothing")

What they make has a name that begins with RUN, and is deleted at the end of the run, by
this name, whether the tests passed, failed or were broken off.
"""

import contextlib
import signal
import sys
import time
import tomllib
from collections import Counter

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

import embed
from conftest import MOST, RUN, spent
from manage import stop_in_order

ON_AWS = "test_access test_addons test_api test_aws test_races test_search test_stack test_upgrade".split()
SYSTEMS = "test_pets test_reviews test_posts".split()  # of these, what the same tests ask the handler too

AGREED = pytest.StashKey()


# --- Which tests


def pytest_addoption(parser):
    group = parser.getgroup("apidb")
    group.addoption("--on", choices=["engine", "aws"], default="engine", help="where stacks are deployed (engine)")
    group.addoption("--yes", action="store_true", help="with --on aws: do not ask whether to go on")


def pytest_configure(config):
    config.addinivalue_line("markers", "engine(why): holds on the local engine only")
    config.addinivalue_line("markers", "aws(why): what only AWS can answer")
    if is_on_aws(config):
        if getattr(config.option, "numprocesses", None):
            raise pytest.UsageError("--on aws is one process, which can ask and clean up: leave out -n.")
        stop_in_order()


def is_on_aws(config):
    return config.getoption("on") == "aws"


def pytest_collection_modifyitems(config, items):
    """Leave out what does not hold here."""
    chosen = [item for item in items if (is_for_aws(item) if is_on_aws(config) else is_for_engine(item))]
    if len(chosen) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen


def is_for_engine(item):
    return not item.get_closest_marker("aws")


def is_for_aws(item):
    if item.get_closest_marker("engine"):
        return False
    given = item.callspec.params if hasattr(item, "callspec") else {}
    if item.module.__name__ in SYSTEMS:
        return given.get("system") == "stack"
    return item.module.__name__ in ON_AWS and ("engine" in item.fixturenames or given.get("api") == "stack")


# --- Before it begins


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    """Say what a run on AWS will do and cost, and ask."""
    config = session.config
    if not is_on_aws(config) or config.option.collectonly or not session.items:
        return
    terminal, capture = (
        config.pluginmanager.getplugin("terminalreporter"),
        config.pluginmanager.getplugin("capturemanager"),
    )
    try:
        place = place_of(boto3.Session())
    except (BotoCoreError, ClientError) as error:
        pytest.exit(f"{str(error).rstrip('.')}. Set AWS_PROFILE, or AWS_DEFAULT_REGION and credentials.", returncode=1)
    terminal.write_line(plan(place, len(session.items)))
    with capture.global_and_fixture_disabled():
        if not (config.getoption("yes") or agreed()):
            pytest.exit("Nothing is made. To go on without a question, add YES=1, or --yes.", returncode=1)
    config.stash[AGREED] = True


def place_of(session):
    """Return where a session of boto3 deploys, in words."""
    asked = session.client("sts")
    account = asked.get_caller_identity()["Account"]
    at = asked.meta.endpoint_url
    return f"account {account}, region {session.region_name}" + (f" ({at})" if at.startswith("http://") else "")


def plan(place, tests):
    return f"""
{tests} tests in {place}.
They make up to {MOST["stacks"]} stacks, and IAM users who may call their APIs; each name begins with {RUN}-.
At the end all of them are deleted, also after a failure or Ctrl-C. DynamoDB keeps a backup of each table for
35 days, for nothing. AWS deletes one API in 30 seconds, so that this takes an hour or so.
{MOST["requests"]:,} requests with {MOST["bytes"] // 10**6} MB, the most that are sent, and the stacks cost about {most_usd():.2f} USD,
by scripts/prices.toml.
"""


def most_usd():
    """Return in USD what the most that a run sends and makes costs, as it is billed."""
    prices = tomllib.loads((embed.ROOT / "scripts" / "prices.toml").read_text())["price"]
    price = {name: each["usd"] / each["per"] for name, each in prices.items()}
    # A request: 512 MB for a quarter of a second, half a MB read; what is sent is written to a table and two
    # indexes, where a change may count twice. A stack: 40 metrics and four alarms, for two hours of 730.
    request = (
        price["api_request"] + price["lambda_request"] + 0.125 * price["lambda_gb_second"] + 64 * price["read_unit"]
    )
    written = (MOST["bytes"] / 1024 + MOST["requests"]) * 5 * price["write_unit"]
    stack = (40 * price["metric_month"] + 4 * price["alarm_month"]) * 2 / 730
    return MOST["requests"] * request + written + MOST["stacks"] * stack


def agreed():
    """Ask whether to go on; return the answer. Without a terminal it is no."""
    if not sys.stdin.isatty():
        return False
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        return input("Type yes to go on: ").strip() == "yes"
    return False


# --- What it makes, and that it goes


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    """Delete all that a run on AWS has made, when pytest is done with its own end, however that went."""
    if not session.config.stash.get(AGREED, False):
        return (yield)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # nothing may break this off
        signal.signal(number, signal.SIG_IGN)
    try:
        return (yield)
    finally:
        say = session.config.pluginmanager.getplugin("terminalreporter").write_line
        say(f"\nDeleting what begins with {RUN}-", flush=True)
        try:
            left = clean()
        except (BotoCoreError, ClientError) as error:
            left = [f"what begins with {RUN}- ({error})"]
        if left:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        made = f"{spent['stacks']} stacks were made, {spent['requests']:,} requests with {spent['bytes']:,} bytes sent."
        say(f"{made} " + (f"LEFT, please delete: {', '.join(left)}" if left else f"Nothing is left of {RUN}."))


def clean():
    """Delete all stacks and users of this run; return the names of those that would not go."""
    delete_users(boto3.client("iam"))
    return delete_stacks(boto3.client("cloudformation"))


def delete_stacks(client):
    """Delete the stacks of this run, each with three attempts, in two hours at most; return those that are left.

    CloudFormation also deletes what it is still creating.
    """
    end, failures = time.monotonic() + 2 * 3600, Counter()
    while time.monotonic() < end:
        stacks = [each for each in stacks_of_run(client) if failures[each["StackName"]] < 3]
        if not stacks:
            break
        # A store does not go before its add-ons, which import from it.
        for each in list(filter(is_addon, stacks)) or stacks:
            failures[each["StackName"]] += each["StackStatus"] == "DELETE_FAILED"
            if each["StackStatus"] != "DELETE_IN_PROGRESS":
                with contextlib.suppress(ClientError):  # an update, say, has to end before
                    client.delete_stack(StackName=each["StackName"])
        time.sleep(0.1 if client.meta.endpoint_url.startswith("http://") else 5)
    return [each["StackName"] for each in stacks_of_run(client)]


def stacks_of_run(client):
    stacks = [each for page in client.get_paginator("describe_stacks").paginate() for each in page["Stacks"]]
    return [each for each in stacks if each["StackName"].startswith(RUN) and each["StackStatus"] != "DELETE_COMPLETE"]


def is_addon(there):
    return "Store" in [given["ParameterKey"] for given in there.get("Parameters", [])]


def delete_users(client):
    users = [each["UserName"] for page in client.get_paginator("list_users").paginate() for each in page["Users"]]
    for name in users:
        if name.startswith(RUN):
            for key in client.list_access_keys(UserName=name)["AccessKeyMetadata"]:
                client.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
            for policy in client.list_user_policies(UserName=name)["PolicyNames"]:
                client.delete_user_policy(UserName=name, PolicyName=policy)
            client.delete_user(UserName=name)
