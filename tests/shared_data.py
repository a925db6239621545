"""Real data beside the checkout, for the tests that want it."""

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("ZOO_SHARED_DATA", Path(__file__).resolve().parent.parent.parent / "shared" / "data"))


def shared_data(name: str) -> Path:
    """The folder or file `name` of the shared data, or a skip that says it is absent."""
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"shared data {name} is absent: set ZOO_SHARED_DATA")
    return path
