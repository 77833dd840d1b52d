"""The page of `brainseg find-lr`: one HTML file that needs no network."""

from components.shared.report.learning_rate import LearningRateSearch, search_blocks
from components.shared.report.page import Block, Section, render_page
from components.train.finder import with_found_rate
from components.train.recipe import Recipe


def render_search(search: LearningRateSearch, recipe: Recipe, dataset_id: str, volumes: int) -> str:
    """Renders the page of a recipe's search; `volumes` is the number of training volumes."""
    network = recipe.network
    return render_page(
        "Learning rate",
        f"{network.architecture} with {network.encoder}, {network.image_size} pixels, batches of "
        f"{recipe.sampling.batch_size}; data set {dataset_id}, {volumes} training volumes",
        [
            Section(
                "Suggestion",
                [*search_blocks(search), *filter(None, [search_scope(search, recipe)])],
            ),
            Section("How to use it", _use(search, recipe)),
            Section("How it is found", _method()),
        ],
    )


def search_scope(search: LearningRateSearch, recipe: Recipe) -> str:
    """Limits of a search that is not for the whole recipe; else empty."""
    sentences = []
    if recipe.flair_network is not None:
        sentences.append(
            "It is for the first of the recipe's two networks, on scans that have all sequences. "
            "With train.optimizer.find_learning_rate=true a training run searches for both."
        )
    factor = recipe.schedule.phases[0].lr_factor
    if factor != 1 and search.suggestion:
        rate = with_found_rate(recipe, search).optimizer.learning_rate
        sentences.append(
            f"It is the peak of the first phase, whose lr_factor is {factor:g}: "
            f"train.optimizer.learning_rate={rate:.2g} gives it."
        )
    return " ".join(sentences)


def _use(search: LearningRateSearch, recipe: Recipe) -> list[Block]:
    now = f"The recipe has {recipe.optimizer.learning_rate:.2g}."
    if not search.suggestion:
        return [f"{now} Check the masks and the augmentation before training with it."]
    rate = with_found_rate(recipe, search).optimizer.learning_rate
    return [
        f"{now} To train with the suggestion, add --set train.optimizer.learning_rate={rate:.2g} "
        "to brainseg run, or write it into the recipe. With "
        "train.optimizer.find_learning_rate=true each training run searches for its own.",
        "It is the peak of a schedule with a warm-up, for this network, image size, batch size, "
        "loss and augmentation. Search again when one of them changes. Two searches with "
        "different seeds may differ by a factor of four.",
    ]


def _method() -> list[Block]:
    return [
        "A copy of the network is trained on the training patients, each step at a higher "
        "learning rate, until the loss diverges or the highest rate is reached (L. N. Smith, "
        "Cyclical learning rates for training neural networks, 2017). The copy is discarded.",
        "The suggestion follows the rule that fastai calls valley: the middle, on the logarithmic "
        "scale, of the longest stretch over which the smoothed loss falls. The point of the "
        "steepest fall is shown for comparison. The loss lags behind the learning rate that "
        "lowers it, so that point is often too high to train with.",
    ]
