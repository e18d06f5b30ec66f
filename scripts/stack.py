"""Deploy a stack of one template with CloudFormation, look at it, or tear it down; show each resource on the way.

store.py has the command line, and what is about several stacks.
"""

import json
import re
import signal
import sys
import time
import uuid
from collections import deque
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

import links
from embed import MOST_BYTES, with_deployment


class StackError(Exception):
    """What went wrong with a stack, as a sentence for the person who runs the command."""


# --- Settings

TABLE, API, LOG = "AWS::DynamoDB::Table", "AWS::ApiGateway::RestApi", "AWS::Logs::LogGroup"

# How to find a resource in its own service: the client, the call, and what takes its physical ID.
# Others, such as methods and permissions, are parts of one of these, and go with it.
LOOKUPS = {
    TABLE: ("dynamodb", "describe_table", "TableName"),
    API: ("apigateway", "get_rest_api", "restApiId"),
    LOG: ("logs", "describe_log_streams", "logGroupName"),
    "AWS::ApiGateway::ApiKey": ("apigateway", "get_api_key", "apiKey"),
    "AWS::ApiGateway::UsagePlan": ("apigateway", "get_usage_plan", "usagePlanId"),
    "AWS::IAM::Role": ("iam", "get_role", "RoleName"),
    "AWS::Lambda::Function": ("lambda", "get_function", "FunctionName"),
    "AWS::SNS::Topic": ("sns", "get_topic_attributes", "TopicArn"),
    "AWS::CloudWatch::Alarm": ("cloudwatch", "describe_alarms", "AlarmNames"),
    "AWS::CloudWatch::Dashboard": ("cloudwatch", "get_dashboard", "DashboardName"),
}
NOT_THERE = ("NoSuchEntity", "NotFound", "NotFoundException", "ResourceNotFound", "ResourceNotFoundException")

# What to do about a stack that CloudFormation neither updates nor has a default way out for
# (CloudFormation User Guide, stack status codes; API reference, ContinueUpdateRollback and RollbackStack).
STUCK = {
    "CREATE_FAILED": "A creation failed, and what it made is still there. Delete that: make teardown STACK={name}",
    "ROLLBACK_FAILED": "A creation failed, and not all that it made could be deleted. Try that again:"
    " make teardown STACK={name}",
    "DELETE_FAILED": "It is deleted in part. Mend what stopped that, and go on: make teardown STACK={name}",
    "REVIEW_IN_PROGRESS": "It has only a change set, which nobody has executed. Delete it: make teardown STACK={name}",
    "UPDATE_FAILED": "An update failed and was not undone. Undo it:"
    " aws cloudformation rollback-stack --stack-name {name}",
    "UPDATE_ROLLBACK_FAILED": "An update failed, and could not be undone. Mend what stopped that, and go on:"
    " aws cloudformation continue-update-rollback --stack-name {name}",
}
UNDONE = {
    "ROLLBACK_COMPLETE": "What it had made is deleted again.",
    "UPDATE_ROLLBACK_COMPLETE": "All is as it was before.",
}

COUNTED_PAGES = 10  # of 1 MB, which cost 1,280 read units; a larger table is not counted
SHOWN_ERRORS = 5
FAILED = ("timeout", "error", "failure")  # the statuses of an invocation, but for success
# A filter pattern of CloudWatch Logs for the lines that tell of an error.
ERRORS = ['$.level = "ERROR"', '$.log_level = "ERROR"', *(f'$.record.status = "{status}"' for status in FAILED)]
ERRORS = f"{{ {' || '.join(f'({each})' for each in ERRORS)} }}"

# --- Asking CloudFormation


def describe(client, name):
    """Return what CloudFormation says of a stack, None if there is none of this name."""
    if not name:  # which stands for all stacks
        raise StackError("A stack has a name: give it as STACK=name.")
    try:
        return client.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise


def existing(client, name):
    """Return what CloudFormation says of a stack; StackError if there is none of this name."""
    stack = describe(client, name)
    if not stack or stack["StackStatus"] == "DELETE_COMPLETE":
        raise StackError(f"There is no stack {name} in {client.meta.region_name}.")
    return stack


def must_be_made_from(template, described, stack):
    """Return if a stack is one of this template, whose description this is; StackError if it is another's.

    The descriptions tell, up to their first comma.
    """
    ours, its = (text.partition(",")[0] for text in (described or "", stack.get("Description", "")))
    if ours != its and stack["StackStatus"] != "REVIEW_IN_PROGRESS":  # which has a change set only
        raise StackError(
            f"Stack {stack['StackName']} is of another template than {template}: its description is"
            f" {stack.get('Description', '')!r}. Nothing is changed; take another STACK."
        )


def place(client):
    """Return where stacks are changed, in words: a region of AWS, or a local engine."""
    where = client.meta.endpoint_url if is_local(client.meta.endpoint_url) else "on AWS"
    return f"in {client.meta.region_name} ({where})"


def outputs_of(stack):
    return {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}


def resources_of(client, stack_id):
    """Return the resources of a stack that have been made, as (type, logical ID, physical ID)."""
    pages = client.get_paginator("list_stack_resources").paginate(StackName=stack_id)
    return [
        (each["ResourceType"], each["LogicalResourceId"], each["PhysicalResourceId"])
        for page in pages
        for each in page["StackResourceSummaries"]
        if each.get("PhysicalResourceId") and each["ResourceStatus"] != "DELETE_COMPLETE"
    ]


def events(client, stack_id, seen):
    """Yield the events of a stack that are not in the set `seen`, oldest first, and add them to it."""
    fresh = []
    for page in client.get_paginator("describe_stack_events").paginate(StackName=stack_id):
        new = [event for event in page["StackEvents"] if event["EventId"] not in seen]
        fresh += new
        if len(new) < len(page["StackEvents"]):
            break
    seen.update(event["EventId"] for event in fresh)
    return reversed(fresh)


def is_local(endpoint):
    """Return whether this is the endpoint of a local engine: AWS has https only."""
    return endpoint.startswith("http://")


def pause(client):
    """Wait before asking again: a local engine takes no time, and AWS allows few calls a second."""
    time.sleep(0.1 if is_local(client.meta.endpoint_url) else 2)


def follow(client, stack_id, seen):
    """Print what happens to a stack until nothing more does; return how it ended.

    Returns the stack's status and the cause, in words, if something failed.
    """
    past, newest = [], None
    while True:
        status = describe(client, stack_id)["StackStatus"]
        for event in events(client, stack_id, seen):
            past.append(event)
            state = event["ResourceStatus"]
            if event.get("PhysicalResourceId") == stack_id:
                newest = state
            if not state.endswith("_IN_PROGRESS"):
                print(f"  {state:<16} {event['LogicalResourceId']}", flush=True)
        # The status may still be that of before for a moment, but not once an event has it too.
        if status == newest and not status.endswith("_IN_PROGRESS"):
            return status, cause_of(client, past)
        pause(client)


# --- What failed


def cause_of(client, past):
    """Return in words what failed first in these events, which are oldest first; "" if nothing did."""
    for event in past:
        reason = event.get("ResourceStatusReason", "")
        # What was under way when something failed is stopped, and has "failed" too.
        cancelled = re.fullmatch(r"Resource \w+ cancelled\.?", reason.strip())
        if event["ResourceStatus"].endswith("_FAILED") and not cancelled:
            found = "DescribeEvents" in reason and invalid(client, StackName=event["StackId"])
            return found or blame(event, reason)
    for event in past:  # an output that an add-on imports cannot change, which is no resource's failure
        if event["ResourceStatus"].endswith("ROLLBACK_IN_PROGRESS") and event.get("ResourceStatusReason"):
            return blame(event, event["ResourceStatusReason"])
    return ""


def invalid(client, **where):
    """Return in words what a validation before the deployment found first, "" if it found nothing."""
    for page in client.get_paginator("describe_events").paginate(**where):
        for event in page["OperationEvents"]:
            if event["EventType"] == "VALIDATION_ERROR":
                return blame(event, event["ValidationStatusReason"])
    return ""


def blame(event, reason):
    return f"{event['LogicalResourceId']} ({event['ResourceType']}): {plain(reason)}"


def plain(reason):
    """Return a reason without what is for AWS Support: tokens, codes and counts."""
    reason = re.sub(r" *\((RequestToken|Service|SDK Attempt Count): [^()]*\)", "", reason)
    reason = re.sub(r'^Resource handler returned message: "(.*)"$', r"\1", reason.strip(), flags=re.S)
    return links.printable(" ".join(reason.split())).rstrip(".: ") + "."


@contextmanager
def left_to_cloudformation(name):
    """Say on Ctrl-C in the block, which starts and follows an operation, how to look at it."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "\nCloudFormation goes on without being watched. See how far it is with:"
            f"\n  make status STACK={name}"
            f"\n  aws cloudformation describe-stack-events --stack-name {name}"
        ) from None


# --- Deploying


def text_of(template):
    """Return the text of a template; StackError if it is too large."""
    text = template.read_text()
    if len(text.encode()) > MOST_BYTES:
        raise StackError(f"{template} has more than the {MOST_BYTES:,} bytes that CloudFormation takes.")
    return text


def deploy(name, template, parameters, yes=False):
    """Create the stack, or update it to the template; return its outputs as a dict.

    `parameters` (name to value) are set; others keep what they had, or else
    have the template's default. An update that costs the links or the URL is
    asked about, unless `yes`. StackError if it does not succeed.
    """
    text = text_of(template)
    client = boto3.client("cloudformation")
    valid = client.validate_template(TemplateBody=text)
    declared = valid["Parameters"]
    defaults = {each["ParameterKey"]: each.get("DefaultValue") for each in declared}
    for unknown in parameters.keys() - defaults.keys():  # which the local engine would ignore
        raise StackError(f"{template} has no parameter {unknown}; it has {', '.join(sorted(defaults))}.")
    stack = describe(client, name)
    if stack:
        must_be_made_from(template, valid.get("Description"), stack)
    if stack and stack["StackStatus"] == "ROLLBACK_COMPLETE":
        print(f"What a failed creation left of stack {name} is deleted first.")
        delete(client, stack)
        stack = None
    had = {each["ParameterKey"]: each["ParameterValue"] for each in (stack or {}).get("Parameters", [])}
    kept = {key: value for key, value in had.items() if key in defaults and key not in parameters}
    values = kept | parameters
    settings = {key: value for key, value in values.items() if value != defaults[key]}
    request = {
        "StackName": name,
        "TemplateBody": with_deployment(text, settings),
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
        "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        + [{"ParameterKey": key, "UsePreviousValue": True} for key in kept],
    }
    if stack:
        update(client, stack, request, yes)
    else:
        with left_to_cloudformation(name):
            stack_id = client.create_stack(**request)["StackId"]
            print(f"Creating stack {name} {place(client)}", flush=True)
            status, cause = follow(client, stack_id, set())
        check(name, status, cause)
    return outputs_of(describe(client, name))


def check(name, status, cause):
    """Return if this is the status of a stack that is deployed; StackError says what failed, and what to do."""
    if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        advice = UNDONE.get(status) or STUCK.get(status, "").format(name=name)
        raise StackError(f"Stack {name} is in status {status}. {advice}\nWhat failed first is {cause}")


def free(name, stack):
    """Return if a stack can be updated; StackError says what must be done before."""
    status, reason = stack["StackStatus"], stack.get("StackStatusReason")
    if status in STUCK:
        because = f" {plain(reason)}" if reason else ""
        raise StackError(f"Stack {name} is in status {status}.{because} {STUCK[status].format(name=name)}")
    if status.endswith("_IN_PROGRESS"):
        raise StackError(
            f"Stack {name} is being changed, and in status {status}. Wait for the end of that: make status STACK={name}"
        )


def update(client, stack, request, yes):
    """Update a stack by a change set, which is shown, and asked about if it is dear.

    StackError if it does not succeed, or is refused. The change set is gone in each case.
    """
    name, stack_id, seen = stack["StackName"], stack["StackId"], set()
    free(name, stack)
    list(events(client, stack_id, seen))  # those of before
    change_set = {"StackName": name, "ChangeSetName": f"deploy-{uuid.uuid4().hex}"}
    try:
        client.create_change_set(**request | change_set, ChangeSetType="UPDATE")
        status, reason, changes = review(client, change_set)
        if status == "FAILED" and changes_nothing(reason):
            if not updates_without_change_set(client, request):
                print(f"Stack {name} is up to date")
                return
        elif status == "FAILED":
            found = "DescribeEvents" in reason and invalid(client, **change_set)
            raise StackError(f"Nothing is changed, as CloudFormation refuses it: {found or plain(reason)}")
        else:
            if is_local(client.meta.endpoint_url):  # lists resources too whose Condition does not hold
                had = {logical for _, logical, _ in resources_of(client, stack_id)}
                changes = [each for each in changes if each["Action"] == "Add" or each["LogicalResourceId"] in had]
            show_changes(name, changes)
            confirm(name, changes, yes)
            with left_to_cloudformation(name):
                client.execute_change_set(**change_set)
        with left_to_cloudformation(name):
            print(f"Updating stack {name} {place(client)}", flush=True)
            status, cause = follow(client, stack_id, seen)
    finally:
        discard(client, change_set)
    check(name, status, cause)


# --- Change sets


def review(client, change_set):
    """Wait until a change set is made; return its status, the reason of that, and its changes."""
    while True:
        pages = list(client.get_paginator("describe_change_set").paginate(**change_set))
        if pages[0]["Status"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
            changes = [each["ResourceChange"] for page in pages for each in page["Changes"]]
            return pages[0]["Status"], pages[0].get("StatusReason", ""), changes
        pause(client)


def changes_nothing(reason):
    # CloudFormation says it in two ways (ansible-collections/amazon.aws, pull request 507).
    return "didn't contain changes" in reason or "No updates are to be performed" in reason


def updates_without_change_set(client, request):
    """Start an update of what the local engine's change sets do not see; return whether there was any.

    On AWS a change set that changes outputs only can be executed, and has no
    changes in it (aws/aws-cdk, pull request 2029). The local engine calls it empty.
    """
    if not is_local(client.meta.endpoint_url):
        return False
    try:
        client.update_stack(**request)
    except ClientError as error:
        if changes_nothing(str(error)):
            return False
        raise
    return True


def verb(change):
    """Return what a change does, in words.

    The local engine says "may be replaced" (Conditional) of each change to a
    type whose properties it does not know, such as a stage or a log group.
    """
    if change["Action"] != "Modify":
        return {"Add": "added", "Remove": "removed"}.get(change["Action"], "may be changed")
    return {"True": "REPLACED", "Conditional": "may be replaced"}.get(change.get("Replacement"), "changed")


def show_changes(name, changes):
    """Print a line for each change."""
    print(f"Changes of stack {name}:")
    for change in changes:
        print(f"  {verb(change):<16} {change['LogicalResourceId']} ({change['ResourceType']})")
    if not changes:
        print("  no resource, only outputs and the like")


def losses(changes):
    """Yield a sentence for each change that costs the URL or the links."""
    for change in changes:
        done, kind, what = verb(change), change["ResourceType"], change["LogicalResourceId"]
        # No property of an API replaces it "conditionally" (Template Reference, AWS::ApiGateway::RestApi).
        if kind == API and done in ("REPLACED", "removed"):
            yield f"{what} is {done.lower()}: the URL of now then leads nowhere."
        if kind == TABLE and done in ("REPLACED", "removed", "may be replaced"):
            done = done if done.startswith("may") else f"is {done.lower()}"
            policy = change.get("PolicyAction", "").removeprefix("ReplaceAnd")
            fate = {"Retain": "stay there", "Delete": "are deleted with it"}.get(policy, "may be deleted with it")
            old = change["PhysicalResourceId"]
            yield f"{what} {done}: the API then has none of the links in {old}; they {fate}."


def confirm(name, changes, yes):
    """Return if nothing dear is lost, or the person wants it so; StackError if not."""
    lost = list(losses(changes))
    if not lost:
        return
    print("\n".join(lost), flush=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise StackError("Nothing is changed. To have it so, add YES=1 to the same command.")
    with suppress(EOFError, KeyboardInterrupt):
        if input("Type the stack's name to go on: ").strip() == name:
            return
    raise StackError("\nNothing is changed.")


def discard(client, change_set):
    """Delete a change set, if it is there. One that is being executed ends with the update."""
    with suppress(client.exceptions.ChangeSetNotFoundException, client.exceptions.InvalidChangeSetStatusException):
        review(client, change_set)  # it cannot be deleted while it is being made
        client.delete_change_set(**change_set)


# --- Tearing down


def teardown(name, template, export=True, first=()):
    """Delete the stack, wait until it is gone, and list what is left; export its links before, if so.

    The stacks `first`, which use it, are deleted before it. StackError if one
    does not go, or must not, or the links cannot be exported.
    """
    client = boto3.client("cloudformation")
    stack = existing(client, name)
    described = client.validate_template(TemplateBody=template.read_text()).get("Description")
    must_be_made_from(template, described, stack)
    name = stack["StackName"]  # it may have been an ARN
    for each in (*first, stack):
        if each["StackStatus"] != "REVIEW_IN_PROGRESS" and each["StackStatus"].endswith("_IN_PROGRESS"):
            free(each["StackName"], each)
    had = resources_of(client, stack["StackId"])
    tables = tables_of(had)
    # The local engine has the text of the parameter where AWS has a boolean.
    yes = (True, "true")
    protected = [what for what, table in tables.items() if table.get("DeletionProtectionEnabled") in yes]
    if protected:
        # CloudFormation would delete all else, and then fail.
        raise StackError(
            f"{', '.join(protected)} of stack {name} is protected from deletion. To delete it all the same:"
            f'\n  make deploy STACK={name} PARAMETERS="DeletionProtection=false" && make teardown STACK={name}'
        )
    if export:
        for table in tables.values():
            save(name, table["TableName"])
    for each in (*first, stack):
        remove(client, each)
    if tables:
        # DynamoDB Developer Guide, "Delete a table with PITR enabled".
        backups = " and ".join(f"{table['TableName']}$DeletedTableBackup" for table in tables.values())
        print(
            f"On AWS, DynamoDB keeps a backup for 35 days at no charge, {backups},"
            " if the table had point-in-time recovery on."
        )


def remove(client, stack):
    """Delete a stack, wait until it is gone, and list what is left. StackError if it does not go."""
    name, had = stack["StackName"], resources_of(client, stack["StackId"])
    with left_to_cloudformation(name):
        try:
            delete(client, stack)
        except StackError:
            show_left(name, left_of(client, stack["StackId"], had))
            raise
        show_left(name, left_of(client, stack["StackId"], had))


def tables_of(resources):
    """Return what DynamoDB says of the tables among resources that are there, by logical ID."""
    dynamodb, tables = boto3.client("dynamodb"), {}
    for kind, logical, physical in resources:
        if kind == TABLE:
            with suppress(dynamodb.exceptions.ResourceNotFoundException):
                tables[logical] = dynamodb.describe_table(TableName=physical)["Table"]
    return tables


def save(name, table):
    """Export a table into a new file of the current folder; StackError if that fails."""
    path = Path(f"links-{name}-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}.jsonl")
    try:
        if path.exists():
            raise links.Stop(f"{path} is there already.")
        count = links.export_table(table, path)
    except (links.Stop, OSError, ClientError, BotoCoreError) as error:
        raise StackError(
            f"The links could not be exported, so nothing is deleted: {error}"
            f"\nTo delete them without an export: make teardown STACK={name} EXPORT=no"
        ) from None
    if count:
        print(f"{path} has the links, {count:,}; they come back by: make import FILE={path} API=URL", flush=True)
    else:
        path.unlink(missing_ok=True)
        print("There are no links to export.", flush=True)


def delete(client, stack):
    """Delete a stack, and wait until it is gone. StackError if it does not go."""
    name, seen = stack["StackName"], set()
    list(events(client, stack["StackId"], seen))  # those of before
    with left_to_cloudformation(name):
        print(f"Deleting stack {name} {place(client)}", flush=True)
        client.delete_stack(StackName=stack["StackId"])
        status, cause = follow(client, stack["StackId"], seen)
    if status != "DELETE_COMPLETE":
        raise StackError(
            f"Stack {name} is in status {status}. What failed first is {cause}"
            f"\nMend that and run `make teardown STACK={name}` again, or delete the stack without what fails:"
            f"\n  aws cloudformation delete-stack --stack-name {name} --deletion-mode FORCE_DELETE_STACK"
        )


def left_of(client, stack_id, had):
    """Return what is left of a stack that had these resources before, as (type, physical ID), sorted.

    That includes what CloudFormation has skipped or failed to delete in the
    stack's life, and log groups that Lambda and API Gateway make by themselves.
    """
    ended = {}
    for event in events(client, stack_id, set()):
        ended[event["ResourceType"], event.get("PhysicalResourceId")] = event["ResourceStatus"]
    still = ("DELETE_SKIPPED", "DELETE_FAILED")
    kept = {what for what, state in ended.items() if state in still and what[1] != stack_id}
    stages = [physical for kind, _, physical in had if kind == "AWS::ApiGateway::Stage"]
    asked = {(kind, physical) for kind, _, physical in had} | kept
    for kind, _, physical in had:
        if kind == "AWS::Lambda::Function":
            asked.add((LOG, f"/aws/lambda/{physical}"))
        if kind == API:
            asked |= {(LOG, f"API-Gateway-Execution-Logs_{physical}/{stage}") for stage in stages}
    left = sorted(asked)
    for attempt in range(3):  # a service may know for a moment what it has deleted
        if attempt and left:
            pause(client)
        left = [what for what in left if (is_there(*what) if what[0] in LOOKUPS else what in kept)]
    return left


def is_there(kind, physical):
    """Return whether a service has this resource."""
    service, call, argument = LOOKUPS[kind]
    one = argument != "AlarmNames"  # by which several are asked for, and those listed that are there
    try:
        answer = getattr(boto3.client(service), call)(**{argument: physical if one else [physical]})
    except ClientError as error:
        if error.response["Error"]["Code"] in NOT_THERE:
            return False
        raise
    return one or bool(answer["MetricAlarms"])


def show_left(name, left):
    """Print what is left of a stack."""
    if not left:
        print(f"Nothing is left of stack {name}.")
        return
    print(f"Left of stack {name}:")
    for kind, physical in left:
        print(f"  {kind:<24} {physical}")


# --- Looking


def show_status(name, addons=()):
    """Print how a stack is: its state, its add-ons, its URLs, how many links it has, and its last errors."""
    client = boto3.client("cloudformation")
    stack = existing(client, name)
    outputs, had = outputs_of(stack), resources_of(client, stack["StackId"])
    rows = {"Stack": f"{name}, in {client.meta.region_name}", "Status": stack["StackStatus"]}
    past = last_operation(client, stack["StackId"])
    if past:
        began, newest = past[0], past[-1]
        operation = began["ResourceStatus"].removesuffix("_IN_PROGRESS").lower()
        rows["Last did"] = f"{operation}, at {when(began['Timestamp'])}"
        reached = f"{newest['ResourceStatus']} of {newest['LogicalResourceId']}"
        rows["Until"] = f"{reached}, at {when(newest['Timestamp'])}"
        rows["What failed"] = cause_of(client, past)
    if "APIUrl" in outputs:
        rows["API"] = reachable(outputs["APIUrl"], client.meta.endpoint_url)
    rows["Version"], rows["Access"] = outputs.get("Version"), outputs.get("Access")
    for table in tables_of(had).values():
        rows["Links"] = count_of(table)
    lines = [(label, value) for label, value in rows.items() if value]
    lines += [("Add-on", f"{each['StackName']}, {each['StackStatus']}") for each in addons]
    pages = [outputs_of(each).get("PageUrl") for each in (stack, *addons)]
    lines += [("Page", reachable(page, client.meta.endpoint_url)) for page in pages if page]
    for label, value in lines:
        print(f"{label:<12} {value}")
    for group in log_groups(had):
        show_errors(group)


def last_operation(client, stack_id):
    """Return the events of the last thing that CloudFormation did to a stack, oldest first."""
    past = list(events(client, stack_id, set()))
    begins = r"(CREATE|UPDATE|DELETE|IMPORT|REVIEW)_IN_PROGRESS"
    starts = [
        number
        for number, event in enumerate(past)
        if event.get("PhysicalResourceId") == stack_id and re.fullmatch(begins, event["ResourceStatus"])
    ]
    return past[starts[-1] :] if starts else past


def when(moment):
    return f"{moment.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def count_of(table):
    """Return in words how many links a table has: counted if it is small, else as DynamoDB last did."""
    dynamodb, count, request = boto3.client("dynamodb"), 0, {}
    for _ in range(COUNTED_PAGES):
        page = dynamodb.scan(
            TableName=table["TableName"],
            Select="COUNT",
            # DynamoDB deletes what has expired, but days later.
            FilterExpression="attribute_not_exists(expires_at) OR expires_at > :now",
            ExpressionAttributeValues={":now": {"N": str(int(time.time()))}},
            **request,
        )
        count += page["Count"]
        if "LastEvaluatedKey" not in page:
            return f"{count:,}"
        request = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
    # TableDescription: ItemCount is updated approximately every six hours.
    return f"about {max(count, table['ItemCount']):,}, as DynamoDB counted up to six hours ago"


def log_groups(resources):
    return [physical for kind, _, physical in resources if kind == LOG]


def log_events(group, since, **more):
    """Yield the events of a log group since a time in ms, oldest first; none if there is no such group."""
    logs = boto3.client("logs")
    with suppress(logs.exceptions.ResourceNotFoundException):
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=since, **more):
            yield from page["events"]


def milliseconds(ago):
    return int((datetime.now(timezone.utc) - ago).timestamp() * 1000)


def show_errors(group):
    """Print the newest errors that the function, its runtime and Lambda have logged in the last 24 hours."""
    newest = deque(maxlen=SHOWN_ERRORS)
    told = set()  # the requests and types of the runtime's errors, of which Lambda reports again
    for event in log_events(group, milliseconds(timedelta(hours=24)), filterPattern=ERRORS):
        line = {}
        with suppress(ValueError):
            line = json.loads(event["message"])
        error = error_of(line) if isinstance(line, dict) else None
        if error and not (line.get("type") and told & set(error[:2])):
            newest.append((event["timestamp"], error))
            told |= {line.get("requestId"), line.get("errorType")} - {None, ""}
    if not newest:
        print(f"{'Errors':<12} none in the last 24 hours")
        return
    print("\nThe newest errors of the last 24 hours:\n")
    for timestamp, (request, kind, text) in newest:
        at = when(datetime.fromtimestamp(timestamp / 1000, timezone.utc))
        what = ": ".join(filter(None, [kind, text.strip().split("\n")[-1]]))
        print(links.printable(f"  {at}  {request}  {what}"))


def error_of(line):
    """Return the request, the type and the text of the error that a line of the log tells of; None if of none.

    The handler has written it (level; the traceback names the type), or the
    runtime when the handler could not be imported or failed (log_level, and in
    its next version level), or Lambda when the function ended or took too long
    (a report).
    """
    report = line.get("record")
    if line.get("type") == "platform.report" and isinstance(report, dict) and report.get("status") in FAILED:
        took = report.get("metrics", {}).get("durationMs")
        return report.get("requestId", ""), report.get("errorType", ""), f"{report['status']} after {took} ms"
    if "ERROR" not in (line.get("level"), line.get("log_level")):
        return None
    if "errorMessage" in line:
        return line.get("requestId", ""), line.get("errorType", ""), str(line["errorMessage"])
    request = [str(line[key]) for key in ("status", "method", "resource", "request_id") if key in line]
    return " ".join(request), "", str(line.get("error") or line.get("message") or "")


def brief(message):
    """Return an event of the log on one line, without what it says to CloudWatch's metrics."""
    with suppress(ValueError, AttributeError):
        message = json.dumps({key: value for key, value in json.loads(message).items() if key != "_aws"})
    return " ".join(message.split())


def follow_logs(name):
    """Print the lines that the function has logged in the last ten minutes, and each new one, until Ctrl-C.

    Version 1 of the AWS CLI, which is on PyPI, has no `aws logs tail`.
    """
    client = boto3.client("cloudformation")
    groups = log_groups(resources_of(client, existing(client, name)["StackId"]))
    if not groups:
        raise StackError(f"Stack {name} has no log group: make deploy STACK={name} makes one.")
    since, seen = milliseconds(timedelta(minutes=10)), set()
    print(f"The log {groups[0]}; Ctrl-C ends it.", flush=True)
    while True:
        for event in log_events(groups[0], since):
            timestamp = event["timestamp"]
            line = event["logStreamName"], timestamp, event["message"]  # the local engine has no eventId
            if line not in seen:
                seen.add(line)
                at = when(datetime.fromtimestamp(timestamp / 1000, timezone.utc))
                print(f"{at}  {links.printable(brief(event['message']))}", flush=True)
        # What comes late is not lost: a minute is read again.
        since = max([since, *(timestamp - 60_000 for _, timestamp, _ in seen)])
        seen = {line for line in seen if line[1] >= since}
        pause(client)


# --- Printing


def reachable(url, endpoint):
    """Return where an API answers, from its URL on AWS as an output has it, given CloudFormation's endpoint."""
    if not is_local(endpoint):
        return url
    aws = urlsplit(url)
    api_id = aws.netloc.split(".")[0]
    return f"http://{api_id}.execute-api.localhost:{urlsplit(endpoint).port}{aws.path}"


def show(outputs):
    """Print the URLs of the API and of its page, if it has one, and commands to try, with what its Access asks for."""
    if "APIUrl" not in outputs:  # it is the template of something else
        return
    session = boto3.client("cloudformation").meta
    url = reachable(outputs["APIUrl"], session.endpoint_url)
    print(f"\nThe API is at {url}")
    if "PageUrl" in outputs:
        print(f"Its page is at {reachable(outputs['PageUrl'], session.endpoint_url)}")
    print()
    access, before, write, read = outputs.get("Access", "open"), [], "", ""
    if "ApiKeyId" in outputs:
        command = key_command(outputs["ApiKeyId"], session)
        print(f"Its key, which is a secret, is printed by:\n\n  {command}\n")
        before = [f"export APIDB_KEY=$({command})"]
        write = ' -H "x-api-key: $APIDB_KEY"'
        read = "" if access.startswith("read") else write
    elif access.startswith("iam"):
        write = read = signature(session)
    lines = [
        *before,
        f"""curl -X POST{write} -d '{{"link": "https://www.google.com"}}' {url}""",
        f"curl{read} {url}",
    ]
    print("Store a link, and list the links:\n\n" + "".join(f"  {line}\n" for line in lines), flush=True)


def key_command(key, session):
    """Return the command that prints an API key, for whom the account lets read it."""
    if not is_local(session.endpoint_url):
        return f"aws apigateway get-api-key --api-key {key} --include-value --query value --output text"
    settings = f"AWS_ENDPOINT_URL={session.endpoint_url} AWS_DEFAULT_REGION={session.region_name}"
    settings += " AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test"
    # Who has only run the stack has no AWS CLI.
    code = f"import boto3; print(boto3.client('apigateway').get_api_key(apiKey='{key}', includeValue=True)['value'])"
    return f'{settings} .venv/bin/python -c "{code}"'


def signature(session):
    """Return the options by which curl signs a request with AWS credentials."""
    sign = f' --aws-sigv4 "aws:amz:{session.region_name}:execute-api"'
    if is_local(session.endpoint_url):
        return sign + ' --user "test:test"'
    # curl leaves out a header that has no value.
    token = '-H "x-amz-security-token: $AWS_SESSION_TOKEN"'
    return f'{sign} --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" {token}'


# --- Command line


def stop_in_order():
    """Make Ctrl-C, and the like, a KeyboardInterrupt, once: a second one must not cut off what the first began."""
    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(*_):
        for number in stops:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in stops:
        signal.signal(number, stop)


def pairs(arguments):
    """Return a dict of arguments that are NAME=VALUE each; StackError for another."""
    for argument in arguments:
        if "=" not in argument:
            raise StackError(f"A template parameter is set by NAME=VALUE, not by {argument}.")
    return dict(argument.split("=", 1) for argument in arguments)
