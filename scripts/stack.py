"""Ask CloudFormation about a stack, follow what it does to one, and say what failed."""

import re
import sys
import time
from contextlib import contextmanager, suppress
from datetime import timezone
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

import embed
from program import printable


class StackError(Exception):
    """What went wrong with a stack, as a sentence for the person who runs the command."""


# --- Settings

TABLE, BUCKET, QUEUE = "AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SQS::Queue"
API, FUNCTION, LOG = "AWS::ApiGateway::RestApi", "AWS::Lambda::Function", "AWS::Logs::LogGroup"

STORE = "apidb"  # what the template of the link store is known by, and the name of its stack
SEARCH = f"{STORE}-search"  # what its add-on search is known by
STORE_TEMPLATE = (embed.ROOT / "setupapidb.yml").resolve()

# What to do about a stack that CloudFormation neither updates nor has a default way out for
# (CloudFormation User Guide, stack status codes; API reference, ContinueUpdateRollback and RollbackStack).
STUCK = {
    "CREATE_FAILED": "A creation failed, and what it made is still there. Delete that: make teardown {which}",
    "ROLLBACK_FAILED": "A creation failed, and not all that it made could be deleted. Try that again:"
    " make teardown {which}",
    "DELETE_FAILED": "It is deleted in part. Mend what stopped that, and go on: make teardown {which}",
    "REVIEW_IN_PROGRESS": "It has only a change set, which nobody has executed. Delete it: make teardown {which}",
    "UPDATE_FAILED": "An update failed and was not undone. Undo it:"
    " aws cloudformation rollback-stack --stack-name {name}",
    "UPDATE_ROLLBACK_FAILED": "An update failed, and could not be undone. Mend what stopped that, and go on:"
    " aws cloudformation continue-update-rollback --stack-name {name}",
}

# --- Names


def name_for(template):
    """Return the name of the stack of the template at a path, if none is given: the file's, but of the store apidb."""
    return STORE if template.name == STORE_TEMPLATE.name else template.stem


def known_by(described):
    """Return what a template is known by, in each stack of it: its description up to the first comma."""
    return (described or "").partition(",")[0]


def is_store(described):
    return known_by(described) == STORE


def is_search(described):
    """Return whether this describes the add-on search, which has an index of a store."""
    return known_by(described) == SEARCH


def which(name, template):
    """Return how `make` is told a stack of a template, such as STACK=apidb or TEMPLATE=stacks/pets.yml."""
    # The template of an add-on is found by the stack.
    if template.resolve() == STORE_TEMPLATE or template.parent.name == "addons":
        return f"STACK={name}"
    return f"TEMPLATE={template}" + (f" STACK={name}" if name != name_for(template) else "")


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
    """Return if a stack is one of this template, whose description this is; StackError if it is another's."""
    made = stack["StackStatus"] != "REVIEW_IN_PROGRESS"  # which has a change set only
    if made and known_by(described) != known_by(stack.get("Description")):
        raise StackError(
            f"Stack {stack['StackName']} is of another template than {template}: its description is"
            f" {stack.get('Description', '')!r}. Nothing is changed; take another STACK, or its TEMPLATE."
        )


def free(stack, template):
    """Return if a stack can be updated; StackError says what must be done before."""
    name, status, reason = stack["StackName"], stack["StackStatus"], stack.get("StackStatusReason")
    if status in STUCK:
        because = f" {plain(reason)}" if reason else ""
        advice = STUCK[status].format(name=name, which=which(name, template))
        raise StackError(f"Stack {name} is in status {status}.{because} {advice}")
    if status.endswith("_IN_PROGRESS"):
        raise StackError(
            f"Stack {name} is being changed, and in status {status}. Wait for the end of that: make status STACK={name}"
        )


def place(client):
    """Return where stacks are changed, in words: a region of AWS, or a local engine."""
    where = client.meta.endpoint_url if is_local(client.meta.endpoint_url) else "on AWS"
    return f"in {client.meta.region_name} ({where})"


def outputs_of(stack):
    return {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}


def store_of(stack):
    """Return the store that the stack of an add-on is for, by its parameter; None if it says none."""
    given = {each["ParameterKey"]: each.get("ParameterValue") for each in stack.get("Parameters", [])}
    return given.get("Store")


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


def is_local(endpoint):
    """Return whether this is the endpoint of a local engine: AWS has https only."""
    return endpoint.startswith("http://")


def reachable(url, endpoint):
    """Return where an API answers, from its URL on AWS as an output has it, given CloudFormation's endpoint."""
    if not is_local(endpoint):
        return url
    aws = urlsplit(url)
    api_id = aws.netloc.split(".")[0]
    return f"http://{api_id}.execute-api.localhost:{urlsplit(endpoint).port}{aws.path}"


def agreed(name, lost, yes, nothing):
    """Print what will be lost, sentences; return if the person agrees to it, StackError if not.

    `yes` is that it was said in advance, `nothing` what is said if not, as a sentence.
    """
    print("\n".join(lost), flush=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise StackError(f"{nothing} To have it so, add YES=1 to the same command.")
    with suppress(EOFError, KeyboardInterrupt):
        if input("Type the stack's name to go on: ").strip() == name:
            return
    raise StackError(f"\n{nothing}")


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
    return printable(" ".join(reason.split())).rstrip(".: ") + "."


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
