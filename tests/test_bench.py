"""The benchmark: its handlers do what is measured, and its arithmetic is right."""

import importlib.util
import json
import socket
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer

import pytest

from conftest import ROOT


def imported(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "bench" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench, stub, worker = imported("bench"), imported("stub"), imported("worker")


def run(python, *arguments):
    """Run the benchmark with as few rounds as have quartiles; return what it prints."""
    command = [python, ROOT / "bench" / "bench.py", "--rounds", "2", *arguments]
    settings = {"PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tables_have_each_handler():
    printed = run(sys.executable, "apidb")
    assert printed.count("| textbook | 1 = ") == printed.count("| apidb | ") == 6


@pytest.mark.parametrize("fields", [bench.TYPICAL, bench.FULL], ids=["typical", "full"])
def test_what_is_measured_is_stored_and_listed(fields):
    ((_, http), (_, tls)) = bench.rounds(1, [bench.BASE, "apidb"], fields)
    posted = {fields["link"] % number for number in range(worker.POSTS)}
    for lived in (*http.values(), *tls.values()):
        listed = json.loads(lived["listed"])
        assert len(listed) == worker.POSTS and {record["link"] for record in listed} == posted
        assert len(lived["post"]) == worker.POSTS - 1 and len(lived["list"]) == worker.LISTS
        assert lived["cold"][0] > lived["first"][0] > 0
    for record in json.loads(http["apidb"]["listed"]):
        assert fields.keys() <= record.keys()
    assert http["apidb"]["log"] <= 400 < http[bench.BASE]["log"]


def test_a_ratio_is_to_the_same_round():
    measured = [{"textbook": {"POST": 2}, "apidb": {"POST": 1}}, {"textbook": {"POST": 8}, "apidb": {"POST": 8}}]
    assert bench.ratios(measured) == {"textbook": {"POST": [1, 1]}, "apidb": {"POST": [0.5, 1]}}
    assert bench.spread([5, 1, 3, 2, 4]) == "3.00 (2.00-4.00)"


def test_what_memory_costs():
    prices = {"price": {"lambda_gb_second": {"usd": 2, "per": 1000}}}
    cpu = {"cold start, CPU": 0.1, "POST, CPU": 0.001, "list, CPU": 0.002}
    *_, last = bench.memory_table([{"apidb": cpu}], prices).splitlines()
    # 1,769 MB are a CPU and 1.7275 GB: 6 ms of it, a million times, at 0.002 USD a second are 20.73.
    assert last == "| 1769 | 1.00 | 100.0 | 6.0 | 7.0 | 345.51 | 20.73 | 24.19 |"


# --- What the handler does for its speed


def test_the_first_request_finds_a_connection(tmp_path):
    connections, operations = [], []

    class Handler(stub.Handler):
        def setup(self):
            connections.append(self)
            super().setup()

        def do_POST(self):
            operations.append(self.headers["X-Amz-Target"].split(".")[1])
            super().do_POST()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        file = bench.handlers(tmp_path, ["apidb"])["apidb"]
        bench.life(file, "apidb", url, tmp_path / "none", bench.events(bench.TYPICAL))
        server.shutdown()
    assert len(connections) == 1
    assert operations[:2] == ["Query", "PutItem"]


def test_the_start_waits_for_one_attempt_at_most(tmp_path):
    """The first request has three, and 8 s; a start may take 10 s (Lambda Developer Guide, "Init phase")."""
    bench.handlers(tmp_path, ["apidb"])
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and answers nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = bench.SETTINGS | {"TABLE": "links", "AWS_ENDPOINT_URL": url, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", "import index"], env=settings, capture_output=True, text=True)
        silent.setblocking(False)
        while True:
            try:
                connections.append(silent.accept()[0])
            except BlockingIOError:
                break
    for connection in connections:
        connection.close()
    assert done.returncode == 0, done.stderr
    assert len(connections) == 1
