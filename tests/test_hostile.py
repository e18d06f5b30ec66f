"""Whatever comes in: a valid proxy response goes out, never a 500, and what is stored comes back as it was sent."""

import base64
import copy
import json
from string import printable
from urllib.parse import quote, unquote, urlencode

import pytest
import yaml
from conftest import ROOT, proxy_response, recorded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# The same examples in each run; the handler's table is shared by the examples of a test.
SAME = {"derandomize": True, "deadline": None, "suppress_health_check": list(HealthCheck)}
many, some = settings(max_examples=500, **SAME), settings(max_examples=150, **SAME)

# --- What may come

# No event has a lone surrogate: it is JSON in UTF-8. JSON inside of it can, by \u.
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
lines = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40)
any_text = st.text(st.characters(codec=None), max_size=60)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=10,
)

parts = ["http://", "https://", "HTTP:", "//", "/", "\\", "@", ":", "::1", "[", "]", "?", "#", "%", "%zz", "%2F", ".."]
parts += ["example.com", "ex\u00e4mple", "localhost", ":80", ":443", ":65536", "user:pw", " ", "\t", "\n", "\0", "x" * 1100]
parts += ["\u212a", "\u2100", "\uff0f", "\u202e", "\U0001f600", "'", '"', "<", ">", "&", "a=b", "data:,", "javascript:"]
pieces = st.lists(st.sampled_from(parts) | words, max_size=8).map("".join)
tails = st.lists(st.sampled_from(parts) | words, max_size=6).map("".join)
hosts = st.sampled_from(["example.com", "EXAMPLE.com:8080", "[::1]", "u:p@h", "\u00e4.de", "h:443"])
urls = pieces | st.builds("{}://{}/{}".format, st.sampled_from(["http", "https", "HttpS"]), hosts, tails)

etags = st.lists(st.sampled_from(["*", "", " ", "W/", '"', '"x"', ","]) | lines, max_size=4).map(",".join)
names = ["If-Match", "If-None-Match", "Accept", "Host", "X-Forwarded-Proto", "Content-Type", "X-Api-Key", "Range"]
values = st.sampled_from(["text/html", "http", "https", "*", ""]) | etags
header_lists = st.dictionaries(st.sampled_from(names) | st.text(printable[:62] + "-", min_size=1, max_size=9),
                               st.lists(values, min_size=1, max_size=3), max_size=4)
moments = st.datetimes().map(lambda when: when.isoformat() + "Z")
query_values = words | urls | moments | st.sampled_from(["", "0", "1", "1000", "1001", "-1", "1e3", "\u0661", "*"])
query_names = st.sampled_from(["limit", "cursor", "link", "tag", "q", "since"]) | words
queries = st.dictionaries(query_names, st.lists(query_values, min_size=1, max_size=3), max_size=3)
paths = st.sampled_from(["", "link", "link/docs", "link/", "go/docs", "tags", "feed", "health", "page", "link/x/y", "go"])
paths |= st.lists(st.sampled_from(["link", "go", "tags", "docs", "%", "%2F", "%00", "..", "{proxy+}"]) | words,
                  max_size=4).map("/".join)
methods = st.sampled_from("GET HEAD POST PUT PATCH DELETE OPTIONS TRACE get".split()) | st.text(max_size=5).filter(
    lambda method: method.isascii())
fields = st.fixed_dictionaries({}, optional={
    "link": urls | json_values,
    "title": any_text | json_values,
    "tags": st.lists(any_text, max_size=34) | json_values,
    "notes": any_text | json_values,
    "expires_at": moments | json_values,
    "created_at": moments | json_values,
    "visits": st.integers() | st.floats() | json_values,
    "visited_at": moments | json_values,
})
as_json = st.builds(json.dumps, fields | json_values, ensure_ascii=st.booleans())
bodies = st.none() | words | as_json.filter(lambda body: body.isascii() or body == body.encode(errors="ignore").decode())


@st.composite
def events(draw):
    """An event as API Gateway sends it, of any request, with null for what a request has not."""
    event = recorded("GET", "/link", {}, None)
    proxy, event["httpMethod"] = draw(paths), draw(methods)
    event["resource"] = draw(st.sampled_from(["/{proxy+}", "/go/{proxy+}", "/health"])) if proxy else "/"
    event["pathParameters"] = {"proxy": proxy} if "{" in event["resource"] else None
    event["path"], event["requestContext"]["path"] = f"/{proxy}", "/prod/" + quote(proxy)
    headers, query = draw(st.none() | header_lists), draw(st.none() | queries)
    event["multiValueHeaders"], event["multiValueQueryStringParameters"] = headers, query
    event["headers"] = headers and {name: lines[-1] for name, lines in headers.items()}
    event["queryStringParameters"] = query and {name: values[-1] for name, values in query.items()}
    event["body"], event["isBase64Encoded"] = draw(bodies), draw(st.booleans())
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
        first, *more = handler.path_of(event)
        operations = documented.get(f"/{first}" + "/{link_id}" * len(more), {})
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
    """Look whether a record is the same in each answer that has it."""
    assert send("GET", path).json() == record
    assert record in send("GET", "/link?limit=1000").json()


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


@some
@given(sent=st.fixed_dictionaries({}, optional={"title": any_text, "notes": any_text, "tags": st.lists(any_text, max_size=4)}),
       ascii_only=st.booleans())
def test_text_comes_back_as_it_was_sent(send, sent, ascii_only):
    body = json.dumps({"link": "https://example.com", **sent}, ensure_ascii=ascii_only)
    try:
        body.encode()
    except UnicodeEncodeError:  # a lone surrogate comes only by \u
        body = json.dumps(json.loads(body))
    response = send("PUT", "/link/docs", body)
    if response.status_code == 400:
        return
    record = response.json()
    for name, value in sent.items():
        assert record[name] == (list(dict.fromkeys(value)) if name == "tags" else value)
    kept(send, "/link/docs", record)
    patched = send("PATCH", "/link/docs", json.dumps(sent)).json()
    assert {name: patched.get(name) for name in sent} == {name: record[name] for name in sent}
    for tag in record.get("tags", []):
        assert send("GET", "/link?" + urlencode({"tag": tag})).json() == [patched]


@some
@given(body=as_json, request=st.sampled_from([("POST", "/link"), ("PUT", "/link/docs"), ("PATCH", "/link/docs")]))
def test_any_json_is_stored_or_refused(send, body, request):
    send("PUT", "/link/docs", '{"link": "https://example.com"}')
    if body != body.encode(errors="ignore").decode():
        body = json.dumps(json.loads(body))
    response = send(*request, body)
    if response.status_code >= 400:
        return
    record = response.json()
    kept(send, f"/link/{record['link_id']}", record)
    assert send("GET", "/feed").status_code == 200
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
    assert status == (200 if cursor == given_cursor else 400)


@some
@given(tags=etags, method=st.sampled_from(["GET", "PUT", "PATCH", "DELETE"]),
       name=st.sampled_from(["If-Match", "If-None-Match"]))
def test_only_its_etag_matches(send, tags, method, name):
    etag = send("PUT", "/link/docs", '{"link": "https://example.com"}').headers["ETag"]
    body = '{"link": "https://example.com"}' if method in ("PUT", "PATCH") else None
    status = send(method, "/link/docs", body, {name: tags}).status_code
    members = [each.strip() for each in tags.split(",")]
    if name == "If-Match" and method != "GET":
        assert status == 412 or members == ["*"]
    elif name == "If-None-Match" and method in ("GET", "PUT"):
        seen = "*" in [each.removeprefix("W/") for each in members]
        assert status == ((304 if method == "GET" else 412) if seen else 200)
    else:
        assert status < 300
    assert send("PATCH", "/link/docs", "{}", {"If-Match": f"{etag}, {tags}"}).status_code in (200, 404, 412)
