"""`maclip-pyiqa evaluate`: results against a straight way, interruptions, several processes, wrong use."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from scipy import stats

from maclip_pyiqa import MACLIP
from maclip_pyiqa.cli import main
from maclip_pyiqa.evaluation.cache import load_features
from maclip_pyiqa.evaluation.datasets import load_dataset, read_list
from maclip_pyiqa.evaluation.evaluate import STANDARD, Processes, evaluate, score_dataset
from maclip_pyiqa.evaluation.measure import Meter, peak_memory
from maclip_pyiqa.evaluation.metrics import FileAdapter, MACLIPAdapter, PyiqaAdapter
from maclip_pyiqa.evaluation.tables import COLUMNS
from maclip_pyiqa.scoring.others import check_metrics

# what scoring took, in files with results of two metrics on one data set, and how often it is there
COSTS_IN = {
    'results.csv': (r'[\d.]+,[\d.]*,"cpu, threads: \d+",', 2),
    'results.md': (r'\| [\d.]+ \| \d* \| cpu, threads: \d+ \|', 2),
}


def read_images(dataset) -> list[torch.Tensor]:
    return [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255 for path in dataset.paths]


# --- results -----------------------------------------------------------------------------------------------------


def test_results(finished, root, tiny, table):
    """Against the metric itself, and scipy on its scores."""
    dataset = load_dataset('csiq', 'paper', root)
    with torch.no_grad():
        scores = MACLIP(backbone=tiny)(read_images(dataset))[:, 0].numpy()
    ratings = -np.array(dataset.ratings)  # CSIQ's are DMOS
    rows = table(finished / 'results.csv')
    assert tuple(rows[0]) == COLUMNS and [row['metric'] for row in rows] == ['maclip', 'piqe']
    row = rows[0]
    assert (row['dataset'], row['protocol'], row['n'], row['failed']) == ('csiq', 'paper', '20', '0')
    cached = table(finished / 'scores' / 'csiq.maclip.csv')
    np.testing.assert_allclose([float(r['score']) for r in cached], scores, atol=1e-4)
    assert [float(r['rating']) for r in cached] == dataset.ratings and cached[5]['group'] == '1.png'  # as published
    scores = [float(r['score']) for r in cached]
    for column, statistic in {'srcc': stats.spearmanr, 'krcc': stats.kendalltau, 'plcc': stats.pearsonr}.items():
        assert float(row[column]) == pytest.approx(statistic(scores, ratings).statistic, abs=1e-6), column
        assert float(row[f'{column}_low']) < float(row[column]) < float(row[f'{column}_high'])
    assert abs(float(row['srcc'])) > 0.1  # so that a wrong sign would show

    piqe = [float(r['score']) for r in table(finished / 'scores' / 'csiq.piqe.csv')]  # lower is better
    assert float(rows[1]['srcc']) == pytest.approx(stats.spearmanr(np.negative(piqe), ratings).statistic, abs=1e-6)
    assert float(rows[1]['srcc']) > 0.3  # blur is bad
    (pair,) = table(finished / 'differences.csv')
    assert (pair['metric_a'], pair['metric_b'], pair['n']) == ('maclip', 'piqe', '20')
    assert float(pair['difference']) == pytest.approx(float(row['srcc']) - float(rows[1]['srcc']), abs=2e-6)


def test_labelled_with_config_and_fingerprint(finished, tiny, tiny_metric, table):
    for name in ('maclip', 'piqe'):
        with Image.open(finished / 'plots' / f'csiq.{name}.png') as image:
            assert np.ptp(np.array(image)) > 0
    (entry,) = json.loads((finished / 'run.json').read_text())
    maclip = {'metric': 'maclip', 'fingerprint': tiny_metric.fingerprint(), 'config': tiny_metric.config}
    assert entry['metrics'][0] == maclip
    assert entry['datasets'] == [
        {'name': 'csiq', 'lower_better': True, 'preparation': {}, 'protocol': 'paper', 'images': 20, 'groups': 5}
    ]
    assert entry['versions']['pyiqa'] and entry['command'] and entry['options']['backbone'] == tiny
    ours, piqe = table(finished / 'results.csv')
    assert ours['fingerprint'] == tiny_metric.fingerprint() and json.loads(ours['config']) == tiny_metric.config
    assert len(piqe['fingerprint']) == 64 != ours['fingerprint']
    text = (finished / 'results.md').read_text()
    assert f'| csiq | maclip | {tiny_metric.fingerprint()[:12]} | paper | 20 | 0 |' in text
    assert f'- maclip, fingerprint {tiny_metric.fingerprint()}: `{ours["config"]}`' in text
    # numbers of another backbone than the paper's are not set beside the paper's
    assert '| csiq | maclip | not run | 0.7374 |  |' in text and '0.6435, not 0.6296' in text


def test_cached_features(finished, tiny, tiny_metric):
    features = load_features(finished, 'csiq')
    assert len(features.features) == 20 and features.features[0].shape == (2, 64) and features.groups[0] == '0.png'
    assert features.shares[0].tolist() == [0.5, 0.5] and features.ratings[:2].tolist() == [0, -0.25]
    assert features.metadata['config'] == tiny_metric.config and features.metadata['protocol'] == 'paper'
    assert torch.equal(features.text, tiny_metric.backbone.text)
    assert torch.equal(features.scale, tiny_metric.backbone.scale)


def test_as_a_library(root, tiny_metric, tmp_path, capfd):
    """Without the command line; nothing is printed but progress."""
    datasets = [load_dataset(name, 'pyiqa', root) for name in ('csiq', 'koniq10k-1024')]
    metrics = [MACLIPAdapter('maclip', tiny_metric)]
    done = list(evaluate(datasets, metrics, tmp_path, resamples=0))
    assert [(dataset.name, failures) for dataset, failures in done] == [('csiq', 0), ('koniq10k-1024', 0)]
    (scores,) = score_dataset(datasets[1], metrics, tmp_path)
    with torch.no_grad():
        expected = tiny_metric(read_images(datasets[1]))[:, 0]
    np.testing.assert_allclose(scores.scores, expected, atol=1e-4)
    assert capfd.readouterr().out == ''


def test_list_and_bad_images(root, run, table, tmp_path, capsys, monkeypatch):
    images = tmp_path / 'images'
    images.mkdir()
    rows = [['name', 'quality']]
    for i in range(8):
        Image.open(root / 'CSIQ/dst_imgs' / f'{i // 4}_{i % 4}.png').save(images / f'{i}.jpg')
        rows.append([f'{i}.jpg', 8 - i])
    whole = (images / '6.jpg').read_bytes()
    (images / '6.jpg').write_bytes(whole[: len(whole) * 2 // 3])
    (images / '7.jpg').write_text('no image')
    rows.append(['gone.jpg', 1])
    with open(tmp_path / 'mine.csv', 'w', newline='') as file:
        csv.writer(file).writerows(rows)
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)  # as some of pyiqa's modules leave it
    options = ['--list', str(tmp_path / 'mine.csv'), '--images', str(images), '--rating-column', 'quality']
    assert run(tmp_path / 'out', *options) == 1
    (row,) = table(tmp_path / 'out' / 'results.csv')
    assert (row['dataset'], row['protocol'], row['n'], row['failed']) == ('mine', 'list', '6', '3')
    errors = {r['image']: r['error'] for r in table(tmp_path / 'out' / 'scores' / 'mine.maclip.csv') if r['error']}
    assert set(errors) == {'6.jpg', '7.jpg', 'gone.jpg'} and 'truncated' in errors['6.jpg']
    assert 'gone.jpg' in (shown := capsys.readouterr().err) and '3 scores failed' in shown
    assert load_features(tmp_path / 'out', 'mine').names == [f'{i}.jpg' for i in range(6)]

    (images / '6.jpg').write_bytes(whole)  # repaired
    assert run(tmp_path / 'out', *options) == 1
    (row,) = table(tmp_path / 'out' / 'results.csv')
    assert (row['n'], row['failed']) == ('7', '2')


def test_a_metric_with_limits_of_its_own(run, table, tmp_path, monkeypatch):
    """What one metric cannot score, another can."""

    def compute(self, image):
        raise RuntimeError('too small')

    monkeypatch.setattr(PyiqaAdapter, 'compute', compute)
    assert run(tmp_path, '-d', 'agiqa-3k', metrics=('maclip', 'entropy')) == 1
    ours, other = table(tmp_path / 'results.csv')
    assert (ours['n'], ours['failed'], other['n'], other['failed']) == ('20', '0', '0', '20')
    assert other['srcc'] == '' and other['note'] == 'no logistic fit: 0 images; 5 parameters need at least 6'


def test_images_of_a_shape_that_the_metric_refuses(run, table, tmp_path, capsys):
    Image.effect_noise((2000, 10), 80).save(tmp_path / 'thin.png')
    (tmp_path / 'list.csv').write_text('file,mos\nthin.png,1\n')
    assert run(tmp_path / 'out', '--list', str(tmp_path / 'list.csv')) == 1
    (row,) = table(tmp_path / 'out' / 'scores' / 'list.maclip.csv')
    assert 'too long and thin' in row['error'] and 'thin.png: maclip: ' in capsys.readouterr().err


@pytest.mark.slow
def test_several_runs_share_a_folder(run, table, tmp_path, capsys):
    assert run(tmp_path, '-d', 'csiq', metrics=('maclip',)) == 0
    assert run(tmp_path, '-d', 'agiqa-3k', 'csiq', metrics=('maclip', 'entropy')) == 0
    rows = [(row['dataset'], row['metric']) for row in table(tmp_path / 'results.csv')]
    assert rows == [('agiqa-3k', 'maclip'), ('agiqa-3k', 'entropy'), ('csiq', 'maclip'), ('csiq', 'entropy')]
    assert len(json.loads((tmp_path / 'run.json').read_text())) == 2
    assert run(tmp_path, '-d', 'csiq', '--protocol', 'paper') == 2
    assert "holds 'csiq' by protocol 'pyiqa'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'options', 'files'),
    [
        ('maclip_sim', {'cue': 'sim'}, 20),
        ('maclip_mag', {'cue': 'mag'}, 20),
        ('maclip_global', {'views': 'global'}, 40),
    ],
)
def test_variants_of_the_metric(root, run, tiny, table, tmp_path, name, options, files):
    """Scores of other cues come from the same cached features, those of other views do not."""
    assert run(tmp_path, '-d', 'agiqa-3k', metrics=('maclip', name)) == 0
    with torch.no_grad():
        expected = MACLIP(backbone=tiny, **options)(read_images(load_dataset('agiqa-3k', 'pyiqa', root)))[:, 0]
    got = [float(row['score']) for row in table(tmp_path / 'scores' / f'agiqa-3k.{name}.csv')]
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert len(list(tmp_path.rglob('*.npz'))) == files
    assert load_features(tmp_path, 'agiqa-3k', name).metadata['metric'] == name


def test_demonstration_is_not_a_result_of_the_paper(run, table, tmp_path):
    options = ['-d', 'csiq', '--protocol', 'paper']
    assert run(tmp_path, *options, metrics=('maclip_demo',), backbone=None, resamples=0) == 0
    text = (tmp_path / 'results.md').read_text()
    assert '(demonstration backbone: not CLIP, and not the published metric)' in text
    assert '| csiq | maclip | not run |' in text
    assert float(table(tmp_path / 'results.csv')[0]['srcc']) > 0.6  # photos blurred in steps


@pytest.mark.slow
def test_nothing_stale_in_the_tables(root, run, table, tmp_path, capsys):
    protocol = ['-d', 'csiq', '--protocol', 'paper']
    assert run(tmp_path, *protocol, metrics=('maclip', 'piqe')) == 0
    before = {row['metric']: row for row in table(tmp_path / 'results.csv')}
    assert len(table(tmp_path / 'differences.csv')) == 1
    assert run(tmp_path, *protocol, backbone='demo') == 0
    rows = {row['metric']: row for row in table(tmp_path / 'results.csv')}
    assert set(rows) == {'maclip', 'piqe'} and rows['piqe'] == before['piqe']
    assert json.loads(rows['maclip']['config'])['backbone'] == 'demo'
    assert not table(tmp_path / 'differences.csv')  # it was of another backbone
    assert run(tmp_path, *protocol, metrics=('piqe', 'maclip')) == 0
    (pair,) = table(tmp_path / 'differences.csv')
    assert (pair['metric_a'], pair['metric_b']) == ('piqe', 'maclip')

    (tmp_path / 'own').mkdir()
    for name in ('a', 'b'):
        (tmp_path / 'own' / f'{name}.csv').write_text(f'file,mos\n{name}.png,1\n')
        with Image.open(next(iter(root.rglob('*.png')))) as image:
            image.save(tmp_path / 'own' / f'{name}.png')
    lists = [['--list', str(tmp_path / 'own' / f'{name}.csv'), '--name', 'own'] for name in ('a', 'b')]
    assert run(tmp_path, *lists[0], metrics=('piqe',), backbone=None) == 0
    assert run(tmp_path, *lists[1], metrics=('maclip',), backbone='demo') == 2
    assert "'piqe' on 'own' with other images" in capsys.readouterr().err


@pytest.mark.parametrize('rank', [0, 1])
def test_doubtful_lists_are_named_before_scoring(root, tiny_metric, tmp_path, monkeypatch, rank):
    """By process 0 only."""
    events = []
    score = lambda dataset, *args: events.append(f'scored {dataset.name}') or []  # noqa: E731
    monkeypatch.setattr('maclip_pyiqa.evaluation.evaluate.score_dataset', score)
    names = {'few': 'abcd', 'enough': 'abcde', 'repeated': ['a', 'b/../a', 'b', 'c', 'd', 'd', 'A']}
    names['often'] = [*'abcde', *'abcd']
    datasets = []
    for name, files in names.items():
        (tmp_path / f'{name}.csv').write_text('file,mos\n' + ''.join(f'{file},1\n' for file in files))
        datasets.append(read_list(tmp_path / f'{name}.csv', tmp_path))
    metrics = [MACLIPAdapter('maclip', tiny_metric)]
    processes = Processes(rank, 2)
    if rank:  # what process 0 has written
        (tmp_path / 'out').mkdir()
        (tmp_path / 'out' / 'run.json').touch()
    list(evaluate(datasets, metrics, tmp_path / 'out', processes=processes, warn=events.append))
    assert events[-4:] == [f'scored {name}' for name in names]
    warned = [warning.split(';')[0] for warning in events[:-4]]
    assert warned == [
        'few: number of images: 4, too few for reliable statistics',
        'repeated: files listed more than once: 2 (a = b/../a, d)',
        'often: files listed more than once: 4 (a, b, c, ...)',
    ] * (rank == 0)


def test_spellings_of_one_file_are_told(root, tiny_metric, tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'photos')
    (tmp_path / 'b.png').symlink_to('photos/b.png')
    names = [
        'photos/a.png',
        './photos/a.png',
        'link/a.png',
        f'{tmp_path}/photos/a.png',
        'photos/b.png',
        'b.png',
        'c.png',
    ]
    (tmp_path / 'list.csv').write_text('file,mos\n' + ''.join(f'{file},{min(i, 4)}\n' for i, file in enumerate(names)))
    metrics, told = [MACLIPAdapter('maclip', tiny_metric)], []
    list(evaluate([read_list(tmp_path / 'list.csv', tmp_path)], metrics, tmp_path / 'out', warn=told.append))
    assert told[0].startswith(
        f'list: files listed more than once: 2 (photos/a.png = ./photos/a.png = link/a.png = {tmp_path}/photos/a.png, '
        'photos/b.png = b.png), 1 of them with different ratings (photos/a.png: 0 and 1 and 2 and 3); expected one '
    )


def test_names_given_twice(run, table, tmp_path, capsys):
    names = ('-d', 'csiq', 'csiq')
    assert run(tmp_path / 'out', *names, metrics=('piqe', 'piqe'), backbone=None, resamples=0) == 0
    err = capsys.readouterr().err
    assert '-m has piqe more than once; expected each name once' in err and '-d has csiq more than once' in err
    assert len(table(tmp_path / 'out' / 'results.csv')) == 1


def test_doubtful_lists_in_the_command(root, run, table, tmp_path, capsys):
    """Both entries of a repeated file are scored."""
    (tmp_path / 'list.csv').write_text('file,mos\n0_0.png,0.44\n0_1.png,1\n0_0.png,2.08\n')
    options = ['--list', str(tmp_path / 'list.csv'), '--images', str(root / 'CSIQ/dst_imgs')]
    assert run(tmp_path / 'out', *options, resamples=0) == 0
    shown = capsys.readouterr()
    assert (
        'list: files listed more than once: 1 (0_0.png), 1 of them with different ratings (0_0.png: 0.44' in shown.err
    )
    assert '0.44 and 2.08); expected one entry' in shown.err and 'Remove the others' in shown.err
    assert 'list: number of images: 3, too few' in shown.err and 'more than once' not in shown.out
    rows = table(tmp_path / 'out' / 'scores' / 'list.maclip.csv')
    assert [row['rating'] for row in rows] == ['0.44', '1.0', '2.08'] and rows[0]['score'] == rows[2]['score'] != ''


# --- scores of other programs, and what scoring took ---------------------------------------------------------------


def test_scores_of_a_file(root, run, table, tmp_path, capsys):
    """Against scipy on the joined tables; one image has no score, and a lower score is better."""
    dataset = load_dataset('csiq', 'paper', root)
    noise = np.random.default_rng(0).normal(0, 0.3, 20)
    scores = [rating + more for rating, more in zip(dataset.ratings, noise, strict=True)]  # as DMOS: lower is better
    rows = list(zip([f'/mnt/csiq/{name}' for name in dataset.names], scores, strict=True))
    with open(tmp_path / 'theirs.csv', 'w', newline='') as file:
        csv.writer(file).writerows([('image', 'MDFS'), *rows[:3], *rows[4:], ('more.png', 0)])
    options = ['-d', 'csiq', '--protocol', 'paper', '--scores', f'MDFS={tmp_path / "theirs.csv"}']
    assert run(tmp_path / 'out', *options, '--lower-better', 'MDFS', metrics=('piqe',), backbone=None) == 1
    assert f'csiq: {dataset.names[3]}: MDFS: no score in {tmp_path}/theirs.csv' in capsys.readouterr().err
    piqe, row = table(tmp_path / 'out' / 'results.csv')
    assert (row['metric'], row['n'], row['failed'], piqe['n'], piqe['failed']) == ('MDFS', '19', '1', '20', '0')

    scored = [i for i in range(20) if i != 3]
    x, ratings = -np.array(scores)[scored], -np.array(dataset.ratings)[scored]
    for column, statistic in {'srcc': stats.spearmanr, 'krcc': stats.kendalltau, 'plcc': stats.pearsonr}.items():
        assert float(row[column]) == pytest.approx(statistic(x, ratings).statistic, abs=1e-6), column
        assert float(row[f'{column}_low']) < float(row[column]) < float(row[f'{column}_high'])
    (pair,) = table(tmp_path / 'out' / 'differences.csv')
    other = -np.array([float(r['score']) for r in table(tmp_path / 'out' / 'scores' / 'csiq.piqe.csv')])[scored]
    difference = stats.spearmanr(other, ratings).statistic - stats.spearmanr(x, ratings).statistic
    assert (pair['metric_b'], pair['n']) == ('MDFS', '19')
    assert float(pair['difference']) == pytest.approx(difference, abs=1e-6)

    written = table(tmp_path / 'out' / 'scores' / 'csiq.MDFS.csv')
    assert [r['score'] for r in written] == [f'{v:.6f}' if i != 3 else '' for i, v in enumerate(scores)]
    assert (tmp_path / 'out' / 'plots' / 'csiq.MDFS.png').exists()
    assert row['seconds'] == row['memory_mib'] == row['device'] == '' and json.loads(row['config'])['lower_better']
    (entry,) = json.loads((tmp_path / 'out' / 'run.json').read_text())
    assert [metric['metric'] for metric in entry['metrics']] == ['piqe', 'MDFS']
    assert len(list((tmp_path / 'out' / 'cache').glob('*'))) == 1  # piqe's
    # other runs by other metrics may share the folder, as ever
    assert run(tmp_path / 'out', '-d', 'csiq', '--protocol', 'paper', metrics=('entropy',), backbone=None) == 0
    assert len(table(tmp_path / 'out' / 'results.csv')) == 3


def test_files_of_scores_alone(run, table, tmp_path):
    """No image is read, and none need be there."""
    (tmp_path / 'list.csv').write_text('file,mos\n' + ''.join(f'{i}.png,{i}\n' for i in range(8)))
    for name, values in {'A': [0, 1, 2, 3, 4, 5, 7, 6], 'B': [7, 6, 5, 4, 3, 2, 1, 0]}.items():
        rows = ''.join(f'{i}.png,{value}\n' for i, value in enumerate(values))
        (tmp_path / f'{name}.csv').write_text('file,score\n' + rows)
    files = [f'--scores={name}={tmp_path / name}.csv' for name in 'AB']
    options = ['--list', str(tmp_path / 'list.csv'), *files, '--lower-better', 'B']
    assert run(tmp_path / 'out', *options, metrics=(), backbone=None) == 0
    a, b = table(tmp_path / 'out' / 'results.csv')
    assert float(a['srcc']) == pytest.approx(1 - 6 * 2 / (8 * 63), abs=1e-6) and float(b['srcc']) == 1
    assert not (tmp_path / 'out' / 'cache').exists()


def test_a_file_that_has_no_score_is_told_before_scoring(root, tiny_metric, tmp_path, computed):
    (tmp_path / 'theirs.csv').write_text('file,score\nother.png,1\n')
    metrics = [MACLIPAdapter('maclip', tiny_metric), FileAdapter('MDFS', tmp_path / 'theirs.csv')]
    with pytest.raises(ValueError, match="has a score for no image of 'csiq'"):
        next(evaluate([load_dataset('csiq', 'pyiqa', root)], metrics, tmp_path / 'out'))
    assert computed == [] and not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_time_and_memory(root, run, table, tmp_path, monkeypatch, computed):
    """One metric waits and holds 100 MiB; the columns survive a second run, which computes nothing."""
    plain = PyiqaAdapter.compute

    def compute(self, image):
        held = np.ones(100 * 2**17)
        time.sleep(0.1)
        return plain(self, image) + 0 * held[0]

    monkeypatch.setattr(PyiqaAdapter, 'compute', compute)
    names = sorted(path.name for path in (root / 'CSIQ/dst_imgs').iterdir())[:5]  # too few for the logistic fit
    (tmp_path / 'few.csv').write_text('file,mos\n' + ''.join(f'{name},{i}\n' for i, name in enumerate(names)))
    options = ['--list', str(tmp_path / 'few.csv'), '--images', str(root / 'CSIQ/dst_imgs')]
    assert run(tmp_path, *options, metrics=('maclip', 'entropy'), resamples=0) == 0
    rows = table(tmp_path / 'results.csv')
    seconds = {row['metric']: float(row['seconds']) for row in rows}
    assert seconds['entropy'] > 0.1 and seconds['maclip'] > 0
    assert {row['device'] for row in rows} == {f'cpu, threads: {torch.get_num_threads()}'}
    if not math.isnan(peak_memory(lambda: None, torch.device('cpu'))):
        memory = {row['metric']: float(row['memory_mib']) for row in rows}
        assert memory['entropy'] > 100 > memory['maclip'] > 0
    text, before = (tmp_path / 'results.md').read_text(), (tmp_path / 'results.csv').read_bytes()
    assert '| note | seconds | MiB | device |' in text and f'| {seconds["entropy"]:.3g} | ' in text

    computed.clear()
    assert run(tmp_path, *options, metrics=('maclip', 'entropy'), resamples=0) == 0
    assert computed == [] and (tmp_path / 'results.csv').read_bytes() == before
    assert load_features(tmp_path, 'few').features[0].shape == (2, 64)  # which ignores them


def test_cached_before_costs_were_measured(run, table, tmp_path, monkeypatch, computed):
    with monkeypatch.context() as patch:
        patch.setattr(Meter, '__call__', lambda self, compute, image: (compute(image), {}))
        assert run(tmp_path, '-d', 'agiqa-3k', metrics=('entropy',), backbone=None, resamples=0) == 0
    computed.clear()
    assert run(tmp_path, '-d', 'agiqa-3k', metrics=('entropy',), backbone=None, resamples=0) == 0
    (row,) = table(tmp_path / 'results.csv')
    assert computed == [] and row['n'] == '20' and row['seconds'] == row['memory_mib'] == row['device'] == ''


def test_standard_comparison(run, tmp_path, capsys, monkeypatch):
    """`standard` stands for nine metrics that pyiqa has, as the help says."""
    asked = []

    def load(names, device, **options):
        asked.extend(names)
        raise ValueError('enough')

    monkeypatch.setattr('maclip_pyiqa.evaluation.metrics.load_adapters', load)
    assert run(tmp_path, '-d', 'csiq', metrics=('musiq', 'standard', 'niqe'), backbone=None) == 2
    assert asked == ['musiq', *STANDARD, 'niqe'] and len(STANDARD) == 9
    check_metrics(STANDARD)
    assert main(['evaluate', '--help']) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf'(?<![\w+]){re.escape(name)}(?![\w+])', shown) for name in STANDARD)


# --- resuming, and several processes -----------------------------------------------------------------------------


def same_results(a: Path, b: Path) -> None:
    """But for what scoring took."""

    def text(path: Path) -> str:
        text, (cells, count) = path.read_text(), COSTS_IN.get(path.name, ('(?!)', 0))
        plain, found = re.subn(cells, '', text)
        assert found == count
        return plain

    names = sorted(str(p.relative_to(a)) for p in a.rglob('*.csv'))
    assert len(names) > 2 and names == sorted(str(p.relative_to(b)) for p in b.rglob('*.csv'))
    for name in [*names, 'results.md']:
        assert text(a / name) == text(b / name), name


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """Names of the metrics that compute something for the cache, as often as they do."""
    names = []
    for adapter in (MACLIPAdapter, PyiqaAdapter):
        plain = adapter.to_cache
        monkeypatch.setattr(
            adapter, 'to_cache', lambda self, *args, plain=plain: names.append(self.name) or plain(self, *args)
        )
    return names


@pytest.mark.slow
def test_killed_and_resumed(finished, arguments, tmp_path, computed):
    """Killed without warning while it writes: what was finished is not computed again."""
    code = """
import os, signal, sys
from maclip_pyiqa.cli import main
replace, calls = os.replace, []
def stop(*args):
    calls.append(args)
    if len(calls) == 8:  # run.json, then two arrays an image
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*args)
os.replace = stop
main(sys.argv[1:])
"""
    options = arguments(tmp_path, '-d', 'csiq', '--protocol', 'paper', metrics=('maclip', 'piqe'))
    killed = subprocess.run([sys.executable, '-c', code, *options], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(tmp_path.rglob('*.npz'))) == 6 and not (tmp_path / 'results.csv').exists()

    assert main(options) == 0
    assert (computed.count('maclip'), computed.count('piqe')) == (17, 17)
    same_results(finished, tmp_path)
    computed.clear()
    assert main(options) == 0 and computed == []
    same_results(finished, tmp_path)


def test_interrupted(run, tmp_path, monkeypatch, capsys, computed):
    plain = PyiqaAdapter.compute

    def interrupted(self, image):
        if len(computed) == 5:
            raise KeyboardInterrupt
        return plain(self, image)

    with monkeypatch.context() as patch:
        patch.setattr(PyiqaAdapter, 'compute', interrupted)
        assert run(tmp_path, '-d', 'csiq', metrics=('entropy',), backbone=None) == 130
    assert 'interrupted; rerun the same command to resume' in capsys.readouterr().err
    assert run(tmp_path, '-d', 'csiq', metrics=('entropy',), backbone=None) == 0
    assert len(computed) == 20


@pytest.mark.slow
def test_two_processes_equal_one(finished, arguments, tmp_path):
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    options = arguments(tmp_path, '-d', 'csiq', '--protocol', 'paper', metrics=('maclip', 'piqe'))
    threads = str(torch.get_num_threads())  # as here: convolutions round differently with other numbers of threads
    environment = os.environ | {'OMP_NUM_THREADS': threads}
    done = subprocess.run([*command, '-m', 'maclip_pyiqa', *options], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / 'run.json').read_text())[0]['processes'] == 2
    assert done.stdout.count('# Results') == 1  # one of them reports
    same_results(finished, tmp_path)


def test_processes_wait_for_each_other():
    """Process 0 for the others, and they for it."""
    store, events = torch.distributed.HashStore(), []

    def work(rank):
        processes = Processes(rank, 3, store)
        done = processes.one_first(lambda: events.append(f'loaded {rank}') or rank)
        time.sleep(rank / 10)
        events.append(f'scored {rank}')
        processes.wait_for(range(1, 3))
        events.append(f'left {rank}')
        return done

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(3))) == [0, 1, 2]
    assert events[0] == 'loaded 0' and events[-1] == 'left 0' and len(events) == 9


@pytest.mark.slow
def test_processes_of_torchrun_wait_for_each_other(tmp_path):
    """One process comes late, and one is needed last."""
    script = tmp_path / 'script.py'
    script.write_text("""
import sys, time
from pathlib import Path
from maclip_pyiqa.evaluation.evaluate import Processes

with Processes.join() as processes:
    rank = processes.rank
    loaded = Path(sys.argv[1], 'loaded')
    assert processes.one_first(lambda: loaded.exists() or loaded.touch() or rank) == (True if rank else 0)
    time.sleep(rank)
    Path(sys.argv[1], str(rank)).touch()
    processes.wait_for(range(1, 3))
    assert rank or all(Path(sys.argv[1], str(other)).exists() for other in range(3))
    time.sleep(rank)
""")
    run = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=3', script]
    in_agent = os.environ | {'OMP_NUM_THREADS': '1'}
    in_process_0 = in_agent | {'TORCH_DISABLE_SHARE_RDZV_TCP_STORE': '1'}
    for name, environment in {'agent': in_agent, 'process 0': in_process_0}.items():
        (tmp_path / name).mkdir()
        done = subprocess.run([*run, tmp_path / name], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text("""
import os, signal
from maclip_pyiqa.evaluation.evaluate import Processes

with Processes.join() as processes:
    if processes.rank:
        os.kill(os.getpid(), signal.SIGKILL)
""")
    run = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', script]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, env=os.environ | {'OMP_NUM_THREADS': '1'})
    assert done.returncode == 1 and 'Signal 9' in done.stderr


def test_parts_of_processes(root, tiny_metric, tmp_path, computed):
    """Scores, keys and errors are those of one process; what fails is tried again by process 0, and warned of once."""
    names = sorted(path.name for path in (root / 'CSIQ/dst_imgs').iterdir())[:6]
    (tmp_path / 'list.csv').write_text('file,mos\n' + ''.join(f'{name},{i}\n' for i, name in enumerate([*names, 'x'])))
    (tmp_path / 'broken.csv').write_text((tmp_path / 'list.csv').read_text().replace(names[1], __file__))
    dataset = read_list(tmp_path / 'broken.csv', root / 'CSIQ/dst_imgs')
    (tmp_path / 'theirs.csv').write_text('file,score\n' + ''.join(f'{name},{i}\n' for i, name in enumerate(names)))
    metrics = [FileAdapter('theirs', tmp_path / 'theirs.csv'), MACLIPAdapter('maclip', tiny_metric)]
    store, warnings = torch.distributed.HashStore(), []

    def score(rank):
        processes = Processes(rank, 2, store)
        return score_dataset(dataset, metrics, tmp_path / 'two', processes=processes, warn=warnings.append)

    with ThreadPoolExecutor(2) as pool:
        (file, two), nothing = pool.map(score, range(2))
    assert nothing == [] and computed == ['maclip'] * 5
    alone, one = score_dataset(dataset, metrics, tmp_path / 'one')
    np.testing.assert_array_equal(file.scores, [0, np.nan, 2, 3, 4, 5, np.nan])
    np.testing.assert_array_equal(alone.scores, file.scores)
    assert alone.errors == file.errors and len(file.keys) == 7
    np.testing.assert_array_equal(two.scores, one.scores)
    assert two.errors == one.errors and two.keys == one.keys
    assert [bool(error) for error in two.errors] == [False, True, *[False] * 4, True] and len(warnings) == 4
    assert sorted(warnings)[0].startswith(f'broken: {__file__}: maclip: not an image')
    assert f'broken: x: theirs: no score in {tmp_path}/theirs.csv' in warnings


def test_hosts_must_share_the_folder(root, tiny_metric, tmp_path):
    dataset, store = load_dataset('csiq', 'paper', root), torch.distributed.HashStore()

    def score(rank):
        processes = Processes(rank, 2, store)
        metrics = [MACLIPAdapter('maclip', tiny_metric)]
        return next(evaluate([dataset], metrics, tmp_path / str(rank), resamples=0, processes=processes))

    with ThreadPoolExecutor(2) as pool:
        pool.submit(score, 0)
        with pytest.raises(FileNotFoundError, match='all hosts must share it'):
            pool.submit(score, 1).result()
        store.add('2', 1)  # so that process 0 ends: torchrun would kill it


@pytest.mark.slow
def test_reading_processes(finished, arguments, tmp_path):
    options = arguments(tmp_path, '-d', 'csiq', '--protocol', 'paper', metrics=('maclip', 'piqe'))
    assert main([*options, '--workers', '2']) == 0
    same_results(finished, tmp_path)


def test_one_process_alone(monkeypatch):
    monkeypatch.delenv('WORLD_SIZE', raising=False)
    with Processes.join() as processes:
        assert (processes.rank, processes.size) == (0, 1)
        assert processes.wait_for(range(1)) is None and processes.one_first(lambda: 3) == 3


# --- wrong use ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'code', 'message'),
    [
        ([], 2, 'name some with -d'),
        (['-d', 'nonsense'], 2, 'unknown data set'),
        (['-d', 'csiq', '-m', 'psnr'], 2, "'psnr' is not a metric of pyiqa that works without a reference"),
        (['-d', 'csiq', '-m', 'piqe'], 2, 'backbone: for maclip, which is not among piqe'),
        (['-d', 'csiq', '--backbone', 'local-dir:nowhere'], 3, 'nowhere'),
        (['-d', 'csiq', '--backbone', 'nonsense'], 2, "'nonsense'"),
        (['-d', 'csiq', '--device', 'nonsense'], 2, 'cannot be used'),
        (['-d', 'csiq', '--resamples', '-1'], 2, 'whole number'),
        (['-d', 'csiq', '--ratings', 'dmos'], 2, 'need --list'),
        (['-d', 'csiq', '--list', 'x.json'], 2, 'x.json cannot be read'),
        (['--list', 'x.csv', '--images', 'nowhere'], 2, 'nowhere: no such folder'),
        (['-d', 'csiq', '-m'], 2, 'no metric; name some with -m'),
        (['-d', 'csiq', '--scores', 'MDFS'], 2, "'MDFS' is not NAME=FILE"),
        (['-d', 'csiq', '--scores', 'MDFS=x.csv'], 2, 'x.csv'),
        (['-d', 'csiq', '--scores', 'maclip=x.csv'], 2, '--scores maclip: -m has this metric too'),
        (['-d', 'csiq', '-m', 'standard', '--scores', 'niqe=x.csv'], 2, '--scores niqe: -m has this metric too'),
        (['-d', 'csiq', '--scores', 'A=x.csv', '--scores', 'A=y.csv'], 2, '--scores has A more than once'),
        (['-d', 'csiq', '--scores', 'A=x.csv', '--lower-better', 'B'], 2, '--lower-better B: not a metric of --scores'),
        (['-d', 'csiq', '--lower-better', 'niqe'], 2, '--lower-better niqe: not a metric of --scores; it has none'),
    ],
)
def test_wrong_use(run, tmp_path, capsys, options, code, message):
    assert run(tmp_path / 'out', *options) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_the_list_is_not_a_data_set_beside_it(root, run, tmp_path, capsys):
    (tmp_path / 'csiq.csv').write_text('file,mos\na.png,1\n')
    assert run(tmp_path / 'out', '-d', 'csiq', '--list', str(tmp_path / 'csiq.csv')) == 2
    assert "'csiq'; choose another with --name" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(run, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert run(tmp_path / 'file' / 'out', '-d', 'csiq', metrics=('entropy',), backbone=None) == 2
    assert 'Not a directory' in capsys.readouterr().err


@pytest.mark.parametrize('command', ['evaluate', 'ablate', 'fit'])
def test_missing_extra(monkeypatch, tmp_path, capsys, command):
    monkeypatch.setitem(sys.modules, 'pandas', None)
    options = {'evaluate': ['-d', 'csiq'], 'ablate': [str(tmp_path)], 'fit': [str(tmp_path), 'csiq']}[command]
    assert main([command, *options]) == 2
    assert (
        f"{command} needs pandas, which is not installed: pip install 'maclip_pyiqa[evaluation]'"
        in capsys.readouterr().err
    )


def test_missing_extra_is_told_before_scoring(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    with pytest.raises(ModuleNotFoundError, match=r'maclip_pyiqa\[evaluation\]'):
        next(evaluate([], [], tmp_path / 'results'))
    assert not (tmp_path / 'results').exists()


@pytest.mark.parametrize(
    'options',
    [
        ['evaluate', '--help'],
        ['evaluate'],
        ['evaluate', '--list', 'missing.csv'],
        ['ablate', 'missing'],
        ['fit', 'missing', 'csiq'],
    ],
)
def test_answered_without_heavy_imports(tmp_path, options):
    code = (
        'import sys; from maclip_pyiqa.cli import main; main(sys.argv[1:]); '
        'print(sorted({"torch", "scipy", "pyiqa", "pandas", "matplotlib"} & set(sys.modules)))'
    )
    command = [sys.executable, '-c', code, *options]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=_environment())
    assert shown.stdout.endswith('[]\n'), shown.stdout
    assert shown.stderr or '--protocol paper' in shown.stdout


def _environment() -> dict[str, str]:
    """Of a process that finds the package from another folder."""
    import maclip_pyiqa

    return os.environ | {'PYTHONPATH': str(Path(maclip_pyiqa.__file__).parents[1])}


def test_list_of_a_data_set(root):
    """The same ratings whether pyiqa reads the table or we do."""
    theirs = load_dataset('csiq', 'paper', root)
    ours = read_list(root / 'meta_info/meta_info_CSIQDataset.csv', root / 'CSIQ/dst_imgs', 'csiq', lower_better=True)
    assert (ours.ratings, ours.names, ours.groups) == (theirs.ratings, theirs.names, theirs.groups)
