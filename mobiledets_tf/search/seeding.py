"""Initialises the shared weights of a search from trained weights.

The trained weights are assigned to one network of the space, the one nearest to the network that they
were trained in. Their channels are sorted by importance because narrower networks use the first of the
shared channels (as in once-for-all, arXiv 1908.09791).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mobiledets_tf import architecture as architectures
from mobiledets_tf.architecture import Architecture
from mobiledets_tf.latency import LatencyModel
from mobiledets_tf.models.supernet import Supernet
from mobiledets_tf.search.known import Known, nearest
from mobiledets_tf.search_space import decode
from mobiledets_tf.weights import fitting, readers
from mobiledets_tf.weights.imported_weights import Account, Target

# Name among the known networks of the network that the trained weights come from.
NAME = "init_from"


def read(path: str, latency: LatencyModel) -> Account:
    """Reads the weights that a search starts from, and the network that they belong to.

    Args:
      path: folder or checkpoint of this project, TF1 checkpoint, or .tflite file.
      latency: a latency model of the search. If the weights do not name their network, the published
        networks are tried, with the classes, image size and depth multiplier of this model.

    Raises:
      InputError: there are no weights, or they are damaged or belong to an unknown network.
    """
    network, multiplier = architectures.load("edgetpu"), latency.space.depth_multiplier
    return readers.read_for(path, Target(network, latency.num_classes, latency.image_size, multiplier))


def candidates(source: Account | None) -> tuple[Architecture, ...]:
    """Returns the network of trained weights, with its final widths, as the candidate named `NAME`."""
    if source is None:
        return ()
    scaled = source.target.architecture.scaled(source.target.depth_multiplier)
    return (dataclasses.replace(scaled, name=NAME),)


def seed(
    supernet: Supernet, source: Account, known: Sequence[Known], images: fitting.Images, number: int = 0
) -> list[str]:
    """Puts trained weights into a supernet.

    Args:
      supernet: the supernet, which is changed.
      source: trained weights of any network.
      known: networks inside the latency band. If one is named `NAME`, it receives the weights; otherwise
        the nearest network of the space does, whatever its cost.
      images: training batches, float32 [batch, height, width, 3] in [-1, 1].
      number: random seed for weights that are newly initialised.

    Returns:
      Human-readable lines that say what became of the weights.
    """
    scaled = source.target.architecture.scaled(source.target.depth_multiplier)
    fitted = next((one.decisions for one in known if one.name == NAME), None)
    decisions = np.array(nearest(supernet.space, scaled) if fitted is None else fitted, np.int32)
    target = Target(decode(supernet.space, decisions, NAME), supernet.num_classes, supernet.image_size)
    account = fitting.fit(source, target, images, seed=number, by_worth=True)
    supernet.assign(decisions, {name.removesuffix(":0"): value for name, value in account.weights.items()})
    return account.summary()
