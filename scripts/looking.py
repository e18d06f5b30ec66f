"""Show how a stack is: what CloudFormation did last, where it answers, what it holds, and its newest errors."""

import boto3

import contents
import logs
import stack


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
    lines += [("Page", stack.reachable(page, client.meta.endpoint_url)) for page in pages if page]
    for label, value in lines:
        if value:
            print(f"{label:<12} {value}")
    logs.show_errors(logs.log_groups(had))
