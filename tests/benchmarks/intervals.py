"""How often a "95 %" interval of a mean over patients covers the true mean.

    python -m tests.benchmarks.intervals [--samples 4000]

Draws samples of 5 to 50 patients from a made-up population shaped like patient Dice (mean 0.84,
standard deviation 0.14, most patients near 0.9 and a tail of bad ones), and prints for each method
how many intervals of 100 hold the true mean, and in brackets their mean width within 0..1. The
method of the product is the last row. Takes two minutes.
"""

import argparse
from collections.abc import Callable

import numpy as np
from scipy import stats

from components.shared.scoring.intervals import mean_interval

SIZES = (5, 7, 14, 22, 50)
_RESAMPLES = 1000


def draw_dice(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Dice of patients who were never scanned: four of five do well, the others vary widely."""
    return np.where(random.random(shape) < 0.8, random.beta(16, 2, shape), random.beta(5, 3, shape))


TRUE_MEAN = 0.8 * 16 / 18 + 0.2 * 5 / 8


def percentile_bootstrap(values: np.ndarray) -> tuple[float, float]:
    """The interval that was used until it was measured."""
    return tuple(np.quantile(_resampled(values).mean(axis=1), [0.025, 0.975]))


def bca_bootstrap(values: np.ndarray) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap (Efron 1987)."""
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=_RESAMPLES, method="BCa", rng=np.random.default_rng(0)
    )
    return found.confidence_interval


def bootstrap_t(values: np.ndarray) -> tuple[float, float]:
    """Bootstrap of the t statistic."""
    again, mean = _resampled(values), values.mean()
    spread = again.std(axis=1, ddof=1)
    t = (again.mean(axis=1) - mean)[spread > 0] / spread[spread > 0]
    low, high = np.quantile(t, [0.025, 0.975])
    return mean - high * values.std(ddof=1), mean - low * values.std(ddof=1)


def plain_t(values: np.ndarray) -> tuple[float, float]:
    """Student's t interval."""
    return _t_interval(values, shift=0.0)


def johnson_t(values: np.ndarray) -> tuple[float, float]:
    """Johnson's t interval, moved by the skew of the sample (Johnson 1978)."""
    return _t_interval(values, shift=values.std() * stats.skew(values) / (6 * len(values)))


def hall_t(values: np.ndarray) -> tuple[float, float]:
    """t interval of Hall's cubic transformation of the mean (Hall 1992)."""
    skew = stats.skew(values, bias=False) / 3
    reach = stats.t.ppf(0.975, len(values) - 1) / np.sqrt(len(values))
    ends = np.array([reach, -reach])
    if abs(skew) > 1e-6:
        ends = (np.cbrt(1 + 3 * skew * (ends - skew / (2 * len(values)))) - 1) / skew
    return tuple(values.mean() - values.std(ddof=1) * ends)


def logit_t(values: np.ndarray) -> tuple[float, float]:
    """The method of the product: t interval of the mean on the logit scale."""
    return mean_interval(values)


METHODS: dict[str, Callable[[np.ndarray], tuple[float, float]]] = {
    "percentile bootstrap": percentile_bootstrap,
    "BCa bootstrap": bca_bootstrap,
    "bootstrap-t": bootstrap_t,
    "t": plain_t,
    "t, Johnson": johnson_t,
    "t, Hall": hall_t,
    "t on the logit scale": logit_t,
}


def coverage(method: Callable, size: int, samples: int, seed: int = 0) -> tuple[float, float]:
    """Share of intervals that hold the true mean, and their mean width."""
    drawn = draw_dice(np.random.default_rng(seed), (samples, size))
    low, high = np.array([method(values) for values in drawn]).T
    width = np.clip(high, 0, 1) - np.clip(low, 0, 1)
    return float(np.mean((low <= TRUE_MEAN) & (high >= TRUE_MEAN))), float(width.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=4000)
    samples = parser.parse_args().samples
    patients = draw_dice(np.random.default_rng(0), (1_000_000,))
    print(f"population: mean {TRUE_MEAN:.3f}, sd {patients.std():.3f}, ", end="")
    print(f"skew {stats.skew(patients):.1f}, 5th percentile {np.quantile(patients, 0.05):.2f}")
    print(f"{'patients':24}" + "".join(f"{size:>14}" for size in SIZES))
    for name, method in METHODS.items():
        found = [coverage(method, size, samples) for size in SIZES]
        cells = "".join(f"{100 * share:7.0f} ({width:.2f})" for share, width in found)
        print(f"{name:24}{cells}", flush=True)


def _resampled(values: np.ndarray) -> np.ndarray:
    chosen = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
    return values[chosen]


def _t_interval(values: np.ndarray, shift: float) -> tuple[float, float]:
    reach = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean() + shift - reach, values.mean() + shift + reach


if __name__ == "__main__":
    main()
