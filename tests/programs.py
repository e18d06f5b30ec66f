"""Run the programs of scripts/, by themselves or by make."""

import os
import subprocess
import sys

from conftest import ROOT
from exchange import without_settings


def run(script, *arguments, **environment):
    """Run a script; return its exit code, and what it printed to stdout and to stderr, as lists of lines."""
    command = [sys.executable, f"scripts/{script}.py", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=without_settings() | environment, capture_output=True, encoding="utf-8"
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def make(target, *given, **environment):
    """Run a make target with the tools of this environment, as run() does."""
    command = ["make", "-s", "-o", ".venv/installed", f"bin={os.path.dirname(sys.executable)}", target, *given]
    environment = without_settings() | environment
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8")
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()
