"""What the tests of the page share: the page in Chromium, its parts by the names that people see, and what one does."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, unquote, urlsplit

import httpx
import pytest
from playwright.sync_api import expect

import stack
from conftest import NEVER_THROTTLED, create, named, outputs

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


@pytest.fixture(scope="session")
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
