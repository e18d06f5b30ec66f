"""A local server of pages as the internet has them: in order, out of order, and hostile."""

import contextlib
import gzip
import socketserver
import threading

HTML = "text/html; charset=utf-8"
PAGE = "<!doctype html><html><head><title>A title</title><meta name=description content='What it is.'></head>"
GERMAN = "Übermäßige Größe: Prüfungen für Bürger, höhere Gebühren, müßige Vögel"
JAPANESE = "日本語のページの題名です"


def answer(body=PAGE, kind=HTML, status="200 OK", length=True, **headers):
    """Return the bytes of an answer; `headers` have _ where the header has -."""
    body = body if isinstance(body, bytes) else body.encode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()} | (
        {"Content-Type": kind} if kind else {}
    )
    headers |= {"Content-Length": len(body)} if length else {}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("utf-8") + body


def head(inside):
    return f"<html><head>{inside}</head><body>"


def to(location, status="302 Found"):
    return answer("", None, status, Location=location)


def endless(connection, over, start, piece, pause=0.0):
    """Send, and never stop."""
    connection.sendall(start)
    while not over.wait(pause):
        connection.sendall(piece)


OPEN = answer("<html><head>", length=False)
# What a page sends: bytes, or a function of the connection and of an event that ends it.
PAGES = {
    "title": answer(),
    "og": answer(
        head('<meta property="og:title" content="Of Open Graph"><meta property=og:description content="O &amp; G">')
    ),
    "both": answer(head('<meta property="og:title" content="OG"><title>\n The  title\n</title><title>Second</title>')),
    "svg": answer("<html><head></head><body><svg><title>Of a picture</title></svg>"),
    "none": answer("Nothing"),
    "empty": answer(""),
    "text": answer("<title>Not HTML</title>", "text/plain"),
    "untyped": answer(kind=None),
    "chunked": answer(f"{len(PAGE):x}\r\n{PAGE}\r\n0\r\n\r\n", length=False, Transfer_Encoding="chunked"),
    "gzip": answer(gzip.compress(PAGE.encode()), Content_Encoding="gzip"),
    "brotli": answer(b"\x8b\x02\x80", Content_Encoding="br"),
    "bad-gzip": answer(b"no gzip", Content_Encoding="gzip"),
    "bomb": answer(gzip.compress(b"<title>" + bytes(64 * 1024 * 1024)), Content_Encoding="gzip"),
    "markup": answer(head("<title>a <b>bold</b> &lt;i&gt; <!-- c --> &amp; <script>alert(1)</script></title>")),
    "control": answer(head("<title>a\0b\x1b[31mc\u0085d\x7f &#27; &#xD800; e</title>")),
    "long": answer(head(f"<title>{'x' * 600}</title><meta name=description content='{'y ' * 9000}'>")),
    "unclosed": answer("<html><head><title>Never closed"),
    "declared": answer(head("<![CDATA[ <![ <!x <title>After</title>")),
    "utf-16": answer(("\ufeff" + head(f"<title>{GERMAN}</title>")).encode("utf-16-le"), "text/html"),
    "latin-1": answer(head(f"<title>{GERMAN}</title>").encode("latin-1"), "text/html; charset=ISO-8859-1"),
    "wrong-charset": answer(head(f"<title>{GERMAN}</title><p>{GERMAN * 9}").encode("latin-1"), HTML),
    "meta": answer(head(f"<meta charset=Shift_JIS><title>{JAPANESE}</title>").encode("shift_jis"), "text/html"),
    "http-equiv": answer(
        head(f'<meta http-equiv="Content-Type" content="text/html; charset=euc-jp"><title>{JAPANESE}</title>').encode(
            "euc-jp"
        ),
        "text/html",
    ),
    "no-charset": answer(head(f"<title>{JAPANESE * 9}</title>").encode("euc-jp"), "text/html"),
    "odd-charset": answer(kind="text/html; charset=idna"),
    "endless": lambda one, over: endless(one, over, OPEN, b"<p>" * 9000),
    "endless-title": lambda one, over: endless(one, over, answer("<title>T", length=False), b"x" * 9000),
    "huge": lambda one, over: endless(one, over, answer(length=False, Content_Length=10**12), b"x" * 9000),
    "slow": lambda one, over: endless(one, over, answer(head("<title>Slow</title>")[:-12], length=False), b"x", 0.05),
    "slow-head": lambda one, over: endless(one, over, b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.05),
    "silent": lambda one, over: over.wait(60),
    "continue": lambda one, over: endless(one, over, b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 99),
    "headers": b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n",
    "long-header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "endless-header": lambda one, over: endless(one, over, b"HTTP/1.1 200 OK\r\n", b"X: " + b"x" * 60000 + b"\r\n"),
    "garbage": b"\x16\x03\x01\0 not HTTP\r\n\r\n",
    "closed": b"",
    "cut": answer(head("<title>Whole</title>") + "x" * 100, length=False, Content_Length=5000),
    "cut-title": answer("<html><head><title>Half of", length=False, Content_Length=5000),
    "loop": to("/loop"),
    "ping": to("/pong"),
    "pong": to("/ping"),
    "moved": to("/title", "301 Moved Permanently"),
    "moved-twice": to("moved", "308 Permanent Redirect"),
    "moved-then-found": to("/found", "301 Moved Permanently"),
    "found": to("/moved"),
    "moved-away": to("/status-404", "301 Moved Permanently"),
    "umlaut": to("/t\u00efle?a=\u00fc b"),
    "t%C3%AFle?a=%C3%BC%20b": answer(),
    "no-location": answer(status="302 Found"),
    "to-file": to("file:///etc/passwd"),
    "to-script": to("javascript:alert(1)"),
    "to-no-url": to("http://[::"),
    "to-no-port": to("http://example.com:99999/"),
    **{
        f"status-{status}": answer(status=f"{status} So")
        for status in (204, 304, 400, 401, 403, 404, 410, 429, 451, 500, 503, 999)
    },
}


class Server(socketserver.ThreadingTCPServer):
    """`requests` has what each connection asked; `most` is how many were under way at a time, by Host."""

    daemon_threads, block_on_close, allow_reuse_address, request_queue_size = True, False, True, 64

    def __init__(self, pages):
        super().__init__(("127.0.0.1", 0), Connection)
        self.pages, self.requests, self.over = pages, [], threading.Event()
        self.lock, self.now, self.most = threading.Lock(), {}, {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, *_):  # who asked has had enough
        pass


class Connection(socketserver.BaseRequestHandler):
    def handle(self):
        asked = b""
        while b"\r\n\r\n" not in asked:
            more = self.request.recv(65536)
            if not more:
                return
            asked += more
        asked, server = asked.decode(), self.server
        host = asked.partition("Host: ")[2].partition("\r\n")[0].partition(":")[0]
        with server.lock:
            server.requests.append(asked)
            server.now[host] = server.now.get(host, 0) + 1
            server.most[host] = max(server.most.get(host, 0), server.now[host])
        page = server.pages.get(asked.split(" ")[1][1:], answer(status="404 Not Found"))
        try:
            if callable(page):
                page(self.request, server.over)
            else:
                self.request.sendall(page)
        finally:
            with server.lock:
                server.now[host] -= 1


@contextlib.contextmanager
def serving(pages=PAGES):
    with Server(pages) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()
