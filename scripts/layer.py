"""Pillow as a layer for Lambda: made of the wheel that requirements.txt pins, published once, found, and deleted.

A template that needs it has the parameter PillowLayer, which takes the layer's
ARN. On the local engine, functions have the Pillow of .venv.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import boto3
import yaml

import embed
import stack
from stack import StackError

# --- Settings

PARAMETER = "PillowLayer"
NAME = "apidb-pillow"
# Of the function that uses it. Amazon Linux 2023, on which that runs, has glibc 2.34, so a wheel for 2.28 fits.
RUNTIME, ARCHITECTURE, PLATFORM = "python3.14", "arm64", "manylinux_2_28_aarch64"

# --- Making it


def requirement():
    """Return the version of Pillow that requirements.txt pins, and its lines there, with the hashes of the wheels."""
    text = (embed.ROOT / "requirements.txt").read_text()
    lines = re.search(r"^pillow==(\S+)(?: \\\n +--hash=\S+)+\n", text, re.M)
    return lines[1], lines[0]


def downloaded(lines, folder):
    """Download the wheel of Pillow that these lines pin; return its path in this folder, StackError if that fails."""
    asked = Path(folder, "pillow.txt")
    asked.write_text(lines)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    of = ["--only-binary=:all:", "--platform", PLATFORM, "--python-version", RUNTIME.removeprefix("python")]
    done = subprocess.run(
        [*pip, *of, "--require-hashes", "--requirement", asked, "--dest", folder], capture_output=True, text=True
    )
    if done.returncode:
        raise StackError(f"Pillow cannot be downloaded, so there is no layer to publish:\n{done.stderr.strip()}")
    (wheel,) = Path(folder).glob("*.whl")
    return wheel


def zipped(wheel):
    """Return the bytes of a layer with the files of a wheel, which are below python/, where Lambda's Python looks."""
    file = BytesIO()
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as layer:
        for each in source.infolist():
            member = zipfile.ZipInfo(f"python/{each.filename}", each.date_time)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16  # a function runs as a user that owns nothing of it
            layer.writestr(member, source.read(each))
    return file.getvalue()


# --- Publishing, finding, deleting it


def versions(client):
    """Yield the ARN and the description of each version of the layer, the newest first."""
    for page in client.get_paginator("list_layer_versions").paginate(LayerName=NAME):
        for each in page["LayerVersions"]:
            yield each["LayerVersionArn"], each.get("Description")


def published(client):
    """Return the ARN of the layer with the Pillow of now; it is made and published if the account has none."""
    version, lines = requirement()
    description = f"Pillow {version} for {RUNTIME} on {ARCHITECTURE}"
    for arn, described in versions(client):
        if described == description:
            return arn
    with tempfile.TemporaryDirectory() as folder:
        content = zipped(downloaded(lines, folder))
    print(f"Publishing layer {NAME} ({description}, {len(content) / 1e6:.1f} MB)", flush=True)
    # Sent directly it may have 50 MB (Lambda quotas).
    return client.publish_layer_version(
        LayerName=NAME,
        Description=description,
        Content={"ZipFile": content},
        CompatibleRuntimes=[RUNTIME],
        CompatibleArchitectures=[ARCHITECTURE],
        LicenseInfo="MIT-CMU",
    )["LayerVersionArn"]


def parameters(declared, given):
    """Return the parameters for a template that declares these: those given, and the layer's ARN if it takes one.

    StackError if the layer has to be made, and cannot.
    """
    if PARAMETER not in declared or PARAMETER in given:
        return given
    client = boto3.client("lambda")
    return given if stack.is_local(client.meta.endpoint_url) else given | {PARAMETER: published(client)}


def used(client):
    """Return the ARNs of all layers that functions of the account use in this region."""
    pages = client.get_paginator("list_functions").paginate()
    functions = [function for page in pages for function in page["Functions"]]
    return {layer["Arn"] for function in functions for layer in function.get("Layers", [])}


def offer_deletion(template, yes=False):
    """After the stack of a template is gone, offer to delete the layer, as far as no function uses it.

    With `yes` it is deleted; who cannot be asked is told how to.
    """
    client = boto3.client("lambda")
    takes_it = embed.child(yaml.compose(template.read_text()), "Parameters", PARAMETER)
    if not takes_it or stack.is_local(client.meta.endpoint_url):
        return
    in_use = used(client)
    for arn in [arn for arn, _ in versions(client) if arn not in in_use]:
        number = arn.split(":")[-1]
        print(f"Layer {arn} is used by no function. It costs nothing but the account's 75 GB for code.", flush=True)
        if yes or (sys.stdin.isatty() and input("Delete it (yes or no)? ").strip() == "yes"):
            client.delete_layer_version(LayerName=NAME, VersionNumber=int(number))
            print("It is deleted.")
        else:
            print(f"To delete it: aws lambda delete-layer-version --layer-name {NAME} --version-number {number}")
