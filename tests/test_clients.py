"""The shell function of clients/links.sh, in the shells that are here, on a stack of the local engine."""

import json
import shutil
import subprocess

import pytest

from conftest import ROOT
from exchange import BASE, error, record, server, without_settings

SHELLS = [shell for shell in ("sh", "dash", "bash", "zsh", "ksh", "busybox") if shutil.which(shell)]


@pytest.fixture(params=SHELLS)
def links(request, curl, stack_api):
    """A function that runs links ARGUMENTS in a shell; it returns the exit code, the links, and what stderr has."""
    api_id, at = stack_api.host.split(".")[0], stack_api.url.split("/")[2]
    url = f"http://{at}/restapis/{api_id}/prod/_user_request_/link"  # not every curl knows *.localhost

    def run(*arguments, **settings):
        shell = [request.param, "sh"] if request.param == "busybox" else [request.param]
        command = [*shell, "-c", '. clients/links.sh; links "$@"', "links", *arguments]
        environment = without_settings() | {"API": url} | settings
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8")
        return done.returncode, [json.loads(line) for line in done.stdout.split("\n") if line], done.stderr

    return run


def test_there_are_shells_to_try():
    assert {"sh", "bash"} <= set(SHELLS)


ODD = 'it\'s "quoted" $HOME `x` \\n \\ % * é 日本 <&>'


def test_a_link_is_saved_with_all_that_is_given(stack_api, links):
    code, (saved,), problems = links(
        "save", BASE + "?a=1&b=%20", "-t", ODD, "a tag", "-n", "two\nlines\tand a tab", ODD[:40]
    )
    assert (code, problems, [saved]) == (0, "", stack_api.all())
    assert {name: saved[name] for name in ("link", "title", "notes", "tags")} == {
        "link": BASE + "?a=1&b=%20",
        "title": ODD,
        "notes": "two lines and a tab",
        "tags": ["a tag", ODD[:40]],
    }
    assert links("save", BASE + "?a=1&b=%20", "-t", "Other") == (0, [saved], "")
    assert links("save", BASE + "plain")[0] == 0
    assert len(stack_api.all()) == 2


def test_links_are_found_on_all_pages(stack_api, links):
    for number in range(7):
        stack_api.post(
            f"{BASE}{number}", title=f"Two words {number}, [x],", tags=["all", "&=" if number % 2 else "even"]
        )
    for number in range(120):
        stack_api.post(f"{BASE}more/{number}")
    assert links("find") == (0, stack_api.all("/link?limit=1000"), "")
    assert [each["title"][10] for each in links("find", "words", "two", "-t", "all", "-t", "&=")[1]] == ["5", "3", "1"]
    assert [each["title"][10] for each in links("find", "-t", "even", "3")[1]] == []
    assert len(links("find", "-t", "all")[1]) == 7
    assert links("find", "nothing has this") == (0, [], "")


def test_a_list_that_breaks_off_fails(links):
    def answer(method, path, body):
        if "cursor" in path:
            return 500, {}, error("It broke.")
        return 200, {"Link": '<http://x/link?cursor=2>; rel="next"'}, json.dumps([record(1)])

    with server(answer) as url:
        code, printed, problems = links("find", API=url)
    assert (code, printed) == (1, [record(1)]) and "It broke." in problems


def test_what_is_refused_is_said_and_fails(stack_api, links):
    code, printed, problems = links("save", "javascript:alert(1)")
    assert (code, printed) == (1, []) and "link must be an absolute URL" in json.loads(problems)["Error"]
    code, printed, problems = links("find", "x" * 600)
    assert (code, printed) == (1, []) and "512 characters" in json.loads(problems)["Error"]
    assert links("save", BASE, API="http://127.0.0.1:1/link")[0] != 0
    assert links("find", API="http://127.0.0.1:1/link")[0] != 0
    for given in (), ("save",), ("other",), ("save", BASE, "-t"):
        code, printed, problems = links(*given)
        assert (code, printed) == (2, []) and problems.startswith("links save URL"), given
    assert links("find", API="") == (2, [], "Which API? export API=https://.../prod/link\n")
    assert stack_api.all() == []


def test_a_key_opens_the_store(links, key_api):
    api_id, at = key_api.host.split(".")[0], key_api.host.rpartition(":")[2]
    url = f"http://127.0.0.1:{at}/restapis/{api_id}/prod/_user_request_/link"
    code, printed, problems = links("find", "nothing has this", API=url)
    assert (code, printed) == (1, []) and "INVALID_API_KEY" in problems
    assert links("find", "nothing has this", API=url, APIDB_KEY=key_api.key) == (0, [], "")
