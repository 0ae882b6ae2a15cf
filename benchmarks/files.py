"""Where the time of scoring files goes: who reads them, and how torch's threads wait on a busy machine.

  reading    in this process; by workers from the first file on; and as `score_files` does it: in this process, until
             workers pay
  threads    torch's OpenMP threads spin while they wait (libgomp's default), or sleep (OMP_WAIT_POLICY=PASSIVE, which
             the command line sets); and one thread. Each alone, and beside processes that keep a core busy

Each case is a process of its own, which loads the metric, scores a few files, and then is timed. Cases take turns. CPU
time is that of all its processes and threads, and is steadier than the time on the clock where other work runs too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHILD = """if True:
    import json, resource, sys, time
    from pathlib import Path
    from maclip_pyiqa import MACLIP, score_files
    from maclip_pyiqa.scoring import batch

    folder, backbone, views, workers, at_once = json.loads(sys.argv[1])
    if at_once:
        batch.TRIAL = batch.PAYS = 0
    files = sorted(map(str, Path(folder).iterdir()))
    metric = MACLIP(backbone=backbone, max_views=views)

    def cpu():
        usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    list(score_files(metric, files[:4]))
    start, used = time.perf_counter(), cpu()
    for row in score_files(metric, files, workers=workers):
        assert not row['error'], row['error']
    print(json.dumps([time.perf_counter() - start, cpu() - used]))
"""
BUSY = 'while True: pass'
WAITING = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME', 'OMP_NUM_THREADS')


def make_photos(folder: Path, count: int, width: int) -> None:
    """Write JPEG files, the package's photo at widths around this one."""
    from PIL import Image

    from maclip_pyiqa.demo import PHOTO

    with Image.open(PHOTO) as photo:
        for i in range(count):
            wide = round(width * (0.75 + 0.5 * i / count))
            photo.resize((wide, wide * 3 // 4)).save(folder / f'{i:05}.jpg', quality=90)


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Beside as many processes that keep a core busy."""
    running = [subprocess.Popen([sys.executable, '-c', BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def run_case(folder: Path, backbone: str, views: int | None, workers: int, at_once: bool, setting: dict[str, str]):
    """Seconds on the clock and of CPU time."""
    environment = {name: value for name, value in os.environ.items() if name not in WAITING} | setting
    arguments = json.dumps([str(folder), backbone, views, workers, at_once])
    command = [sys.executable, '-c', CHILD, arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', choices=('reading', 'threads'), help='default: both')
    parser.add_argument('--images', type=int, default=300, help='default: %(default)s')
    parser.add_argument('--width', type=int, default=480, help='of the images, in the mean (default: %(default)s)')
    parser.add_argument('--workers', type=int, default=2, help='default: %(default)s')
    parser.add_argument('--busy', type=int, default=1, help='processes that keep a core busy (default: %(default)s)')
    parser.add_argument('--repeat', type=int, default=3, help='rounds (default: %(default)s)')
    parser.add_argument('--backbone', default='demo', help='default: %(default)s, which is not CLIP')
    parser.add_argument('--max-views', type=int, help='default: all windows')
    args = parser.parse_args(argv)

    sleeping, spinning = {'OMP_WAIT_POLICY': 'PASSIVE'}, {'GOMP_SPINCOUNT': '300000'}
    cases = {}  # name -> workers, at once?, environment, busy processes
    if args.only != 'threads':
        cases |= {
            'reading: in this process': (0, False, sleeping, 0),
            'reading: workers at once': (args.workers, True, sleeping, 0),
            'reading: workers where they pay': (args.workers, False, sleeping, 0),
        }
    if args.only != 'reading':
        for busy in dict.fromkeys((0, args.busy)):
            cases |= {
                f'threads: {name}, beside {busy} busy processes': (0, False, setting, busy)
                for name, setting in (('spin', spinning), ('sleep', sleeping), ('one', {'OMP_NUM_THREADS': '1'}))
            }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory() as name:
        make_photos(folder := Path(name), args.images, args.width)
        for _ in range(args.repeat):
            for case, (workers, at_once, setting, busy) in cases.items():
                with neighbours(busy):
                    times[case].append(run_case(folder, args.backbone, args.max_views, workers, at_once, setting))
                print(case, *(f'{value:.1f}' for value in times[case][-1]), file=sys.stderr)
    print(f'{args.images} images around {args.width}x{args.width * 3 // 4}, {args.backbone}, {os.cpu_count()} cores\n')
    print('| case | seconds: median, best | CPU seconds: median, best |\n| --- | --- | --- |')
    for case, found in times.items():
        clock, cpu = zip(*found, strict=True)
        cells = (f'{statistics.median(values):.1f}, {min(values):.1f}' for values in (clock, cpu))
        print(f'| {case} | {" | ".join(cells)} |')
    return 0


if __name__ == '__main__':
    sys.exit(main())
