"""Visit the page of a link, whoever made it: within limits, and never in a private network by mistake.

The name of a host is looked up once, and the connection made to an address
that was looked at, so that a name that changes its mind leads nowhere else; so
it is after each redirect. http.client reads the answers; it gets them from a
Stream, which ends in time. Nothing of the person's is sent: no cookies, no
proxy's, and no user and password that a URL may have.
"""

import http.client
import io
import ipaddress
import re
import socket
import ssl
import string
import time
import zlib
from contextlib import nullcontext
from functools import cache
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

AGENT = "apidb-care (looks after the links of one person's store)"

# What a visit finds: ALIVE and GONE are sure; NO_HOST is GONE if this machine is online; UNCLEAR may be anything.
ALIVE, GONE, NO_HOST, UNCLEAR, PRIVATE = "alive", "gone", "no host", "unclear", "private"

NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits
ADDRESSES = 4  # of a host, that are tried


class Limits(NamedTuple):
    """What a visit may take at most: seconds in all and to connect to an address, bytes of a page, redirects."""

    seconds: float = 30
    connect: float = 10
    size: int = 1024 * 1024
    redirects: int = 10


USUAL = Limits()


class Visit(NamedTuple):
    """What was found: the outcome; why, in words; where the link leads for good by redirects; the page's bytes.

    `kind` is the page's Content-Type; `public` says whether each address that was asked is one of the internet's.
    """

    outcome: str
    said: str = ""
    moved: str = ""
    body: bytes = b""
    kind: str = ""
    public: bool = True


class NotSeen(Exception):
    """Why a page was not seen: an outcome, and a sentence."""

    def __init__(self, outcome, sentence):
        super().__init__(sentence)
        self.outcome = outcome


class Stream(io.RawIOBase):
    """What comes from a socket, until a time (time.monotonic) and up to some bytes: then an OSError ends it."""

    def __init__(self, connected, end, most):
        self.socket, self.end, self.left = connected, end, most

    def readable(self):
        return True

    def readinto(self, buffer):
        seconds = self.end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        if self.left <= 0:
            raise OSError("sends more than a page has")
        self.socket.settimeout(seconds)
        count = self.socket.recv_into(buffer)
        self.left -= count
        return count

    def makefile(self, _):
        return io.BufferedReader(self)


@cache
def usual_tls():
    return ssl.create_default_context()


def is_public(address):
    """Return whether an IP address is one of the internet's: nobody's own network, this machine, or a group."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6:  # which may stand for one of IPv4
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def host_of(url):
    """Return the host of a URL in ASCII, in lower case; NotSeen if it has none."""
    try:
        host = urlsplit(url).hostname or ""
        host = host if ":" in host else host.rstrip(".").encode("idna").decode()
    except ValueError:  # UnicodeError is one
        host = ""
    if not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9a-f:.]+", host):
        raise NotSeen(UNCLEAR, "has no host that can be looked up")
    return host.lower()


def connected(host, port, end, limits, may, resolve):
    """Return a socket that is connected to a host, and the address that it is connected to."""
    try:
        found = resolve(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)):
            raise NotSeen(NO_HOST, f"there is no host {host}") from None
        raise NotSeen(UNCLEAR, f"{host} cannot be looked up now") from None
    except UnicodeError:
        raise NotSeen(NO_HOST, f"there is no host {host}") from None
    allowed = [(family, address) for family, *_, address in found if may(address[0])]
    if not allowed:
        raise NotSeen(PRIVATE, f"{host} is in a private network or on this machine")
    for family, address in allowed[:ADDRESSES]:
        seconds = limits.connect
        if time.monotonic() + seconds > end:  # what did not connect in less might have
            raise TimeoutError
        one = socket.socket(family, socket.SOCK_STREAM)
        try:
            one.settimeout(seconds)
            one.connect(address)
            return one, address[0]
        except OSError as error:
            one.close()
            failed = error
    if isinstance(failed, (ConnectionRefusedError, TimeoutError)):
        raise NotSeen(GONE, f"nobody answers at {host}")
    raise NotSeen(UNCLEAR, f"{host} cannot be reached: {failed.strerror or failed}")


def ask(url, wanted, end, limits, may, resolve, tls):
    """Return what one URL answers, as (response, body, address): its headers, and the start of what it has.

    The body is read only if it is `wanted`, is HTML, and is what was asked for, up to the end of its <head>.
    """
    parts, host = urlsplit(url), host_of(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    named = f"[{host}]" if ":" in host else host
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), string.punctuation)
    headers = {
        "Host": named if port == (443 if secure else 80) else f"{named}:{port}",
        "User-Agent": AGENT,
        "Accept": "text/html, application/xhtml+xml, */*;q=0.5",
        "Accept-Encoding": "gzip",
        "Connection": "close",
    }
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    one, address = connected(host, port, end, limits, may, resolve)
    try:
        if secure:
            one.settimeout(max(end - time.monotonic(), 0.001))
            one = tls.wrap_socket(one, server_hostname=host)
        one.sendall("\r\n".join(lines).encode("ascii"))
        # Room for the headers too, of which http.client takes a hundred.
        response = http.client.HTTPResponse(Stream(one, end, limits.size + 512 * 1024), method="GET")
        response.begin()
        kind = response.headers.get("Content-Type", "text/html")
        is_page = wanted and response.status == 200 and "html" in kind.lower()
        return response, body_of(response, limits.size) if is_page else b"", address
    finally:
        one.close()


def body_of(response, most):
    """Return what a page has up to the end of its <head>, up to so many bytes, unpacked."""
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip", "deflate"):
        return b""
    unpack = None if coding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 32)
    body, taken = b"", 0
    try:
        while taken < most and len(body) < most:
            piece = response.read1(65536)
            if not piece:
                break
            taken += len(piece)
            body += unpack.decompress(piece, most - len(body)) if unpack else piece
            if b"</head" in body[-70000:].lower():
                break
    except (OSError, http.client.HTTPException, zlib.error):  # it may be enough, and the page is there
        pass
    return body[:most]


def visit(
    url,
    wanted=True,
    private=False,
    limits=USUAL,
    hold=lambda host: nullcontext(),
    public=is_public,
    resolve=socket.getaddrinfo,
    tls=None,
):
    """Return the Visit of a URL; redirects are followed. It raises nothing.

    `wanted`: whether its text is. Only `private` lets it ask addresses that are not `public`. hold(host) is a
    context in which a host is asked. `resolve` looks up names as socket.getaddrinfo() does, once for each request.
    """
    left, moved, for_good, asked = limits.seconds, "", True, []
    said = lambda outcome, sentence, **more: Visit(outcome, sentence, public=all(map(public, asked)), **more)
    may = lambda address: private or public(address)
    try:
        for _ in range(limits.redirects + 1):
            with hold(host_of(url)):
                start = time.monotonic()  # to wait for others is no fault of the page
                response, body, address = ask(url, wanted, start + left, limits, may, resolve, tls or usual_tls())
                left -= time.monotonic() - start
            asked.append(address)
            status, location = response.status, response.headers.get("Location")
            if status not in (301, 302, 303, 307, 308) or not location:
                if 200 <= status < 300:
                    kind = response.headers.get("Content-Type", "")
                    return said(ALIVE, f"answered {status}", moved=moved, body=body, kind=kind)
                return said(GONE if status in (404, 410) else UNCLEAR, f"answered {status}")
            # http.client takes headers for Latin-1, and servers send UTF-8.
            url = urljoin(url, location.encode("latin-1").decode("utf-8", "replace").strip())
            if urlsplit(url).scheme not in ("http", "https"):
                return said(UNCLEAR, f"leads on to {url[:80]}, which is not followed")
            for_good = for_good and status in (301, 308)
            moved = url if for_good else moved
        return said(UNCLEAR, f"leads on more than {limits.redirects} times")
    except NotSeen as why:
        return said(why.outcome, str(why))
    except TimeoutError:
        return said(UNCLEAR, "took too long")
    except ssl.SSLError as error:
        return said(UNCLEAR, f"has no valid TLS: {getattr(error, 'verify_message', '') or error.reason or error}")
    except http.client.HTTPException as error:
        return said(UNCLEAR, f"does not answer as a web server does: {type(error).__name__}")
    except (OSError, ValueError) as error:  # the latter for a URL that is none
        return said(UNCLEAR, f"broke off: {getattr(error, 'strerror', None) or error}")
