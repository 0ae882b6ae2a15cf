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
from pathlib import Path

import numpy as np
import pytest
import torch

from maclip_pyiqa import MACLIP, WeightsError, open_scores
from maclip_pyiqa.backbone import weights
from maclip_pyiqa.evaluation.cache import FeatureCache
from maclip_pyiqa.testing import TINY


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
    with pytest.raises(WeightsError, match=r'TorchScript archive, .*has code that would run while it is read'):
        weights.read(tmp_path / 'evil.pt')


def test_openais_own_files_are_known(tmp_path, monkeypatch):
    (tmp_path / 'weights.pt').write_bytes(b'')
    assert not weights._is_openais(tmp_path / 'weights.pt')
    rn50 = 'afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762'  # in docs/metric.md
    monkeypatch.setattr(weights, 'sha256', {tmp_path / 'weights.pt': rn50}.get)
    assert weights._is_openais(tmp_path / 'weights.pt')


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
