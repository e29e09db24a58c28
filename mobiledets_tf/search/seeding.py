"""Puts trained weights into the shared ones, so that a search does not start from nothing.

The weights become those of one network of the space, the one nearest to what they were trained in.
Their channels are ordered by importance: narrower networks take the first of shared channels (as
once-for-all does, arXiv 1908.09791).
"""

from collections.abc import Sequence

import numpy as np

from mobiledets_tf.detection.imported import Account, Target
from mobiledets_tf.models.supernet import Supernet
from mobiledets_tf.search.known import Known, nearest
from mobiledets_tf.search_space import decode
from mobiledets_tf.weights import fitting

# Name of the seed's network among the known ones.
NAME = "init_from"


def seed(
    supernet: Supernet, source: Account, known: Sequence[Known], images: fitting.Images, number: int = 0
) -> list[str]:
    """Puts weights into a supernet.

    Args:
      supernet: is changed.
      source: weights of any network.
      known: networks inside the latency band; the one with the seed's name is taken where there is one,
        otherwise the nearest network of the space, whatever it costs.
      images: training batches, float32 [batch, height, width, 3] in [-1, 1].
      number: seed of weights that stay fresh.

    Returns:
      What became of the weights, lines for people.
    """
    scaled = source.target.architecture.scaled(source.target.depth_multiplier)
    fitted = next((one.decisions for one in known if one.name == NAME), None)
    decisions = np.array(nearest(supernet.space, scaled) if fitted is None else fitted, np.int32)
    target = Target(decode(supernet.space, decisions, NAME), supernet.num_classes, supernet.image_size)
    account = fitting.fit(source, target, images, seed=number, by_worth=True)
    supernet.assign(decisions, {name.removesuffix(":0"): value for name, value in account.weights.items()})
    return account.summary()
