"""Make the index of a store, which its add-on search has, again from the links, while people read and write.

The stream is not followed meanwhile: what changes comes to the index when it
is again, which must be within the 24 hours that a stream keeps. Readers go on
as before, by the index that there was, or without one. Visits by day are left
as they are.

First all entries of all links are put, then those are deleted that no link
has, and last the counts of the tags are set. What the stream says then of
links that changed in between is only what has changed since, or is so already.
"""

import time
from collections import Counter

import boto3
from tqdm import tqdm

import addons
import stack
from record import HANDLER, handler, rules
from stack import StackError

search = rules(HANDLER.with_name("search.py"), handler)
COUNTS = "#"  # the term of the counts of tags (handler/search.py)


def reindex(name):
    """Make the index of the store with this stack's name again; print what was done.

    StackError if there is no such store, or it has no add-on search.
    """
    client = boto3.client("cloudformation")
    there = stack.existing(client, name)
    found = [each for each in addons.addons_of(name) if stack.is_search(each.get("Description"))]
    if not found:
        raise StackError(
            f"Stack {name} has no add-on search, and so no index. Deploy that too:"
            f' make deploy STACK={name} ADDONS="page search"'
        )
    links, index = ids_of(client, there)["Table"], ids_of(client, found[0])
    lambda_ = boto3.client("lambda")
    function = lambda_.get_function_configuration(FunctionName=index["Function"])
    print("The stream is not followed until the index is made.", flush=True)
    try:
        follow(lambda_, index["Mapping"], False)
        if not stack.is_local(client.meta.endpoint_url):
            time.sleep(function["Timeout"])  # what the function had begun
        put, deleted, tags = make(boto3.resource("dynamodb"), links, index["Index"])
    finally:
        follow(lambda_, index["Mapping"], True)
    print(f"{put:,} entries are put, {deleted:,} deleted that no link has, {tags:,} tags counted.")


def ids_of(client, there):
    """Return the physical IDs of a stack's resources by logical ID."""
    return {logical: physical for _, logical, physical in stack.resources_of(client, there["StackId"])}


def follow(lambda_, mapping, enabled):
    """Let the stream be followed or not, and return when it is so."""
    wanted = "Enabled" if enabled else "Disabled"
    while lambda_.get_event_source_mapping(UUID=mapping)["State"] not in ("Enabled", "Disabled"):
        time.sleep(1)  # it cannot be changed while it is being changed
    lambda_.update_event_source_mapping(UUID=mapping, Enabled=enabled)
    while lambda_.get_event_source_mapping(UUID=mapping)["State"] != wanted:
        time.sleep(1)


def pages_of(table):
    """Yield the items of a table as they are now, a list for each page."""
    more = {}
    while more is not None:
        page = table.scan(ConsistentRead=True, **more)
        yield page["Items"]
        more = {"ExclusiveStartKey": page["LastEvaluatedKey"]} if "LastEvaluatedKey" in page else None


def make(dynamodb, links, index):
    """Make the entries of all links in an index that nobody else writes to, and put the mark that they are there.

    Return how many entries are put, how many deleted, and how many tags there are.
    """
    index, put, deleted = dynamodb.Table(index), 0, 0
    counts, counted = Counter(), set()
    with index.batch_writer() as batch, tqdm(unit=" items", disable=None) as bar:
        for page in pages_of(dynamodb.Table(links)):
            for link in page:
                for term, place in search.entries_of(link):
                    batch.put_item(Item={"term": term, "place": place, "link": link["link"]})
                    put += 1
            bar.update(len(page))
    with index.batch_writer() as batch, tqdm(unit=" entries", disable=None) as bar:
        for page in pages_of(index):
            right = entries_of_links(dynamodb, links, [entry for entry in page if "link" in entry])
            for entry in page:
                term, place = entry["term"], entry["place"]
                if term == COUNTS:
                    counted.add(place)
                elif "link" in entry and (term, place) not in right:
                    batch.delete_item(Key={"term": term, "place": place})
                    deleted += 1
                elif term.startswith(COUNTS):
                    counts[term.removeprefix(COUNTS)] += 1
            bar.update(len(page))
        for tag, count in counts.items():
            batch.put_item(Item={"term": COUNTS, "place": tag, "count": count})
        for tag in counted - counts.keys():
            batch.delete_item(Key={"term": COUNTS, "place": tag})
        batch.put_item(Item={"term": search.MADE, "place": search.MADE})
    return put, deleted, len(counts)


def entries_of_links(dynamodb, links, entries):
    """Return the keys (term, place) of all entries that the links of these entries have now."""
    keys, right = {search.id_of(entry): entry["link"] for entry in entries}, set()
    left = [{"link_id": link_id, "link": link} for link_id, link in keys.items()]
    while left:
        answer = dynamodb.batch_get_item(RequestItems={links: {"Keys": left[:100], "ConsistentRead": True}})
        right.update(*map(search.entries_of, answer["Responses"].get(links, [])))
        left = answer["UnprocessedKeys"].get(links, {"Keys": []})["Keys"] + left[100:]
    return right
