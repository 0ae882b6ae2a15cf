"""The speed study: its straightforward contestant computes the same score, and its table has what it promises."""

import copy
import json

import open_clip
import pandas as pd
import pytest
import torch

from maclip_pyiqa.testing import TINY


@pytest.fixture(scope='module')
def straightforward(script, rn50_clip):
    tokens = open_clip.get_tokenizer('RN50')([prompt for pair in script.PROMPTS for prompt in pair])
    return script.Straightforward(copy.deepcopy(rn50_clip), tokens)


@pytest.fixture
def tiny_architecture(tmp_path):
    """A tiny CLIP ResNet by the name that open_clip then has for it."""
    file = tmp_path / 'tiny-speed.json'
    file.write_text(json.dumps(TINY))
    open_clip.add_model_config(file)
    yield file.stem
    file.unlink()
    open_clip.factory._MODEL_CONFIG_PATHS.remove(file)
    open_clip.factory._rescan_model_configs()


@pytest.mark.parametrize('size', [(224, 352), (200, 260)])
def test_straightforward_is_the_same_metric(straightforward, rn50_metric, photos, size):
    x = photos[0][None, :, : size[0], : size[1]]
    with torch.no_grad():
        torch.testing.assert_close(straightforward(x)[:, None], rn50_metric(x), rtol=0, atol=1e-5)


def test_flop_counts(script, straightforward, rn50_metric):
    """12.2 GFLOP a view in open_clip's RN50 and 58.1 for the prompts, or 59.6 where torch counts the products of their
    attention too; 10.8 a view in this package."""
    shapes, cpu = [(1, 3, 224, 225)], torch.device('cpu')  # two views: one window and the whole image
    assert script.count_gflop(straightforward, shapes, cpu) == pytest.approx(2 * 12.2 + 58.9, rel=0.02)
    assert script.count_gflop(rn50_metric, shapes, cpu) == pytest.approx(2 * 10.8, rel=0.01)
    assert script.count_gflop(rn50_metric, shapes * 3, cpu) == pytest.approx(6 * 10.8, rel=0.01)
    assert script.count_gflop(rn50_metric, shapes, cpu, backward=True) > 1.8 * 2 * 10.8


@pytest.mark.slow
def test_study(script, tiny_architecture, tmp_path, capsys):
    items = ['small', 'folder', 'gradient', 'construction']
    options = ['--backbone', tiny_architecture, '--device', 'cpu', '--quick', '--no-compile', '-o', str(tmp_path)]
    assert script.main([*options, '--only', *items]) == 0
    assert 'STAND-IN' in capsys.readouterr().out
    assert (tmp_path / 'speed.png').stat().st_size > 10_000
    table = pd.read_csv(tmp_path / 'speed.csv')
    assert tuple(table) == script.COLUMNS
    assert set(table['weights']) == {'stand-in'}
    rows = table.set_index(['work', 'implementation'])
    for item in items:
        plain, package = rows.loc[item, 'straightforward'], rows.loc[item, 'maclip_pyiqa']
        assert plain['speedup'] == 1
        assert package['min_s'] <= package['median_s'] <= package['max_s']
        assert package['repeats'] == 2
        if item != 'construction':
            assert package['max_diff'] < 1e-5
            assert package['gflop'] > 0
            assert package['matmul_percent'] > 0


def test_what_is_too_large_is_left_out(script, tiny_architecture, tmp_path, capsys):
    options = ['--backbone', tiny_architecture, '--device', 'cpu', '--quick', '--no-compile', '-o', str(tmp_path)]
    assert script.main([*options, '--only', 'small', '--memory-limit', '1e-9']) == 0
    assert 'straightforward  skipped: needs about' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--backbone', 'RN51'], "unknown --backbone 'RN51'; expected one of open_clip.list_models"),
        (['--device', 'abacus'], '--device abacus'),
        (['--repeat', '0'], "invalid value '0'; expected a whole number above 0"),
        (['--only', 'everything'], 'invalid choice'),
        (['--device', 'cpu', '--precision', 'tf32'], '--precision tf32 needs CUDA'),
        (['-o', __file__], 'cannot be used as a folder'),
    ],
)
def test_wrong_use(script, options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        script.main(options)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_wrong_weights(script, tmp_path, capsys):
    file = tmp_path / 'weights.pt'
    file.write_bytes(b'no weights')
    assert script.main(['--pretrained', str(file), '--device', 'cpu', '-o', str(tmp_path)]) == 3
    assert 'cannot be read' in capsys.readouterr().err
