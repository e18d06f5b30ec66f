"""The commands of the Makefile with another template than the store's: tests/zoo.yml, which has two functions,
a table with a number as its key, a bucket and a queue."""

import json
import re
import subprocess
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
import yaml
from cfnlint.decode import decode
from moto import mock_aws

import addons
import contents
import deleting
import embed
import logs
import show
import stack
import test_scripts
from conftest import ROOT, TEMPLATE, plain, resource_ids
from test_scripts import Program, here, listens, make, manage_py, run, script, succeeds

ZOO = ROOT / "tests" / "zoo.yml"
TEMPLATES = [TEMPLATE, ZOO, *sorted(ROOT.glob("addons/*.yml")), *sorted(ROOT.glob("stacks/*.yml"))]
PARTS = "Method Resource Deployment Stage GatewayResponse RequestValidator Model UsagePlanKey".split()
PARTS = {f"AWS::ApiGateway::{part}" for part in PARTS} | {"AWS::Lambda::Permission", "AWS::Lambda::EventInvokeConfig"}
PARTS |= {"AWS::IAM::Policy", "AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy"}


def described(template):
    return embed.child(yaml.compose(template.read_text()), "Description").value


# --- Names


def test_each_template_is_known_by_something_else():
    assert stack.known_by(described(TEMPLATE)) == stack.STORE
    assert len({stack.known_by(described(template)) for template in TEMPLATES}) == len(TEMPLATES)


@pytest.mark.parametrize(
    "name, template, words",
    [
        ("apidb", "setupapidb.yml", "STACK=apidb"),
        ("mine", ROOT / "setupapidb.yml", "STACK=mine"),
        ("mine-page", "addons/page.yml", "STACK=mine-page"),
        ("pets", "stacks/pets.yml", "TEMPLATE=stacks/pets.yml"),
        ("mine", "stacks/pets.yml", "TEMPLATE=stacks/pets.yml STACK=mine"),
    ],
)
def test_make_is_told_a_stack_so_that_it_finds_it(monkeypatch, name, template, words):
    monkeypatch.chdir(ROOT)
    assert stack.which(name, Path(template)) == words


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_each_kind_of_resource_is_looked_for_or_part_of_one(template):
    content, problems = decode(str(template))
    assert not problems
    assert {each["Type"] for each in plain(content)["Resources"].values()} <= deleting.LOOKUPS.keys() | PARTS


# --- From deployment to teardown


@pytest.fixture(scope="module")
def zoo(engine):
    """The resources of a stack, deployed by make, and what that printed."""
    code, printed = make(engine, "deploy", "TEMPLATE=tests/zoo.yml")
    assert code == 0, printed
    return resource_ids(engine, "zoo"), printed


def client(engine, service):
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    return boto3.client(service, endpoint_url=engine.settings["AWS_ENDPOINT_URL"], **keys)


def typed(printed, settings):
    """Run the commands that a deployment printed to try, in one shell; return what the last one printed."""
    tried = printed.partition("Try it:\n\n")[2].partition("\n\n")[0]
    done = subprocess.run(["sh", "-ec", tried], env=settings, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_deployment_prints_what_its_template_says_to_try(engine, zoo, curl):
    _, printed = zoo
    assert printed.startswith(f"Creating stack zoo {here(engine)}\n")
    assert "page" not in printed
    assert typed(printed, engine.settings) == '{"id": 7}'


def test_status_and_logs_know_all_functions_and_what_is_stored(engine, zoo, curl, tmp_path):
    ids, printed = zoo
    typed(printed, engine.settings)
    client(engine, "s3").put_object(Bucket=ids["Bucket"], Key="a", Body=b"b")
    client(engine, "sqs").send_message(QueueUrl=ids["Queue"], MessageBody="-")
    client(engine, "lambda").invoke(FunctionName=ids["Keeper"], Payload=b'{"animal": "yeti"}')
    code, printed = make(engine, "status", "TEMPLATE=tests/zoo.yml")
    assert code == 0, printed
    assert "Stack        zoo, in us-east-1\nStatus       CREATE_COMPLETE\n" in printed
    assert "\nItems        1\nObjects      1 in Bucket\nMessages     1 in Queue\n" in printed
    assert printed.endswith(" UTC  Keeper  No yeti here\n")

    log = Program(["make", "logs", "TEMPLATE=tests/zoo.yml"], tmp_path, engine.settings, cwd=ROOT)
    log.until(' UTC  Keeper: {"level": "ERROR", "error": "No yeti here"}').until(' UTC  Function: {"level": "INFO"')
    client(engine, "lambda").invoke(FunctionName=ids["Keeper"], Payload=b'{"animal": "unicorn"}')
    log.until("No unicorn here").stop()
    assert log.printed.count("No yeti here") == 1
    assert log.printed.startswith("The logs ")
    assert "Traceback" not in log.printed


def test_a_function_without_a_log_group_of_its_own_logs_to_that_of_lambda(monkeypatch):
    """The engine always tells the group, but an older function on AWS may have none set."""
    told = {
        "a-1": {"LoggingConfig": {"LogGroup": "shared"}},
        "b-1": {"LoggingConfig": {"LogGroup": "shared"}},
        "c-1": {},
    }
    asked = SimpleNamespace(get_function_configuration=lambda FunctionName: told[FunctionName])
    asked.exceptions = SimpleNamespace(ResourceNotFoundException=KeyError)
    monkeypatch.setattr(boto3, "client", lambda _: asked)
    functions = [(stack.FUNCTION, each.upper(), f"{each}-1") for each in "abcd"]  # the last of which somebody deleted
    had = [(stack.LOG, "Shared", "shared"), (stack.LOG, "Access", "of-api"), (stack.TABLE, "T", "t"), *functions]
    assert logs.log_groups(had) == {"shared": "A B", "of-api": "Access", "/aws/lambda/c-1": "C"}


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["Access=key"], "There is no parameter Access: tests/zoo.yml has Greeting.\n"),
        (["--addon", "page"], "Only a link store has add-ons, and tests/zoo.yml is none: leave out ADDONS.\n"),
    ],
)
def test_what_a_template_has_not_is_refused_by_name(engine, arguments, sentence):
    given = ["deploy", "--template", "tests/zoo.yml", "--stack", "refused", *arguments]
    assert run(engine, manage_py(*given)) == (1, sentence)


def test_a_stack_of_it_is_no_store(engine, zoo):
    code, printed = script(engine, "teardown", "--stack", "zoo")
    assert (code, printed.startswith("Stack zoo is of another template than setupapidb.yml: ")) == (1, True)


def test_teardown_leaves_items_asks_about_objects_and_leaves_nothing_else(engine, zoo, tmp_path):
    ids, _ = zoo
    table, s3 = client(engine, "dynamodb"), client(engine, "s3")
    for number in range(3):
        table.put_item(TableName=ids["Table"], Item={"id": {"N": f"{number}"}, "name": {"S": "\u00e4" * number}})
    for number in range(3):
        s3.put_object(Bucket=ids["Bucket"], Key=f"a/{number}", Body=b"b")
    count = len(s3.list_objects_v2(Bucket=ids["Bucket"])["Contents"])
    teardown = manage_py("teardown", "--template", ZOO)
    code, printed = run(engine, teardown, tmp_path)
    assert (code, list(tmp_path.iterdir())) == (1, [])
    assert printed == (
        f"Bucket {ids['Bucket']} has {count} objects, which are deleted.\n"
        "Nothing is deleted. To have it so, add YES=1 to the same command.\n"
    )
    assert len(s3.list_objects_v2(Bucket=ids["Bucket"])["Contents"]) == count

    code, printed = run(engine, [*teardown, "--yes"], tmp_path)
    lines = printed.splitlines()
    assert code == 0, printed
    (path,) = tmp_path.glob("zoo-Table-*Z.jsonl")
    assert lines[1].startswith(f"{path.name} has the items, ")
    assert lines[2] == f"Emptying bucket {ids['Bucket']}"
    assert "Nothing is left of stack zoo." in lines
    items = {item["id"]: item for item in map(json.loads, path.read_text().splitlines())}
    assert items.items() >= {number: {"id": number, "name": "\u00e4" * number} for number in range(3)}.items()
    assert ids["Bucket"] not in [each["Name"] for each in s3.list_buckets()["Buckets"]]
    again = ["git", "check-ignore", path.name]
    assert subprocess.run(again, cwd=ROOT, capture_output=True).returncode == 0, "no export is committed by mistake"


def test_a_bucket_or_a_queue_that_stays_is_listed(engine, tmp_path):
    kept = tmp_path / "stays.yml"
    text = ZOO.read_text().replace("AWS::SQS::Queue\n", "AWS::SQS::Queue\n    DeletionPolicy: Retain\n")
    kept.write_text(text.replace("Bucket\n    DeletionPolicy: Delete", "Bucket\n    DeletionPolicy: Retain"))
    succeeds(engine, "deploy", "--template", kept, folder=ROOT)
    ids, s3 = resource_ids(engine, "stays"), client(engine, "s3")
    s3.put_object(Bucket=ids["Bucket"], Key="a", Body=b"b")
    lines = succeeds(engine, "teardown", "--template", kept, folder=ROOT)
    left = [f"  AWS::S3::Bucket          {ids['Bucket']}", f"  AWS::SQS::Queue          {ids['Queue']}"]
    assert (lines[0], lines[-4:-1]) == ("There are no items to export.", ["Left of stack stays:", *left])
    assert s3.get_object(Bucket=ids["Bucket"], Key="a")["Body"].read() == b"b", "what stays is not emptied"
    s3.delete_object(Bucket=ids["Bucket"], Key="a")
    s3.delete_bucket(Bucket=ids["Bucket"])
    client(engine, "sqs").delete_queue(QueueUrl=ids["Queue"])


@pytest.mark.parametrize("template", sorted(ROOT.glob("stacks/*.yml")), ids=lambda path: path.stem)
def test_each_system_is_deployed_tried_and_torn_down(engine, curl, tmp_path, template):
    """With signed requests, as its lines are printed then, and with its table protected at first."""
    given = ["--template", template, "--stack", f"whole-{template.stem}"]
    code, printed = run(engine, manage_py("deploy", *given, "Access=iam", "DeletionProtection=true"))
    assert code == 0, printed
    tried = typed(printed, engine.settings)
    assert tried and "Error" not in tried, tried
    code, printed = run(engine, manage_py("status", *given))
    assert (code, "\nItems " in printed, "Errors       none" in printed) == (0, True, True), printed

    code, printed = run(engine, manage_py("teardown", *given, "--yes"), tmp_path)
    assert (code, list(tmp_path.iterdir())) == (1, [])
    (which,) = re.findall(
        '^  make deploy (.*) PARAMETERS="DeletionProtection=false" && make teardown (.*)$', printed, re.M
    )
    assert which == (f"TEMPLATE={template} STACK=whole-{template.stem}",) * 2
    code, printed = run(engine, manage_py("deploy", *given, "DeletionProtection=false"))
    assert code == 0, printed
    code, printed = run(engine, manage_py("teardown", *given, "--yes"), tmp_path)
    assert (code, f"\nNothing is left of stack whole-{template.stem}.\n" in printed) == (0, True), printed
    (path,) = tmp_path.iterdir()
    assert [json.loads(line) for line in path.read_text().splitlines()]


# --- What to try


@pytest.mark.parametrize(
    "line, access, printed",
    [
        ("curl $API/1", "open", "curl URL/1"),
        ("curl $API/1", "iam", "curl SIGNED URL/1"),
        ("id=$(curl -s $API | tr -d a)", "iam", "id=$(curl SIGNED -s URL | tr -d a)"),
        ('curl -T a -H "b: c" "$url"', "iam", 'curl -T a -H "b: c" "$url"'),
        ("echo $APIS", "iam", "echo $APIS"),
        ('curl -d \'{"a": "$API\\1"}\' $API', "key", 'curl KEY -d \'{"a": "URL\\1"}\' URL'),
        ("curl $API", "key", "curl KEY URL"),
        ("curl $API", "read", "curl URL"),
        ("curl -X DELETE $API/1", "read", "curl KEY -X DELETE URL/1"),
    ],
)
def test_a_line_gets_the_url_and_the_options_of_the_access(tmp_path, monkeypatch, capsys, line, access, printed):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setattr(show, "signature", lambda _: " SIGNED")
    template = tmp_path / "a.yml"
    template.write_text(f"Metadata:\n  Try: |\n    {line}\n")
    key = {"ApiKeyId": "k"} if access in ("key", "read") else {}
    show.show({"APIUrl": "https://a", "Access": f"{access}: anyone"} | key, template)
    (last,) = capsys.readouterr().out.rstrip().splitlines()[-1:]
    assert last == "  " + printed.replace("KEY", '-H "x-api-key: $APIDB_KEY"').replace("URL", "https://a")


def test_a_template_may_say_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    template = tmp_path / "a.yml"
    template.write_text("Description: a\n")
    show.show({"APIUrl": "https://a"}, template)
    assert capsys.readouterr().out == "\nThe API is at https://a\n\n"


# --- What a stack holds, on moto


@pytest.fixture
def moto(monkeypatch):
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with mock_aws():
        yield


def test_all_items_are_exported_with_values_of_each_type(moto, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = {"AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "N"}], "BillingMode": "PAY_PER_REQUEST"}
    given |= {"TableName": "t", "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}]}
    boto3.client("dynamodb").create_table(**given)
    table = boto3.resource("dynamodb").Table("t")
    values = {
        "whole": Decimal("12345678901234567890123456789012345678"),
        "large": Decimal("1E+30"),
        "part": Decimal("-0.25"),
        "long": Decimal("0.12345678901234567890123456789012345678"),
        "bytes": b"\x00\xff",
        "words": {"b", "a"},
        "numbers": {Decimal(10), Decimal("9.5"), Decimal("0.12345678901234567890123456789012345678")},
        "blobs": {b"\x02", b"\x01"},
        "deep": {"list": [1, None, True, {"a": "\u00e4\u2028"}]},
    }
    table.put_item(Item={"id": 1} | values)
    with table.batch_writer() as batch:
        for number in range(2, 32):  # more than a page of 1 MB
            batch.put_item(Item={"id": number, "text": "x" * 100_000})
    there = {"StackName": "mine", "Description": "zoo, a template"}
    contents.export(there, "Table", "t", "TEMPLATE=a")
    (path,) = tmp_path.iterdir()
    items = {item["id"]: item for item in map(json.loads, path.read_text().split("\n")[:-1])}
    assert items.keys() == set(range(1, 32))
    assert items[1] == {
        "id": 1,
        "whole": 12345678901234567890123456789012345678,
        "large": 10**30,
        "part": -0.25,
        "long": "0.12345678901234567890123456789012345678",
        "bytes": "AP8=",
        "words": ["a", "b"],
        "numbers": ["0.12345678901234567890123456789012345678", 9.5, 10],
        "blobs": ["AQ==", "Ag=="],
        "deep": {"list": [1, None, True, {"a": "\u00e4\u2028"}]},
    }


def test_a_table_that_cannot_be_read_stops_the_teardown(moto, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    there = {"StackName": "mine", "Description": "zoo, a template"}
    with pytest.raises(stack.StackError) as error:
        contents.export(there, "Table", "gone", "TEMPLATE=a.yml STACK=mine")
    first, second = str(error.value).splitlines()
    assert first.startswith("The items could not be exported, so nothing is deleted: ")
    assert second == "To delete them without an export: make teardown TEMPLATE=a.yml STACK=mine EXPORT=no"
    assert list(tmp_path.iterdir()) == []


def test_a_full_bucket_is_counted_and_emptied_with_all_versions(moto, capsys):
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="full")
    for number in range(2_500):
        s3.put_object(Bucket="full", Key=f"images/{number}", Body=b"-")
    template = "Resources:\n  Full: {Type: 'AWS::S3::Bucket'}\n  Kept: {DeletionPolicy: Retain}\n"
    there, told = {"StackId": "id"}, SimpleNamespace(get_template=lambda StackName: {"TemplateBody": template})
    had = [(stack.BUCKET, "Full", "full"), (stack.BUCKET, "Kept", "full"), (stack.BUCKET, "Gone", "nowhere")]
    assert contents.objects_in("full") == "2,500"
    assert contents.buckets_to_empty(told, there, had) == {"full": "2,500 objects"}
    s3.put_bucket_versioning(Bucket="full", VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket="full", Key="images/0", Body=b"again")
    s3.delete_object(Bucket="full", Key="images/1")
    assert contents.buckets_to_empty(told, there, had) == {"full": "2,499 objects in 2,502 versions"}
    contents.empty("full")
    assert contents.buckets_to_empty(told, there, had) == {}
    assert s3.list_object_versions(Bucket="full").keys().isdisjoint({"Versions", "DeleteMarkers"})
    s3.delete_bucket(Bucket="full")
    assert capsys.readouterr().out == "Emptying bucket full\n"


def test_an_object_that_cannot_be_deleted_stops_the_teardown(moto, monkeypatch):
    monkeypatch.setattr(contents, "versions_of", lambda _: iter([[{"Key": "a", "VersionId": "null"}]]))
    refused = {"Errors": [{"Key": "a", "Message": "Access\x1b Denied"}]}
    monkeypatch.setattr(boto3, "client", lambda _: SimpleNamespace(delete_objects=lambda **_: refused))
    with pytest.raises(stack.StackError, match=r"^a in bucket b cannot be deleted, .*: Access\? Denied$"):
        contents.empty("b")


def test_many_objects_are_counted_about(moto, monkeypatch):
    monkeypatch.setattr(contents, "COUNTED_PAGES", 1)
    boto3.client("s3").create_bucket(Bucket="many")
    for number in range(1_001):
        boto3.client("s3").put_object(Bucket="many", Key=f"{number}", Body=b"")
    assert contents.objects_in("many") == "more than 1,000"
    assert contents.objects_in("nowhere") == "0"


# --- make run

runs = test_scripts.runs


def test_run_keeps_objects_and_takes_another_stack_while_it_runs(runs, curl):
    first = runs(arguments=["TEMPLATE=tests/zoo.yml"]).until("Ctrl-C stops it.")
    assert typed(first.printed, None) == '{"id": 7}'
    engine = SimpleNamespace(settings={"AWS_ENDPOINT_URL": f"http://127.0.0.1:{first.port}"})
    bucket = bucket_of(engine, "zoo")
    client(engine, "s3").put_object(Bucket=bucket, Key="a/b", Body=b"kept", ContentType="image/png")

    beside = runs("beside", arguments=[f"STATE={first.folder}/state", "PORT=", "ADDONS="])
    assert beside.process.wait(60) == 0, beside.printed
    assert "Creating stack apidb" in beside.printed
    assert "It is on the engine that runs already" in beside.printed
    assert f".localhost:{first.port}/prod/link" in beside.commands[0]
    listed = subprocess.run(beside.commands[1], shell=True, capture_output=True, text=True, check=True).stdout
    assert json.loads(listed) == []
    first.stop()
    assert not listens(first.port)

    again = runs(port=first.port, arguments=["TEMPLATE=tests/zoo.yml"]).until("Ctrl-C stops it.")
    assert "Stack zoo is up to date" in again.printed
    assert f"Stack apidb is here too, at {beside.commands[1].split()[-1]}" in again.printed
    found = client(engine, "s3").get_object(Bucket=bucket, Key="a/b")
    assert (found["Body"].read(), found["ContentType"]) == (b"kept", "image/png")
    assert typed(again.printed, None) == '{"id": 7}'


def bucket_of(engine, name):
    listed = client(engine, "cloudformation").list_stack_resources(StackName=name)["StackResourceSummaries"]
    (bucket,) = [each["PhysicalResourceId"] for each in listed if each["ResourceType"] == stack.BUCKET]
    return bucket


def test_presets_are_given_only_to_templates_that_have_them(monkeypatch, engine):
    for key, value in engine.settings.items():
        monkeypatch.setenv(key, value)
    given = {}
    monkeypatch.setattr(addons.deploying, "deploy", lambda name, path, values, yes: given.update({name: values}) or {})
    presets = {"Greeting": "hi", "RequestBurst": "5"}
    addons.deploy("a", ZOO, [], {}, presets=presets)
    addons.deploy("b", ZOO, [], {"Greeting": "ho"}, presets=presets)
    addons.deploy("c", TEMPLATE, [], {}, presets=presets)
    assert given == {"a": {"Greeting": "hi"}, "b": {"Greeting": "ho"}, "c": {"RequestBurst": "5"}}
