"""Deploy a stack of a template, with add-ons if it is a store; look at it, follow its log, index or tear it down.

Account, region and endpoint are the usual settings of the AWS SDKs
(AWS_PROFILE, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL ...), so the same commands work on
AWS and on a local engine.
"""

import argparse
import signal
import sys
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

import addons
import reindex
import stack
from show import show
from stack import StackError


def stop_in_order():
    """Make Ctrl-C, and the like, a KeyboardInterrupt, once: a second one must not cut off what the first began."""
    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(*_):
        for number in stops:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in stops:
        signal.signal(number, stop)


def pairs(arguments):
    """Return a dict of arguments that are NAME=VALUE each; StackError for another."""
    for argument in arguments:
        if "=" not in argument:
            raise StackError(f"A template parameter is set by NAME=VALUE, not by {argument}.")
    return dict(argument.split("=", 1) for argument in arguments)


def add_arguments(parser):
    """Add what says which stack is meant, and how it is to be, to an argparse.ArgumentParser."""
    parser.add_argument("--template", type=Path, default=Path("setupapidb.yml"))
    parser.add_argument("--stack", help="name of the stack (apidb; with another template the name of its file)")
    parser.add_argument(
        "--addon",
        action="append",
        default=[],
        help=f"deploy this add-on too ({', '.join(addons.ADDONS)}); others that the store has stay as they are",
    )
    parser.add_argument("--yes", action="store_true", help="do it without asking, even if data or the URL are lost")
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help="template parameters")


def parsed(parser):
    """Return what the command line says, with the name of the stack."""
    options = parser.parse_intermixed_args()
    if options.stack is None:
        options.stack = stack.name_for(options.template)
    return options


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["deploy", "teardown", "status", "logs", "reindex"])
    parser.add_argument("--no-export", action="store_true", help="tear down without writing the tables to files")
    add_arguments(parser)
    options = parsed(parser)
    if options.parameters and options.action != "deploy":
        parser.error(f"{options.action} takes no parameters: {' '.join(options.parameters)}")
    stop_in_order()
    try:
        if options.action == "deploy":
            parameters = pairs(options.parameters)
            outputs = addons.deploy(options.stack, options.template, options.addon, parameters, options.yes)
            show(outputs, options.template)
        elif options.action == "teardown":
            addons.teardown(options.stack, options.template, not options.no_export, options.yes)
        elif options.action == "status":
            addons.show_status(options.stack)
        elif options.action == "reindex":
            reindex.reindex(options.stack)
        else:
            addons.follow_logs(options.stack)
    except KeyboardInterrupt as interrupt:
        if options.action == "reindex":
            sys.exit("\nInterrupted. The stream is followed again; to make the index, run it once more.")
        if options.action in ("deploy", "teardown"):
            sys.exit(str(interrupt) or f"\nInterrupted. See how the stack is: make status STACK={options.stack}")
        print()
    except (NoRegionError, NoCredentialsError) as error:
        sys.exit(
            f"{str(error).rstrip('.')}. Set AWS_PROFILE, or AWS_DEFAULT_REGION and credentials, or run: aws configure"
        )
    except (StackError, ClientError, BotoCoreError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
