"""pyiqa's own modules with this metric: data loaders and correlations, the validation loop, training options."""

import csv

import numpy as np
import pyiqa
import pytest
import torch
from PIL import Image, ImageFilter
from scipy import stats

from maclip_pyiqa import MACLIP


@pytest.fixture(scope='module')
def root(photo_files, tmp_path_factory):
    """KonIQ in pyiqa's layout, 8 images of one size."""
    root = tmp_path_factory.mktemp('datasets')
    (root / 'koniq10k/1024x768').mkdir(parents=True)
    (root / 'meta_info').mkdir()
    rows = [['img_name', 'mos', 'std', 'official_split']]
    for i in range(8):
        photo = Image.open(photo_files[i]).convert('RGB').resize((96, 72)).filter(ImageFilter.GaussianBlur(i % 4))
        photo.save(root / 'koniq10k/1024x768' / f'{i}.png')
        rows.append([f'{i}.png', 90 - 20 * (i % 4) + i, 1, 'test'])
    with open(root / 'meta_info/meta_info_KonIQ10kDataset.csv', 'w', newline='') as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope='module')
def alone(root, tiny):
    """Each image's score by itself, and its label."""
    dataset, metric = pyiqa.load_dataset('koniq10k-1024', root), MACLIP(backbone=tiny)
    with torch.no_grad():
        scores = [float(metric(dataset[i]['img'][None])) for i in range(8)]
    return np.array(scores), np.array([float(dataset[i]['mos_label']) for i in range(8)])


@pytest.mark.parametrize('batch', [1, 3, 8])
def test_a_benchmark_loop_with_batches(root, tiny, alone, batch):
    """What pyiqa's benchmark_results.py does (the script itself is not in its wheel): metric, loader, correlation."""
    from pyiqa.data import build_dataloader
    from pyiqa.metrics import calculate_srcc

    metric = pyiqa.create_metric('maclip', backbone=tiny, device='cpu')
    options = pyiqa.get_dataset_info('koniq10k-1024') | {'phase': 'test', 'batch_size_per_gpu': batch}
    loader = build_dataloader(pyiqa.load_dataset('koniq10k-1024', root), options)
    batches = [(metric(data['img']), data['mos_label']) for data in loader]
    scores, labels = (torch.cat(parts)[:, 0].numpy() for parts in zip(*batches, strict=True))
    np.testing.assert_allclose(scores, alone[0], atol=1e-5)
    assert labels.tolist() == alone[1].tolist()
    assert calculate_srcc(scores, labels) == pytest.approx(stats.spearmanr(*alone).statistic)


def options(tiny, tmp_path, **more):
    """pyiqa's options, as in its YAML files."""
    return {
        'name': 'maclip',
        'model_type': 'GeneralIQAModel',
        'num_gpu': 0,
        'dist': False,
        'rank': 0,
        'is_train': False,
        'network': {'type': 'MACLIP', 'backbone': tiny},
        'path': {'models': str(tmp_path)},
        'train': {'optim': {'type': 'SGD', 'lr': 0.1}, 'scheduler': {'type': 'MultiStepLR', 'milestones': [9]}},
        'val': {'metrics': {'srcc': {'type': 'calculate_srcc'}, 'plcc': {'type': 'calculate_plcc'}}},
    } | more


def test_validation(root, tiny, alone, tmp_path):
    """`network: type: MACLIP` in pyiqa's options, and its validation loop in batches."""
    from pyiqa.archs import build_network
    from pyiqa.data import build_dataloader
    from pyiqa.models import build_model

    opt = options(tiny, tmp_path)
    model = build_model(opt)
    assert type(model.net) is MACLIP
    model.net_best = build_network(opt['network'])  # pyiqa creates it in training only, but also uses it in validation
    loader = build_dataloader(pyiqa.load_dataset('koniq10k-1024', root), {'phase': 'test', 'batch_size_per_gpu': 3})
    model.validation(loader, 0, None)
    assert model.metric_results['srcc'] == pytest.approx(stats.spearmanr(*alone).statistic)
    assert model.metric_results['plcc'] == pytest.approx(stats.pearsonr(*alone).statistic, abs=1e-4)
    assert not model.net.training  # pyiqa has set it to train


def test_training_has_nothing_to_train(tiny, tmp_path):
    """The metric has no parameters: pyiqa's training builds it, and torch's optimizer then refuses."""
    from pyiqa.models import build_model

    with pytest.raises(ValueError, match='empty parameter list'):
        build_model(options(tiny, tmp_path, is_train=True))
