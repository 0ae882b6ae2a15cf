"""The accuracy study from the command line, on tiny data sets made of photos blurred in steps."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageFilter
from scipy import stats

from maclip_pyiqa.evaluation import evaluate as accuracy
from maclip_pyiqa.evaluation import datasets as iqa_data
from maclip_pyiqa.evaluation import store
from maclip_pyiqa.evaluation.datasets import UsageError
from maclip_pyiqa import MACLIP

BENCHMARK = Path(accuracy.__file__)
STEPS = 4


@pytest.fixture(scope='module')
def root(photo_files, tmp_path_factory) -> Path:
    """Data sets in pyiqa's layout: CSIQ (references, DMOS), KonIQ (MOS, a split), SPAQ, and AGIQA-3k as published."""
    root = tmp_path_factory.mktemp('datasets')
    places = {'CSIQ/dst_imgs': '.png', 'koniq10k/1024x768': '.jpg', 'AGIQA-3K/images': '.png', 'SPAQ/TestImage': '.png'}
    for place in (*places, 'CSIQ/src_imgs', 'meta_info'):
        (root / place).mkdir(parents=True)
    names = []
    for i, file in enumerate(photo_files[::2]):
        photo = Image.open(file).convert('RGB').resize((96, 72))
        photo.save(root / 'CSIQ/src_imgs' / f'{i}.png')
        for step in range(STEPS):
            names.append(f'{i}_{step}')
            for place, suffix in places.items():
                photo.filter(ImageFilter.GaussianBlur(step)).save(root / place / f'{i}_{step}{suffix}')
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


def run(root, output, tiny, *more, metrics=('maclip',), resamples=20):
    options = ['--data-root', str(root), '-o', str(output), '--resamples', str(resamples), '--device', 'cpu']
    return accuracy.main(['-m', *metrics, '--backbone', tiny, '--workers', '0', *options, *more])


def table(path) -> list[dict]:
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def finished(root, tiny, tmp_path_factory):
    """Results of two metrics on CSIQ by the paper's protocol."""
    output = tmp_path_factory.mktemp('results')
    assert run(root, output, tiny, '-d', 'csiq', '--protocol', 'paper', metrics=('maclip', 'piqe')) == 0
    return output


# --- data sets ---------------------------------------------------------------------------------------------------


def test_protocols_sizes_are_the_papers():
    """Section 1 of the design: native size, but SPAQ at 448x448 and AGIQA-1k at 224x224, bicubic."""
    paper = iqa_data.protocols()['protocols']['paper']
    assert set(paper) == {
        *('agiqa-1k', 'agiqa-3k', 'livec', 'csiq', 'tid2013', 'kadid10k', 'koniq10k-1024', 'spaq', 'pipal'),
    }
    photo = Image.effect_noise((300, 250), 80).convert('RGB')
    data = _png(photo)
    for name, options in paper.items():
        side = {'spaq': 448, 'agiqa-1k': 224}.get(name)
        want = photo.resize((side, side), Image.Resampling.BICUBIC) if side else photo
        assert (iqa_data.prepared(data, options.get('augment', {})) == np.array(want)).all(), name


def _png(image) -> bytes:
    import io

    file = io.BytesIO()
    image.save(file, 'PNG')
    return file.getvalue()


@pytest.mark.parametrize(('name', 'protocol', 'count'), [('koniq10k-1024', 'pyiqa', 8), ('koniq10k-1024', 'paper', 20)])
def test_splits(root, name, protocol, count):
    dataset = iqa_data.by_name(name, protocol, root)
    assert len(dataset.paths) == len(dataset.labels) == count and dataset.groups is None
    assert dataset.names[1] == '0_1.jpg' and not dataset.lower_better


@pytest.mark.parametrize('name', ['csiq', 'koniq10k-1024', 'spaq'])
def test_pixels_and_labels_are_pyiqas(root, name):
    import pyiqa

    theirs = pyiqa.load_dataset(name, root)
    ours = iqa_data.by_name(name, 'pyiqa', root)
    assert len(ours.paths) == len(theirs)
    for i in (0, 3, len(theirs) - 1):
        item = theirs[i]
        pixels = iqa_data.prepared(Path(ours.paths[i]).read_bytes(), ours.preparation)
        assert torch.equal(torch.from_numpy(pixels).permute(2, 0, 1) / 255, item['img'])
        assert ours.labels[i] == pytest.approx(float(item['mos_label'])) and ours.paths[i] == str(item['img_path'])


def test_references_are_groups(root):
    dataset = iqa_data.by_name('csiq', 'paper', root)
    assert dataset.lower_better  # as pyiqa declares
    assert dataset.groups == [f'{name[0]}.png' for name in dataset.names]


def test_authors_table(root):
    dataset = iqa_data.by_name('agiqa-3k', 'paper', root)
    assert len(dataset.paths) == 20 and Path(dataset.paths[0]).exists()
    assert dataset.labels[1] == 5 - 0.25 and not dataset.lower_better


@pytest.mark.parametrize(
    ('name', 'protocol', 'message'),
    [
        ('nonsense', 'pyiqa', "unknown data set 'nonsense'; known are agiqa-1k, .*csiq"),
        ('ava', 'paper', "protocol 'paper' has no data set 'ava'; it has agiqa-1k"),
        ('tid2013', 'paper', 'meta_info_TID2013Dataset.csv and .*distorted_images missing; --data-root'),
        ('bapps', 'pyiqa', 'missing'),
    ],
)
def test_data_sets_that_are_not_there(root, name, protocol, message):
    with pytest.raises(UsageError, match=message):
        iqa_data.by_name(name, protocol, root)


def test_lists(tmp_path):
    rows = [{'img_path': 'a.png', 'gt_score': 1.5}, {'img_path': 'b/c.png', 'gt_score': 2}]
    file = tmp_path / 'authors.json'
    file.write_text(json.dumps(rows))
    dataset = iqa_data.from_list(file, tmp_path / 'images')
    assert dataset.paths == [str(tmp_path / 'images' / p) for p in ('a.png', 'b/c.png')]
    assert (dataset.name, dataset.labels, dataset.groups) == ('authors', [1.5, 2.0], None)

    file = tmp_path / 'table.csv'
    file.write_text('\ufeffref_name,dist_name,DMOS\nr,a,1\nr,b,2\n')
    with pytest.raises(UsageError, match='--labels dmos'):
        iqa_data.from_list(file, tmp_path)
    dataset = iqa_data.from_list(file, tmp_path, lower_better=True)
    assert (dataset.names, dataset.groups, dataset.lower_better) == (['a', 'b'], ['r', 'r'], True)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'a CSV file with a header and rows'),
        ('one,two\n1,2\n', r'has no file column .*it has one, two; name one with --file-column'),
        ('file,two\n1,2\n', 'has no label column'),
        ('file,mos\na,1\nb,x\n', "label of entry 2 is 'x'"),
        ('file,mos\na,1\nb\n', 'label of entry 2 is None'),
        ('file,mos\na,nan\n', 'label of entry 1'),
        ('file,mos\n,1\n', 'entry 1 names no file'),
    ],
)
def test_malformed_lists(tmp_path, text, message):
    (tmp_path / 'list.csv').write_text(text)
    with pytest.raises(UsageError, match=message):
        iqa_data.from_list(tmp_path / 'list.csv', tmp_path)


# --- results -----------------------------------------------------------------------------------------------------


def test_results(finished, root, tiny):
    """Against a straight way: the metric itself, and scipy on its scores."""
    dataset = iqa_data.by_name('csiq', 'paper', root)
    images = [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255 for path in dataset.paths]
    with torch.no_grad():
        scores = MACLIP(backbone=tiny)(images)[:, 0].numpy()
    labels = -np.array(dataset.labels)  # CSIQ's are DMOS
    rows = table(finished / 'results.csv')
    assert tuple(rows[0]) == accuracy.COLUMNS and [row['metric'] for row in rows] == ['maclip', 'piqe']
    row = rows[0]
    assert (row['dataset'], row['protocol'], row['n'], row['failed']) == ('csiq', 'paper', '20', '0')
    for column, statistic in {'srcc': stats.spearmanr, 'krcc': stats.kendalltau, 'plcc': stats.pearsonr}.items():
        assert float(row[column]) == pytest.approx(statistic(scores, labels).statistic, abs=0.02), column
        assert float(row[f'{column}_low']) < float(row[column]) < float(row[f'{column}_high'])
    assert abs(float(row['srcc'])) > 0.1  # so that a wrong sign would show

    kept = table(finished / 'scores' / 'csiq.maclip.csv')
    np.testing.assert_allclose([float(k['score']) for k in kept], scores, atol=1e-4)
    assert [float(k['label']) for k in kept] == dataset.labels and kept[5]['group'] == '1.png'  # as published
    ranked = stats.spearmanr([float(k['score']) for k in kept], labels).statistic
    assert float(row['srcc']) == pytest.approx(ranked, abs=1e-6)

    piqe = [float(k['score']) for k in table(finished / 'scores' / 'csiq.piqe.csv')]  # whose low scores are good
    assert float(rows[1]['srcc']) == pytest.approx(stats.spearmanr(np.negative(piqe), labels).statistic, abs=1e-6)
    assert float(rows[1]['srcc']) > 0.3  # blur is bad
    (pair,) = table(finished / 'differences.csv')
    assert (pair['metric_a'], pair['metric_b'], pair['n']) == ('maclip', 'piqe', '20')
    assert float(pair['difference']) == pytest.approx(float(row['srcc']) - float(rows[1]['srcc']), abs=2e-6)


def test_report(finished, tiny, tiny_metric):
    for name in ('maclip', 'piqe'):
        with Image.open(finished / 'plots' / f'csiq.{name}.png') as image:
            assert np.ptp(np.array(image)) > 0
    (entry,) = json.loads((finished / 'run.json').read_text())
    assert entry['metrics'][0]['weights'] == store.checksum(tiny_metric)
    assert entry['metrics'][0]['constants']['alpha'] == 1.0 and entry['metrics'][0]['backbone'] == tiny
    assert entry['datasets'] == [
        {'name': 'csiq', 'lower_better': True, 'preparation': {}, 'protocol': 'paper', 'images': 20, 'groups': 5}
    ]
    assert entry['versions']['pyiqa'] and '--backbone' in entry['command']
    text = (finished / 'results.md').read_text()
    assert f'| csiq | maclip | {tiny} {store.checksum(tiny_metric)[:12]} | paper | 20 | 0 |' in text
    # another backbone than the paper's is not set beside its numbers
    assert '| CSIQ | MA-CLIP | not run | 0.7374 |  |' in text and '0.6435, not 0.6296' in text
    assert '| average of the rows | CLIP-IQA | not run | 0.6435 |' in text


def test_beside_the_paper():
    rows = [{'dataset': 'csiq', 'metric': 'maclip', 'protocol': 'paper', 'weights': 'RN50 0', 'srcc': '0.75'}]
    assert '| CSIQ | MA-CLIP | 0.7500 | 0.7374 | +0.0126 |' in accuracy.published(rows)
    for change in ({'protocol': 'pyiqa'}, {'weights': 'RN101 0'}, {'srcc': ''}, {'dataset': 'live'}):
        assert '| CSIQ | MA-CLIP | not run | 0.7374 |  |' in accuracy.published([rows[0] | change])
    facts = table(BENCHMARK.with_name('paper_results.csv'))
    means = {m: np.mean([float(f['srcc']) for f in facts if f['metric'] == m]) for m in ('CLIP-IQA', 'MA-CLIP')}
    assert means['CLIP-IQA'] == pytest.approx(0.6435, abs=5e-5)  # as the note says
    assert means['MA-CLIP'] / means['CLIP-IQA'] - 1 == pytest.approx(0.073, abs=5e-4)


def test_kept_features_are_what_fits_are_made_from(finished, tiny):
    kept = store.load(finished, 'csiq')
    assert len(kept.features) == 20 and kept.features[0].shape == (2, 64) and kept.groups[0] == '0.png'
    metric = MACLIP(backbone=tiny)
    assert kept.meta['backbone'] == tiny and kept.meta['protocol'] == 'paper' and kept.meta['views'] == 'windows'
    assert [tuple(p) for p in kept.meta['prompts']] == list(metric.prompts)
    assert torch.equal(kept.text, metric.backbone.text) and torch.equal(kept.scale, metric.backbone.scale)
    assert kept.labels[:2].tolist() == [0, -0.25]


def test_own_list_and_bad_images(root, tiny, tmp_path, capsys, monkeypatch):
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
    options = ['--list', str(tmp_path / 'mine.csv'), '--images', str(images), '--label-column', 'quality']
    assert run(root, tmp_path / 'out', tiny, *options) == 1
    (row,) = table(tmp_path / 'out' / 'results.csv')
    assert (row['dataset'], row['protocol'], row['n'], row['failed']) == ('mine', 'list', '6', '3')
    errors = {r['image']: r['error'] for r in table(tmp_path / 'out' / 'scores' / 'mine.maclip.csv') if r['error']}
    assert set(errors) == {'6.jpg', '7.jpg', 'gone.jpg'} and 'truncated' in errors['6.jpg']
    assert 'gone.jpg' in (shown := capsys.readouterr().err) and '3 scores failed' in shown
    assert store.load(tmp_path / 'out', 'mine').names == [f'{i}.jpg' for i in range(6)]

    (images / '6.jpg').write_bytes(whole)  # mended: it is taken in, the others are told again
    assert run(root, tmp_path / 'out', tiny, *options) == 1
    (row,) = table(tmp_path / 'out' / 'results.csv')
    assert (row['n'], row['failed']) == ('7', '2')


def test_a_metric_with_limits_of_its_own(root, tiny, tmp_path, monkeypatch):
    """What one metric cannot score, another can."""
    plain = accuracy.OtherMetric.make

    def make(self, image):
        if image.shape[1] == 72:
            raise RuntimeError('too small')
        return plain(self, image)

    monkeypatch.setattr(accuracy.OtherMetric, 'make', make)
    assert run(root, tmp_path, tiny, '-d', 'agiqa-3k', metrics=('maclip', 'entropy')) == 1
    ours, other = table(tmp_path / 'results.csv')
    assert (ours['n'], ours['failed'], other['n'], other['failed']) == ('20', '0', '0', '20')
    assert other['srcc'] == '' and other['note'] == 'no logistic fit: 0 images, at least 6 are wanted for 5 parameters'


def test_several_runs_share_a_folder(root, tiny, tmp_path, capsys):
    assert run(root, tmp_path, tiny, '-d', 'csiq', metrics=('maclip',)) == 0
    assert run(root, tmp_path, tiny, '-d', 'agiqa-3k', 'csiq', metrics=('maclip', 'entropy')) == 0
    rows = table(tmp_path / 'results.csv')
    want = [('agiqa-3k', 'maclip'), ('agiqa-3k', 'entropy'), ('csiq', 'maclip'), ('csiq', 'entropy')]
    assert [(row['dataset'], row['metric']) for row in rows] == want
    assert len(json.loads((tmp_path / 'run.json').read_text())) == 2
    assert run(root, tmp_path, tiny, '-d', 'csiq', '--protocol', 'paper') == 2
    assert "holds 'csiq' by protocol 'pyiqa'" in capsys.readouterr().err


@pytest.mark.parametrize('name', ['maclip_sim', 'maclip_mag', 'maclip_global'])
def test_variants_of_the_metric(root, tiny, tmp_path, name):
    """Their scores come from the same kept features, but for other views."""
    assert run(root, tmp_path, tiny, '-d', 'agiqa-3k', metrics=('maclip', name)) == 0
    dataset = iqa_data.by_name('agiqa-3k', 'pyiqa', root)
    images = [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255 for path in dataset.paths]
    options = {'maclip_sim': {'cue': 'sim'}, 'maclip_mag': {'cue': 'mag'}, 'maclip_global': {'views': 'global'}}[name]
    with torch.no_grad():
        want = MACLIP(backbone=tiny, **options)(images)[:, 0]
    got = [float(row['score']) for row in table(tmp_path / 'scores' / f'agiqa-3k.{name}.csv')]
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert len(list(tmp_path.rglob('*.npz'))) == (40 if name == 'maclip_global' else 20)
    assert store.load(tmp_path, 'agiqa-3k', name).meta['metric'] == name


def test_demonstration_is_no_result_of_the_paper(root, tmp_path):
    options = ['--data-root', str(root), '-o', str(tmp_path), '--resamples', '0', '--device', 'cpu', '--workers', '0']
    assert accuracy.main(['-m', 'maclip_demo', '-d', 'csiq', '--protocol', 'paper', *options]) == 0
    text = (tmp_path / 'results.md').read_text()
    assert 'maclip_demo: demonstration backbone: not CLIP, and not the published metric.' in text
    assert '| CSIQ | MA-CLIP | not run |' in text
    assert float(table(tmp_path / 'results.csv')[0]['srcc']) > 0.6  # photos blurred in steps


def test_nothing_stale_in_the_tables(root, tiny, tmp_path, capsys):
    assert run(root, tmp_path, tiny, '-d', 'csiq', '--protocol', 'paper', metrics=('maclip', 'piqe')) == 0
    assert len(table(tmp_path / 'differences.csv')) == 1
    options = ['--data-root', str(root), '-o', str(tmp_path), '--resamples', '0', '--device', 'cpu', '--workers', '0']
    protocol = ['-d', 'csiq', '--protocol', 'paper']
    assert accuracy.main(['-m', 'maclip', '--backbone', 'demo', *protocol, *options]) == 0
    rows = {row['metric']: row for row in table(tmp_path / 'results.csv')}
    assert rows['maclip']['weights'].startswith('demo ') and set(rows) == {'maclip', 'piqe'}
    assert not table(tmp_path / 'differences.csv')  # it was of other weights
    assert run(root, tmp_path, tiny, *protocol, metrics=('piqe', 'maclip')) == 0
    (pair,) = table(tmp_path / 'differences.csv')
    assert (pair['metric_a'], pair['metric_b']) == ('piqe', 'maclip')

    (tmp_path / 'own').mkdir()
    for name in ('a', 'b'):
        (tmp_path / 'own' / f'{name}.csv').write_text(f'file,mos\n{name}.png,1\n')
        with Image.open(next(iter(root.rglob('*.png')))) as image:
            image.save(tmp_path / 'own' / f'{name}.png')
    lists = [['--list', str(tmp_path / 'own' / f'{name}.csv'), '--name', 'own'] for name in ('a', 'b')]
    assert accuracy.main(['-m', 'piqe', *lists[0], *options]) == 0
    assert accuracy.main(['-m', 'maclip_demo', *lists[1], *options]) == 2
    assert "'piqe' on 'own' with other images" in capsys.readouterr().err


def test_scores_of_other_metrics_are_of_their_weights():
    nets = [torch.nn.Linear(2, 2) for _ in range(2)]
    metrics = [type('Metric', (), {'net': net, 'lower_better': False}) for net in nets]
    a, b = (accuracy.OtherMetric('x', metric, {}).setting for metric in metrics)
    assert a != b and a == accuracy.OtherMetric('x', metrics[0], {}).setting
    assert a != accuracy.OtherMetric('x', metrics[0], {'k': 1}).setting


# --- going on, and several processes -----------------------------------------------------------------------------


def same_results(a: Path, b: Path) -> None:
    names = sorted(str(p.relative_to(a)) for p in a.rglob('*.csv'))
    assert len(names) > 2 and names == sorted(str(p.relative_to(b)) for p in b.rglob('*.csv'))
    for name in [*names, 'results.md']:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


def test_killed_and_resumed(finished, root, tiny, tmp_path, monkeypatch):
    """Killed without a warning, in the midst of writing: what was finished is there, and is not made again."""
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(BENCHMARK.parent)!r})
import accuracy, store
replace, calls = os.replace, []
def stop(*args):
    calls.append(args)
    if len(calls) == 8:  # run.json, then two arrays an image
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*args)
store.os.replace = stop
accuracy.main(sys.argv[1:])
"""
    options = ['-m', 'maclip', 'piqe', '--backbone', tiny, '-d', 'csiq', '--protocol', 'paper', '--resamples', '20']
    options += ['--data-root', str(root), '-o', str(tmp_path), '--workers', '0', '--device', 'cpu']
    killed = subprocess.run([sys.executable, '-c', code, *options], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(tmp_path.rglob('*.npz'))) == 6 and not (tmp_path / 'results.csv').exists()

    made = []
    for metric in (accuracy.OurMetric, accuracy.OtherMetric):
        plain = metric.make
        monkeypatch.setattr(
            metric, 'make', lambda self, image, plain=plain: made.append(self.name) or plain(self, image)
        )
    assert accuracy.main(options) == 0
    assert (made.count('maclip'), made.count('piqe')) == (17, 17)
    same_results(finished, tmp_path)
    made.clear()
    assert accuracy.main(options) == 0 and made == []
    same_results(finished, tmp_path)


def test_two_processes_equal_one(finished, root, tiny, tmp_path):
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', str(BENCHMARK)]
    command += ['-m', 'maclip', 'piqe', '--backbone', tiny, '-d', 'csiq', '--protocol', 'paper', '--resamples', '20']
    command += ['--data-root', str(root), '-o', str(tmp_path), '--workers', '0', '--device', 'cpu']
    threads = str(torch.get_num_threads())  # as here: convolutions round differently with other numbers of threads
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {'OMP_NUM_THREADS': threads})
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / 'run.json').read_text())[0]['processes'] == 2
    assert done.stdout.count('# Results') == 1  # one of them reports
    same_results(finished, tmp_path)


# --- wrong use ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'code', 'message'),
    [
        ([], 2, 'name data sets with -d'),
        (['-d', 'nonsense'], 2, 'unknown data set'),
        (['-d', 'csiq', '-m', 'psnr'], 2, "'psnr' is none of pyiqa's metrics without a reference"),
        (['-d', 'csiq', '-m', 'piqe'], 2, '--backbone and --pretrained are for maclip'),
        (['-d', 'csiq', '--backbone', 'local-dir:nowhere'], 3, 'cannot be loaded'),
        (['-d', 'csiq', '--backbone', 'nonsense'], 2, "unknown backbone 'nonsense'"),
        (['-d', 'csiq', '--device', 'nonsense'], 2, 'cannot be used'),
        (['-d', 'csiq', '--resamples', '-1'], 2, 'whole number'),
        (['-d', 'csiq', '--labels', 'dmos'], 2, 'go with --list'),
        (['-d', 'csiq', '--list', 'x.json'], 2, 'x.json cannot be read'),
        (['--list', 'x.csv', '--images', 'nowhere'], 2, 'nowhere: no such folder'),
    ],
)
def test_wrong_use(root, tiny, tmp_path, capsys, options, code, message):
    assert run(root, tmp_path / 'out', tiny, *options) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_help_is_quick():
    code = f'import sys; sys.argv = ["accuracy", "--help"]; sys.path.insert(0, {str(BENCHMARK.parent)!r})\n'
    code += 'import accuracy; print(accuracy.main()); print(sorted({"torch", "scipy", "pyiqa"} & set(sys.modules)))'
    shown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert '--protocol paper' in shown and shown.endswith('0\n[]\n')
