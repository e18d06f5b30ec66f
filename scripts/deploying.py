"""Create a stack of a template, or update it by a change set, which is shown before it is done."""

import uuid
from contextlib import suppress

import boto3
from botocore.exceptions import ClientError

import contents
import deleting
import stack
from embed import MOST_BYTES, with_deployment
from stack import StackError

UNDONE = {
    "ROLLBACK_COMPLETE": "What it had made is deleted again.",
    "UPDATE_ROLLBACK_COMPLETE": "All is as it was before.",
}

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
    have the template's default. An update that costs what the stack holds, or the
    URL, is asked about, unless `yes`. StackError if it does not succeed.
    """
    text = text_of(template)
    client = boto3.client("cloudformation")
    valid = client.validate_template(TemplateBody=text)
    declared = valid["Parameters"]
    defaults = {each["ParameterKey"]: each.get("DefaultValue") for each in declared}
    for unknown in parameters.keys() - defaults.keys():  # which the local engine would ignore
        raise StackError(f"{template} has no parameter {unknown}; it has {', '.join(sorted(defaults))}.")
    there = stack.describe(client, name)
    if there:
        stack.must_be_made_from(template, valid.get("Description"), there)
    if there and there["StackStatus"] == "ROLLBACK_COMPLETE":
        print(f"What a failed creation left of stack {name} is deleted first.")
        deleting.delete(client, there, template)
        there = None
    had = {each["ParameterKey"]: each["ParameterValue"] for each in (there or {}).get("Parameters", [])}
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
    if there:
        update(client, there, template, request, yes)
    else:
        with stack.left_to_cloudformation(name):
            stack_id = client.create_stack(**request)["StackId"]
            print(f"Creating stack {name} {stack.place(client)}", flush=True)
            status, cause = stack.follow(client, stack_id, set())
        check(name, template, status, cause)
    return stack.outputs_of(stack.describe(client, name))


def check(name, template, status, cause):
    """Return if this is the status of a stack that is deployed; StackError says what failed, and what to do."""
    if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        stuck = stack.STUCK.get(status, "").format(name=name, which=stack.which(name, template))
        advice = UNDONE.get(status) or stuck
        raise StackError(f"Stack {name} is in status {status}. {advice}\nWhat failed first is {cause}")


def update(client, there, template, request, yes):
    """Update a stack by a change set, which is shown, and asked about if it is dear.

    StackError if it does not succeed, or is refused. The change set is gone in each case.
    """
    name, stack_id, seen = there["StackName"], there["StackId"], set()
    stack.free(there, template)
    list(stack.events(client, stack_id, seen))  # those of before
    change_set = {"StackName": name, "ChangeSetName": f"deploy-{uuid.uuid4().hex}"}
    try:
        client.create_change_set(**request | change_set, ChangeSetType="UPDATE")
        status, reason, changes = review(client, change_set)
        if status == "FAILED" and changes_nothing(reason):
            if not updates_without_change_set(client, request):
                print(f"Stack {name} is up to date")
                return
        elif status == "FAILED":
            found = "DescribeEvents" in reason and stack.invalid(client, **change_set)
            raise StackError(f"Nothing is changed, as CloudFormation refuses it: {found or stack.plain(reason)}")
        else:
            if stack.is_local(client.meta.endpoint_url):  # lists resources too whose Condition does not hold
                had = {logical for _, logical, _ in stack.resources_of(client, stack_id)}
                changes = [each for each in changes if each["Action"] == "Add" or each["LogicalResourceId"] in had]
            show_changes(name, changes)
            confirm(there, changes, yes)
            with stack.left_to_cloudformation(name):
                client.execute_change_set(**change_set)
        with stack.left_to_cloudformation(name):
            print(f"Updating stack {name} {stack.place(client)}", flush=True)
            status, cause = stack.follow(client, stack_id, seen)
    finally:
        discard(client, change_set)
    check(name, template, status, cause)


# --- Change sets


def review(client, change_set):
    """Wait until a change set is made; return its status, the reason of that, and its changes."""
    while True:
        pages = list(client.get_paginator("describe_change_set").paginate(**change_set))
        if pages[0]["Status"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
            changes = [each["ResourceChange"] for page in pages for each in page["Changes"]]
            return pages[0]["Status"], pages[0].get("StatusReason", ""), changes
        stack.pause(client)


def changes_nothing(reason):
    # CloudFormation says it in two ways (ansible-collections/amazon.aws, pull request 507).
    return "didn't contain changes" in reason or "No updates are to be performed" in reason


def updates_without_change_set(client, request):
    """Start an update of what the local engine's change sets do not see; return whether there was any.

    On AWS a change set that changes outputs only can be executed, and has no
    changes in it (aws/aws-cdk, pull request 2029). The local engine calls it empty.
    """
    if not stack.is_local(client.meta.endpoint_url):
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


def losses(there, changes):
    """Yield a sentence for each change of a stack that costs the URL, or what it holds."""
    held = {stack.TABLE: contents.noun(there), stack.BUCKET: "objects"}
    for change in changes:
        done, kind, what = verb(change), change["ResourceType"], change["LogicalResourceId"]
        # No property of an API or a bucket replaces it "conditionally" (Template Reference, AWS::ApiGateway::RestApi
        # and AWS::S3::Bucket), but the local engine says so.
        if kind == stack.API and done in ("REPLACED", "removed"):
            yield f"{what} is {done.lower()}: the URL of now then leads nowhere."
        may = done == "may be replaced" and kind == stack.TABLE
        if kind in held and (may or done in ("REPLACED", "removed")):
            done = done if done.startswith("may") else f"is {done.lower()}"
            policy = change.get("PolicyAction", "").removeprefix("ReplaceAnd")
            fate = {"Retain": "stay there", "Delete": "are deleted with it"}.get(policy, "may be deleted with it")
            old = change["PhysicalResourceId"]
            yield f"{what} {done}: the API then has none of the {held[kind]} in {old}; they {fate}."


def confirm(there, changes, yes):
    """Return if nothing dear is lost, or the person wants it so; StackError if not."""
    lost = list(losses(there, changes))
    if lost:
        stack.agreed(there["StackName"], lost, yes, "Nothing is changed.")


def discard(client, change_set):
    """Delete a change set, if it is there. One that is being executed ends with the update."""
    with suppress(client.exceptions.ChangeSetNotFoundException, client.exceptions.InvalidChangeSetStatusException):
        review(client, change_set)  # it cannot be deleted while it is being made
        client.delete_change_set(**change_set)
