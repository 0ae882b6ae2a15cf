"""Ray, started once for all tests that need it."""

import os

import pytest

STORE = 80_000_000  # bytes


@pytest.fixture(scope='session')
def cluster():
    """Ray in this process, started once."""
    ray = pytest.importorskip('ray')
    os.environ['RAY_USAGE_STATS_ENABLED'] = os.environ['RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO'] = '0'
    ray.init(
        address='local', num_cpus=2, object_store_memory=STORE, include_dashboard=False, log_to_driver=False,
        logging_level='error',
    )  # fmt: skip
    yield
    ray.shutdown()
