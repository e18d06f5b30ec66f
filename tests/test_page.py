"""The page for people, in Chromium: what they see and do, and what of it the API has afterwards.

The store and its page are two stacks, and so two origins to the browser.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, unquote, urlsplit

import httpx
import pytest
from playwright.sync_api import expect

import stack
from conftest import NEVER_THROTTLED, aws, create, create_stack, http_api, key_of, named, outputs, settled

EXAMPLE = "https://example.com/a"
LATER = "2999-01-01T00:00:00.000Z"


@pytest.fixture
def context(browser):
    with browser.new_context() as context:
        context.set_default_timeout(10_000)
        yield context


@pytest.fixture
def answers():
    """What the page will ask in prompts, each with the answer to it; None cancels."""
    yield (left := [])
    assert left == [], "the page did not ask"


@pytest.fixture
def complaints(context, answers):
    """What the browser complains of in a test; excuse() takes out what was to be expected."""
    found = []

    def asked(prompt):
        words, answer = answers.pop(0) if answers else ("nothing", None)
        if words not in prompt.message:
            found.append(prompt.message)
        prompt.dismiss() if answer is None else prompt.accept(answer)

    context.on("weberror", lambda each: found.append(str(each.error)))
    context.on("console", lambda each: each.type in ("error", "warning") and found.append(each.text))
    context.on("dialog", asked)
    yield found
    assert found == []


@pytest.fixture
def api(stack_api):
    return stack_api


def put_up(engine, name, store):
    """Create the page of a stack with this name, whose Api is `store`; return the page's URL."""
    parameters = {"Store": name, "StoreUrl": f"http://{store.host}/prod/link"}
    create(engine, f"{name}-page", "addons/page.yml", NEVER_THROTTLED | parameters)
    return stack.reachable(outputs(engine, f"{name}-page")["PageUrl"], engine.settings["AWS_ENDPOINT_URL"])


def fetch(url, method="GET", **headers):
    """Return the answer of a page; not every system resolves *.localhost for httpx."""
    at = urlsplit(url)
    with httpx.Client(headers={"Host": at.netloc}, trust_env=False) as client:
        return client.request(method, f"http://127.0.0.1:{at.port}{at.path}", headers=headers)


@pytest.fixture(scope="module")
def page_url(engine, deployed):
    return put_up(engine, named("tests"), deployed)


@pytest.fixture
def page(context, complaints, api, page_url):
    """The page, when it has said that the store is empty."""
    page = context.new_page()
    page.goto(page_url)
    expect(status(page)).to_contain_text("There is no link yet.")
    return page


def excuse(complaints, words):
    assert complaints and all(words in each for each in complaints)
    complaints.clear()


def status(page):
    return page.get_by_role("status")


def rows(page):
    return page.get_by_role("listitem")


def titles(page):
    return rows(page).locator("a:first-child")


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def press_in_row(page, name):
    """Load what is there now, which is one link, and press its button whose name begins so."""
    page.reload()
    rows(page).get_by_role("button", name=re.compile(name)).click()


def dialog(page):
    return page.get_by_role("dialog")


def field(page, name):
    """The field whose label begins so."""
    return dialog(page).get_by_role("textbox", name=re.compile(f"^{name}\\b"))


def press_tag(page, name):
    """Press a tag, which is in the rows, and when it is asked for above them too."""
    page.get_by_role("link", name=name, exact=True).first.click()


def save(page, **typed):
    """Type these into the fields of the dialog, by their labels, and save."""
    for name, text in typed.items():
        field(page, name).fill(text)
    press(page, "Save")


def add(page, **typed):
    press(page, "Add a link")
    save(page, **typed)


def refused(page, sentence):
    expect(status(dialog(page))).to_contain_text(sentence)


def saved(page, sentence="Saved."):
    expect(dialog(page)).to_be_hidden()
    expect(status(page)).to_have_text(sentence)


def search(page, text):
    page.get_by_role("searchbox").press_sequentially(text)


def at_once(action, values):
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(action, values))


def post_all(api, *names, **fields):
    for name in names:
        api.post(f"https://example.com/{quote(name)}", title=name, **fields)


# --- Adding


def test_the_page_of_an_empty_store_says_what_to_do(page):
    expect(status(page)).to_contain_text("There is no link yet. Drag Save to Links to your bookmarks bar")
    expect(rows(page)).to_have_count(0)
    expect(page.get_by_role("button", name="Load more")).to_be_hidden()


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_link_alone_is_enough_with_and_without_a_slash(page, api, slash):
    page.goto(page.url.removesuffix("/") + slash)
    add(page, Link=EXAMPLE)
    saved(page)
    expect(titles(page)).to_have_text([EXAMPLE])
    assert api.all()[0].keys() == {"link_id", "link", "created_at", "updated_at"}


def test_a_link_is_added_with_all_that_is_said_of_it(page, api):
    add(page, Link=EXAMPLE, Title="First", Tags=" news \n to read\n\n ", Notes="One\nTwo")
    saved(page)
    expect(titles(page)).to_have_text(["First"])
    expect(titles(page)).to_have_attribute("href", EXAMPLE)
    expect(rows(page)).to_contain_text("One\nTwo", use_inner_text=True)
    said = {"title": "First", "tags": ["news", "to read"], "notes": "One\nTwo"}
    (record,) = api.all()
    assert record == record | said | {"link": EXAMPLE}


def test_a_link_is_added_under_a_name(page, api):
    add(page, Link=EXAMPLE, Name="a-name")
    saved(page)
    assert api("GET", "/go/a-name").headers["Location"] == EXAMPLE


def test_a_taken_name_is_refused_and_what_was_typed_stays(page, api, complaints):
    api("PUT", "/link/taken", {"link": EXAMPLE})
    add(page, Link=f"{EXAMPLE}/other", Name="taken", Title="Other")
    refused(page, "This name is taken")
    excuse(complaints, "412")
    for name, value in {"Link": f"{EXAMPLE}/other", "Name": "taken", "Title": "Other"}.items():
        expect(field(page, name)).to_have_value(value)
    save(page, Name="free")
    saved(page)
    assert {record["link_id"] for record in api.all()} == {"taken", "free"}


def test_what_the_api_refuses_is_said_in_words(page, api, complaints):
    press(page, "Add a link")
    for link, name, title, sentence in [
        ("ftp://example.com", "", "", "link must be an absolute URL that starts with http:// or https://."),
        ("javascript:alert(1)", "", "", "link must be an absolute URL that starts with http:// or https://."),
        (EXAMPLE, "", "x" * 513, "title must have at most 512 characters, not 513."),
        (EXAMPLE, "a b", "", "A name has 1 to 64 letters"),
    ]:
        save(page, Link=link, Name=name, Title=title)
        refused(page, sentence)
    excuse(complaints, "400")
    assert api.all() == []


def test_what_is_no_url_is_not_sent(page, api):
    press(page, "Add a link")
    for link in ("", "no link"):
        save(page, Link=link)
        expect(page.locator(":invalid:focus")).to_have_value(link)
    assert api.all() == []


def test_the_same_link_again_was_there_already(page, api):
    before = api.post(EXAMPLE, title="First")
    add(page, Link=EXAMPLE, Title="Again")
    saved(page, "It was there already, and stays as it was.")
    assert api.all() == [before]


def test_a_double_click_saves_once(page):
    held = []
    page.route("**/link/", lambda route: held.append(route))
    press(page, "Add a link")
    field(page, "Link").fill(EXAMPLE)
    with page.expect_request("**/link/"):
        page.get_by_role("button", name="Save", exact=True).dblclick()
    for route in held:
        route.continue_()
    saved(page)
    assert len(held) == 1


# --- Searching


def test_search_narrows_the_list_and_is_kept_in_the_address(page, api):
    post_all(api, "1", "2", "Ünder way & <b>")
    page.reload()
    expect(rows(page)).to_have_count(3)
    search(page, "ünder &")
    expect(titles(page)).to_have_text(["Ünder way & <b>"])
    page.reload()
    expect(titles(page)).to_have_text(["Ünder way & <b>"])
    expect(page.get_by_role("searchbox")).to_have_value("ünder &")
    page.get_by_role("searchbox").clear()
    expect(rows(page)).to_have_count(3)


def test_search_says_when_nothing_is_found(page, api):
    post_all(api, "A")
    search(page, "nowhere")
    expect(status(page)).to_have_text("No link has all of that.")
    expect(rows(page)).to_have_count(0)


def test_a_late_answer_to_an_earlier_search_is_not_shown(page, api):
    post_all(api, "1", "2")
    held, asks = [], re.compile("[?&]q=1$")
    page.route(asks, lambda route: held.append(route))
    with page.expect_request(asks):
        search(page, "1")
    page.get_by_role("searchbox").fill("2")
    expect(titles(page)).to_have_text(["2"])
    with page.expect_event("requestfinished"):
        held[0].continue_()
    page.evaluate("fetch(store).then(answer => answer.text())")  # takes longer than to show the late one
    expect(titles(page)).to_have_text(["2"])


def test_tags_narrow_the_list_until_they_are_taken_off(page, api):
    for title, tags in {"A": ["red", "big & < old"], "B": ["red"], "C": ["blue"]}.items():
        post_all(api, title, tags=tags)
    page.reload()
    rows(page).filter(has_text="example.com/B").get_by_role("link", name="#red").click()
    expect(titles(page)).to_have_text(["B", "A"])
    press_tag(page, "#big & < old")
    expect(titles(page)).to_have_text(["A"])
    press_tag(page, "without #big & < old")
    expect(titles(page)).to_have_text(["B", "A"])
    press_tag(page, "without #red")
    for shown in (["C", "B", "A"], ["B", "A"], ["A"], ["B", "A"], ["C", "B", "A"]):
        expect(titles(page)).to_have_text(shown)
        page.go_back()


def test_the_feed_is_of_what_is_looked_for(page, api):
    post_all(api, "Found", tags=["a & b"])
    post_all(api, "Other")
    page.reload()
    press_tag(page, "#a & b")
    expect(titles(page)).to_have_text(["Found"])
    feed = urlsplit(page.get_by_role("link", name="Feed").get_attribute("href"))
    assert feed.query == "tag=a%20%26%20b"  # which every decoder takes for a space, unlike +
    answer = api("GET", f"/feed?{feed.query}").text
    assert "Found" in answer and "Other" not in answer


# --- Changing


def test_an_edit_changes_what_was_changed(page, api):
    before = api.post(EXAMPLE, title="Old", tags=["a"], notes="Old", expires_at=LATER)
    press_in_row(page, "Edit")
    expect(field(page, "Tags")).to_have_value("a")
    changes = {"title": "New", "tags": ["b", "c"], "notes": "New\n\nlines"}
    save(page, Title="New", Tags="b\nc", Notes="New\n\nlines")
    saved(page)
    expect(titles(page)).to_have_text(["New"])
    (after,) = api.all()
    assert after == before | changes | {"updated_at": after["updated_at"]}


def test_an_emptied_field_goes_away(page, api):
    api.post(EXAMPLE, title="Old", tags=["a"], notes="Old")
    press_in_row(page, "Edit")
    save(page, Title="", Tags="", Notes="")
    saved(page)
    expect(titles(page)).to_have_text([EXAMPLE])
    assert api.all()[0].keys() == {"link_id", "link", "created_at", "updated_at"}


def test_an_edit_leaves_alone_what_the_form_cannot_show(page, api):
    said = {"title": "a\nb", "tags": ["a, b", " c "], "notes": "1\r\n2"}
    before = api("PUT", "/link/a-name", {"link": EXAMPLE, **said}).json()
    press_in_row(page, "Edit")
    save(page, Link=f"{EXAMPLE}/new")
    saved(page)
    (after,) = api.all()
    assert after == before | {"link": f"{EXAMPLE}/new", "updated_at": after["updated_at"]}


def test_an_edit_of_tags_keeps_a_comma_inside_one(page, api):
    api.post(EXAMPLE, tags=["a, b", "c", "d,e"])
    press_in_row(page, "Edit")
    save(page, Tags="a, b\nnew\nc")
    saved(page)
    assert api.all()[0]["tags"] == ["a, b", "new", "c"]


def test_an_edit_does_not_undo_what_somebody_else_changed(page, api, complaints):
    record = api.post(EXAMPLE, title="Old")
    press_in_row(page, "Edit")
    expect(dialog(page)).to_be_visible()
    changed = api("PATCH", f"/link/{record['link_id']}", {"title": "Theirs", "notes": "Theirs"}).json()
    save(page, Title="Mine")
    refused(page, "ETag")
    excuse(complaints, "412")
    expect(field(page, "Title")).to_have_value("Mine")
    assert api.all() == [changed]


def test_the_url_of_a_named_link_can_change_that_of_a_posted_one_cannot(page, api, complaints):
    posted = api.post(EXAMPLE, title="Posted")
    api("PUT", "/link/a-name", {"link": EXAMPLE, "title": "Named"})
    page.reload()
    press(page, "Edit Named")
    expect(field(page, "Name")).to_have_value("a-name")
    expect(field(page, "Name")).to_be_disabled()
    save(page, Link=f"{EXAMPLE}/new")
    saved(page)
    press(page, "Edit Posted")
    expect(field(page, "Name")).to_be_disabled()
    save(page, Link=f"{EXAMPLE}/new")
    refused(page, "cannot change; PUT the other URL under a name of your own.")
    excuse(complaints, "409")
    press(page, "Cancel")
    press(page, "Add a link")
    expect(field(page, "Name")).to_be_enabled()
    links = {record["link_id"]: record["link"] for record in api.all()}
    assert links == {"a-name": f"{EXAMPLE}/new", posted["link_id"]: EXAMPLE}


def test_what_was_deleted_comes_back_as_it_was(page, api):
    said = {"title": "Kept", "tags": ["a, b"], "notes": "n", "expires_at": LATER}
    path = f"/link/{api.post(EXAMPLE, created_at='2020-01-02T03:04:05Z', **said)['link_id']}"
    page.reload()
    expect(rows(page)).to_have_count(1)
    for _ in range(2):  # after the page was loaded
        assert api("GET", path.replace("link", "go")).status_code == 302
    before = api("GET", path).json()
    press(page, "Delete Kept")
    expect(rows(page)).to_have_text("Deleted Kept. Bring back")
    assert api.all() == []
    expect(page.get_by_role("button", name="Bring back Kept")).to_be_focused()
    page.keyboard.press("Enter")
    expect(rows(page)).to_contain_text(re.compile("created 2020-01-02, .*expires 2999-01-01, visits 2"))
    (after,) = api.all()
    assert after == before | said | {"visits": 2, "updated_at": after["updated_at"]}


# --- Short links


def test_copy_gives_a_short_link_that_redirects(page, context, api):
    api.post(EXAMPLE)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    press_in_row(page, "Copy short link")
    expect(status(page)).to_contain_text("Copied http")
    host, path = page.evaluate("navigator.clipboard.readText()").split("/prod")
    assert host == f"http://{api.host}"
    assert api("GET", path).headers["Location"] == EXAMPLE


def test_a_short_link_that_cannot_be_copied_is_shown(page, api):
    api("PUT", "/link/a-name", {"link": EXAMPLE})
    page.add_init_script("navigator.clipboard.writeText = () => Promise.reject(Error())")
    press_in_row(page, "Copy")
    expect(status(page)).to_have_text(f"Copy it from here: http://{api.host}/prod/go/a-name")


# --- Many links


def test_all_of_many_links_can_be_reached_and_found(page, api):
    names = [str(n) for n in range(500)]
    at_once(lambda name: post_all(api, name), names)
    page.reload()
    more = page.get_by_role("button", name="Load more")
    expect(more).to_be_visible()
    shown = [rows(page).count()]
    while more.is_visible():
        more.click()
        expect(rows(page)).not_to_have_count(shown[-1])
        expect(status(page)).to_have_text("")
        shown.append(rows(page).count())
    assert 50 <= shown[0] < 250 and len(shown) > 2
    assert sorted(titles(page).all_text_contents(), key=int) == names
    search(page, "/49")
    expect(titles(page)).to_have_count(11)
    assert {"49", *names[490:]} == set(titles(page).all_text_contents())
    at_once(lambda record: api("DELETE", f"/link/{record['link_id']}"), api.all())  # quicker than one by one


def test_an_empty_page_of_the_api_is_not_the_end(page, api):
    post_all(api, "Far behind")
    following = {"Link": f'<http://{api.host}/prod/link?cursor=x>; rel="next"', "Access-Control-Expose-Headers": "Link"}
    page.route("**/link?*", lambda route: route.fulfill(json=[], headers=following))
    page.route("**/link?cursor=x", lambda route: route.fulfill(json=api.all()))
    page.reload()
    expect(titles(page)).to_have_text(["Far behind"])
    expect(page.get_by_role("button", name="Load more")).to_be_hidden()


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
    press_tag(page, f"#{HOSTILE[:64]}")
    expect(rows(page)).to_have_count(3)
    rows(page).first.get_by_role("button", name="Edit").click()
    expect(field(page, "Notes")).to_have_value(HOSTILE * 2)
    press(page, "Cancel")
    rows(page).first.get_by_role("button", name="Delete").click()
    expect(rows(page).first).to_contain_text(f"Deleted {HOSTILE}.")
    assert page.evaluate("window.planted") is None
    assert page.evaluate(elements) == before


def test_no_other_script_in_the_page_runs(page, context, complaints):
    context.grant_permissions(["local-network-access"])  # Chromium takes what route() serves for a public page
    served = fetch(page.url)
    body = served.text + "<script>window.planted = 1</script><p onclick='planted = 1'>Planted</p>"
    page.route(page.url, lambda route: route.fulfill(body=body, headers=dict(served.headers)))
    page.reload()
    page.get_by_text("Planted").click()
    assert page.evaluate("window.planted") is None
    excuse(complaints, "Content Security Policy")


def test_the_page_may_ask_nobody_but_the_store(page, api, complaints):
    asks = "url => fetch(url, {mode: 'no-cors'}).then(() => true, () => false)"
    asked = {url: page.evaluate(asks, url) for url in (f"http://{api.host}/prod/", page.url, f"{api.url}/")}
    assert list(asked.values()) == [True, False, False]
    excuse(complaints, "Content Security Policy")


def test_the_page_asks_nobody_but_the_store(page, context, api):
    asked = []
    context.on("request", lambda request: asked.append(urlsplit(request.url).netloc))
    page.reload()
    add(page, Link="https://elsewhere.example/", Title="Elsewhere", Tags="a")
    saved(page)
    press_tag(page, "#a")
    expect(titles(page)).to_have_text(["Elsewhere"])
    assert set(asked) == {api.host, urlsplit(page.url).netloc}


# --- The bookmarklet

OTHER = "http://other.localhost/a?b=1&c=%23#d"
OTHER_PAGE = "<!doctype html><title></title><p>Before</p><p id=text></p><p>After</p>"
FILL = "([title, said]) => { document.title = title; text.textContent = said; getSelection().selectAllChildren(text) }"


@pytest.mark.parametrize("title", ["Other", """50% & #1 + "two" 'three' </title> é\u2028%22"""])
def test_the_bookmarklet_saves_the_page_it_is_used_on(page, context, api, title):
    code = unquote(page.get_by_role("link", name="Save to Links").get_attribute("href"))
    other = context.new_page()
    other.route(OTHER.split("#")[0], lambda route: route.fulfill(content_type="text/html", body=OTHER_PAGE))
    other.goto(OTHER)
    other.evaluate(FILL, [title, "Said & done #1"])
    with other.expect_popup() as opened:
        other.evaluate(code.removeprefix("javascript:"))
    popup = opened.value
    for name, value in {"Link": OTHER, "Name": "", "Title": title, "Notes": "Said & done #1"}.items():
        expect(field(popup, name)).to_have_value(value)
    assert api.all() == [], "only Save stores it"
    press(popup, "Save")
    saved(popup)
    (record,) = api.all()
    assert record == record | {"link": OTHER, "title": title, "notes": "Said & done #1"}
    popup.reload()
    expect(titles(popup)).to_have_text([title])
    expect(dialog(popup)).to_be_hidden()


def test_the_bookmarklet_is_for_other_pages(page, context):
    page.get_by_role("link", name="Save to Links").click()
    expect(status(page)).to_contain_text("Drag Save to Links to your bookmarks bar")
    assert context.pages == [page]


# --- The API key

ASKS, WRONG = "The API key of this store:", "This key is wrong."


@pytest.fixture(scope="module")
def locked(engine):
    """An Api that takes only requests with its `key`, in which there is one link."""
    with http_api(engine, create_stack(engine, "locked", NEVER_THROTTLED | {"Access": "key"})) as api:
        api.key = key_of(engine, "locked")
        api.page = put_up(engine, "locked", api)
        api("PUT", "/link/kept", {"link": EXAMPLE, "title": "Kept"}, {"x-api-key": api.key})
        yield api


@pytest.fixture
def locked_page(context, complaints, answers, locked):
    """A page that has asked for the key, and got it."""
    page = context.new_page()
    answers.append((ASKS, locked.key))
    page.goto(locked.page)
    expect(titles(page)).to_have_text(["Kept"])
    excuse(complaints, "403")
    return page


def test_the_key_is_asked_for_once_and_kept(locked_page, locked):
    for _ in range(2):
        locked_page.reload()
        expect(titles(locked_page)).to_have_text(["Kept"])
    add(locked_page, Link=f"{EXAMPLE}/more", Title="More", Name="more")
    saved(locked_page)
    expect(titles(locked_page)).to_have_text(["More", "Kept"])
    assert locked("DELETE", "/link/more", headers={"x-api-key": locked.key}).status_code == 204


@pytest.mark.parametrize("wrong", ["wrong", "“wrong” …"])
def test_a_wrong_key_is_asked_for_again(context, complaints, answers, locked, wrong):
    page = context.new_page()
    answers += [(ASKS, wrong), (WRONG, wrong), (WRONG, locked.key)]
    page.goto(locked.page)
    expect(titles(page)).to_have_text(["Kept"])
    excuse(complaints, "403")


def test_without_a_key_the_page_says_that_it_needs_one(context, complaints, answers, locked):
    page = context.new_page()
    answers.append((ASKS, None))
    page.goto(locked.page)
    expect(status(page)).to_have_text("This needs the API key of the store; reload to give it.")
    expect(page.get_by_role("button", name="Forget the key")).to_be_hidden()
    answers.append((ASKS, locked.key))
    search(page, "k")
    expect(titles(page)).to_have_text(["Kept"])
    excuse(complaints, "403")


def test_requests_at_once_ask_for_the_key_once(context, complaints, answers, locked):
    page, held = context.new_page(), []
    page.route("**/link?*", lambda route: held.append(route) if len(held) < 2 else route.continue_())
    with page.expect_request("**/link?"):
        page.goto(locked.page)
    with page.expect_request("**/link?q=k"):
        search(page, "k")
    answers.append((ASKS, locked.key))
    for route in held:
        route.continue_()
    expect(titles(page)).to_have_text(["Kept"])
    excuse(complaints, "403")


def test_a_key_that_is_forgotten_is_asked_for_again(locked_page, complaints, answers):
    answers.append((ASKS, None))
    press(locked_page, "Forget the key")
    expect(status(locked_page)).to_contain_text("This needs the API key")
    expect(rows(locked_page)).to_have_count(0)
    assert locked_page.evaluate("Object.values(localStorage).join('')") == ""
    excuse(complaints, "403")


def test_what_was_typed_is_saved_once_the_key_is_there(page, api, complaints, answers):
    """A key for writing only is what Access=read asks for."""
    refusal = {"Error": "API Gateway refused this: INVALID_API_KEY.", "Reference": "x"}

    def lock(route):
        keyed = "x-api-key" in route.request.headers
        route.fallback() if keyed else route.fulfill(status=403, json=refusal)

    page.route("**/link/*", lock)
    answers += [(ASKS, None), (ASKS, "a-key")]
    add(page, Link=EXAMPLE, Title="Typed")
    refused(page, "This needs the API key of the store; reload to give it.")
    excuse(complaints, "403")
    save(page)
    saved(page)
    excuse(complaints, "403")
    assert [record["title"] for record in api.all()] == ["Typed"]


def test_the_key_is_in_no_address(locked_page, context, locked):
    asked = []
    context.on("request", lambda request: asked.append(request.url))
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    search(locked_page, "kept")
    expect(locked_page).to_have_url(re.compile("#q=kept$"))
    press(locked_page, "Copy short link Kept")
    expect(status(locked_page)).to_contain_text("Copied")
    assert asked
    copied = locked_page.evaluate("navigator.clipboard.readText()")
    assert locked.key not in "\n".join([*asked, copied, locked_page.url, locked_page.content()])


def test_with_a_key_only_names_have_a_short_link(locked_page, locked):
    """Such a store follows no id of a posted link: ids would tell which URLs it has."""
    key = {"x-api-key": locked.key}
    posted = locked("POST", "/link", {"link": f"{EXAMPLE}/posted", "title": "Posted"}, key).json()
    locked_page.reload()
    expect(titles(locked_page)).to_have_text(["Posted", "Kept"])
    expect(rows(locked_page).get_by_role("button", name="Copy")).to_have_accessible_name("Copy short link Kept")
    assert locked("GET", f"/go/{posted['link_id']}").status_code == 404
    assert locked("GET", "/go/kept").status_code == 302
    assert locked("DELETE", f"/link/{posted['link_id']}", headers=key).status_code == 204


def test_a_key_for_writing_only_is_asked_for_when_it_is_needed(context, complaints, answers, engine):
    with http_api(engine, create_stack(engine, "readable", NEVER_THROTTLED | {"Access": "read"})) as api:
        page = context.new_page()
        page.goto(put_up(engine, "readable", api))
        expect(status(page)).to_contain_text("There is no link yet.")
        answers.append((ASKS, key_of(engine, "readable")))
        add(page, Link=EXAMPLE, Title="A", Name="a")
        saved(page)
        excuse(complaints, "403")
        press(page, "Delete A")
        press(page, "Bring back A")
        expect(titles(page)).to_have_text(["A"])
        assert [record["link_id"] for record in api.all()] == ["a"]


def test_another_store_does_not_get_the_key(context, complaints, answers, engine, locked, deployed, page_url):
    """Below restapis/ the local engine has all pages on one host, where they share what a browser keeps."""
    here, there = (
        f"{engine.settings['AWS_ENDPOINT_URL']}/restapis/{urlsplit(url).netloc.split('.')[0]}/prod/_user_request_/"
        for url in (locked.page, page_url)
    )
    sent = []
    context.on("request", lambda request: sent.append((request.url, request.headers.get("x-api-key"))))
    page = context.new_page()
    answers.append((ASKS, locked.key))
    page.goto(here)
    expect(titles(page)).to_have_text(["Kept"])
    page.goto(there)
    expect(status(page)).not_to_have_text("Loading")
    assert (f"http://{locked.host}/prod/link?", locked.key) in sent
    assert (f"http://{deployed.host}/prod/link?", None) in sent
    excuse(complaints, "403")


def test_a_store_for_signed_requests_says_so(context, complaints, engine):
    with http_api(engine, create_stack(engine, "signed", {"Access": "iam"})) as api:
        page = context.new_page()
        page.goto(put_up(engine, "signed", api))
        expect(status(page)).to_have_text("This store takes signed requests only: use curl.")
    excuse(complaints, "403")


# --- Two origins


def test_a_browser_asks_once_whether_it_may_send_a_key(context, complaints, answers, locked):
    """What it may send is known for two hours, which is the most that Chromium takes."""
    page, asked = context.new_page(), []
    network = context.new_cdp_session(page)
    network.on(
        "Network.requestWillBeSent", lambda sent: asked.append((sent["request"]["method"], sent["request"]["url"]))
    )
    network.send("Network.enable")
    answers.append((ASKS, locked.key))
    page.goto(locked.page)
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
        expect(status(page)).to_have_text("The link store cannot be reached (0); try again.")
        assert complaints
        complaints.clear()
        allow(url.removesuffix("/prod/"))
        page.reload()
        add(page, Link=EXAMPLE)
        saved(page)
        press_in_row(page, "Edit")
        save(page, Title="A")
        saved(page)
        assert [record["title"] for record in api.all()] == ["A"]


def test_a_reload_moves_the_page_only_if_it_has_changed(page):
    assert page.reload().request.all_headers()["if-none-match"] == fetch(page.url).headers["ETag"]
    expect(status(page)).to_contain_text("There is no link yet.")


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


# --- Keyboards, screen readers, networks and screens


def test_a_link_is_added_by_keyboard_alone(page, api):
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Add a link")).to_be_focused()
    page.keyboard.press("Enter")
    expect(field(page, "Link")).to_be_focused()
    for text in (EXAMPLE, "by-keys", "Keys", "a, b", "Notes"):
        page.keyboard.type(text)
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    saved(page)
    assert api.all()[0]["link_id"] == "by-keys"


@pytest.mark.parametrize("way", ["Escape", "Cancel"])
def test_nothing_is_kept_of_a_dialog_that_was_closed(page, api, way):
    press(page, "Add a link")
    field(page, "Link").fill(EXAMPLE)
    page.keyboard.press("Escape") if way == "Escape" else press(page, way)
    expect(dialog(page)).to_be_hidden()
    expect(page.get_by_role("button", name="Add a link")).to_be_focused()
    page.keyboard.press("Enter")
    expect(field(page, "Link")).to_have_value("")
    assert api.all() == []


def test_all_that_can_be_used_has_a_name_of_its_own(page, api):
    for name in ("A", "B"):
        post_all(api, name, tags=[name])
    page.reload()
    expect(rows(page)).to_have_count(2)
    used = re.compile(r"- (button|link|textbox|searchbox)(?: \"(.*?)\")?")
    listed = used.findall(page.locator("body").aria_snapshot())
    press(page, "Add a link")
    listed += used.findall(dialog(page).aria_snapshot())
    assert len(listed) == 4 + 2 * 5 + 7
    assert len(set(listed)) == len(listed) and all(name for _, name in listed)


def test_a_store_out_of_reach_is_said_in_words(page, context, complaints):
    context.set_offline(True)
    search(page, "a")
    expect(status(page)).to_have_text("The link store cannot be reached (0); try again.")
    add(page, Link=EXAMPLE)
    refused(page, "The link store cannot be reached")
    excuse(complaints, "ERR_INTERNET_DISCONNECTED")
    context.set_offline(False)
    press(page, "Save")
    expect(dialog(page)).to_be_hidden()


def test_a_list_that_fails_after_saving_is_said_where_it_is_seen(page, complaints):
    page.route("**/link?*", lambda route: route.fulfill(status=502, body="<html>Bad gateway"))
    add(page, Link=EXAMPLE)
    saved(page, "The link store cannot be reached (502); try again.")
    excuse(complaints, "502")


def test_a_narrow_screen_needs_no_scrolling_sideways(page, api):
    long = {"title": "t" * 400, "tags": ["g" * 64, *"abcdefghijklmnop"], "notes": "n" * 400}
    for name, said in {"x" * 400: long, "y" * 400: {"tags": ["g" * 64]}}.items():
        api.post(f"https://example.com/{name}", **said)
    page.set_viewport_size({"width": 375, "height": 700})
    page.goto(f"{page.url}#tag={'g' * 64}")
    rows(page).first.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name="Bring back")).to_be_visible()
    rows(page).last.get_by_role("button", name="Edit").click()
    expect(dialog(page)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert dialog(page).evaluate("it => it.scrollWidth <= it.clientWidth")


def test_what_the_page_says_is_seen_far_down_in_the_list(page, api):
    api.post(EXAMPLE, notes="n\n" * 100)
    press_in_row(page, "Copy")
    expect(status(page)).to_contain_text(re.compile("Cop"))
    expect(status(page)).to_be_in_viewport()


# The colours of all that has text of its own, in front and behind: what is transparent shows the canvas.
COLOURS = """() => {
    const canvas = document.body.appendChild(document.createElement("p"));
    canvas.style.background = "Canvas";
    const behind = element => {
        const colour = getComputedStyle(element || canvas).backgroundColor;
        return colour != "rgba(0, 0, 0, 0)" ? colour : behind(element.parentElement);
    };
    return [...document.querySelectorAll("body *")]
        .filter(each => each.checkVisibility() && [...each.childNodes].some(node => node.data?.trim()))
        .map(each => [each.outerHTML, getComputedStyle(each).color, behind(each)]);
}"""


def luminance(colour):
    """Return the relative luminance of a CSS colour like rgb(1, 2, 3) (WCAG 2.2)."""
    parts = [int(each) / 255 for each in re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour).groups()]
    red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(page, api, scheme):
    api.post(EXAMPLE, title="A", tags=["b"], notes="c")
    page.emulate_media(color_scheme=scheme)
    page.reload()
    expect(rows(page)).to_have_count(1)
    colours = page.evaluate(COLOURS)
    assert len(colours) > 8
    for element, *pair in colours:
        dark, bright = sorted(map(luminance, pair))
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, element
        assert (luminance(pair[1]) < 0.2) == (scheme == "dark")
