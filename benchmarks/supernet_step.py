"""Compares search steps with stand-alone training steps, and masked with sliced execution.

Trains random networks of ibn_fused_tucker for a few steps inside the supernet and, alternately in the same
process, alone with the same losses, optimizer and batch. Prints one JSON object; ratios are medians of
paired medians. Images are noise with one box each. Both sides run without TensorFlow's graph optimizer, as
the search does; stand-alone training normally uses it.

  python benchmarks/supernet_step.py --networks=20 --image_size=320 --batch_size=4
"""

import json
import subprocess
import sys
import time

import numpy as np
import steps
from absl import app, flags

flags.DEFINE_integer("networks", 20, "Number of random networks.")
flags.DEFINE_integer("masked_networks", 5, "Number of networks that also run in a masked supernet.")
flags.DEFINE_integer("image_size", 320, "Side of the square images, in pixels.")
flags.DEFINE_integer("batch_size", 4, "Images per step.")
flags.DEFINE_float("depth_multiplier", 1.0, "Scales all widths.")
flags.DEFINE_integer("runs", 5, "Number of timed steps of each network on each side.")
flags.DEFINE_integer("seed", 0, "Seed of the networks.")
PARTS = ("pairs", "masked", "supernet_memory", "largest_memory")
flags.DEFINE_enum("part", None, PARTS, "Internal: the part that this process measures.")
flags.DEFINE_integer("first", 0, "Internal: the first network that this process measures.")
FLAGS = flags.FLAGS
CLASSES = 90
# TensorFlow does not free the graphs of finished networks, so a process measures only a few networks.
_NETWORKS_A_PROCESS = 5


def main(_):
    measures = {"pairs": _pairs, "masked": _masked, None: _measure}
    print(json.dumps(measures.get(FLAGS.part, _peak_memory)()))


def _setup():
    from mobiledets_tf import search_space
    from mobiledets_tf.compat import keras, tf

    keras.utils.set_random_seed(FLAGS.seed)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    return search_space.get_space("ibn_fused_tucker", depth_multiplier=FLAGS.depth_multiplier)


def _config(architecture: str = "edgetpu"):
    from mobiledets_tf.detection import pipeline_config

    size = (FLAGS.image_size, FLAGS.image_size)
    return pipeline_config.generate(
        pipeline_config.Overrides(architecture=architecture, num_classes=CLASSES, image_size=size)
    )


def _supernet_step(space, execution: str):
    """Returns a function that makes one training step of the network of a decision vector."""
    from mobiledets_tf.models.supernet import Supernet
    from mobiledets_tf.search.step import SharedStep

    size = FLAGS.image_size
    step = SharedStep(lambda: Supernet(space, CLASSES, size, execution=execution), _config().model)
    batch = _batch()
    return lambda decisions: step.train([batch], [decisions], 0.01)


def _batch():
    return steps.noise(FLAGS.batch_size, FLAGS.image_size, CLASSES)


def _stand_alone_step(space, decisions):
    """Returns a function that makes one training step of one network alone."""
    from mobiledets_tf import compat
    from mobiledets_tf.compat import keras, tf
    from mobiledets_tf.detection import meta_architecture
    from mobiledets_tf.models import build_detector
    from mobiledets_tf.search_space import decode

    compat.enable_object_detection()
    from object_detection import model_lib

    network = build_detector(decode(space, decisions), CLASSES, FLAGS.image_size)
    model = meta_architecture.build_detection_model(_config().model, True, network)
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9, global_clipnorm=2.0)
    optimizer.build(network.trainable_variables)
    batch = _batch()

    @tf.function(autograph=False)
    def step(images, labels):
        with tf.GradientTape() as tape:
            model_lib.provide_groundtruth(model, model_lib.unstack_batch(labels, False))
            losses = model.loss(model.predict(images, None), None)
            total = tf.add_n([*losses.values(), *model.regularization_losses()])
        gradients = tape.gradient(total, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        return total

    return lambda: float(step(batch.images, batch.labels))


def _median_pair(first, second) -> tuple[float, float]:
    """Returns the median seconds of both functions, which are called alternately."""
    times = ([], [])
    for run in range(FLAGS.runs + 1):
        for function, found in zip((first, second), times, strict=True):
            start = time.perf_counter()
            function()
            if run:  # The first call of each traces or warms up.
                found.append(time.perf_counter() - start)
    return float(np.median(times[0])), float(np.median(times[1]))


def _measure() -> dict:
    """Measures everything, each part in a separate process."""
    groups = []
    for first in range(0, FLAGS.networks, _NETWORKS_A_PROCESS):
        count = min(_NETWORKS_A_PROCESS, FLAGS.networks - first)
        groups.append(_in_own_process("pairs", first, count))
    pairs = [pair for group in groups for pair in group["pairs"]]
    masked = _in_own_process("masked", 0, FLAGS.masked_networks) if FLAGS.masked_networks else []
    memory = {of: _in_own_process(f"{of}_memory") for of in ("supernet", "largest")}
    return {
        "ratio_to_standalone_median": float(np.median([p["supernet_s"] / p["stand_alone_s"] for p in pairs])),
        "masked_over_sliced_median": (
            float(np.median([p["masked_s"] / p["sliced_s"] for p in masked])) if masked else None
        ),
        "first_trace_s": max(group["first_trace_s"] for group in groups),
        "build_s": max(group["build_s"] for group in groups),
        "peak_memory_ratio": memory["supernet"] / memory["largest"],
        "peak_memory_mib": memory,
        "image_size": FLAGS.image_size,
        "batch_size": FLAGS.batch_size,
        "depth_multiplier": FLAGS.depth_multiplier,
        "pairs": pairs,
        "masked_pairs": masked,
    }


def _in_own_process(part: str, first: int = 0, count: int = 1):
    names = ("image_size", "batch_size", "depth_multiplier", "runs", "seed")
    same = [f"--{name}={getattr(FLAGS, name)}" for name in names]
    command = [sys.executable, __file__, f"--part={part}", f"--first={first}", f"--networks={count}", *same]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _networks(space) -> list[np.ndarray]:
    """Returns the networks of this process; they do not depend on how processes divide the networks."""
    from mobiledets_tf.search_space import sample

    rng = np.random.default_rng(FLAGS.seed)
    return [sample(space, rng) for _ in range(FLAGS.first + FLAGS.networks)][FLAGS.first :]


def _pairs() -> dict:
    """Compares a step inside the supernet with a step of the network alone."""
    space = _setup()
    networks = _networks(space)
    start = time.perf_counter()
    sliced = _supernet_step(space, "sliced")
    built_s = time.perf_counter() - start
    start = time.perf_counter()
    sliced(networks[0])
    first_s = time.perf_counter() - start
    pairs = []
    for decisions in networks:
        alone = _stand_alone_step(space, decisions)
        in_supernet, by_itself = _median_pair(lambda d=decisions: sliced(d), alone)
        pairs.append({"supernet_s": in_supernet, "stand_alone_s": by_itself})
        print(f"{in_supernet:.3f} / {by_itself:.3f} = {in_supernet / by_itself:.3f}", file=sys.stderr)
    return {"pairs": pairs, "first_trace_s": first_s, "build_s": built_s}


def _masked() -> list[dict]:
    """Compares the masked supernet with the sliced one."""
    space = _setup()
    sliced, masked = _supernet_step(space, "sliced"), _supernet_step(space, "masked")
    pairs = []
    for decisions in _networks(space):
        slow, quick = _median_pair(lambda d=decisions: masked(d), lambda d=decisions: sliced(d))
        pairs.append({"masked_s": slow, "sliced_s": quick})
        print(f"masked {slow:.3f} / sliced {quick:.3f} = {slow / quick:.2f}", file=sys.stderr)
    return pairs


def _peak_memory() -> float:
    """Returns the peak memory of three steps of the largest network, alone or in the supernet, in MiB."""
    space = _setup()
    decisions = _largest(space)
    step = _stand_alone_step(space, decisions) if FLAGS.part == "largest_memory" else None
    if step is None:
        train = _supernet_step(space, "sliced")
        step = lambda: train(decisions)  # noqa: E731
    for _ in range(3):
        step()
    return steps.peak_memory_mib()


def _largest(space) -> np.ndarray:
    """Returns the network with the most parameters: largest widths, and the costliest option everywhere."""
    from mobiledets_tf.search_space import SKIP, LayerOption

    def weight(option: LayerOption) -> tuple:
        if option == SKIP:
            return (0,)
        full = {"fused": 3, "tucker": 2, "ibn": 1}.get(option.op, 0)
        return (full, option.kernel_size, option.expansion or 0, option.in_ratio or 0, option.out_ratio or 0)

    chosen = []
    for _, node in space.decisions:
        best = max(node.choices, key=weight) if node.tag == "op" else max(node.choices)
        chosen.append(node.choices.index(best))
    return np.array(chosen, np.int32)


if __name__ == "__main__":
    app.run(main)
