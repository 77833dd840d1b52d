"""The gate's odds: how often a model of known worth replaces the champion.

    python -m tests.benchmarks.gate [--trials 2000]

Simulates the Dice of patients at the sites of the real data (paired differences normal, with a
standard deviation of 0.065 as between two trainings of preset `quick`; --heavy gives one patient in
ten three times the spread) and asks the rules of the product. "Lucky champion": one that was chosen
on these patients again and again and scores about 0.02 above its true mean on them; against it a
model truly better by 0.02. "Ten tries" are ten such trainings, one after the other, each compared
with that champion on the same patients. Takes two minutes.
"""

import argparse
from collections.abc import Mapping, Sequence

import numpy as np

from components.register.decision import decide
from components.register.settings import RegisterSettings
from components.shared.scoring.comparison import compare
from components.shared.scoring.scores import PATIENT_FIGURES, PatientScore

PATIENTS = (4, 14, 22, 50)
DIFFERENCES = (-0.05, -0.03, 0.0, 0.02)

_SPREAD = 0.065  # standard deviation of the paired differences
_LUCK = 0.02
_SITES = {"CS": 16, "DU": 45, "EZ": 1, "FG": 14, "HT": 34}  # patients of the real data set
_METRICS: Mapping[str, float] = {
    "patient_dice_mean": 0.8,
    "patient_dice_mean_empty_baseline": 0.0,
    "pooled_dice": 0.8,
    "pooled_dice_empty_baseline": 0.0,
}


def patient_scores(
    dice: Sequence[float],
    sites: Sequence[str] = ("CS", "DU", "HT"),
    sizes: Sequence[int] | None = None,
) -> list[PatientScore]:
    """Scores of patients who were never scanned.

    Args:
        dice: Of each patient.
        sites: In turn.
        sizes: Order of their tumours by size; by default as they come.
    """
    return [
        PatientScore(
            **dict.fromkeys(PATIENT_FIGURES)
            | {
                "volume": f"volume {number}",
                "patient": f"patient {number}",
                "site": sites[number % len(sites)],
                "tumour_pixels": 1000 + (sizes[number] if sizes else number),
                "dice": value,
            }
        )
        for number, value in enumerate(dice)
    ]


class Clinic:
    """A test set with a champion, and candidates of known worth."""

    def __init__(self, random: np.random.Generator, patients: int, luck: float, heavy: bool):
        self._random, self._heavy = random, heavy
        shares = np.array(list(_SITES.values())) / sum(_SITES.values())
        self._sites = random.choice(list(_SITES), patients, p=shares).tolist()
        self._sizes = random.permutation(patients).tolist()
        self._champion = self._scores(luck)

    def promotes(self, difference: float, settings: RegisterSettings) -> bool:
        """Trains a model that is truly better by `difference`, and asks the gate."""
        candidate = self._scores(difference)
        compared = compare(candidate, self._champion, settings.bound_confidence)
        return decide(_METRICS, compared, "version 1", settings).promoted

    def _scores(self, better: float) -> list[PatientScore]:
        spread = np.full(len(self._sites), _SPREAD / np.sqrt(2))  # of each of the two models
        if self._heavy:
            spread *= np.where(self._random.random(len(spread)) < 0.1, 3, 1) / np.sqrt(1.8)
        dice = 0.6 + better + self._random.normal(0, spread)
        return patient_scores(dice.tolist(), self._sites, self._sizes)


def odds(
    patients: int,
    difference: float,
    *,
    trials: int,
    luck: float = 0.0,
    tries: int = 1,
    heavy: bool = False,
    settings: RegisterSettings | None = None,
    seed: int = 0,
) -> float:
    """Share of trials in which a model truly better by `difference` is promoted.

    Args:
        patients: In the test set.
        difference: True mean difference in patient Dice.
        trials: Test sets that are drawn.
        luck: By how much the champion scores above its true mean.
        tries: Models that are compared one after the other, until one is promoted.
        heavy: Whether few patients differ much more than the others.
        settings: The rules; by default those of the product.
        seed: Of the draws.
    """
    rules = settings or RegisterSettings()
    random = np.random.default_rng(seed)
    found = 0
    for _ in range(trials):
        clinic = Clinic(random, patients, luck, heavy)
        found += any(clinic.promotes(difference, rules) for _ in range(tries))
    return found / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--heavy", action="store_true")
    given = parser.parse_args()
    told = {"trials": given.trials, "heavy": given.heavy}
    print("promoted, times in 100")
    print(f"{'true difference':32}" + "".join(f"{one:>+9.2f}" for one in DIFFERENCES))
    for patients in PATIENTS:
        cells = [100 * odds(patients, difference, **told) for difference in DIFFERENCES]
        print(f"{patients:3} test patients {'':14}" + "".join(f"{one:9.1f}" for one in cells))
    first = odds(14, 0.02, luck=_LUCK, **told)
    ten = odds(14, 0.02, luck=_LUCK, tries=10, **told)
    print("lucky champion, 14 test patients, a model better by 0.02:")
    print(f"{'  at the first try':24}{100 * first:9.1f}")
    print(f"{'  never in ten tries':24}{100 * (1 - ten):9.1f}")


if __name__ == "__main__":
    main()
