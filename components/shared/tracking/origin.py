"""Origin of a run: code, image and user."""

import os
import subprocess
from pathlib import Path


def origin_tags() -> dict[str, str]:
    """Returns MLflow tags of user, commit and image, as far as they are known."""
    tags = {
        "mlflow.source.name": "brainseg",
        "mlflow.user": os.environ.get("USER", ""),
        "image_digest": os.environ.get("BRAINSEG_IMAGE_DIGEST", ""),
        "mlflow.source.git.commit": os.environ.get("BRAINSEG_GIT_COMMIT", ""),
    }
    # a virtual environment inside another repository must not report that one's commit
    is_ours = _git("ls-files", "--error-unmatch", Path(__file__).name) is not None
    if is_ours and not tags["mlflow.source.git.commit"]:
        tags["mlflow.source.git.commit"] = _git("rev-parse", "HEAD") or ""
        dirty = _git("status", "--porcelain", "-uno")
        tags["mlflow.source.git.dirty"] = "true" if dirty else "false"
    return {key: value for key, value in tags.items() if value}


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, no repository
        return None
    return done.stdout.strip()
