"""Folders in which programs keep files of stores: what these are called, and one program at a time."""

import fcntl
import os
import re
from contextlib import contextmanager

from program import Stop


def file_name_of(api):
    """Return what tells the files of a store from those of another: the host and path of its API, or its table."""
    return re.sub("[^A-Za-z0-9.]+", "-", re.sub("^https?://", "", api)).strip("-.")[:150]


@contextmanager
def alone(folder, what):
    """Hold a folder, which is made if need be, while the block runs; Stop if another program holds it for `what`."""
    os.umask(0o077)  # links may be private
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Stop(f"Another {what} with the folder {folder} is under way, so this one ends.") from None
        yield
