"""The study of max_views: its table on two photos."""

import pytest


def test_table(script, tiny, photo_files, capsys):
    assert script.main([str(photo_files[0]), '--backbone', tiny]) == 0
    out = capsys.readouterr().out
    rows = [line.strip('| ').split(' | ') for line in out.splitlines() if line.startswith('| ') and '---' not in line][
        1:
    ]
    assert [row[0] for row in rows] == ['4', '9', '16', '36', 'all']
    assert [float(v) for v in rows[-1][2:5]] == [0, 0, 1]
    assert float(rows[0][2]) > 0 and rows[0][1] == '4 to 4' and rows[-1][1] == '117 to 117'
    assert '10 images of 512x384' in out


def test_versions_differ_from_the_photo(script):
    photo = script.default_photos()['coffee']
    made = script.versions(photo, 0)
    assert len(made) == 10 and min(photo.size) == 1152
    assert len({image.tobytes() for image in made}) == 10 and {image.size for image in made} == {photo.size}


def test_wrong_use(script, tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        script.main([str(tmp_path / 'none.png'), '--backbone', 'demo'])
    assert script.main(['--pretrained', str(tmp_path / 'none.pt')]) == 3
