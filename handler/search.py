"""What finds the links of a store by tags and words, and counts visits by day: the function of addons/search.yml.

It follows the stream of the store's table, TABLE, and keeps two tables.

INDEX is made from the links, and can be made again. What it says is a hint,
what the link says counts: readers look at the links. An item has the sort key
of the link in the store, `link`, and

- for a tag of a link the term "#aws" and the place "CREATED_AT LINK_ID";
- for a word of a link the term "wik", its first three letters, and the place
  "wikipedia", END, "CREATED_AT LINK_ID";
- for a link that expires the term "!" and the place "EXPIRES_AT LINK_ID",
  as long as DynamoDB has not deleted it, which takes it days;
- for a tag, without `link`, the term "#", the tag as the place, and `count`,
  the links that have it, exact however often a change is followed.

VISITS has for each day on which a link was visited how many visits it had
before that day, `visits_before`, and after it, `visits_after`. These only grow,
so a change may be followed again. The hash key is `life`, "LINK_ID CREATED_AT".

The store's function asks questions: {"question": "links", ...}, see QUESTIONS.
The answer is {"values": [...], "cursor": ...}; {"error": ...}, a sentence for
the client; or None, when the store has to read the links itself.
"""

import json
import os
import random
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from index import (
    OWNER,
    RECORD,
    RUN,
    TABLE,
    WORDS,
    BadRequest,
    Search,
    ServiceUnavailable,
    call,
    cursor_of,
    decode,
    encode,
    encode_all,
    is_live,
    key_in,
    matches,
    record_of,
    require,
    said_of,
    to_json,
    words_of,
)

# --- Settings

INDEX = os.environ["INDEX"]
VISITS = os.environ["VISITS"]

END = "\U0010ffff"  # after all letters: read backwards, a word comes before those that it begins
MADE = "made"  # the term and the place of the mark that all links are in INDEX
FOUND, FOUND_BYTES = 100, 2**20  # of a page: BatchGetItem takes 100 keys; Lambda answers 6 MB, JSON in JSON
BATCH = 25  # the most that BatchWriteItem takes
BATCH_SECONDS = 8  # until what DynamoDB leaves undone of a batch is given up
THREADS = 8
NO_CURSOR = "cursor must be one from a Link header of this API."

# --- The index


def entries_of(link):
    """Return the keys (term, place) of a link's entries, a set; an empty one if it is none, or was deleted."""
    if "created_at" not in link:
        return set()
    place = f"{link['created_at']} {link['link_id']}"
    words = [word for word in words_of(said_of(link))[:WORDS] if len(word) > 1]
    entries = {("#" + tag, place) for tag in link.get("tags", [])} | {(word[:3], word + END + place) for word in words}
    return entries | ({("!", expiry(link["expires_at"]) + " " + link["link_id"])} if "expires_at" in link else set())


def expiry(seconds):
    """Return a time as text whose order is that of time."""
    return f"{int(seconds):015}"


def term_of(wanted):
    """Return the term that has the fewest of the links, and the word that their places begin with.

    That is the tag that the fewest have, or of words, which are not counted, the longest; it must have three letters,
    or two of a script without spaces. ("", "") if there is none.
    """
    if wanted.tags:
        return "#" + rarest(wanted.tags), ""
    indexed = [word for word in wanted.words if len(word) > 2 or len(word) == 2 and RUN.match(word)[1]]
    word = max(indexed, key=len, default="")
    return word[:3], word


def rarest(tags):
    if len(tags) == 1:
        return tags[0]
    counts = get_all(INDEX, [{"term": "#", "place": tag} for tag in tags])
    counts = {each["place"]: each["count"] for each in counts}
    return min(tags, key=lambda tag: counts.get(tag, 0))


def first_place(link, term, word):
    """Return where a walk backwards meets a link first, so that one with two words that begin alike comes once."""
    return max((place for one, place in entries_of(link) if one == term and place.startswith(word)), default=None)


def entries(term, condition="", values={}, **more):
    """Return a page of the entries of a term."""
    condition = "term = :term" + condition
    return call("Query", {"term": term, **values}, TableName=INDEX, KeyConditionExpression=condition, **more)


def is_made(followed=()):
    """Return whether all links are in the index; `followed` has the ids of new ones that just came into it.

    They are if there were no others when this was first asked, or if `make reindex` made it. What the store's own index
    does not show yet of the newest links, the stream still brings.
    """
    global made
    if not made and not entries(MADE)["Items"]:
        request = {"IndexName": "newest", "Limit": len(followed) + 1, "KeyConditionExpression": "#owner = :owner"}
        page = call("Query", {"owner": OWNER}, ExpressionAttributeNames={"#owner": "owner"}, **request)
        if "LastEvaluatedKey" in page or not all(link["link_id"] in followed for link in page["Items"]):
            return False
        call("PutItem", TableName=INDEX, Item=encode_all({"term": MADE, "place": MADE}))
    made = True
    return made


made = False

# --- Questions


def id_of(entry):
    return entry["place"].rpartition(" ")[2]


def get_all(table, keys, **more):
    """Return the items of a table that have these keys, at most 100."""
    items = []
    for left in batches({table: more | {"Keys": list(map(encode_all, keys))}} if keys else {}):
        answer = call("BatchGetItem", RequestItems=left)
        items += answer["Responses"].get(table, [])
        undone = answer["UnprocessedKeys"].get(table, {}).get("Keys", [])
        left.clear()
        left |= {table: more | {"Keys": list(map(encode_all, undone))}} if undone else {}
    return items


def links_of(found):
    """Return the links of at most 100 entries by their ids."""
    names = {f"#{name}": name for name in ("url", "deleted_at", *RECORD)}
    wanted = {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}
    keys = {id_of(entry): {"link_id": id_of(entry), "link": entry["link"]} for entry in found}
    return {link["link_id"]: link for link in get_all(TABLE, list(keys.values()), **wanted)}


def batches(left):
    """Yield what is left of a batch, from which who gets it takes what is done, until nothing is.

    ServiceUnavailable if DynamoDB does not do it all in time.
    """
    end = time.monotonic() + BATCH_SECONDS
    while left:
        yield left
        if left:
            if time.monotonic() > end:
                raise ServiceUnavailable
            time.sleep(random.random() / 4)


def find_links(tags, words, others, count, cursor):
    """Answer with a page of links that have all tags, words and others: one Query, one BatchGetItem.

    By a tag they come newest first. By a word those come first that have this very word, newest first, then those with
    a longer one, word by word, backwards; a link with two such words comes where the first is.
    """
    wanted, order = Search(tags, words, others), to_json([sorted(tags), words, others])
    if not is_made():
        return None
    if cursor is None:
        (term, word), start = term_of(wanted), {}
    else:  # which has the term, as by now another may have the fewest
        key = key_in(cursor, order)
        require(key, NO_CURSOR)
        term, word, place = json.loads(key[0])
        start = {"ExclusiveStartKey": encode_all({"term": term, "place": place})}
    if not term:
        return None
    count = min(count, FOUND)
    begins = (" AND begins_with(place, :word)", {"word": word}) if word else ()
    page = entries(term, *begins, ScanIndexForward=False, Limit=count + 1, **start)
    found, last = page["Items"], page.get("LastEvaluatedKey")
    links, records, size = links_of(found[:count]), [], 0
    for number, entry in enumerate(found):
        if number == count or size > FOUND_BYTES:
            last = found[number - 1]
            break
        link = links.get(id_of(entry))
        if is_live(link) and matches(link, wanted) and entry["place"] == first_place(link, term, word):
            records.append(record_of(link))
            size += len(to_json(records[-1]).encode())
    return {"values": records, "cursor": last and cursor_of([to_json([term, word, last["place"]])], order)}


def list_tags(cursor):
    """Answer with all tags by name, and how many links have each: a Query, and one more for links that have expired."""
    if not is_made():
        return None
    start = {}
    if cursor is not None:
        key = key_in(cursor, "#")
        require(key, NO_CURSOR)
        start = {"ExclusiveStartKey": encode_all({"term": "#", "place": "\n".join(key)})}
    page = entries("#", **start)
    expired, last = expired_tags(), page.get("LastEvaluatedKey")
    counts = {each["place"]: each["count"] - expired[each["place"]] for each in page["Items"]}
    values = [{"tag": tag, "count": count} for tag, count in counts.items() if count > 0]
    return {"values": values, "cursor": last and cursor_of([last["place"]], "#")}


def expired_tags():
    """Return a Counter of the tags of links that have expired, but are still counted."""
    now, counts, more = expiry(time.time()), Counter(), {}
    while more is not None:
        page = entries("!", " AND place < :now", {"now": now}, Limit=FOUND, **more)
        links = links_of(page["Items"]).values()
        links = [link for link in links if "created_at" in link and not is_live(link)]
        counts.update(tag for link in links for tag in link.get("tags", []))
        last = page.get("LastEvaluatedKey")
        more = {"ExclusiveStartKey": encode_all(last)} if last else None
    return counts


def count_visits(link, first, last, cursor):
    """Answer with the days, from first to last if these are given, on which a link was visited, and how often."""
    for name, day in (("from", first), ("to", last)):
        holds = day is None or re.fullmatch(r"(?a)\d{4}-\d\d-\d\d", day)
        require(holds, f"{name} must be a day like 2026-11-21.")
    first, last = first or "0", last or "9"
    days = days_of(life_of(link), first, last) if first <= last else []
    return {
        "values": [{"day": day["day"], "visits": day["visits_after"] - day["visits_before"]} for day in days],
        "cursor": None,
    }


QUESTIONS = {"links": find_links, "tags": list_tags, "visits": count_visits, "made": lambda cursor=None: is_made()}

# --- Following the stream


def life_of(link):
    """Return the key of a link's days; None if it is none, or was deleted."""
    return f"{link['link_id']} {link['created_at']}" if "created_at" in link else None


def days_of(life, first="0", last="9", **request):
    """Return all days of a life, from first to last, on which there were visits."""
    request |= {"KeyConditionExpression": "life = :life AND #day BETWEEN :first AND :last", "TableName": VISITS}
    request["ExpressionAttributeNames"] = {"#day": "day"}
    values, days, more = {"life": life, "first": first, "last": last}, [], {}
    while more is not None:
        page = call("Query", values, **request, **more)
        days += page["Items"]
        more = {"ExclusiveStartKey": encode_all(page["LastEvaluatedKey"])} if "LastEvaluatedKey" in page else None
    return days


def write_tag(tag, changes):
    """Put, or without its sort key delete, the entries of links with this tag, and count each.

    Entry and count change in one transaction, which is refused if the entry is as it should be already.
    """
    count = {"TableName": INDEX, "Key": encode_all({"term": "#", "place": tag})}
    count |= {"UpdateExpression": "ADD #count :n", "ExpressionAttributeNames": {"#count": "count"}}
    for place, link in changes.items():
        key = encode_all({"term": "#" + tag, "place": place})
        kind, entry = ("Put", {"Item": key | {"link": encode(link)}}) if link else ("Delete", {"Key": key})
        entry["TableName"] = INDEX
        entry["ConditionExpression"] = "attribute_not_exists(term)" if link else "attribute_exists(term)"
        counted = count | {"ExpressionAttributeValues": encode_all({":n": 1 if link else -1})}
        call("TransactWriteItems", TransactItems=[{kind: entry}, {"Update": counted}])


def write_others(changes):
    """Put, or without its sort key delete, up to 25 entries that are not of tags."""
    requests = {}
    for (term, place), link in changes:
        key = encode_all({"term": term, "place": place})
        put = {"PutRequest": {"Item": key | {"link": encode(link)}}}
        requests[term, place] = put if link else {"DeleteRequest": {"Key": key}}
    for left in batches({INDEX: list(requests.values())}):
        answer = call("BatchWriteItem", RequestItems=left)
        left.clear()
        undone = [key for request in answer["UnprocessedItems"].get(INDEX, []) for key in keys_in(request)]
        left |= {INDEX: [requests[key] for key in undone]} if undone else {}


def keys_in(request):
    """Yield the key of the one entry that a request of a batch is to write."""
    for asked in request.values():
        entry = asked.get("Item") or asked["Key"]
        yield entry["term"], entry["place"]


def write_day(life, day, before, after):
    """Let a day of a link have its visits, unless it has more already."""
    request = {"TableName": VISITS, "Key": encode_all({"life": life, "day": day})}
    request["UpdateExpression"] = "SET visits_before = if_not_exists(visits_before, :before), visits_after = :after"
    request["ConditionExpression"] = "attribute_not_exists(visits_after) OR visits_after < :after"
    call("UpdateItem", {"before": before, "after": after}, **request)


def follow(records):
    """Bring both tables to where records of the table's stream lead.

    Of an item they come in the order of its changes, but may come again: after a failure, all or some of them.
    """
    tags, others, days, ended, new_ones = {}, {}, {}, set(), set()
    for record in json.loads(json.dumps(records), object_hook=decode):
        old, new = (record["dynamodb"].get(image, {}) for image in ("OldImage", "NewImage"))
        before, after = entries_of(old), entries_of(new)
        link = (new or old)["link"]
        for (term, place), there in (dict.fromkeys(before - after) | dict.fromkeys(after - before, link)).items():
            if term.startswith("#"):
                tags.setdefault(term[1:], {})[place] = there
            else:
                others[term, place] = there
        life, lived = (life_of(each) for each in (new, old))
        if life and not lived:
            new_ones.add(new["link_id"])
        was, visits = (each.get("visits", 0) for each in (old, new))
        # A new link, which was not visited, may be put over one that has expired, and may bring its time along.
        if lived and (life != lived or "visit" in old and "visit" not in new):
            ended.add(lived)
            days = {key: day for key, day in days.items() if key[0] != lived}
        elif lived and visits > was and "visit" in new:
            key = life, new["visited_at"][:10]
            days[key] = (days[key][0] if key in days else was, visits)
    for life in ended:
        for day in days_of(life, ConsistentRead=True):
            call("DeleteItem", TableName=VISITS, Key=encode_all({"life": life, "day": day["day"]}))
    with ThreadPoolExecutor(THREADS) as threads:
        work = [threads.submit(write_tag, tag, changes) for tag, changes in tags.items()]
        changes = list(others.items())
        work += [threads.submit(write_others, changes[at : at + BATCH]) for at in range(0, len(changes), BATCH)]
        work += [threads.submit(write_day, *key, *day) for key, day in days.items()]
    for each in work:
        each.result()
    is_made(new_ones)


# --- Entry point


def lambda_handler(event, context):
    """Follow records of the stream, or answer a question of the store's function.

    What cannot be followed is raised, and Lambda brings it again.
    """
    if "Records" in event:
        return follow(event["Records"])
    asked = dict(event)
    try:
        return QUESTIONS[asked.pop("question")](**asked)
    except BadRequest as error:
        return {"error": str(error)}
