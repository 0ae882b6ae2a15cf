"""Each study runs by itself, from any folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / 'benchmarks'


@pytest.mark.slow  # starts all of them, and most import torch
def test_each_script_says_what_it_does(tmp_path):
    """Without the scripts' folder on the import path (Python 3.11 on): no script imports another."""
    environment = os.environ | {'PYTHONSAFEPATH': '1', 'COLUMNS': '100'}
    running = {
        script: subprocess.Popen(
            [sys.executable, script, '--help'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=tmp_path, env=environment,
        )
        for script in sorted(SCRIPTS.glob('[!_]*.py'))
    }  # fmt: skip
    assert [script.stem for script in running] == [
        'builtin',
        'compare',
        'demo_report',
        'files',
        'fit',
        'flags',
        'guidance',
        'guidance_memory',
        'loss',
        'max_views',
        'reading',
        'report',
        'scale',
        'sizes',
        'speed',
        'train_demo',
    ]
    for script, process in running.items():
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.startswith(f'usage: {script.name} ')
    assert not list(tmp_path.iterdir())
