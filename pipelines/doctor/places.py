"""Folders that need not exist yet."""

import os
from pathlib import Path


def existing(folder: Path) -> Path:
    """Return the folder itself, or the nearest parent that exists."""
    # os.path.exists: Path.exists raises where a folder above may not be entered
    return next(place for place in (folder, *folder.parents) if os.path.exists(place))


def why_not_writable(folder: Path) -> str | None:
    """Return why no file can be written to a folder; `None` if it can."""
    place = existing(folder)
    if not place.is_dir():
        return f"{place} is a file where a folder should be"
    return None if os.access(place, os.W_OK | os.X_OK) else f"{place} cannot be written"
