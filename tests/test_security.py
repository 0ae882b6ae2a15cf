"""What SECURITY.md promises and no other test shows: files that are read run no code.

Each file here has a pickle, or code, that would write a file named `owned` if it ran.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from maclip_pyiqa import MACLIP, WeightsError, open_scores
from maclip_pyiqa.backbone import weights
from maclip_pyiqa.evaluation.cache import FeatureCache
from maclip_pyiqa.testing import TINY, save_torchscript


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch "{self.path}"',)


@pytest.fixture
def owned(tmp_path):
    """The file that must not appear, after a check that a pickle does write it."""
    path = tmp_path / 'owned'
    pickle.loads(pickle.dumps(Evil(path)))
    path.unlink()
    yield path
    assert not path.exists()


def test_torchscript_that_runs_while_it_is_loaded(owned, tmp_path):
    code = f"""
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self):
        return self.weight

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.weight = state[0]
        self.training = state[1]
        torch.save(torch.ones(1), {str(owned)!r})

torch.jit.script(Net()).save({str(tmp_path / 'evil.pt')!r})
"""
    (tmp_path / 'make.py').write_text(code)  # TorchScript reads its source from a file
    subprocess.run([sys.executable, tmp_path / 'make.py'], check=True, capture_output=True)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.load(tmp_path / 'evil.pt')
    owned.unlink()  # torch itself ran it
    with pytest.raises(WeightsError, match=r'TorchScript archive, .*cannot be read'):  # its state is no dict
        weights.read(tmp_path / 'evil.pt')


def test_torchscript_with_a_default_value_that_is_code(owned, tmp_path):
    """torch.jit.load evaluates default values of arguments, of methods that nobody calls."""
    save_torchscript({'a.weight': torch.arange(3.0)}, tmp_path / 'good.pt')
    value = f'torch.copy_(torch.from_file({str(owned)!r}, True, 4, dtype=0), torch.tensor([1, 2, 3, 4], dtype=0))'
    method = f'  def g(self, x: Tensor={value}) -> NoneType:\n    return None\n'
    writer = torch._C.PyTorchFileWriter(str(tmp_path / 'evil.pt'))
    with zipfile.ZipFile(tmp_path / 'good.pt') as archive:
        for member in archive.namelist():
            content, name = archive.read(member), member.partition('/')[2]
            if name.endswith('.py') and b'  def forward' in content:
                content = content.replace(b'  def forward', method.encode() + b'  def forward', 1)
            if name not in ('version', 'byteorder') and not name.startswith('.data'):
                writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.load(tmp_path / 'evil.pt')
    assert owned.read_bytes() == bytes([1, 2, 3, 4])  # torch itself ran it
    owned.unlink()
    tensor = weights.read(tmp_path / 'evil.pt')['a.weight']
    assert tensor.tolist() == [0, 1, 2]


def test_a_pickle_in_torchscript(owned, tmp_path):
    save_torchscript({'a.weight': torch.arange(3.0)}, tmp_path / 'good.pt')
    writer = torch._C.PyTorchFileWriter(str(tmp_path / 'evil.pt'))
    for name, content in {'constants.pkl': b'', 'data.pkl': pickle.dumps(Evil(owned), protocol=2)}.items():
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    with pytest.raises(WeightsError, match=r'system is no part of weights'):
        weights.read(tmp_path / 'evil.pt')


def test_openais_own_files_are_known(tmp_path, monkeypatch):
    (tmp_path / 'weights.pt').write_bytes(b'')
    assert not weights._is_openais(tmp_path / 'weights.pt')
    rn50 = 'afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762'  # in docs/metric.md
    monkeypatch.setattr(weights, 'sha256', lambda path: rn50)
    assert weights._is_openais(tmp_path / 'weights.pt')
    # torch reads these
    save_torchscript({'a.weight': torch.arange(3.0)}, tmp_path / 'weights.pt')
    monkeypatch.setattr(weights, 'read_archive', lambda path: pytest.fail('read as if it were a stranger'))
    (name,) = weights.read(tmp_path / 'weights.pt').keys() - {'input_resolution', 'context_length', 'vocab_size'}
    assert name == 'a.weight'


def test_a_folder_of_open_clip(owned, tmp_path):
    folder = tmp_path / 'folder'
    folder.mkdir()
    (folder / 'open_clip_config.json').write_text(json.dumps({'model_cfg': TINY, 'preprocess_cfg': {}}))
    torch.save({'visual': Evil(owned)}, folder / 'open_clip_pytorch_model.bin')
    with pytest.raises(WeightsError, match=r'cannot be loaded: .*[Ww]eights.only'):
        MACLIP(backbone=f'local-dir:{folder}')


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_a_head(owned, tmp_path, suffix):
    torch.save({'params': Evil(owned)}, tmp_path / f'head{suffix}')
    with pytest.raises(ValueError, match='cannot be read'):
        MACLIP(backbone='demo', head=tmp_path / f'head{suffix}')


def test_prompts(owned, tmp_path):
    (tmp_path / 'prompts.yml').write_text(f'!!python/object/apply:os.system ["touch {owned}"]\n')
    with pytest.raises(ValueError, match=r'prompts'):
        MACLIP(backbone='demo', prompts=str(tmp_path / 'prompts.yml'))


@pytest.mark.parametrize('suffix', ['.csv', '.jsonl', '.parquet'])
def test_a_table_that_is_a_pickle(owned, tmp_path, suffix):
    (tmp_path / f'scores{suffix}').write_bytes(pickle.dumps(Evil(owned)))
    with pytest.raises(ValueError, match=f'scores{suffix}'):
        list(open_scores(tmp_path / f'scores{suffix}').rows())


def test_cached_features(owned, tmp_path):
    cache = FeatureCache(tmp_path, {})
    path = cache._path('ab')
    path.parent.mkdir(parents=True)
    np.savez(path, feature=np.array([Evil(owned)], dtype=object))
    assert path.is_file() and cache.get('ab') is None
