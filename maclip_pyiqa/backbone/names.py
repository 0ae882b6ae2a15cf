"""Names of architectures, known without importing open_clip, which takes seconds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def architecture(name: str) -> str:
    """open_clip's name of an architecture, also from OpenAI's spelling.

    Example:
        >>> architecture('ViT-L/14@336px')
        'ViT-L-14-336'
    """
    return name.replace('@336px', '-336').replace('/', '-')


def is_known(name: str) -> bool:
    """Whether `name` can be a backbone: 'demo', 'local-dir:...', 'hf-hub:...', or an architecture of open_clip.

    Only looks for the file of its configuration; True where open_clip keeps these elsewhere than today.

    Example:
        >>> is_known('ViT-B/32'), is_known('RN51')
        (True, False)
    """
    if name == 'demo' or name.startswith(('local-dir:', 'hf-hub:')):
        return True
    spec = find_spec('open_clip')
    configs = Path(spec.origin).parent / 'model_configs' if spec and spec.origin else None
    return configs is None or not configs.is_dir() or (configs / f'{architecture(name)}.json').is_file()
