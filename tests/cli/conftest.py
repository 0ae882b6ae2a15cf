"""A folder of images, and running a command in this process."""

import numpy as np
import pytest
from PIL import Image

from maclip_pyiqa.cli import main


@pytest.fixture
def folder(tmp_path, photos):
    """Small photos: a.png, b.jpg and sub/c.png, and other files that folders hold."""
    root = tmp_path / 'photos'
    (root / 'sub').mkdir(parents=True)
    for photo, name, size in zip(photos, ('a.png', 'b.jpg', 'sub/c.png'), ((90, 70), (64, 80), (40, 50)), strict=False):
        pixels = (photo[:, : size[0], : size[1]].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(root / name)
    (root / 'notes.txt').write_text('not an image')
    (root / 'README').write_text('not an image')
    (root / '.hidden.png').write_bytes((root / 'a.png').read_bytes())
    (root / '.cache').mkdir()
    (root / '.cache' / 'd.png').write_bytes((root / 'a.png').read_bytes())
    (root / 'raw.nef').write_bytes((root / 'a.png').read_bytes())
    return root


@pytest.fixture
def run(tiny, capsys):
    """Runs `score`, or another command, with small weights; -> exit code, standard output, standard error."""

    def run(*args, command='score', workers=0):
        extra = ['--backbone', tiny] + (['--workers', str(workers)] if command == 'score' else [])
        code = main([command, *map(str, args), *extra])
        return code, *capsys.readouterr()

    return run
