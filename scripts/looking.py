"""Show how a stack is: what CloudFormation did last, where it answers, what it holds, and its newest errors."""

import json

import boto3
from botocore.exceptions import ClientError

import contents
import logs
import stack

MADE = {"question": "made", "cursor": None}  # what the add-on search is asked (handler/search.py)


def show_status(name, addons=()):
    """Print how a stack is: its state, its add-ons, its URLs, what it holds, and its last errors."""
    client = boto3.client("cloudformation")
    there = stack.existing(client, name)
    outputs, had = stack.outputs_of(there), stack.resources_of(client, there["StackId"])
    lines = [("Stack", f"{name}, in {client.meta.region_name}"), ("Status", there["StackStatus"])]
    past = stack.last_operation(client, there["StackId"])
    if past:
        began, newest = past[0], past[-1]
        operation = began["ResourceStatus"].removesuffix("_IN_PROGRESS").lower()
        lines.append(("Last did", f"{operation}, at {stack.when(began['Timestamp'])}"))
        reached = f"{newest['ResourceStatus']} of {newest['LogicalResourceId']}"
        lines.append(("Until", f"{reached}, at {stack.when(newest['Timestamp'])}"))
        lines.append(("What failed", stack.cause_of(client, past)))
    if "APIUrl" in outputs:
        lines.append(("API", stack.reachable(outputs["APIUrl"], client.meta.endpoint_url)))
    lines += [("Version", outputs.get("Version")), ("Access", outputs.get("Access"))]
    lines += contents.counts(there, had)
    lines += [("Add-on", f"{each['StackName']}, {each['StackStatus']}") for each in addons]
    pages = [stack.outputs_of(each).get("PageUrl") for each in (there, *addons)]
    for each in filter(lambda each: stack.is_search(each.get("Description")), (there, *addons)):
        lines.append(("Index", index_of(each)))
        if each is not there and (count := messages_in(client, each)):
            lines.append(
                ("Messages", f"{count:,} in the queue of {each['StackName']}: docs/operate.md says what to do")
            )
    lines += [("Page", stack.reachable(page, client.meta.endpoint_url)) for page in pages if page]
    for label, value in lines:
        if value:
            print(f"{label:<12} {value}")
    logs.show_errors(logs.all_log_groups(had, addons))


def messages_in(client, addon):
    """Return how many messages are in the queues of a stack, about."""
    had = stack.resources_of(client, addon["StackId"])
    return sum(contents.messages_in(physical) for kind, _, physical in had if kind == stack.QUEUE)


def index_of(addon):
    """Return in words whether the stack of an add-on search has the index of its store made; None if it has none yet.

    That of an empty store is made by being asked.
    """
    function, name = stack.outputs_of(addon).get("FunctionName"), stack.store_of(addon)
    if not function:
        return None
    again = f"make reindex STACK={name}"
    try:
        mappings = boto3.client("lambda").list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
        if "Disabled" in [each["State"] for each in mappings]:
            return f"not kept up, as the stream is not followed: {again}"
        answer = boto3.client("lambda").invoke(FunctionName=function, Payload=json.dumps(MADE))
    except ClientError as error:
        return f"not known: {error}"
    made = json.loads(answer["Payload"].read())
    if made is False:
        return f"not made yet, so that searches read all links: {again}"
    return "made" if made is True else f"not known, as its function fails, and its log says why: make logs STACK={name}"
