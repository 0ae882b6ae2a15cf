"""Metric adapters: what they cache, what their keys depend on, and scores from the cache."""

import copy

import numpy as np
import pytest
import torch

from maclip_pyiqa import MACLIP
from maclip_pyiqa.evaluation.metrics import MACLIPAdapter, PyiqaAdapter, checksum, load_metrics, pack
from maclip_pyiqa.testing import TINY, save_folder


@pytest.mark.parametrize(
    'options',
    [{}, {'views': 'global'}, {'cue': 'mag'}, {'max_views': 2, 'stride': 20}, {'prompt_weights': [1, 0, 2, 0, 0]}],
)
def test_scores_from_the_cache_are_the_metrics(tiny, photos, options):
    net = MACLIP(backbone=tiny, **options)
    adapter = MACLIPAdapter('maclip', net)
    for image in (photos[0][:, :90, :150], photos[1][:, :64, :64]):
        with torch.no_grad():
            arrays, expected = adapter.compute(image), float(net([image]))
        assert arrays['features'].shape == (len(arrays['shares']), 64)
        assert adapter.score(arrays) == pytest.approx(expected, abs=2e-4)


def test_keys_are_of_the_features(tiny, tiny_clip, tiny_metric, tmp_path):
    """Metrics that differ in prompts, constants and cues share features; their fingerprints differ."""
    plain = MACLIPAdapter('maclip', tiny_metric)
    for options in ({'alpha': 3.0}, {'cue': 'sim'}, {'prompts': 'clipiqa'}):
        other = MACLIPAdapter('maclip', MACLIP(backbone=tiny, **options))
        assert other.cache_key == plain.cache_key and other.fingerprint != plain.fingerprint
        assert other.fingerprint == other.net.fingerprint() and other.config == other.net.config
    keys = [plain.cache_key]
    for options in ({'views': 'global'}, {'stride': 20}, {'max_views': 3}, {'pos_embedding': True}):
        keys.append(MACLIPAdapter('maclip', MACLIP(backbone=tiny, **options)).cache_key)
    other = copy.deepcopy(tiny_clip)
    other.visual.attnpool.c_proj.bias.data[0] += 1e-3
    keys.append(MACLIPAdapter('maclip', MACLIP(backbone=save_folder(other, TINY, tmp_path))).cache_key)
    assert all(keys.count(key) == 1 for key in keys)


def test_values_that_are_not_finite(tiny_metric, photos):
    tiny_metric.backbone.visual.attnpool.c_proj.bias[0] = torch.nan
    with pytest.raises(ValueError, match='features are not finite'):
        MACLIPAdapter('maclip', tiny_metric).compute(photos[0][:, :64, :64])
    net = torch.nn.Linear(2, 2)
    infinite = type('Metric', (), {'net': net, 'lower_better': False, '__call__': lambda self, x: x.sum() / 0})()
    with pytest.raises(ValueError, match='score is not finite'):
        PyiqaAdapter('x', infinite, {}).compute(photos[0])


def test_other_metrics_draw_the_same_crops(photos):
    net = torch.nn.Linear(2, 2)
    drawing = type('Metric', (), {'net': net, 'lower_better': True, '__call__': lambda self, x: torch.rand(())})()
    adapter = PyiqaAdapter('x', drawing, {})
    state = torch.get_rng_state()
    scores = [adapter.score(adapter.compute(photos[0])) for _ in range(2)]
    assert scores[0] == scores[1] and adapter.lower_better
    assert torch.equal(torch.get_rng_state(), state)


def test_scores_of_other_metrics_are_of_their_weights():
    nets = [torch.nn.Linear(2, 2) for _ in range(2)]
    metrics = [type('Metric', (), {'net': net, 'lower_better': False}) for net in nets]
    a, b = (PyiqaAdapter('x', metric, {}) for metric in metrics)
    assert a.cache_key != b.cache_key and a.fingerprint != b.fingerprint
    again = PyiqaAdapter('x', metrics[0], {})
    assert (a.cache_key, a.fingerprint) == (again.cache_key, again.fingerprint)
    assert a.cache_key != PyiqaAdapter('x', metrics[0], {'k': 1}).cache_key


def test_checksum():
    """Of tensors, and of layers and heads that have none."""
    layers = [torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)]
    assert checksum(layers[0]) != checksum(layers[1]) == checksum(layers[1])
    sums = []
    for heads in (2, 4):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            sums.append(checksum(torch.nn.TransformerEncoderLayer(8, heads, 8)))
    assert sums[0] != sums[1]
    modules = [torch.nn.Sequential(torch.nn.ReLU()), torch.nn.Sequential(torch.nn.SiLU())]
    assert checksum(modules[0]) != checksum(modules[1])


def test_half_precision_only_where_harmless(tiny_metric, photos):
    def scores(f, times=1.0):
        return tiny_metric.cues(f).q.mean() * times

    with torch.no_grad():
        f = tiny_metric.features([photos[0][:, :200, :200]])[0]
    packed = pack(f, scores)
    assert packed.dtype == np.float16
    change = abs(float(scores(torch.from_numpy(packed).float()) - scores(f)))
    assert 0 < change <= 1e-4
    finer = pack(f, lambda f: scores(f, 1.1e-4 / change))
    assert finer.dtype == np.float32 and (finer == f.numpy()).all()
    assert pack(f, lambda f: scores(f, 0.9e-4 / change)).dtype == np.float16
    assert pack(1e6 * f, scores).dtype == np.float32  # beyond float16
    assert pack(1e-8 * f, scores).dtype == np.float32  # below it


def test_load_metrics(tiny):
    ours, entropy, mag = load_metrics(['maclip', 'entropy', 'maclip_mag', 'maclip'], backbone=tiny)
    assert isinstance(entropy, PyiqaAdapter) and (ours.name, mag.config['cue']) == ('maclip', 'mag')
    assert ours.config['backbone'] == mag.config['backbone'] == tiny
    options = {'backbone': tiny, 'views': 'full', 'alpha': 2.0, 'quick_gelu': None}
    some = load_metrics(['maclip', 'maclip_global', 'maclip_demo'], **options)  # but what a name stands for
    got = [tuple(m.config[name] for name in ('backbone', 'views', 'alpha')) for m in some]
    assert got == [(tiny, 'full', 2.0), (tiny, 'global', 2.0), ('demo', 'full', 2.0)]
    with pytest.raises(ValueError, match="'psnr' is not a metric of pyiqa that works without"):
        load_metrics(['psnr'])
    with pytest.raises(ValueError, match='maclip, which is not among entropy'):
        load_metrics(['entropy'], backbone=tiny)
