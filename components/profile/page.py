"""HTML page of a data set profile."""

from collections.abc import Sequence

from components.profile.attributes import Attribute
from components.profile.charts import attribute_charts, intensities_by_site, volume_histograms
from components.profile.describe import Profile
from components.profile.drift import Drift
from components.profile.measures import Measures, Quantiles
from components.profile.montage import Card, count_columns
from components.shared.dataset.channels import LGG_CHANNELS, Channels
from components.shared.dataset.ingest_account import IngestAccount
from components.shared.dataset.manifest import Manifest, VolumeEntry
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
from components.shared.scoring.robust import FARTHEST_SCORE

_PANEL_PX = 509 / 652  # shown width of a pixel of a card
_UNEXPLAINED = "The public data set does not explain its codes, so they are shown unchanged."
_QUANTILES = ("minimum", "25%", "median", "75%", "maximum")


def render_profile(
    profile: Profile, manifest: Manifest, measures: Measures, cards: Sequence[Card]
) -> str:
    """Renders the page with arrays for the charts and pictures of volumes."""
    sections = [
        Section("At a glance", _glance(profile)),
        *([Section("Drift", _drift(profile.drift))] if profile.drift else []),
        Section("Pictures", _pictures(cards, manifest.channels)),
        Section("Sites", [_site_table(profile, manifest)]),
        Section("Slices and tumour", _tumour(profile, measures)),
        *([] if _is_as_lgg(profile, manifest) else [Section("Voxels", _voxels(profile, manifest))]),
        Section("Intensity", _intensity(profile, manifest, measures)),
        Section("Missing sequences", _missing(profile, manifest)),
        Section("Outliers", _outliers(profile)),
        Section(
            "Genomic and clinical columns" if _is_public(profile) else "Columns of the table",
            _attributes(profile),
        ),
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
    if drift.channels_not_compared:
        names = ", ".join(drift.channels_not_compared)
        blocks.append(f"Channels that are not compared, because the data sets differ: {names}.")
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


def _pictures(cards: Sequence[Card], channels: Channels) -> list[Block]:
    if not cards:
        return ["No pictures, because profile.montage_volumes is 0."]
    count = {4: "four", 5: "five", 6: "six"}.get(columns := count_columns(channels), columns)
    return [
        f"Top row: {', '.join(channels.names)}, and {channels.reference} with the mask's outline "
        f"at the slice with most tumour. Bottom row: {count} slices of {channels.reference} "
        "through the volume. Brightness is scaled per volume and channel.",
        Gallery([_picture(card) for card in cards]),
    ]


def _picture(card: Card) -> Picture:
    width = round(card.pixels.shape[1] * _PANEL_PX)
    return Picture(photograph(card.pixels), _caption(card), width)


def _caption(card: Card) -> str:
    entry = card.entry
    fraction = entry.tumour_slices / entry.slices
    without = f", without {' and '.join(entry.missing)}" if entry.missing else ""
    size = "" if entry.tumour_ml is None else f" ({entry.tumour_ml:.3g} ml)"
    return (
        f"{entry.volume}: {card.reason}. {entry.slices} slices, {fraction:.0%} with tumour, "
        f"{entry.tumour_pixels:,} tumour pixels{size}{without}"
    )


def _site_table(profile: Profile, manifest: Manifest) -> Table:
    is_tcga = all(entry.patient.startswith("TCGA_") for entry in manifest.volumes)
    names = SITE_NAMES if is_tcga else {}
    sites = [(site, names.get(site, ""), counts) for site, counts in profile.sites.items()]
    if len(sites) > 1:
        sites.append(("all", "", profile.counts))
    return Table.of(
        sites,
        {
            "site": lambda row: row[0],
            **({"institution": lambda row: row[1]} if names else {}),
            "patients": lambda row: row[2].patients,
            "volumes": lambda row: row[2].volumes,
            "slices": lambda row: row[2].slices,
            "fraction with tumour": lambda row: row[2].tumour_slices / row[2].slices,
            "median tumour pixels": lambda row: _five(row[2].tumour_pixels)[2],
            **(
                {"median tumour, ml": lambda row: _five(row[2].tumour_ml)[2]}
                if profile.counts.tumour_ml
                else {}
            ),
            "volumes without a sequence": lambda row: row[2].lacking_sequence,
        },
    )


def _tumour(profile: Profile, measures: Measures) -> list[Block]:
    pixels, milliliters = profile.counts.tumour_pixels, profile.counts.tumour_ml
    all_unknown = profile.spacing_unknown == profile.counts.volumes
    reason = "the files hold no voxel size" if all_unknown else "some volumes have no known spacing"
    in_ml = milliliters is not None
    note = f"Sizes are in pixels, not milliliters, because {reason}."
    return [
        Picture(draw(volume_histograms(measures)), "Volumes by site, one color each."),
        Table(
            ("per volume", *_QUANTILES),
            [
                ("slices", *_five(profile.slices)),
                ("fraction of slices with tumour", *_five(profile.tumour_share)),
                ("tumour pixels, volumes with tumour", *_five(pixels)),
                *([("tumour ml, volumes with tumour", *_five(milliliters))] if in_ml else []),
            ],
        ),
        *([] if in_ml else [note]),
    ]


def _voxels(profile: Profile, manifest: Manifest) -> list[Block]:
    channels, types = manifest.channels, profile.voxel_types
    blocks: list[Block] = [
        f"Channels: {', '.join(channels.names)}. Reports show {channels.reference}.",
        Table(("type of the voxels", "volumes"), list(types.items())),
    ]
    if profile.spacing_unknown:
        count = _some(profile.spacing_unknown, "volume")
        blocks.append(f"Spacing unknown: {count} of {profile.counts.volumes:,}.")
    rows = [
        (f"distance of {axis}, mm", *_five(values)) for axis, values in profile.spacing_mm.items()
    ]
    return [*blocks, Table(("per volume", *_QUANTILES), rows)]


def _is_as_lgg(profile: Profile, manifest: Manifest) -> bool:
    return (
        manifest.channels == LGG_CHANNELS
        and set(profile.voxel_types) == {"uint8"}
        and profile.spacing_unknown == profile.counts.volumes
    )


def _intensity(profile: Profile, manifest: Manifest, measures: Measures) -> list[Block]:
    mapped = manifest.channels.dtype != "uint8"
    levels = "Gray levels map a channel's lowest value to 0, and its 99.9th percentile to 255. "
    return [
        "Gray values from 0 to 255, from every fourth row and column. "
        f"{levels if mapped else ''}A volume's median mostly "
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
                    *((("delivered value of 0", channel.black),) if mapped else ()),
                    *((("delivered value of 255", channel.white),) if mapped else ()),
                )
            ],
        ),
    ]


def _missing(profile: Profile, manifest: Manifest) -> list[Block]:
    lacking = [entry for entry in manifest.volumes if entry.missing]
    reference = manifest.channels.reference
    if not lacking:
        return [f"Every volume has all sequences: no channel is a copy of {reference}."]
    counts = ", ".join(
        f"{channel.channel} in {_some(channel.lacking, 'volume')}"
        for channel in profile.channels
        if channel.lacking
    )
    return [
        f"A channel that equals {reference} replaces a sequence that was not acquired: {counts}.",
        Table(
            ("volume", "site", "missing"),
            [(entry.volume, entry.site, ", ".join(entry.missing)) for entry in lacking],
        ),
    ]


def _outliers(profile: Profile) -> list[Block]:
    if not profile.outliers:
        spacing = ", slice spacing" if profile.spacing_unknown < profile.counts.volumes else ""
        return [f"No volume has an unusual number of slices, tumour size{spacing} or intensity."]
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


def _is_public(profile: Profile) -> bool:
    return not profile.attributes or any(column.meaning for column in profile.attributes)


def _attributes(profile: Profile) -> list[Block]:
    is_public = _is_public(profile)
    filled = [attribute for attribute in profile.attributes if attribute.filled]
    if not filled:
        return [
            "No patient has a value; see the warnings at the top of the page."
            if profile.ingest.warnings
            else "The source has no such columns."
        ]
    return [
        *([_UNEXPLAINED] if is_public else []),
        Picture(draw(attribute_charts(filled)), "Patients by value; numbers are binned."),
        Table.of(
            profile.attributes,
            {
                "column": lambda column: column.column,
                **({"meaning": lambda column: column.meaning} if is_public else {}),
                "patients with a value": lambda column: column.filled,
                "without": lambda column: column.empty,
                "values (patients)": _values_text,
            },
        ),
    ]


def _values_text(attribute: Attribute) -> str:
    if attribute.quantiles:
        low, _, median, _, high = _five(attribute.quantiles)
        return f"{low:g} to {high:g}, median {median:g}"
    return ", ".join(f"{value} ({count:,})" for value, count in attribute.counts.items())


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
    channels, shown = manifest.channels, manifest.channels.reference_index
    has_spacing = any(entry.geometry for entry in manifest.volumes)
    return Table.of(
        manifest.volumes,
        {
            "volume": lambda entry: entry.volume,
            "site": lambda entry: entry.site,
            "slices": lambda entry: entry.slices,
            "with tumour": lambda entry: entry.tumour_slices,
            "tumour pixels": lambda entry: entry.tumour_pixels,
            **({"tumour, ml": lambda entry: entry.tumour_ml} if has_spacing else {}),
            **({"spacing, mm": _spacing_text} if has_spacing else {}),
            f"{channels.reference}, 99th percentile": lambda entry: entry.intensity[shown].p99,
            "missing": lambda entry: ", ".join(entry.missing),
        },
    )


def _spacing_text(entry: VolumeEntry) -> Cell:
    if entry.geometry is None:
        return None
    return " x ".join(f"{step:.3g}" for step in entry.geometry.spacing_mm)


def _five(values: Quantiles | None) -> tuple[Cell, ...]:
    return tuple(map(_tidy, values.model_dump().values())) if values else (None,) * len(_QUANTILES)


def _tidy(value: float) -> float | int:
    """Drops the decimals of whole numbers, and all but one of numbers from 1."""
    if value.is_integer():
        return int(value)
    return value if abs(value) < 1 else round(value, 1)


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
