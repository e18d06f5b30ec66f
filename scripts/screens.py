"""Make the pictures of the page in docs/, in Chromium, of a store on a local engine with the links in screens.csv.

Each picture is of the same links; the dialogs are opened as a person opens them.
"""

import csv
from datetime import datetime, timedelta, timezone
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
LINKS = Path(__file__).with_name("screens.csv")


def fields_of(line):
    """Return the path and the body that store a line of LINKS, which was added so many days ago."""
    created = datetime.now(timezone.utc) - timedelta(days=float(line["days"]))
    body = {name: line[name] for name in ("link", "title", "notes") if line[name]}
    body |= {"tags": line["tags"].split(), "created_at": created.isoformat(), "visits": int(line["visits"])}
    return f"/link/{line['name']}" if line["name"] else "/link", body


def store_all(client, base):
    """Store LINKS by an httpx client in the API at `base`, without a slash at its end."""
    with LINKS.open(newline="") as lines:
        for line in csv.DictReader(lines):
            path, body = fields_of(line)
            client.request("PUT" if line["name"] else "POST", base + path, json=body).raise_for_status()
