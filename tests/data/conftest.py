import os
from pathlib import Path

import pytest
from data_folders import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    root = tmp_path / "data"
    root.mkdir()
    return Folder(root)


@pytest.fixture(scope="session")
def dubai() -> Path:
    if "SEGSWEEP_DUBAI" not in os.environ:
        pytest.skip("SEGSWEEP_DUBAI is not set to the folder of the Dubai tiles")
    return Path(os.environ["SEGSWEEP_DUBAI"])
