"""What is around the page, in Chromium: hostile content, other pages, keys, two origins, and no network."""

import re
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.sync_api import expect

import stack
from conftest import NEVER_THROTTLED, aws, create, create_stack, http_api, key_of, named, outputs, settled
from pages import (
    EXAMPLE,
    LATER,
    OTHER,
    add,
    answer_to_questions,
    chips,
    dialog,
    excuse,
    fetch,
    field,
    from_bookmarklet,
    listened,
    panel,
    post_all,
    prepared,
    press,
    press_in_row,
    press_more,
    put_up,
    refused,
    rows,
    save,
    saved,
    search,
    titles,
    toast,
    until,
)


@pytest.fixture
def api(stack_api):
    return stack_api


# --- Hostile content

HOSTILE = """"'><script>window.planted=1</script><img src=x onerror=window.planted=1>"""


def test_hostile_content_is_text(page, api):
    link = f"https://example.com/{HOSTILE}".replace(" ", "/")
    api.post(f"{link}/untitled")
    for each in (link, "https://javascript:alert(1)@example.com/", "https://example.com/#javascript:alert(1)"):
        api.post(each, title=HOSTILE, tags=[HOSTILE[:64], "javascript:alert(1)"], notes=HOSTILE * 2)
    elements = "document.querySelectorAll('script, img').length"
    before = page.evaluate(elements)
    page.reload()
    expect(titles(page)).to_have_text([*[HOSTILE] * 3, f"{link}/untitled"])
    expect(rows(page).first).to_contain_text(HOSTILE * 2)
    assert set(titles(page).evaluate_all("links => links.map(link => link.protocol)")) == {"https:"}
    rows(page).first.get_by_role("link", name=f"#{HOSTILE[:64]}").click()
    expect(rows(page)).to_have_count(3)
    press_more(page, "Select links")
    rows(page).first.get_by_role("button", name="Edit").click()
    expect(field(page, "Notes")).to_have_value(HOSTILE * 2)
    expect(chips(page)).to_have_text([HOSTILE[:64], "javascript:alert(1)"])
    field(page, "Tags").fill("script")
    press(page, "Cancel") if answer_to_questions(page, True) == [] else None
    rows(page).first.get_by_role("button", name="Delete").click()
    expect(rows(page).first).to_contain_text(f"Deleted {HOSTILE}")
    assert page.evaluate("window.planted") is None
    assert page.evaluate(elements) == before


@pytest.mark.parametrize("link", ["javascript:window.planted=1", "JavaScript:window.planted=1", "data:text/html,x"])
def test_only_http_is_followed_whatever_the_api_says(page, link):
    record = {"link_id": "a", "link": link, "title": "Bad", "created_at": LATER, "updated_at": LATER}
    page.route("**/link?", lambda route: route.fulfill(json=[record]))
    page.reload()
    expect(titles(page)).to_have_text(["Bad"])
    assert titles(page).get_attribute("href") is None


def test_nothing_in_a_row_pushes_what_is_beside_it(page, api):
    """Characters that turn the direction, 8,000 in a URL, 32 tags of 64, and a title that looks blank."""
    override = "\u202egnp.exe\u202d"
    api.post("https://example.com/" + "x" * 8000, title=override, tags=[f"{override}{n:050}" for n in range(32)])
    api.post("https://example.com/blank", title="\u3164 \u200b\u2800", tags=["\u3164"])
    api.post("https://example.com/emoji", title="\U0001f469\u200d\U0001f469\u200d\U0001f467 family")
    api.post("https://example.com/plain", title="Plain")
    page.reload()
    expect(rows(page)).to_have_count(4)
    expect(titles(page).nth(2)).to_have_text("https://example.com/blank")
    boxes = [item.bounding_box() for item in rows(page).all()]
    assert {round(box["height"]) for box in boxes} == {round(boxes[0]["height"])}
    lefts = rows(page).evaluate_all("rows => rows.map(row => row.querySelector('.acts').getBoundingClientRect().left)")
    assert len(set(lefts)) == 1
    for isolated in rows(page).last.locator("bdi").all():
        assert isolated.evaluate("it => getComputedStyle(it).unicodeBidi") == "isolate"
    page.get_by_role("button", name=re.compile("^Show all")).last.click()
    expect(rows(page).last.get_by_role("link")).to_have_count(33)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_no_other_script_in_the_page_runs(page, context, complaints):
    context.grant_permissions(["local-network-access"])  # Chromium takes what route() serves for a public page
    address = page.url.split("#")[0]
    served = fetch(address)
    body = served.text + "<script>window.planted = 1</script><p onclick='planted = 1'>Planted</p>"
    page.route(address, lambda route: route.fulfill(body=body, headers=dict(served.headers)))
    page.reload()
    page.get_by_text("Planted").click()
    assert page.evaluate("window.planted") is None
    excuse(complaints, "Content Security Policy")


def test_the_page_may_ask_nobody_but_the_store(page, api, complaints):
    asks = "url => fetch(url, {mode: 'no-cors'}).then(() => true, () => false)"
    address = page.url.split("#")[0]
    asked = {url: page.evaluate(asks, url) for url in (f"http://{api.host}/prod/", address, f"{api.url}/")}
    assert list(asked.values()) == [True, False, False]
    excuse(complaints, "Content Security Policy")


def test_the_page_asks_nobody_but_the_store(page, context, api):
    asked = []
    context.on("request", lambda request: asked.append(urlsplit(request.url).netloc))
    page.reload()
    add(page, URL="https://elsewhere.example/", Title="Elsewhere", Tags="a")
    saved(page)
    panel(page, "a").click()
    expect(titles(page)).to_have_text(["Elsewhere"])
    assert set(asked) == {api.host, urlsplit(page.url).netloc}


# --- From other pages


@pytest.mark.parametrize("title", ["Other", """50% & #1 + "two" 'three' </title> \u00e9\u2028%22"""])
def test_the_bookmarklet_saves_the_page_it_is_used_on(page, context, api, title):
    popup = from_bookmarklet(page, context, title)
    for name, value in {"URL": OTHER, "Name": "", "Title": title, "Notes": "Said & done #1"}.items():
        expect(field(popup, name)).to_have_value(value)
    assert api.all() == [], "only Save stores it"
    with popup.expect_event("close"):
        press(popup, "Save")
    (record,) = api.all()
    assert record == record | {"link": OTHER, "title": title, "notes": "Said & done #1"}
    page.reload()
    expect(titles(page)).to_have_text([title])
    expect(dialog(page)).to_be_hidden()


def test_the_bookmarklet_keeps_the_title_of_a_link_that_is_there(page, context, api):
    api.post(OTHER, title="By hand", tags=["a"])
    popup = from_bookmarklet(page, context, "Of the page")
    press(popup, "Save")
    refused(popup, "This link is there already")
    expect(field(popup, "Title")).to_have_value("By hand")
    expect(field(popup, "Notes")).to_have_value("Said & done #1")
    with popup.expect_event("close"):
        press(popup, "Save")
    (record,) = api.all()
    assert record == record | {"title": "By hand", "tags": ["a"], "notes": "Said & done #1"}


def test_the_bookmarklet_is_for_other_pages(page, context):
    page.locator("#empty .mark").click()
    expect(toast(page)).to_have_text("Drag this to your bookmarks bar and use it on any page.")
    assert context.pages == [page]


@pytest.mark.parametrize("shared", [{"link": EXAMPLE}, {"notes": f"Look: {EXAMPLE}"}])
def test_what_an_app_shares_is_in_the_form_and_in_no_address(page, context, api, page_url, shared):
    with context.expect_page() as window:
        page.evaluate("url => { window.open(url) }", f"{page_url}?{urlencode({'title': 'Shared'} | shared)}")
    opened = window.value
    expect(field(opened, "URL")).to_have_value(EXAMPLE)
    expect(field(opened, "Title")).to_have_value("Shared")
    assert opened.url == f"{page_url}#q="
    with opened.expect_event("close"):
        press(opened, "Save")
    assert [record["link"] for record in api.all()] == [EXAMPLE]


# --- The API key


def door(page):
    return page.get_by_role("dialog", name="API key")


def give_key(page, key):
    """Give the page the key that it asks for, or None to give none."""
    expect(door(page)).to_be_visible()
    if key is None:
        return door(page).get_by_role("button", name="Cancel").click()
    door(page).get_by_label("API key").fill(key)
    door(page).get_by_role("button", name="Use this key").click()


@pytest.fixture(scope="module")
def locked(engine):
    """An Api that takes only requests with its `key`, in which there is one link."""
    with http_api(engine, create_stack(engine, "locked", NEVER_THROTTLED | {"Access": "key"})) as api:
        api.key = key_of(engine, "locked")
        api.page = put_up(engine, "locked", api)
        api("PUT", "/link/kept", {"link": EXAMPLE, "title": "Kept"}, {"x-api-key": api.key})
        yield api


@pytest.fixture
def locked_page(context, complaints, locked):
    """A page that has asked for the key, and got it."""
    page = context.new_page()
    page.goto(locked.page)
    give_key(page, locked.key)
    expect(titles(page)).to_have_text(["Kept"])
    excuse(complaints, "403")
    return page


def test_the_key_is_asked_for_once_and_kept(locked_page, locked):
    for _ in range(2):
        locked_page.reload()
        expect(titles(locked_page)).to_have_text(["Kept"])
    add(locked_page, URL=f"{EXAMPLE}/more", Title="More", Name="more")
    saved(locked_page)
    expect(titles(locked_page)).to_have_text(["More", "Kept"])
    assert locked("DELETE", "/link/more", headers={"x-api-key": locked.key}).status_code == 204


def test_password_managers_know_whose_key_it_is(context, complaints, locked):
    page = context.new_page()
    page.goto(locked.page)
    key = door(page).get_by_label("API key")
    expect(key).to_be_focused()
    assert [key.get_attribute(name) for name in ("type", "autocomplete")] == ["password", "current-password"]
    user = door(page).get_by_label("Store")
    assert (user.get_attribute("autocomplete"), user.input_value()) == ("username", f"http://{locked.host}/prod/")
    excuse(complaints, "403")


@pytest.mark.parametrize("wrong", ["wrong", "\u201cwrong\u201d \u2026", ""])
def test_a_wrong_key_is_asked_for_again(context, complaints, locked, wrong):
    page = context.new_page()
    page.goto(locked.page)
    give_key(page, wrong)
    expect(door(page)).to_contain_text("This key is wrong.")
    give_key(page, locked.key)
    expect(titles(page)).to_have_text(["Kept"])
    excuse(complaints, "403")


def test_without_a_key_the_page_says_that_it_needs_one(context, complaints, locked):
    page = context.new_page()
    page.goto(locked.page)
    give_key(page, None)
    expect(page.locator("#state")).to_contain_text("This needs the API key of the store.")
    expect(page.get_by_role("button", name="Add", exact=True)).to_be_hidden()
    press(page, "More")
    expect(page.get_by_role("button", name="Forget the key")).to_be_hidden()
    press(page, "Give the API key")
    give_key(page, locked.key)
    expect(titles(page)).to_have_text(["Kept"])
    expect(page.get_by_role("button", name="Add", exact=True)).to_be_visible()
    excuse(complaints, "403")


def test_a_key_that_is_forgotten_is_asked_for_again(locked_page, complaints):
    press_more(locked_page, "Forget the key")
    give_key(locked_page, None)
    expect(locked_page.locator("#state")).to_contain_text("This needs the API key")
    expect(rows(locked_page)).to_have_count(0)
    kept = "caches.keys().then(names => JSON.stringify([localStorage, names]))"
    assert (
        locked_page.evaluate(kept)
        == f'[{{"http://{locked_page.evaluate("new URL(store).host")}/prod/ access":"key"}},[]]'
    )
    excuse(complaints, "403")


def test_the_key_is_in_no_address(locked_page, context, locked):
    asked = []
    context.on("request", lambda request: asked.append(request.url))
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    search(locked_page, "kept")
    expect(locked_page).to_have_url(re.compile("#q=kept$"))
    press(locked_page, "Copy short link Kept")
    expect(toast(locked_page)).to_contain_text("Copied")
    assert asked
    copied = locked_page.evaluate("navigator.clipboard.readText()")
    assert locked.key not in "\n".join([*asked, copied, locked_page.url, locked_page.content()])


def test_with_a_key_copy_offers_to_give_a_name(locked_page, locked):
    """Such a store follows no id of a posted link: ids would tell which URLs it has."""
    key = {"x-api-key": locked.key}
    posted = locked("POST", "/link", {"link": f"{EXAMPLE}/posted", "title": "Posted"}, key).json()
    locked_page.reload()
    expect(titles(locked_page)).to_have_text(["Posted", "Kept"])
    press(locked_page, "More")
    expect(locked_page.get_by_role("link", name="Feed")).to_be_hidden()
    locked_page.keyboard.press("Escape")
    press(locked_page, "Copy short link Posted")
    refused(locked_page, "Only a link with a name has a short link here: give it one.")
    expect(field(locked_page, "Name")).to_be_focused()
    save(locked_page, Name="named")
    saved(locked_page, "Saved a copy with the name named.")
    assert locked("GET", f"/go/{posted['link_id']}").status_code == 404
    assert locked("GET", "/go/named").status_code == 302
    for link_id in (posted["link_id"], "named"):
        assert locked("DELETE", f"/link/{link_id}", headers=key).status_code == 204


@pytest.fixture(scope="module")
def readable(engine):
    with http_api(engine, create_stack(engine, "readable", NEVER_THROTTLED | {"Access": "read"})) as api:
        api.key = key_of(engine, "readable")
        api.page = put_up(engine, "readable", api)
        api("PUT", "/link/kept", {"link": EXAMPLE, "title": "Kept"}, {"x-api-key": api.key})
        yield api


def test_who_may_only_read_sees_no_button_that_would_fail(context, complaints, readable):
    page = context.new_page()
    page.goto(readable.page)
    expect(titles(page)).to_have_text(["Kept"])
    until(page, "access() == 'read'")
    press(page, "More")
    seen = [text.strip() for text in page.locator("button:visible").all_text_contents()]
    assert seen == ["More", "Keys", "Give the API key", "By name", "", ""]
    expect(rows(page).get_by_role("button")).to_have_count(2)
    for key in "nexu":
        page.keyboard.press(key)
    expect(dialog(page)).to_be_hidden()
    press(page, "Give the API key")
    give_key(page, "wrong")
    expect(door(page)).to_contain_text("This key is wrong.")
    give_key(page, readable.key)
    expect(door(page)).to_be_hidden()
    press(page, "Delete Kept")
    press(page, "Undo")
    expect(titles(page)).to_have_text(["Kept"])
    assert [record["link_id"] for record in readable.all()] == ["kept"]
    excuse(complaints, "403")


def test_where_all_may_read_the_key_goes_with_writes_only(context, complaints, readable):
    page, sent = context.new_page(), []
    page.goto(readable.page)
    press_more(page, "Give the API key")
    give_key(page, readable.key)
    expect(door(page)).to_be_hidden()
    context.on("request", lambda request: sent.append((request.method, request.headers.get("x-api-key"))))
    press(page, "Edit Kept")
    save(page, Notes="n")
    saved(page)
    assert set(sent) - {("OPTIONS", None)} == {("GET", None), ("PATCH", readable.key)}
    excuse(complaints, "403")


def test_what_was_typed_is_saved_once_the_key_is_there(page, api, complaints):
    refusal = {"Error": "API Gateway refused this: INVALID_API_KEY.", "Reference": "x"}

    def lock(route):
        keyed = "x-api-key" in route.request.headers
        route.fallback() if keyed else route.fulfill(status=403, json=refusal)

    page.route("**/link", lock)
    add(page, URL=EXAMPLE, Title="Typed")
    give_key(page, None)
    refused(page, "This needs the API key of the store.")
    press(page, "Save")
    give_key(page, "a-key")
    saved(page)
    excuse(complaints, "403")
    assert [record["title"] for record in api.all()] == ["Typed"]


def test_another_store_does_not_get_the_key(context, complaints, engine, locked, deployed, page_url):
    """Below restapis/ the local engine has all pages on one host, where they share what a browser keeps."""
    here, there = (
        f"{engine.settings['AWS_ENDPOINT_URL']}/restapis/{urlsplit(url).netloc.split('.')[0]}/prod/_user_request_/"
        for url in (locked.page, page_url)
    )
    sent = []
    context.on("request", lambda request: sent.append((request.url, request.headers.get("x-api-key"))))
    page = context.new_page()
    page.goto(here)
    give_key(page, locked.key)
    expect(titles(page)).to_have_text(["Kept"])
    with page.expect_response(f"http://{deployed.host}/prod/link?"):
        page.goto(there)
    assert (f"http://{locked.host}/prod/link?", locked.key) in sent
    assert (f"http://{deployed.host}/prod/link?", None) in sent
    excuse(complaints, "403")


def test_a_store_for_signed_requests_says_so(context, complaints, engine):
    with http_api(engine, create_stack(engine, "signed", {"Access": "iam"})) as api:
        page = context.new_page()
        page.goto(put_up(engine, "signed", api))
        expect(page.locator("#state")).to_contain_text("This store takes signed requests only: use curl.")
        expect(page.get_by_role("button", name="Add", exact=True)).to_be_hidden()
    excuse(complaints, "403")


# --- Two origins


def test_a_browser_asks_once_whether_it_may_send_a_key(context, complaints, locked):
    """What it may send is known for two hours, which is the most that Chromium takes."""
    page, asked = context.new_page(), []
    network = context.new_cdp_session(page)
    network.on(
        "Network.requestWillBeSent", lambda sent: asked.append((sent["request"]["method"], sent["request"]["url"]))
    )
    network.send("Network.enable")
    page.goto(locked.page)
    give_key(page, locked.key)
    for _ in range(2):
        expect(titles(page)).to_have_text(["Kept"])
        page.reload()
    expect(titles(page)).to_have_text(["Kept"])
    links = f"http://{locked.host}/prod/link?"
    assert (asked.count(("OPTIONS", links)), asked.count(("GET", links))) == (1, 4)
    assert locked("OPTIONS", "/link").headers["Access-Control-Max-Age"] == "7200"
    excuse(complaints, "403")


def test_a_store_may_allow_its_page_alone(context, complaints, engine):
    def allow(origin):
        command = "cloudformation update-stack --stack-name strict --use-previous-template --capabilities CAPABILITY_NAMED_IAM"
        aws(engine, *command.split(), "--parameters", f"ParameterKey=AllowedOrigin,ParameterValue={origin}")
        assert settled(engine, "strict")["StackStatus"] == "UPDATE_COMPLETE"
        api.origin = origin

    with http_api(engine, create_stack(engine, "strict")) as api:
        url, page = put_up(engine, "strict", api), context.new_page()
        allow("https://example.com")
        page.goto(url)
        expect(page.locator("#state")).to_contain_text("The link store cannot be reached (0); try again.")
        allow(url.removesuffix("/prod/"))
        press(page, "Retry")
        expect(page.locator("#empty")).to_be_visible()
        page.reload()
        add(page, URL=EXAMPLE)
        saved(page)
        press_in_row(page, "Edit")
        save(page, Title="A")
        saved(page)
        assert [record["title"] for record in api.all()] == ["A"]
    assert any("CORS policy" in each for each in complaints)
    complaints[:] = [each for each in complaints if not re.search("CORS policy|ERR_FAILED", each)]


def test_a_reload_moves_the_page_only_if_it_has_changed(page):
    assert page.reload().request.all_headers()["if-none-match"] == fetch(page.url.split("#")[0]).headers["ETag"]
    expect(page.locator("#empty")).to_be_visible()


def test_the_page_is_served_to_those_who_look_and_to_nobody_else(page_url):
    whole = fetch(page_url)
    assert whole.status_code == 200 and whole.text.startswith("<!doctype html>")
    seen = fetch(page_url, **{"If-None-Match": whole.headers["ETag"]})
    assert (seen.status_code, seen.content) == (304, b"")
    head = fetch(page_url, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("Content-Security-Policy", "Content-Type", "ETag"):
        assert whole.headers[name] == seen.headers[name] == head.headers[name]
    assert fetch(page_url, "OPTIONS").headers["Allow"] == "GET, HEAD, OPTIONS"
    for answer, status_code in ((fetch(page_url, "POST"), 405), (fetch(f"{page_url}link"), 404)):
        assert answer.status_code == status_code
        assert answer.json().keys() == {"Error", "Reference"}
    assert fetch(f"{page_url}worker.js").headers["Content-Type"] == "text/javascript"


def test_a_store_with_a_page_is_not_deleted(engine):
    """The engine looks at imports that conditions leave out, too; test_page_template.py sees to one that none does."""
    with http_api(engine, create_stack(engine, "used")) as api:
        put_up(engine, "used", api)
        delete = "cloudformation delete-stack --stack-name used"
        assert "Export used-APIUrl is imported by stack used-page" in aws(engine, *delete.split(), fails=True)
        assert api("GET", "/link").status_code == 200
        aws(engine, *f"{delete}-page".split())
        aws(engine, *"cloudformation wait stack-delete-complete --stack-name used-page".split())
        aws(engine, *delete.split())


def test_without_a_url_the_page_takes_that_of_the_store(engine, deployed):
    create(engine, "plain-page", "addons/page.yml", {"Store": named("tests")})
    url = stack.reachable(outputs(engine, "plain-page")["PageUrl"], engine.settings["AWS_ENDPOINT_URL"])
    assert f'<meta name="store" content="{outputs(engine, named("tests"))["APIUrl"]}">' in fetch(url).text


# --- Without a network


@pytest.fixture
def installed(browser, api, page_url):
    """A page with its worker in charge, as of the second time that it is opened, and one link."""
    api.post(EXAMPLE, title="Kept", tags=["a"])
    with browser.new_context() as context:
        listening = listened(prepared(context))
        context.complaints = next(listening)
        page = context.new_page()
        page.goto(page_url)
        page.evaluate("navigator.serviceWorker.ready")
        for _ in range(2):
            with page.expect_response("**/tags?"):
                page.reload()
            expect(titles(page)).to_have_text(["Kept"])
        until(page, "Boolean(navigator.serviceWorker.controller)")
        until(page, "caches.open('links').then(cache => cache.keys()).then(keys => keys.length == 3)")
        yield page
        next(listening, None)


def test_the_page_opens_without_a_network_to_read(installed, api, page_url):
    page, context = installed, installed.context
    context.set_offline(True)
    page.reload()
    expect(titles(page)).to_have_text(["Kept"])
    expect(page.locator("#offline")).to_contain_text("Offline. These are the links of")
    expect(page.get_by_role("list", name="Links")).to_have_class("old")
    expect(panel(page, "a")).to_have_text("a1")
    expect(page.get_by_role("button", name="Add", exact=True)).to_be_hidden()
    expect(rows(page).get_by_role("button")).to_have_count(2)
    search(page, "k")
    expect(page.locator("#state")).to_contain_text("The link store cannot be reached (0); try again.")
    page.get_by_role("searchbox").clear()
    expect(titles(page)).to_have_text(["Kept"])
    context.set_offline(False)
    # Retry, unless the browser has told the page first, which takes the button away.
    page.evaluate("document.querySelector('#offline button')?.click()")
    expect(page.locator("#offline")).to_be_empty()
    expect(page.get_by_role("button", name="Add", exact=True)).to_be_visible()
    context.complaints.clear()


# All that the worker has in the browser's cache.
KEPT = """async () => {
    const cache = await caches.open("links"), all = [];
    for (const request of await cache.keys()) {
        const answer = await cache.match(request);
        all.push(request.url, ...[...request.headers].flat(), ...[...answer.headers].flat(), await answer.text());
    }
    return all.join(" ");
}"""


def test_what_is_kept_has_no_key(browser, locked):
    with browser.new_context() as context:
        page = prepared(context).new_page()
        page.goto(locked.page)
        give_key(page, locked.key)
        page.evaluate("navigator.serviceWorker.ready")
        page.reload()
        expect(titles(page)).to_have_text(["Kept"])
        until(page, "caches.open('links').then(cache => cache.keys()).then(keys => keys.length == 3)")
        kept = page.evaluate(KEPT)
        assert '"title": "Kept"' in kept and locked.key not in kept
        press_more(page, "Forget the key")
        expect(door(page)).to_be_visible()
        assert '"title": "Kept"' not in page.evaluate(KEPT)


def test_the_worker_keeps_what_is_shared_from_the_server(installed, api, page_url):
    asked = []
    installed.context.on("request", lambda request: asked.append(request.url))
    installed.goto(f"{page_url}?{urlencode({'link': f'{EXAMPLE}/secret'})}")
    expect(field(installed, "URL")).to_have_value(f"{EXAMPLE}/secret")
    by_worker = [url for url in asked if "secret" in url]
    assert by_worker == [f"{page_url}?{urlencode({'link': f'{EXAMPLE}/secret'})}"], "that which the worker answers"


def test_offline_while_saving_nothing_is_lost(page, context, api, complaints):
    add_form = {"URL": EXAMPLE, "Title": "Typed"}
    press(page, "Add")
    context.set_offline(True)
    save(page, **add_form)
    refused(page, "The link store cannot be reached (0); try again.")
    excuse(complaints, "ERR_INTERNET_DISCONNECTED")
    expect(field(page, "Title")).to_have_value("Typed")
    context.set_offline(False)
    press(page, "Save")
    saved(page)
    assert [record["title"] for record in api.all()] == ["Typed"]


def test_a_list_that_fails_is_said_where_it_is_seen(page, complaints, api):
    post_all(api, "A")
    page.route("**/link?*", lambda route: route.fulfill(status=502, body="<html>Bad gateway"))
    page.reload()
    expect(page.locator("#state")).to_contain_text("The link store cannot be reached (502); try again.")
    excuse(complaints, "502")
    page.unroute("**/link?*")
    press(page, "Retry")
    expect(titles(page)).to_have_text(["A"])
