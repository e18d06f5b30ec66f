"""Images, stacks/images.yml: uploads by signed URLs, and what an event makes of them."""

import contextlib
import io
import json
import re
import time
from datetime import datetime, timedelta, timezone
from io import BytesIO
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import boto3
import httpx
import pytest
from botocore.credentials import Credentials
from moto import mock_aws
from PIL import Image

import stack
from conftest import NEVER_THROTTLED, ROOT, named, outputs, proxy_response, recorded, resource_ids
from conftest import create as deploy
from pictures import HOSTILE, JPEG, PNG, encoded, photo, plain
from stacks import (
    CREDENTIALS,
    System,
    emptied,
    fails_inside,
    handler_of,
    is_cors,
    sender,
    system_at,
    template_of,
    without,
)
from test_access import signed
from test_races import at_once, winner
from test_readme import shell, variable
from test_stacks import UUID, run, section

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
    bucket = bucket_at(engine, outputs(engine, named("tests-images"))["BucketName"])
    bucket.objects.all().delete()
    return bucket


def bucket_at(engine, name):
    return boto3.resource("s3", endpoint_url=engine.settings["AWS_ENDPOINT_URL"], **CREDENTIALS).Bucket(name)


@pytest.fixture
def here(engine, system_stack, storage):
    """A function that gives the API, or the function of thumbnails, as a module in this process, on the engine's data.

    The engine starts a process for each request that comes while others are under way.
    """
    with contextlib.ExitStack() as loaded:

        def load(name):
            settings = {"AWS_ENDPOINT_URL": engine.settings["AWS_ENDPOINT_URL"], "TABLE": system_stack.table.name}
            settings |= {"BUCKET": storage.name, "UPLOAD_SECONDS": "300"}
            return loaded.enter_context(handler_of(name, settings))

        yield load


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


@pytest.mark.parametrize(("form", "kind", "of"), [("PNG", PNG, plain), ("JPEG", JPEG, photo)])
def test_an_image_is_uploaded_and_published(system_stack, storage, form, kind, of):
    data = encoded(of(3000, 2000), form)
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


# --- What the API answers


@pytest.fixture
def system_events(loaded_system):
    """A client of the function on moto, with the bucket that it signs for."""
    emptied(loaded_system.table)
    loaded_system.s3.create_bucket(Bucket="bucket")
    return System(sender(loaded_system), loaded_system.table)


def test_an_image_is_created_with_a_place_to_put_it(system):
    answer = system("POST", "/images", {"contentType": "image/jpg", "size": 5})
    created = answer.json()
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    assert answer.headers["Location"].endswith(f"/prod/images/{created['id']}")
    assert list(created) == "id status contentType size createdAt updatedAt uploadUrl uploadHeaders".split()
    assert (created["status"], created["contentType"], created["size"]) == ("waiting_for_upload", JPEG, 5)
    assert created["uploadHeaders"] == {"Content-Type": JPEG, "If-None-Match": "*"}
    (item,) = system.items()
    times = {name: datetime.fromisoformat(created[name].replace("Z", "+00:00")) for name in ("createdAt", "updatedAt")}
    assert times["createdAt"] == times["updatedAt"]
    until = datetime.fromtimestamp(int(item["expiresAt"]), timezone.utc) - times["createdAt"]
    assert abs(until - timedelta(days=1)) < timedelta(seconds=2)
    found = system("GET", f"/images/{created['id']}")
    assert (found.status_code, found.headers["Cache-Control"]) == (200, "no-store")
    assert found.json() == {name: value for name, value in created.items() if not name.startswith("upload")}
    head = system("HEAD", f"/images/{created['id']}")
    assert (head.status_code, head.content) == (200, b"")


TYPE, SIZE = "contentType must be one of image/jpeg, image/jpg, image/png.", "size must be a whole number from 1"
GOOD = {"contentType": PNG, "size": 5}
TYPES = ["image/gif", "IMAGE/PNG ; x", "image/png ", "image/svg+xml", "application/x-www-form-urlencoded", "", None, 1]
BAD = [
    *[(body, "The body must be a JSON object.") for body in ("", "[]", "null", "{", b"\x89PNG\r\n\x1a\n")],
    *[(GOOD | {"contentType": kind}, TYPE) for kind in [*TYPES, [], {}, True, "image/png\n"]],
    *[(GOOD | {"size": size}, SIZE) for size in (0, -1, 1.5, 5.0, True, "5", None, [], MOST + 1, 10**30)],
    ('{"contentType": "image/png", "size": NaN}', SIZE),
    ({"size": 5}, TYPE),
    ({"contentType": PNG}, SIZE),
    *[(GOOD | {name: "x"}, f"'{name}' cannot be set") for name in ("id", "status", "uploadUrl", "expiresAt", "etag")],
]


@pytest.mark.parametrize("body, sentence", BAD, ids=range(len(BAD)))
def test_what_is_no_image_to_be_is_refused(system, body, sentence):
    system.refuses(400, sentence, "POST", "/images", body)


def test_the_limits_are_within(system):
    for size in (1, MOST):
        assert system("POST", "/images", GOOD | {"size": size}).status_code == 201


@pytest.mark.parametrize("image_id", [UNKNOWN, UNKNOWN.upper(), "x", "%00", "%F0", "x" * 3000, UNKNOWN + "%0A"])
def test_an_unknown_image_is_not_found(system, image_id):
    system("POST", "/images", GOOD)
    for method in ("GET", "DELETE"):
        system.refuses(404, "There is no image with this id.", method, f"/images/{image_id}")


def test_other_methods_and_paths(system):
    is_cors(system, "/images", "POST, OPTIONS")
    is_cors(system, f"/images/{UNKNOWN}", "GET, DELETE, HEAD, OPTIONS")
    system.refuses(404, "There is no such path here; there are /images, /images/{id}.", "GET", "/images/1/2")


# --- What is signed


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-east-1", "bucket.s3.us-east-1.amazonaws.com"),
        ("eu-central-1", "bucket.s3.eu-central-1.amazonaws.com"),
        ("cn-north-1", "bucket.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_a_signature_binds_the_headers_on_the_host_of_the_region(region, host):
    """The local engine, which is no host of AWS, cannot show it."""
    with handler_of("images", SETTINGS | {"AWS_DEFAULT_REGION": region}) as module:
        upload = module.upload_of({"id": "i", "contentType": PNG, "size": 5})
        record = module.record_of({"id": "i", "status": "published"})
    signed = urlsplit(upload["uploadUrl"])
    query = parse_qs(signed.query)
    assert (signed.scheme, signed.netloc, signed.path) == ("https", host, "/uploads/i")
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"] and query["X-Amz-Expires"] == ["300"]
    assert query["X-Amz-SignedHeaders"] == ["content-length;content-type;host;if-none-match"]
    assert f"/{region}/s3/aws4_request" in query["X-Amz-Credential"][0]
    assert record["thumbnails"].keys() == {"small", "medium", "large"}
    for name, url in record["thumbnails"].items():
        seen, query = urlsplit(url), parse_qs(urlsplit(url).query)
        assert (seen.netloc, seen.path) == (host, f"/thumbnails/i/{name}")
        assert query["X-Amz-SignedHeaders"] == ["host"] and query["X-Amz-Expires"] == ["900"]


def test_only_what_was_announced_can_be_uploaded_and_only_there(system_stack, storage):
    data = encoded(plain(60, 40), "PNG")
    created, other = create(system_stack, data), create(system_stack, data)
    refused = {
        "one byte more": put(created, data + b"x"),
        "one byte less": put(created, data[:-1]),
        "another type": put(created, data, {"Content-Type": JPEG}),
        "no type": put(created, data, {"Content-Type": None}),
        "no condition": put(created, data, {"If-None-Match": None}),
        "another condition": put(created, data, {"If-None-Match": '"x"'}),
        "another key": put(created, data, url=created["uploadUrl"].replace(created["id"], other["id"])),
        "a thumbnail": put(created, data, url=created["uploadUrl"].replace("/uploads/", "/thumbnails/")),
        "longer": put(created, data, url=created["uploadUrl"].replace("Expires=300", "Expires=3000")),
        "no signature": put(created, data, url=created["uploadUrl"].partition("?")[0]),
        "to read it": httpx.get(created["uploadUrl"], trust_env=False),
    }
    assert {name: answer.status_code for name, answer in refused.items()} == dict.fromkeys(refused, 403)
    assert keys(storage) == []
    assert system_stack("GET", f"/images/{created['id']}").json()["status"] == "waiting_for_upload"
    assert put(created, data).status_code == 200
    seen(system_stack, created["id"], ["published"])


def test_an_upload_cannot_be_replaced(system_stack, storage):
    data = encoded(plain(600, 400), "PNG")
    created = create(system_stack, data)
    assert put(created, data).status_code == 200
    assert put(created, data).status_code == 412
    before, _ = seen(system_stack, created["id"], ["published"])
    objects = {each.key: (each.e_tag, each.last_modified) for each in storage.objects.all()}
    assert put(created, data[::-1]).status_code == 412
    after = system_stack("GET", f"/images/{created['id']}").json()
    assert {**after, "thumbnails": 0} == {**before, "thumbnails": 0}
    assert {each.key: (each.e_tag, each.last_modified) for each in storage.objects.all()} == objects


def test_one_of_many_uploads_at_once_is_taken(system_stack, storage):
    data = encoded(plain(600, 400), "PNG")
    created = create(system_stack, data)
    winner(at_once(lambda _: put(created, data)), 200, 412)
    seen(system_stack, created["id"], ["published"])
    assert keys(storage) == objects_of(created["id"])


def test_who_has_no_signature_sees_nothing(system_stack, storage):
    data = encoded(plain(600, 400), "PNG")
    image = uploaded(system_stack, data)
    bare = {url.partition("?")[0] for url in image["thumbnails"].values()}
    bucket = bare.pop().split("/thumbnails/")[0]
    for url in (*bare, f"{bucket}/uploads/{image['id']}", bucket, f"{bucket}/?list-type=2"):
        assert httpx.get(url, trust_env=False).status_code == 403, url
        assert httpx.delete(url, trust_env=False).status_code == 403, url
    assert httpx.put(f"{bucket}/uploads/x", content=b"x", trust_env=False).status_code == 403
    seen_by_one = image["thumbnails"]["small"].replace("/small?", "/large?")
    assert httpx.get(seen_by_one, trust_env=False).status_code == 403


def test_an_upload_after_its_time_is_refused(engine, system_stack, storage):
    """In a stack beside the other, where a URL lasts a second."""
    parameters = NEVER_THROTTLED | {"UploadSeconds": "1"}
    with system_at(engine, "images", "short-images", parameters) as system:
        data = encoded(plain(60, 40), "PNG")
        created = create(system, data)
        query = parse_qs(urlsplit(created["uploadUrl"]).query)
        assert query["X-Amz-Expires"] == ["1"]
        signed = datetime.strptime(query["X-Amz-Date"][0] + "+0000", "%Y%m%dT%H%M%SZ%z")
        while datetime.now(timezone.utc) <= signed + timedelta(seconds=2):
            time.sleep(0.1)
        assert put(created, data).status_code == 403
        assert system("GET", f"/images/{created['id']}").json()["status"] == "waiting_for_upload"
        assert system_stack.items() == [] and keys(storage) == []


# --- Deleting


def test_an_image_is_deleted_with_its_objects(system_stack, storage):
    data = encoded(plain(600, 400), "PNG")
    image, kept = uploaded(system_stack, data), uploaded(system_stack, data)
    answer = system_stack("DELETE", f"/images/{image['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert keys(storage) == objects_of(kept["id"])
    assert [item["id"] for item in system_stack.items()] == [kept["id"]]
    assert httpx.get(image["thumbnails"]["small"], trust_env=False).status_code in (403, 404)
    system_stack.refuses(404, "There is no image with this id.", "DELETE", f"/images/{image['id']}")


def test_of_deletions_at_once_one_wins(system_stack, storage, here):
    image = uploaded(system_stack, encoded(plain(600, 400), "PNG"))
    api = here("images")
    event = recorded("DELETE", f"/images/{image['id']}", {}, None)
    winner(at_once(lambda _: proxy_response(api.lambda_handler(event, None))), 204, 404)
    assert keys(storage) == [] == system_stack.items()


def test_an_upload_to_a_deleted_image_is_deleted(system_stack, storage):
    data = encoded(plain(600, 400), "PNG")
    created = create(system_stack, data)
    assert system_stack("DELETE", f"/images/{created['id']}").status_code == 204
    assert put(created, data).status_code == 200
    while keys(storage):
        time.sleep(0.01)
    assert system_stack.items() == []


def test_images_that_are_deleted_while_they_are_made_leave_nothing(system_stack, storage):
    """As they go through the whole stack; that it is so at each moment is tested below."""
    data = encoded(photo(1500, 1000), "JPEG")
    for _ in range(5):
        created = create(system_stack, data, JPEG)
        assert put(created, data).status_code == 200
        assert system_stack("DELETE", f"/images/{created['id']}").status_code == 204
    assert system_stack.items() == []
    # Each event comes to its end, and none of them leaves an object.
    last = uploaded(system_stack, data, JPEG)
    while keys(storage) != objects_of(last["id"]):
        time.sleep(0.05)


class Both:
    """The API and the function of thumbnails on one moto, whose requests can be stopped."""

    def __init__(self, api, thumbnails):
        self.api, self.thumbnails, self.table, self.s3 = api, thumbnails, api.table, boto3.client("s3")
        self.call = System(sender(api), api.table)
        tables = (api.table, thumbnails.update.__globals__["table"])
        self.clients = [api.s3, thumbnails.s3, *(table.meta.client for table in tables)]

    def keys(self):
        return sorted(each["Key"] for each in self.s3.list_objects_v2(Bucket="bucket").get("Contents", []))

    def upload(self, data):
        """Create an image and put its bytes; return its id, and the event of S3."""
        image_id = create(self.call, data)["id"]
        etag = self.s3.put_object(Bucket="bucket", Key=f"uploads/{image_id}", Body=data)["ETag"].strip('"')
        return image_id, event_of("bucket", image_id, etag)

    def run(self, event):
        with contextlib.redirect_stdout(io.StringIO()):
            self.thumbnails.lambda_handler(event, SimpleNamespace(aws_request_id="r"))

    @contextlib.contextmanager
    def before(self, operation, *actions):
        """Do these one after the other before each request of this operation, such as s3.PutObject."""
        left = list(actions)

        def act(**_):  # what it returned would be taken for the answer
            if left:
                left.pop(0)()

        for client in self.clients:
            client.meta.events.register(f"before-call.{operation}", act)
        yield
        for client in self.clients:
            client.meta.events.unregister(f"before-call.{operation}", act)
        assert not left, operation


@pytest.fixture
def both(system_events, loaded_system):
    with handler_of("thumbnails", {"TABLE": "images"}) as thumbnails:
        found = Both(loaded_system, thumbnails)
        for key in found.keys():
            found.s3.delete_object(Bucket="bucket", Key=key)
        yield found


def fail():
    raise ConnectionError("S3 is away.")


def passes():
    pass


@pytest.mark.parametrize(
    "operation, before", [("s3.PutObject", n) for n in range(3)] + [("dynamodb.UpdateItem", n) for n in range(2)]
)
def test_an_image_that_is_deleted_on_its_way_leaves_nothing(both, operation, before):
    image_id, event = both.upload(encoded(plain(600, 400), "PNG"))
    delete = lambda: both.call("DELETE", f"/images/{image_id}")
    with both.before(operation, *[passes] * before, delete):
        both.run(event)
    assert both.keys() == [] == both.call.items()


@pytest.mark.parametrize("before", range(4))
def test_an_image_that_is_finished_while_it_is_deleted_is_deleted(both, before):
    """The item is another than before, so all is done once more."""
    image_id, event = both.upload(encoded(plain(600, 400), "PNG"))
    with both.before("s3.DeleteObject", *[passes] * before, lambda: finish(both, event)):
        assert both.call("DELETE", f"/images/{image_id}").status_code == 204
    with contextlib.suppress(Exception):  # where there was no upload any more, Lambda tries again
        both.run(event)
    assert both.keys() == [] == both.call.items()


def finish(both, event):
    with contextlib.suppress(both.s3.exceptions.NoSuchKey):  # the upload may be deleted already
        both.run(event)


@pytest.mark.parametrize("done", range(4))
def test_a_deletion_that_fails_can_be_repeated(both, done):
    image_id, event = both.upload(encoded(plain(600, 400), "PNG"))
    both.run(event)
    with both.before("s3.DeleteObject", *[passes] * done, fail):
        fails_inside(both.call("DELETE", f"/images/{image_id}"))
    assert both.call("GET", f"/images/{image_id}").json()["status"] == "published"
    assert both.call("DELETE", f"/images/{image_id}").status_code == 204
    assert both.keys() == [] == both.call.items()


def test_a_deletion_whose_answer_is_lost_is_done(both):
    image_id, _ = both.upload(encoded(plain(600, 400), "PNG"))
    tries = []

    def again(**_):
        """Have the SDK send the request once more, as it does when no answer comes."""
        tries.append(1)
        return 0 if len(tries) == 1 else None

    events = both.table.meta.client.meta.events
    events.register("needs-retry.dynamodb.DeleteItem", again)
    assert both.call("DELETE", f"/images/{image_id}").status_code == 204
    events.unregister("needs-retry.dynamodb.DeleteItem", again)
    assert len(tries) == 2 and both.call.items() == []


# --- Events at once, and what fails on the way


def event_of(bucket, image_id, etag):
    """Return the event of S3 that tells of an upload."""
    event = json.loads((ROOT / "tests" / "events" / "upload.json").read_text())
    event["Records"][0]["s3"] |= {"bucket": {"name": bucket}, "object": {"key": f"uploads/{image_id}", "eTag": etag}}
    return event


@pytest.fixture
def quiet_bucket(engine):
    bucket = bucket_at(engine, "quiet")
    bucket.create()
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


def test_of_equal_events_at_once_one_finishes_the_image(system_stack, quiet_bucket, here, monkeypatch):
    """Fifty, and one more after the end: each status is entered once, by one of them, and none goes back."""
    thumbnails = here("thumbnails")
    monkeypatch.setattr(thumbnails, "time_limit", contextlib.nullcontext)  # which a thread cannot have
    entered, update = [], thumbnails.update

    def noted(key, condition, values):
        done, item = update(key, condition, values)
        entered.extend([values["status"]] if done else [])
        return done, item

    monkeypatch.setattr(thumbnails, "update", noted)
    data = encoded(plain(600, 400), "PNG")
    image_id = create(system_stack, data)["id"]
    # The function takes the bucket from the event; this one tells nobody of the upload.
    quiet = quiet_bucket.put_object(Key=f"uploads/{image_id}", Body=data)
    event, context = event_of(quiet_bucket.name, image_id, quiet.e_tag.strip('"')), SimpleNamespace(aws_request_id="r")
    at_once(lambda _: thumbnails.lambda_handler(event, context))
    assert entered == ["waiting_for_thumbnails", "published"]
    before = system_stack.items()
    thumbnails.lambda_handler(event, context)
    assert system_stack.items() == before and before[0]["status"] == "published"
    assert keys(quiet_bucket) == objects_of(image_id)


def test_what_fails_three_times_waits_in_the_queue_and_can_be_tried_again(engine, system_stack, storage):
    """And on the way a client that polls sees each status; the command that tries again is the README's."""
    sqs = boto3.client("sqs", endpoint_url=engine.settings["AWS_ENDPOINT_URL"], **CREDENTIALS)
    queue = resource_ids(engine, named("tests-images"))["FailedEvents"]
    data = encoded(plain(600, 400), "PNG")
    created = create(system_stack, data)
    polled = [system_stack("GET", f"/images/{created['id']}").json()["status"]]
    with without(engine, named("tests-images"), "s3:PutObject", "ThumbnailsRole"):
        assert put(created, data).status_code == 200
        failed = []
        while f"uploads/{created['id']}" not in failed:
            for message in sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", []):
                (record,) = json.loads(message["Body"])["requestPayload"]["Records"]
                failed.append(record["s3"]["object"]["key"])
        polled.append(system_stack("GET", f"/images/{created['id']}").json()["status"])
        assert keys(storage) == [f"uploads/{created['id']}"]
    assert uploaded(system_stack, data)["status"] == "published"
    (command,) = re.findall(r"^aws s3 cp .*$", (ROOT / "stacks" / "README.md").read_text(), re.M)
    before = keys(storage)
    shell(engine, command.replace("BUCKET", storage.name))
    polled.append(seen(system_stack, created["id"], STATUSES[2:])[0]["status"])
    assert polled == STATUSES[:3]
    assert keys(storage) == sorted({*before, *objects_of(created["id"])}), "what was published is as it was"


ACTIONS = [
    ("Role", "dynamodb:PutItem", "POST"),
    ("Role", "dynamodb:GetItem", "GET"),
    ("Role", "dynamodb:DeleteItem", "DELETE"),
    ("Role", "s3:DeleteObject uploads/", "DELETE"),
    ("Role", "s3:DeleteObject thumbnails/", "DELETE"),
]


@pytest.mark.parametrize(("role", "action", "method"), ACTIONS, ids=[f"{role} {action}" for role, action, _ in ACTIONS])
def test_the_api_needs_each_action_of_its_role(engine, system_stack, role, action, method):
    created = create(system_stack, b"x")
    path = "/images" if method == "POST" else f"/images/{created['id']}"
    name, _, resource = action.partition(" ")
    with without_on(engine, name, role, resource):
        fails_inside(system_stack(method, path, GOOD if method == "POST" else None))
    assert system_stack(method, path, GOOD if method == "POST" else None).status_code < 300


def without_on(engine, action, role, folder):
    """Take an action out of a role, for this folder of the bucket only if one is named."""
    bucket = outputs(engine, named("tests-images"))["BucketName"]
    return without(engine, named("tests-images"), action, role, f"{bucket}/{folder}" if folder else "")


@pytest.mark.parametrize("action, status", [("s3:PutObject", 403), ("s3:GetObject", 403)])
def test_signed_urls_can_do_what_the_role_may_do(engine, system_stack, storage, action, status):
    data = encoded(plain(600, 400), "PNG")
    image, created = uploaded(system_stack, data), create(system_stack, data)
    with without(engine, named("tests-images"), action):
        put_, get = put(created, data), httpx.get(image["thumbnails"]["small"], trust_env=False)
    expected = {"s3:PutObject": (403, 200), "s3:GetObject": (200, 403)}[action]
    assert (put_.status_code, get.status_code) == expected


@pytest.mark.parametrize(
    "action",
    ["dynamodb:UpdateItem", "s3:GetObject uploads/", "s3:DeleteObject uploads/", "s3:DeleteObject thumbnails/"],
)
def test_the_function_needs_each_action_of_its_role(engine, system_stack, storage, action):
    """It is told of an object of no image, or of one with an image, and fails."""
    name, _, folder = action.partition(" ")
    created = create(system_stack, b"text")
    key = f"uploads/{created['id'] if name != 's3:DeleteObject' else 'x'}"
    function = boto3.client("lambda", endpoint_url=engine.settings["AWS_ENDPOINT_URL"], **CREDENTIALS)
    event = event_of(storage.name, key.removeprefix("uploads/"), "x")
    with without_on(engine, name, "ThumbnailsRole", folder):
        answer = function.invoke(
            FunctionName=resource_ids(engine, named("tests-images"))["Thumbnails"], Payload=json.dumps(event)
        )
    assert answer.get("FunctionError") and "AccessDenied" in answer["Payload"].read().decode()


# --- The template


def of_kind(kind):
    return {name: each for name, each in template_of("images")["Resources"].items() if each["Type"] == f"AWS::{kind}"}


def test_the_bucket_is_closed_and_tells_of_uploads_only():
    """The local engine leaves some of this out."""
    (bucket,) = of_kind("S3::Bucket").values()
    properties = bucket["Properties"]
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(properties["PublicAccessBlockConfiguration"]) == 4
    assert properties["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    (rule,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    (cors,) = properties["CorsConfiguration"]["CorsRules"]
    assert (cors["AllowedOrigins"], cors["AllowedMethods"]) == ([{"Ref": "AllowedOrigin"}], ["GET", "PUT"])
    (rule,) = properties["LifecycleConfiguration"]["Rules"]
    assert rule == {"Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}
    (told,) = properties["NotificationConfiguration"]["LambdaConfigurations"]
    assert (told["Event"], told["Function"]) == ("s3:ObjectCreated:*", {"Fn::GetAtt": ["Thumbnails", "Arn"]})
    assert told["Filter"] == {"S3Key": {"Rules": [{"Name": "prefix", "Value": "uploads/"}]}}
    assert (bucket["DeletionPolicy"], bucket["UpdateReplacePolicy"]) == ("Delete", "Retain")
    assert "BucketName" not in properties and bucket["DependsOn"] == "EventPermission"


def test_only_buckets_of_the_account_call_the_function():
    permission = template_of("images")["Resources"]["EventPermission"]["Properties"]
    assert permission == {
        "Action": "lambda:InvokeFunction",
        "FunctionName": {"Ref": "Thumbnails"},
        "Principal": "s3.amazonaws.com",
        "SourceAccount": {"Ref": "AWS::AccountId"},
    }


def test_failures_go_to_a_queue():
    resources = template_of("images")["Resources"]
    retries, queue = resources["ThumbnailsRetries"]["Properties"], resources["FailedEvents"]["Properties"]
    assert retries["FunctionName"] == {"Ref": "Thumbnails"} and retries["MaximumRetryAttempts"] == 2
    assert retries["DestinationConfig"] == {"OnFailure": {"Destination": {"Fn::GetAtt": ["FailedEvents", "Arn"]}}}
    assert queue == {"MessageRetentionPeriod": 14 * 24 * 60 * 60, "SqsManagedSseEnabled": True}


def test_what_waits_for_its_upload_expires():
    table = template_of("images")["Resources"]["Table"]["Properties"]
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expiresAt", "Enabled": True}


def test_the_layer_is_there_only_if_it_is_given():
    function = template_of("images")["Resources"]["Thumbnails"]["Properties"]
    assert function["Layers"] == {"Fn::If": ["HasPillowLayer", [{"Ref": "PillowLayer"}], {"Ref": "AWS::NoValue"}]}
    pattern = template_of("images")["Parameters"]["PillowLayer"]["AllowedPattern"]
    for arn in (
        "",
        "arn:aws:lambda:eu-central-1:123456789012:layer:pillow:1",
        "arn:aws-cn:lambda:cn-north-1:123456789012:layer:p:1",
    ):
        assert re.fullmatch(pattern, arn)
    for arn in ("pillow", "arn:aws:lambda:eu-central-1:123456789012:layer:pillow"):
        assert not re.fullmatch(pattern, arn), "the ARN is that of a version"


def test_the_roles_have_what_is_used_and_no_more():
    """That each of it is used, the tests above show by taking it out. The API cannot read uploads, the decoder no table."""
    resources, allowed = template_of("images")["Resources"], {}
    for name, each in {**of_kind("IAM::Role"), **of_kind("IAM::Policy")}.items():
        properties = each["Properties"]
        (role,) = [role["Ref"] for role in properties.get("Roles", [])] or [name]
        policies = properties.get("Policies", [properties])
        assert "ManagedPolicyArns" not in properties
        for statement in (statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]):
            (on,) = statement["Resource"].values()
            on = on if isinstance(on, str) else ".".join(on)
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            allowed.setdefault(role, set()).update((action, on) for action in actions)
    logs = lambda group: {("logs:CreateLogStream", f"{group}.Arn"), ("logs:PutLogEvents", f"{group}.Arn")}
    uploads, thumbnails = "${Bucket.Arn}/uploads/*", "${Bucket.Arn}/thumbnails/*"
    assert allowed == {
        "Role": logs("LogGroup")
        | {(f"dynamodb:{action}", "Table.Arn") for action in ("PutItem", "GetItem", "DeleteItem")}
        | {("s3:PutObject", uploads), ("s3:DeleteObject", uploads)}
        | {("s3:GetObject", thumbnails), ("s3:DeleteObject", thumbnails)},
        "ThumbnailsRole": logs("ThumbnailsLogGroup")
        | {("dynamodb:UpdateItem", "Table.Arn"), ("sqs:SendMessage", "FailedEvents.Arn")}
        | {("s3:GetObject", uploads), ("s3:DeleteObject", uploads)}
        | {("s3:PutObject", thumbnails), ("s3:DeleteObject", thumbnails)},
    }
    assert resources["Function"]["Properties"]["Role"] == {"Fn::GetAtt": ["Role", "Arn"]}
    assert resources["Thumbnails"]["Properties"]["Role"] == {"Fn::GetAtt": ["ThumbnailsRole", "Arn"]}


def test_both_functions_know_the_same_sizes():
    with mock_aws(), handler_of("images", SETTINGS) as api, handler_of("thumbnails", {}) as thumbnails:
        assert sorted(api.SIZES) == sorted(thumbnails.SIDES)
        assert set(api.TYPES.values()) == set(thumbnails.FORMATS)


# --- The README


SIGNED_URL = re.compile(r"https?://[^\s\"']+X-Amz-Signature=[0-9a-f]+")


def test_the_transcript_is_what_happens(engine, curl, tmp_path):
    """What is printed with a status is asked for until it is so."""
    deploy(engine, "readme-images", "stacks/images.yml", {})
    url = stack.reachable(outputs(engine, "readme-images")["APIUrl"], engine.settings["AWS_ENDPOINT_URL"])
    (transcript,) = re.findall(r"^```console\n(.*?)^```", section("images"), re.M | re.S)
    steps = re.findall(r"^\$ (.*)\n((?:[^$\n].*\n)*)", transcript, re.M)
    assert len(steps) == transcript.count("$ curl") == 9
    here = {}  # what ids and URLs of the README are here
    of = lambda text: UUID.sub(
        lambda found: here.get(found[0], found[0]), SIGNED_URL.sub(lambda found: here.get(found[0], found[0]), text)
    )
    plain_text = lambda text: variable(SIGNED_URL.sub("URL", text))
    status = lambda text: re.findall('"status": "(.*?)"', text)
    for command, printed in steps:
        command = of(command).replace("small.jpg", str(tmp_path / "small.jpg"))
        answer = run(engine, url, command)
        while status(answer) != status(printed):
            assert STATUSES.index(status(answer)[0]) < STATUSES.index(status(printed)[0])
            answer = run(engine, url, command)
        for kind in (UUID, SIGNED_URL):
            here |= dict(zip(kind.findall(printed), kind.findall(answer), strict=True))
        assert plain_text(answer) == plain_text(of(printed)), command
    with Image.open(tmp_path / "small.jpg") as small:
        assert (small.format, small.size) == ("JPEG", (160, 120))


def test_what_the_template_says_to_try_works(engine, curl):
    deploy(engine, "try-images", "stacks/images.yml", {})
    url = stack.reachable(outputs(engine, "try-images")["APIUrl"], engine.settings["AWS_ENDPOINT_URL"])
    printed = run(engine, url, template_of("images")["Metadata"]["Try"])
    assert json.loads(printed)["status"] in STATUSES[:3]


def test_routes_are_documented():
    documented = set(re.findall(r"^\| `([A-Z]+ /\S*)` \|", section("images"), re.M))
    with mock_aws(), handler_of("images", SETTINGS) as module:
        assert documented == {f"{method} {route}" for route, methods in module.ROUTES.items() for method in methods}


def test_the_bucket_is_emptied_as_the_readme_says(engine, system_stack, storage):
    uploaded(system_stack, encoded(plain(60, 40), "PNG"))
    (command,) = re.findall(r"^aws s3 rm .*$", (ROOT / "stacks" / "README.md").read_text(), re.M)
    shell(engine, command.replace("BUCKET", storage.name))
    assert keys(storage) == []


# --- Who may call


def test_with_iam_only_who_signs_is_answered(engine):
    with system_at(engine, "images", "iam-images", NEVER_THROTTLED | {"Access": "iam"}) as system:
        user, body = Credentials("test", "test"), json.dumps(GOOD)
        refused = system("POST", "/images", body)
        assert (refused.status_code, refused.json()["Error"][:24]) == (403, "API Gateway refused this")
        answer = system("POST", "/images", body, signed(system, user, "POST", "/images", GOOD))
        assert answer.status_code == 201 and len(system.items()) == 1
        path = f"/images/{answer.json()['id']}"
        for method, status in (("GET", 200), ("DELETE", 204)):
            assert system(method, path).status_code == 403
            assert system(method, path, headers=signed(system, user, method, path, None)).status_code == status
        assert system.items() == []
