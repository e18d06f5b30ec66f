"""Put the sources of templates into them: `embed.py` writes, `embed.py --check` only looks.

A function with `Metadata: {Source: handler/index.py}` gets that file, a path
relative to the template, as its `Code.ZipFile`: line by line, but without
docstrings, since each byte of a template counts. Where it reads a text beside
it, by Path(__file__).with_name("page.html").read_text(), it gets the text, line
by line too, but without the lines that are a comment of JavaScript.
Where it imports from a module beside it, by `from common import ...`, what it
imports stands before its own code, with all that that needs of the module.

The logical ID of the API's deployment ends in a hash over what a deployment
publishes, so that an update of the stack makes a new one when, and only when,
that changed.
"""

import argparse
import ast
import hashlib
import re
import sys
import textwrap
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import yaml

MOST_BYTES = 51_200  # what create-stack takes as --template-body (CloudFormation quotas)
WARN_BYTES = 46_000
ROOT = Path(__file__).parent.parent
# What AWS::ApiGateway::Deployment takes a snapshot of.
PUBLISHED = {
    f"AWS::ApiGateway::{kind}"
    for kind in (
        "Authorizer",
        "GatewayResponse",
        "Method",
        "Model",
        "RequestValidator",
        "Resource",
        "RestApi",
    )
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def child(node, *path):
    """Return the YAML node below a mapping node, by keys; None if it is not there."""
    for name in path:
        members = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for key, value in members if key.value == name), None)
    return node


def resources(text):
    """Return the YAML nodes of a template's resources by logical ID."""
    return {key.value: node for key, node in child(yaml.compose(text), "Resources").value}


def type_of(node):
    """Return the type of a resource, "" if it has none."""
    kind = child(node, "Type")
    return kind.value if kind else ""


def deployment_hash(text, settings={}):
    """Return ten hex digits that change when what a deployment publishes does; not with comments.

    `settings` are the values of parameters that differ from their defaults.
    """
    published = {name: yaml.serialize(node) for name, node in resources(text).items() if type_of(node) in PUBLISHED}
    # Without settings the template's own, so that `create-stack` and `make deploy` agree on them.
    hashed = repr(sorted(published.items())) + (repr(sorted(settings.items())) if settings else "")
    return hashlib.sha256(hashed.encode()).hexdigest()[:10]


def concise(code):
    """Return Python code without its docstrings."""
    lines, left_out = code.splitlines(keepends=True), set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None and node.body[1:]:
            end = node.body[0].end_lineno
            left_out.update(range(node.body[0].lineno, end + 1 + lines[end].isspace()))
    return "".join(line for number, line in enumerate(lines, 1) if number not in left_out)


def with_texts(code, folder):
    """Return Python code in which the text of a file beside it stands where the code reads that file."""

    def literal(call):
        text = re.sub("^ *//.*\n", "", (folder / call[1]).read_bytes().decode(), flags=re.M)
        if '"""' in text or text[-1:] in ('"', "\\"):
            raise ValueError(f'{folder / call[1]} must not have """ in it, nor end with a quote or backslash.')
        return f'r"""{text}"""'

    return re.sub(r'Path\(__file__\)\.with_name\("([^"]+)"\)\.read_text\(\)', literal, code)


@dataclass
class Statement:
    """A top-level statement of Python code: its node, the banner it is under, its lines with the comments above it."""

    node: ast.stmt
    banner: str
    text: str

    def binds(self):
        if isinstance(self.node, (ast.FunctionDef, ast.ClassDef)):
            return {self.node.name}
        names = (each for each in ast.walk(self.node) if isinstance(each, ast.Name))
        return {each.id for each in names if isinstance(each.ctx, ast.Store)}

    def uses(self):
        return {each.id for each in ast.walk(self.node) if isinstance(each, ast.Name)}


def statements(code):
    """Return the imports of code as (module or "", name as ...), without comments, and all else as Statements."""
    lines, imports, others, above, banner = code.splitlines(keepends=True), [], [], 0, ""
    nodes = ast.parse(code).body
    for node in nodes:
        end = len(lines) if node is nodes[-1] else node.end_lineno
        text = "".join(lines[above:end])
        above = end
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imports += [(getattr(node, "module", ""), ast.unparse(name)) for name in node.names]
        else:
            new = re.match(r"\s*(# --- .*\n)", text)
            banner, text = (new[1], text[new.end() :]) if new else (banner, text)
            others.append(Statement(node, banner, text))
    return imports, others


def needed(names, there):
    """Return those of the Statements that bind these names or, in turn, what those use."""
    kept = [each for each in there if each.binds() & names]
    more = names.union(*(each.uses() for each in kept))
    return kept if more == names else needed(more, there)


def joined(parts):
    """Return Statements as code, under their banners; what is for the formatter only is left out."""
    code, banner = "", ""
    for each in parts:
        code += (f"\n\n{each.banner}" if each.banner != banner else "") + each.text
        banner = each.banner
    return re.sub(r"^# fmt: o(n|ff)\n", "", code, flags=re.M).strip("\n") + "\n"


def import_lines(imports, code):
    """Return the import statements of those imports that this code uses, in ruff's order."""
    used = {each.id for each in ast.walk(ast.parse(code)) if isinstance(each, ast.Name)}
    modules = defaultdict(set)
    for module, name in imports:
        if name.split()[-1] in used:
            modules[module, module or name].add(name)
    blocks = {True: "", False: ""}
    for (module, place), names in sorted(modules.items()):
        names = sorted(names, key=lambda name: (not name.isupper(), name.islower(), name))
        line = f"from {module} import {', '.join(names)}\n" if module else f"import {place}\n"
        blocks[place.split(".")[0] in sys.stdlib_module_names] += line
    return "\n".join(filter(None, blocks.values()))


def with_shared(code, folder):
    """Return Python code before which stands what it imports from a module beside it, and all that that needs.

    Code that imports nothing so is returned as it is. ValueError for what the module does not have.
    """
    imports, own = statements(code)
    beside = {module for module, _ in imports if module and (folder / f"{module}.py").exists()}
    if not beside:
        return code
    (module,) = beside  # of more than one the order would have to be found
    more, there = statements(concise((folder / f"{module}.py").read_bytes().decode()))
    wanted = {name for place, name in imports if place == module}
    missing = wanted.difference(*(each.binds() for each in there))
    if missing:
        raise ValueError(f"{folder / module}.py has no {', '.join(sorted(missing))}.")
    body = joined(needed(wanted, there)) + "\n\n" + joined(own)
    return import_lines(more + [each for each in imports if each[0] != module], body) + "\n" + body


def with_sources(template):
    """Return the text of the template at this path with its sources as they are now.

    ValueError says what is wrong with a source that YAML would not give back as it is.
    """
    text = template.read_text()
    places = []
    for node in resources(text).values():
        source = child(node, "Metadata", "Source")
        if source:
            path = template.parent / source.value
            step = child(node, "Properties", "Code").start_mark.column - child(node, "Properties").start_mark.column
            places.append((child(node, "Properties", "Code", "ZipFile"), step, path))
    # From the end, so that what is replaced moves none of the places before it.
    for block, step, path in sorted(places, key=lambda place: -place[0].start_mark.index):
        code = with_shared(concise(path.read_bytes().decode()), path.parent)
        code = with_texts(code, path.parent)
        if not code.isascii() or code.rstrip() + "\n" != code or re.search(r"[\r\t\f]| \n", code):
            raise ValueError(
                f"{path} must be ASCII, without tabs, carriage returns and spaces at the end of"
                " a line, and end in one line feed, or YAML would not give it back as it is."
            )
        start, end = block.start_mark.index, block.end_mark.index
        end = start + len(text[start:end].rstrip()) + 1
        indent = " " * (text[:start].split("\n")[-1].index("ZipFile") + step)
        text = text[:start] + "|\n" + textwrap.indent(code, indent) + text[end:]
    return text


def with_deployment(text, settings={}):
    """Return a template's text with each of its deployments named by what it publishes.

    `settings` (parameter to value) are those that differ from the template's
    defaults: a parameter changes methods too, and only a deployment of
    another name publishes that.
    """
    digits = deployment_hash(text, settings)
    for name, node in resources(text).items():
        if type_of(node) == "AWS::ApiGateway::Deployment":
            stem = re.sub("[0-9a-f]{10}$", "", name)
            text = re.sub(rf"\b{name}\b", stem + digits, text)
    return text


def embed(template, check):
    """Write a template with its sources as they are now, or with `check` only look; print its size.

    Return what is wrong as a sentence, "" if nothing is.
    """
    try:
        before, sourced = template.read_text(), with_sources(template)
    except (OSError, ValueError) as error:
        return str(error)
    after = with_deployment(sourced)
    size = len(after.encode())
    print(f"{template}: {size:,} of {MOST_BYTES:,} bytes")
    if size > MOST_BYTES:
        return f"That is more than create-stack takes. Make {template} or its sources shorter."
    if size > WARN_BYTES:
        print("That is close to what create-stack takes.")
    if not check:
        template.write_text(after)
    elif before != sourced:
        return f"{template} differs from its sources. Run: make embed"
    elif sourced != after:
        return f"The name of the deployment in {template} is stale. Run: make embed"
    return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("templates", nargs="+", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it would")
    options = parser.parse_args()
    wrong = [embed(template, options.check) for template in options.templates]
    sys.exit("\n".join(filter(None, wrong)) or None)


if __name__ == "__main__":
    main()
