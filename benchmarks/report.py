"""How large a page of scores is, and how fast it loads, filters and sorts, by the number of its rows.

Needs selenium, and Chromium with its driver. Times are medians of several runs in headless Chromium: load, from opening
the file until the page has drawn; filter, sort and search, from the event until the page has drawn its answer.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

DRAWN = 'requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));'
ACTIONS = {  # each of a field: its new value, by the number of the run, and the event
    'filter': ('low', 'run / 10 + 0.05', 'change'),
    'sort': ('sort', "['niqe', 'q_sim', 'score'][run % 3]", 'change'),
    'search': ('search', "'part-00' + run", 'input'),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', type=int, nargs='+', default=[1_000, 10_000, 100_000], metavar='N')
    parser.add_argument('--repeats', type=int, default=5, metavar='N', help='runs of each (default: %(default)s)')
    args = parser.parse_args(argv)

    from maclip_pyiqa.report import write_report

    print('| rows | MB | written, s | load, ms | filter, ms | sort, ms | search, ms |\n|' + ' ---: |' * 7)
    with tempfile.TemporaryDirectory() as folder:
        browser = chromium()
        try:
            for count in args.rows:
                page = Path(folder, 'report.html')
                rows, maps, picture = made(count)
                start = time.perf_counter()
                with mock.patch('maclip_pyiqa.report.page.read_picture', return_value=picture):  # there are no files
                    write_report(rows, page, maps=maps)
                written = time.perf_counter() - start
                times = [f'{each:.0f}' for each in measured(browser, page, args.repeats)]
                print(
                    f'| {count:,} | {page.stat().st_size / 1e6:.1f} | {written:.1f} | {" | ".join(times)} |', flush=True
                )
        finally:
            browser.quit()
    return 0


def made(count: int):
    """Rows as `--details --metrics clipiqa,niqe` gives them, maps of 12-megapixel photos, and one picture for all."""
    import numpy as np
    from PIL import Image

    from maclip_pyiqa.metric.prompts import summary_columns
    from maclip_pyiqa.report.pictures import GRID

    generator = np.random.default_rng(0)
    names = (*summary_columns(('good', 'sharp', 'edges', 'resolution', 'noise-free')), 'clipiqa', 'niqe')
    numbers = generator.random((count, len(names))).round(6).tolist()
    rows = []
    for i, line in enumerate(numbers):
        row = {'path': f'/data/collection/part-{i // 1000:03}/{i:08}.jpg', **dict(zip(names, line, strict=True))}
        rows.append(row | {'width': 4000, 'height': 3000, 'flags': 'noise' if i % 100 == 0 else '', 'error': ''})
    file = io.BytesIO()
    coarse = Image.fromarray(generator.integers(0, 255, (24, 32, 3), np.uint8))
    coarse.resize((192, 144)).save(file, 'JPEG', quality=80)
    spans = [[i * 128, i * 128 + 224] for i in range(GRID)]
    views = generator.integers(0, 10_000, (8, GRID**2)).tolist()
    values = dict(zip((*names[:3], *names[4:9]), views, strict=True))
    windows = {'size': [3000, 4000], 'rows': spans, 'columns': spans, 'values': values}
    return rows, dict.fromkeys([row['path'] for row in rows], windows), (file.getvalue(), (3000, 4000))


def chromium():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which('chromium') or shutil.which('google-chrome') or ''
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--window-size=1280,1000'):
        options.add_argument(argument)
    return webdriver.Chrome(
        options=options, service=webdriver.ChromeService(shutil.which('chromedriver'), log_output=os.devnull)
    )


def measured(browser, page: Path, repeats: int) -> list[float]:
    """Milliseconds of loading and of each of ACTIONS."""
    loads, times = [], {name: [] for name in ACTIONS}
    for i in range(repeats):
        browser.get('about:blank')
        browser.get(page.as_uri())
        loads.append(browser.execute_async_script(f'const start = 0, done = arguments[0]; {DRAWN}'))
        browser.execute_script("document.getElementById('tab-table').click()")
        for name, (field, value, event) in ACTIONS.items():
            code = f"""
                const [run, done] = arguments;
                const field = document.getElementById('{field}');
                const start = performance.now();
                field.value = {value};
                field.dispatchEvent(new Event('{event}', {{ bubbles: true }}));
                {DRAWN}
            """
            times[name].append(browser.execute_async_script(code, i))
    return [statistics.median(each) for each in (loads, *times.values())]


if __name__ == '__main__':
    sys.exit(main())
