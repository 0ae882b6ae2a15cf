"""Registration in pyiqa: the entry points of the groups `pyiqa.archs` and `pyiqa.losses`, and the metric names.

pyiqa ships a class `MACLIP` of its own, registered by its module's decorator whenever that module is imported. Ours
takes that name; pyiqa's stays importable and is offered as the metric `maclip_builtin`.
"""

from __future__ import annotations

import functools

import wrapt

from .._lazy import need

BUILTIN = 'pyiqa.archs.maclip_arch'
RANGE = '~0, ~1'  # pyiqa's notation: scores may lie a little outside

# Metric names beside `maclip`, the published metric, and the options that each changes. The authors' README names RN101
# and ViT-B/32 as options, without results.
VARIANTS = {
    'maclip_rn101': {'backbone': 'RN101'},
    'maclip_rn50x4': {'backbone': 'RN50x4'},
    'maclip_rn50x16': {'backbone': 'RN50x16'},
    'maclip_vitB32': {'backbone': 'ViT-B-32'},
    'maclip_vitB16': {'backbone': 'ViT-B-16'},
    'maclip_vitL14': {'backbone': 'ViT-L-14'},
    'maclip_global': {'views': 'global'},
    'maclip_full': {'views': 'full'},
    'maclip_sim': {'cue': 'sim'},
    'maclip_mag': {'cue': 'mag'},
    'maclip_demo': {'backbone': 'demo'},
}


def register() -> None:
    """Make `pyiqa.create_metric('maclip')` build `maclip_pyiqa.MACLIP`. Harmless when called again.

    pyiqa calls it through the entry point of the group `pyiqa.archs`, and so does the import of `maclip_pyiqa` once
    pyiqa is imported too.

    Raises:
        ModuleNotFoundError: pyiqa is not installed

    Example::

        import pyiqa
        from maclip_pyiqa import register

        register()
        metric = pyiqa.create_metric('maclip')
        score = metric('photo.jpg')            # (1, 1)
    """
    need('register()', 'pyiqa')
    from pyiqa.default_model_configs import DEFAULT_CONFIGS
    from pyiqa.models.inference_model import InferenceModel
    from pyiqa.utils.registry import ARCH_REGISTRY

    from ..metric import MACLIP

    _give_way(ARCH_REGISTRY)
    _load_heads(InferenceModel)
    ARCH_REGISTRY.register(MACLIP, override=True)
    ARCH_REGISTRY.register_lazy('MACLIPBuiltin', f'{BUILTIN}:MACLIP', override=True)
    published = DEFAULT_CONFIGS['maclip']  # pyiqa's entry, whose range stays with pyiqa's implementation
    DEFAULT_CONFIGS.setdefault('maclip_builtin', published | {'metric_opts': {'type': 'MACLIPBuiltin'}})
    # Not clamped. Without `import maclip_pyiqa`, pyiqa reads the entry before it calls this function, so that the first
    # metric of the process shows pyiqa's range.
    published['score_range'] = RANGE
    for name, options in VARIANTS.items():
        opts = {'type': 'MACLIP'} | options
        DEFAULT_CONFIGS[name] = {'metric_opts': opts, 'metric_mode': 'NR', 'score_range': RANGE}


def register_loss() -> None:
    """Make `pyiqa.losses.build_loss({'type': 'MACLIPLoss'})` build `maclip_pyiqa.MACLIPLoss`.

    pyiqa calls it through the entry point of the group `pyiqa.losses`. The module is imported when the loss is built.
    """
    from pyiqa.utils.registry import LOSS_REGISTRY

    LOSS_REGISTRY.register_lazy('MACLIPLoss', 'maclip_pyiqa.loss:MACLIPLoss', override=True)


def register_when_imported() -> None:
    """Call `register` and `register_loss` as soon as pyiqa is imported, or now if it is."""
    wrapt.register_post_import_hook(lambda module: register(), 'pyiqa')
    wrapt.register_post_import_hook(lambda module: register_loss(), 'pyiqa')


def _give_way(registry) -> None:
    """pyiqa's decorator asserts that its name is free. Let it register its class under another name."""
    plain = registry._do_register
    if hasattr(plain, 'gives_way'):
        return

    @functools.wraps(plain)
    def do_register(name, obj, override=False):
        if name == 'MACLIP' and obj.__module__ == BUILTIN:
            name, override = 'MACLIPBuiltin', True
        plain(name, obj, override=override)

    do_register.gives_way = True  # type: ignore[attr-defined]
    registry._do_register = do_register


def _load_heads(model) -> None:
    """pyiqa's `load_weights` reads a pickle into a state dict. Of our metrics, whose state dict is empty, let it load a
    head that was fitted to ratings, or say what to do."""
    plain = model.load_weights
    if hasattr(plain, 'loads_heads'):
        return

    @functools.wraps(plain)
    def load_weights(self, weights_path, weight_keys='params'):
        from ..metric import MACLIP

        if isinstance(self.net, MACLIP):
            self.net.load_head(weights_path)
        else:
            plain(self, weights_path, weight_keys)

    load_weights.loads_heads = True  # type: ignore[attr-defined]
    model.load_weights = load_weights
