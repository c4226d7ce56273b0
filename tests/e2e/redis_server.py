"""What tests of Celery need of the machine."""

from __future__ import annotations

import shutil

import pytest

needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None,
    reason="NO REDIS HERE, CELERY IS NOT TESTED: on Debian or Ubuntu `apt-get install redis-server`",
)
