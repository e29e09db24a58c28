"""Conversion of a trained layer to another kind of layer through a fused form.

Every layer of the space is approximately a full convolution to some inner channels, an activation and
a pointwise projection. `fused_form` converts a trained layer to that form, from which each kind of
layer is made as follows:

  fused      use the form itself
  ibn        take the best rank-one factors of each inner channel's kernel
             (`decompose.depthwise_and_pointwise`)
  separable  replace the activation by its linear fit, then take the best rank-one factors of each input
             channel's kernel
  tucker     replace the activation by its linear fit, then compute the Tucker decomposition

A converted layer has an activation where the original layer had none. It is kept linear there: the
batch normalisation before the activation maps its input to the middle of the linear range, and the
next operation undoes this. The kernels are computed as if input channels were independent;
`Made.linear` lists where measured statistics should correct this.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from mobiledets_tf.weights import decompose
from mobiledets_tf.weights.channels import Folded
from mobiledets_tf.weights.moments import LINEAR_AT, through


@dataclasses.dataclass
class FusedForm:
    """A layer in the form of a full convolution, an activation and a projection.

    Attributes:
      expand: the full convolution, kernel [k, k, in, inner].
      project: the projection, kernel [1, 1, inner, out].
      activation: activation between the two.
      how: `copied` if the layer was a fused one, `composed` otherwise.
    """

    expand: Folded
    project: Folded
    activation: str
    how: str

    def some(self, inputs: np.ndarray, outputs: np.ndarray) -> "FusedForm":
        """Returns the form with only the given input and output channels."""
        kernel = self.expand.kernel[:, :, inputs]
        expand = dataclasses.replace(self.expand, kernel=kernel)
        return dataclasses.replace(self, expand=expand, project=self.project.some(outputs))

    def inner(self, places: int) -> "FusedForm":
        """Returns the form with at most `places` inner channels: the most important ones in their order."""
        _, spread, _ = through(self.activation, self.expand.mean, self.expand.std)
        worth = spread * np.linalg.norm(self.project.kernel[0, 0], axis=1)
        kept = np.sort(np.argsort(-worth, kind="stable")[:places])
        kernel = self.project.kernel[:, :, kept]
        project = dataclasses.replace(self.project, kernel=kernel)
        return dataclasses.replace(self, expand=self.expand.some(kept), project=project)

    def full(self) -> Folded:
        """Returns one full convolution, in which the activation is replaced by its linear fit."""
        mean, _, slope = through(self.activation, self.expand.mean, self.expand.std)
        rows = self.project.kernel[0, 0] * slope[:, None]
        constant = (mean + slope * (self.expand.offset - self.expand.mean)) @ self.project.kernel[0, 0]
        kernel = self.expand.kernel @ rows
        return Folded(kernel, self.project.offset + constant, self.project.mean, self.project.std)


@dataclasses.dataclass
class Made:
    """A layer converted to the wanted kind.

    Attributes:
      parts: role (`expand`, `depthwise`, ...) -> convolution, with the kernel layout of the role.
      how: how the weights were made, as in `imported_weights.Origin`.
      error: relative error of the decomposition, None if there was none.
      linear: (role, role that reads its output) pairs in which the BN of the first role keeps the
        activation linear.
    """

    parts: dict[str, Folded]
    how: str
    error: float | None = None
    linear: tuple[tuple[str, str], ...] = ()


def fused_form(parts: Mapping[str, Folded], activation: str, op: str) -> FusedForm:
    """Converts a trained layer to fused form; a squeeze-excite is left out.

    Args:
      parts: role -> convolution.
      activation: activation of the layer.
      op: kind of the layer, `ibn`, `fused`, `tucker` or `dwsep_no_expansion`.
    """
    if op == "fused":
        return FusedForm(parts["expand"], parts["project"], activation, "copied")
    if op == "dwsep_no_expansion":
        spatial = parts["depthwise"]
        kernel = decompose.compose_depthwise(np.eye(len(spatial.offset))[None, None], spatial.kernel)
        expand = dataclasses.replace(spatial, kernel=kernel)
        return FusedForm(expand, parts["project"], activation, "composed")
    roles = ("expand", "depthwise") if op == "ibn" else ("compress", "conv")
    first, spatial = (parts[role] for role in roles)
    mean, _, slope = through(activation, first.mean, first.std)
    constant = mean + slope * (first.offset - first.mean)
    if op == "ibn":
        kernel = decompose.compose_depthwise(first.kernel * slope, spatial.kernel)
        offset = spatial.kernel.sum(axis=(0, 1))[:, 0] * constant
    else:
        kernel = decompose.compose(first.kernel * slope, spatial.kernel)
        offset = constant @ spatial.kernel.sum(axis=(0, 1))
    expand = Folded(kernel, spatial.offset + offset, spatial.mean, spatial.std)
    return FusedForm(expand, parts["project"], activation, "composed")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Description of the layer to be made.

    Attributes:
      kernel_size: size of the spatial kernel.
      widths: role -> number of output channels.
      activation: activation inside the layer.
      mean, std: mean and standard deviation of the layer's input, float64 [in], estimated from the BN of
        the trained network.
    """

    kernel_size: int
    widths: Mapping[str, int]
    activation: str
    mean: np.ndarray
    std: np.ndarray


def middle(kernel: np.ndarray, side: int) -> np.ndarray:
    """Crops a kernel [k, k, ...] to its middle or pads it with zeros, to `side` x `side`."""
    margin = (side - kernel.shape[0]) // 2
    if margin < 0:
        return kernel[-margin:margin, -margin:margin]
    return np.pad(kernel, [(margin, margin), (margin, margin)] + [(0, 0)] * (kernel.ndim - 2))


def to_fused(form: FusedForm, wanted: Wanted) -> Made:
    """Makes a fused inverted bottleneck."""
    form = form.inner(wanted.widths["expand"])
    expand = dataclasses.replace(form.expand, kernel=middle(form.expand.kernel, wanted.kernel_size))
    return Made({"expand": expand, "project": form.project}, form.how)


def to_ibn(form: FusedForm, wanted: Wanted) -> Made:
    """Makes an inverted bottleneck."""
    form = form.inner(wanted.widths["expand"])
    kernel = middle(form.expand.kernel, wanted.kernel_size)
    spatial, mix, error = decompose.depthwise_and_pointwise(kernel)
    expand, scale, shift = _kept_linear(mix, wanted, wanted.mean, wanted.std)
    offset = form.expand.offset + spatial.sum(axis=(0, 1))[:, 0] * shift
    depthwise = Folded(spatial * scale[:, None], offset, form.expand.mean, form.expand.std)
    parts = {"expand": expand, "depthwise": depthwise, "project": form.project}
    return Made(parts, "decomposed", error, (("expand", "depthwise"),))


def to_separable(form: FusedForm, wanted: Wanted) -> Made:
    """Makes a depthwise convolution followed by a projection."""
    whole = form.full()
    kernel = middle(whole.kernel, wanted.kernel_size)
    spatial, mix, error = decompose.depthwise_then_pointwise(kernel)
    depthwise, scale, shift = _kept_linear(spatial, wanted, wanted.mean, wanted.std, depthwise=True)
    project = _behind(mix, whole, scale, shift)
    return Made(
        {"depthwise": depthwise, "project": project}, "decomposed", error, (("depthwise", "project"),)
    )


def to_tucker(form: FusedForm, wanted: Wanted) -> Made:
    """Makes a Tucker layer."""
    whole = form.full()
    kernel = middle(whole.kernel, wanted.kernel_size)
    ranks = (min(wanted.widths["compress"], kernel.shape[2]), min(wanted.widths["conv"], kernel.shape[3]))
    inputs, core, outputs, error = decompose.tucker(kernel, *ranks)
    compress, scale, shift = _kept_linear(inputs, wanted, wanted.mean, wanted.std)
    # Moments of the compression's output without its batch normalisation and activation.
    plain_mean = wanted.mean @ inputs[0, 0]
    plain_std = np.sqrt((wanted.std**2) @ inputs[0, 0] ** 2)
    conv, scale_core, shift_core = _kept_linear(core, wanted, plain_mean, plain_std)
    conv = dataclasses.replace(
        conv,
        kernel=conv.kernel * scale[:, None],
        # `shift` is the constant missing from the compression's output, before BN and activation.
        offset=conv.offset + shift @ conv.kernel.sum(axis=(0, 1)),
    )
    parts = {"compress": compress, "conv": conv, "project": _behind(outputs, whole, scale_core, shift_core)}
    return Made(parts, "decomposed", error, (("compress", "conv"), ("conv", "project")))


MAKERS: dict[str, Callable[[FusedForm, Wanted], Made]] = {
    "fused": to_fused,
    "ibn": to_ibn,
    "dwsep_no_expansion": to_separable,
    "tucker": to_tucker,
}


def _kept_linear(
    kernel: np.ndarray, wanted: Wanted, mean: np.ndarray, std: np.ndarray, depthwise: bool = False
) -> tuple[Folded, np.ndarray, np.ndarray]:
    """Makes a convolution whose activation operates in its linear range.

    Args:
      kernel: [k, k, in, out], or [k, k, in, 1] if it is depthwise.
      wanted: description of the layer, which defines the activation.
      mean, std: mean and standard deviation of the convolution's input, [in].
      depthwise: whether the kernel is depthwise.

    Returns:
      (the convolution, scale [out], shift [out]): kernel * x is approximately scale * output + shift.
    """
    spread, summed = (kernel**2).sum(axis=(0, 1)), kernel.sum(axis=(0, 1))
    if depthwise:
        out_mean, variance = summed[:, 0] * mean, spread[:, 0] * std**2
    else:
        out_mean, variance = mean @ summed, std**2 @ spread
    # The lower bound prevents a division by zero; a channel that is zero stays zero.
    deviation = np.maximum(np.sqrt(variance), 1e-6)
    at = np.full(len(out_mean), LINEAR_AT[wanted.activation])
    ones = np.ones_like(at)
    value, _, slope = through(wanted.activation, at, ones)
    along = deviation[:, None] if depthwise else deviation
    made = Folded(kernel / along, at - out_mean / deviation, at, ones)
    scale = deviation / slope
    return made, scale, out_mean - scale * value


def _behind(mix: np.ndarray, whole: Folded, scale: np.ndarray, shift: np.ndarray) -> Folded:
    """Makes the projection after a convolution that is kept linear; it undoes scale and shift."""
    return Folded(mix * scale[:, None], whole.offset + shift @ mix[0, 0], whole.mean, whole.std)
