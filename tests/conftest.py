"""Shared fixtures: thread counts are set, and the real images are found or named as absent."""

from pathlib import Path

import pytest
import torch

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Two test processes share two cores."""
    torch.set_num_threads(1)


@pytest.fixture
def real_data() -> Path:
    """The folder of real images beside the checkout."""
    if not REAL_DATA.is_dir():
        pytest.skip("needs the real images in ../shared/data, which are not here")
    return REAL_DATA
