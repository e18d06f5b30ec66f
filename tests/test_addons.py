"""The add-ons: the template of the alarms, and the stacks that a store has besides its own."""

import json
import re
import time

import boto3
import pytest
from cfnlint.decode import decode

import addons
import deploying
import looking
import reindex
import show
import stack
from conftest import (
    ROOT,
    TEMPLATE,
    aws,
    create,
    create_stack,
    delete_stack,
    eventually,
    http_api,
    is_aws,
    named,
    outputs,
    plain,
    region_of,
    resource_ids,
)
from test_scripts import LOG, here, make, parameters, succeeds

ALARMS = ROOT / "addons" / "alarms.yml"
SEARCH = ALARMS.with_name("search.yml")
ADDONS = sorted(ALARMS.parent.glob("*.yml"))


def content(path):
    found, problems = decode(str(path))
    assert not problems
    return plain(found)


def of_type(template, kind):
    return {name: each for name, each in template["Resources"].items() if each["Type"] == f"AWS::{kind}"}


def client(engine):
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    return boto3.client("cloudformation", endpoint_url=engine.settings["AWS_ENDPOINT_URL"], **keys)


def imported(name):
    return {"Fn::ImportValue": {"Fn::Sub": f"${{Store}}-{name}"}}


def imports(value):
    """Yield each Fn::ImportValue in a part of a template."""
    if isinstance(value, dict):
        if "Fn::ImportValue" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from imports(each)


# --- Each template


@pytest.mark.parametrize("path", ADDONS, ids=lambda path: path.stem)
def test_an_add_on_is_known_by_its_description_and_bound_to_its_store(path):
    template = content(path)
    assert template["Description"].startswith(f"apidb-{path.stem}, ")
    assert template["Parameters"]["Store"]["Default"] == "apidb"
    exported = re.findall(r'Export: \{Name: !Sub "\$\{AWS::StackName\}-(\w+)"\}', TEMPLATE.read_text())
    # The alarms know an add-on by the store, too.
    exported += re.findall(r'Export: \{Name: !Sub "\$\{Store\}-(\w+)"\}', SEARCH.read_text())
    used = set(map(json.dumps, imports(template)))
    assert used and used <= {json.dumps(imported(name)) for name in exported}


@pytest.mark.parametrize("path", ADDONS, ids=lambda path: path.stem)
def test_each_parameter_of_an_add_on_is_explained(path):
    template = content(path)
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert all(group["Label"]["default"] for group in groups)
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(template["Parameters"])
    for parameter in template["Parameters"].values():
        assert parameter.keys() >= {"Description", "Type", "Default", "ConstraintDescription"}
        assert parameter.keys() & {"AllowedPattern", "AllowedValues", "MinValue"}


# --- The alarms


def test_each_alarm_watches_the_store_for_what_it_describes():
    template = content(ALARMS)
    alarms = {name: each["Properties"] for name, each in of_type(template, "CloudWatch::Alarm").items()}
    for alarm in alarms.values():
        # The symptom, and then what to do.
        assert re.fullmatch(r"[A-Z][^.]+[^.]*\. [A-Z][^.]+\.", alarm["AlarmDescription"].replace("0.", "0"))
        assert alarm["TreatMissingData"] == "notBreaching"
        assert alarm["AlarmActions"] == {"Fn::If": ["HasEmail", [{"Ref": "Topic"}], {"Ref": "AWS::NoValue"}]}
    # API Gateway's metrics go by the name of an API, which the store gives it, not by its ID.
    assert content(TEMPLATE)["Resources"]["Api"]["Properties"]["Name"] == {"Ref": "AWS::StackName"}
    api = {"ApiName": {"Ref": "Store"}}
    api["Stage"] = {"Fn::Select": [3, {"Fn::Split": ["/", imported("APIUrl")]}]}
    over, from_on = "GreaterThanThreshold", "GreaterThanOrEqualToThreshold"
    watched = {
        ("AWS/ApiGateway", "5XXError", "Sum", from_on, 5, 300, 1): api,
        ("AWS/ApiGateway", "Latency", "p99", over, 3000, 300, 3): api,  # in ms
        ("AWS/Lambda", "Throttles", "Sum", over, 0, 300, 1): {"FunctionName": imported("FunctionName")},
        ("AWS/Lambda", "IteratorAge", "Maximum", over, 300_000, 300, 1): {
            "FunctionName": content(SEARCH)["Resources"]["Function"]["Properties"]["FunctionName"]
        },
        ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "Maximum", over, 0, 300, 1): {
            "QueueName": imported("SearchQueueName")
        },
    }
    names = "Namespace MetricName Statistic ComparisonOperator Threshold Period EvaluationPeriods".split()
    query = alarms.pop("TableAlarm")
    assert watched == {
        tuple(
            (alarm | {"Statistic": alarm.get("Statistic", alarm.get("ExtendedStatistic"))})[name] for name in names
        ): {each["Name"]: each["Value"] for each in alarm["Dimensions"]}
        for alarm in alarms.values()
    }
    (metric,) = query["Metrics"]
    text, values = metric["Expression"]["Fn::Sub"]
    assert text == (
        "SELECT SUM(ThrottledRequests) FROM SCHEMA(\"AWS/DynamoDB\", Operation, TableName) WHERE TableName = '${Table}'"
    )
    assert values == {"Table": imported("TableName")}
    settings = metric["Period"], query["EvaluationPeriods"], query["Threshold"], query["ComparisonOperator"]
    assert settings == (300, 1, 0, over)


def test_only_the_topic_and_some_alarms_depend_on_parameters():
    template = content(ALARMS)
    conditional = {name: each["Condition"] for name, each in template["Resources"].items() if "Condition" in each}
    of_search = dict.fromkeys(["StreamAlarm", "QueueAlarm"], "HasSearch")
    assert conditional == {"Topic": "HasEmail", "TableAlarm": "HasTableAlarm"} | of_search
    assert template["Conditions"]["HasSearch"] == {"Fn::Equals": [{"Ref": "Search"}, "true"]}
    assert template["Parameters"]["Search"]["Default"] == "false"
    assert template["Conditions"]["HasTableAlarm"] == {"Fn::Equals": [{"Ref": "WatchTable"}, "true"]}
    assert template["Parameters"]["WatchTable"]["Default"] == "true"
    assert "0.30 to 0.80 USD" in template["Parameters"]["WatchTable"]["Description"]


def test_no_name_is_typed_in():
    template = content(ALARMS)
    names = {
        (key, str(value))
        for each in template["Resources"].values()
        for key, value in each["Properties"].items()
        if key in ("AlarmName", "TopicName", "DashboardName")
    }
    # Dashboards belong to an account, and stacks to a region of it.
    assert names == {("DashboardName", str({"Fn::Sub": "${AWS::StackName}-${AWS::Region}"}))}


def dashboard(*more):
    """Return the dashboard as CloudFormation makes it, with these alarms that depend on parameters."""
    text, values = content(ALARMS)["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    depend = {"AndTableAlarm": ("HasTableAlarm", ["TableAlarm"])}
    depend["AndSearchAlarms"] = ("HasSearch", ["StreamAlarm", "QueueAlarm"])
    names = set(re.findall(r"\$\{([^!}][^}]*)\}", text))
    assert names >= values.keys()
    for name, (condition, alarms) in depend.items():
        added = "".join(f', "${{{alarm}.Arn}}"' for alarm in alarms)
        assert values[name] == {"Fn::If": [condition, {"Fn::Sub": added}, ""]}
        text = text.replace(f"${{{name}}}", added if condition in more else "")
    filled = re.sub(r"\$\{([^!}][^}]*)\}", lambda found: found[1], text)
    return json.loads(filled.replace("${!", "${"))["widgets"]


@pytest.mark.parametrize(
    "conditions, count", [((), 3), (("HasTableAlarm",), 4), (("HasSearch",), 5), (("HasTableAlarm", "HasSearch"), 6)]
)
def test_the_dashboard_is_json_with_and_without_alarms_that_depend_on_parameters(conditions, count):
    widgets = dashboard(*conditions)
    assert len(widgets[0]["properties"]["alarms"]) == count
    for widget in widgets[1:]:
        assert widget["properties"]["region"] == "AWS::Region"


def test_the_widgets_lie_side_by_side():
    cells = [
        (x, y)
        for widget in dashboard()
        for x in range(widget["x"], widget["x"] + widget["width"])
        for y in range(widget["y"], widget["y"] + widget["height"])
    ]
    assert len(cells) == len(set(cells)), "none overlaps another"
    assert {x for x, _ in cells} == set(range(24))
    assert len(cells) == 24 * (max(y for _, y in cells) + 1), "nothing is left free"


def test_the_dashboard_shows_what_the_handler_measures():
    (measured,) = LOG["handler"]["_aws"]["CloudWatchMetrics"]
    assert measured["Dimensions"] == [["resource"]]
    variables = content(TEMPLATE)["Resources"]["Function"]["Properties"]["Environment"]["Variables"]
    assert variables["STACK"] == {"Ref": "AWS::StackName"}, "which is the namespace"
    lines = [line[-1] for each in dashboard() for line in each["properties"].get("metrics", [])]
    asked = "\n".join(line["expression"] for line in lines if "expression" in line)
    searches = re.findall(r"""^SEARCH\('\{"Store",resource\} MetricName="(\w+)"', '(\w+)'\)$""", asked, re.M)
    assert searches == [("requests", "Sum"), ("errors", "Sum"), ("ms", "p99")]
    assert [name for name, _ in searches] == [each["Name"] for each in measured["Metrics"]]


def test_the_log_widget_asks_for_what_the_lines_have():
    (query,) = [each["properties"]["query"] for each in dashboard() if each["type"] == "log"]
    source, fields, condition, order, limit = query.split(" | ")
    assert (source, order, limit) == ("SOURCE 'LogGroup'", "sort @timestamp desc", "limit 20")
    assert condition == (
        'filter level = "ERROR" or log_level = "ERROR" or (type = "platform.report" and record.status != "success")'
    )
    had = {key for line in LOG.values() for key in line}
    had |= {f"record.{key}" for line in LOG.values() for key in line.get("record", {})}
    asked = set(re.findall(r"[\w.]+", f"{fields} {condition}".replace('"platform.report"', "")))
    assert asked - had == {"fields", "filter", "coalesce", "as", "cause", "reference", "or", "and", "ERROR", "success"}


# --- The alarms, deployed by CloudFormation alone


@pytest.fixture(scope="module")
def watched(engine):
    """The name of a store for the alarms."""
    create_stack(engine, named("watched"))
    return named("watched")


@pytest.mark.parametrize(
    "email", ["", pytest.param("who@example.com", marks=pytest.mark.engine("AWS would send a mail"))]
)
def test_the_alarms_are_deployed_with_and_without_an_address(engine, watched, email):
    name, region = named("told" if email else "untold"), region_of(engine)
    # The engine knows no alarm on a query.
    given = {"Store": watched, "WatchTable": "true" if is_aws(engine) else "false"}
    given |= {"AlarmEmail": email} if email else {}
    create(engine, name, "addons/alarms.yml", given)
    ids, of_store = resource_ids(engine, name), resource_ids(engine, watched)
    alarms = {each["AlarmName"]: each for each in aws(engine, "cloudwatch", "describe-alarms")["MetricAlarms"]}
    mine = {logical: alarms[ids[logical]] for logical in ids if logical.endswith("Alarm")}
    assert mine.keys() - {"TableAlarm"} == {"ErrorAlarm", "LatencyAlarm", "FunctionAlarm"}
    assert ("TableAlarm" in mine) == (given["WatchTable"] == "true")
    api = [{"Name": "ApiName", "Value": watched}, {"Name": "Stage", "Value": "prod"}]
    assert mine["ErrorAlarm"]["Dimensions"] == mine["LatencyAlarm"]["Dimensions"] == api
    assert mine["FunctionAlarm"]["Dimensions"] == [{"Name": "FunctionName", "Value": of_store["Function"]}]
    topics = [ids["Topic"]] if email else []
    assert all(alarm["AlarmActions"] == topics for alarm in mine.values())
    subscribed = aws(engine, "sns", "list-subscriptions")["Subscriptions"]
    assert [each["Endpoint"] for each in subscribed if each["TopicArn"] in topics] == [email] * bool(email)

    assert outputs(engine, name)["DashboardName"] == f"{name}-{region}"
    shown = aws(engine, *f"cloudwatch get-dashboard --dashboard-name {name}-{region}".split())
    widgets = json.loads(shown["DashboardBody"])["widgets"]
    assert sorted(widgets[0]["properties"]["alarms"]) == sorted(alarm["AlarmArn"] for alarm in mine.values())
    assert all(widget["properties"]["region"] == region for widget in widgets[1:])
    text = json.dumps(widgets)
    assert all(of_store[logical] in text for logical in ("Table", "Function", "LogGroup"))
    assert "${PROP('Dim.resource')}" in text

    if not is_aws(engine):  # which says it later, in the stack's events
        refused = aws(engine, *f"cloudformation delete-stack --stack-name {watched}".split(), fails=True)
        assert re.search(rf"Export {watched}-\w+ is imported by stack {name}", refused)
    delete_stack(engine, name)
    left = aws(engine, "cloudwatch", "list-dashboards")["DashboardEntries"]
    assert f"{name}-{region}" not in [each["DashboardName"] for each in left]


# --- Stores with add-ons

HERE = pytest.mark.engine("the scripts run in this process, with add-ons of the test's own")

FAKE = """
Description: apidb-fake, an add-on for tests
Parameters:
 Store: {Type: String}
 StoreUrl: {Type: String, Default: ""}
 RequestBurst: {Type: Number, Default: 1}
 Fails: {Type: String, Default: "false"}
Conditions:
 Fails: !Equals [!Ref Fails, "true"]
Resources:
 Topic:
  Type: AWS::SNS::Topic
  Properties:
   DisplayName: {Fn::ImportValue: !Sub "${Store}-FunctionName"}
 Broken:
  Type: AWS::Lambda::EventInvokeConfig
  Condition: Fails
  Properties: {}
Outputs:
 PageUrl:
  Value: {Fn::ImportValue: !Sub "${Store}-APIUrl"}
"""
OTHER = FAKE.replace("apidb-fake, an add-on", "something else")


@pytest.fixture
def fake(engine, monkeypatch, tmp_path):
    """Add-ons `fake`, in this process, and `alarms`; return the path of a template that is none."""
    for key, value in engine.settings.items():
        monkeypatch.setenv(key, value)
    (tmp_path / "fake.yml").write_text(FAKE)
    (tmp_path / "other.yml").write_text(OTHER)
    monkeypatch.setattr(addons, "ADDONS", {"alarms": ALARMS, "fake": tmp_path / "fake.yml"})
    monkeypatch.chdir(tmp_path)
    return tmp_path / "other.yml"


def status(engine, name):
    """Return in which status a stack is, None if there is none."""
    there = stack.describe(client(engine), name)
    return there and there["StackStatus"]


@HERE
def test_a_parameter_goes_to_each_template_that_has_it(engine, fake, capsys):
    had = addons.deploy("both", TEMPLATE, ["fake", "alarms"], {"RequestBurst": "7", "AlarmEmail": "who@example.com"})
    url = stack.reachable(had["APIUrl"], engine.settings["AWS_ENDPOINT_URL"])
    assert parameters(engine, "both")["RequestBurst"] == "7"
    given = {"Store": "both", "StoreUrl": url, "RequestBurst": "7", "Fails": "false"}
    assert parameters(engine, "both-fake") == given
    email = {"AlarmEmail": "who@example.com"}
    assert parameters(engine, "both-alarms") == {"Store": "both", "WatchTable": "false", "Search": "false"} | email
    assert had["DashboardName"] == "both-alarms-us-east-1"
    capsys.readouterr()
    show.show(had, TEMPLATE)
    assert capsys.readouterr().out.startswith(f"\nThe API is at {url}\nIts page is at {url}\n\n")

    addons.deploy("both", TEMPLATE, ["fake"], {"StoreUrl": "https://links.example.com/link"})
    assert parameters(engine, "both-fake") == given | {"StoreUrl": "https://links.example.com/link"}
    assert status(engine, "both-alarms") == "CREATE_COMPLETE", "what is not named is left alone"
    addons.teardown("both", TEMPLATE, export=False)


def test_on_aws_an_add_on_is_told_its_store_only(fake, monkeypatch):
    told = {}
    monkeypatch.setattr(stack, "is_local", lambda _: False)
    monkeypatch.setattr(deploying, "deploy", lambda name, path, given, yes: told.update({name: given}) or {})
    addons.deploy("far", TEMPLATE, ["fake", "alarms"], {"RequestBurst": "7"})
    assert told == {
        "far": {"RequestBurst": "7"},
        "far-fake": {"Store": "far", "RequestBurst": "7"},
        "far-alarms": {"Store": "far"},
    }


@HERE
@pytest.mark.parametrize(
    "named, given, sentence",
    [
        (["page2"], {}, "^There is no add-on page2; there are alarms, fake.$"),
        (
            ["fake"],
            {"Nope": "1"},
            "^There is no parameter Nope: .*yml has Access, .*; .*yml has Fails, RequestBurst, StoreUrl.$",
        ),
        (["fake"], {"AlarmEmail": "who@example.com"}, "^There is no parameter AlarmEmail: "),
        (["fake"], {"Store": "another"}, "^There is no parameter Store: "),
    ],
)
def test_what_there_is_not_is_refused_before_anything_is_deployed(engine, fake, named, given, sentence):
    with pytest.raises(stack.StackError, match=sentence):
        addons.deploy("mistaken", TEMPLATE, named, given)
    assert status(engine, "mistaken") is None


@HERE
def test_a_stack_that_has_the_name_of_an_add_on_is_left_alone(engine, fake):
    (fake.parent / "queue.yml").write_text("Description: a queue\nResources:\n Queue: {Type: AWS::SQS::Queue}\n")
    create(engine, "near-fake", fake.parent / "queue.yml", {})
    with pytest.raises(stack.StackError, match="^Stack near-fake is of another template than .*fake.yml: "):
        addons.deploy("near", TEMPLATE, ["fake"], {})
    assert status(engine, "near") is None
    addons.deploy("near", TEMPLATE, [], {})
    addons.teardown("near", TEMPLATE, export=False)
    assert status(engine, "near-fake") == "CREATE_COMPLETE"


@HERE
def test_add_ons_go_before_their_store_whatever_their_names(engine, fake, capsys):
    addons.deploy("old", TEMPLATE, ["fake"], {})
    create(engine, "bells", ALARMS, {"Store": "old", "WatchTable": "false"})
    with pytest.raises(stack.StackError, match="What failed first is Broken"):
        addons.deploy("old", TEMPLATE, ["fake"], {"Fails": "true"})
    addons.deploy("older", TEMPLATE, [], {})
    create(engine, "old-alarms", ALARMS, {"Store": "older", "WatchTable": "false"})
    capsys.readouterr()
    addons.teardown("old", TEMPLATE, export=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("Deleting")] == [
        f"Deleting stack {name} {here(engine)}" for name in ("bells", "old-fake", "old")
    ]
    assert [f"Nothing is left of stack {name}." in lines for name in ("bells", "old-fake", "old")] == [True] * 3
    assert [status(engine, name) for name in ("old", "bells", "old-fake")] == [None] * 3
    assert status(engine, "old-alarms") == "CREATE_COMPLETE", "it is another store's"
    addons.teardown("old-alarms", TEMPLATE)
    assert (status(engine, "old-alarms"), status(engine, "older")) == (None, "CREATE_COMPLETE")
    addons.teardown("older", TEMPLATE, export=False)


@HERE
def test_an_add_on_whose_creation_failed_goes_too(engine, fake, monkeypatch):
    """It imports nothing on AWS; the engine lists it all the same."""
    monkeypatch.setattr(addons, "importers", lambda *_: set())
    with pytest.raises(stack.StackError, match="Stack torn-fake is in status ROLLBACK_COMPLETE"):
        addons.deploy("torn", TEMPLATE, ["fake"], {"Fails": "true"})
    addons.teardown("torn", TEMPLATE, export=False)
    assert (status(engine, "torn"), status(engine, "torn-fake")) == (None, None)


@HERE
def test_a_store_that_somebody_else_uses_is_not_torn_down(engine, fake):
    addons.deploy("used", TEMPLATE, ["fake"], {})
    create(engine, "stranger", fake, {"Store": "used"})
    with pytest.raises(stack.StackError) as refused:
        addons.teardown("used", TEMPLATE, export=False)
    sentence, command = str(refused.value).split("\n")
    assert sentence == (
        "Nothing is deleted: stranger uses what stack used exports, and is none of its add-ons. Delete that first:"
    )
    assert [status(engine, name) for name in ("used", "used-fake")] == ["CREATE_COMPLETE"] * 2
    aws(engine, *command.split()[1:])
    addons.teardown("used", TEMPLATE, export=False)


@HERE
def test_with_a_protected_table_no_add_on_goes(engine, fake):
    addons.deploy("safe", TEMPLATE, ["fake"], {"DeletionProtection": "true"})
    with pytest.raises(stack.StackError, match="^Table of stack safe is protected from deletion"):
        addons.teardown("safe", TEMPLATE)
    assert status(engine, "safe-fake") == "CREATE_COMPLETE"
    addons.deploy("safe", TEMPLATE, [], {"DeletionProtection": "false"})
    addons.teardown("safe", TEMPLATE, export=False)


@HERE
def test_status_shows_the_add_ons_and_where_the_page_is(engine, fake, capsys):
    had = addons.deploy("looked", TEMPLATE, ["fake", "alarms"], {})
    capsys.readouterr()
    addons.show_status("looked")
    lines = capsys.readouterr().out.splitlines()
    url = stack.reachable(had["APIUrl"], engine.settings["AWS_ENDPOINT_URL"])
    first = lines.index("Add-on       looked-alarms, CREATE_COMPLETE")
    assert lines[first + 1 : first + 3] == ["Add-on       looked-fake, CREATE_COMPLETE", f"Page         {url}"]
    addons.show_status("looked-fake")
    assert f"Page         {url}" in capsys.readouterr().out
    addons.teardown("looked", TEMPLATE, export=False)


# --- The add-on search


@pytest.fixture
def searching(fake, monkeypatch):
    """Let there be the add-ons `search` and `alarms`, in this process."""
    monkeypatch.setattr(addons, "ADDONS", {"alarms": ALARMS, "search": SEARCH})


def not_made(name):
    return f"not made yet, so that searches read all links: make reindex STACK={name}"


@HERE
@pytest.mark.parametrize("named", [["alarms", "search"], ["search", "alarms"]])
def test_the_alarms_watch_the_add_on_search_if_it_is_there(engine, searching, named):
    addons.deploy("heard", TEMPLATE, named, {})
    ids, watching = resource_ids(engine, "heard-search"), resource_ids(engine, "heard-alarms")
    alarms = {each["AlarmName"]: each for each in aws(engine, "cloudwatch", "describe-alarms")["MetricAlarms"]}
    dimensions = {name: alarms[watching[name]]["Dimensions"] for name in ("StreamAlarm", "QueueAlarm")}
    assert dimensions == {
        "StreamAlarm": [{"Name": "FunctionName", "Value": ids["Function"]}],
        "QueueAlarm": [{"Name": "QueueName", "Value": ids["Queue"].split("/")[-1]}],
    }
    shown = aws(engine, *"cloudwatch get-dashboard --dashboard-name heard-alarms-us-east-1".split())
    listed = json.loads(shown["DashboardBody"])["widgets"][0]["properties"]["alarms"]
    assert {alarms[watching[name]]["AlarmArn"] for name in dimensions} < set(listed)
    with pytest.raises(
        stack.StackError, match="^Nothing is deleted: heard-alarms uses what stack heard-search exports"
    ):
        addons.teardown("heard-search", SEARCH)
    addons.teardown("heard", TEMPLATE, export=False)


@HERE
def test_alarms_that_come_later_watch_it_too_and_others_do_not(engine, searching):
    addons.deploy("later", TEMPLATE, ["alarms"], {})
    assert parameters(engine, "later-alarms")["Search"] == "false"
    assert "StreamAlarm" not in resource_ids(engine, "later-alarms")
    addons.deploy("later", TEMPLATE, ["search"], {})
    assert parameters(engine, "later-alarms")["Search"] == "false", "what is not named is left alone"
    addons.deploy("later", TEMPLATE, ["alarms"], {})
    assert parameters(engine, "later-alarms")["Search"] == "true"
    addons.teardown("later", TEMPLATE, export=False)


@HERE
def test_the_add_on_search_goes_after_the_alarms_whatever_their_names(engine, searching, capsys):
    addons.deploy("between", TEMPLATE, [], {})
    create(engine, "a-finder", SEARCH, {"Store": "between"})
    create(engine, "bells", ALARMS, {"Store": "between", "WatchTable": "false", "Search": "true"})
    capsys.readouterr()
    addons.teardown("between", TEMPLATE, export=False)
    deleted = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Deleting")]
    assert deleted == [f"Deleting stack {name} {here(engine)}" for name in ("bells", "a-finder", "between")]


@HERE
def test_the_index_of_an_empty_store_is_made_from_the_start(engine, searching, capsys):
    had = addons.deploy("fresh", TEMPLATE, ["search"], {})
    assert "The index of tags" not in capsys.readouterr().out
    with http_api(engine, had["APIUrl"]) as api:
        record = api.post("https://example.com", tags=["found"])
        eventually(lambda: api.all("/tags") == [{"tag": "found", "count": 1}], "the count of a tag")
        assert api.all("/link?tag=found") == [record]
    addons.show_status("fresh")
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("Add-on       fresh-search, CREATE_COMPLETE") + 1] == "Index        made"
    assert not any(line.startswith("Messages") for line in lines)
    addons.teardown("fresh", TEMPLATE, export=False)


@HERE
def test_who_had_links_before_is_told_how_to_make_the_index(engine, searching, capsys):
    had = addons.deploy("full", TEMPLATE, [], {})
    with http_api(engine, had["APIUrl"]) as api:
        for n in range(101):  # more than come at once from the stream
            api.post(f"https://example.com/{n}")
    capsys.readouterr()
    addons.deploy("full", TEMPLATE, ["search"], {})
    assert capsys.readouterr().out.splitlines()[-1] == f"The index of tags and words is {not_made('full')}"
    for name in ("full", "full-search"):
        addons.show_status(name)
        assert f"\nIndex        {not_made('full')}\n" in capsys.readouterr().out
    follow = {"UUID": resource_ids(engine, "full-search")["Mapping"], "Enabled": False}
    boto3.client("lambda").update_event_source_mapping(**follow)
    addons.show_status("full")
    said = "not kept up, as the stream is not followed: make reindex STACK=full"
    assert f"\nIndex        {said}\n" in capsys.readouterr().out
    reindex.reindex("full")
    addons.show_status("full")
    assert "\nIndex        made\n" in capsys.readouterr().out
    addons.teardown("full", TEMPLATE, export=False)


@HERE
def test_status_and_logs_tell_of_what_could_not_be_followed(engine, searching, monkeypatch, capsys):
    addons.deploy("behind", TEMPLATE, ["search"], {})
    ids = resource_ids(engine, "behind-search")
    boto3.client("sqs").send_message(QueueUrl=ids["Queue"], MessageBody="{}")
    where = {"logGroupName": ids["LogGroup"], "logStreamName": "as Lambda's runtime writes it"}
    boto3.client("logs").create_log_stream(**where)
    line = {"timestamp": int(time.time() * 1000), "message": json.dumps(LOG["raised"])}
    boto3.client("logs").put_log_events(**where, logEvents=[line])
    capsys.readouterr()
    addons.show_status("behind")
    shown = capsys.readouterr().out
    assert "\nMessages     1 in the queue of behind-search: docs/operate.md says what to do\n" in shown
    assert shown.endswith("ValueError: no such thing\n") and "  behind-search: " in shown.splitlines()[-1]

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stack, "pause", stop)
    with pytest.raises(KeyboardInterrupt):
        addons.follow_logs("behind")
    assert re.search(" UTC  behind-search: .*no such thing", capsys.readouterr().out)
    addons.teardown("behind", TEMPLATE, export=False)


@HERE
def test_an_index_whose_function_fails_is_not_known(engine, searching, monkeypatch):
    addons.deploy("hurt", TEMPLATE, ["search"], {})
    there = stack.describe(client(engine), "hurt-search")
    aws(engine, "dynamodb", "delete-table", "--table-name", resource_ids(engine, "hurt-search")["Index"])
    aws(engine, "lambda", "update-function-configuration", "--function-name", "hurt-search", "--memory-size", "640")
    said = looking.index_of(there)
    assert said == "not known, as its function fails, and its log says why: make logs STACK=hurt"
    aws(engine, "lambda", "delete-function", "--function-name", "hurt-search")
    assert looking.index_of(there).startswith("not known: An error occurred (ResourceNotFoundException)")
    addons.teardown("hurt", TEMPLATE, export=False)


@HERE
def test_teardown_exports_visits_but_no_index(engine, searching, tmp_path, capsys):
    had = addons.deploy("gone", TEMPLATE, ["search"], {})
    ids = resource_ids(engine, "gone-search")
    with http_api(engine, had["APIUrl"]) as api:
        record = api.post("https://example.com", tags=["tag"])
        assert api.send("GET", f"/go/{record['link_id']}", {}, None).status_code == 302
    scan = lambda: boto3.client("dynamodb").scan(TableName=ids["Visits"])["Items"]
    eventually(scan, "the day of a visit")
    capsys.readouterr()
    addons.teardown("gone", TEMPLATE)
    links, visits = sorted(tmp_path.glob("*.jsonl"), key=lambda path: path.name, reverse=True)
    assert re.fullmatch(r"links-gone-\d{8}T\d{6}Z\.jsonl", links.name)
    assert re.fullmatch(r"gone-search-Visits-\d{8}T\d{6}Z\.jsonl", visits.name)
    (day,) = map(json.loads, visits.read_text().splitlines())
    assert day["life"] == f"{record['link_id']} {record['created_at']}"
    assert (day["visits_before"], day["visits_after"]) == (0, 1)
    lines = capsys.readouterr().out.splitlines()
    assert f"{visits.name} has the items, 1" in lines
    deleted = [line for line in lines if line.startswith("Deleting")]
    assert deleted == [f"Deleting stack {name} {here(engine)}" for name in ("gone-search", "gone")]
    assert f"{ids['Visits']}$DeletedTableBackup" in lines[-1] and ids["Index"] not in lines[-1]


# --- The commands


@pytest.mark.engine("test_aws.py does the same with a name of the run")
def test_make_deploys_the_add_ons_that_are_named(engine, tmp_path):
    code, printed = make(engine, "deploy", "STACK=made-so", "ADDONS=page alarms")
    assert (code, "\nIts page is at http://" in printed) == (0, True), printed
    assert "PageUrl" in outputs(engine, "made-so-page")
    code, printed = make(engine, "deploy", "STACK=made-so")
    assert re.findall("^Stack (.*) is up to date$", printed, re.M) == ["made-so", "made-so-page"]
    code, printed = make(engine, "deploy", "STACK=made-so", "ADDONS=")
    assert re.findall("^Stack (.*) is up to date$", printed, re.M) == ["made-so"]
    assert "page" not in printed
    code, printed = make(engine, "deploy", "STACK=made-so", "ADDONS=pages")
    assert (code, printed.splitlines()[0]) == (2, "There is no add-on pages; there are alarms, page, search.")
    assert "Add-on       made-so-page, CREATE_COMPLETE" in make(engine, "status", "STACK=made-so")[1]
    assert make(engine, "teardown", "STACK=made-so", "EXPORT=no")[0] == 0
    for name in ("made-so", "made-so-page", "made-so-alarms"):
        described = aws(engine, *f"cloudformation describe-stacks --stack-name {name}".split(), fails=True)
        assert "does not exist" in described


@pytest.mark.engine("it asks nobody")
def test_help_lists_the_add_ons(engine):
    said = " ".join(" ".join(succeeds(engine, "--help")).split())
    assert f"deploy this add-on too ({', '.join(path.stem for path in ADDONS)}); others" in said
