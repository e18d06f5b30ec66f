"""The page for people, in Chromium: what they see and do, and what of it the API has afterwards.

The store and its page are two stacks, and so two origins to the browser.
"""

import contextlib
import re
from urllib.parse import urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Error, expect

import screens
from conftest import ROOT, create_stack, http_api
from pages import (
    EXAMPLE,
    LATER,
    OTHER,
    add,
    answer_to_questions,
    at_once,
    chips,
    count,
    dialog,
    excuse,
    field,
    from_bookmarklet,
    panel,
    post_all,
    press,
    press_in_row,
    press_more,
    put_up,
    refused,
    row,
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
