"""Files that are written whole or not at all, and what an error says in one line."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator

__all__ = ['one_line', 'replacing']


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """A path to write to, beside `path`; its file replaces `path` at the end, or is removed if an error is raised.

    A link stays a link: the file that it leads to is replaced. Several processes may write one file at once.

    Example::

        with replacing('scores.csv') as part, open(part, 'w') as file:
            file.write(text)
    """
    target = os.path.realpath(path)
    part = f'{target}.{uuid.uuid4().hex[:8]}.part'
    try:
        yield part
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)
        raise


def one_line(error: BaseException, most: int = 1000) -> str:
    """An exception's message in one line.

    Args:
        error: the exception
        most: largest number of characters
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = ' '.join(text.split()) or type(error).__name__
    return text if len(text) <= most else text[: most - 3] + '...'
