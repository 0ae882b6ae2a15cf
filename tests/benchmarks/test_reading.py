"""The table of images without content."""

import pytest

from maclip_pyiqa import MACLIP
from maclip_pyiqa.testing import images_without_content


def test_table(script, tiny, photo_files, photos, capsys):
    assert script.main([str(photo_files[0]), '--backbone', tiny]) == 0
    rows = [
        line.split(' | ')
        for line in capsys.readouterr().out.splitlines()
        if line.startswith('| ') and '---' not in line
    ]
    images = images_without_content() | {photo_files[0].name: photos[0]}
    assert len(rows) == 1 + len(images)
    assert rows[0][:5] == ['| image', 'score', 'q_sim', 'q_mag', 'w_sim']
    got = {row[0].removeprefix('| '): row[1] for row in rows[1:]}
    metric = MACLIP(backbone=tiny)
    for name, image in images.items():
        assert float(got[name]) == pytest.approx(metric([image]).item(), abs=6e-4)


def test_says_what_it_is_of(script, capsys):
    assert script.main(['--backbone', 'demo']) == 0
    assert capsys.readouterr().out.startswith('weights: demonstration backbone: not CLIP, and not the published metric')


def test_wrong_use(script, tiny, tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        script.main([str(tmp_path / 'none.png'), '--backbone', tiny])
    assert script.main(['--pretrained', str(tmp_path / 'none.pt')]) == 3
    assert 'no such file' in capsys.readouterr().err
