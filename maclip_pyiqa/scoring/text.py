"""Text in tables of scores: valid UTF-8 whatever a path or an error holds.

Text that is not valid UTF-8 (file names may be any bytes; Python holds those that are not UTF-8 as lone surrogates) or
that holds a NUL starts with U+FFFD, the replacement character, and continues with these characters as \\uXXXX and
backslashes doubled. Text that itself starts with U+FFFD is written that way too, so `unescape_text` reverses it
exactly. All other text stays as it is.
"""

from __future__ import annotations

import codecs
import re

from .schema import rounded

UNFIT = re.compile(r'[\x00\ud800-\udfff]')  # for UTF-8, or for Parquet
MISSING = {  # words for a missing value, those of pandas' read_csv
    *('', '#N/A', '#N/A N/A', '#NA', '-1.#IND', '-1.#QNAN', '-NaN', '-nan', '1.#IND', '1.#QNAN', '<NA>', 'N/A', 'NA'),
    *('NULL', 'NaN', 'None', 'n/a', 'nan', 'null'),
}


def escape_path(path: str) -> str:
    r"""A path in one line of plain text: tab, line breaks and backslash as \t, \n, \r and \\."""
    for plain, escaped in (('\\', '\\\\'), ('\t', '\\t'), ('\n', '\\n'), ('\r', '\\r')):
        path = path.replace(plain, escaped)
    return path


def escape_text(text: str) -> str:
    """Valid UTF-8 without NUL; see the head of this file."""
    if not text.startswith('\ufffd') and not UNFIT.search(text):
        return text
    escaped = re.sub(r'[\\\x00\ud800-\udfff]', lambda m: '\\\\' if m[0] == '\\' else f'\\u{ord(m[0]):04x}', text)
    return '\ufffd' + escaped


def unescape_text(text: str) -> str:
    if not text.startswith('\ufffd'):
        return text
    return re.sub(r'\\(?:\\|u([0-9a-f]{4}))', lambda m: chr(int(m[1], 16)) if m[1] else '\\', text[1:])


def escape_cell(name: str, text: str) -> str:
    """Text of a column of this name, see the head of this file."""
    return '\ufffd' + text if name == 'error' and text and text in MISSING else escape_text(text)


def decimal(value: float | None) -> str:
    """A number with 6 decimals; '' if it is missing or not finite."""
    return '' if rounded(value) is None else f'{value:.6f}'


def read_text(path: str) -> str:
    """Text of a file without its byte order mark, and without a character that is cut at the end."""
    with open(path, 'rb') as file:
        data = file.read()
    codec = 'utf-16' if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else 'utf-8-sig'
    try:
        return codecs.getincrementaldecoder(codec)().decode(data)
    except UnicodeDecodeError as error:
        raise ValueError(
            f'{path} is not a table of scores: it is not UTF-8. Expected UTF-8, or UTF-16 with a byte order mark; save '
            "it as UTF-8, in Excel as 'CSV UTF-8'"
        ) from error
