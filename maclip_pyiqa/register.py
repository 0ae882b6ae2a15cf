"""All that knows pyiqa: the entry point of the group `pyiqa.archs`, and the metric names.

pyiqa ships a class `MACLIP` of its own, registered by its module's decorator whenever that module is imported. Ours
takes that name; pyiqa's stays importable and is offered as the metric `maclip_builtin`.
"""

from __future__ import annotations

import functools

__all__ = ['register']

BUILTIN = 'pyiqa.archs.maclip_arch'


def register() -> None:
    """Make `pyiqa.create_metric('maclip')` build `maclip_pyiqa.MACLIP`. Harmless when called again.

    pyiqa calls it through the entry point; importing `maclip_pyiqa` does too.

    Raises:
        ImportError: pyiqa is not installed
    """
    from pyiqa.default_model_configs import DEFAULT_CONFIGS
    from pyiqa.utils.registry import ARCH_REGISTRY

    from .arch import MACLIP

    _give_way(ARCH_REGISTRY)
    ARCH_REGISTRY.register(MACLIP, override=True)
    ARCH_REGISTRY.register_lazy('MACLIPBuiltin', f'{BUILTIN}:MACLIP', override=True)
    DEFAULT_CONFIGS['maclip_builtin'] = {
        'metric_opts': {'type': 'MACLIPBuiltin'},
        'metric_mode': 'NR',
        'score_range': '0, 1',
    }


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

    do_register.gives_way = True
    registry._do_register = do_register
