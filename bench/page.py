"""Measure the page in Chromium: its script until 100 links are there, and tasks over 50 ms while 2,000 scroll by.

    .venv/bin/python bench/page.py --rounds 10

The store and its page are on a local engine. Times are those of this machine, and of its load.
"""

import argparse
import json
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from playwright.sync_api import expect  # noqa: E402

import screens  # noqa: E402

LINKS = 2000


def store_many(client, base):
    def post(n):
        body = {
            "link": f"https://example.com/{n}",
            "title": f"The title of link number {n}",
            "tags": [f"t{n % 50}", "x"],
        }
        client.post(f"{base}/link", json=body).raise_for_status()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(post, range(LINKS)))


def opened(browser, url):
    """Open the page anew; return it when it shows 100 links, and the milliseconds of script until then."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    network = page.context.new_cdp_session(page)
    network.send("Performance.enable")
    page.goto(url)
    expect(page.locator("#list > li")).to_have_count(100)
    metrics = {each["name"]: each["value"] for each in network.send("Performance.getMetrics")["metrics"]}
    return page, metrics["ScriptDuration"] * 1000


SCROLL = """async links => {
    while (list.childElementCount < links || scrollY + innerHeight < document.body.scrollHeight - 1) {
        scrollBy(0, 800);
        await new Promise(requestAnimationFrame);
    }
}"""


def scrolled(browser, page):
    """Scroll to the end of all links; return the milliseconds of CPU of each task over 50 ms on the way.

    That is what a browser calls long (W3C, Long Tasks API), but without the time that others had the CPU.
    """
    browser.start_tracing(page=page, categories=["disabled-by-default-devtools.timeline"])
    page.evaluate(SCROLL, LINKS)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    tasks = [event["tdur"] / 1000 for event in events if event["name"] == "RunTask" and "tdur" in event]
    assert tasks
    return sorted((round(each) for each in tasks if each > 50), reverse=True), round(max(tasks))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with screens.running() as (browser, url, client, base):
        store_many(client, base)
        scripts, long = [], []
        for _ in range(rounds):
            page, script = opened(browser, url)
            scripts.append(script)
            long.append(scrolled(browser, page))
            page.context.close()
    quartiles = statistics.quantiles(scripts, n=4)
    print(f"Script until 100 links are shown, ms: {quartiles[1]:.0f} ({quartiles[0]:.0f}-{quartiles[2]:.0f})")
    print(f"Tasks over 50 ms of CPU while {LINKS:,} links scroll by, and the longest, by round: {long}")
    print(f"The page, bytes: {Path(__file__).parent.parent.joinpath('handler/page.html').stat().st_size:,}")


if __name__ == "__main__":
    main()
