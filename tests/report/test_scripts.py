"""The pages' scripts without a browser: Node runs js/*.test.mjs, which compare them with what Python computes."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from scipy.stats import spearmanr

from maclip_pyiqa.report.page import _scores
from maclip_pyiqa.report.pictures import window_values
from maclip_pyiqa.scoring.formats import CSVTable

NAMES = [
    *('plain.png', 'a,b.png', 'a "b".png', 'new\nline.png', 'return\r.png', '漢字\U0001f600.png', '=1+1.png', ''),
    *('bytes\udcff\udc80.png', 'a "b", \\\udcff.png', '\U0001f600\udcff.png', 'nul\0.png', 'back\\slash.png'),
    *('\ufffd\\udcff.png', '\ufffd', 'in\ufffdside.png', '\U0001f480'),  # the last: D83D DC80 in UTF-16
]


def maps(analysis_of):
    """The last two have places that no window sees: the rest at the right and at the bottom, and between windows."""
    for height, width, most in ((101, 138, None), (84, 94, None), (150, 200, 4)):
        analysis = analysis_of(height, width, max_views=most)
        for name, of in (('score', 'q'), ('attribute_sharp', 'sharp')):
            want = analysis.quality_map(of).flatten().tolist()
            yield {'windows': window_values(analysis), 'name': name, 'want': want}


def correlations(generator):
    x = generator.random(60)
    tied, missing = (x * 5).round(), np.where(x < 0.2, np.nan, x)
    for a, b in ((x, -(x**3)), (x, generator.random(60)), (tied, generator.integers(0, 3, 60)), (missing, tied)):
        rows = generator.permutation(60)[:50]
        known = rows[~np.isnan(a[rows] + b[rows])]
        want = spearmanr(a[known], b[known]).statistic
        yield {'rows': rows.tolist(), 'x': listed(a), 'y': listed(b), 'want': float(want)}


def histograms(generator):
    """Among them whole numbers, which lie on the edges of bins."""
    for values in (generator.normal(size=500), np.arange(51.0), np.array([np.nan, 2, 2])):
        mask = generator.random(len(values)) < 0.3
        low, high = np.nanmin(values), np.nanmax(values)
        extent = (low, high) if low < high else (low - 0.5, high + 0.5)
        all_, some = (np.histogram(v[~np.isnan(v)], 50, extent)[0].tolist() for v in (values, values[mask]))
        yield {'values': listed(values), 'mask': mask.tolist(), 'extent': list(extent), 'all': all_, 'some': some}


def table(generator, path):
    rows = [
        {'path': f'/h/{name}', 'score': score, 'a,"b"': 1e12 * score, 'bytes\udcff': None, 'width': 640, 'height': i}
        | {'flags': 'flat noise' if i % 2 else '', 'error': name}
        for i, (name, score) in enumerate(zip(NAMES, generator.normal(size=len(NAMES)).round(6), strict=True))
    ]
    rows.append({'path': '/h/\ud800', 'score': None, 'error': 'half of a pair: \ud83d'})
    scores = _scores(rows)
    csv = CSVTable(path, [column['name'] for column in scores['columns']])
    csv.fill(rows)
    csv.close()
    return {'scores': scores, 'csv': path.read_bytes().decode()}


def listed(values):
    return [None if np.isnan(value) else float(value) for value in values]


@pytest.fixture(scope='module')
def cases(analysis_of, tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp('scripts'), np.random.default_rng(0)
    found = {
        'maps': list(maps(analysis_of)),
        'viridis': colormaps['viridis'](np.linspace(0, 1, 10), bytes=True)[:, :3].tolist(),
        'correlations': list(correlations(generator)),
        'histograms': list(histograms(generator)),
        'bytes': [(name, name.encode('utf-8', 'surrogateescape').hex()) for name in NAMES],
    } | table(generator, folder / 'scores.csv')
    (folder / 'cases.json').write_text(json.dumps(found, allow_nan=False), 'ascii')
    return folder / 'cases.json'


@pytest.fixture(scope='module')
def node():
    program = shutil.which('node')
    if program is None:
        pytest.skip('the scripts are tested in Node, and node cannot be found')
    version = subprocess.run([program, '--version'], capture_output=True, text=True, check=True).stdout.strip()
    if int(version[1:].split('.')[0]) < 18:
        pytest.skip(f'node --test needs Node 18; {program} is {version}')
    return program


def test_scripts(node, cases):
    files = sorted(Path(__file__).parent.glob('js/*.test.mjs'))  # not the folder, which Node reads in different ways
    assert files
    done = subprocess.run(
        [node, '--test', *files],
        env=os.environ | {'MACLIP_SCRIPT_CASES': str(cases)},
        capture_output=True,
        encoding='utf-8',
    )
    assert done.returncode == 0, done.stdout + done.stderr
