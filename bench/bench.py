"""Compare the handler with others of the same two operations, and print tables of ratios.

Each round starts each handler in a process of its own, once over HTTP and
once over TLS, on a stand-in for DynamoDB that answers at once. A figure is
divided by that of the textbook's handler in the same round; printed are the
median of these ratios and their quartiles.
"""

import argparse
import contextlib
import datetime
import inspect
import ipaddress
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import uuid
from pathlib import Path

import botocore
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import embed

HERE = Path(__file__).parent
ROOT = HERE.parent
BASE = "textbook"
# What a file calls the function that Lambda is to call.
NAMES = {"apidb": "lambda_handler", BASE: "lambda_handler", "powertools": "lambda_handler"}
NAMES |= {"fastapi": "handler", "chalice": "app"}
SETTINGS = {
    "ACCESS": "open",
    "ALLOWED_ORIGIN": "*",
    "COUNT_VISITS": "true",
    "INDEX": "index",
    "STACK": "apidb",
    "STACK_ID": "arn:aws:cloudformation:us-east-1:123456789012:stack/apidb",
    "VERSION": "1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    # Lambda cannot keep the compiled form of inline code, and writes each line of the log at once.
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
# A record of 80 + 60 characters and three tags, and one with all that a POST may bring along.
TYPICAL = {"link": f"https://example.com/{'%04d':0>60}", "title": "t" * 60, "tags": ["web", "history", "links"]}
FULL = TYPICAL | {"notes": "n" * 100, "expires_at": "2099-12-31T23:59:59Z", "created_at": "2020-01-01T00:00:00Z"}
FULL |= {"visits": 7, "visited_at": "2020-02-01T00:00:00Z"}

# --- What the handlers need


def events(fields):
    """Return a POST and a list as API Gateway sends them, so that each peer's router takes them."""
    event = json.loads((ROOT / "tests" / "events" / "get.json").read_text())
    context = event["requestContext"] | {"resourcePath": "/link"}
    event |= {"resource": "/link", "pathParameters": None, "requestContext": context}
    event["multiValueHeaders"] |= {"Content-Type": ["application/json"]}
    event["headers"] = {name: values[-1] for name, values in event["multiValueHeaders"].items()}
    posted = {"httpMethod": "POST", "requestContext": context | {"httpMethod": "POST"}, "body": json.dumps(fields)}
    return event | posted, event


def certificate(folder):
    """Write a certificate of this host that signs itself, and a bundle of CAs with it; return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "apidb bench")])
    now = datetime.datetime.now(datetime.timezone.utc)
    use = dict.fromkeys(inspect.signature(x509.KeyUsage).parameters, False)
    extensions = {
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]): False,
        x509.BasicConstraints(ca=True, path_length=0): True,
        x509.KeyUsage(**use | {"digital_signature": True, "key_cert_sign": True}): True,
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()): False,
    }
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    for extension, critical in extensions.items():
        builder = builder.add_extension(extension, critical)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    both, bundle = folder / "certificate.pem", folder / "bundle.pem"
    both.write_bytes(pem + key.private_bytes(*plain))
    # On AWS the whole of botocore's bundle is read, which is most of the first request.
    bundle.write_bytes((Path(botocore.__file__).parent / "cacert.pem").read_bytes() + pem)
    return both, bundle


@contextlib.contextmanager
def stub(core, *arguments):
    """Give the port of a stand-in for DynamoDB that runs on this core."""
    command = [sys.executable, HERE / "stub.py", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pin(process.pid, core)
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def pin(pid, core):
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(pid, {core})


def handlers(folder, names):
    """Return the file of each handler by name; apidb's is the copy in the template, written to this folder."""
    files = {name: HERE / "peers" / f"{name}.py" for name in names}
    if "apidb" in files:
        files["apidb"] = folder / "index.py"
        function = embed.resources((ROOT / "setupapidb.yml").read_text())["Function"]
        files["apidb"].write_text(embed.child(function, "Properties", "Code", "ZipFile").value)
    return files


# --- Rounds


def life(file, name, url, bundle, sent):
    """Return what worker.py tells of one life of a handler, with a table of its own."""
    with tempfile.TemporaryDirectory() as folder:
        event_file, result, log = (Path(folder) / each for each in ("events", "result", "log"))
        event_file.write_text(json.dumps(sent))
        settings = SETTINGS | {"TABLE": uuid.uuid4().hex, "AWS_ENDPOINT_URL": url, "AWS_CA_BUNDLE": str(bundle)}
        with log.open("w") as logged:
            command = [sys.executable, HERE / "worker.py", file, NAMES[name], event_file, result]
            done = subprocess.run([*command, str(time.monotonic())], env=settings, stdout=logged, stderr=logged)
        if done.returncode:
            sys.exit(f"{file} failed:\n{log.read_text()[-2000:]}")
        return json.loads(result.read_text())


def rounds(count, names, fields, report=lambda text: None):
    """Yield, for each round over HTTP and over TLS, ("HTTP" or "TLS", {name: figures of worker.py})."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        certified, bundle = certificate(Path(folder))
        files = handlers(Path(folder), names)
        urls = {"HTTP": f"http://127.0.0.1:{stack.enter_context(stub(cores[-1]))}"}
        urls["TLS"] = f"https://127.0.0.1:{stack.enter_context(stub(cores[-1], certified))}"
        pin(0, cores[0])
        stack.callback(lambda: hasattr(os, "sched_setaffinity") and os.sched_setaffinity(0, cores))
        for number in range(count):
            report(f"round {number + 1} of {count}")
            turn = number % len(names)
            for scheme, url in urls.items():
                order = names[turn:] + names[:turn]  # so that each is now first, now last
                yield scheme, {name: life(files[name], name, url, bundle, events(fields)) for name in order}


# --- Figures


def figures(lived):
    """Return the figures of a life by the head of their column; of many requests, the median."""
    return {
        "cold start, CPU": lived["cold"][0],
        "cold start, wall": lived["cold"][1],
        "first request, CPU": lived["first"][0],
        "first request, wall": lived["first"][1],
        "POST, CPU": statistics.median(lived["post"]),
        "list, CPU": statistics.median(lived["list"]),
        "log": lived["log"],
    }


def ratios(measured, base=BASE):
    """Return {name: {head: ratios to the base in the same round}} of a list of {name: {head: figure}}."""
    return {
        name: {head: [each[name][head] / each[base][head] for each in measured] for head in measured[0][name]}
        for name in measured[0]
    }


def spread(values):
    """Return the median of values and their quartiles, as text."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


# --- The report

COLD = ("cold start, CPU", "cold start, wall", "first request, CPU", "first request, wall")
WARM = ("POST, CPU", "list, CPU")
# A function gets CPU in proportion to its memory, one at 1,769 MB:
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
ONE_CPU = 1769
WAIT = 0.005  # seconds for DynamoDB and the way there, assumed


def table(head, *rows):
    """Return a Markdown table; all but the first column are figures."""
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---|" + "--:|" * (len(head) - 1), *lines[1:]])


def ratio_table(title, heads, measured):
    """Return a table of ratios, of which the textbook's row has the milliseconds that are 1."""
    of, rows = ratios(measured), []
    for name in of:
        if name == BASE:
            ms = {head: statistics.median(each[BASE][head] for each in measured) * 1000 for head in heads}
            rows.append((name, *(f"1 = {ms[head]:.2f} ms" for head in heads)))
        else:
            rows.append((name, *(spread(of[name][head]) for head in heads)))
    return table((title, *heads), *rows)


def log_table(measured):
    logged = {name: round(statistics.median(each[name]["log"] for each in measured)) for name in measured[0]}
    return table(("Log", *logged), ("bytes a request", *(f"{size:,}" for size in logged.values())))


def memory_table(measured, prices):
    """Return what memory settings make of apidb's CPU times, and what a million requests cost of that."""
    cpu = {head: statistics.median(each["apidb"][head] for each in measured) for head in (COLD[0], *WARM)}
    price = prices["price"]["lambda_gb_second"]
    second = price["usd"] / price["per"] * 1_000_000  # of a GB, a million times
    rows = []
    for megabytes in (128, 256, 512, 1024, 1769):
        share, gigabytes = megabytes / ONE_CPU, megabytes / 1024
        taken = [cpu[COLD[0]] / share, *(WAIT + cpu[head] / share for head in WARM)]
        ms = [f"{seconds * 1000:,.1f}" for seconds in taken]
        usd = [f"{seconds * gigabytes * second:.2f}" for seconds in taken]
        rows.append((str(megabytes), f"{share:.2f}", *ms, *usd))
    head = ("MB", "CPUs", "cold start, ms", "POST, ms", "list, ms")
    return table((*head, "USD a million cold starts", "POSTs", "lists"), *rows)


def measure(count, names, fields, report=lambda text: None):
    """Return {"HTTP": [...], "TLS": [...]}: of each round, {name: {head: figure}}."""
    measured = {"HTTP": [], "TLS": []}
    for scheme, lives in rounds(count, names, fields, report):
        measured[scheme].append({name: figures(lives[name]) for name in names})
    return measured


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(NAMES)}; all of them if none")
    options = parser.parse_args()
    names = [BASE, *(name for name in options.names or NAMES if name != BASE)]

    def report(text):
        if sys.stderr.isatty():
            print(f"\r{text} ", end="", file=sys.stderr, flush=True)

    typical = measure(options.rounds, names, TYPICAL, report)
    full = measure(max(options.rounds // 3, 2), [BASE, "apidb"], FULL, report) if "apidb" in names else {}
    report("")
    print(
        f"{datetime.date.today()}, {options.rounds} rounds, Python {platform.python_version()}, botocore"
        f" {botocore.__version__}, {platform.machine()}: medians of ratios, in parentheses their quartiles."
    )
    for scheme, each in typical.items():
        print("\n" + ratio_table(f"Cold, {scheme}", COLD, each))
    for scheme, each in typical.items():
        print("\n" + ratio_table(f"Warm, {scheme}", WARM, each))
    for scheme, each in full.items():
        print("\n" + ratio_table(f"Warm, {scheme}, all fields", WARM, each))
    print("\n" + log_table(typical["HTTP"]))
    if full:
        prices = tomllib.loads((ROOT / "scripts" / "prices.toml").read_text())
        print(f"\nIf a CPU of Lambda is as fast as this, and DynamoDB takes {WAIT * 1000:.0f} ms, apidb takes:\n")
        print(memory_table(typical["TLS"], prices))


if __name__ == "__main__":
    main()
