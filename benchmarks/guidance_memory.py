"""Peak memory of guidance in a diffusers pipeline of the size of Stable Diffusion 1.5, on the CPU, in float32.

The pipeline has random weights: memory does not depend on them. It makes one image with classifier-free guidance in
three steps, the last of which is guided, each way in a process of its own. Reads /proc, so it needs Linux.

  unguided                 what the pipeline needs by itself
  x0                       gradient through the VAE's decoder
  denoiser                 gradient through the denoiser too
  ..., checkpointed        with vae.enable_gradient_checkpointing() and, for the denoiser, the same of the UNet
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

WAYS = ('unguided', 'x0', 'x0, checkpointed', 'denoiser', 'denoiser, checkpointed')


def pipeline(small: bool):
    """Stable Diffusion 1.5 with random weights; small: as few as possible, for a smoke test."""
    import diffusers

    widths = (8, 8, 8, 8) if small else (320, 640, 1280, 1280)
    groups = 2 if small else 32
    unet = diffusers.UNet2DConditionModel(
        sample_size=64, block_out_channels=widths, cross_attention_dim=768, attention_head_dim=8, norm_num_groups=groups
    )
    vae = diffusers.AutoencoderKL(
        sample_size=512,
        block_out_channels=widths if small else (128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=('DownEncoderBlock2D',) * 4,
        up_block_types=('UpDecoderBlock2D',) * 4,
        norm_num_groups=groups,
    )
    none = dict.fromkeys(('text_encoder', 'tokenizer', 'safety_checker', 'feature_extractor'))
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae.eval(),
        unet=unet.eval(),
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        requires_safety_checker=False,
        **none,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def memory(name: str) -> float:
    """A line of /proc/self/status, GiB."""
    return int(re.search(rf'{name}:\s+(\d+)', Path('/proc/self/status').read_text())[1]) / 2**20


def measure(way: str, size: int, backbone: str, pretrained: str, small: bool) -> None:
    """One call of the pipeline; prints peak memory beyond what was held before it, GiB, and seconds."""
    import torch

    from maclip_pyiqa import MACLIP
    from maclip_pyiqa.integrations.diffusers import MACLIPGuidance

    torch.manual_seed(0)
    pipe = pipeline(small)
    metric = MACLIP(backbone=backbone, pretrained=pretrained)
    through, _, checkpointed = way.partition(', ')
    if checkpointed:
        pipe.vae.enable_gradient_checkpointing()
        if through == 'denoiser':
            pipe.unet.enable_gradient_checkpointing()
    guidance = None if way == 'unguided' else MACLIPGuidance(metric, through=through)
    embeds = torch.randn(1, 77, 768)
    options = {'prompt_embeds': embeds, 'negative_prompt_embeds': -embeds, 'output_type': 'pt'}
    held, start = memory('VmRSS'), time.perf_counter()
    Path('/proc/self/clear_refs').write_text('5')  # the peak counts from here
    pipe(height=size, width=size, num_inference_steps=3, callback_on_step_end=guidance, **options)
    print(memory('VmHWM') - held, time.perf_counter() - start)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--size', type=int, default=512, help='side of the image in pixels, a multiple of 64 (default: %(default)s)'
    )
    parser.add_argument('--backbone', default='demo', help='backbone of the metric (default: %(default)s)')
    parser.add_argument('--pretrained', default='openai', help='its weights (default: %(default)s)')
    parser.add_argument('--small', action='store_true', help='a tiny pipeline, for a smoke test')
    parser.add_argument('--only', choices=WAYS, help=argparse.SUPPRESS)  # what the processes are started with
    args = parser.parse_args(argv)
    if args.size < 64 or args.size % 64:
        parser.error(f'--size {args.size}; expected a multiple of 64')
    if not find_spec('diffusers'):
        parser.error("diffusers is not installed: pip install 'maclip_pyiqa[diffusers]'")
    if args.only:
        measure(args.only, args.size, args.backbone, args.pretrained, args.small)
        return 0
    command = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv), '--only']
    print(f'{args.size}x{args.size}\n\n| guidance | peak memory, GiB | time, s |\n| --- | --- | --- |')
    for way in WAYS:
        done = subprocess.run([*command, way], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            return done.returncode
        gib, seconds = map(float, done.stdout.split())
        print(f'| {way} | {gib:.1f} | {seconds:.0f} |', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
