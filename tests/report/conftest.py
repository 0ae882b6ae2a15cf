"""Chromium, and analyses of a given size."""

import os
import shutil
from collections.abc import Callable

import pytest
import torch

from maclip_pyiqa import Analysis, ViewPlan


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
