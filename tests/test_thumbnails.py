"""What handler/thumbnails.py makes of bytes and of events, on moto; and what it does not let happen."""

import contextlib
import io
import json
import subprocess
import sys
from io import BytesIO
from types import SimpleNamespace

import boto3
import pytest
from moto import mock_aws
from PIL import Image

from conftest import ROOT
from pictures import HOSTILE, JPEG, ODD, PNG, encoded, exif, photo, plain
from stacks import KEYS, emptied, handler_of, items_of, make_table

SIDES = {"small": 160, "medium": 480, "large": 1280}
RED, GREEN = (200, 30, 30), (30, 200, 30)
ID = "0b6d1a2e-9d0c-4b6e-8f43-1f3d0c0b9a77"
BEGUN = {"id": ID, "status": "waiting_for_upload", "contentType": PNG, "etag": "0", "expiresAt": 1, "createdAt": "then"}


class Pipeline:
    """The function on moto, its table, and its bucket."""

    def __init__(self, module):
        self.module, self.table, self.s3 = module, boto3.resource("dynamodb").Table("images"), boto3.client("s3")
        self.stored = lambda: {
            each["Key"]: each for each in self.s3.list_objects_v2(Bucket="bucket").get("Contents", [])
        }

    def upload(self, data, item=BEGUN, key=f"uploads/{ID}"):
        """Put an item, if there is one, and an object; return the event of S3."""
        if item:
            self.table.put_item(Item=item)
        etag = self.s3.put_object(Bucket="bucket", Key=key, Body=data)["ETag"]
        event = json.loads((ROOT / "tests" / "events" / "upload.json").read_text())
        event["Records"][0]["s3"]["object"] |= {"key": key, "eTag": etag.strip('"')}
        return event

    def run(self, event):
        """Hand the function an event; return the status that it logs."""
        with contextlib.redirect_stdout(io.StringIO()) as log:
            assert self.module.lambda_handler(event, SimpleNamespace(aws_request_id="r")) is None
        self.log = [json.loads(line) for line in log.getvalue().splitlines()]
        return self.log[-1]["status"]

    def item(self):
        return self.table.get_item(Key={"id": ID}).get("Item")

    def thumbnails(self):
        """Return the thumbnails as Pillow opens them, by name."""
        return {name: Image.open(BytesIO(self.body(f"thumbnails/{ID}/{name}"))) for name in SIDES}

    def body(self, key):
        return self.s3.get_object(Bucket="bucket", Key=key)["Body"].read()


@pytest.fixture(scope="module")
def loaded():
    with mock_aws(), handler_of("thumbnails", {"TABLE": "images"}) as module:
        make_table("images")
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield module


@pytest.fixture
def pipeline(loaded):
    found = Pipeline(loaded)
    emptied(found.table)
    for key in found.stored():
        found.s3.delete_object(Bucket="bucket", Key=key)
    return found


ALL = [f"thumbnails/{ID}/{name}" for name in ("large", "medium", "small")] + [f"uploads/{ID}"]

# --- What is published


@pytest.mark.parametrize(("form", "kind"), [("JPEG", JPEG), ("PNG", PNG)])
def test_three_thumbnails_are_made(pipeline, form, kind):
    event = pipeline.upload(encoded(photo(3000, 2000), form), BEGUN | {"contentType": kind})
    assert pipeline.run(event) == "published"
    item = pipeline.item()
    assert (item["status"], item["width"], item["height"], item["createdAt"]) == ("published", 3000, 2000, "then")
    assert "reason" not in item and "expiresAt" not in item and item["etag"] != "0"
    assert list(pipeline.stored()) == ALL, "the upload is kept"
    for name, image in pipeline.thumbnails().items():
        image.load()
        assert (image.format, image.mode, max(image.size)) == (form, "RGB", SIDES[name])
        assert abs(image.width / image.height - 1.5) < 0.01
        assert pipeline.s3.head_object(Bucket="bucket", Key=f"thumbnails/{ID}/{name}")["ContentType"] == kind


def test_small_images_are_not_enlarged(pipeline):
    assert pipeline.run(pipeline.upload(encoded(plain(200, 100), "PNG"))) == "published"
    sizes = {name: image.size for name, image in pipeline.thumbnails().items()}
    assert sizes == {"large": (200, 100), "medium": (200, 100), "small": (160, 80)}


# Where the red half is, which was left before EXIF said how to turn it (Exif 2.32, "Orientation").
TURNS = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom"}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(("form", "kind"), [("JPEG", JPEG), ("PNG", PNG)])
def test_photos_are_turned_and_have_no_metadata(pipeline, orientation, form, kind):
    more = {"comment": b"by me", "icc_profile": b"profile"} if form == "JPEG" else {"icc_profile": b"profile"}
    data = encoded(plain(600, 400), form, exif=exif(orientation), **more)
    assert pipeline.run(pipeline.upload(data, BEGUN | {"contentType": kind})) == "published"
    item, (width, height) = pipeline.item(), (600, 400) if orientation < 5 else (400, 600)
    assert (item["width"], item["height"]) == (width, height)
    places = {"left": (0.1, 0.5), "right": (0.9, 0.5), "top": (0.5, 0.1), "bottom": (0.5, 0.9)}
    opposite = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    for name, image in pipeline.thumbnails().items():
        image.load()
        assert (image.width > image.height) == (width > height)
        for side, colour in ((TURNS[orientation], RED), (opposite[TURNS[orientation]], GREEN)):
            x, y = places[side]
            seen = image.getpixel((int(x * image.width), int(y * image.height)))
            assert all(abs(is_ - should) < 8 for is_, should in zip(seen, colour)), (name, side, seen)
        assert not image.getexif() and image.info.keys() <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


@pytest.mark.parametrize("name", ODD)
def test_odd_images_are_published(pipeline, name):
    kind, data = ODD[name]
    assert pipeline.run(pipeline.upload(data(), BEGUN | {"contentType": kind})) == "published", pipeline.log
    for image in pipeline.thumbnails().values():
        image.load()
        assert image.mode == ("RGBA" if "alpha" in name or "transparen" in name else "RGB")
    assert b"<script>" not in b"".join(pipeline.body(key) for key in ALL[:3])


def test_colours_stay_what_they_are(pipeline):
    """Of 16 bits the upper 8 are shown; what is transparent stays so; CMYK and palettes become RGB."""
    seen = {}
    for name in ("grey of 16 bits", "RGB of 16 bits", "transparent colour", "CMYK", "grey with alpha", "one bit"):
        kind, data = ODD[name]
        pipeline.run(pipeline.upload(data(), BEGUN | {"contentType": kind}))
        seen[name] = pipeline.thumbnails()["small"].getpixel((10, 10))
    assert seen["grey of 16 bits"] == (156, 156, 156)
    assert seen["RGB of 16 bits"] == (156, 1, 255)
    assert seen["transparent colour"][3] == 0
    assert seen["grey with alpha"][3] == 255
    assert all(abs(is_ - should) < 8 for is_, should in zip(seen["CMYK"], RED))


# --- What is not


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_image_is_refused(pipeline, name):
    kind, data, reason = HOSTILE[name]
    assert pipeline.run(pipeline.upload(data(), BEGUN | {"contentType": kind})) == "invalid_content_type"
    item = pipeline.item()
    assert (item["status"], item["reason"]) == ("invalid_content_type", reason)
    assert "width" not in item and "expiresAt" not in item
    assert pipeline.stored() == {}, "nothing is left"


def test_decoding_that_takes_too_long_is_stopped(pipeline, monkeypatch):
    monkeypatch.setattr(pipeline.module, "MOST_SECONDS", 0.01)
    monkeypatch.setattr(pipeline.module, "MOST_REPEATED", 10_000)
    kind, data, _ = HOSTILE["9,000 profiles that inflate"]
    assert pipeline.run(pipeline.upload(data())) == "invalid_content_type"
    assert pipeline.item()["reason"] == "The image takes more than 0.01 seconds to decode."


# getrusage(2) of a program that was started tells of the one that started it too, where /proc knows better.
MEASURE = """
import contextlib, io, pathlib, re, resource, sys
sys.path.insert(0, "handler")
import thumbnails
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    with contextlib.suppress(thumbnails.Invalid), contextlib.redirect_stdout(io.StringIO()):
        thumbnails.thumbnails_of(path.read_bytes(), "image/" + path.suffix[1:])
        sys.exit(f"{path} is published.")
if sys.platform == "linux":
    (most,) = re.findall(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
else:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(most)
"""


def test_hostile_images_take_little_memory(tmp_path):
    """With Python and its modules it is less than 512 MB."""
    for number, (kind, data, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{number}.{kind.removeprefix('image/')}").write_bytes(data())
    command = [sys.executable, "-c", MEASURE, tmp_path]
    settings = KEYS | {"TABLE": "images", "ALLOWED_ORIGIN": "*"}
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 512 * 1024


# --- Events that come again, late, or for what is not there


def test_an_event_that_comes_again_changes_nothing(pipeline):
    event = pipeline.upload(encoded(plain(600, 400), "PNG"))
    assert pipeline.run(event) == "published"
    before, objects = pipeline.item(), pipeline.stored()
    assert pipeline.run(event) == "published"
    assert (pipeline.item(), pipeline.stored()) == (before, objects)


def test_what_is_uploaded_after_a_refusal_is_deleted(pipeline):
    """The object is gone then, so that the URL works once more while it lasts."""
    pipeline.run(pipeline.upload(b"text"))
    before = pipeline.item()
    assert pipeline.run(pipeline.upload(encoded(plain(600, 400), "PNG"), None)) == "invalid_content_type"
    assert (pipeline.item(), pipeline.stored()) == (before, {})


@pytest.mark.parametrize("key", [f"uploads/{ID}", "uploads/a b+%/ä?", "uploads/x"])
def test_the_object_of_no_image_is_deleted(pipeline, key):
    event = pipeline.upload(encoded(plain(600, 400), "PNG"), None, key)
    encoded_key = {"uploads/a b+%/ä?": "uploads/a+b%2B%25/%C3%A4%3F"}.get(key, key)
    event["Records"][0]["s3"]["object"]["key"] = encoded_key  # as S3 sends it
    assert pipeline.run(event) is None
    assert (items_of(pipeline.table), pipeline.stored()) == ([], {})


def test_several_records_and_none(pipeline):
    event = pipeline.upload(encoded(plain(600, 400), "PNG"))
    event["Records"] += pipeline.upload(b"", None, "uploads/x")["Records"]
    assert pipeline.run(event) is None
    assert [line["status"] for line in pipeline.log] == ["published", None]
    assert list(pipeline.stored()) == ALL
    pipeline.module.lambda_handler({"Service": "Amazon S3", "Event": "s3:TestEvent"}, None)


def test_another_object_than_the_event_is_about_is_not_read(pipeline):
    event = pipeline.upload(encoded(plain(600, 400), "PNG"))
    pipeline.upload(encoded(plain(60, 40), "PNG"), None)
    with pytest.raises(Exception, match="PreconditionFailed"):
        pipeline.run(event)
    assert pipeline.item()["status"] == "waiting_for_thumbnails"


@pytest.mark.parametrize(
    "status", ["waiting_for_upload", "waiting_for_thumbnails", "published", "invalid_content_type"]
)
def test_a_status_only_goes_forward(pipeline, status):
    event = pipeline.upload(encoded(plain(600, 400), "PNG"), BEGUN | {"status": status})
    after = status if status in ("published", "invalid_content_type") else "published"
    assert pipeline.run(event) == pipeline.item()["status"] == after
    assert pipeline.item()["etag"] == ("0" if after == status else pipeline.item()["etag"])


# --- Failures on the way


@pytest.fixture
def before(pipeline):
    """A function that has others run before a request of an operation to S3 or DynamoDB, in the order of the requests."""
    clients = {"s3": pipeline.module.s3, "dynamodb": pipeline.module.update.__globals__["table"].meta.client}
    registered = []

    def register(service, operation, *actions):
        left = list(actions)

        def act(**_):  # what it returned would be taken for the answer
            if left:
                left.pop(0)()

        clients[service].meta.events.register(f"before-call.{service}.{operation}", act)
        registered.append((service, operation, act))

    yield register
    for service, operation, act in registered:
        clients[service].meta.events.unregister(f"before-call.{service}.{operation}", act)


def fail():
    raise ConnectionError("S3 is away.")


def passes():
    pass


def test_a_thumbnail_that_cannot_be_put_is_put_at_the_next_attempt(pipeline, before):
    event = pipeline.upload(encoded(plain(600, 400), "PNG"))
    before("s3", "PutObject", passes, fail)
    with pytest.raises(ConnectionError):
        pipeline.run(event)
    assert pipeline.item()["status"] == "waiting_for_thumbnails"
    assert "expiresAt" not in pipeline.item(), "it is no upload that never came"
    assert len(pipeline.stored()) == 2, "one thumbnail is there"
    assert pipeline.run(event) == "published"
    assert list(pipeline.stored()) == ALL


def test_a_refused_upload_that_cannot_be_deleted_is_deleted_at_the_next_attempt(pipeline, before):
    event = pipeline.upload(b"text")
    before("s3", "DeleteObject", fail)
    with pytest.raises(ConnectionError):
        pipeline.run(event)
    assert (pipeline.item()["status"], list(pipeline.stored())) == ("invalid_content_type", [f"uploads/{ID}"])
    assert pipeline.run(event) == "invalid_content_type"
    assert pipeline.stored() == {}


@pytest.mark.parametrize("puts", range(4))
def test_an_image_that_is_deleted_meanwhile_leaves_nothing(pipeline, before, puts):
    """Before the first, second, third thumbnail, or after all: the item goes, and with it the objects that are there."""

    def delete():
        for key in pipeline.stored():
            pipeline.s3.delete_object(Bucket="bucket", Key=key)
        pipeline.table.delete_item(Key={"id": ID})

    event = pipeline.upload(encoded(plain(600, 400), "PNG"))
    if puts < 3:
        before("s3", "PutObject", *[passes] * puts, delete)
    else:
        before("dynamodb", "UpdateItem", passes, delete)
    assert pipeline.run(event) is None
    assert (items_of(pipeline.table), pipeline.stored()) == ([], {})


def test_of_equal_events_one_ends_the_image(pipeline, before):
    """While one attempt makes thumbnails another ends: the first finds that all is done, and leaves it so."""
    event = pipeline.upload(encoded(plain(600, 400), "PNG"))
    before(
        "s3", "PutObject", passes, lambda: pipeline.module.lambda_handler(event, SimpleNamespace(aws_request_id="2"))
    )
    ended = []
    before("dynamodb", "UpdateItem", *[passes] * 4, lambda: ended.append(pipeline.item()))
    assert pipeline.run(event) == "published"
    assert pipeline.item()["status"] == "published" and list(pipeline.stored()) == ALL


def test_without_pillow_the_log_says_what_is_missing(pipeline, monkeypatch):
    monkeypatch.setattr(pipeline.module, "Image", None)
    event = pipeline.upload(encoded(plain(600, 400), "PNG"))
    with pytest.raises(ModuleNotFoundError, match="Pillow is missing: set parameter PillowLayer"):
        pipeline.run(event)
    assert pipeline.item()["status"] == "waiting_for_thumbnails"
    monkeypatch.undo()
    assert pipeline.run(event) == "published"
