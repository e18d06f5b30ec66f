"""Thumbnails of what is uploaded to the bucket of stacks/images.yml: an event of S3 brings an image to its end.

    waiting_for_upload -> waiting_for_thumbnails -> published
                                                 -> invalid_content_type, with a reason

An event comes at least once, and two times more after an error (S3 User Guide,
"Amazon S3 Event Notifications"; Lambda Developer Guide, "How Lambda handles
errors and retries with asynchronous invocation"). So all that is done here may
be done again: a status only goes forward, by a condition on the write, and an
object that is put once more has the same bytes.

The bytes that are decoded come from anyone. Pillow decodes them. It is not in
Lambda's Python, but in a layer that the stack's parameter PillowLayer names.
"""

import contextlib
import json
import math
import signal
import time
import warnings
from io import BytesIO
from urllib.parse import unquote_plus

import boto3
from boto3.dynamodb.conditions import Attr
from botocore.config import Config

from common import update

try:
    from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
except ModuleNotFoundError:
    Image = None

# --- Settings

UPLOADS, THUMBNAILS = "uploads/", "thumbnails/"
SIDES = {"large": 1280, "medium": 480, "small": 160}  # the longest side in pixels, from large to small
FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG"}
MOST_PIXELS, MOST_SIDE = 50_000_000, 65_535  # what JPEG has; each row takes memory too
MOST_SECONDS = 20  # of CPU
# What costs time each time that it comes, and a photo has a few of: passes over all pixels
# ("Two Issues with the JPEG Standard", libjpeg-turbo.org), and metadata that is joined or inflated.
REPEATED = {"image/jpeg": (b"\xff\xda", b"Exif\0\0"), "image/png": (b"iCCP",)}
MOST_REPEATED = 100

s3 = boto3.client("s3", config=Config(connect_timeout=1, read_timeout=5, retries={"mode": "standard"}))

# --- Images


# Why bytes are not an image that is published, as a sentence.
class Invalid(Exception):
    pass


# The time for decoding is over. It is no Exception, as Pillow catches those here and there.
class TooLong(BaseException):
    pass


@contextlib.contextmanager
def time_limit():
    """Raise TooLong in the block when it has taken MOST_SECONDS of CPU."""

    def stop(*_):
        raise TooLong

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def opened(data, content_type):
    """Return an image of which the head is read; Invalid if it is not of this type, or would cost too much."""
    if any(data.count(part) > MOST_REPEATED for part in REPEATED[content_type]):
        raise Invalid(f"The image repeats a part more than {MOST_REPEATED} times.")
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow warns of more, and refuses more than twice as many
    try:
        image = Image.open(BytesIO(data), formats=[FORMATS[content_type]])
    except UnidentifiedImageError:
        raise Invalid(f"The bytes are not {content_type}.") from None
    except Image.DecompressionBombError:
        raise Invalid(f"The image has more than {MOST_PIXELS:,} pixels.") from None
    if max(image.size) > MOST_SIDE:
        raise Invalid(f"A side of the image has more than {MOST_SIDE:,} pixels.")
    return image


def upright(image):
    """Return width and height of an image as it is seen, and the image so, RGB or RGBA, in the largest size needed."""
    size, most = image.size, SIDES["large"]
    # A JPEG can be decoded to a part of its size; twice what it is made smaller to then is enough.
    image.draft("RGB", [math.ceil(2 * most * side / max(size)) for side in size])
    if image.mode == "I;16":  # grey of 16 bits, of which convert() would make white
        image = image.point(lambda value: value / 256)
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((most, most))
    orientation = 1
    with contextlib.suppress(Exception):  # EXIF that is broken says nothing of the pixels
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        ImageOps.exif_transpose(image, in_place=True)
    return size[::-1] if orientation in (5, 6, 7, 8) else size, image


def thumbnails_of(data, content_type):
    """Return width and height of an image as it is seen, and the bytes of its thumbnails by name.

    Invalid says why there are none. They have the pixels and no metadata: EXIF
    may tell where a photo was taken.
    """
    try:
        with time_limit(), warnings.catch_warnings(action="ignore"):
            size, image = upright(opened(data, content_type))
    except TooLong:
        raise Invalid(f"The image takes more than {MOST_SECONDS} seconds to decode.") from None
    except Invalid:
        raise
    except Exception as error:  # of many kinds: each part of a file can be broken
        print(json.dumps({"level": "INFO", "broken": repr(error)[:200]}))
        raise Invalid("The image is broken, and cannot be decoded to its end.") from None
    image.info, thumbnails = {}, {}
    for name, side in SIDES.items():
        image.thumbnail((side, side))  # never larger than it is
        file = BytesIO()
        image.save(file, FORMATS[content_type], quality=85)
        thumbnails[name] = file.getvalue()
    return size, thumbnails


# --- Events


def finish(bucket, key, etag):
    """Bring the image of an uploaded object to its end; return its status, None if there is no such image."""
    image = {"id": key.removeprefix(UPLOADS)}
    begun = {"status": "waiting_for_thumbnails", "expiresAt": None}
    _, item = update(image, Attr("status").eq("waiting_for_upload"), begun)
    if item.get("status") != begun["status"]:
        return item.get("status")
    # Else it is our turn, or that of an attempt before this one, or of an equal event: all do the same.
    if not Image:
        raise ModuleNotFoundError("Pillow is missing: set parameter PillowLayer to the ARN of a layer that has it.")
    upload = s3.get_object(Bucket=bucket, Key=key, IfMatch=f'"{etag}"')
    try:
        (width, height), thumbnails = thumbnails_of(upload["Body"].read(), item["contentType"])
        end = {"status": "published", "width": width, "height": height}
    except Invalid as reason:
        end, thumbnails = {"status": "invalid_content_type", "reason": str(reason)}, {}
    for name, data in thumbnails.items():
        place = {"Bucket": bucket, "Key": f"{THUMBNAILS}{image['id']}/{name}"}
        s3.put_object(**place, Body=data, ContentType=item["contentType"])
    _, item = update(image, Attr("status").eq(begun["status"]), end)
    return item.get("status")


def lambda_handler(event, context):
    """Finish the image of each object that an event of S3 names, and leave no object of one that is not published."""
    for record in event.get("Records", []):  # a test event of S3 has none
        start, bucket, uploaded = time.perf_counter(), record["s3"]["bucket"]["name"], record["s3"]["object"]
        key = unquote_plus(uploaded["key"])
        status = finish(bucket, key, uploaded["eTag"])
        if status != "published":
            # It may have been deleted while this function put thumbnails.
            folder = THUMBNAILS + key.removeprefix(UPLOADS)
            for each in (key, *(f"{folder}/{name}" for name in SIDES)):
                s3.delete_object(Bucket=bucket, Key=each)
        ms = round((time.perf_counter() - start) * 1000, 1)
        print(json.dumps({"level": "INFO", "status": status, "ms": ms, "request_id": context.aws_request_id}))
