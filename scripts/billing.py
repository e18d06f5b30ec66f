"""What AWS bills of a request: DynamoDB's rules of sizes and units, and a meter of the calls of a handler."""

import sys
from dataclasses import dataclass, field
from math import ceil

MB = 2**20


@dataclass
class Kind:
    """What AWS bills of a request of one kind."""

    name: str
    api: int = 1  # requests that API Gateway bills
    answers: int = 1  # that leave AWS
    invocations: int = 1
    calls: int = 0  # of DynamoDB
    items: int = 0  # that these read
    reads: float = 0  # read request units
    writes: int = 0  # write request units
    out: int = 0  # bytes of the answer
    log: int = 0  # bytes of the line in the log
    stored: int = 0  # bytes of the link that is written
    indexed: int = 0  # bytes that the index then takes more, in storage
    metrics: set = field(default_factory=set)  # that CloudWatch makes of it
    addon: "Kind" = None  # what the add-on search does meanwhile, as the function waits for it

    def all(self, figure):
        """Return a figure of the request with that of the add-on."""
        return getattr(self, figure) + (self.addon.all(figure) if self.addon else 0)


# --- DynamoDB's rules

# They are in these pages of https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/:
# CapacityUnitCalculations.html (sizes; 100 bytes more an item in storage), read-write-operations.html
# (units), GSI.html (writes to an index), PointInTimeRecovery_Howitworks.html (billed without the indexes).


def value_bytes(attribute):
    ((kind, value),) = attribute.items()
    if kind == "L":
        return 3 + sum(1 + value_bytes(each) for each in value)
    return len(value.encode()) if kind == "S" else ceil(len(value.strip("0")) / 2) + 1


def item_bytes(item):
    return sum(len(name.encode()) + value_bytes(value) for name, value in item.items())


def stored_bytes(item):
    return item_bytes(item) + 100 if item else 0


def write_units(size):
    return ceil(size / 1024)


def units_of_write(before, after, indexes):
    """Return the write units of a write, given the item before and after it, {} for none.

    An index with all attributes is written whenever an item is that has its
    key; if the key changes it takes two writes, a deletion and a put, and one
    if the item comes into it or leaves it. `indexes` has the names of each
    one's key attributes.
    """
    units = max(write_units(max(item_bytes(before), item_bytes(after))), 1)
    for key in indexes:
        old, new = (item_bytes(item) if set(key) <= item.keys() else 0 for item in (before, after))
        moved = old and new and any(before[name] != after[name] for name in key)
        units += write_units(old) + write_units(new) if moved else write_units(max(old, new))
    return units


class Meter:
    """Count in `kind`, unless it is None, what DynamoDB bills of the calls that the handler makes.

    `tables` has the properties of each table in its template, by its name. A
    client of its own looks at items, so that looking is not counted. `changes`
    has what the table of links is changed by, as its stream tells it.
    """

    def __init__(self, index, client, tables):
        self.kind, self.client, self.index, self.changes = None, client, index, []
        self.keys, self.indexes = {}, {}
        for name, table in tables.items():
            self.keys[name], *self.indexes[name] = (
                [each["AttributeName"] for each in schema["KeySchema"]]
                for schema in [table, *table.get("GlobalSecondaryIndexes", [])]
            )
        self.call, index.call = index.call, self.counted

    def item(self, request):
        given, name = request.get("Key") or request["Item"], request.get("TableName", self.index.TABLE)
        key = {part: given[part] for part in self.keys[name]}
        return self.client.get_item(TableName=name, Key=key).get("Item", {})

    def counted(self, operation, values=None, **request):
        """Do a call of the handler's, and count it."""
        if not self.kind:
            return self.call(operation, values, **request)
        self.kind.calls += 1
        if operation == "Query":
            return self.read(values, request)
        if operation == "BatchGetItem":
            return self.get(request)
        if operation in ("PutItem", "UpdateItem", "DeleteItem"):
            return self.write(operation, values, request)
        if operation == "BatchWriteItem":
            ((name, asked),) = request["RequestItems"].items()
            writes = [each | {"TableName": name} for action in asked for each in action.values()]
            return self.write_all(writes, 1, operation, request)
        if operation == "TransactWriteItems":  # which writes each item twice
            writes = [each for action in request["TransactItems"] for each in action.values()]
            return self.write_all(writes, 2, operation, request)
        sys.exit(f"scripts/billing.py does not know what DynamoDB bills for {operation}; add it to Meter.")

    def read(self, values, request):
        if request.pop("ProjectionExpression", None):  # billed are whole items, so let it return them
            names, used = request["ExpressionAttributeNames"], request["KeyConditionExpression"].split()
            request["ExpressionAttributeNames"] = {name: names[name] for name in names if name in used}
        answer = self.call("Query", values, **request)
        items = list(map(self.index.encode_all, answer["Items"]))
        # DynamoDB reads up to 1 MB; moto ends a page a little before.
        full = "LastEvaluatedKey" in answer and len(items) < request.get("Limit", MB)
        units = max(ceil((MB if full else sum(map(item_bytes, items))) / 4096), 1)
        self.kind.items += len(items)
        self.kind.reads += units if request.get("ConsistentRead") else units / 2
        return answer

    def get(self, request):
        """Each item is rounded up by itself; billed are whole items, so let it return them."""
        ((name, asked),) = request["RequestItems"].items()
        answer = self.call("BatchGetItem", RequestItems={name: {"Keys": asked["Keys"]}})
        items = list(map(self.index.encode_all, answer["Responses"][name]))
        self.kind.items += len(items)
        self.kind.reads += sum(ceil(item_bytes(item) / 4096) / 2 for item in items)
        return answer

    def write(self, operation, values, request):
        before, name = self.item(request), request.get("TableName", self.index.TABLE)
        answer = self.call(operation, values, **request)
        if "__type" in answer:
            # A condition that failed costs what the item takes that is there, or the new one if larger.
            self.kind.writes += write_units(max(item_bytes(before), item_bytes(request.get("Item", {})), 1))
            return answer
        after = self.item(request)
        self.kind.writes += units_of_write(before, after, self.indexes[name])
        if name == self.index.TABLE:
            self.kind.stored = item_bytes(after)
            images = {"OldImage": before, "NewImage": after}
            self.changes.append({"dynamodb": {image: item for image, item in images.items() if item}})
        return answer

    def write_all(self, writes, times, operation, request):
        """Count writes to tables without indexes, each so many times, which one call does."""
        before = list(map(self.item, writes))
        answer = self.call(operation, **request)
        for old, new in zip(before, map(self.item, writes)):
            self.kind.writes += times * units_of_write(old, new, [])
            self.kind.indexed += stored_bytes(new) - stored_bytes(old)
        return answer
