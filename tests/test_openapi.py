"""openapi.yml says what is: compared with the handler, and tried on the stack by schemathesis."""

import subprocess
import sys

import pytest
import yaml

from conftest import ROOT

CONTRACT = ROOT / "openapi.yml"


@pytest.fixture
def contract():
    return yaml.safe_load(CONTRACT.read_text())


def operations(contract):
    """Yield the method, path and description of each operation."""
    for path, methods in contract["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                yield method.upper(), path, operation


def test_routes_are_in_the_contract(contract, module):
    described = {(method, path) for method, path, _ in operations(contract)}
    assert described == {(method, path) for path, methods in module.ROUTES.items() for method in methods}


def test_statuses_are_in_the_contract(contract, module):
    described = {int(code) for _, _, operation in operations(contract) for code in operation["responses"]}
    raised = {each.status for each in [module.Error, *module.Error.__subclasses__()]}
    # 405 is the answer to what is no operation; the gateway answers 403 and 429.
    assert {code for code in described if code >= 400} == raised - {405} | {403, 429}
    for _, _, operation in operations(contract):
        assert {"429", "500", "503"} <= operation["responses"].keys()
        is_open = operation.get("security") == [{}]
        assert is_open == ("403" not in operation["responses"])


def test_fields_and_limits_are_in_the_contract(contract, module):
    schemas = contract["components"]["schemas"]
    assert list(schemas["Link"]["properties"]) == list(module.RECORD)
    assert list(schemas["NewLink"]["properties"]) == ["link", *module.NEW]
    assert list(schemas["Patch"]["properties"]) == ["link", *module.FIELDS]
    assert schemas["NewLink"]["properties"]["link"]["maxLength"] == module.LINK_BYTES
    for name, (_, *limit) in module.NEW.items():
        schema = schemas.get(name.title(), {})
        documented = schema.get("maxItems", schema.get("maxLength", schema.get("maximum")))
        assert [documented] == (limit or [None])
    assert schemas["Tags"]["items"]["maxLength"] == 64


def test_the_stack_does_what_the_contract_says(engine, stack_api, contract, tmp_path):
    """Some hundred requests, right and wrong, made from the contract; the seed is fixed."""
    # A pattern cannot say what the past and the future are: these are in them for long.
    rest = r"(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]0[0-9]:[0-5][0-9])$"
    for name, year in (("Past", "19[0-9]{2}"), ("Future", "2[1-9][0-9]{2}"), ("Moment", "[12][0-9]{3}")):
        contract["components"]["schemas"][name]["pattern"] = f"^{year}-{rest}"
    (tmp_path / "openapi.yml").write_text(yaml.safe_dump(contract))
    options = ["--seed", "1", "--max-examples", "100", "--no-color", "--url", stack_api.url]
    options += ["--header", f"Host: {stack_api.host}"]
    config = ["--config-file", str(ROOT / "tests" / "schemathesis.toml")]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *config, "run", "openapi.yml", *options],
        cwd=tmp_path,
        env=engine.settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Tested: {len(list(operations(contract)))}" in done.stdout
