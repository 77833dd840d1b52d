"""HTML page of a data set profile."""

from collections.abc import Sequence

from components.profile.attributes import Attribute
from components.profile.charts import attribute_charts, intensities_by_site, volume_histograms
from components.profile.describe import Profile
from components.profile.drift import Drift
from components.profile.measures import Measures, Quantiles
from components.profile.montage import Card
from components.profile.outliers import FARTHEST_SCORE
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
    """Renders the page with arrays for the charts and pictures of volumes."""
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
        Notice("bad", f"The run stops here. {limit.describe()}: {limit.advice}.")
        for limit in failed
    ] or [Notice("good", f"Fit for training: all {len(profile.limits)} limits are met.")]
    drifted = profile.drift.drifted if profile.drift else ()
    volumes, slices, tumour = counts.volumes, counts.slices, counts.tumour_slices
    without, lacking = volumes - counts.tumour_volumes, counts.lacking_sequence
    figures = [
        ("patients", f"{counts.patients:,}", f"at {_some(len(profile.sites), 'site')}"),
        ("volumes", f"{volumes:,}", f"{slices:,} slices"),
        ("slices with tumour", f"{tumour / slices:.0%}", f"{tumour:,} of {slices:,}"),
        ("volumes without tumour", f"{without:,}", f"of {volumes:,}"),
        ("volumes without a sequence", f"{lacking:,}", f"{lacking / volumes:.0%} of the volumes"),
        ("quarantined", f"{len(profile.ingest.quarantined):,}", "refused by ingest"),
        ("outliers", f"{profile.outliers_found:,}", "unusual values, see Outliers"),
    ]
    return [
        *verdict,
        *(Notice("warning", f"The new patients differ. {one.describe()}.") for one in drifted),
        *(Notice("warning", warning) for warning in profile.ingest.warnings),
        Figures(figures),
        Table.of(
            profile.limits,
            {
                "property": lambda limit: limit.name,
                "value": lambda limit: _tidy(limit.value),
                "must be": lambda limit: limit.bound,
                "limit": lambda limit: _tidy(limit.limit),
                "result": lambda limit: "ok" if limit.kept else "OUTSIDE",
                "setting": lambda limit: f"profile.{limit.setting}",
            },
        ),
    ]


def _drift(drift: Drift) -> list[Block]:
    blocks: list[Block] = [
        f"Compared with data set {drift.reference_id}, which the champion was trained with.",
        Figures(
            [
                ("new patients", f"{drift.arrived:,}", "not in the reference"),
                ("removed", f"{drift.left:,}", "patients who are only in the reference"),
                ("changed", f"{drift.changed:,}", "patients with different voxels or masks"),
            ]
        ),
    ]
    if not drift.shifts:
        return [*blocks, "There are no new patients to compare."]
    return [
        *blocks,
        "The new patients are compared with all patients of the reference. The distance is the "
        "Kolmogorov-Smirnov statistic, from 0 to 1: the largest difference between the two "
        "distributions. A measure has drifted if its distance exceeds both "
        f"{drift.limit:g} (profile.max_drift) and the distance that chance explains with this "
        "many volumes (at 1 % for all measures together).",
        Table.of(
            drift.shifts,
            {
                "measure": lambda shift: shift.measure,
                "mean before": lambda shift: shift.before,
                "mean of the new": lambda shift: shift.new,
                "distance": lambda shift: shift.distance,
                "by chance": lambda shift: shift.chance,
                "result": lambda shift: "DRIFTED" if shift.drifted else "",
            },
        ),
    ]


def _pictures(cards: Sequence[Card]) -> list[Block]:
    if not cards:
        return ["No pictures, because profile.montage_volumes is 0."]
    return [
        "Top row: pre-contrast, FLAIR, post-contrast, and FLAIR with the mask's outline at the "
        "slice with most tumour. Bottom row: four slices of FLAIR through the volume. Brightness "
        "is scaled per volume and channel.",
        Gallery([Picture(photograph(card.pixels), _caption(card), _CARD_PX) for card in cards]),
    ]


def _caption(card: Card) -> str:
    entry = card.entry
    fraction = entry.tumour_slices / entry.slices
    without = f", without {' and '.join(entry.missing)}" if entry.missing else ""
    return (
        f"{entry.volume}: {card.reason}. {entry.slices} slices, {fraction:.0%} with tumour, "
        f"{entry.tumour_pixels:,} tumour pixels{without}"
    )


def _site_table(profile: Profile) -> Table:
    sites = [(site, SITE_NAMES.get(site, ""), counts) for site, counts in profile.sites.items()]
    if len(sites) > 1:
        sites.append(("all", "", profile.counts))
    return Table.of(
        sites,
        {
            "site": lambda row: row[0],
            "institution": lambda row: row[1],
            "patients": lambda row: row[2].patients,
            "volumes": lambda row: row[2].volumes,
            "slices": lambda row: row[2].slices,
            "fraction with tumour": lambda row: row[2].tumour_slices / row[2].slices,
            "median tumour pixels": lambda row: _five(row[2].tumour_pixels)[2],
            "volumes without a sequence": lambda row: row[2].lacking_sequence,
        },
    )


def _tumour(profile: Profile, measures: Measures) -> list[Block]:
    return [
        Picture(draw(volume_histograms(measures)), "Volumes by site, one color each."),
        Table(
            ("per volume", *_QUANTILES),
            [
                ("slices", *_five(profile.slices)),
                ("fraction of slices with tumour", *_five(profile.tumour_share)),
                ("tumour pixels, volumes with tumour", *_five(profile.counts.tumour_pixels)),
            ],
        ),
        "Sizes are in pixels, not milliliters, because the files hold no voxel size.",
    ]


def _intensity(profile: Profile, measures: Measures) -> list[Block]:
    return [
        "Gray values from 0 to 255, from every fourth row and column. A volume's median mostly "
        "depends on its amount of empty background. Its 99th percentile is the brightness of "
        "bright tissue.",
        Picture(
            draw(intensities_by_site(measures)),
            "The box holds the middle half of the site's volumes, the white line is their median. "
            "Sites with fewer than five volumes are shown as points.",
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
        return ["Every volume has all sequences: no channel is a copy of FLAIR."]
    counts = ", ".join(
        f"{channel.channel} in {_some(channel.lacking, 'volume')}"
        for channel in profile.channels
        if channel.lacking
    )
    return [
        f"A channel that equals FLAIR replaces a sequence that was not acquired: {counts}.",
        Table(
            ("volume", "site", "missing"),
            [(entry.volume, entry.site, ", ".join(entry.missing)) for entry in lacking],
        ),
    ]


def _outliers(profile: Profile) -> list[Block]:
    if not profile.outliers:
        return ["No volume has an unusual number of slices, tumour size or intensity."]
    more = profile.outliers_found - len(profile.outliers)
    return [
        f"Values with a robust z-score beyond {FARTHEST_SCORE}: the distance from the median in "
        "units of the scaled median absolute deviation. An unusual value need not be wrong; check "
        "these volumes."
        + (f" The {len(profile.outliers)} most extreme values are shown." if more > 0 else ""),
        Table.of(
            profile.outliers,
            {
                "volume": lambda outlier: outlier.volume,
                "measure": lambda outlier: outlier.measure,
                "value": lambda outlier: _tidy(outlier.value),
                "usual from": lambda outlier: _tidy(outlier.usual_low),
                "to": lambda outlier: _tidy(outlier.usual_high),
                "robust z": lambda outlier: _tidy(outlier.score),
            },
        ),
    ]


def _attributes(profile: Profile) -> list[Block]:
    filled = [attribute for attribute in profile.attributes if attribute.filled]
    if not filled:
        return [
            "No patient has a value; see the warnings at the top of the page."
            if profile.ingest.warnings
            else "The source has no such columns."
        ]
    return [
        "The public data set does not explain its codes, so they are shown unchanged.",
        Picture(draw(attribute_charts(filled)), "Patients by value; numbers are binned."),
        Table(
            ("column", "meaning", "patients with a value", "without", "values (patients)"),
            [_attribute_row(attribute) for attribute in profile.attributes],
        ),
    ]


def _attribute_row(attribute: Attribute) -> Sequence[Cell]:
    if attribute.quantiles:
        low, _, median, _, high = _five(attribute.quantiles)
        values = f"{low:g} to {high:g}, median {median:g}"
    else:
        values = ", ".join(f"{value} ({count:,})" for value, count in attribute.counts.items())
    return attribute.column, attribute.meaning, attribute.filled, attribute.empty, values


def _ingest(ingest: IngestAccount) -> list[Block]:
    refused = [(item.volume, item.reason, len(item.files)) for item in ingest.quarantined]
    blocks: list[Block] = [
        f"{ingest.files_found:,} files were found: {ingest.files_accepted:,} in accepted volumes, "
        f"{ingest.files_quarantined:,} in quarantined volumes, "
        f"{sum(ingest.ignored.values()):,} ignored."
    ]
    if refused:
        blocks.append(Table(("quarantined volume", "reason", "files"), refused))
    if ingest.ignored:
        blocks.append(Table(("reason to ignore", "files"), list(ingest.ignored.items())))
    return blocks


def _volumes(manifest: Manifest) -> Table:
    return Table.of(
        manifest.volumes,
        {
            "volume": lambda entry: entry.volume,
            "site": lambda entry: entry.site,
            "slices": lambda entry: entry.slices,
            "with tumour": lambda entry: entry.tumour_slices,
            "tumour pixels": lambda entry: entry.tumour_pixels,
            f"{CHANNELS[1]}, 99th percentile": lambda entry: entry.intensity[1].p99,
            "missing": lambda entry: ", ".join(entry.missing),
        },
    )


def _five(values: Quantiles | None) -> tuple[Cell, ...]:
    return tuple(map(_tidy, values.model_dump().values())) if values else (None,) * len(_QUANTILES)


def _tidy(value: float) -> float | int:
    """Drops the decimals of whole numbers, and all but one of numbers from 1."""
    if value.is_integer():
        return int(value)
    return value if abs(value) < 1 else round(value, 1)


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
