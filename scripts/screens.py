"""Make the pictures of the page in docs/, in Chromium, of a store on a local engine with the links of screens.csv.

    .venv/bin/python scripts/screens.py

What is in a picture is made as a person makes it. A picture has up to 256 colours, which is all that it needs.
"""

import contextlib
import csv
import io
import json
import shutil
import socket
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import httpx
from PIL import Image
from playwright.sync_api import expect, sync_playwright

import local
import stack

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
LINKS = Path(__file__).with_name("screens.csv")
CONFLICT = {"title": "Learn CSS, the course", "notes": "Twenty chapters."}


def fields_of(line):
    """Return the path and the body that store a line of LINKS, which was added so many days ago."""
    created = datetime.now(timezone.utc) - timedelta(days=float(line["days"]))
    body = {name: line[name] for name in ("link", "title", "notes") if line[name]}
    body |= {"tags": line["tags"].split(), "created_at": created.isoformat(), "visits": int(line["visits"])}
    return f"/link/{line['name']}" if line["name"] else "/link", body


def store_all(client, base):
    """Store LINKS by an httpx client in the API at `base`, without a slash at its end."""
    with LINKS.open(newline="") as lines:
        for line in csv.DictReader(lines):
            path, body = fields_of(line)
            client.request("PUT" if line["name"] else "POST", base + path, json=body).raise_for_status()


def deploy(engine, name, template, **parameters):
    """Create a stack on the engine; return its outputs by name."""
    names = {"url": "AWS_ENDPOINT_URL", "id": "AWS_ACCESS_KEY_ID", "key": "AWS_SECRET_ACCESS_KEY"}
    given = {key: engine.settings[value] for key, value in names.items()}
    client = boto3.client(
        "cloudformation",
        endpoint_url=given["url"],
        aws_access_key_id=given["id"],
        aws_secret_access_key=given["key"],
        region_name=engine.settings["AWS_DEFAULT_REGION"],
    )
    client.create_stack(
        StackName=name,
        TemplateBody=(ROOT / template).read_text(),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
    )
    client.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    (described,) = client.describe_stacks(StackName=name)["Stacks"]
    return {each["OutputKey"]: each["OutputValue"] for each in described["Outputs"]}


def keep(page, name):
    """Write what the page shows to docs/NAME.png."""
    shot = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    path = DOCS / f"{name}.png"
    shot.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


def shoot(browser, url, client, base):
    """Make all pictures of the page at `url`, of the store that `client` reaches at `base`."""

    def opened(width=1280, height=900, fragment="", **more):
        page = browser.new_context(viewport={"width": width, "height": height}, **more).new_page()
        with page.expect_response("**/tags?"):
            page.goto(url + fragment)
        expect(page.locator("#count")).to_contain_text("link")
        return page

    page = opened(height=480)
    expect(page.locator("#empty")).to_be_visible()
    keep(page, "page-empty")
    store_all(client, base)
    keep(opened(), "page")
    keep(opened(color_scheme="dark"), "page-dark")
    keep(opened(375, 812, has_touch=True), "page-phone")
    keep(opened(height=620, fragment="#tag=web"), "page-tags")

    page = opened(height=620)
    page.keyboard.press("n")
    page.keyboard.insert_text("https://datatracker.ietf.org/doc/html/rfc9457")
    page.keyboard.press("Tab")
    page.keyboard.insert_text("http,")
    page.keyboard.insert_text("r")
    keep(page, "page-form")

    page = opened(height=620)
    for key in "jxjjxjx":
        page.keyboard.press(key)
    page.get_by_label("Add a tag").fill("standards")
    page.get_by_label("Take off a tag").fill("reference")
    keep(page, "page-select")

    page = opened(height=700)
    page.get_by_role("button", name="Edit Learn CSS").click()
    page.get_by_role("textbox", name="Title").fill("Learn CSS on web.dev")
    client.patch(f"{base}/link/css", content=json.dumps(CONFLICT)).raise_for_status()
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("group", name="Changed elsewhere")).to_be_visible()
    keep(page, "page-conflict")


@contextlib.contextmanager
def running():
    """Run an engine with an empty store and its page; give a browser, the page's URL, a client and the API's base."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    free = {"RequestsPerSecond": "10000", "RequestBurst": "5000"}
    with local.engine(port) as engine, sync_playwright() as playwright:
        endpoint = engine.settings["AWS_ENDPOINT_URL"]
        api = urlsplit(stack.reachable(deploy(engine, "links", "setupapidb.yml", **free)["APIUrl"], endpoint))
        store_url = f"http://{api.netloc}/prod/link"
        page = deploy(engine, "links-page", "addons/page.yml", Store="links", StoreUrl=store_url, **free)
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        with httpx.Client(headers={"Host": api.netloc}, timeout=60, trust_env=False) as client:
            yield browser, stack.reachable(page["PageUrl"], endpoint), client, f"http://127.0.0.1:{port}/prod"
        browser.close()


def main():
    with running() as (browser, url, client, base):
        shoot(browser, url, client, base)


if __name__ == "__main__":
    main()
