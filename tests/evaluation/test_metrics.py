"""Metric adapters: what they cache, what their keys depend on, and scores from the cache."""

import copy
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from maclip_pyiqa import MACLIP
from maclip_pyiqa.evaluation.datasets import DataSet
from maclip_pyiqa.evaluation.metrics import FileAdapter, MACLIPAdapter, PyiqaAdapter, checksum, load_adapters, pack
from maclip_pyiqa.scoring import open_table
from maclip_pyiqa.testing import TINY, save_folder


def cached(adapter, image: torch.Tensor) -> dict[str, np.ndarray]:
    return adapter.to_cache(image, adapter.compute(image))


@pytest.mark.parametrize(
    'options',
    [{}, {'views': 'global'}, {'cue': 'mag'}, {'max_views': 2, 'stride': 20}, {'prompt_weights': [1, 0, 2, 0, 0]}],
)
def test_scores_from_the_cache_are_the_metrics(tiny, photos, options):
    net = MACLIP(backbone=tiny, **options)
    adapter = MACLIPAdapter('maclip', net)
    for image in (photos[0][:, :90, :150], photos[1][:, :64, :64]):
        with torch.no_grad():
            arrays, expected = cached(adapter, image), float(net([image]))
        assert arrays['features'].shape == (len(arrays['shares']), 64)
        assert adapter.score(arrays) == pytest.approx(expected, abs=2e-4)


def test_keys_are_of_the_features(tiny, tiny_clip, tiny_metric, tmp_path):
    """Metrics that differ in prompts, constants and cues share features; their fingerprints differ."""
    plain = MACLIPAdapter('maclip', tiny_metric)
    for options in ({'alpha': 3.0}, {'cue': 'sim'}, {'prompts': 'clipiqa'}):
        other = MACLIPAdapter('maclip', MACLIP(backbone=tiny, **options))
        assert other.cache_key == plain.cache_key and other.fingerprint != plain.fingerprint
        assert other.fingerprint == other.net.fingerprint() and other.config == other.net.config
    keys = [plain.cache_key]
    for options in ({'views': 'global'}, {'stride': 20}, {'max_views': 3}, {'pos_embedding': True}):
        keys.append(MACLIPAdapter('maclip', MACLIP(backbone=tiny, **options)).cache_key)
    other = copy.deepcopy(tiny_clip)
    other.visual.attnpool.c_proj.bias.data[0] += 1e-3
    keys.append(MACLIPAdapter('maclip', MACLIP(backbone=save_folder(other, TINY, tmp_path))).cache_key)
    assert all(keys.count(key) == 1 for key in keys)


def test_values_that_are_not_finite(tiny_metric, photos):
    tiny_metric.backbone.visual.attnpool.c_proj.bias[0] = torch.nan
    with pytest.raises(ValueError, match='features are not finite'):
        cached(MACLIPAdapter('maclip', tiny_metric), photos[0][:, :64, :64])
    net = torch.nn.Linear(2, 2)
    infinite = type('Metric', (), {'net': net, 'lower_better': False, '__call__': lambda self, x: x.sum() / 0})()
    with pytest.raises(ValueError, match='score is not finite'):
        cached(PyiqaAdapter('x', infinite, {}), photos[0])


def test_other_metrics_draw_the_same_crops(photos):
    net = torch.nn.Linear(2, 2)
    drawing = type('Metric', (), {'net': net, 'lower_better': True, '__call__': lambda self, x: torch.rand(())})()
    adapter = PyiqaAdapter('x', drawing, {})
    state = torch.get_rng_state()
    scores = [adapter.score(cached(adapter, photos[0])) for _ in range(2)]
    assert scores[0] == scores[1] and adapter.lower_better
    assert torch.equal(torch.get_rng_state(), state)


def test_scores_of_other_metrics_are_of_their_weights():
    nets = [torch.nn.Linear(2, 2) for _ in range(2)]
    metrics = [type('Metric', (), {'net': net, 'lower_better': False}) for net in nets]
    a, b = (PyiqaAdapter('x', metric, {}) for metric in metrics)
    assert a.cache_key != b.cache_key and a.fingerprint != b.fingerprint
    again = PyiqaAdapter('x', metrics[0], {})
    assert (a.cache_key, a.fingerprint) == (again.cache_key, again.fingerprint)
    assert a.cache_key != PyiqaAdapter('x', metrics[0], {'k': 1}).cache_key


def test_checksum():
    """Of tensors, and of layers and heads that have none."""
    layers = [torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)]
    assert checksum(layers[0]) != checksum(layers[1]) == checksum(layers[1])
    sums = []
    for heads in (2, 4):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            sums.append(checksum(torch.nn.TransformerEncoderLayer(8, heads, 8)))
    assert sums[0] != sums[1]
    modules = [torch.nn.Sequential(torch.nn.ReLU()), torch.nn.Sequential(torch.nn.SiLU())]
    assert checksum(modules[0]) != checksum(modules[1])


def test_half_precision_only_where_harmless(tiny_metric, photos):
    def scores(f, times=1.0):
        return tiny_metric.cues(f).q.mean() * times

    with torch.no_grad():
        f = tiny_metric.features([photos[0][:, :200, :200]])[0]
    packed = pack(f, scores)
    assert packed.dtype == np.float16
    change = abs(float(scores(torch.from_numpy(packed).float()) - scores(f)))
    assert 0 < change <= 1e-4
    finer = pack(f, lambda f: scores(f, 1.1e-4 / change))
    assert finer.dtype == np.float32 and (finer == f.numpy()).all()
    assert pack(f, lambda f: scores(f, 0.9e-4 / change)).dtype == np.float16
    assert pack(1e6 * f, scores).dtype == np.float32  # beyond float16
    assert pack(1e-8 * f, scores).dtype == np.float32  # below it


def test_load_metrics(tiny):
    ours, entropy, mag = load_adapters(['maclip', 'entropy', 'maclip_mag', 'maclip'], backbone=tiny)
    assert isinstance(entropy, PyiqaAdapter) and (ours.name, mag.config['cue']) == ('maclip', 'mag')
    assert ours.config['backbone'] == mag.config['backbone'] == tiny
    options = {'backbone': tiny, 'views': 'full', 'alpha': 2.0, 'quick_gelu': None}
    some = load_adapters(['maclip', 'maclip_global', 'maclip_demo'], **options)  # but what a name stands for
    got = [tuple(m.config[name] for name in ('backbone', 'views', 'alpha')) for m in some]
    assert got == [(tiny, 'full', 2.0), (tiny, 'global', 2.0), ('demo', 'full', 2.0)]
    with pytest.raises(ValueError, match="'psnr' is not a metric of pyiqa that works without"):
        load_adapters(['psnr'])
    with pytest.raises(ValueError, match='maclip, which is not among entropy'):
        load_adapters(['entropy'], backbone=tiny)


# --- scores of other programs ------------------------------------------------------------------------------------


def images(*names: str, folder: str = 'photos') -> DataSet:
    return DataSet('set', [str(Path(folder) / n) for n in names], list(names), [0.0] * len(names), None, False)


def of_file(tmp_path: Path, text: str, name: str = 'MDFS', **options) -> FileAdapter:
    (tmp_path / 'scores.csv').write_text(text)
    return FileAdapter(name, tmp_path / 'scores.csv', **options)


def looked_up(tmp_path: Path, rows: dict[str, float], dataset: DataSet) -> list[float | str]:
    """The score of each image, or the part of its error that says why there is none."""
    adapter = of_file(tmp_path, 'file,score\n' + ''.join(f'{file},{score}\n' for file, score in rows.items()))
    scores, errors = adapter.look_up(dataset)
    assert all(math.isnan(score) == bool(error) for score, error in zip(scores, errors, strict=True))
    return [error.replace(f'{tmp_path}/', '') or score for score, error in zip(scores, errors, strict=True)]


@pytest.mark.parametrize(
    ('names', 'rows', 'expected'),
    [
        (('a/1.png', 'a/2.png'), {'a/2.png': 2, 'a/1.png': 1, 'b/3.png': 3}, [1, 2]),  # any order, further rows
        (('./a/1.png', 'a//2.png'), {'a/1.png': 1, './a/b/../2.png': 2}, [1, 2]),
        (('a/1.png', 'a/2.png'), {'a\\1.png': 1, '.\\a\\2.png': 2}, [1, 2]),  # written on Windows
        (('1.png', '2.png'), {'photos/1.png': 1, '{cwd}/photos/2.png': 2}, [1, 2]),  # paths
        (('1.png', '2.png'), {'/mnt/x/1.png': 1, 'C:\\x\\2.png': 2}, [1, 2]),  # of another machine
        (('a/1.png', 'b/2.png'), {'1.png': 1, '2.png': 2}, [1, 2]),  # file names alone
        (('a/1.png', 'b/1.png'), {'/mnt/x/a/1.png': 1, '/mnt/x/b/1.png': 2}, [1, 2]),  # more than these tells apart
        (('x/a/1.png', 'b/1.png'), {'a/1.png': 1, 'b/1.png': 2}, [1, 2]),
        (('1.png', 'a/1.png'), {'1.png': 1}, [1, 'no score in scores.csv']),  # the exact one wins
        (('a/1.png', '1.png'), {'a/1.png': 1}, [1, 'no score in scores.csv']),
        (('a/1.png', 'a/2.png'), {'b/1.png': 1, 'a/2.png': 2}, ['no score in scores.csv', 2]),  # folders differ
        (('a/11.png', 'a/2.png'), {'1.png': 1, 'a/2.png': 2}, ['no score in scores.csv', 2]),  # whole names only
        (('a/1.png', 'a/2.png'), {'a/1.PNG': 1, 'a/2.png': 2}, ['no score in scores.csv', 2]),
        (('a/1.png', 'b/1.png', '2.png'), {'1.png': 1, '2.png': 2}, ['scores.csv: 1.png may be of 2 images'] * 2 + [2]),
        (
            ('1.png', '2.png'),
            {'a/1.png': 1, 'b/1.png': 3, '2.png': 2},
            ['scores.csv: a/1.png and b/1.png have different scores, and both may be of this image', 2],
        ),
        (('1.png', '2.png'), {'a/1.png': 1, 'b/1.png': 1, '2.png': 2}, [1, 2]),  # equal in any case
        (  # a name in the folder, and a path from here
            ('photos/1.png', '1.png', '2.png'),
            {'photos/1.png': 1, '2.png': 2},
            ['scores.csv: photos/1.png may be of 2 images'] * 2 + [2],
        ),
        (  # of the other image too, though that has a row of its own
            ('a/1.png', 'c/1.png'),
            {'a/1.png': 2, '1.png': 1},
            [2, 'scores.csv: 1.png may be of 2 images'],
        ),
        (('1.png', './1.png'), {'1.png': 1}, [1, 1]),  # one image, listed twice
        (('1.png', '2.png'), {'1.png': '', '2.png': 2}, ['its score in scores.csv is missing or not finite', 2]),
        (
            ('1.png', '2.png'),
            {'1.png': 'inf', '2.png': -2.5},
            ['its score in scores.csv is missing or not finite', -2.5],
        ),
    ],
)
def test_rows_of_images(tmp_path, monkeypatch, names, rows, expected):
    monkeypatch.chdir(tmp_path)
    rows = {file.replace('{cwd}', os.getcwd()): score for file, score in rows.items()}
    assert looked_up(tmp_path, rows, images(*names)) == expected


def test_no_image_has_a_score(tmp_path):
    for rows in ('b.png,1\n', 'a.png,\n', ''):
        adapter = of_file(tmp_path, 'file,score\n' + rows)
        with pytest.raises(ValueError, match=r"scores.csv has a score for no image of 'set' \(.*files such as 'a.png'"):
            adapter.look_up(images('a.png', 'c.png'))


def test_columns_of_scores(tmp_path):
    """The metric's own, else `score`; files by a usual name, and as text."""
    for header in ('filename,score,MDFS', 'x,MDFS,Path', 'mdfs,img_path', 'score,image'):
        cells = {'mdfs': '1', 'score': '1' if 'mdfs' not in header.lower() else '2', 'x': '3'}
        row = ','.join(cells.get(name.lower(), '007') for name in header.split(','))
        assert of_file(tmp_path, f'{header}\n{row}\n').scores == {'007': 1.0}, header
    for header, missing in (('file,mos', 'scores (MDFS, score)'), ('a,score', 'files (dist_name')):
        with pytest.raises(ValueError, match='has no column of') as error:
            of_file(tmp_path, f'{header}\nx,1\n')
        assert missing in str(error.value) and header.replace(',', ', ') in str(error.value)


def test_scores_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the score of b is 'bad'; expected a number"):
        of_file(tmp_path, 'file,MDFS\na,1\nb,bad\n')
    with pytest.raises(ValueError, match=r'\./a has several rows with different scores'):
        of_file(tmp_path, 'file,MDFS\na,1\n./a,2\n')
    with pytest.raises(ValueError, match='a has several rows'):
        of_file(tmp_path, 'file,MDFS\na,1\na,\n')
    assert of_file(tmp_path, 'file,MDFS\na,1\n./a,1.0\n').scores == {'a': 1.0}
    with pytest.raises(FileNotFoundError):
        FileAdapter('MDFS', tmp_path / 'missing.csv')
    for name in ('', 'a/b', '.hidden', 'a b'):
        with pytest.raises(ValueError, match='cannot name a metric'):
            of_file(tmp_path, 'file,score\na,1\n', name)


def test_formats_of_scores(tmp_path):
    expected = {'a.png': 0.25, 'b.png': None}
    for suffix in ('.csv', '.jsonl', '.parquet'):
        table = open_table(tmp_path / f'scores{suffix}', ('path', 'score', 'error'))
        table.fill([{'path': 'a.png', 'score': 0.25, 'error': ''}, {'path': 'b.png', 'score': None, 'error': 'x'}])
        table.close()
        assert FileAdapter('MDFS', tmp_path / f'scores{suffix}').scores == expected, suffix
    (tmp_path / 'scores.csv').write_text('file;MDFS\na.png;0,25\nb.png;\n')  # of a spreadsheet
    assert FileAdapter('MDFS', tmp_path / 'scores.csv').scores == expected


def test_what_a_file_of_scores_is(tmp_path):
    """Its fingerprint is that of the scores, whatever their order."""
    one = of_file(tmp_path, 'file,score\na,1\nb,2\n')
    assert one.config == {'file': str(tmp_path / 'scores.csv'), 'column': 'score', 'lower_better': False}
    assert json.loads(json.dumps(one.config)) == one.config and len(one.fingerprint) == 64
    assert of_file(tmp_path, 'score,x,path\n2,1,./b\n1,1,a\n').fingerprint == one.fingerprint
    assert of_file(tmp_path, 'file,score\na,1\nb,3\n').fingerprint != one.fingerprint
    assert of_file(tmp_path, 'file,score\na,1\nc,2\n').fingerprint != one.fingerprint


def test_direction_of_a_file_of_scores(tmp_path):
    text = 'file,score\na,1\n'
    assert not of_file(tmp_path, text).lower_better and of_file(tmp_path, text, lower_better=True).lower_better
    assert [of_file(tmp_path, text, name).lower_better for name in ('niqe', 'BRISQUE', 'clipiqa')] == [
        True,
        True,
        False,
    ]
    for name, better in (('niqe', 'lower'), ('clipiqa', 'higher')):
        with pytest.raises(ValueError, match=f'{name} is a metric of pyiqa, of which {better} is better'):
            of_file(tmp_path, text, name, lower_better=True)
