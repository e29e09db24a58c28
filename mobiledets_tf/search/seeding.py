"""Initialises the shared weights of a search from trained weights.

The trained weights are assigned to one network of the space, the one nearest to the network that they
were trained in. Their channels are sorted by importance because narrower networks use the first of the
shared channels (as in once-for-all, arXiv 1908.09791).
"""

from collections.abc import Sequence

import numpy as np

from mobiledets_tf.models.supernet import Supernet
from mobiledets_tf.search.known import Known, nearest
from mobiledets_tf.search_space import decode
from mobiledets_tf.weights import fitting
from mobiledets_tf.weights.imported_weights import Account, Target

# Name among the known networks of the network that the trained weights come from.
NAME = "init_from"


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
      number: random seed of weights that are initialised anew.

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
