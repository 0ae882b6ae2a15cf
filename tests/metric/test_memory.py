"""Peak memory of whole processes on a whole RN50, weights and libraries included."""

import subprocess
import sys

import pytest

# not getrusage: what the parent held at the fork counts there
CODE = r"""
import re, sys, torch
from maclip_pyiqa import MACLIP
torch.manual_seed(0)
height, width, backward, stride = (int(v) for v in sys.argv[2:])
metric = MACLIP(pretrained=sys.argv[1], stride=stride)
x = torch.rand(1, 3, height, width, requires_grad=bool(backward))
score = metric(x) if backward else metric(x.detach())
if backward:
    score.sum().backward()
    assert x.grad.isfinite().all()
print(int(re.search(r'VmHWM:\s+(\d+)', open('/proc/self/status').read())[1]) / 2**20)
"""


def peak(file, height, width, backward, stride):
    """Of a fresh process, GB."""
    command = [sys.executable, '-c', CODE, str(file), str(height), str(width), str(int(backward)), str(stride)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_scoring_a_12_megapixel_image_within_2_gb(rn50_file):
    assert peak(rn50_file, 3000, 4000, backward=False, stride=256) < 2.0  # 165 windows: 660 take minutes


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_backward_of_a_3_megapixel_image_within_2_5_gb(rn50_file):
    assert peak(rn50_file, 1536, 2048, backward=True, stride=256) < 2.5  # 48 windows, too many for that at once
