"""Loading of the weights that a network starts from."""

from pathlib import Path

from components.shared.model.network import VolumeSegmenter
from components.shared.model.pretrained import load_encoder, load_network
from components.shared.model.weights_file import read_weights
from components.shared.storage.store import Store
from components.shared.weights.stored import weights_path
from components.train.initial import WHOLE, InitialWeights


def load_initial(
    segmenter: VolumeSegmenter, weights: InitialWeights, section: str, store: Store, cache: Path
) -> None:
    """Loads the weights of a section of the recipe, if it names some.

    Args:
        segmenter: Segmenter with random weights, which is changed in place.
        weights: Weights of the recipe's networks.
        section: Section of the segmenter's network.
        store: Store of the weights.
        cache: Folder for copies of files in the store.

    Raises:
        UserError: If the store lacks them, they are damaged, or they are of another network.
    """
    found = weights.of(section)
    if found is None:
        return
    setting, stored = found
    tensors = read_weights(weights_path(store, stored, cache), stored.source)
    if setting == WHOLE:
        load_network(segmenter, tensors, stored.config, stored.source)
    else:  # a network of the user's may have no encoder
        encoder = getattr(segmenter.network, "encoder", segmenter.network)
        load_encoder(encoder, tensors, stored.source)
