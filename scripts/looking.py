"""Show how a stack is."""

import boto3

import contents
import logs
import stack


def show_status(name, addons=()):
    """Print how a stack is: its state, its add-ons, its URLs, how many links it has, and its last errors."""
    client = boto3.client("cloudformation")
    there = stack.existing(client, name)
    outputs, had = stack.outputs_of(there), stack.resources_of(client, there["StackId"])
    rows = {"Stack": f"{name}, in {client.meta.region_name}", "Status": there["StackStatus"]}
    past = stack.last_operation(client, there["StackId"])
    if past:
        began, newest = past[0], past[-1]
        operation = began["ResourceStatus"].removesuffix("_IN_PROGRESS").lower()
        rows["Last did"] = f"{operation}, at {stack.when(began['Timestamp'])}"
        reached = f"{newest['ResourceStatus']} of {newest['LogicalResourceId']}"
        rows["Until"] = f"{reached}, at {stack.when(newest['Timestamp'])}"
        rows["What failed"] = stack.cause_of(client, past)
    if "APIUrl" in outputs:
        rows["API"] = stack.reachable(outputs["APIUrl"], client.meta.endpoint_url)
    rows["Version"], rows["Access"] = outputs.get("Version"), outputs.get("Access")
    for table in contents.tables_of(had).values():
        rows["Links"] = contents.count_of(table)
    lines = [(label, value) for label, value in rows.items() if value]
    lines += [("Add-on", f"{each['StackName']}, {each['StackStatus']}") for each in addons]
    pages = [stack.outputs_of(each).get("PageUrl") for each in (there, *addons)]
    lines += [("Page", stack.reachable(page, client.meta.endpoint_url)) for page in pages if page]
    for label, value in lines:
        print(f"{label:<12} {value}")
    for group in logs.log_groups(had):
        logs.show_errors(group)
