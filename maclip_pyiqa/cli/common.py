"""What the commands share: exit codes, errors, types of options, messages."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

__all__ = [
    *('FAILED', 'INTERRUPTED', 'NO_WEIGHTS', 'OK', 'USAGE', 'UsageError'),
    *('count', 'need_extra', 'say', 'usage_errors'),
]

OK, FAILED, USAGE, NO_WEIGHTS, INTERRUPTED = 0, 1, 2, 3, 130


class UsageError(Exception):
    """Wrong use of the command line; the message says what is expected."""


def count(least: int) -> Callable[[str], int]:
    """Type of an option: a whole number, at least `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f'{text!r}; expected a whole number, at least {least}')
        return int(text)

    return parse


def say(message: str) -> None:
    """A line on standard error, above the progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(f'maclip-pyiqa: {message}', file=sys.stderr)


@contextmanager
def usage_errors(*errors: type[Exception]) -> Iterator[None]:
    """Turn errors of the library that say what the user can do into UsageError."""
    try:
        yield
    except BrokenPipeError:  # the reader of standard output has closed it
        raise
    except errors as error:
        raise UsageError(str(error)) from error


def need_extra(command: str, extra: str, *packages: str) -> None:
    """Check that the packages of an extra are installed.

    Raises:
        UsageError: one is missing
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UsageError(f"{command} needs {', '.join(missing)}: pip install 'maclip_pyiqa[{extra}]'")
