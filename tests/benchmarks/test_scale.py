"""The plan is computed from what was measured, and the driver's simulation counts what is left."""

import json

import pytest

SECONDS = {"views='windows'": 0.36, 'max_views=9': 0.1, "views='global'": 0.01}
MEASURED = {
    'machine': 'x', 'backbone': 'RN50', 'load': 0.5, 'row_bytes': 50.0, 'file_s': 0.2,
    'memory': {'images': 54, 'all_mib': 2800.4, 'driver_mib': 600.0, 'worker_mib': 900.0},
    'driver': [{'shards': 1000, 'memory_mib': 10.0, 'plan_s': 0.1, 'manifest_s': 0.01}],
    'images': {
        'cpu': {'0.2': SECONDS, '1': SECONDS, '12': SECONDS},
    },
    'ray': [
        {'workers': 1, 'shards': shards, 'images': 100, 'ray_s': 5.0, 'total_s': total, 'busy_s': 5.0}
        for shards, total in ((1, 10.0), (101, 30.0))
    ],
}  # fmt: skip


def test_plan(script, tmp_path, capsys):
    (tmp_path / 'a.json').write_text(json.dumps(MEASURED))
    assert script.main(['--plan', str(tmp_path / 'a.json')]) == 0
    out = capsys.readouterr().out
    assert '2800 MiB at the peak, of which the driver 600 and the larger worker 900' in out
    rows = [line.strip('| ').split(' | ') for line in out.splitlines() if line.startswith('| 10^')]
    assert len(rows) == 4 * 3 * 3
    # 10^6 images of 0.36 s and a 2000th of a file's 0.2 s; 50 bytes each; 500 shards
    assert rows[0] == ['10^6', '0.2', "views='windows'", '2.8', '100', 'not measured', '0.050', '500']
    assert rows[-1] == ['10^9', '12', "views='global'", '99', '2,800', 'not measured', '50', '500,000']


@pytest.mark.slow
def test_memory_is_of_all_processes(script, tmp_path):
    pytest.importorskip('ray')
    found = script.memory(2, tmp_path)
    assert found['images'] == 2 and found['all_mib'] > found['driver_mib'] + found['worker_mib'] > 2 * 200


def test_driver(script):
    found = script.driver(10)
    assert found['shards'] == 10 and found['plan_s'] > 0 and found['manifest_s'] > 0


def test_output_file(script):
    assert 9 * 2.5 < script.output_file()['row_bytes'] < 200  # nine numbers of six decimals, and text that compresses


@pytest.mark.slow
def test_measurement(script, tmp_path, capsys):
    output = tmp_path / 'a.json'
    assert script.main(['--backbone', 'demo', '--skip-ray', '--repeats', '1', '--shards', '3', '-o', str(output)]) == 0
    of_image = json.loads(output.read_text())['images']['cpu']
    assert of_image['12']["views='windows'"] > of_image['1']["views='windows'"] > of_image['0.2']["views='windows'"] > 0
    assert '| 10^9 |' in capsys.readouterr().out
