"""The layer with Pillow: made of a wheel, published once, given to the stack, deleted when nothing uses it; on moto."""

import hashlib
import io
import re
import zipfile
from types import SimpleNamespace

import boto3
import pytest
from botocore.client import BaseClient
from moto import mock_aws

import addons
import deploying
import layer
from conftest import ROOT
from stack import StackError
from stacks import template_of

IMAGES = ROOT / "stacks" / "images.yml"


@pytest.fixture
def wheel(tmp_path):
    """A wheel as there is one of Pillow for each system, with a module that is not for this one."""
    path = tmp_path / "pillow-13.0.0-cp314-cp314-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("PIL/__init__.py", "")
        file.writestr("PIL/_imaging.cpython-314-aarch64-linux-gnu.so", b"\x7fELF")
        file.writestr("pillow-13.0.0.dist-info/METADATA", "Metadata-Version: 2.4\nName: pillow\nVersion: 13.0.0\n")
        file.writestr("pillow-13.0.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        file.writestr("pillow-13.0.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def client(monkeypatch, wheel):
    """A client of Lambda in an account without layers, for whose Pillow the wheel is taken."""
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(layer, "downloaded", lambda lines, folder: wheel)
    with mock_aws():
        yield boto3.client("lambda")


def function_with(client, arn):
    role = boto3.client("iam").create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    of = {"FunctionName": "f", "Role": role, "Runtime": "python3.12", "Handler": "i.h", "Layers": [arn]}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("i.py", "")
    client.create_function(**of, Code={"ZipFile": content.getvalue()})


# --- Made


def test_what_the_layer_is_for_is_what_the_function_is():
    function = template_of("images")["Resources"]["Thumbnails"]["Properties"]
    assert (function["Runtime"], function["Architectures"]) == (layer.RUNTIME, [layer.ARCHITECTURE])
    assert layer.PARAMETER in template_of("images")["Parameters"]


def test_the_pinned_pillow_is_asked_for_with_its_hashes():
    version, lines = layer.requirement()
    assert re.search(rf"^pillow=={re.escape(version)}\s", (ROOT / "requirements.in").read_text(), re.M)
    assert lines.startswith(f"pillow=={version} \\\n") and lines.count("--hash=sha256:") > 20
    assert len(re.findall("^[a-z]", lines, re.M)) == 1, "of Pillow only"


def test_a_wheel_for_lambda_is_downloaded_by_its_hash(tmp_path, wheel, monkeypatch):
    """From a folder here; pip takes the one for Lambda, on whatever system it runs."""
    for name in ("cp314-cp314-manylinux_2_28_x86_64", "cp313-cp313-manylinux_2_28_aarch64"):
        (tmp_path / f"pillow-13.0.0-{name}.whl").write_bytes(b"")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    folder = tmp_path / "new"
    folder.mkdir()
    with pytest.raises(StackError, match="Pillow cannot be downloaded(?s:.*)(DO NOT MATCH|hash)"):
        layer.downloaded(layer.requirement()[1], folder)
    of = hashlib.sha256(wheel.read_bytes()).hexdigest()
    found = layer.downloaded(f"pillow==13.0.0 \\\n    --hash=sha256:{of}\n", folder)
    assert found == folder / wheel.name


def test_the_files_of_the_wheel_are_below_python(wheel):
    with zipfile.ZipFile(io.BytesIO(layer.zipped(wheel))) as content, zipfile.ZipFile(wheel) as source:
        assert content.namelist() == [f"python/{name}" for name in source.namelist()]
        for each in content.infolist():
            assert each.external_attr >> 16 == 0o644, "anyone may read it"
            assert content.read(each) == source.read(each.filename.removeprefix("python/"))


# --- Published and given


def test_the_layer_is_published_once(client, capsys):
    arn = layer.parameters({"Access", "PillowLayer"}, {"Access": "iam"})
    assert arn == {"Access": "iam", "PillowLayer": arn["PillowLayer"]}
    found = client.get_layer_version(LayerName="apidb-pillow", VersionNumber=1)
    assert (found["CompatibleRuntimes"], found["Description"].split()[0]) == (["python3.14"], "Pillow")
    assert "Publishing layer apidb-pillow (Pillow" in capsys.readouterr().out
    assert layer.parameters({"PillowLayer"}, {}) == {"PillowLayer": arn["PillowLayer"]}
    assert capsys.readouterr().out == "" and len(list(layer.versions(client))) == 1


def test_another_pillow_is_another_version(client, monkeypatch):
    first = layer.published(client)
    monkeypatch.setattr(layer, "requirement", lambda: ("99.0.0", ""))
    second = layer.published(client)
    assert (first.split(":")[-1], second.split(":")[-1]) == ("1", "2")


def test_who_gives_a_layer_or_needs_none_gets_none(client):
    assert layer.parameters({"PillowLayer"}, {"PillowLayer": "arn"}) == {"PillowLayer": "arn"}
    assert layer.parameters({"Access"}, {}) == {}
    assert list(layer.versions(client)) == []


def test_the_local_engine_needs_none(client, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert layer.parameters({"PillowLayer"}, {}) == {}
    layer.offer_deletion(IMAGES, yes=True)  # which would ask there


def test_deploying_gives_the_stack_the_layer(client, monkeypatch):
    given = {}
    monkeypatch.setattr(addons.stack, "describe", lambda *_: None)
    monkeypatch.setattr(deploying, "deploy", lambda name, path, parameters, yes: given.update(parameters) or {})
    valid = [{"ParameterKey": name} for name in template_of("images")["Parameters"]]
    with monkeypatch.context() as patched:
        validated = {"Parameters": valid, "Description": "images, and more"}
        patched.setattr(BaseClient, "_make_api_call", answering(validated))
        addons.deploy("images", IMAGES, [], {"UploadSeconds": "60"})
    (arn,) = [arn for arn, _ in layer.versions(client)]
    assert given == {"UploadSeconds": "60", "PillowLayer": arn}


def answering(validated):
    """Return what answers the one call that moto cannot, with the form of this template."""
    call = BaseClient._make_api_call

    def answer(self, operation, request):
        return validated if operation == "ValidateTemplate" else call(self, operation, request)

    return answer


# --- Deleted


def test_a_layer_that_no_function_uses_is_deleted_if_wanted(client, capsys, monkeypatch):
    arn = layer.published(client)
    layer.offer_deletion(ROOT / "stacks" / "pets.yml", yes=True)
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO())
    layer.offer_deletion(IMAGES)
    printed = capsys.readouterr().out
    command = "aws lambda delete-layer-version --layer-name apidb-pillow --version-number 1"
    assert arn in printed and f"To delete it: {command}\n" in printed
    assert len(list(layer.versions(client))) == 1, "who cannot be asked keeps it"
    layer.offer_deletion(IMAGES, yes=True)
    assert list(layer.versions(client)) == []


@pytest.mark.parametrize(("said", "left"), [("yes", 0), ("no", 1), ("", 1)])
def test_at_a_terminal_one_is_asked(client, monkeypatch, said, left):
    layer.published(client)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda prompt: said)
    layer.offer_deletion(IMAGES)
    assert len(list(layer.versions(client))) == left


def test_a_layer_that_a_function_uses_is_kept(client, capsys):
    function_with(client, layer.published(client))
    layer.offer_deletion(IMAGES, yes=True)
    assert len(list(layer.versions(client))) == 1
    assert "used by no function" not in capsys.readouterr().out


# --- By hand


def test_the_readme_pins_the_same_pillow():
    (command,) = re.findall(r"^pip download .*$", (ROOT / "stacks" / "README.md").read_text(), re.M)
    assert command.endswith(f"pillow=={layer.requirement()[0]}")
    assert layer.PLATFORM in command and "--python-version 3.14" in command
