"""What the commands share: exit codes, messages, options, and loading the metric. Imports nothing heavy."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .._files import one_line
from ..backbone.names import is_known
from ..metric.options import DEFAULTS, ENTRIES, parse
from ..scoring.find import MAX_PIXELS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..metric import MACLIP, Analysis
    from ..scoring import Reference

OK, FAILED, USAGE, NO_WEIGHTS, INTERRUPTED = 0, 1, 2, 3, 130

CODES = """\
exit codes:
  0    all images were scored
  1    some could not be read or scored: see standard error, or the column `error`
  2    wrong use, nothing to score, or a missing extra
  3    no weights
  130  interrupted
"""

# options of the metric that have a flag of their own
FLAGS = ('backbone', 'pretrained', 'prompts', 'max_views', 'head')
OTHERS = tuple(name for name, e in ENTRIES.items() if e.metadata['moves'] != 'nothing' and name not in FLAGS)
WORKERS = min(4, os.cpu_count() or 1)


INCOMPLETE = 'the run that writes these scores is not complete; rerun its command, and then this one'


class UsageError(Exception):
    """Wrong use of a command: exit code 2. The message says what is wrong, what is expected and what to do."""


class Parents(NamedTuple):
    """Parsers with shared options, for `add_parser(parents=[...])`."""

    backbone: argparse.ArgumentParser  # --backbone, --pretrained
    options: argparse.ArgumentParser  # those, --prompts, --max-views, --option
    metric: argparse.ArgumentParser  # those, --max-pixels, --device
    files: argparse.ArgumentParser  # --metrics, --batch, --workers
    page: argparse.ArgumentParser  # --thumbnails
    reference: argparse.ArgumentParser  # --reference


def parent_parsers() -> Parents:
    """The options that several commands have."""
    backbone = argparse.ArgumentParser(add_help=False)
    _add_flag(backbone, 'backbone', 'RN50', 'NAME', _backbone)
    _add_flag(backbone, 'pretrained', 'openai', 'TAG|FILE')
    options = argparse.ArgumentParser(add_help=False, parents=[backbone])
    _add_flag(options, 'prompts', 'maclip', 'NAME,...|FILE.yml', _prompts)
    _add_flag(options, 'max_views', None, 'N', whole_number(1))
    _add_flag(options, 'head', None, 'FILE')
    other = (
        f'another option of the metric, such as cue=sim; may be repeated; NAME is one of {", ".join(OTHERS)}: see '
        'docs/metric.md'
    )
    options.add_argument('--option', type=_option, action='append', default=[], metavar='NAME=VALUE', help=other)
    metric = argparse.ArgumentParser(add_help=False, parents=[options])
    pixels = (
        'refuse images of more than N pixels, width x height, which take about 20 bytes a pixel to score '
        '(default: %(default)s)'
    )
    metric.add_argument('--max-pixels', type=whole_number(1), default=MAX_PIXELS, metavar='N', help=pixels)
    metric.add_argument('--device', help='such as cpu, cuda or cuda:1 (default: cuda if available, else cpu)')
    files = argparse.ArgumentParser(add_help=False)
    metrics = "pyiqa's no-reference metrics beside ours, such as clipiqa,niqe"
    files.add_argument('--metrics', type=split_names, default=[], metavar='A,B', help=metrics)
    batch = 'at most N images at once (default: %(default)s)'
    files.add_argument('--batch', type=whole_number(1), default=16, metavar='N', help=batch)
    workers = (
        'processes that read images, once reading the rest would take seconds; 0: read in the main process '
        '(default: %(default)s)'
    )
    files.add_argument('--workers', type=whole_number(0), default=WORKERS, metavar='N', help=workers)
    page = argparse.ArgumentParser(add_help=False)
    pictures = 'pictures on the page, at most: the worst, the best, and evenly spread ones between (default: 500)'
    page.add_argument('--thumbnails', type=whole_number(0), default=500, metavar='N', help=pictures)
    reference = argparse.ArgumentParser(add_help=False)
    percentile = (
        'add the column percentile: the share of the images in REF, a table or a collection of the same metric, that '
        'score lower'
    )
    reference.add_argument('--reference', metavar='REF', help=percentile)
    return Parents(backbone, options, metric, files, page, reference)


def _add_flag(
    parser: argparse.ArgumentParser, name: str, default: str | None, metavar: str, parse: Callable[[str], Any] = str
) -> None:
    """A flag of its own for an option of the metric."""
    text = ENTRIES[name].metadata['help'] + f' (default: {default})' * (default is not None)
    parser.add_argument('--' + name.replace('_', '-'), type=parse, default=default, metavar=metavar, help=text)


def whole_number(least: int) -> Callable[[str], int]:
    """An argparse type: whole numbers from `least` on."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of at least {least}')
        return int(text)

    return parse


def split_names(text: str) -> list[str]:
    """Names of an option such as --metrics: each once, without blanks."""
    return list(dict.fromkeys(name.strip() for name in text.split(',') if name.strip()))


class LogToSay(logging.Handler):
    """Warnings of the package, such as images in formats that are not read, as messages of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def say(message: str) -> None:
    """Print a line to standard error, above the progress bar if there is one."""
    tqdm = sys.modules.get('tqdm')  # imported by whoever shows a progress bar
    write = tqdm.tqdm.write if tqdm else print
    write(f'maclip-pyiqa: {message}', file=sys.stderr)


@contextlib.contextmanager
def usage_errors(*errors: type[Exception]) -> Iterator[None]:
    """Turn errors of the library whose message says what to do into UsageError."""
    try:
        yield
    except BrokenPipeError:  # see main
        raise
    except errors as error:
        raise UsageError(' '.join(str(error).split())) from error


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Turn an error of a file that cannot be written into UsageError."""
    try:
        yield
    except BrokenPipeError:  # see main
        raise
    except OSError as error:
        raise UsageError(f'{path} cannot be written: {one_line(error)}') from error


def load_device(name: str | None) -> torch.device:
    """The device of --device; None: a GPU if there is one, else the CPU.

    With several GPUs, None and 'cuda' are the one of the process's local rank under torchrun.
    """
    import torch

    gpus = torch.cuda.device_count()
    own = f'cuda:{int(os.environ.get("LOCAL_RANK", 0)) % gpus}' if gpus else 'cpu'
    try:
        device = torch.device(own if name is None or (name == 'cuda' and gpus) else name)
        if device.type == 'cuda':
            torch.cuda.set_device(device)  # some of pyiqa's metrics use plain 'cuda'
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f'device {name!r} cannot be used: {one_line(error)}') from error
    return device


def metric_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options on the command line that differ from their defaults, for `MACLIP`."""
    given = {name: getattr(args, name) for name in FLAGS} | dict(args.option)
    return {name: value for name, value in given.items() if value != DEFAULTS[name]}


def load_metric(args: argparse.Namespace, device: torch.device) -> MACLIP:
    """The metric of the options on the command line; UsageError for options that do not fit, WeightsError."""
    from ..backbone import note
    from ..metric import MACLIP

    options = metric_options(args)
    if warning := note(options):
        say(f'scores are from the {warning}')
    with usage_errors(ValueError):
        return MACLIP(**options).to(device)


def load_metrics(args: argparse.Namespace) -> tuple[MACLIP, dict[str, Callable[[Tensor], Tensor]]]:
    """The metric, and those of --metrics by their names; UsageError also for names that pyiqa does not know."""
    device = load_device(args.device)
    if not args.metrics:
        return load_metric(args, device), {}
    from ..scoring import others

    with usage_errors(ValueError):
        others.check_metrics(args.metrics)
    metric = load_metric(args, device)
    with contextlib.redirect_stdout(sys.stderr):  # pyiqa prints what it downloads
        return metric, {name: _quiet(other) for name, other in others.load_metrics(args.metrics, device).items()}


def load_reference(path: str | None) -> Reference | None:
    """The reference of --reference; UsageError for what cannot be one."""
    if path is None:
        return None
    from ..scoring import Reference

    with usage_errors(OSError, ValueError):
        reference = Reference(path)
    if not reference.is_complete:
        say(f'--reference {path}: {INCOMPLETE}')
    if reference.label and 'filter' in reference.label:
        say(f'--reference {path}: a list that `filter` wrote, so percentiles are among those that it kept')
    return reference


def save_figure(image: Tensor, analysis: Analysis, path: str, of: str, config: dict[str, Any]) -> None:
    """Draw an analysis into a file; ValueError for a format that matplotlib does not know."""
    from ..backbone import note
    from ..report.figures import plot_analysis, save

    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    save(plot_analysis(image, analysis, of, note(config)), path)


def _backbone(name: str) -> str:
    if not is_known(name):
        raise argparse.ArgumentTypeError(
            f'unknown backbone {name!r}; expected an architecture of open_clip such as RN50 or ViT-B-32, '
            "'local-dir:PATH', 'hf-hub:ID' or 'demo'"
        )
    return name


def _prompts(text: str) -> tuple[tuple[str, str], ...]:
    return _parse(f'prompts={text}')[1]


def _option(text: str) -> tuple[str, Any]:
    name = text.partition('=')[0]
    if name in FLAGS:
        raise argparse.ArgumentTypeError(f'{text!r}; use --{name.replace("_", "-")}')
    if name in DEFAULTS and name not in OTHERS:
        raise argparse.ArgumentTypeError(f'{name} moves no score; expected one of {", ".join(OTHERS)}')
    return _parse(text)


def _parse(text: str) -> tuple[str, Any]:
    try:
        return parse(text)
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _quiet(metric: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def call(x: Tensor) -> Tensor:
        with contextlib.redirect_stdout(sys.stderr):  # some metrics print, but standard output is for scores
            return metric(x)

    return call
