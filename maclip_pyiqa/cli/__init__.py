"""Command line: scores of many image files, maps, and where the weights are."""

from __future__ import annotations

import argparse
import contextlib
import csv
import glob
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

from .. import __version__

# torch and what stands on it take seconds to import, so that they are where they are needed
if TYPE_CHECKING:
    from torch import Tensor

    from ..metric.analysis import Analysis

__all__ = ['main']

from . import ablate, evaluate, fit
from .common import FAILED, INTERRUPTED, NO_WEIGHTS, OK, USAGE, UsageError

SUFFIXES = (
    *('.apng', '.avif', '.avifs', '.bmp', '.dib', '.gif', '.icns', '.ico', '.j2c', '.j2k', '.jfif', '.jp2', '.jpc'),
    *('.jpe', '.jpeg', '.jpf', '.jpg', '.jpx', '.mpo', '.pbm', '.pcx', '.pgm', '.png', '.pnm', '.ppm', '.psd', '.qoi'),
    *('.ras', '.sgi', '.tga', '.tif', '.tiff', '.webp'),
)

GROUP_PIXELS = 16_000_000  # images wait for each other until there are this many pixels, or --batch images

DESCRIPTION = """\
MA-CLIP: quality of images without a reference and without training. Higher is better; about 0 to about 1.

  maclip-pyiqa demo                                 what it does, in one picture, without a download
  maclip-pyiqa score photos/ --csv scores.csv       every image in a folder, and below it
  maclip-pyiqa map photo.jpg -o map.png             where the image is good and where it is not
  maclip-pyiqa weights --fetch                      CLIP's weights: what is here, and getting them
"""

SCORE = """\
Scores images. Results go to standard output, `path<TAB>score`, one image a line, in the order of the input; progress
and errors go to standard error, and with --details the names of the columns. In these lines a tab, line break or
backslash in a path is written as \\t, \\n, \\r, \\\\; CSV and JSON hold all paths as they are.

PATH is a file, a folder (searched with all its folders; hidden files and files that are no images by their suffix are
left out; those without a suffix are judged by their content), a pattern such as 'photos/**/*.jpg', or - for paths on
standard input, one a line.
"""

CODES = """\
exit codes:
  0    all images were scored
  1    some could not be read or scored: see standard error, or the column `error`
  2    wrong use, no images found, or a missing extra
  3    no weights
  130  interrupted; what was finished is written, and --resume goes on from there
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; `maclip-pyiqa --help` describes it.

    Args:
        argv: arguments without the program's name; None: the process's own

    Returns:
        the exit code: 0 all scored, 1 some files failed, 2 wrong use, 3 no weights, 130 interrupted
    """
    for stream in (sys.stdout, sys.stderr):  # names that are not text come out as the bytes they are
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(encoding='utf-8', errors='surrogateescape')
    try:
        args = _parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code
    try:
        return args.run(args)
    except UsageError as error:
        _say(f'error: {error}')
        return USAGE
    except KeyboardInterrupt:
        _say('interrupted')
        return INTERRUPTED
    except BrokenPipeError:  # the reader of standard output has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except RuntimeError as error:
        from ..backbone.weights import WeightsError

        if not isinstance(error, WeightsError):
            raise
        _say(f'error: {error}')
        return NO_WEIGHTS


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser('maclip-pyiqa', description=DESCRIPTION, epilog=CODES, formatter_class=raw)
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(metavar='COMMAND', required=True)

    demo = commands.add_parser(
        'demo',
        help='see it at work on one photo, without a download',
        description='Degrades a photo (reduced to 640 pixels) in three steps each of blur, noise, JPEG and blur of its '
        'right half, scores each step with the demonstration backbone in this package, '
        'and draws images, scores, maps, cues and attributes into DIR/demo.png; the numbers go to DIR/demo.csv. '
        'The demonstration backbone is a tiny one, trained on a few photos. Its scores are not those of MA-CLIP. '
        'Needs matplotlib.',
    )
    demo.add_argument('image', nargs='?', metavar='IMAGE', help='default: a photo in this package')
    demo.add_argument('-o', '--output', default='maclip_demo', metavar='DIR', help='default: %(default)s')
    demo.set_defaults(run=_demo)

    backbone = argparse.ArgumentParser(add_help=False)
    backbone.add_argument(
        '--backbone',
        default='RN50',
        metavar='NAME',
        help="open_clip architecture, 'local-dir:PATH', 'hf-hub:ID', or 'demo', which needs no download and is not the "
        'published metric (default: RN50)',
    )
    backbone.add_argument(
        '--pretrained', default='openai', metavar='TAG|FILE', help='open_clip tag or file of weights (default: openai)'
    )
    metric = argparse.ArgumentParser(add_help=False, parents=[backbone])
    metric.add_argument(
        '--prompts',
        type=_prompts,
        default='maclip',
        metavar='NAME|FILE.yml',
        help="pairs of prompts: 'maclip' (default), 'clipiqa', one attribute such as 'sharp', or a file with a list of "
        '[positive, negative]',
    )
    metric.add_argument('--device', help='such as cpu, cuda or cuda:1 (default: cuda where there is one, else cpu)')

    score = commands.add_parser(
        'score', parents=[metric], help='score images', description=SCORE, epilog=CODES, formatter_class=raw
    )
    score.add_argument('paths', nargs='+', metavar='PATH', help='file, folder, pattern, or - for a list on input')
    score.add_argument('--csv', metavar='FILE', help='write a CSV table in place of plain lines; - for standard output')
    score.add_argument('--json', metavar='FILE', help='write JSON, one object a line; - for standard output')
    score.add_argument('--details', action='store_true', help='cues, weight and attributes too (means over the views)')
    score.add_argument('--maps', metavar='DIR', help='draw a map of each image, DIR/NAME.png (needs matplotlib)')
    score.add_argument(
        '--metrics', default='', metavar='A,B', help="pyiqa's no-reference metrics beside ours, such as clipiqa,niqe"
    )
    score.add_argument('--sort', action='store_true', help='best first')
    score.add_argument('--resume', action='store_true', help='go on with --csv FILE: skip what has a score there')
    score.add_argument('--batch', type=_count(1), default=16, metavar='N', help='most images at once (default: 16)')
    score.add_argument(
        '--workers',
        type=_count(0),
        default=min(4, os.cpu_count() or 1),
        metavar='N',
        help='processes that read images; 0: none but this one (default: %(default)s)',
    )
    score.set_defaults(run=_score)

    draw = commands.add_parser(
        'map',
        parents=[metric],
        help='draw the map of an image',
        description='Draws an image, the map of its quality over it, its attributes and cues, and prints its score. '
        'Needs matplotlib.',
    )
    draw.add_argument('image', metavar='IMAGE')
    draw.add_argument('-o', '--output', required=True, metavar='FILE', help='.png, .pdf, .svg, ...')
    draw.add_argument(
        '--of', default='q', metavar='NAME', help="'q' (default), 'q_sim', 'q_mag', 'w_sim', or an attribute: 'sharp'"
    )
    draw.set_defaults(run=_map)

    weights = commands.add_parser(
        'weights',
        parents=[backbone],
        help="CLIP's weights: what is on this machine, and where",
        description="Lists CLIP's weights on this machine, where they are and whether their checksums fit. Exit code 3 "
        'if those that --backbone and --pretrained name are not among them.',
    )
    weights.add_argument('--fetch', action='store_true', help='get them if they are not here, or say why not and how')
    weights.set_defaults(run=_weights)
    for command in (evaluate, ablate, fit):
        command.add(commands, None)
    return parser


def _count(least: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f'a whole number, at least {least}, is wanted, not {text!r}')
        return int(text)

    return count


def _prompts(text: str) -> tuple[tuple[str, str], ...]:
    from ..metric.prompts import read_prompts

    try:
        return read_prompts(text)
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _say(message: str) -> None:
    """A line on standard error, above the progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(f'maclip-pyiqa: {message}', file=sys.stderr)


# --- finding and reading images ----------------------------------------------------------------------------------


def find_images(paths: Iterable[str], stdin: IO[bytes] | None = None) -> list[str]:
    """Files that the arguments name, each once, in their order; those of a folder sorted by name.

    What is named itself is taken as it is, whether it exists or not, so that what is wrong with it can be reported.

    Args:
        paths: files, folders, patterns, or '-' for paths on standard input, one a line
        stdin: in place of the process's own

    Raises:
        UsageError: a pattern that fits nothing, or no images at all
    """
    found: list[str] = []
    for path in paths:
        if path == '-':
            lines = (stdin or sys.stdin.buffer).read().split(b'\n')
            names = [os.fsdecode(line.removesuffix(b'\r')) for line in lines]
            for name in filter(None, names):
                found += _walk(name) if os.path.isdir(name) else [name]
        elif os.path.isdir(path):
            found += _walk(path)
        elif glob.has_magic(path) and not os.path.lexists(path):
            matches = sorted(glob.glob(path, recursive=True))
            if not matches:
                raise UsageError(f'nothing fits the pattern {path!r}')
            for match in matches:
                found += _walk(match) if os.path.isdir(match) else [match] * _is_image(match)
        else:
            found.append(path)
    if not found:
        raise UsageError('no images found')
    return list(dict.fromkeys(found))


def _walk(folder: str) -> Iterator[str]:
    closed: list[str] = []  # folders that cannot be read: passed on, so that reading them reports it
    for parent, folders, files in os.walk(folder, onerror=lambda error: closed.append(error.filename)):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        for name in sorted(files):
            path = os.path.join(parent, name)
            if not name.startswith('.') and _is_image(path):
                yield path
    yield from closed


def _is_image(path: str) -> bool:
    # by suffix first: camera raw files and others pass for TIFF, and would give the score of a thumbnail
    suffix = os.path.splitext(path)[1].lower()
    if suffix or not os.path.isfile(path):
        return suffix in SUFFIXES
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.format not in ('BUFR', 'GRIB', 'HDF5', 'MPEG')
    except Exception:  # whatever a reader stumbles over, it is none of its images
        return False


class _Files:
    """Data set of (path, pixels or None, error), for torch's DataLoader."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, Any, str]:
        from ..scoring.read import read_pixels

        path = self.paths[index]
        try:
            return path, read_pixels(path), ''
        except Exception as error:
            return path, None, _line(error)


def _line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ' '.join(text.split()) or type(error).__name__


def _same(item):
    # arrays as they are: they travel through a pipe, so that a small /dev/shm is no limit
    return item


def _ignore_interrupts(worker: int) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sees it and ends the workers


def _read(paths: list[str], workers: int) -> Iterator[tuple[str, Any, str]]:
    from torch.utils.data import DataLoader

    workers = min(workers, len(paths))
    yield from DataLoader(
        _Files(paths), batch_size=None, num_workers=workers, collate_fn=_same, worker_init_fn=_ignore_interrupts
    )


def _groups(items: Iterable[tuple[str, Any, str]], batch: int) -> Iterator[list[tuple[str, Any, str]]]:
    """Consecutive items, up to `batch` images or GROUP_PIXELS pixels (or one larger image)."""
    group, pixels = [], 0
    for item in items:
        size = item[1].shape[0] * item[1].shape[1] if item[1] is not None else 0
        if group and (len(group) == batch or pixels + size > GROUP_PIXELS):
            yield group
            group, pixels = [], 0
        group.append(item)
        pixels += size
    if group:
        yield group


# --- tables ------------------------------------------------------------------------------------------------------


class _Table:
    """Rows as plain lines, CSV or JSON, in a file or on standard output, flushed as they come."""

    def __init__(self, path: str, kind: str, columns: list[str]) -> None:
        self.path, self.kind, self.columns = os.path.realpath(path) if path != '-' else path, kind, columns
        self.stream = path == '-' or (os.path.exists(path) and not os.path.isfile(path))  # cannot be written anew

    def fill(self, rows: list[dict]) -> None:
        """Have exactly these rows, so far. A file is replaced at once: an interruption leaves the old or the new."""
        try:
            if self.stream:
                self.file = sys.stdout if self.path == '-' else self._open(self.path, 'w')
                self._put(rows, header=True)
                return
            self.file = self._open(self.path + '.part', 'w')
            with self.file:
                self._put(rows, header=True)
            os.replace(self.path + '.part', self.path)
            self.file = self._open(self.path, 'a')
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UsageError(f'{self.path} cannot be written: {_line(error)}') from error

    def write(self, row: dict) -> None:
        self._put([row])

    @staticmethod
    def _open(path: str, mode: str) -> IO[str]:
        return open(path, mode, newline='', encoding='utf-8', errors='surrogateescape')

    def _put(self, rows: list[dict], header: bool = False) -> None:
        from tqdm import tqdm

        texts = [[_text(row.get(column)) for column in self.columns] for row in rows]
        with tqdm.external_write_mode(self.file, nolock=True):  # takes the progress bar out of a terminal's way
            if self.kind == 'csv':
                csv.writer(self.file, lineterminator='\n').writerows([self.columns] * header + texts)
            elif self.kind == 'json':
                objects = ({column: _round(row.get(column)) for column in self.columns} for row in rows)
                self.file.writelines(json.dumps(line) + '\n' for line in objects)
            else:
                scored = [text for text in texts if text[1]]
                self.file.writelines('\t'.join([_escape(path), *values]) + '\n' for path, *values in scored)
            self.file.flush()


def _text(value: str | float | None) -> str:
    return '' if value is None else value if isinstance(value, str) else f'{value:.6f}'


def _round(value: str | float | None) -> str | float | None:
    return round(value, 6) if isinstance(value, float) else value  # as in the other tables


def _escape(path: str) -> str:
    """A path in one line of plain text."""
    for plain, escaped in (('\\', '\\\\'), ('\t', '\\t'), ('\n', '\\n'), ('\r', '\\r')):
        path = path.replace(plain, escaped)
    return path


def _finished(path: str, columns: list[str]) -> list[dict]:
    """Rows of an earlier table that have a score; a last row that is cut off, as by a full disk, is none."""
    try:
        with open(path, newline='', encoding='utf-8-sig', errors='surrogateescape') as file:  # as Excel saves it too
            lines = [line for line in csv.reader(file) if line]
    except FileNotFoundError:
        return []
    except (OSError, csv.Error) as error:
        raise UsageError(f'{path} cannot be resumed: {_line(error)}') from error
    if lines and lines[0] != columns:
        raise UsageError(
            f'{path} cannot be resumed: its columns are {",".join(lines[0])}, those of this call {",".join(columns)}'
        )
    rows = []
    for line in lines[1:]:
        with contextlib.suppress(ValueError):  # cut off: too few fields, or half a number
            row = dict(zip(columns, line, strict=True))
            rows.append(row | {c: float(row[c]) if row[c] else None for c in columns if c not in ('path', 'error')})
    return [row for row in rows if row['score'] is not None]


# --- commands ----------------------------------------------------------------------------------------------------


def _score(args: argparse.Namespace) -> int:
    if args.resume and args.csv in (None, '-'):
        raise UsageError('--resume needs --csv FILE, the table to go on with')
    if args.csv == args.json == '-':
        raise UsageError('only one of --csv and --json can go to standard output')
    paths = find_images(args.paths)
    scorer = _Scorer(args, paths)

    columns = ['path', 'score', *scorer.columns]
    done = _finished(args.csv, [*columns, 'error']) if args.resume else []
    skip = {row['path'] for row in done}
    todo = [path for path in paths if path not in skip]
    if todo:
        scorer.load()  # fails before any table is touched

    wanted = {'csv': args.csv, 'json': args.json}
    tables = [_Table(path, kind, [*columns, 'error']) for kind, path in wanted.items() if path]
    tables = tables or [_Table('-', 'plain', columns)]
    live = [table for table in tables if not (args.sort and table.stream)]
    if len(columns) > 2 and tables[0].kind == 'plain':
        _say('columns: ' + ', '.join(columns))
    for table in live:
        table.fill(done)

    from tqdm import tqdm

    rows = list(done)
    try:
        for row in tqdm(scorer.rows(todo), total=len(todo), unit=' images', disable=None, file=sys.stderr):
            rows.append(row)
            for table in live:
                table.write(row)
            if row['error']:
                _say(f'{_escape(row["path"])}: {row["error"]}')
    finally:
        place = {path: position for position, path in enumerate(paths)}
        rows.sort(key=lambda row: place.get(row['path'], -1))
        if args.sort:
            rows.sort(key=lambda row: -math.inf if row['score'] is None else row['score'], reverse=True)
        for table in tables:
            if args.sort or (args.resume and not table.stream):
                table.fill(rows)
    failed = sum(bool(row['error']) for row in rows if row['path'] not in skip)
    if failed:
        _say(f'{failed} of {len(todo)} images failed')
    return FAILED if failed else OK


class _Scorer:
    """Rows of images: score, details, other metrics; and maps drawn on the way."""

    def __init__(self, args: argparse.Namespace, paths: list[str]) -> None:
        self.args = args
        self.names = list(dict.fromkeys(name.strip() for name in args.metrics.split(',') if name.strip()))
        self.columns = list(self.names)
        if args.details:
            from ..metric.prompts import attribute_names

            self.columns = ['q_sim', 'q_mag', 'w_sim', *attribute_names(args.prompts), *self.names]
            taken = [c for c in self.columns if self.columns.count(c) > 1 or c in ('path', 'score', 'error')]
            if taken:
                raise UsageError(f'--details has no column for {taken[0]!r}: that name is taken')
        if args.maps is not None:
            _need_matplotlib('--maps')
            self.root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
        if self.names:
            from pyiqa.default_model_configs import DEFAULT_CONFIGS

            for name in self.names:
                if DEFAULT_CONFIGS.get(name, {}).get('metric_mode') != 'NR':
                    raise UsageError(f'{name!r} is no metric of pyiqa that works without a reference')

    def load(self) -> None:
        import torch

        self.device = _device(self.args.device)
        self.metric = _metric(self.args, self.device)
        self.others = {}
        for name in self.names:
            import pyiqa

            from ..backbone.weights import WeightsError

            try:
                with contextlib.redirect_stdout(sys.stderr), torch.random.fork_rng():
                    self.others[name] = pyiqa.create_metric(name, device=self.device)
            except Exception as error:  # downloads fail in all kinds of ways
                raise WeightsError(f"pyiqa's metric {name!r} cannot be loaded: {_line(error)}") from error

    def rows(self, paths: list[str]) -> Iterator[dict]:
        import torch

        from ..scoring.read import to_tensor

        for group in _groups(_read(paths, self.args.workers), self.args.batch):
            images = [to_tensor(pixels).to(self.device) for _, pixels, _ in group if pixels is not None]
            with torch.inference_mode():
                scored = zip(images, self._analyze(images), strict=True)
            for path, pixels, error in group:
                if pixels is None:
                    yield {'path': path, 'score': None, 'error': error}
                    continue
                with torch.inference_mode():
                    row = self._row(path, *next(scored))
                yield row

    def _analyze(self, images: list[Tensor]) -> list[Analysis | Exception]:
        try:
            return self.metric.analyze(images) if images else []
        except RuntimeError as error:  # no memory, as a rule: what fits alone gets its score
            return [error] if len(images) == 1 else [self._analyze([image])[0] for image in images]

    def _row(self, path: str, image: Tensor, analysis: Analysis | Exception) -> dict:
        row = {'path': path, 'score': None, 'error': ''}
        if isinstance(analysis, Exception):
            return row | {'error': _line(analysis)}
        row['score'] = float(analysis.q)
        cues = {name: float(getattr(analysis, name).mean()) for name in ('q_sim', 'q_mag', 'w_sim')}
        row |= cues | dict(zip(analysis.names, analysis.attributes.mean((0, 1)).tolist(), strict=True))
        errors = []
        for name, metric in self.others.items():
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    row[name] = float(metric(image[None]))
            except Exception as error:  # each metric has limits of its own, such as the smallest image
                errors.append(f'{name}: {_line(error)}')
        if self.args.maps is not None:
            name = os.path.relpath(os.path.abspath(path), self.root) + '.png'
            try:
                _draw(image, analysis, os.path.join(self.args.maps, name), 'q', self.args.backbone)
            except OSError as error:
                errors.append(f'map: {_line(error)}')
        for name in [c for c, value in row.items() if isinstance(value, float) and not math.isfinite(value)]:
            row[name] = None
            errors.append(f'{name} is not a finite number')
        return row | {'error': '; '.join(errors)}


def _map(args: argparse.Namespace) -> int:
    _need_matplotlib('map')
    import torch

    from ..scoring.read import read_image

    device = _device(args.device)
    try:
        image = read_image(args.image)
    except (OSError, ValueError) as error:
        _say(f'{_escape(args.image)}: {_line(error)}')
        return FAILED
    metric = _metric(args, device)
    with torch.inference_mode():
        analysis = metric.analyze([image.to(device)])[0]
        try:
            analysis.quality_map(args.of)
        except ValueError as error:
            raise UsageError(f'--of: {error}') from error
        try:
            _draw(image, analysis, args.output, args.of, args.backbone)
        except (OSError, ValueError) as error:
            raise UsageError(f'{args.output}: {_line(error)}') from error
    print(f'{_escape(args.image)}\t{float(analysis.q):.6f}')
    return OK


def _demo(args: argparse.Namespace) -> int:
    _need_matplotlib('demo')
    from pathlib import Path

    from PIL import Image

    from .. import demo
    from ..scoring.read import read_image

    path = args.image or str(demo.PHOTO)
    try:
        pixels = read_image(path).permute(1, 2, 0).mul(255).round().byte().numpy()
    except (OSError, ValueError) as error:
        _say(f'{_escape(path)}: {_line(error)}')
        return FAILED
    try:
        columns, rows = demo.run(Image.fromarray(pixels), Path(args.output))
    except OSError as error:
        raise UsageError(f'-o {args.output}: {_line(error)}') from error
    _say(f'scores of the {demo.NOTE}')
    print('\t'.join(columns))
    for kind, step, *values in rows:
        print('\t'.join([kind, str(step), *(f'{value:.3f}' for value in values)]))
    print(os.path.join(args.output, 'demo.png'))
    return OK


def _weights(args: argparse.Namespace) -> int:
    import open_clip

    from ..backbone.weights import architecture, find, places, read

    if args.backbone == 'demo' or args.backbone.startswith(('local-dir:', 'hf-hub:')):
        raise UsageError(f'{args.backbone!r} brings its own weights; name an architecture such as RN50')
    name = architecture(args.backbone)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not tags:
        raise UsageError(f'{args.backbone!r} is no architecture with weights in open_clip')
    if args.pretrained not in tags:
        if not os.path.exists(args.pretrained):
            raise UsageError(f'{args.pretrained!r} is neither a file nor one of the tags {", ".join(tags)}')
        print(f'ok\t{args.pretrained}\t{len(read(args.pretrained))} tensors')
        return OK

    wanted = places(name, args.pretrained)
    if args.fetch and not any(state in ('ok', 'unchecked') for _, state in wanted):
        find(name, args.pretrained)
        wanted = places(name, args.pretrained)
    listed = {path: (state, name, args.pretrained) for path, state in wanted}
    for other, tag in open_clip.list_pretrained():
        for path, state in places(other, tag):
            if state != 'missing':
                listed.setdefault(path, (state, other, tag))
    for path, (state, *which) in listed.items():
        print(f'{state}\t{" ".join(which)}\t{path}')
    if any(state in ('ok', 'unchecked') for _, state in wanted):
        return OK
    _say(f'{args.backbone} {args.pretrained} is not on this machine; --fetch gets it, or says how')
    return NO_WEIGHTS


def _device(name: str | None):
    import torch

    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f'device {name!r} cannot be used: {_line(error)}') from error
    return device


def _metric(args: argparse.Namespace, device):
    from ..metric.maclip import MACLIP

    if args.backbone == 'demo':
        from ..demo import NOTE

        _say(f'scores are of the {NOTE}')
    try:
        return MACLIP(backbone=args.backbone, pretrained=args.pretrained, prompts=args.prompts).to(device)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _need_matplotlib(what: str) -> None:
    from importlib.util import find_spec

    if find_spec('matplotlib') is None:
        raise UsageError(f"{what} needs matplotlib: pip install 'maclip_pyiqa[plot]'")


def _draw(image: Tensor, analysis: Analysis, path: str, of: str, backbone: str) -> None:
    from ..demo import NOTE
    from ..report.figures import plot_analysis

    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    plot_analysis(image, analysis, of, NOTE if backbone == 'demo' else '').savefig(path)
