"""Print where an API answers, and commands to try."""

import boto3

import stack


def show(outputs):
    """Print the URLs of the API and of its page, if it has one, and commands to try, with what its Access asks for."""
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
    lines = [
        *before,
        f"""curl -X POST{write} -d '{{"link": "https://www.google.com"}}' {url}""",
        f"curl{read} {url}",
    ]
    print("Store a link, and list the links:\n\n" + "".join(f"  {line}\n" for line in lines), flush=True)


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
