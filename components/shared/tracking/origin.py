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
        **_git_tags(),
    }
    return {key: value for key, value in tags.items() if value}


def _git_tags() -> dict[str, str]:
    given = os.environ.get("BRAINSEG_GIT_COMMIT", "")
    if given:
        return {"mlflow.source.git.commit": given}
    here = Path(__file__)
    # a virtual environment inside another repository must not report that one's commit
    if _git("ls-files", "--error-unmatch", here.name) is None:
        return {}
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "-uno")
    return {
        "mlflow.source.git.commit": commit or "",
        "mlflow.source.git.dirty": "true" if changed else "false",
    }


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, no repository
        return None
    return done.stdout.strip()
