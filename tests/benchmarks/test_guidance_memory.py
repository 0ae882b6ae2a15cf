"""benchmarks/guidance_memory.py: a small run of each way."""

import sys

import pytest

pytest.importorskip('diffusers', reason='extra `diffusers` is not installed')


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_small_run(script, monkeypatch, capsys):
    monkeypatch.setattr(script, 'WAYS', script.WAYS[:2])  # each is a process, and the same code
    assert script.main(['--small', '--size', '128']) == 0
    lines = [line[2:-2].split(' | ') for line in capsys.readouterr().out.splitlines() if line.startswith('| ')]
    assert [line[0] for line in lines[2:]] == list(script.WAYS)
    assert all(float(gib) >= 0 and float(seconds) >= 0 for _, gib, seconds in lines[2:])


@pytest.mark.parametrize('size', ['0', '100'])
def test_bad_input_is_refused_by_name(script, capsys, size):
    with pytest.raises(SystemExit) as exit:
        script.main(['--size', size])
    assert exit.value.code == 2 and f'--size {size}; expected a multiple of 64' in capsys.readouterr().err
