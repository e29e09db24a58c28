"""Latency models that come with the package; each file says how it was made."""

from pathlib import Path

FOLDER = Path(__file__).parent / "models"


def shipped_paths() -> list[Path]:
    """Files of all shipped models, by name: DEVICE[_VARIANT]_SPACE.json."""
    return sorted(FOLDER.glob("*.json"))
