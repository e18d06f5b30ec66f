"""Read all links of a server of bookmarks or short links by its own API, with a token from the environment."""

import json
import os
import re
from urllib.parse import quote, urlsplit

from api import connect
from program import Stop
from reading import walk

# Each says which lists it has, how the token is given, and the query of the page after one, or None.
#   linkding: https://linkding.link/api/         karakeep: https://docs.karakeep.app/api/
#   Shlink: https://api-spec.shlink.io           Linkwarden: apps/web/pages/api/v1/search of its source
SERVERS = {
    "linkding": {
        "lists": ["/api/bookmarks/?limit=100", "/api/bookmarks/archived/?limit=100"],
        "header": ("Authorization", "Token "),
        "next": lambda page: page["next"] and "?" + urlsplit(page["next"]).query,
    },
    "karakeep": {
        "lists": ["/api/v1/bookmarks?limit=100"],
        "header": ("Authorization", "Bearer "),
        "next": lambda page: page["nextCursor"] and f"?limit=100&cursor={quote(page['nextCursor'])}",
    },
    "linkwarden": {
        "lists": ["/api/v1/search?sort=0"],
        "header": ("Authorization", "Bearer "),
        "next": lambda page: (cursor := page["data"]["nextCursor"]) and f"?sort=0&cursor={cursor}",
    },
    "shlink": {
        "lists": ["/rest/v3/short-urls?itemsPerPage=100&page=1"],
        "header": ("X-Api-Key", ""),
        "next": lambda page: (
            (at := page["shortUrls"]["pagination"])["currentPage"] < at["pagesCount"]
            and f"?itemsPerPage=100&page={at['currentPage'] + 1}"
        ),
    },
}


def read_server(kind, url):
    """Yield (number, row, folders) of all links of a server, page by page; Stop if it does not list them.

    The token is in the environment variable of the server, as LINKDING_TOKEN, and goes to its URL alone.
    """
    server, variable, number = SERVERS[kind], f"{kind.upper()}_TOKEN", 0
    token = os.environ.get(variable, "")
    if not re.fullmatch("[!-~]+", token):
        raise Stop(f"{kind} wants a token: put it into the environment with export {variable}=...")
    name, before = server["header"]
    ask = connect(url.rstrip("/"))
    for listed in server["lists"]:
        path, mark, rest = listed.partition("?")
        query, asked = mark + rest, set()
        while query:
            if query in asked:
                raise Stop(f"{kind} at {url} goes round in its pages: GET {path}{query} comes again.")
            asked.add(query)
            answer = ask("GET", path + query, headers={name: before + token})
            if answer.status in (401, 403):
                raise Stop(f"{kind} at {url} does not take the token in {variable}: it answered {answer.status}.")
            try:
                page = json.loads(answer.data)
                query = server["next"](page)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                raise Stop(
                    f"What answers at {url} is no {kind}: it said {answer.status} {answer.reason} to GET {path}."
                ) from None
            for row, folders in walk(page):
                number += 1
                yield number, row, folders
