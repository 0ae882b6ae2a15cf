"""HTML that notebooks show of an object: text, tables, bars and pictures.

It is small whatever it is made of, its text is escaped, it has the colours of the page around it, light or dark, and it
holds no script and nothing that is loaded from elsewhere.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence

# viridis, as in report/assets/map.js: even steps of lightness, so colour-blind people can read it
COLOURS = ['440154', '482878', '3e4a89', '31688e', '26828e', '1f9e89', '35b779', '6ece58', 'b5de2b', 'fde725']
CELL = 'text-align:left;padding:1px 8px 1px 0;white-space:nowrap'


def text(value: object, most: int = 40) -> str:
    """Text in one line, escaped for HTML, also within quotes.

    Args:
        value: anything; characters that cannot be shown, such as those of a path that is not UTF-8, become U+FFFD
        most: largest number of characters; the middle of longer text is left out

    Example:
        >>> text('<b>/name.png', most=7)
        '&lt;b&gt;…png'
    """
    line = ' '.join(str(value).split())
    line = line if len(line) <= most else f'{line[: (most - 1) // 2]}…{line[-(most // 2) :]}'
    return html.escape(''.join(character if character.isprintable() else '\ufffd' for character in line))


def number(value: float) -> str:
    """A number with 3 decimals; one that is very large in powers of ten."""
    return f'{value:.3f}' if abs(value) < 1e6 else f'{value:.3g}'


def paragraph(content: str) -> str:
    """A paragraph of HTML."""
    return f'<p style="margin:2px 0">{content}</p>'


def block(*parts: str) -> str:
    """Parts of HTML beside each other, or below each other where there is no room."""
    inner = ''.join(f'<div style="max-width:100%;overflow-x:auto">{part}</div>' for part in parts)
    return f'<div style="display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start;margin:4px 0">{inner}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of text."""
    lines = [''.join(f'<th scope="col" style="{CELL}">{text(name)}</th>' for name in head)]
    lines += [''.join(f'<td style="{CELL}">{text(cell)}</td>' for cell in row) for row in rows]
    return f'<table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table>'


def bars(rows: Iterable[tuple[str, float, str]]) -> str:
    """A table of bars.

    Args:
        rows: name, share of the full length, from 0 to 1, and value in words of each bar
    """
    lines = []
    for name, share, value in rows:
        width = 100 * min(max(0, share), 1)  # 0 where it is NaN
        bar = f'<div style="width:{width:.0f}%;height:9px;background:currentColor;opacity:.55"></div>'
        head = f'<th scope="row" style="{CELL};font-weight:normal">{text(name)}</th>'
        cell = f'<td style="width:120px;min-width:120px;padding:0 8px 0 0">{bar}</td>'
        lines.append(f'<tr>{head}{cell}<td style="{CELL}">{text(value)}</td></tr>')
    return f'<table>{"".join(lines)}</table>'


def picture(shares: Sequence[Sequence[float]], low: str, high: str, alt: str) -> str:
    """A picture of numbers in colours, with the colours' range below it.

    Args:
        shares: the numbers, row by row, each from 0, the lowest colour, to 1
        low, high: values of the lowest and the highest colour in words
        alt: alternative text
    """
    from PIL import Image

    height, width = len(shares), len(shares[0])
    image = Image.frombytes('P', (width, height), bytes(round(255 * share) for row in shares for share in row))
    image.putpalette(b''.join(map(_colour, range(256))))
    file = io.BytesIO()
    image.save(file, 'PNG', optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    gradient = ','.join(f'#{colour}' for colour in COLOURS)
    scale = f'<span style="flex:1;height:9px;background:linear-gradient(90deg,{gradient})"></span>'
    return (
        f'<img alt="{text(alt, 200)}" width="{width}" height="{height}" src="data:image/png;base64,{data}" '
        f'style="max-width:100%;margin:0"/><div style="display:flex;gap:6px;align-items:center;max-width:{width}px;'
        f'min-width:150px">{text(low)}{scale}{text(high)}</div>'
    )


def _colour(level: int) -> bytes:
    """The colour of a level from 0 to 255, red, green and blue."""
    first, share = divmod(level * (len(COLOURS) - 1), 255)
    ends = (bytes.fromhex(COLOURS[min(place, len(COLOURS) - 1)]) for place in (first, first + 1))
    return bytes(round(a + share / 255 * (b - a)) for a, b in zip(*ends, strict=True))
