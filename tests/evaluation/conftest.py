"""Tiny data sets in pyiqa's layout, made of photos blurred in steps, and the results of evaluating them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from maclip_pyiqa.cli import main

STEPS = 4


@pytest.fixture(scope='session')
def root(photos, tmp_path_factory) -> Path:
    """CSIQ (references, DMOS), KonIQ (MOS, a split), SPAQ, and AGIQA-3k as published: 20 images of 96x72 each."""
    root = tmp_path_factory.mktemp('datasets')
    places = {'CSIQ/dst_imgs': '.png', 'koniq10k/1024x768': '.jpg', 'AGIQA-3K/images': '.png', 'SPAQ/TestImage': '.png'}
    for place in (*places, 'CSIQ/src_imgs', 'meta_info'):
        (root / place).mkdir(parents=True)
    names = []
    for i, photo in enumerate(photos[:5]):
        image = Image.fromarray(photo.mul(255).round().byte().permute(1, 2, 0).numpy()).resize((96, 72))
        image.save(root / 'CSIQ/src_imgs' / f'{i}.png')
        for step in range(STEPS):
            names.append(f'{i}_{step}')
            for place, suffix in places.items():
                image.filter(ImageFilter.GaussianBlur(step)).save(root / place / f'{i}_{step}{suffix}')
    dmos = [round(int(name[2]) / STEPS + 0.01 * int(name[0]), 4) for name in names]
    splits = ['test' if name[0] < '2' else 'training' for name in names]
    tables = {
        'meta_info/meta_info_CSIQDataset.csv': [
            ['ref_name', 'dist_name', 'dmos'],
            *([f'{n[0]}.png', f'{n}.png', d] for n, d in zip(names, dmos, strict=True)),
        ],
        'meta_info/meta_info_KonIQ10kDataset.csv': [
            ['img_name', 'mos', 'std', 'official_split'],
            *([f'{n}.jpg', 100 - 90 * d, 1, s] for n, d, s in zip(names, dmos, splits, strict=True)),
        ],
        'meta_info/meta_info_SPAQDataset.csv': [
            ['img_name', 'mos'],
            *([f'{n}.png', 1 - d] for n, d in zip(names, dmos, strict=True)),
        ],
        'AGIQA-3K/data.csv': [
            ['name', 'prompt', 'mos_quality'],
            *([f'{n}.png', 'a, b', 5 - d] for n, d in zip(names, dmos, strict=True)),
        ],
    }
    for name, rows in tables.items():
        with open(root / name, 'w', newline='') as file:
            csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope='session')
def arguments(root, tiny) -> Callable[..., list[str]]:
    """Arguments of `maclip-pyiqa evaluate` with the tiny backbone."""

    def arguments(output: Path, *more: str, metrics=('maclip',), resamples=20, backbone=tiny) -> list[str]:
        options = ['--data-root', str(root), '-o', str(output), '--resamples', str(resamples), '--device', 'cpu']
        options += ['--backbone', backbone] if backbone else []
        return ['evaluate', '-m', *metrics, '--workers', '0', *options, *more]

    return arguments


@pytest.fixture(scope='session')
def run(arguments) -> Callable[..., int]:
    """Runs `maclip-pyiqa evaluate`; -> the exit code."""
    return lambda *args, **kwargs: main(arguments(*args, **kwargs))


@pytest.fixture(scope='session')
def finished(run, tmp_path_factory) -> Path:
    """Results of two metrics on CSIQ by the paper's protocol."""
    output = tmp_path_factory.mktemp('results')
    assert run(output, '-d', 'csiq', '--protocol', 'paper', metrics=('maclip', 'piqe')) == 0
    return output


@pytest.fixture(scope='session')
def table() -> Callable[[Path], list[dict[str, str]]]:
    """Reads a CSV file."""

    def table(path: Path) -> list[dict[str, str]]:
        with open(path, newline='') as file:
            return list(csv.DictReader(file))

    return table
