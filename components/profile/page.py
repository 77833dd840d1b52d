"""The profile page: one HTML file that needs no network."""

from collections.abc import Sequence

from components.profile.attributes import Attribute
from components.profile.charts import attribute_charts, intensities_by_site, volume_histograms
from components.profile.describe import Counts, Profile
from components.profile.drift import Drift, tell_shift
from components.profile.limits import Limit, tell_limit
from components.profile.measures import Measures
from components.profile.montage import Card
from components.profile.outliers import FARTHEST_SCORE
from components.profile.quantiles import Quantiles
from components.shared.dataset.ingest_account import IngestAccount
from components.shared.dataset.manifest import Manifest
from components.shared.dataset.volumes import CHANNELS
from components.shared.reading.tcga import SITE_NAMES
from components.shared.report.page import (
    Block,
    Cell,
    Figures,
    Gallery,
    Notice,
    Picture,
    Section,
    Table,
    draw,
    photograph,
    render_page,
)

_CARD_PX = 509
_QUANTILES = ("minimum", "25%", "median", "75%", "maximum")


def render_profile(
    profile: Profile, manifest: Manifest, measures: Measures, cards: Sequence[Card]
) -> str:
    """Renders the page.

    Args:
        profile: What is told.
        manifest: The data set, for the list of volumes.
        measures: The arrays behind the drawings.
        cards: Pictured volumes.
    """
    sections = [
        Section("At a glance", _glance(profile)),
        *([Section("Drift", _drift(profile.drift))] if profile.drift else []),
        Section("Pictures", _pictures(cards)),
        Section("Sites", [_site_table(profile)]),
        Section("Slices and tumour", _tumour(profile, measures)),
        Section("Intensity", _intensity(profile, measures)),
        Section("Missing sequences", _missing(profile, manifest)),
        Section("Outliers", _outliers(profile)),
        Section("Genomic and clinical columns", _attributes(profile)),
        Section("Quarantine and files", _ingest(profile.ingest)),
        Section("All volumes", [_volumes(manifest)]),
    ]
    subtitle = f"Data set {profile.dataset_id}, ingested from {profile.ingest.source}"
    return render_page("Data set profile", subtitle, sections)


def _glance(profile: Profile) -> list[Block]:
    counts, failed = profile.counts, [limit for limit in profile.limits if not limit.kept]
    verdict: list[Block] = [
        Notice("bad", f"Stopped here. {tell_limit(limit)}: {limit.advice}.") for limit in failed
    ] or [Notice("good", f"All {len(profile.limits)} limits kept: fit for training.")]
    return [
        *verdict,
        *_drift_notices(profile.drift),
        *(Notice("warning", warning) for warning in profile.ingest.warnings),
        Figures(
            [
                ("patients", f"{counts.patients:,}", f"at {_some(len(profile.sites), 'site')}"),
                ("volumes", f"{counts.volumes:,}", f"{counts.slices:,} slices"),
                (
                    "slices with tumour",
                    f"{counts.tumour_slices / counts.slices:.0%}",
                    f"{counts.tumour_slices:,} of {counts.slices:,}",
                ),
                (
                    "volumes without tumour",
                    f"{counts.volumes - counts.tumour_volumes:,}",
                    f"of {counts.volumes:,}",
                ),
                (
                    "lack a sequence",
                    f"{counts.lacking_sequence:,}",
                    f"{counts.lacking_sequence / counts.volumes:.0%} of the volumes",
                ),
                ("quarantined", f"{len(profile.ingest.quarantined):,}", "refused by ingest"),
                ("outliers", f"{profile.outliers_found:,}", "unusual values, see below"),
            ]
        ),
        _limit_table(profile.limits),
    ]


def _limit_table(limits: Sequence[Limit]) -> Table:
    return Table(
        ("property", "value", "must be", "limit", "result", "setting"),
        [
            (
                limit.name,
                _tidy(limit.value),
                limit.bound,
                _tidy(limit.limit),
                "kept" if limit.kept else "EXCEEDED",
                f"profile.{limit.setting}",
            )
            for limit in limits
        ],
    )


def _drift_notices(drift: Drift | None) -> list[Block]:
    return [
        Notice("warning", f"The new patients differ. {tell_shift(shift)}.")
        for shift in (drift.drifted if drift else ())
    ]


def _drift(drift: Drift) -> list[Block]:
    told: list[Block] = [
        f"Compared with data set {drift.reference_id}, which the champion has learned from.",
        Figures(
            [
                ("new patients", f"{drift.arrived:,}", "not in the reference"),
                ("left", f"{drift.left:,}", "patients of the reference only"),
                ("changed", f"{drift.changed:,}", "patients with other voxels or another mask"),
            ]
        ),
    ]
    if not drift.shifts:
        return [*told, "Nobody came, so there is nobody to compare."]
    return [
        *told,
        "The new patients against all of the reference. Distance: the greatest difference between "
        "the shares of volumes up to any one value (Kolmogorov-Smirnov, 0 to 1). A measure has "
        f"drifted where it is beyond {drift.limit:g} (profile.max_drift) and beyond what chance "
        "gives with so many volumes (1 % for all measures together).",
        Table(
            ("measure", "mean before", "mean of the new", "distance", "by chance", "result"),
            [
                (
                    shift.measure,
                    shift.before,
                    shift.new,
                    shift.distance,
                    shift.chance,
                    "DRIFTED" if shift.drifted else "",
                )
                for shift in drift.shifts
            ],
        ),
    ]


def _pictures(cards: Sequence[Card]) -> list[Block]:
    if not cards:
        return ["None were asked for (profile.montage_volumes is 0)."]
    return [
        "Above: pre-contrast, FLAIR, post-contrast, and FLAIR with the mask's outline, of the "
        "slice with most tumour. Below: four slices of FLAIR through the volume. Brightness is "
        "scaled for each volume and channel.",
        Gallery([Picture(photograph(card.pixels), _caption(card), _CARD_PX) for card in cards]),
    ]


def _caption(card: Card) -> str:
    entry = card.entry
    share = entry.tumour_slices / entry.slices
    lacks = f", lacks {' and '.join(entry.missing)}" if entry.missing else ""
    return (
        f"{entry.volume}: {card.reason}. {entry.slices} slices, {share:.0%} with tumour, "
        f"{entry.tumour_pixels:,} tumour pixels{lacks}"
    )


def _site_table(profile: Profile) -> Table:
    rows: list[Sequence[Cell]] = [
        _site_row(site, SITE_NAMES.get(site, ""), counts) for site, counts in profile.sites.items()
    ]
    if len(rows) > 1:
        rows.append(_site_row("all", "", profile.counts))
    columns = ("patients", "volumes", "slices", "share with tumour", "median tumour pixels")
    return Table(("site", "institution of the code", *columns, "lack a sequence"), rows)


def _site_row(site: str, institution: str, counts: Counts) -> Sequence[Cell]:
    return (
        site,
        institution,
        counts.patients,
        counts.volumes,
        counts.slices,
        counts.tumour_slices / counts.slices,
        _tidy(counts.tumour_pixels.median) if counts.tumour_pixels else None,
        counts.lacking_sequence,
    )


def _tumour(profile: Profile, measures: Measures) -> list[Block]:
    return [
        Picture(draw(volume_histograms(measures)), "Volumes by site, one colour each."),
        Table(
            ("per volume", *_QUANTILES),
            [
                ("slices", *_five(profile.slices)),
                ("share of slices with tumour", *_five(profile.tumour_share)),
                ("tumour pixels, where there are any", *_five(profile.counts.tumour_pixels)),
            ],
        ),
        "Pixels are counted, not millilitres: the files hold no voxel size.",
    ]


def _intensity(profile: Profile, measures: Measures) -> list[Block]:
    return [
        "Grey values from 0 to 255, taken from every fourth row and column. A volume's median "
        "mostly tells how much empty background it has; its 99th percentile how bright its "
        "bright tissue is.",
        Picture(
            draw(intensities_by_site(measures)),
            "Box: the middle half of the site's volumes, white line: their median. Sites of less "
            "than five volumes are shown as points.",
        ),
        Table(
            ("per volume", *_QUANTILES),
            [
                (f"{channel.channel}, {name}", *_five(values))
                for channel in profile.channels
                for name, values in (
                    ("median", channel.median),
                    ("99th percentile", channel.bright),
                )
            ],
        ),
    ]


def _missing(profile: Profile, manifest: Manifest) -> list[Block]:
    lacking = [entry for entry in manifest.volumes if entry.missing]
    if not lacking:
        return ["No volume lacks a sequence: no channel is a copy of FLAIR."]
    told = ", ".join(
        f"{channel.channel} in {_some(channel.lacking, 'volume')}"
        for channel in profile.channels
        if channel.lacking
    )
    return [
        f"A channel that equals FLAIR stands in for a sequence that was not taken: {told}.",
        Table(
            ("volume", "site", "lacks"),
            [(entry.volume, entry.site, ", ".join(entry.missing)) for entry in lacking],
        ),
    ]


def _outliers(profile: Profile) -> list[Block]:
    if not profile.outliers:
        return ["No volume is unusual by number of slices, tumour size or intensity."]
    more = profile.outliers_found - len(profile.outliers)
    return [
        f"Values whose robust z-score (distance from the median in units of the scaled median "
        f"absolute deviation) is beyond {FARTHEST_SCORE}. Unusual is not wrong: look at them."
        + (f" Shown are the {len(profile.outliers)} most extreme." if more > 0 else ""),
        Table(
            ("volume", "measure", "value", "usual from", "to", "robust z"),
            [
                (
                    outlier.volume,
                    outlier.measure,
                    _tidy(outlier.value),
                    _tidy(outlier.usual_low),
                    _tidy(outlier.usual_high),
                    _tidy(outlier.score),
                )
                for outlier in profile.outliers
            ],
        ),
    ]


def _attributes(profile: Profile) -> list[Block]:
    filled = [attribute for attribute in profile.attributes if attribute.filled]
    if not filled:
        return [
            "No patient has a value; the warnings at the top of the page tell why."
            if profile.ingest.warnings
            else "The source has none."
        ]
    return [
        "The public set comes without a key to its codes, so they are shown as they are.",
        Picture(draw(attribute_charts(filled)), "Patients by value; numbers by bin."),
        Table(
            ("column", "meaning", "patients with a value", "without", "values (patients)"),
            [_attribute_row(attribute) for attribute in profile.attributes],
        ),
    ]


def _attribute_row(attribute: Attribute) -> Sequence[Cell]:
    if attribute.quantiles:
        low, _, median, _, high = _five(attribute.quantiles)
        told = f"{low:g} to {high:g}, median {median:g}"
    else:
        told = ", ".join(f"{value} ({count:,})" for value, count in attribute.counts.items())
    return attribute.column, attribute.meaning, attribute.filled, attribute.empty, told


def _ingest(ingest: IngestAccount) -> list[Block]:
    refused = [(item.volume, item.reason, len(item.files)) for item in ingest.quarantined]
    told: list[Block] = [
        f"{ingest.files_found:,} files were found: {ingest.files_accepted:,} in accepted volumes, "
        f"{ingest.files_quarantined:,} in quarantined volumes, "
        f"{sum(ingest.ignored.values()):,} ignored."
    ]
    if refused:
        told.append(Table(("quarantined volume", "reason", "files"), refused))
    if ingest.ignored:
        told.append(Table(("ignored because", "files"), list(ingest.ignored.items())))
    return told


def _volumes(manifest: Manifest) -> Table:
    return Table(
        (
            "volume",
            "site",
            "slices",
            "with tumour",
            "tumour pixels",
            f"{CHANNELS[1]}, 99th percentile",
            "lacks",
        ),
        [
            (
                entry.volume,
                entry.site,
                entry.slices,
                entry.tumour_slices,
                entry.tumour_pixels,
                entry.intensity[1].p99,
                ", ".join(entry.missing),
            )
            for entry in manifest.volumes
        ],
    )


def _five(values: Quantiles | None) -> tuple[Cell, ...]:
    return tuple(map(_tidy, values.model_dump().values())) if values else (None,) * len(_QUANTILES)


def _tidy(value: float) -> float | int:
    """Whole numbers without decimals, others with one where they are no shares."""
    if value.is_integer():
        return int(value)
    return value if abs(value) < 1 else round(value, 1)


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
