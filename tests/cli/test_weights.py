"""`maclip-pyiqa weights`: what is on this machine, and downloading the rest."""

import hashlib
from pathlib import Path

import pytest
import torch

from maclip_pyiqa.backbone import weights
from maclip_pyiqa.cli import main


def test_weights(tmp_path, monkeypatch, capsys):
    """Places of OpenAI's file and of the hub's cache, with a published checksum that we can fit."""
    import huggingface_hub
    import open_clip.pretrained

    content = b'these are weights'
    digest = hashlib.sha256(content).hexdigest()
    configs = {'RN50': {'url': f'https://openaipublic.example/{digest}/RN50.pt', 'hf_hub': 'some/repo/'}}
    monkeypatch.setattr(open_clip.pretrained, 'get_pretrained_cfg', lambda name, tag: configs.get(name, {}))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(huggingface_hub, 'try_to_load_from_cache', lambda repo, name: None)
    local = tmp_path / 'clip' / 'RN50.pt'

    def listed(code):
        assert main(['weights']) == code
        out, err = capsys.readouterr()
        assert bool(err) == bool(code)
        return {line.split('\t')[2]: line.split('\t')[0] for line in out.splitlines()}

    states = listed(3)
    assert states.pop(str(local)) == 'missing' and list(states.values()) == ['missing']
    local.parent.mkdir()
    local.write_bytes(content[:5])
    assert listed(3)[str(local)] == 'damaged'
    local.write_bytes(content)
    assert listed(0)[str(local)] == 'ok'
    local.unlink()

    blob = tmp_path / 'blobs' / digest  # the hub's cache names its files by their checksums
    blob.parent.mkdir()
    blob.write_bytes(content)
    cached = tmp_path / 'open_clip_model.safetensors'
    cached.symlink_to(blob)
    monkeypatch.setattr(huggingface_hub, 'try_to_load_from_cache', lambda repo, name: str(cached))
    assert listed(0)[str(cached)] == 'ok'
    blob.write_bytes(content[:5])
    assert listed(3)[str(cached)] == 'damaged'

    asked = []
    monkeypatch.setattr(weights, 'find', lambda *which: asked.append(which) or blob.write_bytes(content))
    assert main(['weights', '--fetch']) == 0 and asked == [('RN50', 'openai')]
    assert main(['weights', '--fetch']) == 0 and len(asked) == 1


def test_weights_that_cannot_be_fetched(monkeypatch, capsys):
    def find(name, tag):
        raise weights.WeightsError('none here, get them there')

    monkeypatch.setattr(weights, 'local_files', lambda name, tag: [(Path('/none'), 'missing')])
    monkeypatch.setattr(weights, 'find', find)
    assert main(['weights', '--fetch']) == 3
    assert 'get them there' in capsys.readouterr().err


def test_weights_of_a_file(tmp_path, capsys):
    torch.save({'a': torch.zeros(1)}, tmp_path / 'a.pt')
    assert main(['weights', '--pretrained', str(tmp_path / 'a.pt')]) == 0
    assert capsys.readouterr().out.startswith('ok\t')
    (tmp_path / 'a.pt').write_bytes(b'PK\x03\x04 cut off')
    assert main(['weights', '--pretrained', str(tmp_path / 'a.pt')]) == 3


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--backbone', 'nix'], "unknown backbone 'nix'"),
        (['--pretrained', 'nix'], "'nix' is neither a file nor one of the tags"),
        (['--backbone', 'RN50-quickgelu', '--pretrained', 'nix'], 'nix'),
        (['--backbone', 'ViT-M-16'], "open_clip has no weights for 'ViT-M-16'"),
        (['--backbone', 'demo'], 'brings its own weights'),
        (['--backbone', 'local-dir:x'], 'brings its own weights'),
    ],
)
def test_wrong_use(args, message, capsys):
    assert main(['weights', *args]) == 2
    out, err = capsys.readouterr()
    assert out == '' and message in err
