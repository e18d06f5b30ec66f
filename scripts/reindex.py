"""Make the index of a store again from its links, while people read and write.

The stream is not followed meanwhile: what changes comes to the index when it
is again, which must be within the 24 hours that a stream keeps. Readers go on
as before, by the index that there was, or without one.

First all entries of all links are put, then those are deleted that no link
has, and last the counts of the tags are set. What the stream says then of
links that changed in between is only what has changed since, or is so already.
"""

import time
from collections import Counter

import boto3
from tqdm import tqdm

import stack
from record import handler
from stack import StackError

COUNTS = "#"  # the term of the counts of tags (handler/index.py)


def reindex(name):
    """Make the index of the store with this stack's name again; print what was done. StackError if it has none."""
    client = boto3.client("cloudformation")
    there = stack.existing(client, name)
    ids = {logical: physical for _, logical, physical in stack.resources_of(client, there["StackId"])}
    if not {"Index", "Mapping", "Function"} <= ids.keys():
        raise StackError(f"Stack {name} has no index. Update it to a template that has: make deploy STACK={name}")
    function = boto3.client("lambda").get_function_configuration(FunctionName=ids["Function"])
    mapping = boto3.client("lambda"), ids["Mapping"]
    print("The stream is not followed until the index is made.", flush=True)
    enable(*mapping, False)
    try:
        if not stack.is_local(client.meta.endpoint_url):
            time.sleep(function["Timeout"])  # what the function had begun
        put, deleted, tags = make(boto3.resource("dynamodb"), ids["Table"], ids["Index"])
    finally:
        enable(*mapping, True)
    print(f"{put:,} entries are put, {deleted:,} deleted that no link has, {tags:,} tags counted.")


def enable(client, mapping, enabled):
    """Let the stream be followed or not, and return when it is so."""
    client.update_event_source_mapping(UUID=mapping, Enabled=enabled)
    while client.get_event_source_mapping(UUID=mapping)["State"] != ("Enabled" if enabled else "Disabled"):
        time.sleep(1)


def pages_of(table):
    """Yield the items of a table as they are now, a list for each page."""
    request = {"ConsistentRead": True}
    while request:
        page = table.scan(**request)
        yield page["Items"]
        last = page.get("LastEvaluatedKey")
        request = last and {"ConsistentRead": True, "ExclusiveStartKey": last}


def make(dynamodb, links, index):
    """Make the entries of all links in an index that nobody else writes to.

    Return how many entries are put, how many deleted, and how many tags there are.
    """
    index, put, deleted = dynamodb.Table(index), 0, 0
    counts, counted = Counter(), {}
    with index.batch_writer() as batch, tqdm(unit=" items", disable=None) as bar:
        for page in pages_of(dynamodb.Table(links)):
            for link in page:
                for term, place in handler.entries_of(link):
                    batch.put_item(Item={"term": term, "place": place, "link": link["link"]})
                    put += 1
            bar.update(len(page))
    with index.batch_writer() as batch, tqdm(unit=" entries", disable=None) as bar:
        for page in pages_of(index):
            right = entries_of_links(dynamodb, links, [entry for entry in page if "link" in entry])
            for entry in page:
                term, place = entry["term"], entry["place"]
                if term == COUNTS:
                    counted[place] = entry["count"]
                elif "link" in entry and (term, place) not in right:
                    batch.delete_item(Key={"term": term, "place": place})
                    deleted += 1
                elif term.startswith(COUNTS):
                    counts[term.removeprefix(COUNTS)] += 1
            bar.update(len(page))
        for tag in counts.keys() | counted.keys():
            batch.put_item(Item={"term": COUNTS, "place": tag, "count": counts[tag]})
        batch.put_item(Item={"term": handler.MADE, "place": handler.MADE})
    return put, deleted, len(counts)


def entries_of_links(dynamodb, links, entries):
    """Return the keys (term, place) of all entries that the links of these entries have now."""
    keys, right = {handler.id_of(entry): entry["link"] for entry in entries}, set()
    left = [{"link_id": link_id, "link": link} for link_id, link in keys.items()]
    while left:
        answer = dynamodb.batch_get_item(RequestItems={links: {"Keys": left[:100], "ConsistentRead": True}})
        right.update(*map(handler.entries_of, answer["Responses"][links]))
        left = answer["UnprocessedKeys"].get(links, {"Keys": []})["Keys"] + left[100:]
    return right
