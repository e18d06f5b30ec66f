"""What wants AWS credentials: reading a table of links, and signing requests."""

import re
import time
from contextlib import contextmanager
from urllib.parse import parse_qsl

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

from program import Stop
from record import RECORD, SEE_URL, of_seconds

TABLE = "dynamodb:"  # comes before the name of a table


@contextmanager
def aws(region="", table=""):
    """Make what the AWS SDK raises while the block runs a Stop."""
    settings = "Set AWS_PROFILE, or AWS_DEFAULT_REGION and credentials, or run: aws configure"
    try:
        yield
    except NoRegionError:
        raise Stop(f"There is no AWS region. {settings}") from None
    except NoCredentialsError:
        raise Stop(f"There are no AWS credentials. {settings}") from None
    except ClientError as error:
        code, sentence = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        if code == "ResourceNotFoundException":
            raise Stop(
                f"There is no table {table} in {region}. See which there are: aws dynamodb list-tables;"
                " AWS_DEFAULT_REGION sets another region."
            ) from None
        if code == "AccessDeniedException":
            raise Stop(f"These AWS credentials may not read the table {table}: {sentence}") from None
        raise Stop(f"The table {table} in {region} cannot be read: {code}: {sentence}") from None
    except (BotoCoreError, ValueError) as error:  # the latter of a wrong AWS_ENDPOINT_URL
        raise Stop(f"AWS cannot be asked: {error}") from None


def scan(table):
    """Yield the items of a DynamoDB table, a list for each page; Stop if it cannot be read.

    What was deleted or has expired is left out, as the API does; DynamoDB deletes it later.
    """
    # A consistent Scan has all that was stored before it. The index `newest` would give an order,
    # but follows the table a moment later; and of a backup before a deletion nothing may be missing.
    if not table:
        raise Stop(f"Which table? For example: {TABLE}linkTable")
    with aws():
        session = boto3.Session()
        dynamodb = session.client("dynamodb")
    with aws(session.region_name, table):
        for page in dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
            yield [item for item in page["Items"] if not is_gone(item)]


def is_gone(item):
    expires_at = plain(item.get("expires_at"))
    return "deleted_at" in item or (isinstance(expires_at, int) and expires_at <= time.time())


def plain(value):
    """Return the plain value of an attribute in DynamoDB's typed JSON, None if no field of a link is of its type."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    ((kind, inner),) = value.items()
    if kind == "L" and isinstance(inner, list):
        return [plain(each) for each in inner]
    if kind == "N" and re.fullmatch("-?[0-9]{1,38}", str(inner)):
        return int(inner)
    return inner if kind in ("S", "SS", "N") else None


def record_of(item):
    """Return the record of an item, typed or plain, as the API gives it (handler/index.py)."""
    item = {name: plain(value) for name, value in item.items()}
    record = {name: item[name] for name in RECORD if item.get(name) is not None}
    if record.get("link") == SEE_URL and "url" in item:
        record["link"] = item["url"]
    expires_at = record.get("expires_at")
    if isinstance(expires_at, int) and 0 <= expires_at < 253402300800:  # the year 10000
        record["expires_at"] = of_seconds(expires_at)
    return record


def pages_of_table(table):
    for items in scan(table):
        if not all("etag" in item for item in items):
            raise Stop(f"{table} is no table of an apidb. To import one: make import FILE={TABLE}{table} API=...")
        yield [record_of(item) for item in items]


def signer(url):
    """Return a function that adds the AWS signature of a request (method, URL, body, headers) to its headers."""
    with aws():
        session = boto3.Session()
        credentials = session.get_credentials()
        in_url = re.search(r"\.execute-api\.([a-z0-9-]+)\.", url)
        region = in_url[1] if in_url else session.region_name
        if not credentials:
            raise NoCredentialsError
        if not region:
            raise NoRegionError

    def sign(method, url, body, headers):
        # Given apart from the URL, the query is signed in the form that API Gateway brings it into.
        url, _, query = url.partition("?")
        request = AWSRequest(method, url, headers, body, parse_qsl(query, keep_blank_values=True))
        with aws():  # which may have to renew the credentials
            SigV4Auth(credentials.get_frozen_credentials(), "execute-api", region).add_auth(request)
        return dict(request.headers.items())

    return sign
