"""Every format of weights through the real loading code, and every way it fails."""

import copy
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from maclip_pyiqa import MACLIP, WeightsError
from maclip_pyiqa.backbone import weights
from maclip_pyiqa.testing import TINY, make_clip, save_folder, save_torchscript, state_dict

CONFIG_VIT = TINY | {'vision_cfg': {'image_size': 64, 'layers': 2, 'width': 64, 'head_width': 32, 'patch_size': 16}}


@pytest.fixture(scope='module', autouse=True)
def named(tmp_path_factory):
    """The tiny architectures by names that open_clip knows, so that weights can be files."""
    folder = tmp_path_factory.mktemp('configs')
    for name, config in {'tiny-rn': TINY, 'tiny-vit': CONFIG_VIT}.items():
        (folder / f'{name}.json').write_text(json.dumps(config))
    open_clip.add_model_config(folder)


@pytest.fixture(scope='module')
def want(tiny, photos):
    return MACLIP(backbone=tiny)(torch.stack(photos[:3]))


def save_torch(state, path):
    torch.save(state, path)


SAVERS = {
    'torchscript': save_torchscript,
    'state dict': save_torch,
    'state dict, old format': lambda s, p: torch.save(s, p, _use_new_zipfile_serialization=False),
    'training checkpoint': lambda s, p: torch.save(
        {'epoch': 3, 'state_dict': {f'module.{k}': v for k, v in s.items()}}, p
    ),
    'safetensors': save_file,
}


@pytest.mark.parametrize(
    'suffix', ['.pt', '', *(pytest.param(suffix, marks=pytest.mark.slow) for suffix in ('.safetensors', '.pth'))]
)
@pytest.mark.parametrize('saver', SAVERS)
def test_formats_are_detected_from_the_content(tmp_path, tiny_clip, photos, want, saver, suffix):
    path = tmp_path / f'some weights{suffix}'
    SAVERS[saver](state_dict(tiny_clip, half=False), path)
    got = MACLIP(backbone='tiny-rn', pretrained=path)(torch.stack(photos[:3]))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_half_precision_files(tmp_path, tiny_clip, photos):
    state = state_dict(tiny_clip)
    assert {v.dtype for v in state.values()} >= {torch.float16, torch.float32}
    torch.save(state, tmp_path / 'half.pt')
    clip = copy.deepcopy(tiny_clip)
    clip.load_state_dict(state)
    name = save_folder(clip, TINY, tmp_path / 'folder')
    x = torch.stack(photos[:2])
    torch.testing.assert_close(
        MACLIP(backbone='tiny-rn', pretrained=str(tmp_path / 'half.pt'))(x), MACLIP(backbone=name)(x)
    )


def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('asked the network')

    monkeypatch.setattr('socket.socket.connect', refuse)
    monkeypatch.setattr('socket.getaddrinfo', refuse)


def test_a_path_asks_no_network(monkeypatch, tmp_path, tiny_clip, rn50_file):
    no_network(monkeypatch)
    torch.save(state_dict(tiny_clip), tmp_path / 'a.pt')
    MACLIP(backbone='tiny-rn', pretrained=tmp_path / 'a.pt')
    MACLIP(pretrained=rn50_file)


# --- failures ---------------------------------------------------------------------------------------------------------


def fails(path, *say, backbone='tiny-rn'):
    with pytest.raises(WeightsError) as caught:
        MACLIP(backbone=backbone, pretrained=path)
    message = str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # one error, no chain
    for part in (str(path), *say):
        assert part in message, message
    return message


def test_missing_file(tmp_path):
    fails(tmp_path / 'none.pt', 'no such file')
    fails(tmp_path, 'no such file')
    fails('~/surely/not/there.pt'.replace('~', str(tmp_path)), 'no such file')


@pytest.mark.parametrize('keep', [0.999, 0.5, 0.01])
@pytest.mark.parametrize('saver', SAVERS)
def test_truncated_files(tmp_path, tiny_clip, saver, keep):
    path = tmp_path / 'weights.pt'
    SAVERS[saver](state_dict(tiny_clip), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    fails(path, 'cannot be read', 'truncated', 'Expected CLIP weights')


@pytest.mark.parametrize('saver', ['torchscript', 'state dict'])
def test_corrupt_files(tmp_path, tiny_clip, saver):
    """A flipped byte among the numbers, which torch itself does not notice."""
    path = tmp_path / 'weights.pt'
    SAVERS[saver](state_dict(tiny_clip), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    fails(path, 'cannot be read', 'checksum')


def test_values_that_are_not_finite(tmp_path, tiny_clip):
    state = state_dict(tiny_clip)
    state['visual.conv2.weight'][0, 0, 0, 0] = torch.nan
    torch.save(state, tmp_path / 'nan.pt')
    fails(tmp_path / 'nan.pt', 'not finite', 'visual.conv2.weight')


@pytest.mark.parametrize(
    ('content', 'say'),
    [
        (b'', 'no known format'),
        (b'hello', 'no known format'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 250\n', 'Git LFS'),
        (b'<!DOCTYPE html><html>404</html>', 'web page'),
        (b'PK\x03\x04 and then nothing', 'zip'),
    ],
)
def test_other_files(tmp_path, content, say):
    (tmp_path / 'RN50.pt').write_bytes(content)
    fails(tmp_path / 'RN50.pt', say, f'{len(content)} bytes')


def test_no_arbitrary_unpickling(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path}/owned',)

    for new in (True, False):
        torch.save({'a': torch.ones(1), 'b': Evil()}, tmp_path / 'evil.pt', _use_new_zipfile_serialization=new)
        fails(tmp_path / 'evil.pt', 'cannot be read')
    assert not (tmp_path / 'owned').exists()


@pytest.mark.parametrize('content', [[1, 2], {}, {'a': 1}, {'state_dict': {}}])
def test_files_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / 'other.pt')
    fails(tmp_path / 'other.pt', 'no state dict')


def test_another_architecture(tmp_path, tiny_clip, photos):
    torch.save({'layer.weight': torch.ones(2)}, tmp_path / 'linear.pt')
    fails(tmp_path / 'linear.pt', 'no CLIP', "backbone 'tiny-rn'")

    torch.save(state_dict(tiny_clip), tmp_path / 'rn.pt')
    fails(
        tmp_path / 'rn.pt',
        'CLIP ResNet, layers [1, 1, 1, 1], width 8',
        'patch 16, width 64, 2 layers',
        backbone='tiny-vit',
    )
    fails(tmp_path / 'rn.pt', 'expected a CLIP ResNet, layers [3, 4, 6, 3], width 64, embedding 1024', backbone='RN50')

    wide = TINY | {'embed_dim': 32}
    torch.save(state_dict(make_clip(wide, photos[:2])), tmp_path / 'wide.pt')
    fails(tmp_path / 'wide.pt', 'embedding 32', 'embedding 64', '(64, 32), not (64, 64)')


def test_folder_without_weights(tmp_path):
    with pytest.raises(WeightsError, match=r'open_clip_config\.json'):
        MACLIP(backbone=f'local-dir:{tmp_path}')
    (tmp_path / 'open_clip_config.json').write_text(json.dumps({'model_cfg': TINY}))
    with pytest.raises(WeightsError, match='local-dir'):
        MACLIP(backbone=f'local-dir:{tmp_path}')


# --- the tag ----------------------------------------------------------------------------------------------------------

RUN = """
import sys, torch, pyiqa
metric = pyiqa.create_metric('maclip')
print(type(metric.net).__module__, 'clip' in sys.modules)
print(float(metric(torch.linspace(0, 1, 3 * 224 * 224).view(1, 3, 224, 224).sin())))
"""


def run(code, home, **environment):
    keep = {k: v for k, v in os.environ.items() if not k.startswith(('HF_', 'HUGGINGFACE', 'TORCH_HOME', 'XDG'))}
    ours = {'HF_HOME': str(home / 'hf'), 'TORCH_HOME': str(home / 'torch'), 'HF_HUB_OFFLINE': '1'}
    return subprocess.run(
        [sys.executable, '-c', code], env=keep | ours | environment, capture_output=True, text=True, cwd=home
    )


@pytest.fixture(scope='module')
def hub(tmp_path_factory, rn50_clip) -> Path:
    """A home folder with OpenAI's RN50 in its hub cache, under the name of open_clip's tag."""
    home = tmp_path_factory.mktemp('home')
    repo = home / 'hf' / 'hub' / 'models--timm--resnet50_clip.openai'
    snapshot = repo / 'snapshots' / '0123456789abcdef'
    snapshot.mkdir(parents=True)
    (repo / 'refs').mkdir()
    (repo / 'refs' / 'main').write_text('0123456789abcdef')
    save_file(state_dict(rn50_clip), snapshot / 'open_clip_model.safetensors')
    return home


def test_the_default_from_the_hubs_cache(hub, rn50_file):
    done = run(RUN, hub)
    assert done.returncode == 0, done.stderr
    first, score = done.stdout.split('\n')[-3:-1]
    assert first == 'maclip_pyiqa.metric.maclip False'
    want = MACLIP(pretrained=rn50_file)(torch.linspace(0, 1, 3 * 224 * 224).view(1, 3, 224, 224).sin())
    assert float(score) == pytest.approx(want.item(), abs=1e-5)


def test_torch_hubs_copy_comes_first_if_its_checksum_fits(tmp_path, monkeypatch, rn50_file):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr('open_clip.pretrained.get_pretrained_cfg', lambda name, tag: CFG)
    digest = weights.sha256(rn50_file)
    CFG = {'url': f'https://openaipublic.azureedge.net/clip/models/{digest}/RN50.pt', 'hf_hub': 'nobody/nothing/'}
    (tmp_path / 'clip').mkdir()
    shutil.copy(rn50_file, tmp_path / 'clip' / 'RN50.pt')
    assert weights.find('RN50', 'openai') == tmp_path / 'clip' / 'RN50.pt'

    with open(tmp_path / 'clip' / 'RN50.pt', 'ab') as file:
        file.write(b'x')
    no_network(monkeypatch)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with pytest.raises(WeightsError, match='SHA-256 differs'):
        weights.find('RN50', 'openai')


@pytest.mark.slow
def test_no_weights_anywhere(tmp_path):
    done = run(RUN, tmp_path)
    assert done.returncode == 1
    assert done.stderr.count('Traceback') == 1
    for part in (
        "No weights 'openai' for RN50",
        str(tmp_path / 'torch' / 'hub' / 'clip' / 'RN50.pt'),
        str(tmp_path / 'hf' / 'hub'),
        'HF_HUB_OFFLINE',
        'https://openaipublic.azureedge.net/clip/models/afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt',
        "pretrained='FILE'",
        'or put that of openaipublic.azureedge.net at ' + str(tmp_path / 'torch' / 'hub' / 'clip' / 'RN50.pt'),
        '--backbone demo',
    ):
        assert part in done.stderr, done.stderr


@pytest.mark.slow
def test_the_hubs_address_is_honoured(tmp_path):
    """Only HF_ENDPOINT is asked: here a closed port of this machine, which the error names."""
    at_once = 'import time; time.sleep = lambda seconds: None'  # the hub's library waits between its attempts
    done = run(at_once + RUN, tmp_path, HF_HUB_OFFLINE='0', HF_ENDPOINT='http://127.0.0.1:9')
    assert done.returncode == 1 and 'http://127.0.0.1:9' in done.stderr.splitlines()[-2]


# --- QuickGELU --------------------------------------------------------------------------------------------------------


def openai_names():
    return open_clip.list_pretrained_models_by_tag('openai')


@pytest.mark.filterwarnings("ignore:.*is read as OpenAI's")
@pytest.mark.parametrize('name', [n for n in openai_names() if 'quickgelu' not in n])
def test_every_openai_backbone_gets_quickgelu(monkeypatch, name):
    """By its tag and from a file; no tower is built."""
    seen = []

    def create(name, force_quick_gelu=False, **kwargs):
        seen.append(force_quick_gelu)
        raise InterruptedError

    monkeypatch.setattr('open_clip.create_model', create)
    monkeypatch.setattr('maclip_pyiqa.backbone.loading.find', lambda name, tag: Path('x.pt'))
    monkeypatch.setattr('maclip_pyiqa.backbone.loading.read', lambda path: {})
    openais = name.replace('ViT-B-', 'ViT-B/').replace('ViT-L-14', 'ViT-L/14').replace('/14-336', '/14@336px')
    for spelling in (name, openais):
        for pretrained in ('openai', '/some/file.pt'):
            with pytest.raises(InterruptedError):
                MACLIP(backbone=spelling, pretrained=pretrained)
    assert seen == [True] * 4


def test_quickgelu_changes_the_text_features_and_can_be_set(rn50_file, rn50_clip):
    from open_clip.transformer import QuickGELU

    right = MACLIP(pretrained=rn50_file).backbone.text
    wrong = MACLIP(pretrained=rn50_file, quick_gelu=False).backbone.text
    assert (right - wrong).abs().max() > 1e-3
    assert any(isinstance(m, QuickGELU) for m in rn50_clip.modules())
    tokens = open_clip.get_tokenizer('RN50')(['Good image', 'bad image'])
    with torch.no_grad(), warnings.catch_warnings():
        torch.testing.assert_close(right[0], rn50_clip.encode_text(tokens, normalize=True), rtol=0, atol=1e-5)


def test_laion_tags_are_not_quickgelu(monkeypatch):
    seen = {}

    def create(name, force_quick_gelu=False, **kwargs):
        seen[name] = force_quick_gelu
        raise InterruptedError

    monkeypatch.setattr('open_clip.create_model', create)
    monkeypatch.setattr('maclip_pyiqa.backbone.loading.find', lambda name, tag: Path('x.pt'))
    monkeypatch.setattr('maclip_pyiqa.backbone.loading.read', lambda path: {})
    with pytest.raises(InterruptedError):
        MACLIP(backbone='ViT-B-32', pretrained='laion2b_s34b_b79k')
    assert seen == {'ViT-B-32': False}
