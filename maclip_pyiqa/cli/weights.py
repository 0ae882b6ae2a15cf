"""`maclip-pyiqa weights`: where CLIP's weights are on this machine, and downloading them."""

from __future__ import annotations

import argparse
import os

from ..backbone.names import architecture
from .common import NO_WEIGHTS, OK, Parents, UsageError, say

__all__ = ['add', 'run']


def add(commands: argparse._SubParsersAction, parents: Parents) -> None:
    """Add the parser of this command."""
    weights = commands.add_parser(
        'weights',
        parents=[parents.backbone],
        help="CLIP's weights: what is on this machine, and where",
        description="Lists CLIP's weights on this machine, where they are and whether their checksums match. Exit code "
        '3 if those of --backbone and --pretrained are not among them.',
    )
    weights.add_argument('--fetch', action='store_true', help='download them if missing, or say why not and how')
    weights.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List weights, download those that are missing; -> exit code."""
    if args.backbone == 'demo' or args.backbone.startswith(('local-dir:', 'hf-hub:')):
        raise UsageError(f'{args.backbone!r} brings its own weights; expected an architecture such as RN50')
    import open_clip

    from ..backbone.weights import find, places, read

    name = architecture(args.backbone)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not tags:
        raise UsageError(f'open_clip has no weights for {args.backbone!r}; expected an architecture such as RN50')
    if args.pretrained not in tags:
        if not os.path.exists(args.pretrained):
            raise UsageError(f'{args.pretrained!r} is neither a file nor one of the tags {", ".join(tags)}')
        print(f'ok\t{args.pretrained}\t{len(read(args.pretrained))} tensors')
        return OK

    chosen = places(name, args.pretrained)
    if args.fetch and not any(state in ('ok', 'unchecked') for _, state in chosen):
        find(name, args.pretrained)
        chosen = places(name, args.pretrained)
    listed = {path: (state, name, args.pretrained) for path, state in chosen}
    for other, tag in open_clip.list_pretrained():
        for path, state in places(other, tag):
            if state != 'missing':
                listed.setdefault(path, (state, other, tag))
    for path, (state, *which) in listed.items():
        print(f'{state}\t{" ".join(which)}\t{path}')
    if any(state in ('ok', 'unchecked') for _, state in chosen):
        return OK
    say(f'{args.backbone} {args.pretrained} is not on this machine; --fetch downloads it, or says how to get it')
    return NO_WEIGHTS
