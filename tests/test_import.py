"""Files of links into the store, as a person puts them there."""

import json

import pytest

from exchange import BLANK, CONTROL, NO_URL


def test_chrome(store):
    refused = [f"25: javascript:alert(1): {NO_URL}", f"26: chrome://settings/: {NO_URL}"]
    store.reads("chrome.html", added=5, refused=refused)
    records = store.records()
    assert records.pop("https://chrome.example/phone").pop("created_at") > "2026", "ADD_DATE is in the future"
    assert records.pop("https://chrome.example/untitled").keys() == {"created_at"}, "and its ADD_DATE is 0"
    assert records == {
        "https://chrome.example/news?a=1&copy=2&lang=en": {
            "title": "News & more",
            "created_at": "2020-09-13T12:26:41.000Z",
        },
        "https://chrome.example/bread": {
            "title": "Bread",
            "tags": ["Cooking", "Favorites"],
            "created_at": "2020-09-13T12:26:43.000Z",
        },
        "https://chrome.example/leek": {
            "title": "Leek <soup>",
            "tags": ["Cooking", "Soups, hot"],
            "created_at": "2020-09-13T12:26:45.000Z",
        },
    }


def test_firefox(store):
    refused = [f"12: place:sort=8&maxResults=10: {NO_URL}"]
    store.reads("firefox.html", added=4, refused=refused)
    assert store.records() == {
        "https://firefox.example/novel": {
            "title": "A novel",
            "tags": ["Reading", "fiction", "to read"],
            "notes": "Long, but good.\nIt has a second volume & a third.",
            "created_at": "2017-07-14T02:40:03.000Z",
        },
        "https://firefox.example/essay": {
            "title": "An essay",
            "tags": ["Reading"],
            "created_at": "2017-07-14T02:40:05.000Z",
        },
        "https://firefox.example/straße": {"title": "Straße", "created_at": "2017-07-14T02:40:09.000Z"},
        "https://firefox.example/loose": {"title": "Loose", "created_at": "2017-07-14T02:40:12.123Z"},
    }


def test_safari(store):
    store.reads("safari.html", added=4)
    assert store.records("created_at") == {
        "https://safari.example/one": {"title": "One"},
        "https://safari.example/two": {"title": "Two", "tags": ["Trips"]},
        "https://safari.example/three": {"title": "Three"},
        "https://safari.example/four": {"title": "Four", "tags": ["Reading List"]},
    }


def test_shaarli(store):
    store.reads("shaarli.html", added=2, refused=[f"13: /shaare/WDWyig: {NO_URL}"])
    assert store.records("created_at") == {
        "https://shaarli.example/first": {
            "title": "First",
            "tags": ["opensource", "software"],
            "notes": "One line,\n<b>and another</b>\nand a third",
        },
        "https://shaarli.example/last": {"title": "Last", "tags": ["secret"]},
    }


def test_pinboard(store):
    store.reads("pinboard.html", added=2)
    assert store.records("created_at") == {
        "https://pinboard.example/x": {"title": "X", "tags": ["to", "do"]},
        "https://pinboard.example/y": {"title": "Y", "notes": "Without an end of the A", "tags": ["unread"]},
    }


def test_a_list_of_urls_in_an_old_encoding(store):
    store.reads("list.txt", added=3, refused=[f"4: not a URL: {BLANK}"])
    assert store.records("created_at") == {
        "https://list.example/a": {},
        "https://list.example/b": {},
        "https://list.example/café": {},
    }


def test_csv_of_a_person(store):
    store.reads("links.csv", added=3, refused=["5: link is missing."])
    assert store.records("created_at") == {
        "https://csv.example/a": {"title": "Apostrophes", "tags": ["one", "two words"]},
        "https://csv.example/b": {"title": "Two\nlines"},
        "https://csv.example/c": {"title": "=1+1", "tags": []},
    }


def test_json_lines_with_mistakes(store):
    refused = [
        "2: https://json.example/b: tags must be an array of at most 32 strings.",
        "3: This is not JSON; it is read again from line 6 on.",
        "6: 5: link must be a string.",
        "7: https://json.example/e: expires_at must be in the future.",
        "8: https://json.example/f: A name has 1 to 64 letters, digits and -._~, and one of the first two first.",
    ]
    store.reads("broken.jsonl", added=2, refused=refused)
    assert store.records("created_at") == {"https://json.example/a": {"title": "A"}, "https://json.example/g": {}}


def test_a_json_array(store):
    store.reads("array.json", added=2)
    (home,) = [each for each in store.api.all() if each["link_id"] == "home"]
    assert (home["link"], home["visits"]) == ("https://json.example/home", 7)
    assert home["created_at"] == "2020-02-02T02:02:02.002Z"


def test_what_curl_prints(store, tmp_path):
    for number in range(3):
        store.api.post(f"https://example.com/{number}", title=f"Number {number}")
    before, path = store.records(), tmp_path / "printed"
    path.write_bytes(store.api("GET", "/link").content)
    store.clear()
    store.takes(path, added=3)
    assert store.records() == before


def test_a_byte_order_mark_is_no_part_of_the_first_line(store, tmp_path):
    path = tmp_path / "list"
    path.write_text("https://example.com/é", encoding="utf-8-sig")
    store.takes(path, added=1)
    assert store.records("created_at") == {"https://example.com/é": {}}


def test_one_link_in_many_places_is_one(store, tmp_path):
    path, link = tmp_path / "links.jsonl", "https://example.com/a"
    lines = [{"tags": ["x"]}, {"title": "A", "tags": ["y", "x"], "notes": "N"}, {"title": "B", "visits": 2}]
    path.write_text("\n".join(json.dumps({"link": link, **each}) for each in lines))
    store.takes(path, added=1)
    assert store.records("created_at") == {link: {"tags": ["x", "y"], "title": "A", "notes": "N", "visits": 2}}


def test_a_title_edited_in_an_export_counts(store, tmp_path):
    path = tmp_path / "links.html"
    store.api.post("https://example.com/a", title="Old", visits=3)
    store.gives(path, 1)
    path.write_text(path.read_text().replace(">Old<", ">New<"))
    store.clear()
    store.takes(path, added=1)
    assert store.records("created_at") == {"https://example.com/a": {"title": "New", "visits": 3}}


def test_what_a_bookmark_says_of_itself_cannot_be_another_link_nor_write_to_the_terminal(store, tmp_path):
    path = tmp_path / "links.html"
    path.write_text(
        "<!DOCTYPE NETSCAPE-Bookmark-file-1><DL><p>\n"
        """<DT><A HREF="https://example.com/a" DATA-REST='{"link": "https://evil.example", "visits": 1}'>A</A>\n"""
        '<DT><A HREF="https://example.com/b" DATA-REST="[1]">B</A>\n'
        '<DT><A HREF="ftp://example.com/\x1b[31m">C</A>\n</DL>'
    )
    refused = ["3: DATA-REST is not a JSON object.", f"4: ftp://example.com/?[31m: {CONTROL}"]
    store.takes(path, added=1, refused=refused)
    assert store.records("created_at") == {"https://example.com/a": {"title": "A", "visits": 1}}


def test_a_name_that_is_taken(store, tmp_path):
    path = tmp_path / "links.jsonl"
    names = {name: f"https://example.com/{name}" for name in ("home", "free", "same")}
    path.write_text("\n".join(json.dumps({"link_id": name, "link": link}) for name, link in names.items()))
    for name, link in {"home": "https://example.com/theirs", "same": names["same"]}.items():
        assert store.api("PUT", f"/link/{name}", {"link": link}).status_code == 201
    refused = ["1: https://example.com/home: the name home is taken."]
    store.takes(path, added=1, there=1, refused=refused)
    assert store.records().keys() == {names["free"], names["same"], "https://example.com/theirs"}


@pytest.mark.parametrize("again", ["HTTPS://EXAMPLE.com:443/one", "https://example.com:443/one"])
def test_of_a_url_that_comes_twice_the_first_counts(store, tmp_path, again):
    path = tmp_path / "links.jsonl"
    lines = [{"link": "https://example.com/one", "title": "First"}, {"link": again, "title": "Second"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    store.takes(path, added=1)
    assert [record["title"] for record in store.records().values()] == ["First"]


def test_hundreds_of_links_at_once(store, tmp_path):
    path, links = tmp_path / "list.txt", [f"https://example.com/{number}" for number in range(300)]
    path.write_text("\n".join(["no URL", *links, "no URL either"]))
    refused = [f"1: no URL: {BLANK}", f"302: no URL either: {BLANK}"]
    store.takes(path, added=300, refused=refused)
    assert store.records().keys() == set(links)
