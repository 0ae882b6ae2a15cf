"""False alarms and misses of the flags: on photos, and on images made of noise, of one colour, or half broken.

Photos are those in the packages of scikit-image, scikit-learn and pyiqa, or the ones given. Broken images are made from
the first 20 of them that are at least 224 pixels on the shorter side and have no flag.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

WINDOW = 224


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('photos', nargs='*', help='files and folders (default: those in the packages)')
    args = parser.parse_args(argv)

    from maclip_pyiqa.scoring import find_images
    from maclip_pyiqa.scoring.flags import FLAGS, find_flags
    from maclip_pyiqa.scoring.read import read_pixels

    flagged: dict[str, list[str]] = {flag: [] for flag in FLAGS}
    photos, read = [], 0
    try:
        paths = find_images(args.photos or packaged())
    except FileNotFoundError as error:
        parser.error(str(error))
    for path in paths:
        try:
            pixels = read_pixels(path)
        except (OSError, ValueError) as error:
            print(f'{path}: {error}', file=sys.stderr)
            continue
        read += 1
        found = find_flags(pixels, WINDOW).split()
        for flag in found:
            flagged[flag].append(Path(path).name)
        if not found and len(photos) < 20:
            photos.append(pixels if pixels.dtype == np.uint8 else (pixels * 255).round().astype(np.uint8))
    print(f'{read} photos\n\n| flag | images | which |\n| --- | ---: | --- |')
    for flag, names in flagged.items():
        print(f'| `{flag}` | {len(names)} | {", ".join(names) or "none"} |')

    print('\n| images | flag | found |\n| --- | --- | ---: |')
    for kind, flag, images in made(photos):
        found = [flag in find_flags(image, WINDOW).split() for image in images]
        print(f'| {kind} | `{flag}` | {sum(found)} of {len(found)} |')
    return 0


def packaged() -> list[str]:
    """Folders of photos in installed packages."""
    folders = []
    for package, *inside in (('skimage', 'data'), ('sklearn', 'datasets/images'), ('pyiqa', '..')):
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue
        root = Path(spec.origin).parent / inside[0]
        # pyiqa's lie beside it, in folders of other names
        parts = ('ResultsCalibra', 'tests/test_efficiency_img_dir') if package == 'pyiqa' else ('',)
        folders += [str((root / part).resolve()) for part in parts if (root / part).is_dir()]
    return folders


def made(photos: list[np.ndarray]) -> Iterator[tuple[str, str, list[np.ndarray]]]:
    """Kinds of images, the flag that each should have, and the images."""
    generator = np.random.default_rng(0)
    size = (384, 512)

    def noise(
        sigma: float, channels: int = 3, base: float | np.ndarray = 128, shape=size, coarse: int = 1
    ) -> np.ndarray:
        values = generator.normal(size=(-(-shape[0] // coarse), -(-shape[1] // coarse), channels))
        values = values.repeat(coarse, 0).repeat(coarse, 1)[: shape[0], : shape[1]]
        return (base + sigma * np.broadcast_to(values, (*shape, 3))).round().clip(0, 255).astype(np.uint8)

    for sigma in (5, 10, 20, 40, 80):
        images = [noise(sigma, channels, base) for channels in (1, 3) for base in (64, 128, 192)]
        yield f'noise of standard deviation {sigma}', 'noise', images
        yield 'the same, JPEG quality 75 and 50', 'noise', [jpeg(image, q) for image in images for q in (75, 50)]
    yield 'noise in squares of 4x4 pixels', 'noise', [noise(40, channels, coarse=4) for channels in (1, 3)]
    for sigma in (20, 40, 80):
        yield f'photos with noise of {sigma} added', 'noise', [noise(sigma, 3, p, p.shape[:2]) for p in photos]
    for sigma in (0, 1, 2, 4):
        levels = (0, 30, 128, 225, 255)
        yield f'one colour, noise of {sigma}', 'flat', [noise(sigma, 3, level) for level in levels]
    for share in (0.03, 0.05, 0.1, 0.25, 0.5):
        cut = [below(photo, share, 128) for photo in photos]
        yield f'the lowest {share:.0%} of a photo grey, as of a file that was cut off', 'border', cut
    bars = [below(below(photo, 0.1, colour)[::-1], 0.1, colour) for photo in photos for colour in (0, 255)]
    yield 'photos between bars of 10 %, JPEG quality 75', 'border', [jpeg(image, 75) for image in bars]
    yield 'photos whose lower half is noise', 'noise', [lower_half(p, noise(60, 3, 128, p.shape[:2])) for p in photos]
    yield 'photos whose lower half is black', 'clipped', [below(photo, 0.5, 0) for photo in photos]
    yield 'photos made 2.5 times brighter', 'clipped', [(p * 2.5).clip(0, 255).astype(np.uint8) for p in photos]


def below(photo: np.ndarray, share: float, colour: int) -> np.ndarray:
    image = photo.copy()
    image[-round(len(photo) * share) :] = colour
    return image


def lower_half(photo: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.concatenate([photo[: len(photo) // 2], other[len(photo) // 2 :]])


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, 'JPEG', quality=quality)
    return np.array(Image.open(file))


if __name__ == '__main__':
    sys.exit(main())
