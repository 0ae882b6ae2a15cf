"""compile=True: the same scores and gradients, one program for all batch sizes."""

import copy
import json
import logging
import pickle

import pytest
import torch

from maclip_pyiqa import MACLIP

pytestmark = pytest.mark.slow  # inductor takes a minute


@pytest.fixture(scope='module')
def compiled(tiny):
    return MACLIP(backbone=tiny, compile=True)


def test_scores_and_gradients(tiny, compiled, photos, caplog, close_gradients):
    x = torch.stack(photos[:3])[..., :150, :150]
    plain = MACLIP(backbone=tiny)
    with caplog.at_level(logging.WARNING), torch.no_grad():
        got = compiled(x)
        assert [record.message for record in caplog.records if 'compiling the backbone' in record.message]
        caplog.clear()
        torch.testing.assert_close(got, plain(x), rtol=0, atol=1e-5)
        torch.testing.assert_close(compiled(x[:1]), plain(x[:1]), rtol=0, atol=1e-5)
        assert not [record for record in caplog.records if 'compiling the backbone' in record.message]
    y, z = (x.clone().requires_grad_() for _ in range(2))
    compiled(y).sum().backward()
    plain(z).sum().backward()
    close_gradients(y.grad, z.grad, within=1e-3)


def test_batch_sizes_do_not_compile_anew(compiled, photos):
    x = photos[0][None, :, :100, :100].expand(20, -1, -1, -1)
    with torch.no_grad():
        for count in (2, 16):  # what any sizes from 2 on compile
            compiled.backbone(x[:count, :, :64, :64])
        before = torch._dynamo.utils.counters['stats']['unique_graphs']
        for count in (3, 5, 7, 11, 13, 14, 20):
            compiled.backbone(x[:count, :, :64, :64])
        assert torch._dynamo.utils.counters['stats']['unique_graphs'] == before > 0


@pytest.mark.parametrize('twin', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_stay_compiled(compiled, twin):
    assert twin(compiled).backbone._compiled is not None


def test_config(compiled, tiny):
    config = json.loads(json.dumps(compiled.config))
    assert config['compile'] is True and MACLIP(**config).backbone._compiled is not None
    assert compiled.fingerprint() == MACLIP(backbone=tiny).fingerprint()
