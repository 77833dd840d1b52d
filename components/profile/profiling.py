"""The whole of the profile step: describes a data set version and checks it against limits."""

import logging
from pathlib import Path

from components.profile.describe import Profile, describe
from components.profile.drift import tell_shift
from components.profile.limits import require_kept
from components.profile.montage import choose_volumes, make_cards
from components.profile.page import render_profile
from components.profile.settings import ProfileSettings
from components.shared.dataset.ingest_account import IngestAccount
from components.shared.dataset.manifest import Manifest
from components.shared.errors import UserError
from components.shared.storage.store import Store

logger = logging.getLogger(__name__)


def profile_dataset(
    manifest: Manifest,
    account: IngestAccount,
    settings: ProfileSettings,
    store: Store,
    *,
    cache: Path,
    profile: Path,
    report: Path,
    reference: Manifest | None = None,
) -> None:
    """Describes a data set version; both files are written before a limit stops the run.

    Args:
        manifest: The version.
        account: What ingest did with the source's files.
        settings: The limits, and how many volumes are pictured.
        store: Where the voxels of the pictured volumes are.
        cache: Folder for fetched volumes.
        profile: JSON file for the description.
        report: HTML file for people.
        reference: The version that it is compared with: in retraining the champion's.

    Raises:
        UserError: If a limit is not kept, new patients differ and `settings.on_drift` is `stop`,
            or a pictured volume cannot be read.
    """
    described, measures = describe(manifest, account, settings, reference)
    profile.write_text(described.model_dump_json(indent=2))
    chosen = choose_volumes(measures, described.outliers, settings.montage_volumes)
    cards = make_cards(manifest, chosen, store, cache)
    report.write_text(render_profile(described, manifest, measures, cards))
    require_kept(described.limits, str(report))
    _judge_drift(described, settings, str(report))


def _judge_drift(profile: Profile, settings: ProfileSettings, page: str) -> None:
    if profile.drift is None or not profile.drift.drifted:
        return
    found = "; ".join(map(tell_shift, profile.drift.drifted))
    told = f"the new patients differ from those of data set {profile.drift.reference_id}. {found}"
    if settings.on_drift == "stop":
        raise UserError(
            f"profile: {told}. The page {page} shows more; if this is as it should be, set "
            "profile.on_drift=warn or raise profile.max_drift"
        )
    logger.warning("%s", told)
