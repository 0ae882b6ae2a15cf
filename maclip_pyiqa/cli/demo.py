"""`maclip-pyiqa demo`: what the metric does, on one photo, without a download."""

from __future__ import annotations

import argparse
import os

from .._files import one_line
from .._lazy import need
from ..backbone import NOTE
from ..demo import PHOTO
from ..scoring.find import check_file
from ..scoring.text import escape_path
from .common import FAILED, OK, Parents, UsageError, say

DESCRIPTION = """\
Degrades a photo (reduced to 640 pixels) by blur, noise, JPEG, and blur of its right half, each in three steps; scores
each step with the demonstration backbone in this package, and draws images, scores, maps, cues and attributes into
DIR/demo.png; the numbers go to DIR/demo.csv. The demonstration backbone is a tiny one, trained on a few photos. Its
scores are not those of MA-CLIP. Needs matplotlib.
"""


def add(commands: argparse._SubParsersAction, parents: Parents) -> None:
    """Add the parser of this command."""
    help_ = 'see it at work on one photo, without a download'
    parser = commands.add_parser('demo', help=help_, description=DESCRIPTION)
    parser.add_argument('image', nargs='?', metavar='IMAGE', help='default: a photo in this package')
    parser.add_argument('-o', '--output', default='maclip_demo', metavar='DIR', help='default: %(default)s')


def run(args: argparse.Namespace) -> int:
    """Write demo.png and demo.csv, print the scores; -> exit code."""
    need('demo', 'matplotlib', extra='plot')
    path = args.image or str(PHOTO)
    try:
        check_file(path)  # before the imports, which take seconds

        from PIL import Image

        from ..scoring.read import read_image

        photo = Image.fromarray(read_image(path).permute(1, 2, 0).mul(255).round().byte().numpy())
    except (OSError, ValueError) as error:
        say(f'{escape_path(path)}: {one_line(error)}')
        return FAILED
    from pathlib import Path

    from ..demo.showcase import run as show

    try:
        rows = show(photo, Path(args.output))
    except OSError as error:
        raise UsageError(f'-o {args.output}: {one_line(error)}') from error
    except ValueError as error:  # a shape that is refused
        say(f'{escape_path(path)}: {one_line(error)}')
        return FAILED
    say(f'scores are from the {NOTE}')
    print('\t'.join(rows[0]))
    for row in rows:
        print('\t'.join(f'{value:.3f}' if isinstance(value, float) else str(value) for value in row.values()))
    print(os.path.join(args.output, 'demo.png'))
    return OK
