"""Train the demonstration backbone: a tiny CLIP that scores degraded images below clean ones.

It is not the published metric. With it the whole package runs, with scores that react to images, where CLIP's own
weights cannot be downloaded. The training data are the photos in the wheels of scikit-image, scikit-learn and
matplotlib, and generated images. The photos in pyiqa's wheel and the astronaut are held out, for
benchmarks/demo_report.py and the demo command.

The network sees each crop clean, weakly degraded, strongly degraded, and with two degradations. The losses: cross-
entropy of each prompt pair with a target, how much of that pair's fault the crop has; the order of the four versions in
q_sim and in q_mag; and the value of q_mag. q_mag needs the last two, since it counts half in the score and does not
fall with blur by itself.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maclip_pyiqa.metric import PROMPTS
from maclip_pyiqa.metric.cues import cosine_cue, magnitude_cue
from maclip_pyiqa.scoring.batch import start_worker

DEGRADATIONS = run_path(str(Path(__file__).with_name('_degradations.py')))['DEGRADATIONS']

CONFIG = {
    'embed_dim': 128,
    'vision_cfg': {'image_size': 96, 'layers': [1, 1, 1, 1], 'width': 16, 'head_width': 64},
    'text_cfg': {'context_length': 77, 'vocab_size': 49408, 'width': 32, 'heads': 2, 'layers': 2},
}
SIZE, MARGIN = 96, 32  # of a crop, and of the rim around it that is degraded with it and then cut off, pixels

PARAPHRASES = (  # of the five pairs, in their order
    (('Good photo.', 'Bad photo.'), ('high quality', 'low quality')),
    (('a sharp photo', 'a blurry photo'), ('in focus', 'out of focus')),
    (('crisp edges', 'soft edges'),),
    (('High resolution photo', 'low resolution photo'), ('fine detail', 'coarse detail')),
    (('a clean photo', 'a noisy photo'), ('noise-free', 'noisy')),
)

# how often a kind is drawn, and how much of each attribute's fault it is: good, sharp, edges, resolution, noise-free
KINDS = {
    'blur': (0.19, (1.0, 1.0, 1.0, 0.7, 0.1)),
    'noise': (0.14, (1.0, 0.3, 0.3, 0.3, 1.0)),
    'impulses': (0.06, (1.0, 0.3, 0.3, 0.3, 1.0)),
    'JPEG': (0.17, (1.0, 0.5, 0.5, 0.6, 0.5)),
    'downsampling': (0.11, (1.0, 0.8, 0.8, 1.0, 0.1)),
    'pixelation': (0.10, (1.0, 0.6, 0.6, 1.0, 0.3)),
    'contrast': (0.09, (1.0, 0.6, 0.6, 0.3, 0.2)),
    'sharpening': (0.14, (1.0, 0.5, 0.7, 0.4, 0.8)),
}

# photos, with the largest scale at which they are sharp; scikit-image's astronaut is held out for the demo command
PHOTOS = {
    'skimage': {
        **dict.fromkeys(('brick', 'camera', 'coins', 'grass', 'gravel', 'ihc'), 1.0),
        **dict.fromkeys(('motorcycle_left', 'motorcycle_right', 'page', 'rocket', 'text', 'color'), 1.0),
        **{'chelsea': 0.7, 'hubble_deep_field': 0.5, 'retina': 0.35},
    },
    'sklearn': {'china': 1.0},
    'matplotlib': {'grace_hopper': 0.7},
}
FOLDERS = {'skimage': 'data', 'sklearn': 'datasets/images', 'matplotlib': 'mpl-data/sample_data'}
PIP = {'skimage': 'scikit-image', 'sklearn': 'scikit-learn', 'matplotlib': 'matplotlib'}


@cache
def read_photos() -> list[Image.Image]:
    """The training photos, each at up to four scales."""
    photos = []
    for package, wanted in PHOTOS.items():
        spec = find_spec(package)
        if spec is None:
            raise SystemExit(f'the training photos of {package} are missing: pip install {" ".join(PIP.values())}')
        folder = Path(spec.origin).parent / FOLDERS[package]
        for name, largest in wanted.items():
            file = next((f for f in folder.glob(f'{name}.*') if f.suffix in ('.png', '.jpg')), None)
            if file is None:
                raise SystemExit(f'the installed {package} has no photo {name!r} in its folder {FOLDERS[package]}')
            with Image.open(file) as image:
                photo = image.convert('RGB')
            for scale in (1.0, 0.7, 0.5, 0.35):
                size = tuple(round(side * scale) for side in photo.size)
                if scale <= largest and min(size) >= SIZE + 2 * MARGIN:
                    photos.append(photo.resize(size, Image.Resampling.LANCZOS))
    return photos


def dead_leaves(rng: np.random.Generator, size: int = 256) -> Image.Image:
    """Overlapping discs of all sizes: edges at all scales, as in natural images."""
    image = Image.new('RGB', (2 * size, 2 * size))
    draw = ImageDraw.Draw(image)
    colours = rng.integers(0, 256, (int(rng.integers(3, 30)), 3))
    for _ in range(1500):
        radius = 4 / (1 - rng.random() * 0.97)
        x, y = rng.uniform(0, 2 * size, 2)
        colour = np.clip(colours[rng.integers(len(colours))] + rng.normal(0, 15, 3), 0, 255).astype(int)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(colour.tolist()))
    return image.resize((size, size), Image.Resampling.LANCZOS)


def power_law(rng: np.random.Generator, size: int = 256) -> Image.Image:
    """Noise with a spectrum of 1/f, the average of photos."""
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    f[0, 0] = 1
    spectrum = np.fft.fft2(rng.standard_normal((3, size, size))) / f ** rng.uniform(0.9, 1.4)
    pixels = np.fft.ifft2(spectrum).real
    pixels = (pixels - pixels.mean()) / pixels.std()
    mixed = np.einsum('ij,jhw->hwi', np.eye(3) + rng.uniform(0, 1, (3, 3)), pixels)
    return Image.fromarray((128 + 45 * mixed / mixed.std()).clip(0, 255).astype(np.uint8))


def text(rng: np.random.Generator, size: int = 256) -> Image.Image:
    """Lines of random characters on a plain background."""
    ground, ink = (tuple(int(v) for v in c) for c in rng.integers(0, 256, (2, 3)))
    image = Image.new('RGB', (size, size), ground)
    draw, y = ImageDraw.Draw(image), 0
    while y < size:
        height = int(rng.integers(9, 40))
        line = ''.join(chr(c) for c in rng.integers(33, 127, 60))
        draw.text((-int(rng.integers(0, 20)), y), line, ink, ImageFont.load_default(height))
        y += round(height * 1.2)
    return image


@cache
def generate(seed: int) -> list[Image.Image]:
    """The generated training images, each 256x256."""
    rng = np.random.default_rng(seed)
    return [make(rng) for make in (dead_leaves, dead_leaves, power_law, text) for _ in range(20)]


class Crops(Dataset):
    """One item a training step: crops (crops x 4, 3, 96, 96) in [0, 1] and their faults (crops x 4, 5) in [0, 1].

    Clean, weak, strong and mixed versions of each crop follow each other. An item depends on the seed and its index
    only, not on which process makes it.
    """

    def __init__(self, seed: int, steps: int, crops: int) -> None:
        self.seed, self.steps, self.crops = seed, steps, crops
        self.photos, self.generated = read_photos(), generate(seed)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, step))
        views, faults = [], []
        for _ in range(self.crops):
            left, top = rng.integers(MARGIN - 8, MARGIN + 9, 2).tolist()  # JPEG's blocks and others begin anywhere
            for image, fault in self.versions(self.crop(rng), rng):
                views.append(np.asarray(image.crop((left, top, left + SIZE, top + SIZE))))
                faults.append(fault)
        images = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 255
        return images, torch.from_numpy(np.stack(faults)).float()

    def crop(self, rng: np.random.Generator) -> Image.Image:
        side = SIZE + 2 * MARGIN
        for _ in range(5):  # flat crops show no degradation
            pool = self.photos if rng.random() < 0.65 else self.generated
            image = pool[rng.integers(len(pool))]
            left, top = (int(rng.integers(length - side + 1)) for length in image.size)
            crop = image.crop((left, top, left + side, top + side))
            pixels = np.asarray(crop, np.float32)
            if pixels.mean(2).std() > 12:
                break
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        if rng.random() < 0.5:
            pixels = np.rot90(pixels, int(rng.integers(4)))
        if rng.random() < 0.2:
            pixels = np.repeat(pixels.mean(2, keepdims=True), 3, axis=2)
        pixels = pixels * rng.uniform(0.85, 1.1) + rng.uniform(-12, 12)
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    def versions(self, crop: Image.Image, rng: np.random.Generator):
        names, shares = list(KINDS), [share for share, _ in KINDS.values()]
        kind, other = rng.choice(names, 2, p=shares)
        weak = rng.uniform(0, 0.7)
        strong = min(1.0, rng.uniform(weak + 0.15, 1.1))  # the end of the range is often drawn
        seed = int(rng.integers(2**32))

        def done(image: Image.Image, kind: str, strength: float, seed: int):
            degraded = DEGRADATIONS[kind](image, strength, np.random.default_rng(seed))
            return degraded, (0.2 + 0.75 * strength) * np.array(KINDS[kind][1])

        first, fault = done(crop, kind, weak, seed)
        mixed, more = done(first, other, rng.uniform(0.1, 0.8), seed + 1)
        yield crop, np.zeros(5)
        yield first, fault
        yield done(crop, kind, strong, seed)
        yield mixed, 1 - (1 - fault) * (1 - more)


def train(seed: int, steps: int, crops: int, lr: float, workers: int) -> torch.nn.Module:
    """A CLIP in eval mode, on the CPU."""
    import open_clip
    from tqdm import tqdm

    torch.manual_seed(seed)
    model_config = {k: dict(v) if isinstance(v, dict) else v for k, v in CONFIG.items()}
    clip = open_clip.model.CLIP(**model_config).train()
    tokenizer = open_clip.SimpleTokenizer(context_length=77)
    groups = [(pair, *more) for pair, more in zip(PROMPTS, PARAPHRASES, strict=True)]
    pairs = [pair for group in groups for pair in group]
    column = torch.tensor([i for i, group in enumerate(groups) for _ in group])  # the attribute of each pair
    main = torch.tensor([pairs.index(pair) for pair in PROMPTS])
    tokens = tokenizer([prompt for pair in pairs for prompt in pair])

    with torch.no_grad():
        clip.logit_scale.fill_(math.log(20))
        clip.visual.attnpool.positional_embedding.zero_()  # the metric leaves it out
        unused = torch.ones(len(clip.token_embedding.weight), dtype=torch.bool)
        unused[tokens.unique()] = False
        clip.token_embedding.weight[unused] = 0  # these get no gradient from the prompts, and zeros compress well
        clip.token_embedding.weight.mul_(5)
        for name, parameter in clip.visual.named_parameters():
            if name.endswith('bn3.weight'):
                parameter.fill_(0.5)
    clip.visual.attnpool.positional_embedding.requires_grad_(False)
    clip.visual.to(memory_format=torch.channels_last)

    trained = [p for p in clip.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {'params': [p for p in trained if p.ndim > 1 and p is not clip.token_embedding.weight]},
            {'params': [p for p in trained if p.ndim < 2] + [clip.token_embedding.weight], 'weight_decay': 0.0},
        ],
        lr=lr,
        weight_decay=0.05,
    )
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * min(1, i / steps)))
    )
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    files = Crops(seed, steps, crops)
    loader = DataLoader(files, batch_size=None, num_workers=workers, worker_init_fn=start_worker)
    bar = tqdm(loader, total=steps, file=sys.stderr, mininterval=2)
    running = None
    for images, faults in bar:
        f = clip.visual(((images - mean) / std).contiguous(memory_format=torch.channels_last))
        t = clip.encode_text(tokens, normalize=True).unflatten(0, (-1, 2))
        terms = losses(f, t, clip.logit_scale.exp(), faults, column, main)
        loss = sum(terms.values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(0, math.log(100))
        values = torch.stack([*terms.values()]).detach()
        running = values if running is None else 0.95 * running + 0.05 * values
        bar.set_postfix_str(' '.join(f'{k} {v:.3f}' for k, v in zip(terms, running.tolist(), strict=True)))
    return clip.eval()


def losses(f: Tensor, t: Tensor, scale: Tensor, faults: Tensor, column: Tensor, main: Tensor) -> dict[str, Tensor]:
    """Terms of the loss by name.

    Args:
        f: image features of clean, weak, strong and mixed versions in turns, (B, D)
        t: L2-normalised prompt features, (P, 2, D)
        scale: CLIP's logit scale
        faults: fault of each image in each attribute, (B, 5)
        column: the attribute of each prompt pair, (P,)
        main: the metric's own five among the prompt pairs, (5,)
    """
    target = 0.95 - 0.9 * faults  # (B, 5)
    e = F.normalize(f, dim=-1)
    logits = scale * (e @ (t[:, 0] - t[:, 1]).mT)  # (B, P)
    q_sim, q_mag = cosine_cue(f, t[main], scale).mean(-1), magnitude_cue(f)
    level = 0.3 + 0.6 * target[:, 0]  # within the range that q_mag can reach

    def order(q: Tensor) -> Tensor:
        clean, weak, strong, mixed = q.unflatten(0, (-1, 4)).unbind(1)
        return sum(F.softplus(0.5 - 20 * gap).mean() for gap in (clean - weak, weak - strong, weak - mixed))

    return {
        'prompts': F.binary_cross_entropy_with_logits(logits, target[:, column]),
        'q_sim': 0.3 * order(q_sim),
        'q_mag': 0.3 * order(q_mag),
        'level': 5 * (q_mag - level).square().mean(),
    }


def save(clip: torch.nn.Module, folder: Path) -> None:
    """Write an open_clip folder in half precision."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {'mean': OPENAI_DATASET_MEAN, 'std': OPENAI_DATASET_STD}
    config = {'model_cfg': CONFIG, 'preprocess_cfg': preprocess}
    (folder / 'open_clip_config.json').write_text(json.dumps(config, indent=2) + '\n')
    state = {k: v.half() if v.is_floating_point() else v for k, v in clip.state_dict().items()}
    file = folder / 'open_clip_model.safetensors'
    save_file({k: v.contiguous() for k, v in state.items()}, file)
    file.chmod(0o644)  # safetensors makes it readable for its owner only


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='where to write the open_clip folder')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--steps', type=int, default=1000, help='default: %(default)s')
    parser.add_argument('--crops', type=int, default=32, help='per step, each in four versions (default: %(default)s)')
    parser.add_argument('--lr', type=float, default=2e-3, help='of AdamW (default: %(default)s)')
    parser.add_argument('--workers', type=int, default=1, help='processes that make crops (default: %(default)s)')
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)  # fails before the training rather than after it
    save(train(args.seed, args.steps, args.crops, args.lr, args.workers), args.folder)
    print(f"{args.folder}: written; backbone='local-dir:{args.folder}'")
    return 0


if __name__ == '__main__':
    sys.exit(main())
