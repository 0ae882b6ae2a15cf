"""`maclip-pyiqa weights`: where CLIP's weights are on this machine, downloading them, and known answers."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from ..backbone.names import architecture
from .common import FAILED, NO_WEIGHTS, OK, Parents, UsageError, say, usage_errors

DESCRIPTION = """\
Lists CLIP's weights on this machine, where they are and whether their checksums match. Exit code 3 if those of
--backbone and --pretrained are not among them. With --verify, scores four generated images and compares with published
values: exit code 0 if all agree, 1 if not.
"""


def add(commands: argparse._SubParsersAction, parents: Parents) -> None:
    """Add the parser of this command."""
    help_ = "CLIP's weights: what is on this machine, and where"
    parser = commands.add_parser('weights', parents=[parents.backbone], help=help_, description=DESCRIPTION)
    parser.add_argument('--fetch', action='store_true', help='download them if missing, or say why not and how')
    verify = "check that these weights give the published scores of OpenAI's RN50"
    parser.add_argument('--verify', action='store_true', help=verify)
    parser.add_argument('--record', metavar='FILE.json', help='write scores of these weights, to compare with others')


def run(args: argparse.Namespace) -> int:
    """List weights, download those that are missing, or compare with known answers; -> exit code."""
    if args.verify or args.record:
        return _verify(args)
    if args.backbone == 'demo' or args.backbone.startswith(('local-dir:', 'hf-hub:')):
        raise UsageError(f'{args.backbone!r} brings its own weights; expected an architecture such as RN50')
    import open_clip

    from ..backbone.weights import find, local_files, read

    name = architecture(args.backbone)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not tags:
        raise UsageError(f'open_clip has no weights for {args.backbone!r}; expected an architecture such as RN50')
    if args.pretrained not in tags:
        if not os.path.exists(args.pretrained):
            raise UsageError(f'{args.pretrained!r} is neither a file nor one of the tags {", ".join(tags)}')
        print(f'ok\t{args.pretrained}\t{len(read(args.pretrained))} tensors')
        return OK

    chosen = local_files(name, args.pretrained)
    if args.fetch and not any(state in ('ok', 'unchecked') for _, state in chosen):
        find(name, args.pretrained)
        chosen = local_files(name, args.pretrained)
    listed = {path: (state, name, args.pretrained) for path, state in chosen}
    for other, tag in open_clip.list_pretrained():
        for path, state in local_files(other, tag):
            if state != 'missing':
                listed.setdefault(path, (state, other, tag))
    for path, (state, *which) in listed.items():
        print(f'{state}\t{" ".join(which)}\t{path}')
    if any(state in ('ok', 'unchecked') for _, state in chosen):
        return OK
    say(f'{args.backbone} {args.pretrained} is not on this machine; --fetch downloads it, or says how to get it')
    return NO_WEIGHTS


def _verify(args: argparse.Namespace) -> int:
    if args.record and not os.path.isdir(os.path.dirname(os.path.abspath(args.record))):
        raise UsageError(f'--record {args.record}: no such folder to write to')
    from ..evaluation.known_answers import record, verify

    code = OK
    with usage_errors(ValueError, OSError):
        if args.verify:
            verification = verify(args.backbone, args.pretrained)
            print('image\tvalue\tpublished\tours\trelative difference\tverdict')
            for check in verification.checks:
                numbers = (check.published, check.ours, check.difference)
                texts = ['-' if number is None else f'{number:.6g}' for number in numbers]
                print('\t'.join([check.image, check.value, *texts, check.verdict]))
            for note in verification.notes:
                say(note)
            say('all values agree' if verification.ok else 'NOT verified: see the column `verdict`')
            code = OK if verification.ok else FAILED
        if args.record:
            text = json.dumps(record(args.backbone, args.pretrained), indent=2)
            Path(args.record).write_text(text + '\n', 'utf-8')
    return code
