"""pyiqa: registration, CLIP-IQA beside this metric, pyiqa's command line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pyiqa
import pytest
import torch
from PIL import Image

from maclip_pyiqa import MACLIP, register


def python(code, **environment):
    """Run code in a fresh interpreter, outside of the repository."""
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, cwd='/', env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


CREATE = "m = pyiqa.create_metric('maclip', backbone={tiny!r}); print(type(m.net).__module__)"
DEMO = "print(type(pyiqa.create_metric('maclip_demo').net).__module__)"
BUILTIN = 'from pyiqa.archs.maclip_arch import MACLIP; print(MACLIP.__module__)'


@pytest.mark.slow
@pytest.mark.parametrize(
    'lines',
    [
        ['import pyiqa', CREATE, BUILTIN, CREATE],
        ['import pyiqa', BUILTIN, CREATE, BUILTIN],
        ['import maclip_pyiqa, pyiqa', BUILTIN, CREATE, DEMO],
        ['import pyiqa, maclip_pyiqa', DEMO, BUILTIN, 'maclip_pyiqa.register(); maclip_pyiqa.register()', CREATE],
        [BUILTIN, 'import maclip_pyiqa, pyiqa', CREATE],
    ],
)
def test_ours_is_built_and_pyiqas_stays_importable(tiny, lines):
    got = python('\n'.join(lines).format(tiny=tiny))
    ours, builtin = 'maclip_pyiqa.metric.maclip', 'pyiqa.archs.maclip_arch'
    want = [ours if 'create' in line else builtin for line in lines if 'print' in line]
    assert got == want


def test_builtin_is_offered(tiny):
    register()
    assert 'maclip_builtin' in pyiqa.list_models('NR')
    from pyiqa.archs.maclip_arch import MACLIP as Builtin
    from pyiqa.utils.registry import ARCH_REGISTRY

    assert ARCH_REGISTRY.get('MACLIPBuiltin') is Builtin
    assert ARCH_REGISTRY.get('MACLIP') is MACLIP
    with pytest.raises(AssertionError, match='already registered'):  # the exception is for that one class only
        ARCH_REGISTRY.register(torch.nn.Linear, name='MACLIP')


@pytest.mark.slow
def test_no_import_is_needed_and_ranges_are_told(tiny):
    """Our scores are not clamped; pyiqa's metric keeps pyiqa's range, however often we register."""
    show = 'print([DEFAULT_CONFIGS[n]["score_range"] for n in ("maclip", "maclip_demo", "maclip_builtin")])'
    lines = ['import pyiqa', 'from pyiqa.default_model_configs import DEFAULT_CONFIGS']
    lines += ['theirs = DEFAULT_CONFIGS["maclip"]["score_range"]', CREATE, show, 'print(theirs)']
    lines += ['import maclip_pyiqa; maclip_pyiqa.register()', show, CREATE, 'print(m.score_range)']
    *_, theirs, _, _, ours = got = python('\n'.join(lines).format(tiny=tiny))
    assert got[0] == got[4] == 'maclip_pyiqa.metric.maclip'
    assert got[1] == got[3] == str(['~0, ~1', '~0, ~1', theirs]) and ours == '~0, ~1'


@pytest.mark.slow
def test_without_pyiqa(tiny):
    """As in an environment that has none: neither found nor imported. `test_others.py` has the errors."""
    code = """
import sys
sys.modules['pyiqa'] = None
import torch
from maclip_pyiqa import MACLIP
print(tuple(MACLIP(backbone=%r)(torch.rand(2, 3, 70, 70)).shape), 'clip' in sys.modules)
"""
    assert python(code % tiny) == ['(2, 1) False']


def test_options_and_scores_through_pyiqa(tiny, photos, photo_files):
    metric = pyiqa.create_metric('maclip', backbone=tiny, chunk=3, alpha=2.0)
    assert isinstance(metric.net, MACLIP) and not metric.lower_better
    x = torch.stack(photos[:2])
    got = metric(x)
    assert got.shape == (2, 1) and not got.requires_grad
    torch.testing.assert_close(got, MACLIP(backbone=tiny, alpha=2.0)(x))
    torch.testing.assert_close(metric(x, alpha=0.0), MACLIP(backbone=tiny, alpha=0.0)(x))
    torch.testing.assert_close(metric(str(photo_files[0])), got[:1])  # a path
    grey = metric(x[:, :1])
    torch.testing.assert_close(grey, metric(x[:, :1].repeat(1, 3, 1, 1)))


def test_clip_iqa_is_the_cosine_cue_of_the_full_view(rn50_file, photos):
    """Both libraries read the same file with their own code."""
    clipiqa = pyiqa.create_metric('clipiqa', backbone=str(rn50_file), device='cpu')
    ours = MACLIP(pretrained=rn50_file, views='full')
    x = torch.stack([photos[0], photos[5]])
    q_sim = ours.cues(torch.cat(ours.features(x))).q_sim
    want = clipiqa(x)
    assert (want[0] - want[1]).abs() > 1e-3
    torch.testing.assert_close(q_sim[:, None], want, rtol=0, atol=2e-5)


@pytest.mark.slow
def test_pyiqas_own_command(tmp_path, tiny, photos):
    """`pyiqa maclip -t FOLDER`, with the tiny backbone as the default."""
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(2):
        Image.fromarray((photos[i] * 255).byte().permute(1, 2, 0).numpy()).save(folder / f'{i}.png')
    code = f"""
import sys, pyiqa
from pyiqa.default_model_configs import DEFAULT_CONFIGS
DEFAULT_CONFIGS['maclip']['metric_opts']['backbone'] = {tiny!r}
from pyiqa.pyiqa_cmd import main
sys.argv = ['pyiqa', 'maclip', '-t', {str(folder)!r}, '--device', 'cpu', '-v']
main()
"""
    out = '\n'.join(python(code))
    want = MACLIP(backbone=tiny)([photos[0], photos[1]])
    for i, score in enumerate(want):
        found = re.search(rf'{i}\.png\W+([\d.]+)', out)
        assert float(found[1]) == pytest.approx(score.item(), abs=1e-5)


@pytest.mark.slow
def test_pyiqas_command_without_weights_says_what_to_do(tmp_path):
    command = Path(sys.executable).with_name('pyiqa')
    Image.new('RGB', (64, 64)).save(tmp_path / 'a.png')
    done = subprocess.run(
        [command, 'maclip', '-t', str(tmp_path / 'a.png')],
        capture_output=True,
        text=True,
        env=os.environ | {'HF_HUB_OFFLINE': '1', 'HF_HOME': str(tmp_path), 'TORCH_HOME': str(tmp_path)},
    )
    assert done.returncode != 0 and "No weights 'openai' for RN50" in done.stderr


def test_a_head_through_pyiqa(tiny, tiny_head, photos, tmp_path):
    x = torch.stack(photos[:2])
    want = MACLIP(backbone=tiny, head=tiny_head)(x)
    torch.testing.assert_close(pyiqa.create_metric('maclip', backbone=tiny, head=str(tiny_head))(x), want)
    metric = pyiqa.create_metric('maclip', backbone=tiny)
    unfitted = metric(x)
    for wrong in (tmp_path / 'weights.pth', tmp_path / 'gone.safetensors'):
        if wrong.suffix == '.pth':
            torch.save({'params': {}}, wrong)
        with pytest.raises(ValueError, match=r'expected a file that `maclip-pyiqa fit` wrote.*option `pretrained`'):
            metric.load_weights(str(wrong))
    assert torch.equal(metric(x), unfitted)
    metric.load_weights(str(tiny_head))
    torch.testing.assert_close(metric(x), want)


def test_other_metrics_load_weights_as_before(tmp_path):
    metric = pyiqa.create_metric('psnr')
    loaded = {}
    metric.net.load_state_dict = lambda state, strict: loaded.update(state)
    torch.save({'params': {'a': torch.ones(2)}}, tmp_path / 'a.pth')
    metric.load_weights(str(tmp_path / 'a.pth'))
    assert loaded['a'].tolist() == [1, 1]
