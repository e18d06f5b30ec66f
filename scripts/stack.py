"""Deploy a single-file stack with CloudFormation, or tear it down, and show each resource on the way.

Account, region and endpoint are the usual settings of the AWS SDKs
(AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL ...), so the same commands work on
AWS and on a local engine.
"""

import argparse
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

from embed import MOST_BYTES


class StackError(Exception):
    """What went wrong with a stack, as a sentence for the person who runs the command."""


def describe(client, name):
    """Return what CloudFormation says of a stack, None if there is none of this name."""
    try:
        return client.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise


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


def follow(client, stack_id, seen):
    """Print what happens to a stack until nothing more does; return how it ended.

    Returns the stack's status and the reason of the first failure, if any.
    """
    cause = ""
    while True:
        status = describe(client, stack_id)["StackStatus"]
        for event in events(client, stack_id, seen):
            state, reason = event["ResourceStatus"], event.get("ResourceStatusReason", "")
            if state.endswith("_FAILED"):
                cause = cause or f"{event['LogicalResourceId']}: {reason}"
            if not state.endswith("_IN_PROGRESS"):
                print(f"  {state:<16} {event['LogicalResourceId']}", flush=True)
        if not status.endswith("_IN_PROGRESS"):
            return status, cause
        # A local engine takes no time, and AWS allows few calls a second.
        time.sleep(0.1 if is_local(client.meta.endpoint_url) else 2)


def deploy(name, template, parameters):
    """Create the stack, or update it to the template; return its outputs as a dict.

    `parameters` (name to value) are set; others keep what they had, or else
    have the template's default. StackError if it does not succeed.
    """
    body = template.read_text()
    if len(body.encode()) > MOST_BYTES:
        raise StackError(f"{template} has more than the {MOST_BYTES:,} bytes that CloudFormation takes.")
    client = boto3.client("cloudformation")
    known = {each["ParameterKey"] for each in client.validate_template(TemplateBody=body)["Parameters"]}
    for unknown in parameters.keys() - known:  # which the local engine would ignore
        raise StackError(f"{template} has no parameter {unknown}; it has {', '.join(sorted(known))}.")
    stack = describe(client, name)
    if stack and stack["StackStatus"] == "ROLLBACK_COMPLETE":
        print(f"What a failed creation left of stack {name} is deleted first.")
        teardown(name)
        stack = None
    request = {
        "StackName": name,
        "TemplateBody": body,
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
        "Parameters": [
            {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
        ],
    }
    seen = set()
    if not stack:
        print(f"Creating stack {name}")
        stack_id = client.create_stack(**request)["StackId"]
    else:
        stack_id = stack["StackId"]
        kept = known - set(parameters)
        request["Parameters"] += [
            {"ParameterKey": each["ParameterKey"], "UsePreviousValue": True}
            for each in stack.get("Parameters", [])
            if each["ParameterKey"] in kept
        ]
        list(events(client, stack_id, seen))  # those of before
        try:
            client.update_stack(**request)
        except ClientError as error:
            if "No updates are to be performed" not in str(error):
                raise
            print(f"Stack {name} is up to date")
            return outputs_of(stack)
        print(f"Updating stack {name}")
    status, cause = follow(client, stack_id, seen)
    if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        raise StackError(f"Stack {name} is in status {status}. {cause}")
    return outputs_of(describe(client, stack_id))


def outputs_of(stack):
    return {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}


def protected_tables(client, stack_id):
    """Return the logical IDs of a stack's tables that are there and protected from deletion."""
    dynamodb = boto3.client("dynamodb")
    protected = []
    for page in client.get_paginator("list_stack_resources").paginate(StackName=stack_id):
        for each in page["StackResourceSummaries"]:
            if each["ResourceType"] == "AWS::DynamoDB::Table" and "PhysicalResourceId" in each:
                with suppress(dynamodb.exceptions.ResourceNotFoundException):
                    table = dynamodb.describe_table(TableName=each["PhysicalResourceId"])["Table"]
                    # The local engine has the text of the parameter where AWS has a boolean.
                    if table.get("DeletionProtectionEnabled") in (True, "true"):
                        protected.append(each["LogicalResourceId"])
    return protected


def teardown(name):
    """Delete the stack, and wait until it is gone. StackError if it does not go, or must not."""
    client = boto3.client("cloudformation")
    stack = describe(client, name)
    if not stack:
        raise StackError(f"There is no stack {name} in {client.meta.region_name}.")
    protected = protected_tables(client, stack["StackId"])
    if protected:
        # CloudFormation would delete all else, and then fail.
        raise StackError(
            f"{', '.join(protected)} of stack {name} is protected from deletion. To delete it all the same:"
            f'\n  make deploy STACK={name} PARAMETERS="DeletionProtection=false" && make teardown STACK={name}'
        )
    seen = set()
    list(events(client, stack["StackId"], seen))  # those of before
    print(f"Deleting stack {name}")
    client.delete_stack(StackName=stack["StackId"])
    status, cause = follow(client, stack["StackId"], seen)
    if status != "DELETE_COMPLETE":
        raise StackError(f"Stack {name} is in status {status}. {cause}")


def is_local(endpoint):
    """Return whether this is the endpoint of a local engine: AWS has https only."""
    return endpoint.startswith("http://")


def reachable(url, endpoint):
    """Return where the API with this output APIUrl answers, given CloudFormation's endpoint."""
    if not is_local(endpoint):
        return url
    aws = urlsplit(url)
    api_id = aws.netloc.split(".")[0]
    return f"http://{api_id}.execute-api.localhost:{urlsplit(endpoint).port}{aws.path}"


def show(outputs):
    """Print the URLs of the API and its page, and commands to try."""
    url = reachable(outputs["APIUrl"], boto3.client("cloudformation").meta.endpoint_url)
    print(
        f"\nThe API is at {url}\nIts page is at {url.removesuffix('link')}\n\nStore a link, and list the links:\n\n"
        f"""  curl -X POST -d '{{"link": "https://www.google.com"}}' {url}\n"""
        f"  curl {url}\n",
        flush=True,
    )


def pairs(arguments):
    """Return a dict of arguments that are NAME=VALUE each; StackError for another."""
    for argument in arguments:
        if "=" not in argument:
            raise StackError(f"A template parameter is set by NAME=VALUE, not by {argument}.")
    return dict(argument.split("=", 1) for argument in arguments)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["deploy", "teardown"])
    parser.add_argument("--stack", default="apidb", help="name of the stack (apidb)")
    parser.add_argument("--template", type=Path, default=Path("setupapidb.yml"))
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help="template parameters")
    options = parser.parse_intermixed_args()
    try:
        if options.action == "deploy":
            show(deploy(options.stack, options.template, pairs(options.parameters)))
        else:
            teardown(options.stack)
            print(f"Stack {options.stack} is gone.")
    except KeyboardInterrupt:
        sys.exit(
            "\nCloudFormation goes on without being watched. See how far it is with:"
            f"\n  aws cloudformation describe-stack-events --stack-name {options.stack}"
        )
    except (NoRegionError, NoCredentialsError) as error:
        sys.exit(f"{error} Set AWS_PROFILE, or AWS_REGION and credentials, or run: aws configure")
    except (StackError, ClientError, BotoCoreError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
