"""pyiqa's own `maclip` beside this one."""

import pytest


def test_table(script, rn50_file, capsys):
    sizes = ['--images', '2', '--size', '224', '352', '--large', '352', '480']
    assert script.main(['--weights', str(rn50_file), '--repeat', '1', *sizes]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {cells[0]: cells[1:] for cells in (line.strip('| ').split(' | ') for line in lines if line[:2] == '| ')}
    assert float(rows['largest difference of 2 scores'][-1]) < 1e-5
    (batch,) = (name for name in rows if name.startswith('a batch of two'))
    own, ours = rows[batch]
    assert own.endswith('for both') and f'alone {ours}' in batch  # ours: the same alone and in a batch
    assert float(own.split()[0]) != pytest.approx(sum(map(float, ours.split(' and '))) / 2, abs=1e-4)
    assert 'Error' in rows['an image of 160x200'][0] and rows['an image of 160x200'][1] == 'a score, shape (1, 1)'
    assert 'x' in rows['time, 1 image of 352x224'][1] and rows['memory, 480x352'][0].endswith('MiB')


def test_wrong_use(script, capsys):
    with pytest.raises(SystemExit, match='2'):
        script.main(['--size', '200', '300'])
    assert '224 pixels a side' in capsys.readouterr().err
