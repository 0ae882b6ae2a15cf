"""Building a metric leaves the process as it was: root logger, environment, warnings filters, random numbers."""

import logging
import os
import random
import subprocess
import sys
import threading
import warnings

import numpy as np
import open_clip
import pytest
import torch

from maclip_pyiqa import MACLIP, WeightsError
from maclip_pyiqa.backbone import loading
from maclip_pyiqa.backbone.guest import GUEST
from maclip_pyiqa.backbone.weights import read
from maclip_pyiqa.testing import TINY, save_torchscript, state_dict

FRESH = """
import logging, os, random, sys, warnings
from pathlib import Path
import numpy as np
import torch
from maclip_pyiqa import MACLIP

def state():
    root = logging.getLogger()
    return {
        'root logger': (list(root.handlers), list(root.filters), root.level, root.disabled, root.manager.disable),
        'environment': dict(os.environ),
        'environ': type(os.environ),
        'warnings': list(warnings.filters),
        'random': (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
        'torch': (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_default_device()),
    }

def builds(error='', **options):
    try:
        MACLIP(**options)
    except Exception as raised:
        assert type(raised).__name__ == error, raised
    else:
        assert not error
    assert 'open_clip' in sys.modules
    after = state()
    assert {name: after[name] for name in before if after[name] != before[name]} == {}, options

tiny, broken = sys.argv[1:]
"""
PLAIN = """
assert not logging.getLogger().handlers
before = state()
builds(backbone='demo')
builds(backbone=tiny)
builds('WeightsError', backbone=tiny + 'x')
builds(backbone='demo', cue='sim')
logging.basicConfig(level=logging.INFO, filename='own.log')
logging.getLogger('training').info('epoch 1')
assert 'epoch 1' in Path('own.log').read_text()
"""
CONFIGURED = """
os.environ['TOKENIZERS_PARALLELISM'] = 'true'
warnings.simplefilter('always')
logging.basicConfig(level=logging.DEBUG, filename='own.log')
logging.getLogger().addFilter(lambda record: True)
before = state()
builds('ValueError', backbone='RN51')
builds('WeightsError', pretrained=broken)
builds(backbone='demo')
"""


@pytest.mark.parametrize('code', [PLAIN, CONFIGURED], ids=['plain', 'configured'])
@pytest.mark.slow
def test_in_a_new_process(tiny, tmp_path, code):
    """With the first import of open_clip, whether the first metric can be built or not."""
    (tmp_path / 'broken.pt').write_bytes(b'PK\x03\x04')
    done = subprocess.run(
        [sys.executable, '-c', FRESH + code, tiny, str(tmp_path / 'broken.pt')],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''


def state():
    root = logging.getLogger()
    return list(root.handlers), list(root.filters), root.level, dict(os.environ), type(os.environ), [*warnings.filters]


@pytest.fixture
def meddling(monkeypatch):
    """open_clip changes what it may, and waits for `go` while it builds. Threads that build, and an event."""
    create, inside, go = open_clip.create_model, threading.Semaphore(0), threading.Event()

    def create_model(*args, **kwargs):
        monkeypatch.setitem(sys.modules, f'of_open_clip_{threading.get_ident()}', None)  # imports what it needs
        os.environ['SET'] = 'by open_clip'
        os.environ['PUT_BACK'] += ', changed'
        os.environ.pop('REMOVED', None)
        warnings.filterwarnings('ignore', 'by open_clip')
        inside.release()
        assert go.wait(60)
        open_clip.factory.logging.warning('of no interest')
        open_clip.factory.logging.info('of no interest')
        return create(*args, **kwargs)

    monkeypatch.setattr(open_clip, 'create_model', create_model)
    monkeypatch.setenv('PUT_BACK', 'as it was')
    monkeypatch.setenv('REMOVED', 'no')
    monkeypatch.delenv('SET', raising=False)
    yield inside, go
    go.set()


def start(inside, **options):
    thread = threading.Thread(target=MACLIP, kwargs=options, daemon=True)
    thread.start()
    assert inside.acquire(timeout=60)
    return thread


def test_threads_that_build_at_once(meddling, monkeypatch, capfd):
    inside, go = meddling
    monkeypatch.setattr(logging.getLogger(), 'handlers', [])  # those of pytest
    before = state()
    first = start(inside, backbone='demo')
    second = start(inside, backbone='demo')
    go.set()
    first.join()
    second.join()
    assert state() == before and open_clip.factory.logging is logging
    assert capfd.readouterr().err == ''


def test_other_threads_go_on_as_they_were(meddling, monkeypatch, tmp_path, capfd):
    """What they log is logged, and the root logger can be set up."""
    inside, go = meddling
    root = logging.getLogger()
    monkeypatch.setattr(root, 'handlers', [])  # those of pytest
    thread = start(inside, backbone='demo')
    assert root.level == logging.WARNING and not root.handlers
    logging.getLogger('mine').warning('a warning')
    open_clip.factory.logging.warning('of open_clip in this thread')
    logging.basicConfig(filename=tmp_path / 'own.log')
    logging.warning('on the root logger')
    go.set()
    thread.join()
    assert capfd.readouterr().err.splitlines() == ['a warning', 'of open_clip in this thread']
    assert 'on the root logger' in (tmp_path / 'own.log').read_text()
    assert 'SET' not in os.environ
    root.handlers[0].close()


def test_an_error_while_building(meddling, monkeypatch):
    meddling[1].set()
    before = state()
    monkeypatch.setattr(loading, '_NoInit', lambda: 1 / 0)
    with pytest.raises(WeightsError, match='division by zero'):
        MACLIP(backbone='demo')
    assert state() == before and open_clip.factory.logging is logging


@pytest.fixture
def by_name(monkeypatch, tmp_path, tiny_clip):
    """Options of the tiny backbone by a name and a file in OpenAI's format."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, 'tiny', TINY)
    save_torchscript(state_dict(tiny_clip), tmp_path / 'tiny.pt')
    return {'backbone': 'tiny', 'pretrained': tmp_path / 'tiny.pt'}


def test_open_clip_does_not_say_that_weights_are_random(by_name, caplog):
    caplog.set_level(logging.DEBUG)
    MACLIP(**by_name)
    assert 'random' not in caplog.text and not [record for record in caplog.records if record.levelno > logging.INFO]


def test_threads_that_read_at_once(by_name, monkeypatch):
    """The first one to begin is the first one to end: catch_warnings would leave its filters behind."""
    inside, go, real = threading.Semaphore(0), [threading.Event(), threading.Event()], torch.jit.load

    def load(path, **kwargs):
        inside.release()
        assert go[int(threading.current_thread().name)].wait(60)
        return real(path, **kwargs)

    monkeypatch.setattr(torch.jit, 'load', load)
    monkeypatch.setattr('maclip_pyiqa.backbone.weights._is_openais', lambda path: True)
    before, filters = list(warnings.filters), warnings.filters
    threads = [threading.Thread(target=read, args=(by_name['pretrained'],), name=name) for name in '01']
    for thread in threads:
        thread.start()
        assert inside.acquire(timeout=60)
    for thread, event in zip(threads, go, strict=True):
        event.set()
        thread.join()
    after, warnings.filters = list(warnings.filters), filters
    assert after == before


def test_messages_of_a_tokenizer_reach_the_user(tiny, monkeypatch, caplog):
    def get_tokenizer(name):
        open_clip.factory.logging.warning('a tokenizer of another kind')
        return real(name)

    real = open_clip.get_tokenizer
    monkeypatch.setattr(open_clip, 'get_tokenizer', get_tokenizer)
    loading._cached_tokenizer.cache_clear()
    MACLIP(backbone=tiny)
    assert [record.getMessage() for record in caplog.records] == ['a tokenizer of another kind']


def test_nested_guests(monkeypatch):
    before = state()
    with GUEST:
        with GUEST:
            monkeypatch.setitem(sys.modules, 'imported', None)
            os.environ['SET'] = 'inside'
        os.environ.update(SET='outside', OTHER='1')
    assert state() == before


def test_random_numbers():
    def drawn():
        return random.random(), np.random.rand(), torch.rand(1).item()

    def seed():
        random.seed(3), np.random.seed(3), torch.manual_seed(3)

    seed()
    want = drawn()
    seed()
    MACLIP(backbone='demo')
    with pytest.raises(WeightsError):
        MACLIP(pretrained='no.pt')
    assert drawn() == want


def test_what_other_threads_set_stays(monkeypatch):
    """Once everything is imported."""
    create = open_clip.create_model

    def of_another_thread():
        os.environ['MINE'] = '1'
        warnings.filterwarnings('ignore', 'mine')

    def create_model(*args, **kwargs):
        thread = threading.Thread(target=of_another_thread)
        thread.start()
        thread.join()
        return create(*args, **kwargs)

    MACLIP(backbone='demo')
    monkeypatch.setattr(open_clip, 'create_model', create_model)
    with warnings.catch_warnings():
        MACLIP(backbone='demo')
        assert os.environ.pop('MINE') == '1' and warnings.filters[0][1].pattern == 'mine'
