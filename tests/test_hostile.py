"""Whatever comes in: a valid proxy response goes out, never a 500; what is stored comes back as it was sent."""

import base64
import copy
import json
from datetime import datetime
from string import printable
from urllib.parse import quote, unquote, urlencode
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import ROOT, proxy_response, recorded

# The same examples in each run; the handler's table is shared by the examples of a test.
SAME = {"derandomize": True, "deadline": None, "suppress_health_check": list(HealthCheck)}
many, some = settings(max_examples=400, **SAME), settings(max_examples=100, **SAME)

# --- What may come

# No event has a lone surrogate: it is JSON in UTF-8. JSON inside of it can, by \u.
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
lines = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40)
bad = st.sampled_from("\0\b\x0b\x0c\x1b\x1f\ud800\udfff\ufffe\uffff")
good = st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\t\n\r\x7f\x85\u2028\ufeff \"'\\<>&")
any_text = st.text(good, max_size=60) | st.lists(good | bad, max_size=30).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=10,
)

parts = [
    *["http://", "https://", "HTTP:", "//", "/", "\\", "@", ":", "::1", "[", "]", "?", "#", "%", "%zz", "%2F", ".."],
    *["example.com", "ex\u00e4mple", "localhost", ":80", ":443", ":65536", "user:pw", "x" * 1100, "a=b", "'", '"'],
    *[" ", "\t", "\n", "\0", "\u212a", "\u2100", "\uff0f", "\u202e", "\U0001f600", "<", ">", "&", "data:,"],
]
pieces = st.lists(st.sampled_from(parts) | words, max_size=8).map("".join)
tails = st.lists(st.sampled_from(parts) | words, max_size=6).map("".join)
hosts = st.sampled_from(["example.com", "EXAMPLE.com:8080", "[::1]", "u:p@h", "\u00e4.de", "h:443"])
urls = pieces | st.builds("{}://{}/{}".format, st.sampled_from(["http", "https", "HttpS"]), hosts, tails)

etags = st.lists(st.sampled_from(["*", "", " ", "W/", '"', '"x"', ","]) | lines, max_size=4).map(",".join)
# Not Host: it is one that leads to the API.
names = ["If-Match", "If-None-Match", "Accept", "X-Forwarded-Proto", "Content-Type", "X-Api-Key", "Range"]
values = st.sampled_from(["text/html", "http", "https", "*", ""]) | etags
names = st.sampled_from(names) | st.text(printable[:62] + "-", min_size=1, max_size=9)
header_lists = st.dictionaries(names, st.lists(values, min_size=1, max_size=3), max_size=4)
moments = st.datetimes().map(lambda when: when.isoformat() + "Z")
query_values = words | urls | moments | st.sampled_from(["", "0", "1", "1000", "1001", "-1", "1e3", "\u0661", "*"])
query_names = st.sampled_from(["limit", "cursor", "link", "tag", "q", "since", "from", "to", "\u0660"])
queries = st.dictionaries(query_names, st.lists(query_values, min_size=1, max_size=2), max_size=2)
routes = ["POST link", "GET link", "GET link/docs", "PUT link/docs", "PATCH link/docs", "DELETE link/docs"]
routes += ["GET go/docs", "GET tags", "GET feed", "GET health", "GET link/docs/visits"]
odd = [
    "",
    "link",
    "link/",
    "/link",
    "link/x/y",
    "link/{link_id}",
    "link/%64ocs",
    "link/%00",
    "docs",
    "go",
    "go/",
    "%2F",
]
methods = st.sampled_from(["GET", "POST", "PUT", "PATCH", "HEAD", "DELETE", "OPTIONS", "TRACE", "<b>"])
known = st.sampled_from(routes).map(str.split)
requests = known | known | st.tuples(methods, st.sampled_from(odd) | words)
plain = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=40)
past = st.datetimes(max_value=datetime(2020, 1, 1)).map(lambda when: when.isoformat() + "Z")
future = st.datetimes(min_value=datetime(2100, 1, 1)).map(lambda when: when.isoformat() + "-01:30")
right = st.fixed_dictionaries(
    {"link": st.builds("https://example.com/{}".format, st.integers(0, 9))},
    optional={
        "title": plain,
        "tags": st.lists(plain.filter(str.strip), max_size=32),
        "notes": plain,
        "expires_at": future,
    },
)
counts = st.integers(0, 10**15)
imported = st.fixed_dictionaries({"created_at": past}, optional={"visits": counts, "visited_at": past})
fields = ["link", "title", "tags", "notes", "expires_at", "created_at", "visits", "visited_at"]
wrong = st.dictionaries(st.sampled_from(fields) | any_text, urls | any_text | json_values, min_size=1, max_size=2)
given_fields = right | st.builds(lambda *parts: parts[0] | parts[1], right, imported | wrong)


def utf_8(body):
    """Return JSON as it can come: a lone surrogate only by \\u."""
    try:
        body.encode()
        return body
    except UnicodeEncodeError:
        return json.dumps(json.loads(body))


as_json = st.builds(json.dumps, given_fields | given_fields | json_values, ensure_ascii=st.booleans()).map(utf_8)
bodies = as_json | as_json | st.none() | words


def resource_of(path):
    """Return the resource of the template that API Gateway takes for a path, and its path parameters."""
    if path in ("", "health"):
        return f"/{path}", None
    if path.startswith("go/") and path != "go/":
        return "/go/{proxy+}", {"proxy": path.removeprefix("go/")}
    return "/{proxy+}", {"proxy": path}


@st.composite
def events(draw):
    """An event as API Gateway sends it, of any request, with null for what a request has not."""
    event = recorded("GET", "/link", {}, None)
    event["httpMethod"], path = draw(requests)
    event["path"], event["requestContext"]["path"] = f"/{path}", f"/prod/{quote(path)}"
    event["resource"], event["pathParameters"] = resource_of(path)
    headers, query = draw(st.none() | header_lists), draw(st.none() | queries)
    event["multiValueHeaders"], event["multiValueQueryStringParameters"] = headers, query
    event["headers"] = headers and {name: lines[-1] for name, lines in headers.items()}
    event["queryStringParameters"] = query and {name: values[-1] for name, values in query.items()}
    event["body"], event["isBase64Encoded"] = draw(bodies), draw(st.sampled_from([False, False, True]))
    if event["isBase64Encoded"] and event["body"] is not None and draw(st.booleans()):
        event["body"] = base64.b64encode(event["body"].encode()).decode()
    return json.loads(json.dumps(event))  # it comes as JSON


# --- What goes out

OPERATION = {name: name.lower() for name in ("GET", "POST", "PUT", "PATCH", "DELETE")} | {"HEAD": "get"}


@pytest.fixture
def answer(handler):
    """A function that answers an event, and looks at the answer."""
    documented = yaml.safe_load((ROOT / "openapi.yml").read_text())["paths"]

    def respond(event):
        before = copy.deepcopy(event)
        response = proxy_response(handler.lambda_handler(event, None))
        assert event == before
        first, *more = handler.Request(event).path
        path = "/".join(["", first, *["{link_id}"][: len(more)], *more[1:]])
        operations = documented.get(path, {})
        # What is no operation is answered as the contract's description says.
        operation = operations.get(OPERATION.get(event["httpMethod"]), {"responses": ["200", "404", "405"]})
        assert str(response.status_code) in operation["responses"], response.text
        assert response.status_code < 500, response.text
        assert "".join(response.headers.values()).isascii()
        if event["httpMethod"] == "HEAD":
            assert not response.content
        elif response.headers["Content-Type"] == "application/json" and response.content:
            response.json()
        return response

    return respond


@many
@given(event=events())
def test_any_event_gets_an_answer(answer, event):
    answer(event)


def kept(send, path, record):
    """Look whether a record is the same in each answer that has it, and the feed is XML."""
    assert send("GET", path).json() == record
    assert record in send("GET", "/link?limit=1000").json()
    ElementTree.fromstring(send("GET", "/feed").text)


@pytest.fixture
def send(answer):
    return lambda method, path, body=None, headers={}: answer(recorded(method, path, headers, body))


@many
@given(link=urls)
def test_a_url_comes_back_as_it_was_sent(handler, send, link):
    response = send("POST", "/link", json.dumps({"link": link}))
    if response.status_code == 400:
        return
    record = response.json()
    stored = record["link"]
    assert handler.canonical(stored) == stored
    scheme, _, rest = link.strip().partition("://")
    assert stored.startswith(scheme.lower() + "://")
    # All after the host is as it was sent.
    after = min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))
    assert rest[after:] in ("/", "") or stored.endswith(rest[after:])
    assert send("POST", "/link", json.dumps({"link": stored}, ensure_ascii=False)).status_code == 200
    (found,) = send("GET", "/link?" + urlencode({"link": link})).json()
    assert found == record
    location = send("GET", f"/go/{record['link_id']}").headers["Location"]
    assert location.isascii() and unquote(location) == unquote(stored)
    assert send("DELETE", f"/link/{record['link_id']}").status_code == 204


texts = {"title": any_text, "notes": any_text, "tags": st.lists(any_text, max_size=4)}


@many
@given(sent=st.fixed_dictionaries({}, optional=texts), ascii_only=st.booleans())
def test_text_comes_back_as_it_was_sent(handler, stream, send, sent, ascii_only):
    body = utf_8(json.dumps({"link": "https://example.com", **sent}, ensure_ascii=ascii_only))
    response = send("PUT", "/link/docs", body)
    if response.status_code == 400:
        return
    record = response.json()
    for name, value in json.loads(json.dumps(sent)).items():  # two halves of a character in a row are one
        assert record[name] == (list(dict.fromkeys(value)) if name == "tags" else value)
    kept(send, "/link/docs", record)
    patched = send("PATCH", "/link/docs", json.dumps(sent)).json()
    assert {name: patched[name] for name in sent} == {name: record[name] for name in sent}
    handler.lambda_handler({"Records": stream()}, None)
    for tag in record.get("tags", []):
        assert send("GET", "/link?" + urlencode({"tag": tag})).json() == [patched]


@some
@given(body=as_json, request=st.sampled_from([("POST", "/link"), ("PUT", "/link/docs"), ("PATCH", "/link/docs")]))
def test_any_json_is_stored_or_refused(send, body, request):
    send("PUT", "/link/docs", '{"link": "https://example.com"}')
    response = send(*request, body)
    if response.status_code >= 400:
        return
    record = response.json()
    kept(send, f"/link/{record['link_id']}", record)
    assert send("DELETE", f"/link/{record['link_id']}").status_code == 204


@some
@given(junk=words, place=st.integers(0, 200), whole=st.booleans(), path=st.sampled_from(["/link", "/tags"]))
def test_a_cursor_is_one_that_was_given(send, junk, place, whole, path):
    for n in range(2):
        send("PUT", f"/link/{n}", '{"link": "https://example.com"}')
    following = send("GET", "/link?limit=1").links["next"]["url"]
    given_cursor = following.partition("cursor=")[2]
    cursor = junk if whole else given_cursor[:place] + junk + given_cursor[place + 1 :]
    status = send("GET", f"{path}?{urlencode({'cursor': cursor})}").status_code
    assert status == (200 if cursor == given_cursor and path == "/link" else 400)


@some
@given(
    tags=etags,
    method=st.sampled_from(["GET", "PUT", "PATCH", "DELETE"]),
    name=st.sampled_from(["If-Match", "If-None-Match"]),
)
def test_only_its_etag_matches(send, tags, method, name):
    etag = send("PUT", "/link/docs", '{"link": "https://example.com"}').headers["ETag"]
    body = '{"link": "https://example.com"}' if method in ("PUT", "PATCH") else None
    status = send(method, "/link/docs", body, {name: tags}).status_code
    members = [each.strip() for each in tags.split(",")]
    if name == "If-Match":
        assert status == 412 or members == ["*"]
    else:
        seen = "*" in [each.removeprefix("W/") for each in members]
        done = 204 if method == "DELETE" else 200
        assert status == ((304 if method == "GET" else 412) if seen else done)
    assert send("PATCH", "/link/docs", "{}", {"If-Match": f"{etag}, {tags}"}).status_code in (200, 404, 412)
