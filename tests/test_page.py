"""The page for people, in Chromium: what they see and do, and what of it the API has afterwards.

The store and its page are two stacks, and so two origins to the browser.
"""

import contextlib
import re
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, unquote, urlencode, urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Error, expect

import screens
import stack
from conftest import NEVER_THROTTLED, ROOT, aws, create, create_stack, http_api, key_of, named, outputs, settled

EXAMPLE = "https://example.com/a"
LATER = "2999-01-01T00:00:00.000Z"
# Playwright says so where it keeps the worker out; and the page asks once for a path that takes no POST.
EXPECTED = re.compile("Service Worker registration blocked|405 .Method Not Allowed.")


def prepared(context):
    context.set_default_timeout(30_000)  # fifty processes may start beside it
    return context


@pytest.fixture
def context(browser):
    """A new browser, without service workers: requests that one makes cannot be held or answered in a test."""
    with browser.new_context(service_workers="block") as context:
        yield prepared(context)


@pytest.fixture
def complaints(context):
    """What the browser complains of in a test; excuse() takes out what was to be expected."""
    yield from listened(context)


def listened(context):
    found = []
    context.on("weberror", lambda each: found.append(str(each.error)))
    context.on("console", lambda each: each.type in ("error", "warning") and found.append(each.text))
    yield found
    assert [each for each in found if not EXPECTED.search(each)] == []


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
    """The page, when it has said that the store is empty and knows that it may write."""
    page = context.new_page()
    page.goto(page_url)
    expect(page.locator("#empty")).to_contain_text("There is no link yet")
    expect(page.get_by_role("button", name="Add", exact=True)).to_be_visible()
    return page


def excuse(complaints, words):
    found = [each for each in complaints if not EXPECTED.search(each)]
    assert found and all(words in each for each in found)
    complaints.clear()


def toast(page):
    """What the page says for a while."""
    return page.locator("#toast")


def count(page):
    return page.locator("#count")


def rows(page):
    return page.get_by_role("list", name="Links").get_by_role("listitem")


def row(page, title):
    return rows(page).filter(has=page.get_by_text(title, exact=True))


def titles(page):
    return rows(page).locator(".title")


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def press_more(page, name):
    press(page, "More")
    page.locator("#more").get_by_text(name, exact=True).click()


def press_in_row(page, name):
    """Load what is there now, which is one link, and press its button whose name begins so."""
    page.reload()
    rows(page).get_by_role("button", name=re.compile(name)).click()


def dialog(page):
    return page.locator("#sheet")


def field(page, name):
    """The field whose label begins so."""
    return dialog(page).get_by_role("textbox", name=re.compile(f"^{name}\\b"))


def chips(page):
    return dialog(page).locator(".chip bdi")


def panel(page, tag=""):
    """The links of the tag panel, or the one of a tag."""
    return page.locator(f'#tags a[title="{tag}"]' if tag else "#tags a")


def save(page, **typed):
    """Type these into the fields of the dialog, by their labels, and save."""
    for name, text in typed.items():
        field(page, name).fill(text)
    press(page, "Save")


def add(page, **typed):
    press(page, "Add")
    save(page, **typed)


def refused(page, sentence):
    expect(dialog(page).locator("output")).to_contain_text(sentence)


def saved(page, sentence="Saved."):
    expect(dialog(page)).to_be_hidden()
    expect(toast(page)).to_have_text(sentence)


def search(page, text):
    page.get_by_role("searchbox").press_sequentially(text)


def until(page, expression):
    """Return when an expression holds in the page; Playwright's own way evaluates text, which the policy forbids."""
    end = time.monotonic() + 10
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression


def at_once(action, values):
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(action, values))


def post_all(api, *names, **fields):
    for name in names:
        api.post(f"https://example.com/{quote(name)}", title=name, **fields)


def answer_to_questions(page, *answers):
    """Answer what the page asks in dialogs of the browser, one after the other; the list has what it asked."""
    asked, left = [], list(answers)

    def answer(question):
        asked.append(question.message)
        question.accept() if left.pop(0) else question.dismiss()

    page.on("dialog", answer)
    return asked


# --- The tasks of a day, with what they take


class Hands:
    """Does what a person does at a page, and counts clicks, keys, and texts that are typed or pasted."""

    def __init__(self, page):
        self.page, self.clicks, self.keys, self.texts = page, 0, 0, 0

    def click(self, locator):
        self.clicks += 1
        locator.click()

    def press(self, *keys):
        for key in keys:
            self.keys += 1
            self.page.keyboard.press(key)

    def type(self, text):
        self.texts += 1
        self.page.keyboard.insert_text(text)

    def took(self, task):
        """Assert that docs/page.md says what this took."""
        (line,) = re.findall(rf"^\| {re.escape(task)} \|.*$", (ROOT / "docs" / "page.md").read_text(), re.M)
        documented = tuple(int(each) for each in line.split("|")[2:5])
        assert documented == (self.clicks, self.keys, self.texts), task


@pytest.fixture
def hands(page):
    return Hands(page)


def fresh(page, *shown):
    """Load the page, and wait until it shows links with these titles and has counted the tags."""
    with page.expect_response("**/tags?"):
        page.reload()
    expect(titles(page)).to_have_text(list(shown))


def test_task_add(page, api, hands):
    post_all(api, "Old", tags=["python", "pypi"])
    post_all(api, "Older", tags=["python"])
    fresh(page, "Older", "Old")
    hands.press("n")
    hands.type(EXAMPLE)
    hands.press("Tab")
    hands.type("py")
    expect(dialog(page).locator("#offered button")).to_have_text([re.compile("python"), re.compile("pypi")])
    hands.press("Tab", "Enter")
    expect(chips(page)).to_have_text(["python"])
    hands.press("Control+Enter")
    saved(page)
    assert [record["tags"] for record in api.all() if record["link"] == EXAMPLE] == [["python"]]
    hands.took("Add, with a tag that is there")


def test_task_save_another_page(page, context, api, hands):
    """The bookmarklet opens the form, which closes its tab when it is saved."""
    popup = from_bookmarklet(page, context, "Other")
    hands.page = popup
    expect(field(popup, "Title")).to_have_value("Other")
    hands.clicks += 1  # the bookmarklet itself
    with popup.expect_event("close"), contextlib.suppress(Error):  # it may be gone before the keys are up
        hands.press("Control+Enter")
    assert [record["link"] for record in api.all()] == [OTHER]
    hands.took("Save the page one is on")


def test_task_a_url_that_is_there(page, api, hands):
    before = api.post(EXAMPLE, title="First", tags=["a, b", "old"], notes="Old notes")
    fresh(page, "First")
    hands.press("n")
    hands.type(EXAMPLE)
    hands.press("Tab")
    hands.type("new,old,")
    hands.press("Control+Enter")
    refused(page, "This link is there already, since 20")
    expect(chips(page)).to_have_text(["a, b", "old", "new"])
    expect(field(page, "Title")).to_have_value("First")
    hands.press("Control+Enter")
    saved(page)
    (after,) = api.all()
    assert after == before | {"tags": ["a, b", "old", "new"], "updated_at": after["updated_at"]}
    hands.took("Add a URL that is there already")


def test_task_find(page, api, hands):
    post_all(api, "One", "Two", tags=["web"])
    post_all(api, "One more")
    fresh(page, "One more", "Two", "One")
    hands.press("/")
    hands.type("one #web ")
    expect(titles(page)).to_have_text(["One"])
    expect(count(page)).to_have_text("1 link")
    hands.took("Find words, with a tag")


def test_task_see_all_tags(page, api, hands):
    post_all(api, "A", tags=["b", "c"])
    post_all(api, "B", tags=["c"])
    fresh(page, "B", "A")
    expect(panel(page)).to_have_text(["c2", "b1"])
    hands.took("See all tags and how many links each has")
    hands.click(panel(page, "b"))
    expect(titles(page)).to_have_text(["A"])
    expect(panel(page, "b")).to_have_attribute("aria-current", "true")
    hands.click(panel(page, "b"))
    expect(titles(page)).to_have_text(["B", "A"])
    hands.took("Filter by a tag, and take it off")
    press(page, "By name")
    expect(panel(page)).to_have_text(["b1", "c2"])


def test_task_tags_in_the_form(page, api, hands):
    press(page, "Add")
    field(page, "URL").fill(EXAMPLE)
    field(page, "Tags").focus()
    hands.type("alpha, beta,")
    hands.type("gamma")
    hands.press("Enter")
    expect(chips(page)).to_have_text(["alpha", "beta", "gamma"])
    hands.click(page.get_by_role("button", name="Take off beta"))
    expect(chips(page)).to_have_text(["alpha", "gamma"])
    expect(field(page, "Tags")).to_be_focused()
    press(page, "Save")
    saved(page)
    assert api.all()[0]["tags"] == ["alpha", "gamma"]
    hands.took("Three tags in the form, one off again")


def test_task_rename_a_tag(page, api, hands):
    post_all(api, "A", "B", tags=["old", "x"])
    post_all(api, "C", tags=["new", "old"])
    post_all(api, "D", tags=["y"])
    fresh(page, "D", "C", "B", "A")
    hands.click(panel(page, "old"))
    expect(titles(page)).to_have_text(["C", "B", "A"])
    hands.click(page.get_by_role("button", name="More"))
    hands.click(page.get_by_role("button", name="Select links"))
    hands.click(page.get_by_role("button", name="All found"))
    expect(page.locator("#bulk output")).to_have_text("3 selected")
    hands.click(page.get_by_role("textbox", name="Add a tag"))
    hands.type("new")
    hands.press("Tab")
    hands.type("old")
    hands.press("Enter")
    expect(toast(page)).to_have_text("Done: 3 links.")
    assert {record["title"]: record["tags"] for record in api.all()} == {
        "A": ["x", "new"],
        "B": ["x", "new"],
        "C": ["new"],
        "D": ["y"],
    }
    expect(panel(page)).to_have_text(["new3", "x2", "y1"])
    hands.took("Rename or merge a tag, in all links")


def test_task_two_people_edit(page, api, complaints, hands):
    record = api.post(EXAMPLE, title="Old", tags=["a"], notes="Old")
    fresh(page, "Old")
    press(page, "Edit Old")
    field(page, "Title").fill("Mine")
    field(page, "Notes").fill("My notes")
    theirs = api("PATCH", f"/link/{record['link_id']}", {"title": "Theirs", "tags": ["b"]}).json()
    hands.press("Control+Enter")
    refused(page, "Somebody else has changed this link.")
    excuse(complaints, "412")
    group = dialog(page).get_by_role("group", name="Changed elsewhere")
    expect(group.get_by_role("button")).to_have_text(["Take their title: Theirs"])
    expect(field(page, "Title")).to_have_value("Mine")
    expect(chips(page)).to_have_text(["b"])
    hands.click(group.get_by_role("button"))
    expect(field(page, "Title")).to_have_value("Theirs")
    hands.press("Control+Enter")
    saved(page)
    (after,) = api.all()
    assert after == theirs | {"notes": "My notes", "updated_at": after["updated_at"]}
    hands.took("Two people edit one link: take theirs of a field, and save")


def test_task_sort(page, api, hands):
    first = api.post("https://example.com/1", title="1")
    post_all(api, "2", "3")
    api("PATCH", f"/link/{first['link_id']}", {"notes": "Changed"})
    fresh(page, "3", "2", "1")
    hands.clicks += 2  # that open the list of orders and choose one
    page.get_by_role("combobox", name="Order").select_option("Recently changed")
    expect(titles(page)).to_have_text(["1", "3", "2"])
    expect(count(page)).to_have_text("3 links")
    hands.took("Sort by what changed last")


def test_task_give_a_short_link(page, context, api, hands):
    before = api.post(EXAMPLE, title="A", tags=["a"], notes="n", expires_at=LATER, created_at="2020-01-02T03:04:05Z")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    fresh(page, "A")
    hands.click(page.get_by_role("button", name="Edit A"))
    expect(dialog(page)).to_contain_text("A name makes a copy of this link, with a short link of its own.")
    hands.click(field(page, "Name"))
    hands.type("short")
    hands.press("Control+Enter")
    saved(page, "Saved a copy with the name short.")
    expect(rows(page).first.locator(".go")).to_have_text("go/short")
    records = {record["link_id"]: record for record in api.all()}
    assert records.pop(before["link_id"]) == before
    same = {"link", "title", "tags", "notes", "expires_at", "created_at"}
    assert {name: records["short"][name] for name in same} == {name: before[name] for name in same}
    hands.took("Give a link a name")
    # Copy of the other gives the short one too.
    hands = Hands(page)
    hands.click(rows(page).last.get_by_role("button", name="Copy short link A"))
    expect(toast(page)).to_contain_text("/go/short")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"http://{api.host}/prod/go/short"
    assert api("GET", "/go/short").headers["Location"] == EXAMPLE
    hands.took("Copy a short link")


def test_task_read_later(page, api, hands):
    post_all(api, "A", "B", tags=["x"])
    fresh(page, "B", "A")
    hands.click(page.get_by_role("button", name="Read later A"))
    expect(page.get_by_role("button", name="Read later A")).to_have_attribute("aria-pressed", "true")
    assert {record["title"]: record["tags"] for record in api.all()} == {"A": ["x", "unread"], "B": ["x"]}
    hands.took("Read it later")
    hands = Hands(page)
    hands.click(page.locator("#unread"))
    expect(titles(page)).to_have_text(["A"])
    hands.took("See what is unread")
    page.get_by_role("button", name="Read later A").focus()
    page.keyboard.press("u")
    expect(page.get_by_role("button", name="Read later A")).to_have_attribute("aria-pressed", "false")
    expect(page.get_by_role("button", name="Read later A")).to_be_focused()
    assert [record["tags"] for record in api.all()] == [["x"], ["x"]]


# --- Adding


def test_the_page_of_an_empty_store_says_what_to_do(page):
    expect(page.locator("main")).to_contain_text("Add one, or drag Save to Links to your bookmarks bar")
    expect(rows(page)).to_have_count(0)
    expect(page.get_by_role("button", name="Load more")).to_be_hidden()


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_link_alone_is_enough_with_and_without_a_slash(page, api, page_url, slash):
    page.goto("about:blank")
    page.goto(page_url.removesuffix("/") + slash)
    add(page, URL=EXAMPLE)
    saved(page)
    expect(titles(page)).to_have_text([EXAMPLE])
    assert api.all()[0].keys() == {"link_id", "link", "created_at", "updated_at"}


def test_a_link_is_added_with_all_that_is_said_of_it(page, api):
    add(page, URL=EXAMPLE, Tags=" news , to read", Title="First", Notes="One\nTwo")
    saved(page)
    expect(titles(page)).to_have_text(["First"])
    expect(titles(page)).to_have_attribute("href", EXAMPLE)
    expect(rows(page)).to_contain_text("One\nTwo", use_inner_text=True)
    said = {"title": "First", "tags": ["news", "to read"], "notes": "One\nTwo"}
    (record,) = api.all()
    assert record == record | said | {"link": EXAMPLE}


def test_a_link_is_added_under_a_name(page, api):
    add(page, URL=EXAMPLE, Name="a-name")
    saved(page)
    expect(rows(page).locator(".go")).to_have_text("go/a-name")
    assert api("GET", "/go/a-name").headers["Location"] == EXAMPLE


def test_a_taken_name_is_refused_and_what_was_typed_stays(page, api, complaints):
    api("PUT", "/link/taken", {"link": EXAMPLE})
    typed = {"URL": f"{EXAMPLE}/other", "Name": "taken", "Title": "Other"}
    add(page, **typed)
    refused(page, "This name is taken: choose another one.")
    excuse(complaints, "412")
    for name, value in typed.items():
        expect(field(page, name)).to_have_value(value)
    save(page, Name="free")
    saved(page)
    assert {record["link_id"] for record in api.all()} == {"taken", "free"}


def test_what_is_refused_is_said_in_words(page, api, complaints):
    press(page, "Add")
    for link, name, title, sentence in [
        ("ftp://example.com", "", "", "The URL must be an absolute URL that starts with http:// or https://."),
        ("javascript:alert(1)", "", "", "The URL must be an absolute URL that starts with http:// or https://."),
        (EXAMPLE, "", "x" * 513, "title must have at most 512 characters, not 513."),
        (EXAMPLE, "-a", "", "A name has 1 to 64 letters"),
        (EXAMPLE, "a b", "", "A name has letters, digits and -._~, and starts with a letter or digit."),
        (EXAMPLE, "a/b", "", "A name has letters, digits and -._~, and starts with a letter or digit."),
    ]:
        save(page, URL=link, Name=name, Title=title)
        refused(page, sentence)
    excuse(complaints, "400")
    assert api.all() == []


def test_what_is_no_url_is_not_sent(page, api):
    press(page, "Add")
    for link in ("", "no link"):
        save(page, URL=link)
        expect(page.locator(":invalid:focus")).to_have_value(link)
    assert api.all() == []


def test_a_title_that_was_typed_replaces_that_of_the_link_that_is_there(page, api):
    api.post(EXAMPLE, title="First", notes="There")
    add(page, URL=EXAMPLE, Title="Mine", Notes="Typed")
    refused(page, "This link is there already")
    expect(field(page, "Title")).to_have_value("Mine")
    expect(field(page, "Notes")).to_have_value("There\n\nTyped")
    press(page, "Cancel") if not answer_to_questions(page, True) else None
    expect(dialog(page)).to_be_hidden()
    assert [(record["title"], record["notes"]) for record in api.all()] == [("First", "There")]


def test_a_double_click_saves_once(page):
    held = []
    page.route("**/link", lambda route: held.append(route))
    press(page, "Add")
    field(page, "URL").fill(EXAMPLE)
    with page.expect_request("**/link"):
        page.locator("#save").dblclick()
    expect(page.locator("#save")).to_have_text("Saving\u2026")
    for route in held:
        route.continue_()
    saved(page)
    assert len(held) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_what_passes_by_itself_is_tried_again(page, api, complaints, status):
    left = [status, status]
    refusal = {"Error": "The store is busy; try again soon.", "Reference": "x"}
    page.route("**/link", lambda route: route.fulfill(status=left.pop(), json=refusal) if left else route.fallback())
    page.clock.install()
    add(page, URL=EXAMPLE)
    for seen in (1, 0):
        while len(left) > seen or complaints.count("x") > 2:
            page.clock.run_for(100)
    while dialog(page).is_visible():
        page.clock.run_for(1000)
    excuse(complaints, str(status))
    assert len(api.all()) == 1


# --- Searching


def test_search_narrows_the_list_and_is_kept_in_the_address(page, api):
    post_all(api, "1", "2", "\u00dcnder way & <b>")
    page.reload()
    expect(rows(page)).to_have_count(3)
    search(page, "\u00fcnder &")
    expect(titles(page)).to_have_text(["\u00dcnder way & <b>"])
    page.reload()
    expect(titles(page)).to_have_text(["\u00dcnder way & <b>"])
    expect(page.get_by_role("searchbox")).to_have_value("\u00fcnder &")
    page.get_by_role("searchbox").clear()
    expect(rows(page)).to_have_count(3)


def test_search_says_when_nothing_is_found(page, api):
    post_all(api, "A")
    search(page, "nowhere")
    expect(page.locator("#state")).to_contain_text("No link has all of that.")
    expect(count(page)).to_have_text("0 links")
    expect(rows(page)).to_have_count(0)
    page.get_by_role("link", name="Show all links").click()
    expect(titles(page)).to_have_text(["A"])


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
    row(page, "B").get_by_role("link", name="#red").click()
    expect(titles(page)).to_have_text(["B", "A"])
    row(page, "A").get_by_role("link", name="#big & < old").click()
    expect(titles(page)).to_have_text(["A"])
    page.get_by_role("link", name="without #big & < old", exact=True).click()
    expect(titles(page)).to_have_text(["B", "A"])
    page.get_by_role("link", name="without #red", exact=True).click()
    for shown in (["C", "B", "A"], ["B", "A"], ["A"], ["B", "A"], ["C", "B", "A"]):
        expect(titles(page)).to_have_text(shown)
        page.go_back()


def test_going_back_comes_to_the_place_one_was_at(page, api):
    at_once(lambda n: post_all(api, str(n), tags=["odd"] if n % 2 else ["even"]), range(60))
    page.reload()
    expect(rows(page)).to_have_count(60)
    page.mouse.wheel(0, 900)
    until(page, "scrollY == 900 && view.scroll == 900")
    panel(page, "odd").click()
    expect(rows(page)).to_have_count(30)
    assert page.evaluate("scrollY") == 0
    page.go_back()
    expect(rows(page)).to_have_count(60)
    until(page, "scrollY == 900")
    page.go_forward()
    expect(rows(page)).to_have_count(30)


def test_the_list_keeps_its_place_after_an_edit(page, api):
    at_once(lambda n: post_all(api, str(n)), range(60))
    page.reload()
    expect(rows(page)).to_have_count(60)
    last = titles(page).last.text_content()
    page.get_by_role("button", name=f"Edit {last}", exact=True).click()
    at = page.evaluate("scrollY")
    assert at > 900
    save(page, Title="Changed")
    saved(page)
    expect(titles(page).last).to_have_text("Changed")
    expect(titles(page).last).to_be_focused()
    assert page.evaluate("scrollY") == at


def test_the_feed_is_of_what_is_looked_for(page, api):
    post_all(api, "Found", tags=["a & b"])
    post_all(api, "Other")
    page.reload()
    rows(page).get_by_role("link", name="#a & b").click()
    expect(titles(page)).to_have_text(["Found"])
    press(page, "More")
    feed = urlsplit(page.get_by_role("link", name="Feed").get_attribute("href"))
    assert feed.query == "tag=a%20%26%20b"  # which every decoder takes for a space, unlike +
    answer = api("GET", f"/feed?{feed.query}").text
    assert "Found" in answer and "Other" not in answer


# --- Changing


def test_an_edit_changes_what_was_changed(page, api):
    before = api.post(EXAMPLE, title="Old", tags=["a"], notes="Old", expires_at=LATER)
    press_in_row(page, "Edit")
    expect(chips(page)).to_have_text(["a"])
    press(page, "Take off a")
    changes = {"title": "New", "tags": ["b", "c"], "notes": "New\n\nlines"}
    save(page, Title="New", Tags="b,c", Notes="New\n\nlines")
    saved(page)
    expect(titles(page)).to_have_text(["New"])
    (after,) = api.all()
    assert after == before | changes | {"updated_at": after["updated_at"]}


def test_an_emptied_field_goes_away(page, api):
    api.post(EXAMPLE, title="Old", tags=["a"], notes="Old")
    press_in_row(page, "Edit")
    press(page, "Take off a")
    save(page, Title="", Notes="")
    saved(page)
    expect(titles(page)).to_have_text([EXAMPLE])
    assert api.all()[0].keys() == {"link_id", "link", "created_at", "updated_at"}


def test_an_edit_leaves_alone_what_the_form_cannot_show(page, api):
    said = {"title": "a\nb", "tags": ["a, b", " c "], "notes": "1\r\n2"}
    before = api("PUT", "/link/a-name", {"link": EXAMPLE, **said}).json()
    press_in_row(page, "Edit")
    save(page, URL=f"{EXAMPLE}/new")
    saved(page)
    (after,) = api.all()
    assert after == before | {"link": f"{EXAMPLE}/new", "updated_at": after["updated_at"]}


def test_an_edit_of_tags_keeps_a_comma_inside_one(page, api):
    api.post(EXAMPLE, tags=["a, b", "c", "d,e"])
    press_in_row(page, "Edit")
    press(page, "Take off d,e")
    save(page, Tags="new")
    saved(page)
    assert api.all()[0]["tags"] == ["a, b", "c", "new"]


def test_what_both_changed_in_the_same_way_is_no_conflict(page, api, complaints):
    record = api.post(EXAMPLE, title="Old")
    press_in_row(page, "Edit")
    field(page, "Title").fill("Same")
    api("PATCH", f"/link/{record['link_id']}", {"title": "Same"})
    press(page, "Save")
    refused(page, "Somebody else has changed this link.")
    excuse(complaints, "412")
    expect(dialog(page).get_by_role("group", name="Changed elsewhere")).to_be_hidden()
    press(page, "Save")
    saved(page)


def test_two_tabs_do_not_undo_each_other(page, context, api, complaints):
    api.post(EXAMPLE, title="Old", tags=["a"])
    fresh(page, "Old")
    other = context.new_page()
    other.goto(page.url)
    press(other, "Read later Old")
    expect(other.get_by_role("button", name="Read later Old")).to_have_attribute("aria-pressed", "true")
    press(page, "Edit Old")
    expect(chips(page)).to_have_text(["a", "unread"])
    save(page, Title="New")
    saved(page)
    press(other, "Read later Old")
    expect(titles(other)).to_have_text(["New"])
    press(page, "Delete New")
    expect(rows(page)).to_have_text("Deleted NewUndo")
    press(other, "Read later New")
    expect(toast(other)).to_have_text("There is no link with this id.")
    excuse(complaints, "404")
    press(page, "Undo")
    expect(titles(page)).to_have_text(["New"])
    assert [(record["title"], record["tags"]) for record in api.all()] == [("New", ["a"])]


@pytest.mark.parametrize("name", ["", "a-name"])
def test_what_was_deleted_elsewhere_is_stored_again(page, api, complaints, name):
    record = {"link": EXAMPLE, "title": "Old", "notes": "Kept"}
    if name:
        api("PUT", f"/link/{name}", record)
    else:
        api.post(**record)
    press_in_row(page, "Edit")
    field(page, "Title").fill("Mine")
    assert api("DELETE", f"/link/{api.all()[0]['link_id']}").status_code == 204
    press(page, "Save")
    refused(page, "It was deleted elsewhere. Save stores it again.")
    excuse(complaints, "404")
    press(page, "Save")
    saved(page)
    (after,) = api.all()
    assert after == after | {"link": EXAMPLE, "title": "Mine", "notes": "Kept"}
    assert (after["link_id"] == name) == bool(name)


def test_the_url_of_a_named_link_can_change_that_of_a_posted_one_cannot(page, api, complaints):
    posted = api.post(EXAMPLE, title="Posted")
    api("PUT", "/link/a-name", {"link": EXAMPLE, "title": "Named"})
    page.reload()
    press(page, "Edit Named")
    expect(field(page, "Name")).to_have_value("a-name")
    expect(field(page, "Name")).to_be_disabled()
    save(page, URL=f"{EXAMPLE}/new")
    saved(page)
    press(page, "Edit Posted")
    expect(field(page, "Name")).to_be_enabled()
    save(page, URL=f"{EXAMPLE}/new")
    refused(page, "Without a name a link keeps its URL: give it a name, or add the other URL.")
    excuse(complaints, "409")
    answer_to_questions(page, True)
    press(page, "Cancel")
    press(page, "Add")
    expect(field(page, "Name")).to_have_value("")
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
    expect(rows(page)).to_have_text("Deleted KeptUndo")
    assert api.all() == []
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(rows(page)).to_contain_text("2 visits")
    expect(titles(page)).to_be_focused()
    expect(rows(page).locator("time")).to_have_attribute("title", re.compile("Added 2020-01-02.*expires 2999-01-01"))
    (after,) = api.all()
    assert after == before | said | {"visits": 2, "updated_at": after["updated_at"]}


# --- Many at once


def test_many_are_deleted_and_brought_back(page, api):
    post_all(api, "A", "B", "C", tags=["t"])
    fresh(page, "C", "B", "A")
    press_more(page, "Select links")
    for title in ("A", "B"):
        page.get_by_role("checkbox", name=f"Select {title}").check()
    expect(page.locator("#bulk output")).to_have_text("2 selected")
    press(page, "Delete")
    expect(toast(page)).to_contain_text("Done: 2 links.")
    assert [record["title"] for record in api.all()] == ["C"]
    expect(panel(page, "t")).to_have_text("t1")
    toast(page).get_by_role("button", name="Undo").click()
    expect(titles(page)).to_have_text(["C", "B", "A"])
    expect(toast(page)).to_contain_text("Done: 2 links.")
    assert sorted(record["title"] for record in api.all()) == ["A", "B", "C"]
    page.keyboard.press("Escape")
    expect(page.locator("#bulk")).to_be_hidden()


def test_what_stops_says_where_and_the_rest_stays_selected(page, api, complaints):
    post_all(api, "A", "B", "C")
    fresh(page, "C", "B", "A")
    gone = next(record for record in api.all() if record["title"] == "B")
    assert api("DELETE", f"/link/{gone['link_id']}").status_code == 204
    press_more(page, "Select links")
    press(page, "All found")
    page.get_by_role("textbox", name="Add a tag").fill("new")
    press(page, "Apply")
    expect(toast(page)).to_contain_text("Stopped at 2 of 3, B: There is no link with this id.")
    excuse(complaints, "404")
    expect(page.locator("#bulk output")).to_have_text("2 selected")
    assert {record["title"]: record.get("tags") for record in api.all()} == {"A": None, "C": ["new"]}


def test_a_change_of_many_leaves_alone_what_needs_none(page, api):
    post_all(api, "A", tags=["a"])
    post_all(api, "B")
    before = api.all()
    fresh(page, "B", "A")
    press_more(page, "Select links")
    press(page, "All found")
    page.get_by_role("textbox", name="Take off a tag").fill("other")
    press(page, "Apply")
    expect(toast(page)).to_have_text("Done: 2 links.")
    assert api.all() == before


# --- Short links


def test_copy_gives_a_short_link_that_redirects(page, context, api):
    api.post(EXAMPLE)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    press_in_row(page, "Copy short link")
    expect(toast(page)).to_contain_text("Copied http")
    host, path = page.evaluate("navigator.clipboard.readText()").split("/prod")
    assert host == f"http://{api.host}"
    assert api("GET", path).headers["Location"] == EXAMPLE


def test_a_short_link_that_cannot_be_copied_is_shown(page, api):
    api("PUT", "/link/a-name", {"link": EXAMPLE})
    page.add_init_script("navigator.clipboard.writeText = () => Promise.reject(Error())")
    press_in_row(page, "Copy")
    expect(toast(page)).to_have_text(f"Copy it from here: http://{api.host}/prod/go/a-name")


# --- Many links


@pytest.fixture(scope="module")
def many(engine):
    """An Api for a store with 2,000 links, and its page."""
    with http_api(engine, create_stack(engine, "many")) as api:
        api.page = put_up(engine, "many", api)
        at_once(lambda n: api.post(f"https://example.com/{n}", title=str(n), tags=[f"t{n % 7}"]), range(2000))
        yield api


def test_all_of_2000_links_come_as_one_scrolls(context, complaints, many):
    page = context.new_page()
    page.goto(many.page)
    expect(rows(page)).to_have_count(100)
    expect(count(page)).to_have_text("100 links so far")
    shown = 100
    while shown < 2000:
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(rows(page)).not_to_have_count(shown)
        shown = rows(page).count()
    expect(count(page)).to_have_text("2000 links")
    assert sorted(map(int, titles(page).all_text_contents())) == list(range(2000))
    stops = page.locator("main :is(a[href], button, input):not([tabindex='-1']):visible").count()
    assert stops < 20, "a list is not hundreds of stops for Tab"


def test_all_found_of_2000_can_be_selected(context, complaints, many):
    page = context.new_page()
    page.goto(f"{many.page}#tag=t3")
    expect(count(page)).to_have_text("286 links")  # known from the tags before all are loaded
    press_more(page, "Select links")
    press(page, "All found")
    expect(page.locator("#bulk output")).to_have_text("286 selected")


def test_an_empty_page_of_the_api_is_not_the_end(page, api):
    post_all(api, "Far behind")
    following = {"Link": f'<http://{api.host}/prod/link?cursor=x>; rel="next"', "Access-Control-Expose-Headers": "Link"}
    page.route("**/link?", lambda route: route.fulfill(json=[], headers=following))
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

OTHER = "http://other.localhost/a?b=1&c=%23#d"
OTHER_PAGE = "<!doctype html><title></title><p>Before</p><p id=text></p><p>After</p>"
FILL = "([title, said]) => { document.title = title; text.textContent = said; getSelection().selectAllChildren(text) }"


def from_bookmarklet(page, context, title):
    """Use the bookmarklet on a page with this title and a selection; return the tab that it opens."""
    code = unquote(page.locator("#empty .mark").get_attribute("href"))
    other = context.new_page()
    other.route(OTHER.split("#")[0], lambda route: route.fulfill(content_type="text/html", body=OTHER_PAGE))
    other.goto(OTHER)
    other.evaluate(FILL, [title, "Said & done #1"])
    with other.expect_popup() as opened:
        other.evaluate(code.removeprefix("javascript:"))
    return opened.value


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


# --- Keyboards, screen readers and screens


def test_a_link_is_added_by_keyboard_alone(page, api):
    add_button = page.get_by_role("button", name="Add", exact=True)
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(add_button).to_be_focused()
    page.keyboard.press("Enter")
    expect(field(page, "URL")).to_be_focused()
    for text in (EXAMPLE, "a, b", "Keys", "Notes", "by-keys"):
        page.keyboard.insert_text(text)
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    saved(page)
    (record,) = api.all()
    assert record == record | {"link_id": "by-keys", "title": "Keys", "tags": ["a", "b"], "notes": "Notes"}


def test_all_of_a_row_is_within_reach_of_keys(page, api):
    post_all(api, "A", "B", "C", tags=["t"])
    fresh(page, "C", "B", "A")
    focused = page.locator(":focus")
    page.keyboard.press("j")
    expect(focused).to_have_text("C")
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_text("A")
    page.keyboard.press("k")
    expect(focused).to_have_text("B")
    for name in ("#t", "Read later B", "Copy short link B", "Edit B", "Delete B", "Show all B"):
        page.keyboard.press("Tab")
        expect(focused).to_have_accessible_name(name)
    page.keyboard.press("Enter")
    expect(focused).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Tab")
    assert page.evaluate("list.contains(document.activeElement)") is False
    page.keyboard.press("e")
    expect(field(page, "Title")).to_have_value("B")
    page.keyboard.press("Escape")
    expect(dialog(page)).to_be_hidden()
    page.keyboard.press("x")
    expect(page.get_by_role("checkbox", name="Select B")).to_be_checked()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("Next link")


def test_keys_of_one_letter_can_be_turned_off(page):
    """WCAG 2.2, 2.1.4."""
    page.keyboard.press("?")
    page.get_by_role("checkbox", name="Keys of one letter work").uncheck()
    press(page, "Close")
    page.reload()
    page.keyboard.press("n")
    page.keyboard.press("?")
    assert page.locator("dialog[open]").count() == 0


@pytest.mark.parametrize("way", ["Escape", "Cancel"])
def test_closing_the_form_asks_before_it_discards_what_was_typed(page, api, way):
    def leave():
        page.keyboard.press("Escape") if way == "Escape" else press(page, way)

    press(page, "Add")
    leave()
    expect(dialog(page)).to_be_hidden()
    press(page, "Add")
    field(page, "Title").fill("Typed")
    asked = answer_to_questions(page, False, True)
    leave()
    expect(field(page, "Title")).to_have_value("Typed")
    leave()
    expect(dialog(page)).to_be_hidden()
    assert asked == ["Discard what you typed?"] * 2
    expect(page.get_by_role("button", name="Add", exact=True)).to_be_focused()
    press(page, "Add")
    expect(field(page, "Title")).to_have_value("")
    assert api.all() == []


def test_escape_closes_what_is_offered_before_the_form(page, api):
    post_all(api, "A", tags=["tag"])
    fresh(page, "A")
    press(page, "Add")
    field(page, "Tags").press_sequentially("ta")
    offered = dialog(page).locator("#offered button")
    expect(offered).to_have_count(1)
    page.keyboard.press("Escape")
    expect(offered).to_have_count(0)
    expect(dialog(page)).to_be_visible()
    field(page, "Tags").press_sequentially("g")
    offered.click()
    expect(chips(page)).to_have_text(["tag"])
    expect(field(page, "Tags")).to_be_focused()


def test_all_that_can_be_used_has_a_name_of_its_own(page, api):
    for name in ("A", "B"):
        post_all(api, name, tags=[name])
    fresh(page, "B", "A")
    used = re.compile(r"- (button|link|textbox|searchbox|combobox)(?: \"(.*?)\")?")
    listed = used.findall(page.locator("body").aria_snapshot())
    assert len(listed) > 20
    assert len(set(listed)) == len(listed) and all(name for _, name in listed)
    press(page, "Add")
    listed = used.findall(dialog(page).aria_snapshot())
    assert [name for _, name in listed] == ["URL", "Tags", "Title", "Notes", "Name", "Save", "Cancel"]


@pytest.fixture(scope="module")
def shown(engine):
    """An Api of a store with the links of the screenshots, and its page."""
    with http_api(engine, create_stack(engine, "shown")) as api:
        api.page = put_up(engine, "shown", api)
        with httpx.Client(headers={"Host": api.host}, trust_env=False) as client:
            screens.store_all(client, api.url)
        yield api


@pytest.mark.parametrize("size, wanted", [((1280, 900), 13), ((375, 812), 10)])
def test_a_screen_shows_many_links(context, complaints, shown, size, wanted):
    page = context.new_page()
    page.set_viewport_size(dict(zip(("width", "height"), size)))
    page.goto(shown.page)
    expect(rows(page)).to_have_count(25)
    expect(panel(page, "web")).to_be_visible()
    whole = rows(page).evaluate_all(
        "rows => rows.filter(row => row.getBoundingClientRect().bottom <= innerHeight).length"
    )
    assert whole == wanted


WAYS = {
    "list": lambda page: None,
    "dialog": lambda page: page.keyboard.press("n"),
    "offered": lambda page: (page.keyboard.press("n"), field(page, "Tags").press_sequentially("a")),
    "select": lambda page: (page.keyboard.press("j"), page.keyboard.press("x")),
    "more": lambda page: press(page, "More"),
    "keys": lambda page: page.keyboard.press("?"),
    "open": lambda page: page.get_by_role("button", name=re.compile("Show all")).nth(1).click(),
    "gone": lambda page: page.locator(".delete").first.click(),
}
STANDARD = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_axe_finds_nothing(context, complaints, shown, scheme, width):
    """WCAG 2.2 AA, as far as a program can tell; 320 px is 1280 at 400 % (1.4.10)."""
    page = context.new_page()
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.route(
        "**/link/*", lambda route: route.fulfill(status=204) if route.request.method == "DELETE" else route.fallback()
    )
    for way, go in WAYS.items():
        page.goto("about:blank")
        page.goto(shown.page)
        expect(rows(page)).to_have_count(25)
        expect(panel(page, "web")).to_be_visible()
        if width == 320 and way == "gone":
            continue
        go(page)
        found = Axe().run(page, options=STANDARD).response["violations"]
        assert [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found] == [], way
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), way
        if page.locator("dialog[open]").count():
            assert page.locator("dialog[open]").evaluate("it => it.scrollWidth <= it.clientWidth"), way


SMALL = """() => [...document.querySelectorAll("a, button, input, select, textarea")]
    .filter(each => each.checkVisibility() && !each.closest(".unseen"))
    .map(each => [each.outerHTML.slice(0, 120), each.getBoundingClientRect()])
    .filter(([, box]) => box.width && (box.width < 24 || box.height < 24) && !(box.width == 18 && box.height == 18))
    .map(([html]) => html)"""


@pytest.mark.parametrize("width", [1280, 375])
def test_targets_have_24_pixels(context, complaints, shown, width):
    """A box of a row is in a label that has them (WCAG 2.2, 2.5.8)."""
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(shown.page)
    expect(panel(page, "web")).to_be_visible()
    for go in (WAYS["select"], WAYS["dialog"]):
        go(page)
        assert page.evaluate(SMALL) == []


def test_a_narrow_screen_needs_no_scrolling_sideways(page, api):
    long = {"title": "t" * 400, "tags": ["g" * 64, *"abcdefghijklmnop"], "notes": "n" * 400}
    for name, said in {"x" * 400: long, "y" * 400: {"tags": ["g" * 64]}}.items():
        api.post(f"https://example.com/{name}", **said)
    page.set_viewport_size({"width": 375, "height": 700})
    page.goto(f"{page.url.split('#')[0]}#tag={'g' * 64}")
    expect(rows(page)).to_have_count(2)
    rows(page).first.get_by_role("button", name="Show all").click()
    rows(page).first.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    rows(page).last.get_by_role("button", name="Show all").click()
    rows(page).last.get_by_role("button", name="Edit").click()
    expect(dialog(page)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert dialog(page).evaluate("it => it.scrollWidth <= it.clientWidth")


def test_what_the_page_says_is_seen_far_down_in_the_list(page, api):
    post_all(api, *map(str, range(30)))
    page.reload()
    rows(page).last.get_by_role("button", name="Copy").click()
    expect(toast(page)).to_contain_text(re.compile("Cop"))
    expect(toast(page)).to_be_in_viewport()


@pytest.mark.parametrize("media", [{"forced_colors": "active"}, {"reduced_motion": "reduce"}])
def test_nothing_depends_on_colour_or_motion(context, complaints, shown, media):
    page = context.new_page()
    page.emulate_media(**media)
    page.goto(f"{shown.page}#tag=web")
    expect(rows(page)).to_have_count(4)
    assert page.evaluate("document.getAnimations().length") == 0
    tag = panel(page, "web")
    assert tag.evaluate("it => getComputedStyle(it).fontWeight") == "600"
    page.keyboard.press("j")
    assert page.locator(":focus").evaluate("it => getComputedStyle(it).outlineStyle") == "solid"
