"""What make care finds of a page, whatever that sends, what it never asks, and what it then does to the links."""

import datetime
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import api
import care
import titles
import visiting
from conftest import ROOT
from exchange import BASE, server, without_settings
from hostile import GERMAN, JAPANESE, PAGES, answer, serving, to
from programs import make, run
from visiting import ALIVE, GONE, NO_HOST, PRIVATE, UNCLEAR

SMALL = visiting.Limits(seconds=60, connect=20, size=256 * 1024, redirects=3)
SHORT = SMALL._replace(seconds=3, connect=1)  # for what never ends
TITLE = {"title": "A title", "notes": "What it is."}
TOO_LONG = {"title": "x" * 511 + "…", "notes": ("y " * 4096)[:8191].rstrip() + "…"}

# What a page is found to be, why, and what it says of itself.
FOUND = {
    **dict.fromkeys(("title", "untyped", "chunked", "gzip", "odd-charset", "huge"), (ALIVE, "answered 200", TITLE)),
    "og": (ALIVE, "answered 200", {"title": "Of Open Graph", "notes": "O & G"}),
    "both": (ALIVE, "answered 200", {"title": "The title"}),
    **{name: (ALIVE, "answered 200", {}) for name in ("svg", "none", "empty", "text", "brotli", "bad-gzip", "endless")},
    "bomb": (ALIVE, "answered 200", {}),
    "markup": (ALIVE, "answered 200", {"title": "a <b>bold</b> <i> <!-- c --> & <script>alert(1)</script>"}),
    "control": (ALIVE, "answered 200", {"title": "a b [31mc d \ufffd e"}),
    "long": (ALIVE, "answered 200", TOO_LONG),
    "unclosed": (ALIVE, "answered 200", {"title": "Never closed"}),
    "endless-title": (ALIVE, "answered 200", {}),
    "slow": (ALIVE, "answered 200", {"title": "Slow"}),
    "cut": (ALIVE, "answered 200", {"title": "Whole"}),
    "cut-title": (ALIVE, "answered 200", {"title": "Half of"}),
    **{name: (ALIVE, "answered 200", {"title": GERMAN}) for name in ("utf-16", "latin-1", "wrong-charset")},
    **{name: (ALIVE, "answered 200", {"title": JAPANESE}) for name in ("meta", "http-equiv")},
    "no-charset": (ALIVE, "answered 200", {"title": JAPANESE * 9}),
    **{name: (UNCLEAR, "took too long", {}) for name in ("slow-head", "silent")},
    "continue": (UNCLEAR, "broke off: sends more than a page has", {}),
    "headers": (UNCLEAR, "does not answer as a web server does: HTTPException", {}),
    "long-header": (UNCLEAR, "does not answer as a web server does: LineTooLong", {}),
    "endless-header": (UNCLEAR, "broke off: sends more than a page has", {}),
    "garbage": (UNCLEAR, "does not answer as a web server does: BadStatusLine", {}),
    "closed": (UNCLEAR, "does not answer as a web server does: RemoteDisconnected", {}),
    **{name: (UNCLEAR, "leads on more than 3 times", {}) for name in ("loop", "ping", "pong")},
    **dict.fromkeys(("moved", "moved-twice", "found", "umlaut"), (ALIVE, "answered 200", TITLE)),
    "t%C3%AFle?a=%C3%BC%20b": (ALIVE, "answered 200", TITLE),
    "moved-then-found": (ALIVE, "answered 200", TITLE),
    "moved-away": (GONE, "answered 404", {}),
    "no-location": (UNCLEAR, "answered 302", {}),
    "to-file": (UNCLEAR, "leads on to file:///etc/passwd, which is not followed", {}),
    "to-script": (UNCLEAR, "leads on to javascript:alert(1), which is not followed", {}),
    "to-no-url": (UNCLEAR, "broke off: Invalid IPv6 URL", {}),
    "to-no-port": (UNCLEAR, "broke off: Port out of range 0-65535", {}),
    "status-204": (ALIVE, "answered 204", {}),
    **{f"status-{status}": (GONE, f"answered {status}", {}) for status in (404, 410)},
    **{f"status-{each}": (UNCLEAR, f"answered {each}", {}) for each in (304, 400, 401, 403, 429, 451, 500, 503, 999)},
}
MOVED = {"moved": "title", "moved-twice": "title", "moved-then-found": "found"}


@pytest.fixture(scope="module")
def pages():
    with serving() as server:
        yield server


def test_each_page_has_what_is_expected_of_it():
    assert FOUND.keys() == PAGES.keys() - {"declared"}


@pytest.mark.parametrize("name", FOUND)
def test_whatever_a_page_sends(pages, name):
    never = name in ("slow", "slow-head", "silent")
    found = visiting.visit(pages.url + name, private=True, limits=SHORT if never else SMALL)
    texts = titles.described(found.body, found.kind) if found.body else {}
    outcome, said, fields = FOUND[name]
    if name == "endless-title":
        texts = {} if set(texts["title"][1:-1]) == {"x"} and len(texts["title"]) == 512 else texts
    assert (found.outcome, found.said, texts) == (outcome, said, fields)
    assert len(found.body) <= SHORT.size
    assert found.moved == (pages.url + MOVED[name] if name in MOVED else "")


def test_a_declaration_that_html_does_not_know_stops_nothing(pages):
    found = visiting.visit(pages.url + "declared", private=True)
    assert titles.described(found.body, found.kind) in ({}, {"title": "After"})  # by the version of Python


def test_what_is_not_wanted_is_not_read(pages):
    assert visiting.visit(pages.url + "endless", wanted=False, private=True).body == b""


@pytest.mark.parametrize("piece", ["</", "<!", "<a ", "<a b='", "&", "<![", "<?", "<!--"])
def test_markup_that_never_ends_costs_no_time(piece):
    reads = 0

    def clock():
        nonlocal reads
        reads += 1
        return 0

    assert set(titles.described(piece.encode() * 500_000, "text/html", clock).get("title", "")) <= set("</…")
    assert reads < 10, "pieces of 8,192 characters"


def test_nobody_there(pages):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        assert visiting.visit(url, private=True) == visiting.Visit(GONE, "nobody answers at 127.0.0.1")
    found = visiting.visit("http://nowhere.invalid/", private=True)
    assert (found.outcome, found.said) in (
        (NO_HOST, "there is no host nowhere.invalid"),
        (UNCLEAR, "nowhere.invalid cannot be looked up now"),  # without a name server
    )

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert visiting.visit("http://nowhere.invalid/", resolve=unknown).outcome == NO_HOST
    for url in ("http://a b/", "http://xn--\u00fc" + "x" * 70, "http://", "http:///path", "http://a..b/"):
        assert visiting.visit(url, private=True).said == "has no host that can be looked up"


def test_tls_that_is_not_valid_is_unclear_and_a_valid_one_read(pages, tmp_path):
    secure = f"https{pages.url.removeprefix('http')}title"
    found = visiting.visit(secure, private=True, limits=SHORT)  # which speaks without TLS
    assert found.outcome == UNCLEAR and found.said.startswith(("has no valid TLS", "took too long"))
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    name, day = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]), datetime.timedelta(1)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False).sign(
        key, hashes.SHA256()
    )
    plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file = tmp_path / "both.pem"
    file.write_bytes(key.private_bytes(*plain) + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with serving() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = f"https://localhost:{server.server_address[1]}/title"
        found = visiting.visit(url, private=True)
        assert found.outcome == UNCLEAR and found.said.startswith("has no valid TLS: self")
        trusting = ssl.create_default_context(cafile=file)
        assert visiting.visit(url, private=True, tls=trusting).outcome == ALIVE
        other = visiting.visit(url.replace("localhost", "127.0.0.1"), private=True, tls=trusting)
        assert other.outcome == UNCLEAR and "127.0.0.1" in other.said


# --- What is never asked


@pytest.mark.parametrize(
    "address, public",
    [
        *((address, True) for address in ("93.184.215.14", "1.1.1.1", "2606:2800:21f:cb07:6820:80da:af6b:8b2c")),
        *(
            (address, False)
            for address in ("127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1")
        ),
        *(
            (address, False)
            for address in ("169.254.169.254", "100.64.0.1", "198.18.0.1", "224.0.0.1", "255.255.255.255")
        ),
        *(
            (address, False)
            for address in ("240.0.0.1", "192.0.2.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fd00::1")
        ),
        *((address, False) for address in ("fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1")),
        *(
            (address, False)
            for address in ("2002:7f00:1::", "2002:a00:1::", "64:ff9b::a00:1", "64:ff9b::7f00:1", "::7f00:1")
        ),
        ("64:ff9b::101:101", True),
        ("::ffff:1.1.1.1", True),
    ],
)
def test_addresses_of_the_internet(address, public):
    assert visiting.is_public(address) is public


def test_a_private_address_is_asked_only_if_told_so():
    with serving() as server:
        port = server.server_address[1]
        for host in ("127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "[::ffff:127.0.0.1]"):
            found = visiting.visit(f"http://{host}:{port}/title")
            assert (found.outcome, server.requests) == (PRIVATE, []), host
        assert visiting.visit(server.url + "title", private=True).outcome == ALIVE


def only(address):
    return lambda asked: asked == address


def test_a_redirect_into_a_private_network_is_not_followed():
    with socket.create_server(("127.0.0.2", 0)) as trap:
        trap.setblocking(False)
        places = [f"http://127.0.0.2:{trap.getsockname()[1]}/", "http://10.0.0.1/", "http://[::1]/", "//192.168.1.1/"]
        places += ["http://169.254.169.254/latest/meta-data/", "https://0/", "http://metadata.test/"]
        with serving({str(number): to(place) for number, place in enumerate(places)}) as server:

            def resolve(host, port, **more):
                host = "169.254.169.254" if host.endswith(".test") else host
                return socket.getaddrinfo(host, port, **more)

            for number in range(len(places)):
                found = visiting.visit(f"{server.url}{number}", public=only("127.0.0.1"), resolve=resolve)
                assert found.outcome == PRIVATE and "private network" in found.said
        with pytest.raises(BlockingIOError):
            trap.accept()


def test_a_name_is_looked_up_once_and_what_was_looked_at_is_asked():
    with serving({"": answer(), "again": to("/")}) as server:
        port, asked = server.server_address[1], []

        def rebinding(host, port, **more):
            asked.append(host)
            address = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

        visit = lambda path: visiting.visit(
            f"http://page.test:{port}/{path}", public=only("127.0.0.1"), resolve=rebinding
        )
        assert (visit("").outcome, asked) == (ALIVE, ["page.test"])
        assert server.requests[0].splitlines()[1] == f"Host: page.test:{port}"
        asked.clear()
        assert (visit("again").outcome, asked) == (PRIVATE, ["page.test"] * 2)
        assert len(server.requests) == 2


def test_of_several_addresses_only_public_ones_are_asked():
    with serving() as server:
        port = server.server_address[1]
        both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in ("127.0.0.2", "127.0.0.1")]
        found = visiting.visit(
            f"http://page.test:{port}/title", public=only("127.0.0.1"), resolve=lambda *_, **__: both
        )
        assert (found.outcome, found.public) == (ALIVE, True)


def test_a_password_in_a_url_goes_nowhere():
    with serving({"": to("/title"), "title": answer()}) as server:
        url = server.url.replace("//", "//me:secret@")
        assert visiting.visit(url + "#part", private=True).outcome == ALIVE
        assert len(server.requests) == 2
        for asked in server.requests:
            assert "secret" not in asked and "me" not in asked.splitlines()[1] and "Authorization" not in asked
            assert "Cookie" not in asked and "User-Agent: apidb-care" in asked


# --- What is done to the links

DAY = 86400


@pytest.fixture
def web():
    """A server of pages that may be changed."""
    with serving({"page": answer(), "other": answer()}) as server:
        yield server


class Caring:
    """Runs of care on a store, at the times that `clock` has."""

    def __init__(self, store, folder, capsys):
        self.store, self.folder, self.capsys, self.clock = store, folder, capsys, 1.7e9
        self.options = SimpleNamespace(week=6.5 * DAY, pause=0, private=True, limits=visiting.USUAL, ask=None)

    def __call__(self, send=None, days=0, code=0, **more):
        self.clock += days * DAY
        send = send or api.client(self.store.url)
        assert care.care(send, self.folder, "links", self.options, now=lambda: self.clock, **more) == code
        printed, self.problems = self.capsys.readouterr()
        return printed.splitlines()


@pytest.fixture
def caring(store, tmp_path, capsys):
    return Caring(store, tmp_path / "care", capsys)


def fields_of(store, link):
    (found,) = [each for each in store.api.all() if each["link"] == link]
    return {name: found[name] for name in ("title", "notes", "tags") if name in found}


def test_what_is_missing_is_filled_in_and_what_is_there_kept(store, web, caring):
    web.pages |= {"moved": to("/page", "301 Moved Permanently"), "text": answer("x", "text/plain")}
    store.api.post(web.url + "page")
    store.api.post(web.url + "other", title="Mine", tags=["a"])
    store.api.post(web.url + "moved", title="Mine", notes="Mine")
    store.api.post(web.url + "text")
    (moved, counts) = caring()
    assert moved == f"moved for good: {web.url}moved: leads to {web.url}page"
    assert sorted(counts.split(", ")) == ["1 moved for good", "2 filled in", "4 alive"]
    assert fields_of(store, web.url + "page") == TITLE
    assert fields_of(store, web.url + "other") == {"title": "Mine", "notes": "What it is.", "tags": ["a"]}
    assert fields_of(store, web.url + "moved") == {"title": "Mine", "notes": "Mine"}
    assert fields_of(store, web.url + "text") == {}
    asked, before = len(web.requests), store.api.all()
    assert caring(days=6) == ["4 looked at before"]
    assert len(web.requests) == asked
    (moved, counts) = caring(days=1)
    assert moved == f"moved for good: {web.url}moved: leads to {web.url}page"
    assert sorted(counts.split(", ")) == ["1 moved for good", "4 alive"]
    assert store.api.all() == before


def test_dead_is_what_was_gone_in_two_runs_a_week_apart(store, web, caring):
    link = web.url + "page"
    link_id = store.api.post(link, title="T", notes="N", tags=["a"])["link_id"]
    alive, gone = web.pages.pop("page"), f"gone: {link}: answered 404"
    assert caring() == [gone, "1 gone"]
    assert caring(days=3) == ["1 looked at before"]
    assert fields_of(store, link)["tags"] == ["a"]
    assert caring(days=4) == [gone, f"tagged dead: {link}: answered 404", "1 gone, 1 tagged dead"]
    assert fields_of(store, link)["tags"] == ["a", "dead"]
    assert caring(days=7) == [gone, "1 gone"]
    web.pages["page"] = answer(status="503 Busy")
    assert caring(days=7) == [f"unclear: {link}: answered 503", "1 unclear"]
    assert fields_of(store, link)["tags"] == ["a", "dead"]
    web.pages["page"] = alive
    assert caring(days=7) == [f"alive again: {link}: answered 200", "1 alive, 1 alive again"]
    assert fields_of(store, link)["tags"] == ["a"]
    del web.pages["page"]
    assert caring(days=7) == [gone, "1 gone"]
    # A person who takes the tag off, or has put it on, knows better.
    assert caring(days=7)[-1] == "1 gone, 1 tagged dead"
    store.api("PATCH", f"/link/{link_id}", {"tags": ["mine"]})
    assert caring(days=7) == [gone, "1 gone"]
    assert fields_of(store, link)["tags"] == ["mine"]


def test_a_tag_dead_of_somebody_else_stays(store, web, caring):
    store.api.post(web.url + "page", title="T", notes="N", tags=["dead"])
    assert caring() == ["1 alive"]
    alive = web.pages.pop("page")
    caring(days=7)
    assert caring(days=7)[-1] == "1 gone"
    web.pages["page"] = alive
    assert caring(days=7) == ["1 alive"]
    assert fields_of(store, web.url + "page")["tags"] == ["dead"]


def test_a_name_that_leads_elsewhere_begins_anew(store, web, caring):
    body = {"link": web.url + "absent", "title": "T", "notes": "N"}
    store.api("PUT", "/link/named", body)
    caring()
    store.api("PATCH", "/link/named", {"link": web.url + "gone"})
    assert caring(days=7) == [f"gone: {web.url}gone: answered 404", "1 gone"]
    store.api("DELETE", "/link/named")
    assert caring(days=7) == ["nothing was looked at"]


def test_a_host_that_is_unknown_is_gone_only_if_this_machine_is_online(store, web, caring):
    def unknown(url, wanted, *more):
        found = visiting.visit(url, wanted, *more)
        return visiting.Visit(NO_HOST, "there is no host x") if url == BASE + "a" else found

    store.api.post(BASE + "a")
    assert caring(visit=unknown) == [f"unclear: {BASE}a: there is no host x, or this machine is offline", "1 unclear"]
    store.api.post(web.url + "page")
    for days, more in (7, ""), (7, ", 1 tagged dead"):
        printed = caring(days=days, visit=unknown)
        assert f"gone: {BASE}a: there is no host x" in printed and ("tagged dead" in printed[-1]) == bool(more)
    assert fields_of(store, BASE + "a") == {"tags": ["dead"]}


def test_what_others_write_meanwhile_is_kept(store, web, caring):
    link_id, send = store.api.post(web.url + "page")["link_id"], api.client(store.url)
    first = threading.Lock()

    def slow(method, path="", *more):
        if method == "PATCH" and first.acquire(blocking=False):
            assert store.api("PATCH", f"/link/{link_id}", {"title": "Mine"}).status_code == 200
        return send(method, path, *more)

    caring(slow)
    assert fields_of(store, web.url + "page") == {"title": "Mine", "notes": "What it is."}


def test_a_host_is_asked_one_request_at_a_time_and_several_hosts_at_once(store, caring):
    port, both = [], threading.Barrier(2)

    def meeting(connection, over):
        both.wait(60)  # until the other host is asked too
        connection.sendall(answer())

    pages = {f"{host}{number}": answer() for host in ("one", "two") for number in range(8)}
    pages |= {"first": meeting}
    with serving(pages) as server:
        port = server.server_address[1]
        for host, name in ("127.0.0.1", "one"), ("localhost", "two"):
            for number in range(8):
                server.pages[f"{name}{number}"] = to(
                    f"http://{'localhost' if name == 'one' else '127.0.0.1'}:{port}/end"
                )
                store.api.post(f"http://{host}:{port}/{name}{number}")
        for host in ("127.0.0.1", "localhost"):
            store.api.post(f"http://{host}:{port}/first")
        server.pages["end"] = answer()
        assert caring()[-1] in ("18 alive, 18 filled in", "18 filled in, 18 alive")
        assert server.most == {"127.0.0.1": 1, "localhost": 1}


def test_what_was_stopped_goes_on_where_it_was(store, web, caring):
    for number in range(6):
        store.api.post(f"{web.url}{number}", title="T", notes="N")
    asked = []

    def stopping(url, *more):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(url)
        return visiting.visit(url, *more)

    with pytest.raises(KeyboardInterrupt):
        caring(visit=stopping)
    assert "Not complete: 3 gone. Run it again to go on." in caring.capsys.readouterr().err
    assert caring()[-1] == "3 gone, 3 looked at before"


def test_ctrl_c_ends_it_which_says_so(store, tmp_path):
    waiting = threading.Event()

    def hanging(connection, over):
        waiting.set()
        over.wait(60)

    with serving({"page": answer(), "hanging": hanging}) as server:
        for name in ("hanging", "page"):  # the newest comes first
            store.api.post(server.url + name, title="T", notes="N")
        arguments = "--api", store.url, "--private", "--state", str(tmp_path), "--pause", "0"
        command = [sys.executable, "scripts/care.py", *arguments]
        program = subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=without_settings()
        )
        try:
            assert waiting.wait(60)
            program.send_signal(signal.SIGINT)
            printed, problems = program.communicate(timeout=60)
        finally:
            program.kill()
            program.communicate()
        assert (program.returncode, printed) == (130, "")
        # By the time it is told, the first page may be done, kept, and counted, or not yet.
        told = "Not complete: (1 alive|nothing was looked at). Run it again to go on.\nInterrupted.\n"
        assert re.fullmatch(told, problems)
        server.pages["hanging"] = answer()
        code, (counts,), _ = run("care", *arguments)
    assert code == 0 and counts in ("1 alive, 1 looked at before", "2 alive")


def test_what_the_api_refuses_is_said_and_tried_again(store, web, caring):
    store.api.post(web.url + "absent", title="T", notes="N", tags=[str(number) for number in range(32)])
    caring()
    for _ in range(2):
        printed = caring(days=7, code=1)
        assert printed[1] == f"refused: {web.url}absent: tags must be an array of at most 32 strings."


def test_copies_are_asked_for_once_and_only_of_what_anybody_may_see(store, web, caring):
    copies, status = [], 200

    def ask(page):
        copies.append(page)
        return status

    web.pages["also"] = answer()
    for link in web.url + "page#part", web.url + "absent", web.url.replace("//", "//me:secret@") + "also":
        store.api.post(link, title="T", notes="N")
    caring.options.ask = ask
    caring()
    assert copies == [], "they are on this machine"
    public = lambda *arguments: visiting.visit(*arguments, public=only("127.0.0.1"))
    status = 429
    caring(days=7, visit=public)
    assert copies == [web.url + "page"] and "The Wayback Machine takes no more for now" in caring.problems
    copies.clear()
    status = 200
    assert "1 saved" in caring(visit=public)[-1]
    for days in 0, 7:
        caring(days=days, visit=public)
    assert copies == [web.url + "page"]


def test_the_archive_is_asked_as_its_api_says():
    with serving({"save/": answer("{}", "application/json")}) as archive:
        assert care.archive(archive.url + "save/", "access:secret")("https://example.com/?a=b&c") == 200
        (request,) = archive.requests
        assert request.startswith("POST /save/ HTTP/1.1\r\n") and "Authorization: LOW access:secret\r\n" in request
        assert care.archive(archive.url, "")(BASE) == 404
        assert "Authorization" not in archive.requests[-1]
    with pytest.raises(care.Stop, match="The Wayback Machine cannot be reached"):
        care.archive(archive.url, "")(BASE)


def test_make_care_visits_no_private_address_by_itself(store, web, tmp_path):
    store.api.post(web.url + "page")
    code, printed, problems = run("care", "--api", store.url, "--state", tmp_path, "--pause", 0)
    private = f"private: {web.url}page: 127.0.0.1 is in a private network or on this machine"
    assert (code, printed, problems, web.requests) == (0, [private, "1 private"], [], [])
    arguments = "--private", "--state", tmp_path, "--week", 0, "--pause", 0, "--seconds", 20
    assert run("care", "--api", store.url, *arguments) == (0, ["1 alive, 1 filled in"], [])
    assert fields_of(store, web.url + "page") == TITLE
    assert all(path.stat().st_mode & 0o77 == 0 for path in tmp_path.iterdir())


def test_make_care_without_an_api_is_a_sentence():
    code, printed, problems = make("care", "API=")
    assert (code, printed, problems[0]) == (2, [], "Which API? For example: make care API=https://.../prod/link")
    with server(lambda *_: (500, {}, "")) as url:
        assert make("care", f"API={url}")[0] == 2
