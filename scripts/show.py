"""Print where a stack's API answers, and commands to try, which its template says.

A template has them at its top level:

    Metadata:
      Try: |
        curl -d '{"id": 1, "name": "Rex"}' $API
        curl $API/1

Each line is a command of its own for a POSIX shell, run one after the other in
the root of a checkout. $API becomes the URL of output APIUrl, as it can be reached.
In a line with $API each `curl` gets the options that output Access asks for: its
first word is open, iam, key, or read, which asks for the key in lines with -d or
-X only. A line without $API, such as an upload to a signed URL, stays as it is.
All else is for the shell, variables too.
"""

import re

import boto3
import yaml

import embed
import stack


def show(outputs, template):
    """Print the URLs of the API of a stack and of its page, if it has one, and commands to try."""
    if "APIUrl" not in outputs:  # it is the template of something else
        return
    session = boto3.client("cloudformation").meta
    url = stack.reachable(outputs["APIUrl"], session.endpoint_url)
    print(f"\nThe API is at {url}")
    if "PageUrl" in outputs:
        print(f"Its page is at {stack.reachable(outputs['PageUrl'], session.endpoint_url)}")
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
    said = embed.child(yaml.compose(template.read_text()), "Metadata", "Try")
    lines = [completed(line, url, write, read) for line in (said.value.splitlines() if said else [])]
    if lines:
        print("Try it:\n\n" + "".join(f"  {line}\n" for line in before + lines), flush=True)


def completed(line, url, write, read):
    """Return a command that a template says with the URL of the API, and the options to write to it or to read it."""
    if not re.search(r"\$API\b", line):
        return line
    options = write if re.search(" -[dX] ", line) else read
    line = re.sub(r"\bcurl(?= )", lambda found: found[0] + options, line)
    return re.sub(r"\$API\b", lambda _: url, line)


def key_command(key, session):
    """Return the command that prints an API key, for whom the account lets read it."""
    if not stack.is_local(session.endpoint_url):
        return f"aws apigateway get-api-key --api-key {key} --include-value --query value --output text"
    settings = f"AWS_ENDPOINT_URL={session.endpoint_url} AWS_DEFAULT_REGION={session.region_name}"
    settings += " AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test"
    # Who has only run the stack has no AWS CLI.
    code = f"import boto3; print(boto3.client('apigateway').get_api_key(apiKey='{key}', includeValue=True)['value'])"
    return f'{settings} .venv/bin/python -c "{code}"'


def signature(session):
    """Return the options by which curl signs a request with AWS credentials."""
    sign = f' --aws-sigv4 "aws:amz:{session.region_name}:execute-api"'
    if stack.is_local(session.endpoint_url):
        return sign + ' --user "test:test"'
    # curl leaves out a header that has no value.
    token = '-H "x-amz-security-token: $AWS_SESSION_TOKEN"'
    return f'{sign} --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" {token}'
