import pytest
from tiny_hecktor import Hecktor


@pytest.fixture
def hecktor(tmp_path) -> Hecktor:
    return Hecktor(tmp_path / "hecktor2025_training")
