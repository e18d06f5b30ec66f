"""What the programs for the links of a store share: how they say what is wrong, what they are given, how they end."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

WORKERS = 12
BATCH = 500  # what is given to the workers at once

KEY = "The environment variable APIDB_KEY is the API's key, if it wants one."


class Stop(Exception):
    """Why it cannot go on, as a sentence for the person who runs the command, and the exit code."""

    code = 2


def printable(text):
    """Return text as a terminal may show it: neither a bookmark nor a server writes to it what it likes."""
    return "".join(each if each.isprintable() else "?" for each in text)


def add_api(parser, more=""):
    """Add the options --api and --sign of a program to its argparse.ArgumentParser; `more` is what else --api takes."""
    parser.add_argument("--api", default=os.environ.get("API", ""), help=f"URL of the API (the variable API){more}")
    parser.add_argument("--sign", action="store_true", help="sign the requests to the API with the AWS credentials")
    parser.epilog = KEY


def in_parallel(work, items):
    """Yield (item, work(item)) in the order of a list of items, a dozen at a time, with a progress bar.

    What work() raises, this raises at that item. Print by tqdm.write while it runs, else the bar is torn.
    """
    pool = ThreadPoolExecutor(WORKERS)
    with tqdm(total=len(items), unit=" links", disable=None) as bar:
        for first in range(0, len(items), BATCH):
            batch = items[first : first + BATCH]
            for item, outcome in zip(batch, pool.map(work, batch)):
                yield item, outcome
                bar.update()


def end(work):
    """Run work(), a function that returns the exit code, and exit with it; a sentence for Stop and OSError.

    Ctrl-C ends it with 130, and does not wait for requests that are under way: they can be sent again.
    """
    try:
        code = work()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        code = 130
    except Stop as error:
        print(printable(str(error)), file=sys.stderr)
        code = error.code
    except OSError as error:
        print(f"{error.filename or 'The file'}: {error.strerror}.", file=sys.stderr)
        code = 2
    sys.stdout.flush()
    os._exit(code)
