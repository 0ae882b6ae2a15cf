"""`maclip-pyiqa map`: a figure of one image's quality map, cues and attributes."""

from __future__ import annotations

import argparse

from .._files import one_line
from .._lazy import need
from ..metric.prompts import CUES, attribute_names
from ..scoring.find import check_file
from ..scoring.text import escape_path
from .common import FAILED, OK, Parents, UsageError, load_device, load_metric, save_figure, say

DESCRIPTION = """\
Draws an image, its quality map, its attributes and its cues into one figure, and prints its score. Needs matplotlib.
"""


def add(commands: argparse._SubParsersAction, parents: Parents) -> None:
    """Add the parser of this command."""
    help_ = 'draw the quality map of an image'
    parser = commands.add_parser('map', parents=[parents.metric], help=help_, description=DESCRIPTION)
    parser.add_argument('image', metavar='IMAGE')
    parser.add_argument('-o', '--output', required=True, metavar='FILE', help='.png, .pdf, .svg, ...')
    of = "'q' (default), 'q_sim', 'q_mag', 'w_sim', or an attribute: 'sharp'"
    parser.add_argument('--of', default='q', metavar='NAME', help=of)


def run(args: argparse.Namespace) -> int:
    """Draw a figure and print the score; -> exit code."""
    need('map', 'matplotlib', extra='plot')
    known = [*CUES, *attribute_names(args.prompts)]
    if args.of not in known:
        raise UsageError(f'--of: no map of {args.of!r}; expected one of {", ".join(known)}')
    try:
        check_file(args.image)  # before the imports, which take seconds

        from ..scoring.read import read_image

        image = read_image(args.image, args.max_pixels)
    except (OSError, ValueError) as error:
        say(f'{escape_path(args.image)}: {one_line(error)}')
        return FAILED
    import torch

    device = load_device(args.device)
    metric = load_metric(args, device)
    with torch.inference_mode():
        try:
            analysis = metric.analyze([image.to(device)])[0]
        except ValueError as error:  # a shape that is refused
            say(f'{escape_path(args.image)}: {one_line(error).removeprefix("image 0: ")}')
            return FAILED
        try:
            save_figure(image, analysis, args.output, args.of, metric.config)
        except (OSError, ValueError) as error:
            raise UsageError(f'{args.output}: {one_line(error)}') from error
    print(f'{escape_path(args.image)}\t{float(analysis.q):.6f}')
    return OK
