"""The operator in Data-Juicer itself. Run by .ci/data-juicer, in an environment of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maclip_pyiqa import MACLIP, WeightsError, score_files

pytest.importorskip('data_juicer')

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]  # Data-Juicer's own, at import and after


@pytest.fixture(scope='module')
def files(tmp_path_factory, photo_files) -> dict[str, str]:
    """Four images, a broken one, and one that is not there; by name."""
    folder = tmp_path_factory.mktemp('images')
    for i in range(4):
        with Image.open(photo_files[i]) as photo:
            photo.crop((0, 0, 90 + 20 * (i % 2), 80)).save(folder / f'{i}.png')
    (folder / 'broken.png').write_bytes((folder / '0.png').read_bytes()[:500])
    return {name: str(folder / f'{name}.png') for name in ('0', '1', '2', '3', 'broken', 'none')}


@pytest.fixture(scope='module')
def scores(files, tiny) -> dict[str, float]:
    names = dict(list(files.items())[:4])
    rows = score_files(MACLIP(backbone=tiny), names.values())
    return {name: row['score'] for name, row in zip(names, rows, strict=True)}


def samples(files):
    """Samples with their names: one image each, two, a broken one beside a good one, none."""
    lists = [[name] for name in files] + [['0', '1'], ['2', 'broken'], []]
    return [{'text': '+'.join(names), 'images': [files[name] for name in names]} for names in lists]


def run(rows, tiny, **options):
    """-> texts of the samples that are kept, and the stats of all."""
    from data_juicer.core.data import NestedDataset
    from data_juicer.ops import load_ops

    (op,) = load_ops([{'maclip_filter': {'backbone': tiny, 'skip_op_error': True, 'num_proc': 1, **options}}])
    data = NestedDataset.from_list(rows)
    stats = op.run(data, reduce=False).to_list()
    return [row['text'] for row in op.run(data).to_list()], {row['text']: row['__dj__stats__'] for row in stats}


def expected(scores, files, low, high, rule):
    kept = []
    for row in samples(files):
        names = [name for name in row['text'].split('+') if name]
        if all(name in scores for name in names):
            inside = [low <= scores[name] <= high for name in names]
            if not names or rule(inside):
                kept.append(row['text'])
    return kept


@pytest.mark.parametrize('strategy', ['any', 'all'])
@pytest.mark.parametrize('batch_size', [1, 3, 1000])
def test_what_is_kept(files, scores, tiny, strategy, batch_size):
    low, high = np.quantile(list(scores.values()), [0.3, 0.9])
    options = {'min_score': float(low), 'max_score': float(high), 'any_or_all': strategy, 'batch_size': batch_size}
    kept, stats = run(samples(files), tiny, **options)
    assert kept == expected(scores, files, low, high, any if strategy == 'any' else all)
    for text, stat in stats.items():
        names = text.split('+') if text else []
        want = [scores.get(name, np.nan) for name in names]
        np.testing.assert_allclose(np.array(stat['maclip_scores'], float), want, atol=1e-5)
        assert bool(stat['maclip_error']) == (not {*names} <= {*scores})
    assert 'No such file' in stats['none']['maclip_error'] and 'broken.png' in stats['2+broken']['maclip_error']


def test_what_fails_is_rejected_whatever_the_range(files, tiny):
    good = ['0', '1', '2', '3', '0+1', '']
    assert run(samples(files), tiny)[0] == good
    kept, _ = run(samples(files), tiny, min_score=2.0, max_score=3.0, reversed_range=True)
    assert kept == good


def test_contents_in_a_column(files, scores, tiny):
    rows = [
        {'text': name, 'images': ['elsewhere.png'], 'contents': [Path(path).read_bytes()]}
        for name, path in files.items() if Path(path).exists()
    ]  # fmt: skip
    kept, stats = run(rows, tiny, image_bytes_key='contents')
    assert kept == list(scores)
    assert {name: stats[name]['maclip_scores'][0] for name in kept} == pytest.approx(scores, abs=1e-5)
    only_bytes = [{name: row[name] for name in ('text', 'contents')} for row in rows]
    assert run(only_bytes, tiny, image_bytes_key='contents')[0] == kept


def test_in_two_processes(files, scores, tiny):
    low = np.mean(sorted(scores.values())[:2])  # not a score itself: it may differ in its last digit
    kept, _ = run(samples(files) * 3, tiny, min_score=float(low), num_proc=2, batch_size=4)
    assert kept == expected(scores, files, low, 9, any) * 3


def test_wrong_use(tiny, tmp_path):
    from data_juicer.ops import load_ops

    with pytest.raises(ValueError, match="expected 'any' or 'all'"):
        load_ops([{'maclip_filter': {'backbone': tiny, 'any_or_all': 'some'}}])
    with pytest.raises(WeightsError):  # before any sample
        load_ops([{'maclip_filter': {'pretrained': str(tmp_path / 'none.pt')}}])


def test_one_sample(files, scores, tiny):
    from data_juicer.ops import load_ops

    (op,) = load_ops([{'maclip_filter': {'backbone': tiny, 'min_score': scores['0']}}])
    sample = op.compute_stats_single({'images': [files['0']], '__dj__stats__': {}})
    assert sample['__dj__stats__']['maclip_scores'].tolist() == pytest.approx([scores['0']], abs=1e-5)
    again = op.compute_stats_single({'images': ['gone.png'], '__dj__stats__': dict(sample['__dj__stats__'])})
    assert again['__dj__stats__'] == sample['__dj__stats__']  # computed once


def test_the_command_finds_it_and_tells_what_fails(files, scores, tiny, tmp_path):
    """`dj-process` with a recipe, and no import of this package but by its entry point."""
    data, recipe, out = tmp_path / 'data.jsonl', tmp_path / 'recipe.yaml', tmp_path / 'out' / 'kept.jsonl'
    data.write_text(''.join(json.dumps(row) + '\n' for row in samples(files)))
    low = np.mean(sorted(scores.values())[1:3])
    options = {'min_score': float(low), 'backbone': tiny, 'stride': 37, 'cue': 'both'}  # as without them
    recipe.write_text(json.dumps({
        'dataset_path': str(data), 'export_path': str(out), 'np': 2, 'use_cache': False,
        'process': [{'maclip_filter': options}],
    }))  # fmt: skip
    command = [str(Path(sys.executable).parent / 'dj-process'), '--config', str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [json.loads(line)['text'] for line in out.read_text().splitlines()] == expected(scores, files, low, 9, any)
    assert 'maclip_filter rejects a sample' in done.stdout + done.stderr
