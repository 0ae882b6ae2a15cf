"""Stand-in weights and real photos. Scores of stand-in weights mean nothing; they only tell images apart."""

from __future__ import annotations

import itertools
import os
import shutil
import time
import xml.etree.ElementTree as ET

# before torch is imported: its threads sleep while they wait, so that the suite is not slowed by what else runs
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('RAY_worker_niceness', '0')  # by default they starve while other tests run
if processes := int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 0)):  # of pytest -n, which share the cores
    os.environ.setdefault('OMP_NUM_THREADS', str(max((os.cpu_count() or 1) // processes, 1)))

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image, ImageOps

from maclip_pyiqa import MACLIP, Analysis, ViewPlan
from maclip_pyiqa.demo import PHOTO
from maclip_pyiqa.metric.head import Head
from maclip_pyiqa.testing import TINY, make_clip, save_folder, save_torchscript, state_dict

settings.register_profile('tests', deadline=None, derandomize=True)  # no timings, and the same examples each time
settings.load_profile('tests')


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their marks
def pytest_collection_modifyitems(items) -> None:
    """Slow are all tests of whole RN50s and of the studies in benchmarks/."""
    for item in items:
        if 'rn50_clip' in getattr(item, 'fixturenames', ()) or item.path.parent.name == 'benchmarks':
            item.add_marker('slow')


@pytest.fixture(params=['cpu', *['cuda'] * torch.cuda.is_available()])
def device(request) -> Iterator[str]:
    """Each device of this machine. Convolutions are in whole float32, as matrix products are by default."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield request.param


@pytest.fixture(scope='session')
def close_gradients() -> Callable[..., None]:
    """Asserts that gradients agree to within a share of the largest element: how far small ones are from what they
    should be is a matter of the processor."""

    def close_gradients(got: torch.Tensor, want: torch.Tensor, within: float = 1e-4) -> None:
        torch.testing.assert_close(got, want, rtol=0, atol=within * want.abs().max().item())

    return close_gradients


@pytest.fixture(scope='session')
def read_html() -> Callable[[str], ET.Element]:
    """Reads what a notebook shows, which is also XML, and checks that it runs nothing and loads nothing."""

    def read_html(html: str) -> ET.Element:
        root = ET.fromstring(html)
        assert {each.tag for each in root.iter()} <= {'div', 'p', 'b', 'span', 'table', 'tr', 'th', 'td', 'img'}
        names = {name for each in root.iter() for name in each.attrib}
        assert names <= {'style', 'scope', 'alt', 'width', 'height', 'src'}
        assert all(each.get('src').startswith('data:image/png;base64,') for each in root.iter('img'))
        styles = ' '.join(each.get('style', '') for each in root.iter())
        assert 'url(' not in styles and 'background:#' not in styles and ';color:' not in styles
        return root

    return read_html


@pytest.fixture
def workers_at_once(monkeypatch) -> None:
    """Workers read all files but the first, wherever workers are asked for: at each look at the clock a second passed,
    so it seems to pay."""
    monkeypatch.setattr(time, 'perf_counter', itertools.count().__next__)


@pytest.fixture(scope='session')
def photo_files(tmp_path_factory) -> list[Path]:
    """Ten 512x384 photos as PNG files: the package's own, and those in the wheels of scikit-image and scikit-learn."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    left, right, _ = data.stereo_motorcycle()
    pixels = {
        'astronaut': np.asarray(Image.open(PHOTO)),
        'motorcycle_left': left,
        'coffee': data.coffee(),
        'chelsea': data.chelsea(),
        'immunohistochemistry': data.immunohistochemistry(),
        'china': load_sample_image('china.jpg'),
        'rocket': data.rocket(),
        'flower': load_sample_image('flower.jpg'),
        'hubble_deep_field': data.hubble_deep_field(),
        'motorcycle_right': right,
    }
    files, folder = [], tmp_path_factory.mktemp('photos')
    for name, array in pixels.items():
        files.append(folder / f'{name}.png')
        ImageOps.fit(Image.fromarray(array), (512, 384), Image.Resampling.LANCZOS).save(files[-1], compress_level=1)
    return files


@pytest.fixture(scope='session')
def photos(photo_files) -> list[torch.Tensor]:
    """The photos, (3, 384, 512) in [0, 1]."""
    arrays = [np.array(Image.open(file)) for file in photo_files]
    return [torch.from_numpy(array).permute(2, 0, 1).float() / 255 for array in arrays]


@pytest.fixture(scope='session')
def tiny_clip(photos) -> torch.nn.Module:
    return make_clip(TINY, photos)


@pytest.fixture(scope='session')
def tiny(tiny_clip, tmp_path_factory) -> str:
    """Name of a tiny CLIP ResNet: window 64, features of 64."""
    return save_folder(tiny_clip, TINY, tmp_path_factory.mktemp('tiny'))


@pytest.fixture
def tiny_metric(tiny) -> MACLIP:
    return MACLIP(backbone=tiny)


@pytest.fixture(scope='session')
def save_head() -> Callable[..., Path]:
    """Writes a head of random numbers for a metric; returns the path."""

    def save_head(metric: MACLIP, path: Path, seed: int = 0, ratings=(1.0, 5.0)) -> Path:
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(metric.backbone.text.shape[-1], generator=generator)
        identity = {name: getattr(metric.backbone, name) for name in ('image_digest', 'text_digest')}
        about = {'config': metric.config, 'ratings': list(ratings), 'fitted_on': {'dataset': 'random numbers'}}
        Head(weight, torch.tensor([0.7, -0.2]), torch.tensor(0.3), about | identity).save(path)
        return path

    return save_head


@pytest.fixture(scope='session')
def tiny_head(tiny, save_head, tmp_path_factory) -> Path:
    """A head for `tiny`."""
    return save_head(MACLIP(backbone=tiny), tmp_path_factory.mktemp('head') / 'tiny.safetensors')


@pytest.fixture(scope='session')
def rn50_clip(photos) -> torch.nn.Module:
    """A whole RN50 in OpenAI's layout, as open_clip builds it."""
    clip = make_clip('RN50', photos[::3])
    clip.load_state_dict(state_dict(clip))  # what half precision keeps
    return clip


@pytest.fixture(scope='session')
def rn50_file(rn50_clip, tmp_path_factory) -> Path:
    """Its weights as OpenAI publishes them: a TorchScript archive, partly in half precision."""
    path = tmp_path_factory.mktemp('rn50') / 'RN50.pt'
    save_torchscript(state_dict(rn50_clip), path)
    return path


@pytest.fixture(scope='session')
def rn50_metric(rn50_file) -> MACLIP:
    return MACLIP(pretrained=rn50_file)


@pytest.fixture(scope='session')
def cluster():
    """Ray in this process, started once."""
    ray = pytest.importorskip('ray')
    os.environ['RAY_USAGE_STATS_ENABLED'] = os.environ['RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO'] = '0'
    ray.init(
        address='local', num_cpus=2, object_store_memory=80_000_000, include_dashboard=False, log_to_driver=False,
        logging_level='error',
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture(scope='session')
def analysis_of() -> Callable[..., Analysis]:
    """Makes the analysis of an image of a size, with windows of 64 and stride 37."""

    def make(height: int, width: int, names=('good', 'sharp'), seed: int = 0, max_views=None) -> Analysis:
        plan = ViewPlan.windows(height, width, 64, 37, max_views)
        generator = torch.Generator().manual_seed(seed)
        q, q_sim, q_mag, w_sim = torch.rand(4, 1, plan.views, generator=generator)
        attributes = torch.rand(1, plan.views, len(names), generator=generator)
        return Analysis(q.mean(1, keepdim=True), q, q_sim, q_mag, w_sim, attributes, names, plan)

    return make


@pytest.fixture(scope='session')
def browser(tmp_path_factory):
    """A headless Chromium, with `browser.downloads`, the folder that it saves files in."""
    programs = {
        'Chromium': shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome'),
        'chromedriver': shutil.which('chromedriver'),
        'selenium': None,
    }
    try:
        from selenium import webdriver

        programs['selenium'] = webdriver.__name__
    except ModuleNotFoundError:
        pass
    missing = [name for name, found in programs.items() if not found]
    if missing:
        pytest.skip(f'pages are tested in Chromium, and {", ".join(missing)} cannot be found')
    options = webdriver.ChromeOptions()
    options.binary_location = programs['Chromium']
    downloads = tmp_path_factory.mktemp('downloads')
    options.add_experimental_option('prefs', {'download.default_directory': str(downloads)})
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--window-size=1280,1000'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    # its files are named, so that selenium looks for none in the network
    service = webdriver.ChromeService(programs['chromedriver'], log_output=os.devnull)
    driver = webdriver.Chrome(options=options, service=service)
    driver.downloads = downloads
    yield driver
    driver.quit()
