"""Times a training step of the `edgetpu` backbone in TensorFlow and in PyTorch, and compares their numbers.

The PyTorch network is derived from the Keras model layer by layer, with its weights, and both sides have
the same images, loss and optimizer (SGD with momentum). They alternate in one process, PyTorch with its
default layout of feature maps and with `channels_last`, so ratios are valid on a busy machine, too. Each
number of threads has its own process, which may use that many cores. Prints one JSON object.

  pip install -e '.[benchmark]'  (PyTorch's build for CPUs is enough)
  python benchmarks/framework_step.py --threads=1,2

`wall` and `cpu` are medians over the rounds, in milliseconds; CPU time, the sum over all threads, changes
less on a busy machine. A ratio is the median over rounds, relative to PyTorch with its default layout and
to the faster of its layouts. `agreement` compares in float64 the losses of three steps and the gradients of
the first: the largest difference in a weight, relative to the largest entry of its gradient.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from absl import app, flags


@dataclass(frozen=True)
class Setting:
    """Sizes of the network and the batch."""

    depth_multiplier: float
    image_size: int
    batch_size: int


SETTINGS = {"narrow": Setting(0.35, 160, 16), "full": Setting(1.0, 320, 4), "tiny": Setting(0.35, 96, 2)}

flags.DEFINE_list("settings", ["narrow", "full"], f"Settings to time; allowed: {', '.join(SETTINGS)}.")
flags.DEFINE_list("threads", ["1"], "Thread counts to time; each is also the number of cores used.")
flags.DEFINE_integer("rounds", 10, "Number of timed steps and forward passes per framework.")
flags.DEFINE_integer("part_threads", None, "Internal: time with this many threads in this process.")
flags.DEFINE_bool("part_agreement", False, "Internal: compare the numbers in this process.")
FLAGS = flags.FLAGS
_LEARNING_RATE, _MOMENTUM = 0.01, 0.9


def main(_):
    if FLAGS.part_agreement:
        print(json.dumps(_agreement(Setting(0.35, 96, 4))))
    elif FLAGS.part_threads:
        # This must precede loading the frameworks, which start as many threads as there are cores.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: FLAGS.part_threads])
        print(json.dumps([_times(name) for name in FLAGS.settings]))
    else:
        timed = {count: _in_own_process(f"--part_threads={count}") for count in FLAGS.threads}
        print(json.dumps(_versions() | {"agreement": _in_own_process("--part_agreement"), "threads": timed}))


def _in_own_process(part: str):
    same = [f"--settings={','.join(FLAGS.settings)}", f"--rounds={FLAGS.rounds}"]
    command = [sys.executable, __file__, part, *same]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _versions() -> dict[str, str]:
    import torch

    from mobiledets_tf.compat import tf

    return {"tensorflow": tf.__version__, "torch": torch.__version__}


def _network(setting: Setting):
    """Returns the Keras backbone with its outputs C4 and C5, which a detector reads."""
    from mobiledets_tf import architecture
    from mobiledets_tf.compat import keras
    from mobiledets_tf.models.backbone import build_backbone

    keras.utils.set_random_seed(0)
    backbone = build_backbone(architecture.load("edgetpu"), setting.image_size, setting.depth_multiplier)
    return keras.Model(backbone.input, [backbone.output["C4"], backbone.output["C5"]])


def _arrays(network, batch_size: int, dtype: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns images and the target values of C4 and C5."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1.0, 1.0, (batch_size, *network.input.shape[1:])).astype(dtype)
    return images, [rng.normal(size=(batch_size, *o.shape[1:])).astype(dtype) for o in network.outputs]


@dataclass(frozen=True)
class Side:
    """A network in one framework.

    Attributes:
      forward: computes the loss in training mode.
      step: makes a training step; returns its loss.
      gradients: returns the gradients as arrays, in the order and the shapes of the Keras weights.
    """

    forward: Callable[[], float]
    step: Callable[[], float]
    gradients: Callable[[], list[np.ndarray]]


def _tensorflow_side(network, images: np.ndarray, targets: list[np.ndarray]) -> Side:
    from mobiledets_tf.compat import keras, tf

    optimizer = keras.optimizers.SGD(_LEARNING_RATE, momentum=_MOMENTUM)
    optimizer.build(network.trainable_variables)
    arguments = [tf.constant(array) for array in (images, *targets)]

    @tf.function
    def forward(images, *targets):
        outputs = network(images, training=True)
        return tf.add_n([tf.reduce_mean((y - t) ** 2) for y, t in zip(outputs, targets, strict=True)])

    @tf.function
    def gradients(*arguments):
        with tf.GradientTape() as tape:
            loss = forward(*arguments)
        return loss, tape.gradient(loss, network.trainable_variables)

    @tf.function
    def step(*arguments):
        loss, found = gradients(*arguments)
        optimizer.apply_gradients(zip(found, network.trainable_variables, strict=True))
        return loss

    return Side(
        lambda: float(forward(*arguments)),
        lambda: float(step(*arguments)),
        lambda: [gradient.numpy() for gradient in gradients(*arguments)[1]],
    )


def _torch_side(network, images: np.ndarray, targets: list[np.ndarray], channels_last: bool) -> Side:
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    modules = {layer: _torch_layer(layer) for layer in network.layers}
    parameters = [p for module in modules.values() if module is not None for p in module.parameters()]
    for module in modules.values():
        if module is not None:
            module.to(memory_format=layout)
    images, *targets = (
        torch.from_numpy(array.transpose(0, 3, 1, 2)).contiguous(memory_format=layout)
        for array in (images, *targets)
    )
    optimizer = torch.optim.SGD(parameters, _LEARNING_RATE, momentum=_MOMENTUM)

    def loss_of():
        values = {network.input.ref(): images}
        for layer, module in modules.items():
            if module is not None:
                values[layer.output.ref()] = module(values[layer.input.ref()])
            elif isinstance(layer.input, list):
                first, second = layer.input
                values[layer.output.ref()] = values[first.ref()] + values[second.ref()]
        outputs = [values[output.ref()] for output in network.outputs]
        return sum(((y - t) ** 2).mean() for y, t in zip(outputs, targets, strict=True))

    def forward():
        with torch.no_grad():
            return loss_of().item()

    def backward():
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss.item()

    def step():
        loss = backward()
        optimizer.step()
        return loss

    def gradients():
        backward()
        found = (p.grad.numpy() for p in parameters)
        return [
            g if g.ndim == 1 else g.transpose(2, 3, 1, 0).reshape(v.shape)
            for g, v in zip(found, network.trainable_variables, strict=True)
        ]

    return Side(forward, step, gradients)


def _torch_layer(layer):
    """Returns the PyTorch module of a Keras layer with its weights; None for an input or an addition."""
    import torch

    from mobiledets_tf.compat import keras

    if isinstance(layer, keras.layers.DepthwiseConv2D | keras.layers.Conv2D):
        (kernel,) = layer.get_weights()
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        size, stride = kernel.shape[0], layer.strides[0]
        channels = layer.input.shape[-1], layer.output.shape[-1]
        before, after = _same_padding(layer.input.shape[1], size, stride)
        padding = before if before == after else 0
        groups = channels[0] if depthwise else 1
        module = torch.nn.Conv2d(*channels, size, stride, padding, groups=groups, bias=False)
        order = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
        module.weight.data = torch.tensor(kernel.transpose(order))
        if before == after:
            return module
        return torch.nn.Sequential(torch.nn.ZeroPad2d((before, after, before, after)), module)
    if isinstance(layer, keras.layers.BatchNormalization):
        module = torch.nn.BatchNorm2d(layer.input.shape[-1], layer.epsilon, 1.0 - layer.momentum)
        tensors = (torch.tensor(weight) for weight in layer.get_weights())
        module.weight.data, module.bias.data, module.running_mean, module.running_var = tensors
        return module
    if isinstance(layer, keras.layers.ReLU):
        return torch.nn.ReLU6(inplace=True)
    if isinstance(layer, keras.layers.InputLayer | keras.layers.Add):
        return None
    raise TypeError(f"no PyTorch module for {type(layer).__name__}")


def _same_padding(side: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Returns the zeros before and after an image side with TensorFlow's SAME padding."""
    total = max((-(-side // stride) - 1) * stride + kernel_size - side, 0)
    return total // 2, total - total // 2


def _sides(setting: Setting, dtype: str) -> dict[str, Side]:
    network = _network(setting)
    arrays = _arrays(network, setting.batch_size, dtype)
    # The PyTorch sides copy the weights, so they are made before the first step changes them.
    torch_sides = {
        "torch": _torch_side(network, *arrays, channels_last=False),
        "torch_channels_last": _torch_side(network, *arrays, channels_last=True),
    }
    return {"tensorflow": _tensorflow_side(network, *arrays)} | torch_sides


def _times(name: str) -> dict:
    import torch

    setting = SETTINGS[name]
    torch.set_num_threads(FLAGS.part_threads)
    sides = _sides(setting, "float32")
    losses = {}
    for side, found in sides.items():
        losses[side] = found.step()
        found.forward()  # Traces.
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    jobs = {"step": lambda side: side.step(), "forward": lambda side: side.forward()}
    times = {(job, clock, side): [] for job in jobs for clock in clocks for side in sides}
    for _ in range(FLAGS.rounds):
        for job, run in jobs.items():
            for side, found in sides.items():
                starts = {clock: read() for clock, read in clocks.items()}
                run(found)
                for clock, read in clocks.items():
                    times[job, clock, side].append(1000.0 * (read() - starts[clock]))
    return {
        "setting": name,
        **vars(setting),
        **{job: {clock: _summary(times, job, clock, list(sides)) for clock in clocks} for job in jobs},
        "first_loss": losses,
    }


def _summary(times: dict, job: str, clock: str, sides: list[str]) -> dict[str, float]:
    medians = {side: float(np.median(times[job, clock, side])) for side in sides}
    ours, default, last = (np.array(times[job, clock, side]) for side in sides)
    faster = default if medians[sides[1]] < medians[sides[2]] else last
    ratios = {"ratio_to_default": np.median(ours / default), "ratio_to_faster": np.median(ours / faster)}
    return medians | {name: float(ratio) for name, ratio in ratios.items()}


def _agreement(setting: Setting) -> dict[str, float]:
    from mobiledets_tf.compat import keras

    # In float32, rounding alone changes gradients behind fifty normalisations by up to one percent.
    keras.backend.set_floatx("float64")
    sides = _sides(setting, "float64")
    gradients = [sides[side].gradients() for side in ("tensorflow", "torch")]
    losses = np.array([[sides[side].step() for _ in range(3)] for side in ("tensorflow", "torch")])
    largest = [float(np.max(np.abs(gradient))) for gradient in gradients[1]]
    # An offset that is followed by another normalisation has gradient 0, so only rounding errors remain.
    rounding = 1e-9 * max(largest)
    differences = (
        np.max(np.abs(ours - theirs)) / max(most, rounding)
        for ours, theirs, most in zip(*gradients, largest, strict=True)
    )
    return {
        "loss_difference": float(np.max(np.abs(losses[0] - losses[1]) / losses[1])),
        "gradient_difference": float(max(differences)),
    }


if __name__ == "__main__":
    app.run(main)
