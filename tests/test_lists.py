"""Text is never taken for a list of its letters, wherever paths or names are expected."""

import os
from pathlib import Path

import pytest
from PIL import Image

import maclip_pyiqa
from maclip_pyiqa import score_files
from maclip_pyiqa._lists import as_names, as_paths
from maclip_pyiqa.collections import score_collection
from maclip_pyiqa.collections.inputs import find_inputs
from maclip_pyiqa.comparison.pairing import read_versions
from maclip_pyiqa.evaluation.metrics import load_adapters
from maclip_pyiqa.scoring import find_images, others
from maclip_pyiqa.scoring.filter import filter_scores
from maclip_pyiqa.scoring.formats import read_table
from maclip_pyiqa.scoring.schema import columns


@pytest.mark.parametrize('path', ['d', b'd', Path('d'), ['d'], (Path('d'),), iter([b'd'])])
def test_paths(path):
    assert as_paths(path) == ['d']


@pytest.mark.parametrize('wrong', ['niqe', b'niqe', [1], [b'niqe'], [Path('niqe')]])
def test_names(wrong):
    assert as_names('names', iter(['niqe'])) == as_names('names', ('niqe',)) == ['niqe']
    with pytest.raises(TypeError, match='names'):
        as_names('names', wrong)


@pytest.mark.parametrize('path', ['d', Path('d'), b'd'])
def test_one_path(tiny_metric, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    os.mkdir('d')
    Image.new('RGB', (64, 64)).save('d/a.png')
    assert find_images(path) == find_inputs(path).files == ['d/a.png']
    rows = list(score_files(tiny_metric, os.path.join(path, b'a.png' if isinstance(path, bytes) else 'a.png')))
    assert [(row['path'], row['error']) for row in rows] == [('d/a.png', '')]


@pytest.mark.parametrize(
    'call',
    [
        lambda metric: others.check_metrics('niqe'),
        lambda metric: others.load_metrics('niqe', 'cpu'),
        lambda metric: others.lower_better('niqe'),
        lambda metric: load_adapters('maclip'),
        lambda metric: columns([], 'niqe'),
        lambda metric: read_table('s.csv', text='id'),
        lambda metric: filter_scores('s.csv', without_flags='flat'),
        lambda metric: read_versions('ab'),
        lambda metric: read_versions(['a', 'b'], names='ab'),
        lambda metric: maclip_pyiqa.compare('s.csv', 't.csv', names='st'),
        lambda metric: maclip_pyiqa.compare('s.csv', 't.csv', lower_better='niqe'),
        lambda metric: score_collection('in', 'out', metric, keep='json'),
    ],
)
def test_names_are_lists(tiny_metric, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    for name in 'st':
        Path(f'{name}.csv').write_text('path,score,niqe\na.png,0.5,3\n')
    with pytest.raises(TypeError, match='list'):
        call(tiny_metric)
