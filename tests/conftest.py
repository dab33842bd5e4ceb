"""What every test may use."""

from pathlib import Path

import pytest

collect_ignore_glob = ["reference/make_*.py"]

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of validation data beside the repository, which is no part of the package."""
    if not SHARED.is_dir():
        pytest.skip(f"the validation data are not here: no folder {SHARED}")
    return SHARED
