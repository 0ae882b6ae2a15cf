"""Data sets: protocols, splits, ratings and pixels against pyiqa, lists, and errors."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from maclip_pyiqa.evaluation.datasets import load_dataset, prepared, protocols, read_list


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, 'PNG')
    return file.getvalue()


def test_protocols_sizes_are_the_papers():
    """Section 1 of the design: native size, but SPAQ at 448x448 and AGIQA-1k at 224x224, bicubic."""
    paper = protocols()['protocols']['paper']
    assert set(paper) == {
        *('agiqa-1k', 'agiqa-3k', 'livec', 'csiq', 'tid2013', 'kadid10k', 'koniq10k-1024', 'spaq', 'pipal'),
    }
    photo = Image.effect_noise((300, 250), 80).convert('RGB')
    for name, options in paper.items():
        side = {'spaq': 448, 'agiqa-1k': 224}.get(name)
        expected = photo.resize((side, side), Image.Resampling.BICUBIC) if side else photo
        assert (prepared(png(photo), options.get('augment', {})) == np.array(expected)).all(), name


def test_damaged_images_are_refused(monkeypatch):
    data = png(Image.effect_noise((60, 40), 80))
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)  # as some of pyiqa's modules leave it
    with pytest.raises(OSError, match='truncated'):
        prepared(data[: len(data) // 2], {})
    with pytest.raises(OSError, match='not an image'):
        prepared(b'text', {})
    assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(('name', 'protocol', 'count'), [('koniq10k-1024', 'pyiqa', 8), ('koniq10k-1024', 'paper', 20)])
def test_splits(root, name, protocol, count):
    dataset = load_dataset(name, protocol, root)
    assert len(dataset.paths) == len(dataset.ratings) == count and dataset.groups is None
    assert dataset.names[1] == '0_1.jpg' and not dataset.lower_better
    assert dataset.signed_ratings.tolist() == dataset.ratings


@pytest.mark.parametrize('name', ['csiq', 'koniq10k-1024', 'spaq'])
def test_pixels_and_ratings_are_pyiqas(root, name):
    import pyiqa

    theirs = pyiqa.load_dataset(name, root)
    ours = load_dataset(name, 'pyiqa', root)
    assert len(ours.paths) == len(theirs)
    for i in (0, 3, len(theirs) - 1):
        item = theirs[i]
        pixels = prepared(Path(ours.paths[i]).read_bytes(), ours.preparation)
        assert torch.equal(torch.from_numpy(pixels).permute(2, 0, 1) / 255, item['img'])
        assert ours.ratings[i] == pytest.approx(float(item['mos_label'])) and ours.paths[i] == str(item['img_path'])


def test_references_are_groups_and_dmos_is_negated(root):
    dataset = load_dataset('csiq', 'paper', root)
    assert dataset.lower_better  # as pyiqa declares
    assert dataset.groups == [f'{name[0]}.png' for name in dataset.names]
    assert dataset.ratings[:2] == [0, 0.25] and dataset.signed_ratings[:2].tolist() == [0, -0.25]


def test_authors_table(root):
    dataset = load_dataset('agiqa-3k', 'paper', root)
    assert len(dataset.paths) == 20 and Path(dataset.paths[0]).exists()
    assert dataset.ratings[1] == 5 - 0.25 and not dataset.lower_better


@pytest.mark.parametrize(
    ('name', 'protocol', 'error', 'message'),
    [
        ('nonsense', 'pyiqa', ValueError, "unknown data set 'nonsense'; known are agiqa-1k, .*csiq"),
        ('ava', 'paper', ValueError, "protocol 'paper' has no data set 'ava'; it has agiqa-1k"),
        ('tid2013', 'paper', OSError, 'meta_info_TID2013Dataset.csv and .*distorted_images missing; set --data-root'),
        ('bapps', 'pyiqa', OSError, 'missing'),
    ],
)
def test_missing_data_sets(root, name, protocol, error, message):
    with pytest.raises(error, match=message):
        load_dataset(name, protocol, root)


@pytest.mark.parametrize('number', [float, str])
def test_lists_of_the_authors(tmp_path, number):
    """In the form of jsons/ of github.com/zhix000/MA-CLIP: ratings are numbers, and in csiq.json text."""
    rows = [{'img_path': 'a.png', 'gt_score': number(1.5)}, {'img_path': 'b/c.png', 'gt_score': number(2)}]
    file = tmp_path / 'AGIQA-1k.json'
    file.write_text(json.dumps(rows, indent=4))
    dataset = read_list(file, tmp_path / 'images')
    assert dataset.paths == [str(tmp_path / 'images' / p) for p in ('a.png', 'b/c.png')]
    assert (dataset.name, dataset.ratings, dataset.groups) == ('AGIQA-1k', [1.5, 2.0], None)
    assert not dataset.lower_better and read_list(file, tmp_path, lower_better=True).lower_better


def test_direction_of_dmos(tmp_path):
    file = tmp_path / 'table.csv'
    file.write_text('\ufeffref_name,dist_name,DMOS\nr,a,1\nr,b,2\n')
    with pytest.raises(ValueError, match='--ratings dmos'):
        read_list(file, tmp_path)
    dataset = read_list(file, tmp_path, lower_better=True)
    assert (dataset.names, dataset.groups, dataset.lower_better) == (['a', 'b'], ['r', 'r'], True)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'expected a CSV file with a header and rows'),
        ('one,two\n1,2\n', r'has no file column .*it has one, two; name one with --file-column'),
        ('file,two\n1,2\n', 'has no rating column'),
        ('file,mos\na,1\nb,x\n', "rating of entry 2 is 'x'"),
        ('file,mos\na,1\nb\n', 'rating of entry 2 is None'),
        ('file,mos\na,nan\n', 'rating of entry 1'),
        ('file,mos\n,1\n', 'entry 1 names no file'),
    ],
)
def test_malformed_lists(tmp_path, text, message):
    (tmp_path / 'list.csv').write_text(text)
    with pytest.raises(ValueError, match=message):
        read_list(tmp_path / 'list.csv', tmp_path)


def test_groups(tmp_path):
    table, objects = tmp_path / 'list.csv', tmp_path / 'list.json'
    table.write_text('file,mos,Szene , ref_name\na,1,x ,r\nb,2,x,\nc,3,y,r\n')
    assert read_list(table, tmp_path).groups is None  # one is not known
    for name in ('Szene ', 'szene'):
        assert read_list(table, tmp_path, group_column=name).groups == ['x', 'x', 'y']
    for name, message in (('ref_name', 'entry 2 has no  ref_name'), ('scene', "no 'scene'.*one with --group-column")):
        with pytest.raises(ValueError, match=message):
            read_list(table, tmp_path, group_column=name)
    objects.write_text(json.dumps([{'file': 'a', 'mos': 1, 'ref_name': 0}, {'file': 'b', 'mos': 2, 'ref_name': 1}]))
    assert read_list(objects, tmp_path).groups == ['0', '1']


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('delimiter', [';', '\t'])
def test_lists_of_spreadsheets(tmp_path, encoding, delimiter):
    table = tmp_path / 'list.csv'
    rows = [('Bild', 'Note', 'ort'), ('a,1.png', '3,5', 'x,1'), ('b.png', '-0,25', '2'), ('c.png', '4', '3')]
    table.write_text('\r\n'.join(map(delimiter.join, rows)), encoding)
    dataset = read_list(table, tmp_path, file_column='Bild', rating_column='Note', group_column='ort')
    assert dataset.ratings == [3.5, -0.25, 4] and dataset.names == ['a,1.png', 'b.png', 'c.png']
    assert dataset.groups == ['x,1', '2', '3']


@pytest.mark.parametrize('name', ['../a', '.hidden', 'a b', ''])
def test_names_that_cannot_be_folders(tmp_path, name):
    file = tmp_path / '!.csv'
    file.write_text('file,mos\na,1\n')
    with pytest.raises(ValueError, match='cannot name the data set'):
        read_list(file, tmp_path, name)


def test_scores_are_no_ratings(tmp_path):
    """A table of `maclip-pyiqa score` in place of ratings would compare the metric with itself."""
    table = tmp_path / 'scores.csv'
    table.write_text('path,score,error\na.png,0.5,\n')
    with pytest.raises(ValueError, match='no human rating; name the column of the ratings with --rating-column'):
        read_list(table, tmp_path)
    assert read_list(table, tmp_path, rating_column='score').ratings == [0.5]
