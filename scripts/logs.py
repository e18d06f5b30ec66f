"""Show what the functions of a stack and its add-ons have logged: the newest errors, or each line as it comes."""

import json
from collections import deque
from contextlib import suppress
from datetime import datetime, timedelta, timezone

import boto3

import stack
from program import printable
from stack import StackError

SHOWN_ERRORS = 5
FAILED = ("timeout", "error", "failure")  # the statuses of an invocation, but for success
# A filter pattern of CloudWatch Logs for the lines that tell of an error.
ERRORS = ['$.level = "ERROR"', '$.log_level = "ERROR"', *(f'$.record.status = "{status}"' for status in FAILED)]
ERRORS = f"{{ {' || '.join(f'({each})' for each in ERRORS)} }}"


def log_groups(resources):
    """Return the log groups of a stack: what logs there, as a logical ID, by name.

    They are those to which its functions log, and others of its resources.
    """
    lambda_, found = boto3.client("lambda"), {}
    for kind, logical, physical in resources:
        if kind == stack.FUNCTION:
            with suppress(lambda_.exceptions.ResourceNotFoundException):
                asked = lambda_.get_function_configuration(FunctionName=physical)
                # Without a LoggingConfig it is this one (Lambda Developer Guide, "CloudWatch log groups").
                group = asked.get("LoggingConfig", {}).get("LogGroup", f"/aws/lambda/{physical}")
                found[group] = f"{found[group]} {logical}" if group in found else logical
    return {physical: logical for kind, logical, physical in resources if kind == stack.LOG} | found


def all_log_groups(resources, addons):
    """Return the log groups of a stack and of its add-ons, which have their stacks' names there, by name."""
    client, found = boto3.client("cloudformation"), log_groups(resources)
    for each in addons:
        found |= dict.fromkeys(log_groups(stack.resources_of(client, each["StackId"])), each["StackName"])
    return found


def log_events(group, since, **more):
    """Yield the events of a log group since a time in ms, oldest first; none if there is no such group."""
    logs = boto3.client("logs")
    with suppress(logs.exceptions.ResourceNotFoundException):
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=since, **more):
            yield from page["events"]


def milliseconds(ago):
    return int((datetime.now(timezone.utc) - ago).timestamp() * 1000)


# --- Errors


def show_errors(groups):
    """Print the newest errors that functions, their runtime and Lambda have logged in the last 24 hours."""
    found = []
    for group, logical in groups.items():
        found += [(timestamp, logical, *error) for timestamp, error in errors_in(group)]
    if not found:
        print(f"{'Errors':<12} none in the last 24 hours")
        return
    print("\nThe newest errors of the last 24 hours:\n")
    for timestamp, logical, request, kind, text in sorted(found, key=lambda each: each[0])[-SHOWN_ERRORS:]:
        at = stack.when(datetime.fromtimestamp(timestamp / 1000, timezone.utc))
        what = ": ".join(filter(None, [kind, text.strip().split("\n")[-1]]))
        where = f"{logical}: {request}".rstrip(": ") if len(groups) > 1 else request
        print(printable(f"  {at}  {where}  {what}"))


def errors_in(group):
    """Return the newest errors in a log group of the last 24 hours, as (time in ms, what error_of returns)."""
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
    return newest


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


# --- Each line


def brief(message):
    """Return an event of the log on one line, without what it says to CloudWatch's metrics."""
    with suppress(ValueError, AttributeError):
        message = json.dumps({key: value for key, value in json.loads(message).items() if key != "_aws"})
    return " ".join(message.split())


def follow_logs(name, addons=()):
    """Print what a stack and its add-ons have logged in the last ten minutes, and each new line, until Ctrl-C.

    Version 1 of the AWS CLI, which is on PyPI, has no `aws logs tail`.
    """
    client = boto3.client("cloudformation")
    groups = all_log_groups(stack.resources_of(client, stack.existing(client, name)["StackId"]), addons)
    if not groups:
        raise StackError(f"Stack {name} has no log group.")
    since, seen = dict.fromkeys(groups, milliseconds(timedelta(minutes=10))), set()
    print(f"The log{'s' * (len(groups) > 1)} {', '.join(groups)}; Ctrl-C ends it.", flush=True)
    while True:
        fresh = []
        for group in groups:
            for event in log_events(group, since[group]):
                line = event["timestamp"], group, event["logStreamName"], event["message"]
                if line not in seen:  # the local engine has no eventId
                    seen.add(line)
                    fresh.append(line)
        for timestamp, group, _, message in sorted(fresh, key=lambda line: line[0]):
            at = stack.when(datetime.fromtimestamp(timestamp / 1000, timezone.utc))
            origin = f"{groups[group]}: " if len(groups) > 1 else ""
            print(f"{at}  {origin}{printable(brief(message))}", flush=True)
            # What comes late is not lost: a minute is read again.
            since[group] = max(since[group], timestamp - 60_000)
        seen = {line for line in seen if line[0] >= since[line[1]]}
        stack.pause(client)
