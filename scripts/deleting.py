"""Delete a stack, and list what is left of it."""

import boto3
from botocore.exceptions import ClientError

import contents
import stack
from stack import StackError

# How to find a resource in its own service: the client, the call, and what takes its physical ID.
# Others, such as methods and permissions, are parts of one of these, and go with it.
LOOKUPS = {
    stack.TABLE: ("dynamodb", "describe_table", "TableName"),
    stack.API: ("apigateway", "get_rest_api", "restApiId"),
    stack.LOG: ("logs", "describe_log_streams", "logGroupName"),
    stack.BUCKET: ("s3", "head_bucket", "Bucket"),
    stack.QUEUE: ("sqs", "get_queue_attributes", "QueueUrl"),
    "AWS::ApiGateway::ApiKey": ("apigateway", "get_api_key", "apiKey"),
    "AWS::ApiGateway::UsagePlan": ("apigateway", "get_usage_plan", "usagePlanId"),
    "AWS::IAM::Role": ("iam", "get_role", "RoleName"),
    stack.FUNCTION: ("lambda", "get_function", "FunctionName"),
    "AWS::Lambda::EventSourceMapping": ("lambda", "get_event_source_mapping", "UUID"),
    "AWS::Lambda::LayerVersion": ("lambda", "get_layer_version_by_arn", "Arn"),
    "AWS::SNS::Topic": ("sns", "get_topic_attributes", "TopicArn"),
    "AWS::CloudWatch::Alarm": ("cloudwatch", "describe_alarms", "AlarmNames"),
    "AWS::CloudWatch::Dashboard": ("cloudwatch", "get_dashboard", "DashboardName"),
}
NOT_THERE = {"NoSuchEntity", "NotFound", "NotFoundException", "ResourceNotFound", "ResourceNotFoundException", "404"}
NOT_THERE |= {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}


def teardown(name, template, export=True, first=(), yes=False):
    """Delete the stack, wait until it is gone, and list what is left; export its tables before, if `export`.

    The stacks `first`, which use it, are deleted before it, and their tables exported too. Objects of its
    buckets, which are not exported, are asked about, unless `yes`. StackError if
    a stack does not go, or must not, or a table cannot be exported.
    """
    client = boto3.client("cloudformation")
    there = stack.existing(client, name)
    described = client.validate_template(TemplateBody=template.read_text()).get("Description")
    stack.must_be_made_from(template, described, there)
    name = there["StackName"]  # it may have been an ARN
    which = stack.which(name, template)
    for each in (*first, there):
        if each["StackStatus"] != "REVIEW_IN_PROGRESS" and each["StackStatus"].endswith("_IN_PROGRESS"):
            stack.free(each, template)
    had = stack.resources_of(client, there["StackId"])
    tables = contents.tables_of(had)
    # The local engine has the text of the parameter where AWS has a boolean.
    protected = [what for what, table in tables.items() if table.get("DeletionProtectionEnabled") in (True, "true")]
    if protected:
        # CloudFormation would delete all else, and then fail.
        raise StackError(
            f"{', '.join(protected)} of stack {name} is protected from deletion. To delete it all the same:"
            f'\n  make deploy {which} PARAMETERS="DeletionProtection=false" && make teardown {which}'
        )
    buckets = contents.buckets_to_empty(client, there, had)
    if buckets:
        lost = [f"Bucket {bucket} has {count}, which are deleted." for bucket, count in buckets.items()]
        stack.agreed(name, lost, yes, "Nothing is deleted.")
    kept = [(there, logical, table) for logical, table in tables.items()]
    for each in first:
        of_addon = contents.tables_of(stack.resources_of(client, each["StackId"]))
        kept += [(each, logical, table) for logical, table in of_addon.items()]
    kept = [each for each in kept if not contents.can_be_made_again(*each[:2])]
    if export:
        for each, logical, table in kept:
            contents.export(each, logical, table["TableName"], which)
    for each in first:
        remove(client, each, template)
    for bucket in buckets:
        # With an object in it the deletion fails (CloudFormation Template Reference, DeletionPolicy attribute).
        contents.empty(bucket)
    remove(client, there, template)
    if kept:
        # DynamoDB Developer Guide, "Delete a table with PITR enabled".
        backups = " and ".join(f"{table['TableName']}$DeletedTableBackup" for _, _, table in kept)
        print(
            f"On AWS, DynamoDB keeps a backup for 35 days at no charge, {backups},"
            " if the table had point-in-time recovery on."
        )


def remove(client, there, template):
    """Delete a stack, wait until it is gone, and list what is left. StackError if it does not go."""
    name, had = there["StackName"], stack.resources_of(client, there["StackId"])
    with stack.left_to_cloudformation(name):
        try:
            delete(client, there, template)
        except StackError:
            show_left(name, left_of(client, there["StackId"], had))
            raise
        show_left(name, left_of(client, there["StackId"], had))


def delete(client, there, template):
    """Delete a stack, and wait until it is gone. StackError if it does not go."""
    name, seen = there["StackName"], set()
    list(stack.events(client, there["StackId"], seen))  # those of before
    with stack.left_to_cloudformation(name):
        print(f"Deleting stack {name} {stack.place(client)}", flush=True)
        client.delete_stack(StackName=there["StackId"])
        status, cause = stack.follow(client, there["StackId"], seen)
    if status != "DELETE_COMPLETE":
        raise StackError(
            f"Stack {name} is in status {status}. What failed first is {cause}"
            f"\nMend that and run `make teardown {stack.which(name, template)}` again,"
            " or delete the stack without what fails:"
            f"\n  aws cloudformation delete-stack --stack-name {name} --deletion-mode FORCE_DELETE_STACK"
        )


# --- What is left


def left_of(client, stack_id, had):
    """Return what is left of a stack that had these resources before, as (type, physical ID), sorted.

    That includes what CloudFormation has skipped or failed to delete in the
    stack's life, and log groups that Lambda and API Gateway make by themselves.
    """
    ended = {}
    for event in stack.events(client, stack_id, set()):
        ended[event["ResourceType"], event.get("PhysicalResourceId")] = event["ResourceStatus"]
    still = ("DELETE_SKIPPED", "DELETE_FAILED")
    kept = {what for what, state in ended.items() if state in still and what[1] != stack_id}
    stages = [physical for kind, _, physical in had if kind == "AWS::ApiGateway::Stage"]
    asked = {(kind, physical) for kind, _, physical in had} | kept
    for kind, _, physical in had:
        if kind == stack.FUNCTION:
            asked.add((stack.LOG, f"/aws/lambda/{physical}"))
        if kind == stack.API:
            asked |= {(stack.LOG, f"API-Gateway-Execution-Logs_{physical}/{stage}") for stage in stages}
    left = sorted(asked)
    for attempt in range(3):  # a service may know for a moment what it has deleted
        if attempt and left:
            stack.pause(client)
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
