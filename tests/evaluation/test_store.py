"""The store: whole files or none, keys by content, float16 only where it is harmless."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from maclip_pyiqa.evaluation import store
from maclip_pyiqa import MACLIP

SETTING = {'backbone': 'x', 'weights': 'y'}


def test_arrays_come_back(tmp_path):
    shelf = store.Shelf(tmp_path, SETTING)
    assert shelf.get('ab12') is None
    for array in (np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((1, 4), np.float16), np.array(0.25)):
        shelf.put('ab12', array)
        got = store.Shelf(tmp_path, dict(reversed(SETTING.items()))).get('ab12')
        assert got.dtype == array.dtype and got.shape == array.shape and (got == array).all()
    assert store.Shelf(tmp_path, SETTING | {'weights': 'z'}).get('ab12') is None


@pytest.mark.parametrize(
    'damage', [lambda b: b[:-30], lambda b: b'', lambda b: b[:60] + b'?' + b[61:], lambda b: b[:9]]
)
def test_a_damaged_file_counts_as_missing(tmp_path, damage):
    shelf = store.Shelf(tmp_path, SETTING)
    shelf.put('ab12', np.arange(100.0))
    (file,) = tmp_path.rglob('*.npz')
    file.write_bytes(damage(file.read_bytes()))
    assert shelf.get('ab12') is None
    shelf.put('ab12', np.arange(100.0))
    assert shelf.get('ab12')[99] == 99


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / 'deep' / 'file'
    store.write(path, lambda file: file.write(b'old'))
    with pytest.raises(ZeroDivisionError):
        store.write(path, lambda file: (file.write(b'new'), 1 / 0))
    assert path.read_bytes() == b'old' and os.listdir(path.parent) == ['file']


def test_keys():
    key = store.image_key(b'bytes', {})
    assert store.image_key(b'bytes', {}) == key
    others = {store.image_key(b'bytez', {}), store.image_key(b'bytes', {'resize': 448})}
    assert len(others | {key}) == 3


def test_checksum_is_of_what_has_no_tensors_too(tiny):
    first = store.checksum(MACLIP(backbone=tiny))
    for change in ('mean', 'window', 'heads', 'activation'):
        metric = MACLIP(backbone=tiny)
        net = metric.backbone
        if change == 'mean':
            net.mean = net.mean + 0.01
        elif change == 'window':
            net.window += 32
        elif change == 'heads':
            net.visual.attnpool.heads *= 2
        else:
            net.visual.layer1[0].act1 = torch.nn.SiLU()
        assert store.checksum(metric) != first, change
    layers = [torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)]
    assert store.checksum(layers[0]) != store.checksum(layers[1]) == store.checksum(layers[1])


def test_lock(tmp_path):
    def add(i):
        for _ in range(20):
            with store.lock(tmp_path):
                path = tmp_path / 'count'
                n = int(path.read_text()) if path.exists() else 0
                time.sleep(0.001)
                path.write_text(str(n + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert (tmp_path / 'count').read_text() == '80'


def test_checksum_is_of_the_tower(tiny, tiny_metric):
    assert store.checksum(tiny_metric) == store.checksum(MACLIP(backbone=tiny, alpha=3.0))
    tensor = tiny_metric.backbone.visual.attnpool.c_proj.bias
    tensor[0] += 1e-3
    assert store.checksum(tiny_metric) != store.checksum(MACLIP(backbone=tiny))


def test_half_precision_only_where_harmless(tiny_metric, photos):
    constants = tiny_metric.constants

    def scores(f, times=1.0):
        return tiny_metric._cues(f, **constants)[0].mean() * times

    with torch.no_grad():
        f = tiny_metric.features([photos[0]])[0]
    packed = store.pack(f, scores)
    assert packed.dtype == np.float16
    moved = abs(float(scores(torch.from_numpy(packed).float()) - scores(f)))
    assert 0 < moved <= 1e-4
    finer = store.pack(f, lambda f: scores(f, 1.1e-4 / moved))
    assert finer.dtype == np.float32 and (finer == f.numpy()).all()
    assert store.pack(f, lambda f: scores(f, 0.9e-4 / moved)).dtype == np.float16
    assert store.pack(1e6 * f, scores).dtype == np.float32  # beyond float16
    assert store.pack(1e-8 * f, scores).dtype == np.float32  # below it


def test_load(tmp_path, tiny_metric, photos):
    text, scale = tiny_metric.backbone.text, tiny_metric.backbone.scale
    with pytest.raises(FileNotFoundError, match=r'accuracy\.py -o'):
        store.load(tmp_path, 'photos')
    shelf, images = store.Shelf(tmp_path, SETTING), []
    with torch.no_grad():
        features = tiny_metric.features(photos[:3])
    for i, f in enumerate(features):
        shelf.put(f'k{i}', f.numpy())
        images.append({'name': f'{i}.png', 'key': f'k{i}', 'label': float(i), 'group': 'g', 'error': ''})
    images.append({'name': 'bad.png', 'key': '', 'label': 9.0, 'group': 'g', 'error': 'broken'})
    run = {'meta': {'backbone': 'x'}, 'setting': SETTING, 'lower_better': True, 'images': images}
    store.save_run(tmp_path, 'photos', 'maclip', run | {'text': text.tolist(), 'scale': scale.tolist()})
    store.save_run(tmp_path, 'photos', 'niqe', run)

    kept = store.load(tmp_path, 'photos')
    assert kept.names == ['0.png', '1.png', '2.png'] and kept.groups == ['g'] * 3 and kept.meta == {'backbone': 'x'}
    assert kept.labels.tolist() == [0, -1, -2]  # turned
    assert kept.text.dtype == kept.scale.dtype == torch.float32 and kept.scale.shape == ()
    assert (kept.text == text).all() and kept.scale == scale
    assert all((a == b).all() for a, b in zip(kept.features, features, strict=True))

    with pytest.raises(FileNotFoundError, match=r"no features of 'other'; it holds those of: photos \(maclip\)"):
        store.load(tmp_path, 'other')
    with pytest.raises(FileNotFoundError, match="'photos' by 'niqe'"):
        store.load(tmp_path, 'photos', 'niqe')
    (shelf.folder / 'k1' / 'k1.npz').unlink()
    with pytest.raises(FileNotFoundError, match=r'features of 1 images .* the first: 1\.png'):
        store.load(tmp_path, 'photos')
    store.save_run(tmp_path, 'photos', 'maclip_demo', run | {'text': [], 'scale': 1})
    with pytest.raises(ValueError, match='maclip, maclip_demo; name one'):
        store.load(tmp_path, 'photos')


def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b'\xff.png')
    images = [{'name': name, 'key': '', 'label': 0.0, 'group': None, 'error': 'x'}]
    store.save_run(tmp_path, 'd', 'm', {'images': images})
    assert store.runs(tmp_path)[0][2]['images'][0]['name'] == name
