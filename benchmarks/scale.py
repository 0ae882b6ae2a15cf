"""What a collection costs: measured on this machine, then a plan for 10^6 to 10^9 images.

  images    seconds of an image on one core, reading and flags and score, for each size and set of options: of this
            process's own time, which other work on the machine disturbs little. For windows, what an image costs apart
            from them (as views='global') and what a window costs are measured, and multiplied by their number
  ray       a collection with 1 and 2 workers, and one in a shard and in many: start-up, seconds of a shard, images/s
  driver    memory and time of the process that hands out the work, with 1, 1,000 and 100,000 shards, simulated: they
            are entered as finished, none is scored
  memory    of all processes of a run with two workers and 12-megapixel images, at its peak; what they share is counted
            once (Linux only)
  output    bytes of a row, seconds of a file

Weights are random stand-ins unless --pretrained names some: times do not depend on them. A GPU is measured where there
is one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = {0.2: (450, 450), 1: (1024, 1024), 12: (3000, 4000)}  # megapixels -> height, width
OPTIONS = {
    "views='windows'": {},
    'max_views=9': {'max_views': 9},
    "views='global'": {'views': 'global'},
}
COUNTS = (10**6, 10**7, 10**8, 10**9)
SHARD_ROWS = 2000


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--backbone', default='RN50', help='default: %(default)s')
    parser.add_argument('--pretrained', help='open_clip tag or file (default: random stand-in weights)')
    parser.add_argument(
        '--images', type=int, default=400, help='of the collection that Ray scores (default: %(default)s)'
    )
    parser.add_argument(
        '--large', type=int, default=54, help='of 12 megapixels, for the memory of a run (default: %(default)s)'
    )
    parser.add_argument('--shards', default='1,1000,100000', help='simulated, for the driver (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=3, help='of each time; the median counts (default: %(default)s)')
    parser.add_argument('--skip-ray', action='store_true', help='measure without Ray')
    parser.add_argument('-o', '--output', type=Path, help='write what was measured to FILE.json')
    parser.add_argument(
        '--plan', type=Path, metavar='FILE.json', help='only print the plan from an earlier measurement'
    )
    parser.add_argument('--driver', type=int, help=argparse.SUPPRESS)  # one simulation, in a process of its own
    args = parser.parse_args(argv)
    if args.driver is not None:
        print(json.dumps(driver(args.driver)))
        return 0
    if args.plan:
        measured = json.loads(args.plan.read_text('utf-8'))
    else:
        measured = measure(args)
        if args.output:
            args.output.write_text(json.dumps(measured, indent=1) + '\n', 'utf-8')
    print(report(measured))
    return 0


def measure(args: argparse.Namespace) -> dict:
    """All figures that the plan is computed from."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        source = {'backbone': args.backbone}
        if args.pretrained:
            source['pretrained'] = args.pretrained
        elif args.backbone != 'demo':
            from maclip_pyiqa.testing import make_clip, save_torchscript, state_dict, synthetic_images

            source['pretrained'] = str(Path(folder) / 'stand-in.pt')
            save_torchscript(state_dict(make_clip(args.backbone, synthetic_images(1))), Path(source['pretrained']))
        devices = ['cpu', *['cuda'] * torch.cuda.is_available()]
        return {
            'backbone': args.backbone + ('' if args.pretrained or args.backbone == 'demo' else ', stand-in weights'),
            'machine': f'{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}',
            'load': os.getloadavg()[0],
            'images': {device: images(source, device, args.repeats) for device in devices},
            'ray': None if args.skip_ray else collections(args.images, Path(folder)),
            'memory': None if args.skip_ray else memory(args.large, Path(folder)),
            'driver': [simulate(int(count)) for count in args.shards.split(',')],
            **output_file(),
        }


def images(source: dict, device: str, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of an image: size in megapixels -> options -> seconds; 'window' -> seconds of a window."""
    import torch

    from maclip_pyiqa import MACLIP
    from maclip_pyiqa.scoring.batch import read_file
    from maclip_pyiqa.scoring.score import score_read

    clock = time.process_time if device == 'cpu' else time.perf_counter

    def seconds(metric: MACLIP, data: bytes) -> float:
        def once() -> float:
            begin = clock()
            batch = (read_file('x.jpg', data, metric.backbone.window) for _ in range(count))
            assert all(row['score'] is not None for row in score_read(metric, batch))
            if device == 'cuda':
                torch.cuda.synchronize()
            return (clock() - begin) / count

        count = 1 if device == 'cpu' else 16
        once()
        return sorted(once() for _ in range(repeats))[repeats // 2]

    metrics = {name: MACLIP(**source, **options).to(device) for name, options in OPTIONS.items()}
    data = {size: jpeg(*shape) for size, shape in SIZES.items()}
    alone = {size: seconds(metrics["views='global'"], data[size]) for size in SIZES}
    plain = metrics["views='windows'"]

    def windows(metric: MACLIP, size: float) -> int:
        return metric.plan(*SIZES[size]).views - 1  # the last view is the whole image

    window = (seconds(plain, data[1]) - alone[1]) / windows(plain, 1)
    found: dict[str, dict[str, float]] = {'window': {'seconds': window}}
    for size in SIZES:
        found[str(size)] = {}
        for name, metric in metrics.items():
            count = 0 if 'global' in name else windows(metric, size)
            found[str(size)][name] = alone[size] + count * window
    return found


def jpeg(height: int, width: int) -> bytes:
    """Smooth noise, with about the bytes a pixel that photos have."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(buffer, 'jpeg', quality=90)
    return buffer.getvalue()


def collections(count: int, folder: Path) -> list[dict]:
    """Runs on Ray with the demonstration backbone. The last two differ in their shards only."""
    import ray

    from maclip_pyiqa import MACLIP
    from maclip_pyiqa.collections import score_collection

    for name, number, shape in (('photos', count, (240, 320)), ('small', 4 * count, (64, 64))):
        (folder / name).mkdir()
        data = jpeg(*shape)
        for index in range(number):
            (folder / name / f'{index:06d}.jpg').write_bytes(data)
    metric, runs = MACLIP(backbone='demo'), []
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    os.environ.setdefault('RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO', '0')
    for name, workers, rows in (('photos', 1, count), ('photos', 2, count), ('small', 1, 4 * count), ('small', 1, 16)):
        begin = time.perf_counter()
        ray.init(
            address='local', num_cpus=2, object_store_memory=80_000_000, include_dashboard=False, log_to_driver=False,
            logging_level='error',
        )  # fmt: skip
        started = time.perf_counter() - begin
        output = folder / f'{name}-{workers}-{rows}'
        found = score_collection([folder / name], output, metric, workers=workers, shard_rows=rows)
        total = time.perf_counter() - begin
        ray.shutdown()
        busy = sum(entry['seconds'] for entry in found['shards'].values()) / workers
        run = {'workers': workers, 'shards': len(found['shards']), 'images': found['rows']}
        runs.append(run | {'ray_s': started, 'total_s': total, 'busy_s': busy})
    return runs


def memory(count: int, folder: Path) -> dict:
    """MiB at the peak of a run with two workers: of all processes, of the driver, and of the larger worker."""
    import psutil

    (folder / 'large').mkdir()
    data = jpeg(*SIZES[12])
    for index in range(count):
        (folder / 'large' / f'{index:06d}.jpg').write_bytes(data)
    options = ['--workers', '2', '--backbone', 'demo', '--max-views', '9', '-o', f'{folder}/scores/']
    run = subprocess.Popen([sys.executable, '-m', 'maclip_pyiqa', 'score-collection', str(folder / 'large'), *options])
    driver, peak = psutil.Process(run.pid), {'all_mib': 0.0}
    while run.poll() is None:
        of = {}  # process -> name, MiB
        with contextlib.suppress(psutil.Error):
            for process in [driver, *driver.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):  # it has ended
                    of[process.pid] = ' '.join(process.cmdline()), process.memory_full_info().pss / 2**20
        if run.pid in of and (total := sum(mib for _, mib in of.values())) > peak['all_mib']:
            worker = max((mib for name, mib in of.values() if name.startswith('ray::score_shard')), default=0.0)
            peak = {'all_mib': total, 'driver_mib': of[run.pid][1], 'worker_mib': worker}
        time.sleep(0.3)  # looking costs time itself
    if run.returncode:
        raise RuntimeError(f'the run ended with {run.returncode}')
    return peak | {'images': count}


def simulate(shards: int) -> dict:
    """`driver` in a fresh process."""
    command = [sys.executable, __file__, '--driver', str(shards)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def driver(shards: int) -> dict:
    """A rerun's driver with so many shards: memory and seconds of planning, and of writing the manifest."""
    from maclip_pyiqa import MACLIP
    from maclip_pyiqa.collections.folder import Collection, Plan
    from maclip_pyiqa.collections.inputs import Inputs, shard_name
    from maclip_pyiqa.scoring import columns, label
    from maclip_pyiqa.scoring.schema import arrow_schema

    def resident() -> float:
        status = Path('/proc/self/status')  # not getrusage, which counts the parent's memory too
        if not status.exists():
            return math.nan
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if 'VmHWM' in line) / 1024

    metric = MACLIP(backbone='demo')
    before, begin = resident(), time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        folder = Collection(out, label(metric), {})
        tars = {f's3://bucket/collection/{number:08d}.tar': 10**9 for number in range(shards)}
        for path in list(tars)[::2]:
            entry = {
                'kind': 'tar',
                'source': path,
                'size': 10**9,
                'share': 10**9,
                'seconds': 1.0,
                'lost': '',
                'matched': [],
            }
            folder._enter(shard_name(path), entry | {'rows': SHARD_ROWS, 'failed': 0})
        first = min(folder.shards)  # the one file that a rerun opens, for its schema
        folder.finish(first, arrow_schema(columns(metric.attribute_names)).empty_table(), folder.shards[first])
        plan = Plan(folder, Inputs([], {}, tars), metric.attribute_names, None, ())
        left = sum(1 for _ in plan.shards(SHARD_ROWS, SHARD_ROWS))
        planned, begin = time.perf_counter() - begin, time.perf_counter()
        folder.save_manifest()
        folder.close()
    assert left == shards // 2
    saved = time.perf_counter() - begin
    return {'shards': shards, 'memory_mib': resident() - before, 'plan_s': planned, 'manifest_s': saved}


def output_file() -> dict[str, float]:
    """Of a file of SHARD_ROWS rows: bytes of a row, and seconds of building and writing it."""
    import numpy as np

    from maclip_pyiqa import MACLIP
    from maclip_pyiqa.collections.folder import Collection
    from maclip_pyiqa.scoring import columns, label
    from maclip_pyiqa.scoring.formats.parquet import to_table
    from maclip_pyiqa.scoring.schema import arrow_schema

    metric = MACLIP(backbone='demo')
    schema = arrow_schema(columns(metric.attribute_names))
    numbers = np.random.default_rng(0).random((SHARD_ROWS, len(metric.summary_columns)))
    rows = [
        dict(zip(metric.summary_columns, map(float, values), strict=True))
        | {'path': f'tar://{number:09d}.jpg::s3://bucket/collection/00000000.tar', 'error': '', 'flags': ''}
        | {'width': 1024, 'height': 768 + number % 256}
        for number, values in enumerate(numbers)
    ]
    with tempfile.TemporaryDirectory() as out:
        folder = Collection(out, label(metric), {})
        begin = time.perf_counter()
        folder.finish('a', to_table(rows, schema), {'kind': 'tar', 'source': 'a', 'seconds': 0.0, 'lost': ''})
        seconds = time.perf_counter() - begin
        folder.close()
        return {'row_bytes': os.path.getsize(Path(out) / 'a.parquet') / SHARD_ROWS, 'file_s': seconds}


# --- the plan ---------------------------------------------------------------------------------------------------------


def report(measured: dict) -> str:
    """What was measured, and the plan, as Markdown."""
    lines = [f'{measured["machine"]}; load {measured["load"]:.1f} at the start; {measured["backbone"]}', '']
    if measured['ray']:
        lines += [
            '| workers | shards | images | Ray starts, s | all in all, s | workers score, s | images/s meanwhile |',
            '|' + ' ---: |' * 7,
        ]
        for run in measured['ray']:
            numbers = (run['ray_s'], run['total_s'], run['busy_s'], run['images'] / run['busy_s'])
            lines.append(
                f'| {run["workers"]} | {run["shards"]} | {run["images"]} | '
                + ' | '.join(f'{number:.1f}' for number in numbers)
                + ' |'
            )
        lines += ['']
    if measured['memory']:
        peak = measured['memory']
        lines += [
            f'{peak["images"]} images of 12 megapixels, two workers: {peak["all_mib"]:.0f} MiB at the peak, of which '
            f'the driver {peak["driver_mib"]:.0f} and the larger worker {peak["worker_mib"]:.0f}',
            '',
        ]
    size = measured['row_bytes'] * SHARD_ROWS / 1e6
    lines += [f'a file of {SHARD_ROWS:,} rows: {size:.2f} MB, {measured["file_s"]:.2f} s to build and write', '']
    lines += ['| shards | driver: memory, MiB | plan, s | manifest, s |', '|' + ' ---: |' * 4]
    for run in measured['driver']:
        lines.append(f'| {run["shards"]:,} | {run["memory_mib"]:.0f} | {run["plan_s"]:.2f} | {run["manifest_s"]:.2f} |')
    return '\n'.join([*lines, '', *plan(measured)])


def plan(measured: dict) -> list[str]:
    """A row for each number of images, size and set of options."""
    extra = measured['file_s'] / SHARD_ROWS
    gpu = measured['images'].get('cuda')
    lines = [
        '| images | megapixels | options | images/s a core | core-hours | GPU-hours | output, GB | files |',
        '| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |',
    ]
    for count in COUNTS:
        for size in SIZES:
            for name in OPTIONS:
                seconds = measured['images']['cpu'][str(size)][name] + extra
                hours = f'{_number(count * gpu[str(size)][name] / 3600)}' if gpu else 'not measured'
                lines.append(
                    f'| 10^{round(math.log10(count))} | {size:g} | {name} | {_number(1 / seconds)} | '
                    f'{_number(count * seconds / 3600)} | {hours} | {_number(count * measured["row_bytes"] / 1e9)} | '
                    f'{math.ceil(count / SHARD_ROWS):,} |'
                )
    return lines


def _number(value: float) -> str:
    """Two digits: more would be noise."""
    if not value:
        return '0'
    digits = 1 - math.floor(math.log10(abs(value)))
    return f'{round(value, digits):,.{max(0, digits)}f}'


if __name__ == '__main__':
    sys.exit(main())
