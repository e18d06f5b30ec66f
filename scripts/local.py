"""Run a stack on this machine: a local AWS engine, and the stack with its add-ons deployed on it.

The engine is ministack, behind the guard of scripts/guard.py. It listens on
127.0.0.1 only, enforces IAM, and keeps what it holds in a folder, so that links
and objects survive a stop and a new start. Run again while it runs, this deploys
another stack on the same engine.
"""

import argparse
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import boto3
from botocore.exceptions import BotoCoreError, ClientError

import addons
import manage
import stack
from show import show
from stack import StackError

# Without -P its modules would be looked for among these scripts.
ENGINE = [sys.executable, "-P", str(Path(__file__).with_name("guard.py"))]
SAVE_SECONDS = 30
PORT = 4566
NEVER_THROTTLED = {"RequestsPerSecond": "10000", "RequestBurst": "5000"}  # where a template has these


class EngineError(Exception):
    """Why the engine does not run, as a sentence for the person who runs the command."""


class Engine(NamedTuple):
    """A running engine, and the environment in which AWS's SDKs and command line reach it."""

    process: subprocess.Popen
    settings: dict


@contextlib.contextmanager
def engine(port, state=None, lock=None):
    """Run the engine at 127.0.0.1:port while the block does; give an Engine.

    `state` is the folder that keeps its data, None for none. It is written at the end, and every
    SAVE_SECONDS: that much is lost by a crash. The engine holds the file `lock` of the folder too, as
    it may outlive this program.
    EngineError if the port is taken or it does not start.
    """
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise EngineError(f"Port {port} is in use. Take another, such as: make run PORT=4577")
    with tempfile.TemporaryDirectory(prefix="apidb-") as scratch:
        settings = {
            "PATH": os.environ["PATH"],
            "HOME": scratch,
            "TMPDIR": scratch,
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "AUTH": "true",
            "PERSIST_STATE": "1" if state else "0",
            "STATE_DIR": str(state or scratch),
            "SAVE_SECONDS": str(SAVE_SECONDS),
            # Objects of buckets, each of which it writes at once.
            "S3_PERSIST": "1" if state else "0",
            "S3_DATA_DIR": str(Path(state or scratch, "objects")),
            "LOG_LEVEL": "WARNING",
            # It would listen for other services, and clean up in Docker, too.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "DOCKER_HOST": f"unix://{scratch}/no-docker",
        }
        log = Path(scratch, "engine.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                ENGINE,
                env=settings,
                stdout=output,
                stderr=output,
                # Ctrl-C must reach this program only, which then ends the engine.
                start_new_session=True,
                pass_fds=[lock.fileno()] if lock else [],
            )
        if lock:
            lock.truncate(0)
            lock.write(f"{process.pid} {port}")
            lock.flush()
        try:
            wait_for(process, port, log)
            yield Engine(process, settings_for(port))
        finally:
            process.terminate()
            process.wait()
            # Its Lambda workers would end by themselves, but a moment later.
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)


def settings_for(port):
    """Return the environment in which AWS's SDKs and command line reach the engine at this port."""
    local = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    return {key: value for key, value in os.environ.items() if not key.startswith("AWS_")} | local


def answers(port):
    """Return whether the engine at this port is ready."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError):
        direct.open(f"http://127.0.0.1:{port}/_ministack/ready", timeout=5).close()
        return True
    return False


def wait_for(process, port, log):
    """Return when the engine answers; EngineError when it ends, or does not within a minute."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if answers(port):
            return
        time.sleep(0.05)
    raise EngineError(f"The local engine did not start:\n{log.read_text()[-2000:]}")


@contextlib.contextmanager
def only_one(state):
    """Hold the state folder, closed to others, while the block runs, and give its lock; None if another run holds it.

    EngineError if the folder is for something else.
    """
    os.umask(0o077)
    state.mkdir(parents=True, exist_ok=True)
    # A folder of something else, such as the home folder, is not for us to close.
    if not (state / "lock").exists() and any(state.iterdir()):
        raise EngineError(f"{state} has other files in it. Name a folder for the data alone: make run STATE=.apidb")
    state.chmod(0o700)
    with (state / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield lock


def deploy(options, settings):
    """Deploy the stack that the command line says on the engine to which these settings lead; print what to try.

    They are then the environment of this process.
    """
    os.environ.clear()
    os.environ.update(settings)
    parameters = manage.pairs(options.parameters)
    outputs = addons.deploy(
        options.stack, options.template, options.addon, parameters, options.yes, presets=NEVER_THROTTLED
    )
    show(outputs, options.template)


def show_others(name):
    """Print where the APIs of other stacks on the engine of the environment answer."""
    client = boto3.client("cloudformation")
    for page in client.get_paginator("describe_stacks").paginate():
        for there in page["Stacks"]:
            outputs = stack.outputs_of(there)
            if there["StackName"] != name and "APIUrl" in outputs:
                url = stack.reachable(outputs["APIUrl"], client.meta.endpoint_url)
                print(f"Stack {there['StackName']} is here too, at {url}")


def run(options, lock):
    """Run the engine with the stack on it, until it is stopped."""
    with engine(options.port or PORT, options.state.resolve(), lock) as running:
        deploy(options, running.settings)
        show_others(options.stack)
        print(f"Ctrl-C stops it. What is stored stays in {options.state} for the next time.", flush=True)
        running.process.wait()
        raise EngineError("The local engine has ended by itself.")


def run_beside(options):
    """Deploy the stack on the engine that another `make run` has started with the same data."""
    try:
        process, port = map(int, (options.state / "lock").read_text().split())
    except ValueError:
        raise EngineError(f"It is just starting, with the data in {options.state}. Try again in a moment.") from None
    kill = f"kill {process}"
    if options.port not in (None, port):
        raise EngineError(
            f"It runs already, with the data in {options.state}. Stop it first, or leave out PORT to have this on it"
            f" too, at port {port}. If its `make run` was killed, this ends its engine, which saves all: {kill}"
        )
    if not answers(port):
        raise EngineError(f"It is just starting or stopping, at port {port}. Try again in a moment.")
    deploy(options, settings_for(port))
    print(f"It is on the engine that runs already, which Ctrl-C at its `make run` stops, or if that is gone: {kill}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, help=f"port of the engine ({PORT}, or that of the one which runs)")
    parser.add_argument("--state", type=Path, default=Path(".apidb"), help="folder for the data")
    manage.add_arguments(parser)
    options = manage.parsed(parser)
    if options.port is not None and not 0 < options.port < 65536:
        parser.error(f"A port is a number from 1 to 65535, not {options.port}.")
    manage.stop_in_order()
    try:
        with only_one(options.state) as lock:
            if lock:
                run(options, lock)
            else:
                run_beside(options)
    except KeyboardInterrupt:
        print("\nStopped.")
    except (EngineError, StackError, ClientError, BotoCoreError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
