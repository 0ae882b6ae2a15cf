"""Tables: text kept exactly, stale rows replaced, and the published numbers beside ours."""

import json

import numpy as np
import pandas as pd
import pyiqa
import pytest

from maclip_pyiqa.evaluation.datasets import DATA
from maclip_pyiqa.evaluation.tables import (
    COLUMNS,
    COSTS,
    RENAMED,
    _costs,
    markdown_table,
    published,
    read_table,
    save_table,
)


def test_any_text_comes_back(tmp_path):
    row = dict.fromkeys(COLUMNS, 0.5) | {'n': 3, 'failed': 0, 'krcc': float('nan'), 'config': '{"a": "b,\\n\'"}'}
    row |= {'metric': 'clipiqa+', 'protocol': 'list', 'note': '', 'device': '', 'fingerprint': '0123'}
    for dataset in ('NA', '1e5', 'nan', '007', 'ä'):
        save_table(tmp_path / 'results.csv', COLUMNS, [row | {'dataset': dataset}])
        first = (tmp_path / 'results.csv').read_bytes()
        (got,) = read_table(tmp_path / 'results.csv', COLUMNS).to_dict('records')
        assert got == pytest.approx(row | {'dataset': dataset}, nan_ok=True)
        save_table(tmp_path / 'results.csv', COLUMNS, [got])
        assert (tmp_path / 'results.csv').read_bytes() == first
    assert read_table(tmp_path / 'missing.csv', COLUMNS).empty


def test_names_that_are_not_utf8(tmp_path):
    save_table(tmp_path / 'scores.csv', ('image', 'score'), [{'image': '\udcff.png', 'score': 1 / 3}, {'image': 'b'}])
    assert (tmp_path / 'scores.csv').read_bytes() == b'image,score\n\xff.png,0.333333\nb,\n'


def test_markdown_table():
    lines = markdown_table(('a|b', 'c'), [('x', 1 / 3), ('y', float('nan')), ('z', 5)])
    assert lines == ['| a\\|b | c |', '| --- | --- |', '| x | 0.3333 |', '| y |  |', '| z | 5 |', '']


def test_older_tables_have_no_costs(tmp_path):
    """A results.csv of before: its rows stay, with empty cells."""
    columns = [name for name in COLUMNS if name not in (*COSTS, 'device')]
    row = dict.fromkeys(columns, 0.5) | {'metric': 'a', 'dataset': 'd', 'note': '', 'config': '{}'}
    save_table(tmp_path / 'results.csv', columns, [row])
    save_table(tmp_path / 'results.csv', COLUMNS, read_table(tmp_path / 'results.csv', COLUMNS).to_dict('records'))
    (got,) = read_table(tmp_path / 'results.csv', COLUMNS).to_dict('records')
    assert tuple(got) == COLUMNS and got['device'] == '' and got['srcc'] == 0.5
    assert np.isnan([got['seconds'], got['memory_mib']]).all()


def test_costs_of_images():
    """Median of the times, the largest memory, and nothing where devices are mixed."""
    images = [
        {'seconds': 3.0, 'device': 'cpu', 'memory_mib': 20.0},
        {},  # cached by an older version
        {'seconds': 1.0, 'device': 'cpu'},
        {'seconds': 2.0, 'device': 'cpu', 'memory_mib': 30.0},
    ]
    assert _costs(images) == {'seconds': 2.0, 'memory_mib': 30.0, 'device': 'cpu'}
    mixed = _costs([*images, {'seconds': 0.1, 'device': 'GPU', 'memory_mib': 90.0}])
    assert mixed['device'] == 'GPU and cpu' and np.isnan([mixed['seconds'], mixed['memory_mib']]).all()
    nothing = _costs([{}, {}])
    assert nothing['device'] == '' and np.isnan([nothing['seconds'], nothing['memory_mib']]).all()
    assert np.isnan(_costs([{'seconds': 1.0, 'device': 'mps'}])['memory_mib'])


def frame(**changes) -> pd.DataFrame:
    config = json.dumps({'backbone': 'RN50', 'pretrained': 'openai'})
    row = {'dataset': 'csiq', 'metric': 'maclip', 'protocol': 'paper', 'config': config}
    return pd.DataFrame([row | {'n': 20, 'srcc': 0.75, 'plcc': 0.5, 'krcc': 0.6} | changes])


def test_beside_the_paper():
    rows = frame()
    assert '| csiq | maclip | 0.7500 | 0.7374 | +0.0126 |' in published(rows)
    file = frame(config='{"backbone": "RN50", "pretrained": "/data/RN50.pt"}')
    assert published(file) == published(rows)
    yfcc = '{"backbone": "RN50", "pretrained": "yfcc15m"}'
    others = [
        {'config': '{"backbone": "RN101", "pretrained": "openai"}'},
        {'config': yfcc},
        {'srcc': float('nan')},
        {'dataset': 'live'},
    ]
    for change in others:
        lines = published(frame(**change))
        assert '| csiq | maclip | not run | 0.7374 |  |' in lines
        assert '| average of the rows | clipiqa | not run | 0.6435 |  |' in lines
    assert published(frame(protocol='list')) == []
    facts = pd.read_csv(DATA / 'paper_results.csv')
    means = facts.groupby('metric').srcc.mean()
    assert means.clipiqa == pytest.approx(0.6435, abs=5e-5)  # as the note says
    assert means.maclip / means.clipiqa - 1 == pytest.approx(0.073, abs=5e-4)

    whole = pd.concat([frame(dataset=d, srcc=0.5) for d in facts.dataset.unique()])
    means = [line for line in published(whole) if line.startswith('| average')]
    assert means[1] == '| average of the rows | maclip | 0.5000 | 0.6902 | -0.1902 |'


def test_scores_of_a_file_are_not_beside_published_ones():
    config = json.dumps({'file': 'theirs.csv', 'column': 'score', 'lower_better': False})
    for metric in ('clipiqa', 'maclip'):
        lines = published(frame(metric=metric, config=config))
        assert any(line.startswith(f'| csiq | {metric} | not run |') for line in lines)
        assert published(frame(metric=metric, config=config, protocol='pyiqa', dataset='livec')) == []
    assert '| csiq | clipiqa | 0.7500 | 0.6807 | +0.0693 |' in published(frame(metric='clipiqa', config='{}'))


def test_beside_pyiqa():
    """All three statistics, labelled with their source, for what was run by pyiqa's protocol."""
    rows = pd.concat([frame(metric='clipiqa', dataset='livec', protocol='pyiqa', config='{}'), frame(protocol='pyiqa')])
    lines = published(rows)
    assert not any('paper' in line for line in lines)
    assert any('chaofengc/IQA-PyTorch tests/NR_benchmark_results.csv' in line for line in lines)
    assert [line for line in lines if line.startswith('| livec')] == [
        '| livec, SRCC | clipiqa | 0.7500 | 0.6955 | +0.0545 |',
        '| livec, KRCC | clipiqa | 0.6000 | 0.5065 | +0.0935 |',
        '| livec, PLCC | clipiqa | 0.5000 | 0.6883 | -0.1883 |',
    ]
    assert not any('csiq' in line or 'niqe' in line for line in lines)  # not in their table; not run
    paper = published(frame(metric='clipiqa', dataset='livec', config='{}'))
    assert not any('PyTorch' in line for line in paper) and '| livec | clipiqa | 0.7500 | 0.7019 | +0.0481 |' in paper
    lines = published(frame(metric='musiq', dataset='spaq', protocol='pyiqa', config='{}'))
    assert '| spaq, SRCC | musiq | 0.7500 | 0.8676 | -0.1176 |' in lines  # their table calls it musiq-koniq


def test_names_of_pyiqas_table_are_pyiqas():
    facts = pd.read_csv(DATA / 'pyiqa_results.csv')
    assert set(facts.metric.replace(RENAMED)) <= set(pyiqa.list_models('NR'))
    assert set(facts.dataset) <= set(pyiqa.get_dataset_info()) and len(facts) == 110
    assert not facts.replace(RENAMED).duplicated(['metric', 'dataset']).any()


def test_published_tables_have_one_layout():
    tables = [pd.read_csv(DATA / f'{name}_results.csv') for name in ('paper', 'pyiqa')]
    assert list(tables[0]) == list(tables[1]) == ['metric', 'dataset', 'protocol', 'plcc', 'srcc', 'krcc', 'source']
    for name, table in zip(('paper', 'pyiqa'), tables, strict=True):
        assert set(table.protocol) == {name} and table.source.nunique() == 1
        assert not table.duplicated(['metric', 'dataset']).any() and np.isfinite(table.srcc).all()
