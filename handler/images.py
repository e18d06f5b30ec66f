"""Images behind the API of stacks/images.yml: a client asks for a URL, puts an image there, and asks for its status.

    uploads/ID                              what the client puts; only handler/thumbnails.py reads it
    thumbnails/ID/small, medium, large      what clients get, by URLs that hold for a while

The image goes past the API, whose gateway takes 10 MB and Lambda 6 MB. What
may be put is bound by the signature of the URL. All that happens to an image
after that, handler/thumbnails.py does.
"""

import os
import re
import time
import uuid

import boto3
from boto3.dynamodb.conditions import Attr
from botocore.config import Config

from common import ID, Error, check, config, now, number, reply, require, respond, table, to_json, write

# --- Settings

BUCKET = os.environ["BUCKET"]
UPLOAD_SECONDS = int(os.environ["UPLOAD_SECONDS"])
SEE_SECONDS = 15 * 60
UNUSED_SECONDS = 24 * 60 * 60  # after which DynamoDB may delete an image that nobody has uploaded

# Only version 4 of the signature binds headers, and only the host of a region has new buckets at once
# (S3 User Guide, "Virtual hosting of buckets"); in us-east-1 neither is what the SDK does by itself.
hosts = {"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"}
s3 = boto3.client("s3", config=config.merge(Config(signature_version="s3v4", s3=hosts)))

# --- What an image is made of

TYPES = {"image/jpeg": "image/jpeg", "image/jpg": "image/jpeg", "image/png": "image/png"}
MOST_BYTES = 10 * 1024 * 1024
RECORD = ("id", "status", "contentType", "size", "createdAt", "updatedAt", "reason", "width", "height")
SIZES = ("small", "medium", "large")


def kind(name, value, types):
    """Return the type of an image by its usual name."""
    require(isinstance(value, str) and value in types, f"{name} must be one of {', '.join(types)}.")
    return types[value]


FIELDS = {"contentType": (kind, TYPES), "size": (number, MOST_BYTES)}


def keys_of(image_id):
    """Return the keys of the objects that an image may have: what was uploaded, and the thumbnails by name."""
    return f"uploads/{image_id}", {size: f"thumbnails/{image_id}/{size}" for size in SIZES}


def record_of(item):
    """Return the image that clients see of an item; once it is published, with URLs of its thumbnails."""
    record = {name: item[name] for name in RECORD if name in item}
    if item["status"] == "published":
        _, thumbnails = keys_of(item["id"])
        record["thumbnails"] = {size: sign("get_object", key, SEE_SECONDS) for size, key in thumbnails.items()}
    return record


def find(image_id):
    """Return the item with this id as it is now; Error 404 if there is none."""
    item = re.fullmatch(ID, image_id) and table.get_item(Key={"id": image_id}, ConsistentRead=True).get("Item")
    if not item:
        raise Error(404, "There is no image with this id.")
    return item


# --- Signed URLs


def sign(operation, key, seconds, **headers):
    """Return a URL by which anyone may do this with an object for some seconds, if they send these headers."""
    request = {"Bucket": BUCKET, "Key": key, **headers}
    return s3.generate_presigned_url(operation, Params=request, ExpiresIn=seconds)


def upload_of(item):
    """Return where and with which headers the bytes of an image can be put, once.

    S3 refuses what has another type or length than is signed, and, because of
    If-None-Match, what comes when there is an object already (S3 User Guide,
    "Conditional requests").
    """
    bound = {"ContentType": item["contentType"], "ContentLength": item["size"], "IfNoneMatch": "*"}
    upload, _ = keys_of(item["id"])
    url = sign("put_object", upload, UPLOAD_SECONDS, **bound)
    # Content-Length is sent by each client without being told.
    return {"uploadUrl": url, "uploadHeaders": {"Content-Type": item["contentType"], "If-None-Match": "*"}}


# --- Routes

# What has signed URLs in it is not for caches.
NO_STORE = {"Cache-Control": "no-store"}


def create_image(request):
    """POST /images: make an image that waits for its bytes, and say where to put them."""
    item = {"id": str(uuid.uuid4()), "status": "waiting_for_upload"}
    item |= check(request.json(), FIELDS, needed=FIELDS)
    item["createdAt"] = item["updatedAt"] = now()
    item |= {"etag": uuid.uuid4().hex, "expiresAt": int(time.time()) + UNUSED_SECONDS}
    table.put_item(Item=item)  # nobody knows its id yet, so it does no harm if the SDK does it again
    headers = {"Location": f"{request.url}/{item['id']}"} | NO_STORE
    return reply(201, to_json(record_of(item) | upload_of(item)), headers)


def get_image(request, image_id):
    """GET /images/{id}: how far an image is, and where its thumbnails are."""
    return reply(200, to_json(record_of(find(image_id))), NO_STORE)


def delete_image(request, image_id):
    """DELETE /images/{id}: forget an image, and its objects.

    They go first, so that what fails can be tried again. The item goes if
    nothing has happened to it meanwhile, else all is done once more. After
    that handler/thumbnails.py finds none, and deletes what comes late.
    """
    done, (upload, thumbnails) = False, keys_of(image_id)
    while not done:
        etag = find(image_id)["etag"]
        for key in (upload, *thumbnails.values()):
            s3.delete_object(Bucket=BUCKET, Key=key)
        done, _ = write(table.delete_item, None, Attr("etag").eq(etag), Key={"id": image_id})
    return reply(204)


ROUTES = {"/images": {"POST": create_image}, "/images/{id}": {"GET": get_image, "DELETE": delete_image}}


def lambda_handler(event, context):
    return respond(event, ROUTES)
