"""The add-ons: the template of the alarms, and the stacks that a store has besides its own."""

import json
import re

import boto3
import pytest
from cfnlint.decode import decode

import addons
import deploying
import show
import stack
from conftest import ROOT, TEMPLATE, aws, create, create_stack, outputs, plain, resource_ids
from test_scripts import LOG, here, make, parameters, succeeds

ALARMS = ROOT / "addons" / "alarms.yml"
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
        ("AWS/Lambda", "IteratorAge", "Maximum", over, 300_000, 300, 1): {"FunctionName": imported("FunctionName")},
        ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "Maximum", over, 0, 300, 1): {
            "QueueName": imported("QueueName")
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


def test_only_the_topic_and_the_alarm_that_costs_more_depend_on_parameters():
    template = content(ALARMS)
    conditional = {name: each["Condition"] for name, each in template["Resources"].items() if "Condition" in each}
    assert conditional == {"Topic": "HasEmail", "TableAlarm": "HasTableAlarm"}
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


def dashboard(alarm):
    """Return the dashboard as CloudFormation makes it, with this text where the table's alarm is."""
    text, values = content(ALARMS)["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    assert values["AndTableAlarm"] == {"Fn::If": ["HasTableAlarm", {"Fn::Sub": ', "${TableAlarm.Arn}"'}, ""]}
    names = set(re.findall(r"\$\{([^!}][^}]*)\}", text))
    assert names >= values.keys()
    filled = re.sub(r"\$\{([^!}][^}]*)\}", lambda found: alarm if found[1] == "AndTableAlarm" else found[1], text)
    return json.loads(filled.replace("${!", "${"))["widgets"]


@pytest.mark.parametrize("alarm, count", [("", 5), (', "arn:aws:cloudwatch:a:1:alarm:b"', 6)])
def test_the_dashboard_is_json_with_and_without_the_alarm_on_the_table(alarm, count):
    widgets = dashboard(alarm)
    assert len(widgets[0]["properties"]["alarms"]) == count
    for widget in widgets[1:]:
        assert widget["properties"]["region"] == "AWS::Region"


def test_the_widgets_lie_side_by_side():
    cells = [
        (x, y)
        for widget in dashboard("")
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
    lines = [line[-1] for each in dashboard("") for line in each["properties"].get("metrics", [])]
    asked = "\n".join(line["expression"] for line in lines if "expression" in line)
    searches = re.findall(r"""^SEARCH\('\{"Store",resource\} MetricName="(\w+)"', '(\w+)'\)$""", asked, re.M)
    assert searches == [("requests", "Sum"), ("errors", "Sum"), ("ms", "p99")]
    assert [name for name, _ in searches] == [each["Name"] for each in measured["Metrics"]]


def test_the_log_widget_asks_for_what_the_lines_have():
    (query,) = [each["properties"]["query"] for each in dashboard("") if each["type"] == "log"]
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
    create_stack(engine, "watched")
    return "watched"


ON_METRICS = ("ErrorAlarm", "LatencyAlarm", "FunctionAlarm", "StreamAlarm", "QueueAlarm")


@pytest.mark.parametrize("email", ["", "who@example.com"])
def test_the_alarms_are_deployed_with_and_without_an_address(engine, watched, email):
    name = "told" if email else "untold"
    given = {"Store": watched, "WatchTable": "false"} | ({"AlarmEmail": email} if email else {})
    create(engine, name, "addons/alarms.yml", given)
    ids, of_store = resource_ids(engine, name), resource_ids(engine, watched)
    alarms = {each["AlarmName"]: each for each in aws(engine, "cloudwatch", "describe-alarms")["MetricAlarms"]}
    mine = {logical: alarms[ids[logical]] for logical in ON_METRICS}
    api = [{"Name": "ApiName", "Value": watched}, {"Name": "Stage", "Value": "prod"}]
    assert mine["ErrorAlarm"]["Dimensions"] == mine["LatencyAlarm"]["Dimensions"] == api
    assert mine["FunctionAlarm"]["Dimensions"] == [{"Name": "FunctionName", "Value": of_store["Function"]}]
    topics = [ids["Topic"]] if email else []
    assert all(alarm["AlarmActions"] == topics for alarm in mine.values())
    subscribed = aws(engine, "sns", "list-subscriptions")["Subscriptions"]
    assert [each["Endpoint"] for each in subscribed if each["TopicArn"] in topics] == [email] * bool(email)

    assert outputs(engine, name)["DashboardName"] == f"{name}-us-east-1"
    shown = aws(engine, *f"cloudwatch get-dashboard --dashboard-name {name}-us-east-1".split())
    widgets = json.loads(shown["DashboardBody"])["widgets"]
    assert widgets[0]["properties"]["alarms"] == [alarm["AlarmArn"] for alarm in mine.values()]
    assert all(widget["properties"]["region"] == "us-east-1" for widget in widgets[1:])
    text = json.dumps(widgets)
    assert all(of_store[logical] in text for logical in ("Table", "Function", "LogGroup"))
    assert "${PROP('Dim.resource')}" in text

    refused = aws(engine, *f"cloudformation delete-stack --stack-name {watched}".split(), fails=True)
    assert re.search(rf"Export {watched}-\w+ is imported by stack {name}", refused)
    aws(engine, *f"cloudformation delete-stack --stack-name {name}".split())
    while stack.describe(client(engine), name):
        pass
    left = aws(engine, "cloudwatch", "list-dashboards")["DashboardEntries"]
    assert f"{name}-us-east-1" not in [each["DashboardName"] for each in left]


# --- Stores with add-ons

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


def test_a_parameter_goes_to_each_template_that_has_it(engine, fake, capsys):
    had = addons.deploy("both", TEMPLATE, ["fake", "alarms"], {"RequestBurst": "7", "AlarmEmail": "who@example.com"})
    url = stack.reachable(had["APIUrl"], engine.settings["AWS_ENDPOINT_URL"])
    assert parameters(engine, "both")["RequestBurst"] == "7"
    given = {"Store": "both", "StoreUrl": url, "RequestBurst": "7", "Fails": "false"}
    assert parameters(engine, "both-fake") == given
    email = {"AlarmEmail": "who@example.com"}
    assert parameters(engine, "both-alarms") == {"Store": "both", "WatchTable": "false"} | email
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


def test_a_stack_that_has_the_name_of_an_add_on_is_left_alone(engine, fake):
    (fake.parent / "queue.yml").write_text("Description: a queue\nResources:\n Queue: {Type: AWS::SQS::Queue}\n")
    create(engine, "near-fake", fake.parent / "queue.yml", {})
    with pytest.raises(stack.StackError, match="^Stack near-fake is of another template than .*fake.yml: "):
        addons.deploy("near", TEMPLATE, ["fake"], {})
    assert status(engine, "near") is None
    addons.deploy("near", TEMPLATE, [], {})
    addons.teardown("near", TEMPLATE, export=False)
    assert status(engine, "near-fake") == "CREATE_COMPLETE"


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


def test_an_add_on_whose_creation_failed_goes_too(engine, fake, monkeypatch):
    """It imports nothing on AWS; the engine lists it all the same."""
    monkeypatch.setattr(addons, "importers", lambda *_: set())
    with pytest.raises(stack.StackError, match="Stack torn-fake is in status ROLLBACK_COMPLETE"):
        addons.deploy("torn", TEMPLATE, ["fake"], {"Fails": "true"})
    addons.teardown("torn", TEMPLATE, export=False)
    assert (status(engine, "torn"), status(engine, "torn-fake")) == (None, None)


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


def test_with_a_protected_table_no_add_on_goes(engine, fake):
    addons.deploy("safe", TEMPLATE, ["fake"], {"DeletionProtection": "true"})
    with pytest.raises(stack.StackError, match="^Table of stack safe is protected from deletion"):
        addons.teardown("safe", TEMPLATE)
    assert status(engine, "safe-fake") == "CREATE_COMPLETE"
    addons.deploy("safe", TEMPLATE, [], {"DeletionProtection": "false"})
    addons.teardown("safe", TEMPLATE, export=False)


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


# --- The commands


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
    assert (code, printed.splitlines()[0]) == (2, "There is no add-on pages; there are alarms, page.")
    assert "Add-on       made-so-page, CREATE_COMPLETE" in make(engine, "status", "STACK=made-so")[1]
    assert make(engine, "teardown", "STACK=made-so", "EXPORT=no")[0] == 0
    for name in ("made-so", "made-so-page", "made-so-alarms"):
        described = aws(engine, *f"cloudformation describe-stacks --stack-name {name}".split(), fails=True)
        assert "does not exist" in described


def test_help_lists_the_add_ons(engine):
    said = " ".join(" ".join(succeeds(engine, "--help")).split())
    assert f"deploy this add-on too ({', '.join(path.stem for path in ADDONS)}); others" in said
