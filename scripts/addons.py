"""Deploy a stack, show it or tear it down together with its add-ons, which a link store may have.

An add-on is a template below addons/ that imports what a store exports. Add-on
`page` of the store `apidb` is a stack of its own, `apidb-page`, and its
parameter Store is `apidb`.
"""

import os
from pathlib import Path

import boto3
import yaml
from botocore.exceptions import ClientError

import deleting
import deploying
import embed
import layer
import logs
import looking
import stack
from stack import StackError

# The templates of the add-ons there are, by name.
ADDONS = {path.stem: path for path in sorted(Path(os.path.relpath(embed.ROOT)).glob("addons/*.yml"))}

# --- Which add-ons a store has


def addon_of(there):
    """Return the name of the add-on that a stack is, by its description up to the first comma; None if it is none."""
    for addon, template in ADDONS.items():
        described = embed.child(yaml.compose(template.read_text()), "Description").value
        if stack.known_by(there.get("Description")) == stack.known_by(described):
            return addon
    return None


def importers(client, there):
    """Return the names of the stacks that import what a stack exports."""
    names = set()
    for output in there.get("Outputs", []):
        if "ExportName" in output:
            try:
                for page in client.get_paginator("list_imports").paginate(ExportName=output["ExportName"]):
                    names.update(page["Imports"])
            except ClientError as error:
                if "is not imported by any stack" not in str(error):
                    raise
    return names


def users_of(client, there):
    """Return the stacks of a store's add-ons, in an order to delete them, and the names of others that use the store.

    An add-on may have any name, and one whose creation failed imports nothing.
    """
    name, using = there["StackName"], importers(client, there)
    asked = using | {f"{name}-{addon}" for addon in ADDONS}
    found = filter(None, (stack.describe(client, each) for each in sorted(asked)))
    ours = [each for each in found if addon_of(each) and stack.store_of(each) == name]
    ours.sort(key=lambda each: stack.is_search(each.get("Description")))  # whose queue the alarms watch
    return ours, sorted(using - {each["StackName"] for each in ours})


# --- Deploying, tearing down, looking


def deploy(name, template, addons, parameters, yes=False, presets={}):
    """Create or update a stack and these of its add-ons; return the outputs of all in a dict.

    Each of `parameters` goes to the templates that declare it, and of `presets`
    those that are not among them and that any declares. Add-ons that are not
    named are left as they are. The alarms watch the add-on search if it is there.
    StackError for an add-on or a parameter that there is not, before anything is
    deployed, and if a stack does not succeed.
    """
    for unknown in set(addons) - ADDONS.keys():
        raise StackError(f"There is no add-on {unknown}; there are {', '.join(ADDONS)}.")
    client = boto3.client("cloudformation")
    addons = sorted(addons, key=lambda addon: addon != "search")  # as the alarms watch its queue
    addon_stacks = {f"{name}-{addon}": ADDONS[addon] for addon in addons}
    declared = {}
    for each, path in ({name: template} | addon_stacks).items():
        valid = client.validate_template(TemplateBody=deploying.text_of(path))
        if addons and path == template and not stack.is_store(valid.get("Description")):
            raise StackError(f"Only a link store has add-ons, and {template} is none: leave out ADDONS.")
        declared[path] = parameters_of(valid)
        there = stack.describe(client, each)
        if there:
            stack.must_be_made_from(path, valid.get("Description"), there)
    for unknown in parameters.keys() - set().union(*declared.values()):
        has = [f"{path} has {', '.join(sorted(names))}" for path, names in declared.items()]
        left = {addon: deploying.text_of(path) for addon, path in ADDONS.items() if path not in declared}
        others = [each for each in left if unknown in parameters_of(client.validate_template(TemplateBody=left[each]))]
        hint = (
            f' It is one of add-on {others[0]}: name that too, ADDONS="{" ".join([*addons, others[0]])}".'
            if others
            else ""
        )
        raise StackError(f"There is no parameter {unknown}: {'; '.join(has)}.{hint}")

    parameters = layer.parameters(declared[template], presets | parameters)
    outputs = deploying.deploy(name, template, chosen(parameters, declared[template]), yes)
    if stack.is_local(client.meta.endpoint_url):
        # AWS's host of the store is none here, and the engine has no alarm on a query.
        url = stack.reachable(outputs.get("APIUrl", ""), client.meta.endpoint_url)
        parameters = {"StoreUrl": url, "WatchTable": "false"} | parameters
    if "search" in addons or has_search(client, name):
        parameters = {"Search": "true"} | parameters
    for each, path in addon_stacks.items():
        given = {"Store": name} | chosen(parameters, declared[path])
        outputs = deploying.deploy(each, path, given, yes) | outputs
    if "search" in addons:  # asked before there are links, it makes the index from the start
        index = looking.index_of(stack.describe(client, f"{name}-search"))
        if index != "made":
            print(f"The index of tags and words is {index}")
    return outputs


def has_search(client, name):
    """Return whether the store with this stack's name has an add-on search."""
    there = stack.describe(client, name)
    ours = users_of(client, there)[0] if there else []
    return any(stack.is_search(each.get("Description")) and each.get("Outputs") for each in ours)


def parameters_of(valid):
    """Return the names of the parameters of a validated template, but for Store, which is for STACK to say."""
    return {parameter["ParameterKey"] for parameter in valid["Parameters"]} - {"Store"}


def chosen(parameters, names):
    return {name: value for name, value in parameters.items() if name in names}


def teardown(name, template, export=True, yes=False):
    """Delete a stack, its add-ons first, and list what is left; see deleting.teardown for `export` and `yes`.

    The name of an add-on's stack deletes that one only. StackError if another
    stack uses it, or for a reason of deleting.teardown.
    """
    client = boto3.client("cloudformation")
    there = stack.existing(client, name)
    ours, others = users_of(client, there)
    if others:
        raise StackError(
            f"Nothing is deleted: {', '.join(others)} uses what stack {there['StackName']} exports, and is none of"
            " its add-ons. Delete that first:"
            + "".join(f"\n  aws cloudformation delete-stack --stack-name {other}" for other in others)
        )
    deleting.teardown(name, ADDONS.get(addon_of(there), template), export, first=ours, yes=yes)
    layer.offer_deletion(template, yes)


def show_status(name):
    """Print how a stack and its add-ons are."""
    looking.show_status(name, addons_of(name))


def follow_logs(name):
    """Print what the functions of a stack and of its add-ons log, until Ctrl-C."""
    logs.follow_logs(name, addons_of(name))


def addons_of(name):
    """Return the stacks of the add-ons of the stack with this name; StackError if there is none."""
    client = boto3.client("cloudformation")
    return users_of(client, stack.existing(client, name))[0]
