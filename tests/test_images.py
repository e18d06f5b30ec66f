"""Images, stacks/images.yml: uploads by signed URLs, and what an event makes of them."""

import contextlib
import io
import json
import re
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from io import BytesIO
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import boto3
import httpx
import pytest
from moto import mock_aws
from PIL import Image

from conftest import NEVER_THROTTLED, ROOT, aws, http_api, outputs, resource_ids
from pictures import HOSTILE, JPEG, PNG, encoded, photo, plain
from stacks import (
    CREDENTIALS,
    System,
    emptied,
    fails_inside,
    handler_of,
    is_closed,
    is_cors,
    make_table,
    sender,
    system_at,
    without,
)
from test_races import CLIENTS, at_once, winner

STACK = "images"
SETTINGS = {"BUCKET": "bucket", "UPLOAD_SECONDS": "300"}
STATUSES = ["waiting_for_upload", "waiting_for_thumbnails", "published", "invalid_content_type"]
MOST = 10 * 1024 * 1024
UNKNOWN = "0b6d1a2e-9d0c-4b6e-8f43-1f3d0c0b9a77"


def put(created, data, headers={}, url=None):
    """Put bytes where a POST has said, with the headers that it has said, or others."""
    headers = {name: value for name, value in (created["uploadHeaders"] | headers).items() if value}
    return httpx.put(url or created["uploadUrl"], content=data, headers=headers, trust_env=False, timeout=60)


@pytest.fixture
def storage(engine, system_stack):
    """The bucket of the deployed stack, empty."""
    bucket = boto3.resource("s3", endpoint_url=engine.settings["AWS_ENDPOINT_URL"], **CREDENTIALS).Bucket(
        outputs(engine, "tests-images")["BucketName"]
    )
    bucket.objects.all().delete()
    return bucket


def keys(bucket):
    return sorted(each.key for each in bucket.objects.all())


def objects_of(image_id):
    return [*(f"thumbnails/{image_id}/{name}" for name in ("large", "medium", "small")), f"uploads/{image_id}"]


def create(system, data, kind=PNG):
    answer = system("POST", "/images", {"contentType": kind, "size": len(data)})
    assert answer.status_code == 201, answer.text
    return answer.json()


def seen(system, image_id, until):
    """Ask for an image until it has one of these statuses; return it, and all statuses that it had on the way."""
    statuses = []
    while True:
        image = system("GET", f"/images/{image_id}").json()
        if image["status"] not in statuses:
            statuses.append(image["status"])
        if image["status"] in until:
            return image, statuses
        time.sleep(0.01)


def uploaded(system, data, kind=PNG):
    """Upload an image and wait for its end; return it."""
    created = create(system, data, kind)
    assert put(created, data).status_code == 200
    return seen(system, created["id"], STATUSES[2:])[0]


@pytest.mark.parametrize(("form", "kind"), [("PNG", PNG), ("JPEG", JPEG)])
def test_an_image_is_uploaded_and_published(system_stack, storage, form, kind):
    data = encoded(photo(3000, 2000), form)
    created = create(system_stack, data, kind)
    assert created["status"] == "waiting_for_upload"
    assert put(created, data).status_code == 200
    image, statuses = seen(system_stack, created["id"], STATUSES[2:])
    assert statuses == [status for status in STATUSES if status in statuses] and statuses[-1] == "published"
    assert keys(storage) == objects_of(created["id"])
    assert {name: image[name] for name in ("contentType", "size", "width", "height", "createdAt")} == {
        "contentType": kind, "size": len(data), "width": 3000, "height": 2000, "createdAt": created["createdAt"],
    }  # fmt: skip
    for name, side in {"small": 160, "medium": 480, "large": 1280}.items():
        answer = httpx.get(image["thumbnails"][name], trust_env=False)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)
        thumbnail = Image.open(BytesIO(answer.content))
        thumbnail.load()
        assert (thumbnail.format, max(thumbnail.size)) == (form, side)
        assert abs(thumbnail.width / thumbnail.height - 1.5) < 0.01


@pytest.mark.parametrize("name", ["HTML", "PNG called JPEG", "JPEG cut off", "PNG of 60,000 x 60,000"])
def test_what_is_no_image_ends_as_invalid(system_stack, storage, name):
    kind, data, reason = HOSTILE[name]
    image = uploaded(system_stack, data(), kind)
    assert (image["status"], image["reason"]) == ("invalid_content_type", reason)
    assert "thumbnails" not in image
    while keys(storage):  # it is deleted after that
        time.sleep(0.01)
