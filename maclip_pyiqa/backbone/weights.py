"""CLIP's weights: finding, downloading and reading files of them, without running code in them, see SECURITY.md."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor

from .._files import one_line
from .guest import ignoring
from .torchscript import read_archive


class WeightsError(RuntimeError):
    """Weights could not be found or read, or do not fit. The message says what was tried and what to do.

    Example::

        from maclip_pyiqa import MACLIP, WeightsError

        try:
            metric = MACLIP(backbone='RN50', pretrained='weights/RN50.pt')
        except WeightsError as error:
            print(error)
    """


def find(name: str, tag: str) -> Path:
    """The file of open_clip's pretrained `tag` for the architecture `name`: local copies first, then the hub.

    1. OpenAI's tag: the file that pyiqa and OpenAI's `clip` package download, in torch hub's folder `clip`,
       if its SHA-256 is the one in OpenAI's published address.
    2. The Hugging Face hub's cache, then the hub (HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE are honoured), or, for
       weights outside the hub, open_clip's own download.

    Raises:
        WeightsError: no weights found or downloaded; the message says what was tried and what to do
    """
    from open_clip.pretrained import download_pretrained_from_url, get_pretrained_cfg

    cfg = get_pretrained_cfg(name, tag)
    url, repo = cfg.get('url', ''), cfg.get('hf_hub', '')
    tried = []

    if 'openaipublic' in url:
        local = Path(torch.hub.get_dir(), 'clip', os.path.basename(url))
        if not local.is_file():
            tried.append(f'{local}: no such file')
        elif sha256(local) == url.split('/')[-2]:
            return local
        else:
            tried.append(f"{local}: is not OpenAI's file (SHA-256 differs; an interrupted download?), not used")

    try:
        if repo:
            return _from_hub(repo, tried)
        return Path(download_pretrained_from_url(url))
    except Exception as error:
        if not repo:
            tried.append(f'{url}: {one_line(error, 200)}')
    other = f'; or put that of {urlparse(url).netloc} at {local}' if 'openaipublic' in url else ''
    if repo and not other:
        other = '; or copy the cache folder of this repository from there'
    sources = [url] * bool(url) + [f'https://huggingface.co/{repo.rpartition("/")[0]}'] * bool(repo)
    raise WeightsError(
        f'No weights {tag!r} for {name} on this machine, and none could be downloaded.\n'
        + ''.join(f'  tried: {line}\n' for line in tried)
        + f'Get the file on a machine with a network from {" or ".join(sources)} and pass its path, '
        f"pretrained='FILE' or --pretrained FILE{other}. "
        "backbone='demo' or --backbone demo works without a download, and is not the published metric."
    ) from None


def _from_hub(repo: str, tried: list[str]) -> Path:
    """Weights file of a hub repository; the hub is asked only where its cache lacks the file."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repo_id, names = _hub_files(repo)
    for name in names:
        cached = try_to_load_from_cache(repo_id, name)
        if isinstance(cached, str):
            return Path(cached)
    tried.append(f'hub cache {constants.HF_HUB_CACHE}: no {repo_id}')

    for name in names:
        try:
            return Path(hf_hub_download(repo_id, name))
        except LocalEntryNotFoundError as error:  # offline, or no connection: the next name would fail too
            offline = 'offline mode (HF_HUB_OFFLINE)' if constants.HF_HUB_OFFLINE else one_line(error, 200)
            tried.append(f'{constants.ENDPOINT}: {offline}')
            raise
        except EntryNotFoundError:
            tried.append(f'{constants.ENDPOINT}/{repo_id}: has no {name}')
        except Exception as error:
            tried.append(f'{constants.ENDPOINT}/{repo_id}/{name}: {one_line(error, 200)}')
            raise
    raise FileNotFoundError(repo)


def _hub_files(repo: str) -> tuple[str, list[str]]:
    """open_clip's 'org/name/file' or 'org/name/' -> the repository's id and the files that may hold the weights."""
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repo_id, _, filename = repo.rpartition('/')
    if not filename:
        return repo_id, [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    safe = [str(Path(filename).with_suffix('.safetensors'))] if filename.endswith(('.bin', '.pth')) else []
    return repo_id, [*safe, filename]


def local_files(name: str, tag: str) -> list[tuple[Path, str]]:
    """Where `find` looks on this machine for an architecture's tag, and what is there.

    Returns:
        paths, each with 'ok' (the published checksum fits), 'unchecked' (none is known), 'damaged' or 'missing'
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from open_clip.pretrained import get_pretrained_cfg

    cfg = get_pretrained_cfg(name, tag)
    url, (repo, names) = cfg.get('url', ''), _hub_files(cfg.get('hf_hub', ''))
    wanted = []  # (path, the start of its SHA-256 as far as it is known)
    if 'openaipublic' in url:
        wanted.append((Path(torch.hub.get_dir(), 'clip', os.path.basename(url)), url.split('/')[-2]))
    if repo:
        cached = (try_to_load_from_cache(repo, name) for name in names)
        path = next((Path(c) for c in cached if isinstance(c, str)), None)
        blob = path.resolve().name if path else ''  # the cache names large files by their SHA-256
        path = path or Path(constants.HF_HUB_CACHE, 'models--' + repo.replace('/', '--'))
        wanted.append((path, blob if len(blob) == 64 else ''))
    elif url:
        path = Path('~/.cache/clip', os.path.basename(url)).expanduser()
        wanted.append((path, path.stem.rpartition('-')[2] if 'mlfoundations' in url else ''))

    def state(path: Path, digest: str) -> str:
        if not path.is_file():
            return 'missing'
        return 'unchecked' if not digest else 'ok' if sha256(path).startswith(digest) else 'damaged'

    return [(path, state(path, digest)) for path, digest in wanted]


def sha256(path: str | os.PathLike) -> str:
    """Of a file, as hexadecimal digits."""
    with open(path, 'rb') as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read(path: str | os.PathLike) -> dict[str, Tensor]:
    """State dict of a weights file on the CPU; its format is detected from the content, not the file name.

    Reads OpenAI's TorchScript archives, state dicts written by torch.save (plain, or under the key `state_dict` as
    training checkpoints have them, with or without `module.` before each name) and .safetensors.

    Raises:
        WeightsError: no such file, or one that is truncated, corrupt or something else.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise WeightsError(f'{path}: no such file. `pretrained` takes a file of CLIP weights or an open_clip tag.')
    with open(path, 'rb') as file:
        head = file.read(512)
    kind = 'unknown format'
    try:
        if head.startswith(b'PK\x03\x04'):
            kind = 'zip archive, as torch.save and TorchScript write them'
            with zipfile.ZipFile(path) as archive:
                script = any(name.endswith('/constants.pkl') for name in archive.namelist())
                if damaged := archive.testzip():
                    raise ValueError(f'checksum of {damaged} differs')
            if script:
                kind = 'TorchScript archive'
                if _is_openais(path):
                    with ignoring('`torch.jit.load` is deprecated'):
                        state = torch.jit.load(str(path), map_location='cpu').state_dict()
                else:
                    state = read_archive(path)
            else:
                kind = 'file written by torch.save'
                state = _torch_load(path)
        elif head[8:9] == b'{':
            kind = 'safetensors file'
            from safetensors.torch import load_file

            state = load_file(path)
        elif head.startswith(b'\x80'):
            kind = 'file written by torch.save (old format)'
            state = _torch_load(path)
        elif head.startswith(b'version https://git-lfs'):
            raise ValueError('it is a Git LFS pointer, not the file it stands for; run `git lfs pull`')
        elif head.lstrip()[:1] == b'<':
            raise ValueError('it is a web page, not the file behind it')
        else:
            raise ValueError('its first bytes match no known format')
        return _unwrap(state)
    except Exception as error:
        raise WeightsError(
            f'{path} ({kind}, {path.stat().st_size} bytes) cannot be read: {one_line(error, 200)}. Expected CLIP '
            f"weights: OpenAI's TorchScript archive, a state dict written by torch.save, or .safetensors. "
            f'If it was downloaded or copied, it may be truncated: download it again.'
        ) from None


def _is_openais(path: Path) -> bool:
    """Whether a file is one that OpenAI published, by the checksums in its addresses."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_models_by_tag

    configs = (get_pretrained_cfg(name, 'openai') for name in list_pretrained_models_by_tag('openai'))
    return sha256(path) in {part for config in configs for part in config.get('url', '').split('/')}


def _torch_load(path: Path) -> object:
    with open(path, 'rb') as file:  # a file, not its path: torch.load goes by the suffix too
        return torch.load(file, map_location='cpu', weights_only=True)


def _unwrap(state: object) -> dict[str, Tensor]:
    if isinstance(state, dict) and isinstance(state.get('state_dict'), dict):
        state = state['state_dict']
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError('it holds no state dict (names and tensors)')
    if all(name.startswith('module.') for name in state):
        state = {name.removeprefix('module.'): tensor for name, tensor in state.items()}
    return {k: v for k, v in state.items() if k not in ('input_resolution', 'context_length', 'vocab_size')}
