"""Files of a results folder: whole or absent, keys by content."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from maclip_pyiqa.evaluation.cache import (
    FeatureCache,
    image_key,
    load_features,
    lock,
    read_runs,
    save_run,
)

KEY = {'backbone': 'x', 'views': 'windows'}


def test_arrays_come_back(tmp_path):
    cache = FeatureCache(tmp_path, KEY)
    assert cache.get('ab12') is None
    for array in (np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((1, 4), np.float16), np.array(0.25)):
        cache.put('ab12', {'features': array, 'shares': np.array([1.0])})
        got = FeatureCache(tmp_path, dict(reversed(KEY.items()))).get('ab12')
        assert set(got) == {'features', 'shares'}
        got = got['features']
        assert got.dtype == array.dtype and got.shape == array.shape and (got == array).all()
    assert FeatureCache(tmp_path, KEY | {'views': 'global'}).get('ab12') is None


@pytest.mark.parametrize(
    'damage', [lambda b: b[:-30], lambda b: b'', lambda b: b[:60] + b'?' + b[61:], lambda b: b[:9]]
)
def test_a_damaged_file_counts_as_missing(tmp_path, damage):
    cache = FeatureCache(tmp_path, KEY)
    cache.put('ab12', {'score': np.arange(100.0)})
    (file,) = tmp_path.rglob('*.npz')
    file.write_bytes(damage(file.read_bytes()))
    assert cache.get('ab12') is None
    cache.put('ab12', {'score': np.arange(100.0)})
    assert cache.get('ab12')['score'][99] == 99


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path, KEY)
    cache.put('ab12', {'score': np.array(1.0)})
    (path,) = tmp_path.rglob('*.npz')
    monkeypatch.setattr(np, 'savez_compressed', lambda file, **arrays: (file.write(b'new'), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        cache.put('ab12', {'score': np.array(2.0)})
    assert cache.get('ab12')['score'] == 1 and os.listdir(path.parent) == [path.name]


def test_image_keys():
    key = image_key(b'bytes', {})
    assert image_key(b'bytes', {}) == key
    others = {image_key(b'bytez', {}), image_key(b'bytes', {'resize': 448})}
    assert len(others | {key}) == 3


def test_lock(tmp_path):
    def add(i):
        for _ in range(10):
            with lock(tmp_path / 'new'):
                path = tmp_path / 'count'
                n = int(path.read_text()) if path.exists() else 0
                time.sleep(0.001)
                path.write_text(str(n + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert (tmp_path / 'count').read_text() == '40'


def test_load_features(tmp_path):
    generator = torch.Generator().manual_seed(0)
    text, scale = torch.randn(2, 2, 8, generator=generator), torch.tensor(3.3)
    with pytest.raises(FileNotFoundError, match='maclip-pyiqa evaluate -o'):
        load_features(tmp_path, 'photos')
    cache, images = FeatureCache(tmp_path, KEY), []
    features = [torch.randn(views, 8, generator=generator) for views in (1, 3, 2)]
    for i, f in enumerate(features):
        cache.put(f'k{i}', {'features': f.numpy(), 'shares': np.full(len(f), 1 / len(f))})
        images.append({'name': f'{i}.png', 'key': f'k{i}', 'rating': float(i), 'group': 'g', 'error': ''})
    images.append({'name': 'bad.png', 'key': '', 'rating': 9.0, 'group': 'g', 'error': 'broken'})
    metadata = {'metric': 'maclip', 'dataset': 'photos', 'protocol': 'list', 'config': {'head': None}}
    run = {'metadata': metadata, 'cache_key': KEY, 'lower_better': True, 'images': images}
    digests = {'image_digest': 'a', 'text_digest': 'b'}
    save_run(tmp_path, 'photos', 'maclip', run | digests | {'text': text.tolist(), 'scale': scale.tolist()})
    save_run(tmp_path, 'photos', 'niqe', run)

    loaded = load_features(tmp_path, 'photos')
    assert loaded.names == ['0.png', '1.png', '2.png'] and loaded.groups == ['g'] * 3
    assert loaded.metadata == metadata | digests | {'lower_better': True} and loaded.keys == ['k0', 'k1', 'k2']
    assert loaded.title == 'maclip on photos (list), n = 3'
    assert loaded.ratings.tolist() == [0, -1, -2]
    assert loaded.text.dtype == loaded.scale.dtype == torch.float32 and loaded.scale.shape == ()
    assert (loaded.text == text).all() and loaded.scale == scale
    assert all((a == b).all() for a, b in zip(loaded.features, features, strict=True))
    assert [share.tolist() for share in loaded.shares[::2]] == [[1.0], [0.5, 0.5]]

    with pytest.raises(FileNotFoundError, match=r"no features of 'other'; it holds those of: photos \(maclip\)"):
        load_features(tmp_path, 'other')
    with pytest.raises(FileNotFoundError, match="'photos' by 'niqe'"):
        load_features(tmp_path, 'photos', 'niqe')
    (cache.folder / 'k1' / 'k1.npz').unlink()
    with pytest.raises(FileNotFoundError, match=r'features of 1 images .* first 1\.png'):
        load_features(tmp_path, 'photos')
    save_run(tmp_path, 'photos', 'maclip_demo', run | digests | {'text': [], 'scale': 1})
    with pytest.raises(ValueError, match='maclip, maclip_demo; name one'):
        load_features(tmp_path, 'photos')


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b'\xff.png')
    images = [{'name': name, 'key': '', 'rating': 0.0, 'group': None, 'error': 'x'}]
    save_run(tmp_path, 'd', 'm', {'images': images})
    assert read_runs(tmp_path)[0][2]['images'][0]['name'] == name
