"""`maclip-pyiqa compare`, as a user runs it."""

import csv
import json
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from maclip_pyiqa.cli import main


@pytest.fixture
def folders(folder, tmp_path):
    """Six crops as PNG, and as poor JPEG files in another folder."""
    names = []
    for i in range(6):
        for version in ('before', 'after'):
            (tmp_path / version / 'x').mkdir(parents=True, exist_ok=True)
        image = Image.open(folder / 'b.jpg').crop((i, i, i + 70, i + 58))
        image.save(tmp_path / f'before/x/{i}.png')
        image.save(tmp_path / f'after/x/{i}.jpg', quality=5)
        names.append(f'x/{i}')
    return tmp_path / 'before', tmp_path / 'after'


@pytest.fixture
def compare(tiny, capsys):
    def compare(*args):
        code = main(['compare', *map(str, args), '--backbone', tiny, '--workers', '0'])
        return code, *capsys.readouterr()

    return compare


def test_a_table_a_csv_and_a_page(compare, folders, tmp_path):
    outputs = [tmp_path / name for name in ('o.html', 'o.csv', 'p.csv')]
    code, out, err = compare(
        *folders, '-o', outputs[0], '-o', outputs[1], '--pairs', outputs[2], '--metrics', 'piqe', '--pictures', 2
    )
    assert code == 0 and err == ''
    lines = out.splitlines()
    rows = list(csv.DictReader(outputs[1].open(encoding='utf-8', newline='')))
    assert [row['quantity'] for row in rows][-1] == 'piqe' and len(rows) == 9
    assert rows[-1]['lower_better'] == 'true' and rows[0]['lower_better'] == 'false'
    assert lines[0] == rows[0]['verdict'] and lines[2].split()[:4] == ['quantity', 'n', 'before', 'after']
    assert lines[3].startswith('score') and lines[3].endswith(rows[0]['verdict'])
    assert f'{float(rows[0]["difference"]):+.4f}' in lines[3]
    values = list(csv.DictReader(outputs[2].open(encoding='utf-8', newline='')))
    assert [row['image'] for row in values] == [f'x/{i}' for i in range(6)]
    changes = [float(row['score_difference']) for row in values]
    assert sum(changes) / 6 == pytest.approx(float(rows[0]['difference']), abs=1e-6)
    text = outputs[0].read_text('utf-8')
    assert f'compare {folders[0]}' in text and 'seed 0' in text and 'torch 2' in text and text.count('"jpeg":') == 4


def test_a_folder_and_itself(compare, folders):
    code, out, _ = compare(folders[0], folders[0])
    assert code == 0 and out.startswith('no difference: all 6 pairs are equal\n')


def test_tables(compare, folders, run, tmp_path):
    for folder in folders:
        assert run(folder, '-o', f'{folder}.csv', '--details')[0] == 0
    want = compare(*folders)[1]
    code, out, err = compare(*(f'{folder}.csv' for folder in folders), '-o', tmp_path / 'o.html')
    assert (code, out, err) == (0, want, '')
    code, out, err = compare(*(f'{folder}.csv' for folder in folders), '--metrics', 'piqe')
    assert code == 2 and '--metrics scores folders' in err
    code, out, err = compare(f'{folders[0]}.csv', folders[1], '--prompts', 'sharp')
    assert code == 2 and out == '' and 'scores of different metrics: prompts was' in err


def test_failed_and_unpaired_images_are_listed(compare, folders, tmp_path):
    (folders[1] / 'x/2.jpg').write_bytes(b'broken')
    for i in range(12):
        shutil.copy(folders[0] / 'x/0.png', folders[0] / f'more{i:02}.png')
    code, out, err = compare(*folders)
    lines = err.splitlines()
    assert code == 1 and out.startswith('too few pairs for a verdict: n = 5, at least 6 are needed')
    assert lines[0] == 'maclip-pyiqa: not in all of before, after: 12 images' and lines[1] == '  more00 (in before)'
    assert lines[11] == '  ... and 2 more' and lines[12].endswith('failed and left out: 1 images')
    assert lines[13].startswith(f'  after: {folders[1]}/x/2.jpg: not an image')


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['{a}'], 'expected at least two folders or tables'),
        (['{a}', '{tmp}/none'], 'does not exist'),
        (['{a}', '{tmp}/photos'], 'no image is in two versions'),
        (['{a}', '{b}', '-o', 'o.txt'], 'expected .csv or .html'),
        (['{a}', '{b}', '--pairs', 'o.html'], '--pairs: .csv'),
        (['{a}', '{b}', '-o', 'o.csv', '--pairs', './o.csv'], 'two results cannot be written to one file'),
        (['{a}', '{b}', '--by', 'id'], 'is a folder, which has no column'),
        (['{a}', '{b}', '--metrics', 'nix'], 'nix'),
        (['{a}', '{b}', '-o', '{tmp}/no/o.csv'], 'cannot be written'),
        (['{a}', '{b}', '-o', '{tmp}/no/o.html'], 'cannot be written'),
        (['{a}', '{b}', '--resamples', '0'], 'at least 1'),
    ],
)
def test_wrong_use(compare, folders, tmp_path, args, message):
    code, _, err = compare(*(arg.format(a=folders[0], b=folders[1], tmp=tmp_path) for arg in args))
    assert code == 2 and message in err and 'Traceback' not in err


def test_files_that_cannot_be_written_are_found_before_scoring(compare, folders, tmp_path, monkeypatch):
    monkeypatch.setattr('maclip_pyiqa.cli.compare.load_metrics', lambda *args: pytest.fail('scored'))
    for option in ('-o', '--pairs'):
        code, out, err = compare(*folders, option, tmp_path / 'no/o.csv')
        assert (code, out) == (2, '') and 'No such file' in err
    assert not list(tmp_path.glob('*.part'))


def test_without_jinja(compare, folders, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'jinja2', None)
    code, out, err = compare(*folders, '-o', tmp_path / 'o.html')
    assert code == 2 and out == '' and 'maclip_pyiqa[report]' in err


def test_mistakes_are_found_without_torch(folders, tmp_path):
    (tmp_path / 'other').mkdir()
    shutil.copy(folders[0] / 'x/0.png', tmp_path / 'other/q.png')
    code = (
        'import sys\nfrom maclip_pyiqa.cli import main\ncode = main(sys.argv[1:])\n'
        "print(*sorted({'torch', 'numpy', 'scipy', 'PIL'} & set(sys.modules)))\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, '-c', code, 'compare', folders[0], tmp_path / 'other'], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == '\n' and 'no image is in two versions' in done.stderr


def test_one_path_given_twice(compare, folders, run, tmp_path, monkeypatch):
    assert run(folders[0], '-o', tmp_path / 'a.csv')[0] == 0
    (tmp_path / 'link').symlink_to(folders[0])
    monkeypatch.chdir(tmp_path)
    for first, second, kind in [('a.csv', './a.csv', 'table'), ('before', 'link', 'folder')]:
        code, out, err = compare(first, second)
        assert code == 0 and 'no difference: all 6 pairs are equal' in out
        assert f'are the same {kind}, so all pairs are equal; expected another version' in err
    assert 'the same' not in compare('before', 'after')[2]


def test_tables_that_people_edited(compare, tmp_path):
    scores = [0.5, 0.52, 0.54, 0.56, 0.58, 0.6, 0.62]
    lines = [';path;score;ok;caption;niqe']
    for i, score in enumerate(scores):
        number = str(score).replace('.', ',')
        lines.append(f'{i};C:\\out\\a\\{i}.png;{number};{i % 2 == 0};"cat; {i}";{i}')
    (tmp_path / 'a.csv').write_text('\n'.join(lines), 'utf-16')
    rows = [{'niqe': i / 2, 'path': f'b/{i}.jpg', 'score': s + 0.1, 'ok': True} for i, s in enumerate(scores)]
    (tmp_path / 'b.jsonl').write_text('\n'.join(json.dumps(row) for row in rows))
    code, out, err = compare(
        tmp_path / 'a.csv', tmp_path / 'b.jsonl', '-o', tmp_path / 'o.csv', '--pairs', tmp_path / 'p.csv'
    )
    assert code == 0 and out.startswith('b above a'), err
    with open(tmp_path / 'o.csv', newline='') as file:
        assert [(row['quantity'], row['n']) for row in csv.DictReader(file)] == [('score', '7'), ('niqe', '7')]
    with open(tmp_path / 'p.csv', newline='') as file:
        first, *_ = csv.DictReader(file)
    assert first['path_a'] == 'C:\\out\\a\\0.png' and first['path_b'] == 'b/0.jpg' and first['image'] == '0'
    assert (first['caption_a'], first['caption_b'], first['ok_a'], first['ok_b']) == ('cat; 0', '', 'True', 'true')


def test_larger_images_than_are_allowed(compare, folders):
    Image.new('RGB', (200, 200)).save(folders[0] / 'x' / '0.png')
    code, _, err = compare(*folders, '--max-pixels', 10_000)
    assert code == 1 and 'is larger than 10,000 pixels' in err and 'failed and left out: 1 images' in err
