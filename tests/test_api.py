"""What the API promises, tried on the handler alone and on the whole stack."""

import base64
import json
import re
import time
import uuid
from datetime import datetime, timedelta, timezone
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import feedparser
import pytest

GOOGLE = "https://www.google.com"
# It takes DELETE, GET, HEAD, OPTIONS, PATCH, POST and PUT (CDK reference, enum HttpMethod).
NO_METHOD = pytest.mark.engine("API Gateway itself refuses a method that it does not know")
TRACE, PROPFIND = (pytest.param(name, marks=NO_METHOD) for name in ("TRACE", "PROPFIND"))
LONG = "https://example.com/" + "x" * 8172  # 8,192 bytes


def path_of(record):
    return f"/link/{record['link_id']}"


# --- POST /link


def test_post_stores_a_link(api):
    earliest = datetime.now(timezone.utc).isoformat(timespec="milliseconds")[:23]
    answer = api("POST", "/link", {"link": GOOGLE})
    assert answer.status_code == 201
    record = answer.json()
    assert record.keys() == {"link_id", "link", "created_at", "updated_at"}
    assert record["link"] == GOOGLE
    assert record["link_id"] == str(uuid.uuid5(uuid.NAMESPACE_URL, GOOGLE))
    assert record["created_at"] == record["updated_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["created_at"])
    assert earliest <= record["created_at"][:23]
    assert answer.headers["Location"].endswith("/prod" + path_of(record))
    again = api("GET", path_of(record))
    assert (again.json(), again.headers["ETag"]) == (record, answer.headers["ETag"])


def test_post_keeps_what_is_said_of_a_link(api):
    fields = {"title": 'Ünïcode "q" \\ \U0001f517', "tags": ["a b", "ß", "a"], "notes": "1\r\n2\t\x7f"}
    record = api.post(GOOGLE, **fields)
    assert record == record | fields
    assert api.all() == [record] == [api("GET", path_of(record)).json()]


def test_tags_do_not_repeat(api):
    assert api.post(GOOGLE, tags=["b", "a", "b"])["tags"] == ["b", "a"]


def test_the_longest_fields_fit(api):
    fields = {"title": "\U0001f517" * 512, "tags": [f"{n:\u00e9>64}" for n in range(32)]}
    record = api.post(LONG, notes="\U0001f517" * 8192, **fields)
    assert api("GET", path_of(record)).json() == record == record | fields | {"link": LONG}


def test_post_again_returns_what_is_there(api):
    first = api("POST", "/link", {"link": GOOGLE, "title": "First"})
    again = api("POST", "/link", {"link": GOOGLE, "title": "Again", "notes": "More"})
    assert again.status_code == 200
    assert again.json() == first.json()
    for name in ("ETag", "Location"):
        assert again.headers[name] == first.headers[name]
    assert api.all() == [first.json()]


def test_content_type_does_not_matter(api):
    for n, kind in enumerate(["application/x-www-form-urlencoded", "text/plain", "nonsense"]):
        answer = api("POST", "/link", {"link": f"{GOOGLE}/{n}"}, {"Content-Type": kind})
        assert answer.status_code == 201


@pytest.mark.parametrize(
    "given, stored",
    [
        ("HTTPS://WWW.Google.COM", GOOGLE),
        (f"{GOOGLE}/", GOOGLE),
        (f"{GOOGLE}:443", GOOGLE),
        (f"{GOOGLE}:443/", GOOGLE),
        (f"{GOOGLE}:", GOOGLE),
        (f"{GOOGLE}:0443/", GOOGLE),
        (f" \t\r\n{GOOGLE}\u00a0\n", GOOGLE),
        ("http://example.com:80/a", "http://example.com/a"),
        ("HTTP://User:Pa@ss@HOST:8080/Path?Q#F", "http://User:Pa@ss@host:8080/Path?Q#F"),
        ("http://[2001:DB8::1]:80/", "http://[2001:db8::1]"),
        ("https://B\u00dcCHER.example/", "https://b\u00fccher.example"),
    ],
)
def test_equal_urls_are_one_link(api, given, stored):
    record = api.post(given)
    assert record["link"] == stored
    answer = api("POST", "/link", {"link": stored})
    assert (answer.status_code, answer.json()) == (200, record)


@pytest.mark.parametrize(
    "link",
    [
        GOOGLE,
        "http://intranet",
        "http://localhost:3000/a",
        "https://my_host.example/_",
        "http://192.0.2.1/",
        "http://[::1]:8080/x",
        "https://b\u00fccher.example/stra\u00dfe?\u00fc=\u00e9#\u4e2d",
        "https://xn--bcher-kva.example/",
        "https://user:password@example.com/",
        "https://example.com/#fragment",
        "https://example.com/?",
        "https://example.com?",
        "https://example.com#",
        "https://example.com//",
        "https://example.com/a/../b/./c//d%2Fe%zz",
        "https://example.com/a/",
        "https://example.com:8443/",
        "http://example.com:443/a",
        "https://example.com:80/a",
        "https://example.com:0/a",
        "https://example.com/\\\"'<>{}|^`",
        "https://example.com/javascript:alert(1)",
        "https://example.com/?u=https://other.example/",
        "https://example.com/" + "x" * 1004,
        "https://example.com/" + "x" * 1005,
        LONG,
        pytest.param(
            "https://example.com/" + "\u00e9" * 4086,
            marks=pytest.mark.engine("API Gateway takes 10,240 bytes of request line and headers, see docs/limits.md"),
        ),
    ],
)
def test_everything_else_of_a_url_is_kept(api, link):
    kept = link.removesuffix("/") if link.count("/") == 3 else link
    record = api.post(link)
    assert record["link"] == kept
    assert api("GET", f"/link?link={quote(link, safe='')}").json() == [record] == api.all()


def test_urls_that_differ_are_links_of_their_own(api):
    urls = ["http://a.example", "https://a.example", "http://a.example/?", "http://a.example/#"]
    urls += ["http://a.example:8080", "http://a.example/x", "http://a.example/X", "http://A@a.example"]
    assert {api.post(url)["link"] for url in urls} == set(urls)
    assert len(api.all()) == len(urls)


BAD_LINKS = {
    "missing": ({}, "^link is missing"),
    "null": ({"link": None}, "^link must be a string"),
    "number": ({"link": 1}, "^link must be a string"),
    "boolean": ({"link": True}, "^link must be a string"),
    "array": ({"link": [GOOGLE]}, "^link must be a string"),
    "empty": ({"link": ""}, "^link must .* http"),
    "blank": ({"link": " \n "}, "^link must .* http"),
    "no scheme": ({"link": "www.google.com"}, "^link must .* http"),
    "host and port only": ({"link": "localhost:8080"}, "^link must .* http"),
    "relative": ({"link": "//www.google.com/"}, "^link must .* http"),
    "javascript": ({"link": "javascript:alert(1)"}, "^link must .* http"),
    "javascript host": ({"link": "javascript://example.com/%0Aalert(1)"}, "^link must .* http"),
    "data": ({"link": "data:text/html,x"}, "^link must .* http"),
    "file": ({"link": "file:///etc/passwd"}, "^link must .* http"),
    "ftp": ({"link": "ftp://example.com/"}, "^link must .* http"),
    "a letter that only looks like an s": ({"link": "http\u017f://example.com:443/"}, "^link must .* http"),
    "one slash": ({"link": "https:/example.com"}, "^link must .* http"),
    "no host": ({"link": "https://"}, "^link must have a valid host"),
    "no host but a path": ({"link": "https:///path"}, "^link must have a valid host"),
    "no host but a port": ({"link": "https://:8080/"}, "^link must have a valid host"),
    "no host but a user": ({"link": "https://user@/"}, "^link must have a valid host"),
    "port is no number": ({"link": "https://example.com:x/"}, "^link must have a valid host after the //, and a port"),
    "port too large": ({"link": "https://example.com:65536/"}, "^link must have a valid host after the //, and a port"),
    "two ports": ({"link": "https://example.com:1:2/"}, "^link must have a valid host after the //, and a port"),
    "no IPv6 address": ({"link": "https://[1:2]/"}, "^link must have a valid host"),
    "IPv6 zone": ({"link": "https://[fe80::1%25eth0]/"}, "^link must have a valid host"),
    "IPv6 zone with a backslash": ({"link": "https://[::1%\\evil]/"}, "^link must have a valid host"),
    "IPv6 address not closed": ({"link": "https://[::1/"}, "^link must have a valid host"),
    "brackets in the user": ({"link": "https://a[b]@example.com/"}, "^link must have a valid host"),
    "a character that stands for a/c": ({"link": "https://\u2100.example/"}, "^link must have a valid host"),
    "port of many digits": ({"link": "https://example.com:" + "1" * 5000}, "^link must have a valid host"),
    "backslash in the host": ({"link": "https://a.example\\@b.example/"}, "^link must have a valid host"),
    "backslash for a slash": ({"link": "https:\\\\example.com"}, "^link must .* http"),
    "inner space": ({"link": "https://example.com/a b"}, "^link must not contain white space"),
    "inner line feed": ({"link": "https://example.com/a\nb"}, "^link must not contain white space"),
    "inner tab": ({"link": "htt\tps://example.com/"}, "^link must not contain white space"),
    "wide space": ({"link": "https://example.com/\u3000a"}, "^link must not contain white space"),
    "control character": ({"link": "https://example.com/\x1b"}, "^link must not .* control"),
    "C1 control character": ({"link": "https://example.com/\x85a"}, "^link must not .* control"),
    "control character at an end": ({"link": "\x1fhttps://example.com/"}, "^link must not .* control"),
    "DEL": ({"link": "https://example.com/\x7f"}, "^link must not .* control"),
    "NUL": ({"link": "https://example.com/\0"}, "^link must not contain control characters"),
    "lone surrogate": ({"link": "https://example.com/\ud800"}, "^link must not .* surrogate"),
    "too long": ({"link": LONG + "x"}, "^link must have at most 8192 characters, not 8193"),
    "too long in UTF-8": ({"link": LONG[:-1] + "\u00e9"}, "^link must have at most 8192 bytes"),
}
BAD_FIELDS = {
    "unknown field": ({"colour": "red"}, "'colour' cannot be set; link, title, tags, notes, expires_at.* can"),
    "id": ({"link_id": "x"}, "'link_id' cannot be set"),
    "unknown field with a surrogate": ({"\udfff": 1}, "cannot be set"),
    "title is true": ({"title": True}, "^title must be a string"),
    "title is a number": ({"title": 1.5}, "^title must be a string"),
    "title is an object": ({"title": {}}, "^title must be a string"),
    "title too long": ({"title": "x" * 513}, "^title must have at most 512 characters, not 513"),
    "title with a form feed": ({"title": "a\x0cb"}, "^title must not contain control characters"),
    "title with a vertical tab": ({"title": "a\x0bb"}, "^title must not contain control characters"),
    "title with what is no character": ({"title": "\uffff"}, "^title must not contain control characters"),
    "title with NUL": ({"title": "a\0b"}, "^title must not contain control characters"),
    "title with a lone surrogate": ({"title": "\udc00"}, "^title must not .* surrogate"),
    "notes too long": ({"notes": "x" * 8193}, "^notes must have at most 8192 characters, not 8193"),
    "notes is an array": ({"notes": ["x"]}, "^notes must be a string"),
    "tags is a string": ({"tags": "a,b"}, "^tags must be an array of at most 32 strings"),
    "tags is an object": ({"tags": {"a": "b"}}, "^tags must be an array"),
    "too many tags": ({"tags": [str(n) for n in range(33)]}, "^tags must be an array of at most 32"),
    "tag too long": ({"tags": ["x" * 65]}, "tags must have at most 64 characters, not 65"),
    "tag empty": ({"tags": ["a", ""]}, "tags must not be blank"),
    "tag blank": ({"tags": [" "]}, "tags must not be blank"),
    "tag is a number": ({"tags": [1]}, "tags must be a string"),
    "tag is null": ({"tags": [None]}, "tags must be a string"),
    "tag with NUL": ({"tags": ["\0"]}, "tags must not contain control characters"),
}
NULL_FIELDS = {f"{name} is null": ({name: None}, f"^{name} must be") for name in ("title", "tags", "notes")}
BAD_BODIES = {
    "none": None,
    "empty": "",
    "blank": " ",
    "no JSON": "link=https://www.google.com",
    "cut off": '{"link": "https://www.google.com"',
    "something behind": '{"link": "https://www.google.com"} x',
    "null": "null",
    "string": '"https://www.google.com"',
    "array": '[{"link": "https://www.google.com"}]',
    "number": "1e999",
    "huge number": '{"link": ' + "9" * 5000 + "}",
    "deeply nested arrays": "[" * 100_000,
    "deeply nested objects": '{"a":' * 40_000,
    "not UTF-8": b'{"link": "https://www.google.com\xff',
}


@pytest.mark.parametrize("case", BAD_LINKS)
def test_post_refuses_a_bad_link(api, case):
    body, sentence = BAD_LINKS[case]
    api.refuses(400, sentence, "POST", "/link", body)


@pytest.mark.parametrize(
    "shape", ["@[]]", "a@[]", "@[", "@", "[", "]", ":", "::1", "a:", "\\", "%", "a@", "\u00e9", "\u0301\u0323"]
)
def test_a_hostile_link_is_refused_in_time(api, shape):
    """The function has 25 s; a pattern that backtracks would need hours for some of these."""
    hostile = "http://" + shape * (240_000 // len(json.dumps(shape)[1:-1])) + "[x"
    api.refuses(400, "^link must", "POST", "/link", {"link": hostile})


@pytest.mark.parametrize("case", BAD_FIELDS | NULL_FIELDS)
def test_post_refuses_a_bad_field(api, case):
    fields, sentence = (BAD_FIELDS | NULL_FIELDS)[case]
    api.refuses(400, sentence, "POST", "/link", {"link": GOOGLE, **fields})


@pytest.mark.parametrize("case", BAD_BODIES)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_body_that_is_no_json_object_is_refused(api, method, case):
    path = "/link" if method == "POST" else path_of(api.post("https://example.com/"))
    api.refuses(400, "^The body must be a JSON object", method, path, BAD_BODIES[case])


@pytest.mark.parametrize("body", ['{"link": "%s", "link": "%s"}', '{"link": "%s", "x": {"%s": 1, "%s": 2}}'])
def test_a_name_may_not_come_twice(api, body):
    body = body.replace("%s", GOOGLE)
    api.refuses(400, "^The body must not name a member", "POST", "/link", body)


def test_a_body_may_not_be_large(api):
    for size in (262_145, 6_000_000):
        for method, path in (("POST", "/link"), ("PUT", "/link/docs"), ("PATCH", "/link/docs")):
            body = '{"link": "' + "x" * (size - len('{"link": ""}')) + '"}'
            api.refuses(413, "^The body must have at most 262144 characters", method, path, body)


def test_the_largest_record_fits_in_a_body(api):
    """In the longest encoding that JSON has."""

    def longest(text):
        return "".join(f"\\u{ord(each):04x}" for each in text)

    link, face = "https://example.com/".ljust(8192, "x"), "\\ud83d\\ude00"
    tags = ",".join(f'"{face * 63}{longest(chr(97 + n))}"' for n in range(32))
    body = f'{{"link": "{longest(link)}", "title": "{face * 512}", "notes": "{face * 8192}", "tags": [{tags}]}}'
    answer = api("POST", "/link", body)
    assert (answer.status_code, answer.json()["notes"]) == (201, "\U0001f600" * 8192), answer.text


# --- Health, and headers that protect


def test_health_tells_the_version(api, template):
    answer = api("GET", "/health")
    assert answer.status_code == 200
    assert answer.json().keys() == {"version"} and re.fullmatch(r"\d+\.\d+\.\d+", answer.json()["version"])
    assert api("HEAD", "/health").status_code == 200
    assert api("POST", "/health", {}).headers["Allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    "path", ["/", "/link", "/link/nothing", "/go/nothing", "/tags", "/feed", "/health", "/nowhere"]
)
def test_browsers_are_told_to_be_careful(api, path):
    headers = api("GET", path, headers={"Accept": "text/html"}).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Strict-Transport-Security"] == "max-age=31536000"
    assert "Set-Cookie" not in headers
    policy = headers.get("Content-Security-Policy")
    is_page = headers["Content-Type"].startswith("text/html")
    assert policy == ("default-src 'none'; frame-ancestors 'none'" if is_page else None)


# --- GET /link


def test_the_list_of_nothing(api):
    answer = api("GET", "/link")
    assert (answer.status_code, answer.json()) == (200, [])
    assert "Link" not in answer.headers


def test_the_list_is_newest_first_and_complete(api):
    records = [api.post(f"https://example.com/{n}") for n in range(7)]
    expected = sorted(records, key=lambda record: record["created_at"], reverse=True)
    whole = api.all()
    assert [record["created_at"] for record in whole] == [record["created_at"] for record in expected]
    for limit, sizes in {1: [1] * 7, 3: [3, 3, 1], 7: [7], 1000: [7]}.items():
        pages = list(api.pages(f"/link?limit={limit}"))
        assert [len(page) for page in pages] == sizes
        assert sum(pages, []) == whole


def test_a_hundred_is_the_default_page(api):
    for n in range(101):
        api.post(f"https://example.com/{n}")
    assert [len(page) for page in api.pages()] == [100, 1]


def test_a_next_link_is_absolute_and_keeps_the_limit(api):
    for n in range(3):
        api.post(f"https://example.com/{n}")
    answer = api("GET", "/link?limit=2")
    following = answer.links["next"]["url"]
    assert re.match(r"https?://[^/]+/prod/link\?limit=2&cursor=[A-Za-z0-9_-]+$", following)
    assert answer.headers["Link"] == f'<{following}>; rel="next"'


def test_a_next_link_keeps_the_search(api):
    for n in range(2):
        api.post(f"https://example.com/{n}", tags=["to do", "c+d&e"])
    answer = api("GET", "/link?limit=1&tag=to+do&q=example%20to&tag=c%2Bd%26e")
    following = answer.links["next"]["url"]
    assert "tag=to%20do&tag=c%2Bd%26e" in following and "q=example%20to" in following
    assert len(api.all("/link?limit=1&tag=to%20do&q=example+to&tag=c%2Bd%26e")) == 2


def test_paging_is_steady_while_links_come_and_go(api):
    before = [api.post(f"https://example.com/{n}") for n in range(6)]
    seen = []
    for page in api.pages("/link?limit=2"):
        seen += page
        # The last link of a page, to which the cursor points, goes; another one comes.
        assert api("DELETE", path_of(page[-1])).status_code == 204
        api.post(f"https://example.com/new/{len(seen)}")
    assert sorted(record["link"] for record in seen) == sorted(record["link"] for record in before)


def test_a_list_goes_on_after_a_megabyte(api):
    # One call of Query reads 1 MB; a page of 60 such links would have over 2 MB.
    links = {api.post(f"{LONG[:-2]}{n:02}", notes="\U0001f517" * 8192)["link"] for n in range(60)}
    pages = list(api.pages("/link?limit=1000"))
    assert len(pages) > 1
    found = [record["link"] for page in pages for record in page]
    assert len(found) == 60 and set(found) == links


def test_a_page_is_never_larger_than_lambda_answers(api):
    # A quotation mark has one byte in the table and four in the answer of the function: no character has more.
    for n in range(130):
        link = f"https://example.com/{n}/".ljust(8000, '"') if n > 79 else f"https://example.com/{n}"
        api.post(link, notes='"' * 8192, tags=[f"{m}".ljust(64, '"') for m in range(32)])
    for path, sizes in (("/link?limit=1000", []), ("/feed", [])):
        while path:
            answer = api("GET", path)
            assert len(json.dumps({"body": answer.text})) < 6_000_000
            if path != "/feed":
                sizes.append(len(answer.json()))
            path = "/" + answer.links["next"]["url"].split("/", 4)[4] if "next" in answer.links else ""
        assert sum(sizes) in (0, 130) and len(sizes) != 1


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "1.5", "x", "", "+5", "%201", "1e2", "\u0663", "99999999999"])
def test_a_limit_out_of_range_is_refused(api, limit):
    api.refuses(400, "^limit must be a whole number from 1 to 1000", "GET", f"/link?limit={quote(limit, '%')}")


def made_up(*key):
    return base64.urlsafe_b64encode(b"x" * 12 + "\n".join(key).encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "abc",
        "%00",
        "\u00e9",
        "!!!!",
        "AAAA" * 1000,
        made_up("2026-11-20T16:42:43.000Z", str(uuid.uuid5(uuid.NAMESPACE_URL, GOOGLE)), GOOGLE),
        base64.urlsafe_b64encode(b'{"link_id": {"S": "x"}}').decode(),
    ],
)
def test_a_made_up_cursor_is_refused(api, cursor):
    api.refuses(400, "^cursor must be one", "GET", "/link?" + urlencode({"cursor": cursor}))


def test_a_damaged_cursor_is_refused(api):
    for n in range(2):
        api.post(f"https://example.com/{n}")
    cursor = api("GET", "/link?limit=1").headers["Link"].split("cursor=")[1].split(">")[0]
    assert api("GET", f"/link?cursor={cursor}").status_code == 200
    for at in range(0, len(cursor), 5):
        damaged = cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :]
        api.refuses(400, "^cursor must be one", "GET", f"/link?cursor={damaged}")
    for damaged in (cursor[:-4], cursor + "!!!!", cursor[:10] + "!!!!" + cursor[10:], cursor + "="):
        api.refuses(400, "^cursor must be one", "GET", f"/link?cursor={damaged}")


@pytest.mark.parametrize("query", ["limt=5", "limit=1&limit=2", "link=https://a.example/?b&c=d", "="])
def test_a_query_that_is_not_understood_is_refused(api, query):
    api.refuses(400, "^The query may have limit, cursor, link, tag, q, since, each once", "GET", f"/link?{query}")


def test_a_link_is_found_by_its_url(api):
    record = api.post("https://example.com/?a=1&b=%202+3#x")
    api.post("https://example.com/")
    query = urlencode({"link": " HTTPS://Example.com:443/?a=1&b=%202+3#x"})
    assert api("GET", f"/link?{query}").json() == [record]
    answer = api("GET", "/link?link=https%3A%2F%2Fexample.com%2Fother")
    assert (answer.status_code, answer.json()) == (200, [])
    api.refuses(400, "^link must .* http", "GET", "/link?link=example.com")
    assert api("GET", f"/link?limit=1&{query}").json() == [record]
    for more in ("tag=t", "q=", "cursor=x", "since=2000-01-01T00:00:00Z"):
        api.refuses(400, "^The query may have link, limit, each once", "GET", f"/link?{query}&{more}")


# --- GET, PATCH and DELETE /link/{link_id}

UNKNOWN = ["77f19926-3322-5602-871d-febea455b335", "x", "a%2Fb%20", "..%00", "x" * 3000, "%F0%9F%94%97" * 64]


@pytest.mark.parametrize("link_id", UNKNOWN[:2] + UNKNOWN[4:])
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_an_unknown_link_is_not_found(api, method, link_id):
    body = {"title": "x"} if method == "PATCH" else None
    api.refuses(404, "^There is no link with this id", method, f"/link/{link_id}", body)


@pytest.mark.parametrize("link_id", UNKNOWN[2:4])
def test_an_odd_path_is_not_found(api, link_id):
    assert api("GET", f"/link/{link_id}").status_code == 404


def test_get_answers_304_to_who_has_it(api):
    answer = api("POST", "/link", {"link": GOOGLE})
    etag, path = answer.headers["ETag"], path_of(answer.json())
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag)
    for seen in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        unchanged = api("GET", path, headers={"If-None-Match": seen})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["ETag"] == etag
    for seen in ('"other"', etag.strip('"'), ""):
        assert api("GET", path, headers={"If-None-Match": seen}).status_code == 200


@pytest.mark.parametrize("path", ["/link/docs", "/feed"])
def test_get_answers_412_to_who_wants_another(api, path):
    api("PUT", "/link/docs", {"link": GOOGLE})
    etag = api("GET", path).headers["ETag"]
    for right in (etag, f'"other", {etag}', "*"):
        assert api("GET", path, headers={"If-Match": right}).status_code == 200
    for wrong in ('"other"', f"W/{etag}", ""):
        api.refuses(412, re.escape(etag), "GET", path, headers={"If-Match": wrong})
        assert api("HEAD", path, headers={"If-Match": wrong}).status_code == 412
    # If-Match comes first (RFC 9110, 13.2.2).
    assert api("GET", path, headers={"If-Match": '"other"', "If-None-Match": etag}).status_code == 412
    assert api("GET", path, headers={"If-Match": etag, "If-None-Match": etag}).status_code == 304


@pytest.mark.parametrize("method, body, status", [("PATCH", {"title": "x"}, 200), ("DELETE", None, 204)])
def test_if_none_match_guards_a_change(api, method, body, status):
    answer = api("POST", "/link", {"link": GOOGLE})
    etag, path = answer.headers["ETag"], path_of(answer.json())
    for seen in ("*", etag, f"W/{etag}", f'"other", {etag}'):
        api.refuses(412, re.escape(etag), method, path, body, headers={"If-None-Match": seen})
    api.refuses(412, re.escape(etag), method, path, body, headers={"If-Match": etag, "If-None-Match": etag})
    assert api(method, path, body, {"If-Match": etag, "If-None-Match": '"other"'}).status_code == status
    if method == "DELETE":
        api.refuses(404, "^There is no link", method, path, headers={"If-None-Match": "*"})


def test_patch_merges(api):
    before = api("POST", "/link", {"link": GOOGLE, "title": "T", "tags": ["a", "b"]})
    path = path_of(before.json())
    answer = api("PATCH", path, {"title": None, "tags": ["c"], "notes": "N"})
    after = answer.json()
    assert answer.status_code == 200
    assert after["updated_at"] >= before.json()["updated_at"]
    expected = before.json() | {"tags": ["c"], "notes": "N", "updated_at": after["updated_at"]}
    del expected["title"]
    assert after == expected
    assert answer.headers["ETag"] != before.headers["ETag"]
    again = api("GET", path)
    assert (again.json(), again.headers["ETag"]) == (after, answer.headers["ETag"])
    assert api.all() == [after]


def test_patch_of_a_long_link(api):
    record = api.post(LONG)
    assert api("PATCH", path_of(record), {"title": "T"}).json()["link"] == LONG
    assert api("DELETE", path_of(record)).status_code == 204
    assert api.all() == []


def test_patch_takes_what_is_empty(api):
    path = path_of(api.post(GOOGLE, title="T", tags=["t"], notes="N"))
    empty = {"title": "", "tags": [], "notes": ""}
    assert api("PATCH", path, empty).json() == api("GET", path).json() == api("GET", path).json() | empty


def test_an_empty_patch_changes_no_field(api):
    record = api.post(GOOGLE, title="T", tags=[], notes="")
    answer = api("PATCH", path_of(record), {})
    assert answer.status_code == 200
    assert answer.json() | {"updated_at": None} == record | {"updated_at": None}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_patch_refuses_a_bad_field(api, case):
    fields, sentence = BAD_FIELDS[case]
    api.refuses(400, sentence, "PATCH", path_of(api.post(GOOGLE)), {"notes": "good", **fields})


@pytest.mark.parametrize("field", ["created_at", "updated_at", "etag", "owner", "url", "visits"])
@pytest.mark.parametrize("value", ["https://example.com/", None])
def test_patch_changes_nothing_else(api, field, value):
    path = path_of(api.post(GOOGLE))
    api.refuses(
        400, f"'{field}' cannot be set; link, title, tags, notes, expires_at.* can", "PATCH", path, {field: value}
    )


@pytest.mark.parametrize("method, body, status", [("PATCH", {"title": "x"}, 200), ("DELETE", None, 204)])
def test_if_match_guards_a_change(api, method, body, status):
    seen = api("POST", "/link", {"link": GOOGLE})
    path = path_of(seen.json())
    now = api("PATCH", path, {"notes": "by somebody else"})
    stale, etag = seen.headers["ETag"], now.headers["ETag"]
    for wrong in (stale, f"W/{etag}", etag.strip('"'), '"*"', "x,*", "", '""'):
        api.refuses(412, re.escape(etag), method, path, body, headers={"If-Match": wrong})
    for right in ("*", "%s", f"{stale}, %s"):
        current = api("GET", path).headers["ETag"]
        answer = api(method, path, body, {"If-Match": right.replace("%s", current)})
        assert answer.status_code == status
        if method == "DELETE":
            api.refuses(404, "^There is no link", method, path, headers={"If-Match": right})
            api.post(GOOGLE)


def test_delete_forgets_a_link(api):
    record = api.post(GOOGLE, title="T")
    answer = api("DELETE", path_of(record))
    assert (answer.status_code, answer.content) == (204, b"")
    assert api("GET", path_of(record)).status_code == 404
    assert api("DELETE", path_of(record)).status_code == 404
    assert api.all() == []
    assert "title" not in api.post(GOOGLE)


# --- PUT /link/{name}


def test_put_stores_a_link_under_a_name(api):
    answer = api("PUT", "/link/docs", {"link": "HTTPS://Example.com:443/a", "title": "T", "tags": ["t"]})
    record = answer.json()
    assert answer.status_code == 201
    assert (record["link_id"], record["link"], record["title"]) == ("docs", "https://example.com/a", "T")
    assert answer.headers["Location"].endswith("/prod/link/docs")
    again = api("GET", "/link/docs")
    assert (again.json(), again.headers["ETag"]) == (record, answer.headers["ETag"])
    assert api.all() == [record]


def test_put_replaces_what_is_there(api):
    first = api("PUT", "/link/docs", {"link": GOOGLE, "title": "T", "notes": "N", "tags": ["t"]}).json()
    assert api("GET", "/go/docs").status_code == 302
    answer = api("PUT", "/link/docs", {"link": LONG, "notes": "M"})
    record = answer.json()
    assert answer.status_code == 200
    assert record.keys() - {"visited_at"} == {"link_id", "link", "created_at", "updated_at", "notes", "visits"}
    assert (record["link"], record["notes"], record["visits"]) == (LONG, "M", 1)
    assert record["created_at"] == first["created_at"]
    assert api.all() == [record] == [api("GET", "/link/docs").json()]


def test_a_name_and_a_posted_link_may_have_the_same_url(api):
    posted = api.post(GOOGLE)
    assert api("PUT", "/link/g", {"link": GOOGLE}).status_code == 201
    assert api("PUT", "/link/h", {"link": GOOGLE}).status_code == 201
    assert len(api.all()) == 3
    assert api("GET", f"/link?link={GOOGLE}").json() == [posted]


NAMES = ["a", "Z", "0", "a-b._~C9", "a_b", "x" * 64, "a..", "9-", "77f19926-3322-4602-871d-febea455b335"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_may_be(api, name):
    assert api("PUT", f"/link/{name}", {"link": GOOGLE}).status_code == 201
    assert api("GET", f"/link/{name}").json()["link_id"] == name
    assert api("GET", f"/go/{name}").headers["Location"] == GOOGLE
    assert api("DELETE", f"/link/{name}").status_code == 204


@pytest.mark.parametrize(
    "name", ["-a", ".a", "_", "~x", "x" * 65, "a%20b", "a$b", "%C3%A9", "a:b", "a%00", "a+b", "a%25"]
)
def test_a_name_may_not_be(api, name):
    answer = api.refuses(400, "^A name has 1 to 64 letters", "PUT", f"/link/{name}", {"link": GOOGLE})
    assert answer.status_code == 400


@pytest.mark.parametrize("case", BAD_LINKS | BAD_FIELDS)
def test_put_refuses_what_post_does(api, case):
    body, sentence = (BAD_LINKS | BAD_FIELDS)[case]
    if case in BAD_FIELDS:
        body = {"link": GOOGLE, **body}
    api.refuses(400, sentence, "PUT", "/link/docs", body)


def test_put_on_the_id_of_a_posted_link_changes_what_is_said_of_it(api):
    record = api.post(GOOGLE, title="T", tags=["t"])
    answer = api("PUT", path_of(record), {"link": f"{GOOGLE}:443/", "notes": "N"})
    assert answer.status_code == 200
    assert {**answer.json(), "updated_at": None} == {
        "link_id": record["link_id"],
        "link": GOOGLE,
        "created_at": record["created_at"],
        "updated_at": None,
        "notes": "N",
    }
    assert api.all() == [answer.json()]
    api.refuses(
        409, "^The URL of an id like this cannot change", "PUT", path_of(record), {"link": "https://example.com"}
    )
    api.refuses(
        409, "^The URL of an id like this cannot change", "PATCH", path_of(record), {"link": "https://example.com"}
    )


def test_put_with_the_id_of_a_url_is_as_post(api):
    path = f"/link/{uuid.uuid5(uuid.NAMESPACE_URL, GOOGLE)}"
    assert api("PUT", path, {"link": GOOGLE}).status_code == 201
    assert api("POST", "/link", {"link": GOOGLE}).status_code == 200
    api.refuses(
        409, "^The URL of an id like this", "PUT", f"/link/{uuid.uuid5(uuid.NAMESPACE_URL, 'x')}", {"link": GOOGLE}
    )


def test_if_none_match_keeps_what_is_there(api):
    etag = api("PUT", "/link/docs", {"link": GOOGLE}, {"If-None-Match": "*"}).headers["ETag"]
    for taken in ("*", etag, f"W/{etag}", '*, "x"'):
        both = {"If-None-Match": taken, "If-Match": "*"}
        api.refuses(412, re.escape(etag), "PUT", "/link/docs", {"link": LONG}, headers=both)
        api.refuses(412, re.escape(etag), "PUT", "/link/docs", {"link": LONG}, headers={"If-None-Match": taken})
    assert api("PUT", "/link/docs", {"link": LONG}, {"If-None-Match": '"other"'}).status_code == 200


def test_if_match_guards_a_put(api):
    api.refuses(
        412, "^There is no link with this name", "PUT", "/link/docs", {"link": GOOGLE}, headers={"If-Match": "*"}
    )
    stale = api("PUT", "/link/docs", {"link": GOOGLE}).headers["ETag"]
    etag = api("PUT", "/link/docs", {"link": GOOGLE}, {"If-Match": "*"}).headers["ETag"]
    api.refuses(412, re.escape(etag), "PUT", "/link/docs", {"link": LONG}, headers={"If-Match": stale})
    assert api("PUT", "/link/docs", {"link": LONG}, {"If-Match": etag}).json()["link"] == LONG


def test_patch_points_a_name_elsewhere(api):
    api("PUT", "/link/docs", {"link": GOOGLE, "title": "T"})
    answer = api("PATCH", "/link/docs", {"link": "https://example.com:443/", "notes": "N"})
    assert (answer.status_code, answer.json()["link"], answer.json()["title"]) == (200, "https://example.com", "T")
    assert api("GET", "/go/docs").headers["Location"] == "https://example.com"
    api.refuses(400, "^link must be a string", "PATCH", "/link/docs", {"link": None})


def test_patch_of_a_posted_link_may_repeat_its_url(api):
    record = api.post(LONG)
    assert api("PATCH", path_of(record), {"link": LONG, "title": "T"}).json()["title"] == "T"
    assert api.all() == [api("GET", path_of(record)).json()]


# --- GET /go/{link_id}


@pytest.mark.parametrize("link", [GOOGLE, LONG, "https://example.com/\\\"'<>{}|^`%zz!~?a=b&c#d"])
def test_a_short_link_redirects(api, link):
    record = api.post(link)
    answer = api("GET", f"/go/{record['link_id']}")
    assert (answer.status_code, answer.content) == (302, b"")
    assert answer.headers["Location"] == link
    assert answer.headers["Cache-Control"] == "no-cache"


def test_a_short_link_to_an_international_url_is_ascii(api):
    record = api.post("https://b\u00fccher.example/stra\u00dfe?q=\U0001f517#\u4e2d")
    location = api("GET", f"/go/{record['link_id']}").headers["Location"]
    assert location == "https://b%C3%BCcher.example/stra%C3%9Fe?q=%F0%9F%94%97#%E4%B8%AD"


def test_visits_are_counted(api):
    before = api("PUT", "/link/docs", {"link": GOOGLE})
    for _ in range(3):
        assert api("GET", "/go/docs").status_code == 302
    assert api("HEAD", "/go/docs").status_code == 302, "which asks, but does not visit"
    answer = api("GET", "/link/docs")
    assert answer.json()["visits"] == 3
    assert before.json()["created_at"] <= answer.json()["visited_at"]
    assert answer.json()["updated_at"] == before.json()["updated_at"]
    assert answer.headers["ETag"] == before.headers["ETag"], "a visit is no change by a person"
    assert api.all() == [answer.json()]


def test_a_name_that_points_elsewhere_redirects_there(api):
    for link in (GOOGLE, LONG):
        api("PUT", "/link/docs", {"link": link})
        assert api("GET", "/go/docs").headers["Location"] == link


@pytest.mark.parametrize("link_id", ["unknown", "77f19926-3322-5602-871d-febea455b335", "%3Cscript%3E", "x" * 65])
def test_a_short_link_that_leads_nowhere(api, link_id):
    api.refuses(404, "^There is no link with this id", "GET", f"/go/{link_id}")
    page = api("GET", f"/go/{link_id}", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (page.status_code, page.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert "There is no link with this id." in page.text and "<script" not in page.text
    assert "Content-Security-Policy" in page.headers
    for other in ("/link/unknown", "/unknown", "/link?limit=x"):
        assert "Error" in api("GET", other, headers={"Accept": "text/html"}).json()


# --- expires_at


def without_times(records):
    """Return records without what differs by a second between two that are stored one after the other."""
    return [{name: value for name, value in each.items() if name != "deleted_at"} for each in records]


def soon(**distance):
    return (datetime.now(timezone.utc) + timedelta(**distance)).isoformat(timespec="seconds")


def test_a_link_can_expire(api):
    for method, path in (("POST", "/link"), ("PUT", "/link/docs")):
        record = api(method, path, {"link": GOOGLE, "expires_at": "2999-12-31T23:59:59.999+01:00"}).json()
        assert record["expires_at"] == "2999-12-31T22:59:59.000Z"
        for fraction in (".9", ".999999", ".9999999999"):
            latest = api("PATCH", path_of(record), {"expires_at": f"9999-12-31T23:59:59{fraction}Z"}).json()
            assert latest["expires_at"] == "9999-12-31T23:59:59.000Z"
        record = api("PATCH", path_of(record), {"expires_at": record["expires_at"]}).json()
        assert api("GET", path_of(record)).json() == record
        path = path_of(record)
        assert (
            api("PATCH", path, {"expires_at": "2999-01-01T00:00:00Z"}).json()["expires_at"]
            == "2999-01-01T00:00:00.000Z"
        )
        assert "expires_at" not in api("PATCH", path, {"expires_at": None}).json()


def test_what_has_expired_is_gone_from_every_answer(api):
    kept = api.post("https://example.com/kept", tags=["t"])
    gone = api.post(GOOGLE, expires_at=soon(seconds=2), title="Old", tags=["t", "u"])
    api("PUT", "/link/docs", {"link": GOOGLE, "expires_at": soon(seconds=2), "title": "Old"})
    latest = time.monotonic() + 30
    while api("GET", path_of(gone)).status_code == 200 or api("GET", "/link/docs").status_code == 200:
        assert time.monotonic() < latest, "it does not expire"
    for path in (path_of(gone), "/link/docs", f"/go/{gone['link_id']}"):
        assert api("GET", path).status_code == 404
    assert api("GET", "/go/docs").status_code == 410
    for path in ("/link", "/link?tag=t", "/link?q=e"):
        assert api.all(path) == [kept]
    told = [{"link_id": link_id, "deleted_at": gone["expires_at"]} for link_id in (gone["link_id"], "docs")]
    since = f"/link?since={kept['created_at']}"
    for path in (since, f"{since}&tag=t"):
        assert without_times(api.all(path)) == without_times([kept, *told])
    assert api("GET", f"/link?link={GOOGLE}").json() == []
    assert api.all("/tags") == [{"tag": "t", "count": 1}]
    assert "Old" not in api("GET", "/feed").text
    for method, body in (("PATCH", {"expires_at": soon(days=1)}), ("DELETE", None)):
        for path in (path_of(gone), "/link/docs"):
            api.refuses(404, "^There is no link", method, path, body)
    api.refuses(412, "^There is no link", "PUT", "/link/docs", {"link": GOOGLE}, headers={"If-Match": "*"})
    new = api.post(GOOGLE)
    assert new["created_at"] > gone["created_at"] and "title" not in new
    assert api("PUT", "/link/docs", {"link": GOOGLE}, {"If-None-Match": "*"}).status_code == 201
    assert len(api.all()) == 3


MOMENTS = ["", "x", "tomorrow", "2030-01-01", "2030-01-01T00:00:00", "2030-13-01T00:00:00Z", "2030-01-01 00:00:00Z"]
MOMENTS += [
    "2030-02-30T00:00:00Z",
    "2030-01-01T24:00:01Z",
    "20300101T000000Z",
    "2030-01-01T00:00:00+25:00",
    "2030-01-01T00:00:00+05:99",
    "2000-01-01T00:00:00.123456\u0663Z",
    "2030-01-01T00:00:00Z\n",
]
MOMENTS += [
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59-01:00",
    "\u0662030-01-01T00:00:00Z",
    1893456000,
    True,
    ["x"],
    {},
]


@pytest.mark.parametrize("value", MOMENTS)
@pytest.mark.parametrize("field", ["expires_at", "created_at", "visited_at"])
def test_a_time_is_one_of_rfc_3339(api, field, value):
    api.refuses(400, f"^{field} must be", "POST", "/link", {"link": GOOGLE, field: value})
    if field == "expires_at":
        api.refuses(400, f"^{field} must be", "PATCH", path_of(api.post(GOOGLE)), {field: value})


def test_what_expires_does_so_in_the_future(api):
    for when in (soon(seconds=-1), "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"):
        api.refuses(400, "^expires_at must be in the future", "POST", "/link", {"link": GOOGLE, "expires_at": when})


# --- What a new link brings along


def test_a_new_link_may_have_a_history(api):
    history = {"created_at": "1999-12-31T23:59:59.1239+01:00", "visits": 41.0, "visited_at": "2020-01-01T00:00:00Z"}
    stored = {"created_at": "1999-12-31T22:59:59.123Z", "visits": 41, "visited_at": "2020-01-01T00:00:00.000Z"}
    new = api.post("https://example.com/new")
    for method, path in (("POST", "/link"), ("PUT", "/link/docs")):
        record = api(method, path, {"link": GOOGLE, **history}).json()
        assert record == record | stored
        assert api("GET", f"/go/{record['link_id']}").status_code == 302
        assert api("GET", path_of(record)).json()["visits"] == 42
        again = api(method, path, {"link": GOOGLE, "created_at": "2001-01-01T00:00:00Z", "visits": 7}).json()
        assert (again["created_at"], again["visits"]) == ("1999-12-31T22:59:59.123Z", 42)
    assert api.all()[0] == new


@pytest.mark.parametrize("visits", [-1, 1.5, True, "1", None, 10**15 + 1, [1], 1e400])
def test_visits_are_a_whole_number(api, visits):
    api.refuses(400, "^visits must be a whole number", "POST", "/link", {"link": GOOGLE, "visits": visits})


def test_the_past_is_not_in_the_future(api):
    for field in ("created_at", "visited_at"):
        body = {"link": GOOGLE, field: soon(minutes=1)}
        api.refuses(400, f"^{field} must be in the past", "POST", "/link", body)


# --- Finding


@pytest.fixture
def library(api):
    """Four links to find, by the last part of their URLs."""
    said = {
        "a": {"title": "Der Stra\u00dfenbau", "tags": ["city", "to do"]},
        "b": {"notes": "Roads & streets\nof the city", "tags": ["city"]},
        "c": {"title": "ROADS", "tags": ["City", "x,y"]},
        "d": {"title": "C++ and node.js"},
    }
    for name, fields in said.items():
        api.post(f"https://example.com/{name}", **fields)


@pytest.mark.parametrize(
    "query, found",
    [
        ("tag=city", "ab"),
        ("tag=City", "c"),
        ("tag=city&tag=to+do", "a"),
        ("tag=to%20do&tag=city&tag=city", "a"),
        ("tag=x,y", "c"),
        ("tag=x", ""),
        ("q=roads", "bc"),
        ("q=CITY+roads", "bc"),
        ("q=STRASSE", "a"),
        ("q=example.com/d", "d"),
        ("q=https://Example.com/", "abcd"),
        ("q=oad", ""),
        ("q=c%2B%2B", "d"),
        ("q=node.j", "d"),
        ("q=nodes", ""),
        ("q=(Roads),+%26", "b"),
        ("q=%20do++to%09", "a"),
        ("q=street%20of", "b"),
        ("q=nothing", ""),
        ("q=", "abcd"),
        ("q=roads&tag=city", "b"),
    ],
)
def test_links_are_found(api, library, query, found):
    for limit in ("", "&limit=1"):
        links = [record["link"][-1] for record in api.all(f"/link?{query}{limit}")]
        assert sorted(links) == list(found)
        assert links == sorted(links, reverse="since" not in query)


def test_changes_are_searched(api, library):
    since = min(record["created_at"] for record in api.all())
    for limit in ("", "&limit=1"):
        changes = api.all(f"/link?since={since}&tag=city&q=e{limit}")
        assert [record["link"][-1] for record in changes] == ["a", "b"]


def test_a_search_is_complete_though_its_work_is_bounded(api):
    """A request reads up to 1 MB: most of these pages are empty, and the last has what is found."""
    api.post("https://example.com/first", tags=["rare"], title="Needle")
    for n in range(90):
        api.post(f"https://example.com/{n}", notes="\U0001f517" * 8192)
    api.post("https://example.com/last", tags=["rare"], title="needle")
    for query in ("tag=rare", "q=needle", "tag=rare&limit=1"):
        pages = list(api.pages(f"/link?{query}"))
        assert len(pages) > 2 and [] in pages
        assert [record["link"][-4:] for page in pages for record in page] == ["last", "irst"]
    pages = list(api.pages("/tags"))
    assert len(pages) > 2
    assert sum(each["count"] for page in pages for each in page if each["tag"] == "rare") == 2


@pytest.mark.parametrize("path", ["/link?", "/tags?", "/feed?"])
@pytest.mark.parametrize(
    "query, sentence",
    [
        ("tag=", "^Each of tag must not be blank"),
        ("tag=" + "x" * 65, "^Each of tag must have at most 64"),
        ("&".join(f"tag={n}" for n in range(33)), "^tag must be an array of at most 32"),
        ("q=a&q=b", "^The query may have"),
        ("q=" + "x" * 513, "^q must have at most 512 characters"),
        ("q=%00", "^q must not contain control characters"),
        ("colour=red", "^The query may have"),
    ],
)
def test_a_search_that_is_not_understood_is_refused(api, path, query, sentence):
    api.refuses(400, sentence, "GET", path + query)


def test_tags_are_counted(api, library):
    counts = {"City": 1, "city": 2, "to do": 1, "x,y": 1}
    assert api.all("/tags") == [{"tag": tag, "count": count} for tag, count in counts.items()]
    assert api.all("/tags?tag=city") == [{"tag": "city", "count": 2}, {"tag": "to do", "count": 1}]
    assert api.all("/tags?q=nothing") == []


def test_what_changed_since(api):
    records = [api.post(f"https://example.com/{n}") for n in range(4)]
    changed = api("PATCH", path_of(records[1]), {"title": "T"}).json()
    expected = sorted([records[0], *records[2:], changed], key=lambda record: record["updated_at"])
    for limit in (1, 2, 1000):
        assert api.all(f"/link?limit={limit}&since={records[0]['created_at']}") == expected
    assert api.all(f"/link?since={changed['updated_at']}") == [changed], "since includes the time itself"
    assert api.all("/link?since=2999-01-01T00:00:00%2B01:00") == []


def test_since_tells_what_was_deleted(api):
    posted = api.post(GOOGLE, title="T", tags=["t"])
    long = api.post(LONG)
    named = api("PUT", "/link/docs", {"link": GOOGLE, "notes": "N"}).json()
    records = [posted, long, named]
    for record in records:
        assert api("DELETE", path_of(record)).status_code == 204
    for query in ("", "&limit=1", "&tag=t", "&q=nothing"):
        told = api.all(f"/link?since={posted['created_at']}{query}")
        assert [each["link_id"] for each in told] == [record["link_id"] for record in records]
        assert all(each.keys() == {"link_id", "deleted_at"} for each in told)
    assert [each["deleted_at"] for each in told] == sorted(each["deleted_at"] for each in told)
    assert told[0]["deleted_at"] >= named["updated_at"]
    assert api.all(f"/link?since={told[1]['deleted_at']}") == told[1:], "since includes the time itself"
    for path in ("/link", "/link?tag=t", "/link?q=google", "/tags", f"/link?link={GOOGLE}"):
        assert api.all(path) == [], "who did not ask for it does not see it"
    assert "<entry>" not in api("GET", "/feed").text
    for record in records:
        api.refuses(404, "^There is no link", "GET", path_of(record))
    assert api("GET", f"/go/{posted['link_id']}").status_code == 404


def test_what_was_deleted_comes_to_life_as_new(api):
    old = api.post(GOOGLE, title="T", visits=7)
    api("PUT", "/link/docs", {"link": LONG, "tags": ["t"], "expires_at": "2999-01-01T00:00:00Z"})
    for path in (path_of(old), "/link/docs"):
        assert api("GET", path.replace("/link/", "/go/")).status_code == 302
        assert api("DELETE", path).status_code == 204
    since = api.all(f"/link?since={old['created_at']}")[0]["deleted_at"]
    api.refuses(412, "^There is no link", "PUT", "/link/docs", {"link": GOOGLE}, headers={"If-Match": "*"})
    for method in ("PATCH", "DELETE"):
        api.refuses(404, "^There is no link", method, "/link/docs", {"title": "T"} if method == "PATCH" else None)
    new = api.post(GOOGLE)
    assert new.keys() == {"link_id", "link", "created_at", "updated_at"} and new["created_at"] > old["created_at"]
    answer = api("PUT", "/link/docs", {"link": GOOGLE, "visits": 3}, {"If-None-Match": "*"})
    assert (answer.status_code, answer.json()["visits"]) == (201, 3)
    assert answer.json().keys() == {"link_id", "link", "created_at", "updated_at", "visits"}
    assert api.all() == [answer.json(), new]
    assert api.all(f"/link?since={since}") == [new, answer.json()]
    assert api("GET", "/go/docs").headers["Location"] == GOOGLE


def test_a_name_that_was_deleted_is_gone(api):
    api("PUT", "/link/docs", {"link": GOOGLE})
    assert api("DELETE", "/link/docs").status_code == 204
    api.refuses(410, "^This link was deleted, or has expired", "GET", "/go/docs")
    page = api("GET", "/go/docs", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["Content-Type"]) == (410, "text/html; charset=utf-8")
    assert "This link was deleted" in page.text


def test_what_changes_during_a_sync_comes_at_its_end(api):
    records = [api.post(f"https://example.com/{n}") for n in range(4)]
    seen = []
    for page in api.pages(f"/link?limit=2&since={records[0]['created_at']}"):
        if not seen:
            changed = api("PATCH", path_of(records[0]), {"title": "T"}).json()
        seen += page
    assert seen == [*records, changed]


def test_a_cursor_is_for_its_order(api):
    records = [api.post(f"https://example.com/{n}") for n in range(2)]
    newest, changed = (
        api("GET", f"/link?limit=1{more}").links["next"]["url"].split("cursor=")[1]
        for more in ("", f"&since={records[0]['created_at']}")
    )
    api.refuses(400, "^cursor must be one", "GET", f"/link?cursor={changed}")
    api.refuses(400, "^cursor must be one", "GET", f"/link?since=2000-01-01T00:00:00Z&cursor={newest}")
    assert len(api("GET", f"/link?since=2999-01-01T00:00:00Z&cursor={changed}").json()) == 1


@pytest.mark.parametrize("value", MOMENTS[:17])
def test_since_is_a_time_of_rfc_3339(api, value):
    api.refuses(400, "^since must be a date", "GET", "/link?" + urlencode({"since": value}))
    api.refuses(400, "^since must be a date", "GET", "/link?" + urlencode({"since": value, "cursor": "x"}))


# --- GET /feed


def feed_of(answer):
    """Return what a feed reader makes of the answer, which it must find well-formed."""
    assert answer.headers["Content-Type"] == "application/atom+xml"
    parsed = feedparser.parse(answer.content)
    assert not parsed.bozo and parsed.version == "atom10"
    return parsed


def test_the_feed_has_the_newest_links(api):
    for n in range(51):
        api.post(f"https://example.com/{n}", title=f"Title {n}")
    api.post(GOOGLE)
    parsed = feed_of(api("GET", "/feed"))
    assert [entry.link for entry in parsed.entries] == [record["link"] for record in api.all()[:50]]
    assert [entry.title for entry in parsed.entries][:2] == [GOOGLE, "Title 50"]
    assert parsed.feed.updated == api.all()[0]["updated_at"]
    assert parsed.feed.title and parsed.feed.author
    assert {link.rel: link.href.split("/prod")[1] for link in parsed.feed.links} == {"self": "/feed"}


def test_the_feed_is_not_emptied_by_what_has_expired(api):
    for n in range(51):
        api.post(f"https://example.com/{n}", expires_at=soon(seconds=4), created_at="2020-01-01T00:00:00Z")
    api.post(GOOGLE, created_at="2010-01-01T00:00:00Z")
    latest = time.monotonic() + 30
    while api.all("/link?limit=1000") != [api("GET", f"/link?link={GOOGLE}").json()[0]]:
        assert time.monotonic() < latest, "they do not expire"
    assert [entry.link for entry in feed_of(api("GET", "/feed")).entries] == [GOOGLE]
    for n in range(51):  # so that the next test can delete them
        api.post(f"https://example.com/{n}")


def test_a_feed_entry_says_what_the_link_does(api):
    hostile = {"title": "<b>&amp;]]>\"'", "tags": ['a"<', "b&c"], "notes": "<script>\n\u2028&"}
    record = api.post("https://example.com/?a=1&b='\"<>", **hostile)
    (entry,) = feed_of(api("GET", "/feed")).entries
    assert (entry.link, entry.title) == (record["link"], record["title"])
    assert (entry.published, entry.updated) == (record["created_at"], record["updated_at"])
    assert [tag.term for tag in entry.tags] == record["tags"]
    text = ElementTree.fromstring(api("GET", "/feed").content).findtext(".//{*}summary")
    assert text == record["notes"]


def test_feed_ids_are_stable(api):
    record = api.post(GOOGLE)
    api("PUT", "/link/docs", {"link": GOOGLE})
    before = feed_of(api("GET", "/feed"))
    ids = [entry.id for entry in before.entries]
    assert len({*ids, before.feed.id}) == 3 and all(re.match("urn:uuid:[0-9a-f-]{36}$", each) for each in ids)
    api("PUT", "/link/docs", {"link": LONG, "title": "T"})
    api("PATCH", path_of(record), {"title": "T"})
    after = feed_of(api("GET", "/feed"))
    assert ([entry.id for entry in after.entries], after.feed.id) == (ids, before.feed.id)


def test_a_feed_without_links_is_valid(api):
    parsed = feed_of(api("GET", "/feed?tag=none"))
    assert parsed.entries == [] and parsed.feed.updated and parsed.feed.links[0].href.endswith("/feed?tag=none")


def test_a_feed_can_be_of_a_search(api, library):
    ids = {feed_of(api("GET", "/feed")).feed.id}
    for query, found in (("tag=city", "ba"), ("q=roads", "cb"), ("q=a%26%3C&tag=x%22%3E", "")):
        parsed = feed_of(api("GET", f"/feed?{query}"))
        assert [entry.link[-1] for entry in parsed.entries] == list(found)
        ids.add(parsed.feed.id)
    assert len(ids) == 4, "each is a feed of its own"


def test_a_feed_reader_that_has_it_gets_304(api):
    api("PUT", "/link/docs", {"link": GOOGLE})
    etag = api("GET", "/feed").headers["ETag"]
    for seen in (etag, f"W/{etag}", "*"):
        answer = api("GET", "/feed", headers={"If-None-Match": seen})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    assert api("GET", "/go/docs").status_code == 302
    assert api("GET", "/feed", headers={"If-None-Match": etag}).status_code == 304, "visits are not in it"
    api("PATCH", "/link/docs", {"title": "T"})
    assert api("GET", "/feed", headers={"If-None-Match": etag}).status_code == 200


# --- GET /


def test_the_root_says_where_all_is(api, module):
    answer = api("GET", "/")
    assert (answer.status_code, answer.json().keys()) == (200, module.ROUTES.keys())
    for path, url in answer.json().items():
        assert url.partition("/prod")[2] == path
        if "{" not in path:
            assert api("GET", url.partition("/prod")[2]).status_code == 200
    assert api("HEAD", "/").status_code == 200


# --- Methods and paths


@pytest.mark.parametrize("path", ["/", "/health", "/go/docs"])
def test_a_browser_may_use_what_is_open(api, path):
    """API Gateway answers for the other paths, see test_stack.py."""
    answer = api("OPTIONS", path, headers={"Origin": "https://page.example", "Access-Control-Request-Method": "GET"})
    assert answer.status_code == 200
    allowed = answer.headers["Access-Control-Allow-Methods"]
    assert allowed == answer.headers["Allow"] == "GET, HEAD, OPTIONS"
    assert (answer.headers["Access-Control-Allow-Headers"], answer.headers["Access-Control-Max-Age"]) == ("*", "7200")


@pytest.mark.parametrize("method, path", [("GET", "/link"), ("POST", "/link"), ("HEAD", "/link/x"), ("POST", "/go/x")])
def test_a_method_is_not_overridden(api, method, path):
    """API Gateway might do it after it has looked at the key, which a GET may not need."""
    answer = api(method, path, {"link": GOOGLE} if method == "POST" else None, {"x-http-method-override": "DELETE"})
    assert answer.status_code == 400
    if method != "HEAD":
        assert answer.json()["Error"] == "X-HTTP-Method-Override is not taken."
    assert api.all() == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", TRACE, PROPFIND])
def test_another_method_of_the_list_is_not_allowed(api, method):
    answer = api.refuses(405, f"^{method} does not work here", method, "/link")
    assert answer.headers["Allow"] == "GET, POST, HEAD, OPTIONS"


@pytest.mark.parametrize("path", ["/", "/tags", "/feed", "/go/x"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_what_is_only_to_read_is_not_written(api, method, path):
    answer = api.refuses(405, f"^{method} does not work here", method, path)
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_the_page_has_no_more_options(api):
    answer = api("OPTIONS", "/")
    assert (answer.status_code, answer.headers["Allow"], answer.content) == (200, "GET, HEAD, OPTIONS", b"")


@pytest.mark.parametrize(
    "path", ["/links", "/link/a/b", "/go", "/tags/x", "/prod/link", "/favicon.ico", "/%2e%2e", "/link%2Fx/y"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_another_path_is_not_found(api, method, path):
    assert api(method, path).status_code == 404


@pytest.mark.parametrize("method", ["POST", TRACE])
def test_another_method_of_a_link_is_not_allowed(api, method):
    answer = api.refuses(405, f"^{method} does not work here", method, path_of(api.post(GOOGLE)))
    assert answer.headers["Allow"] == "GET, PUT, PATCH, DELETE, HEAD, OPTIONS"


def test_head_is_get_without_a_body(api):
    record = api.post(GOOGLE)
    for path in ("/", "/link", path_of(record), "/link/unknown", "/tags", "/feed", "/go/unknown"):
        get, head = api("GET", path), api("HEAD", path)
        assert head.content == b""
        assert head.status_code == get.status_code
        for name in ("ETag", "Content-Type"):
            assert head.headers.get(name) == get.headers.get(name)


def test_a_slash_at_the_end_is_no_surprise(api):
    answer = api("POST", "/link/", {"link": GOOGLE})
    path = path_of(answer.json())
    assert answer.status_code == 201
    assert answer.headers["Location"].endswith(f"/prod{path}")
    assert api("GET", "/link/").json() == [answer.json()]
    assert api("GET", f"{path}/").json() == answer.json()
    api.post("https://example.com/")
    assert len(list(api.pages("/link/?limit=1"))) == 2
