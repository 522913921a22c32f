"""How a patient's name is written: HECKTOR has both CHUM-001 and CHUM_001 for one patient."""

from __future__ import annotations


def patient_name(text: str) -> str:
    """A patient's name as it is written here, with hyphens."""
    return text.strip().replace("_", "-")


def patient_key(text: str) -> str:
    """What two spellings of a patient's name have in common: capitals do not count either."""
    return patient_name(text).casefold()
