"""Profile step: describes a data set version and checks it against limits."""

from pathlib import Path

from components.profile.describe import describe
from components.profile.drift import judge_drift
from components.profile.limits import require_kept
from components.profile.montage import choose_volumes, make_cards
from components.profile.page import render_profile
from components.profile.settings import ProfileSettings
from components.shared.dataset.ingest_account import IngestAccount
from components.shared.dataset.manifest import Manifest
from components.shared.report.kept import keep_report
from components.shared.storage.store import Store


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
    """Describes a data set version and checks it against limits and for drift.

    Args:
        manifest: Manifest of the version.
        account: Report of ingest on the source's files.
        settings: Limits and number of pictured volumes.
        store: Store of the pictured volumes, which receives the page of a stopped run.
        cache: Folder for fetched volumes.
        profile: JSON file to write the description to.
        report: HTML file to write the page to.
        reference: Manifest to compare new patients with, in retraining the champion's.

    Raises:
        UserError: If a value is outside its limit, new patients differ and `settings.on_drift`
            is `stop`, or a pictured volume cannot be read.
    """
    described, measures = describe(manifest, account, settings, reference)
    profile.write_text(described.model_dump_json(indent=2))
    chosen = choose_volumes(measures, described.outliers, settings.montage_volumes)
    cards = make_cards(manifest, chosen, store, cache)
    page = render_profile(described, manifest, measures, cards)
    report.write_text(page)

    def keep_page() -> str:
        return keep_report(store, "profile.html", page.encode(), noun="page")

    require_kept(described.limits, keep_page)
    judge_drift(described.drift, settings.on_drift, keep_page)
