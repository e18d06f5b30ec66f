"""What make installs: two lock files that go into one environment, and one for another."""

import re

import pytest

from conftest import ROOT

RUN, TEST = ROOT / "requirements.txt", ROOT / "tests" / "requirements.txt"
CLIENTS = ROOT / "clients" / "requirements.txt"


def pinned(path):
    """Return a dict of the packages of a lock file: their versions, by name, and what else is said of them."""
    found = {}
    for name, version, more in re.findall(r"^([a-z0-9.-]+)(?:\[.*\])?==(\S+)((?:.|\n +)*)", path.read_text(), re.M):
        found.setdefault(name, {})[version] = more
    return found


def test_what_is_in_both_has_one_version():
    run, test = pinned(RUN), pinned(TEST)
    both = run.keys() & test.keys()
    assert {"boto3", "urllib3"} <= both
    assert {name: set(run[name]) for name in both} == {name: set(test[name]) for name in both}


def test_the_clients_are_tested_with_what_they_run_on():
    tested, clients = pinned(RUN) | pinned(TEST), pinned(CLIENTS)
    assert {"mcp", "boto3"} <= clients.keys() <= tested.keys()
    assert {name: set(tested[name]) for name in clients} == {name: set(clients[name]) for name in clients}


@pytest.mark.parametrize("path", [RUN, TEST, CLIENTS], ids=["run", "test", "clients"])
def test_each_is_locked_with_hashes(path):
    """`make lock` mends it."""
    locked = pinned(path)
    assert all("--hash=sha256:" in more for versions in locked.values() for more in versions.values())
    wanted = re.findall(r"^([a-z0-9-]+)(?:\[.*\])?==(\S+)", path.with_suffix(".in").read_text(), re.M)
    assert wanted
    assert [name for name, version in wanted if version not in locked.get(name, ())] == []
