"""Options of benchmarking one file and of measuring the networks of a space."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from mobiledets_tf import architecture as architectures
from mobiledets_tf import latency
from mobiledets_tf.errors import InputError
from mobiledets_tf.latency import samples
from mobiledets_tf.options import Options, option
from mobiledets_tf.search_space import SPACES, SearchSpace, get_space
from tflite_export.devices import ELSEWHERE, MEASURING, RUNNING, TIMING
from tflite_export.graphs import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(Options):
    """Options of benchmarking a file: the flags of `mobiledets-benchmark`.

    Attributes:
      model: a .tflite file from any source.
      device: one of `devices.MEASURING`.
      variant: chip or delegate of the device; None for its default.
      threads: number of threads of the runtime.
      runs: minimum number of timed inferences, after a warm-up.
      blocks: whether each block of the architecture is also timed alone (int8 files of this project).
    """

    model: str
    device: str = option("host_cpu", choices=MEASURING)
    variant: str | None = None
    threads: int = option(1, low=1, high=256)
    runs: int = option(50, low=1, high=100_000)
    blocks: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureOptions(Options):
    """Options of measuring networks of a space: the flags of `mobiledets-latency --mode=measure`.

    Attributes:
      output: samples file (.jsonl); an existing file with the same settings is continued.
      device: one of `devices.TIMING`; the command also writes files for one of `devices.ELSEWHERE`.
      variant: chip of the device; None for its default.
      search_space: one of `search_space.SPACES`.
      kernel_sizes: kernel sizes of the space.
      depth_multiplier: scales all widths of the space.
      image_size: side of the square input, in pixels.
      num_classes: number of classes without the background.
      head: `ssdlite` for the whole detector, `backbone` for the backbone.
      networks: number of networks that the complete file has.
      sampling: `uniform` draws every decision uniformly; `spread` biases half of the networks towards
        narrow or wide; `band` keeps those of them that `model` predicts inside `band`.
      band: (low, high) in ms.
      model: latency model that predicts which networks are inside the band.
      seed: seed of the networks.
      timeout_s: time limit for each network, in seconds.
      threads, runs: number of threads and of timed inferences on a device that runs the network.
    """

    output: str
    device: str = option(choices=(*TIMING, *ELSEWHERE))
    variant: str | None = None
    search_space: str = option("ibn_fused_tucker", choices=SPACES)
    kernel_sizes: Sequence[int] = (3, 5)
    depth_multiplier: float = 1.0
    image_size: int = 320
    num_classes: int = 90
    head: str = option("ssdlite", choices=latency.HEADS)
    networks: int = option(200, low=1)
    sampling: str = option("spread", choices=samples.SAMPLINGS)
    band: tuple[float, float] | None = None
    model: str | None = None
    seed: int = option(0, low=0)
    timeout_s: float = option(120.0, low=0.1)
    threads: int = option(1, low=1)
    runs: int = option(50, low=1)

    def space(self) -> SearchSpace:
        """Returns the search space."""
        return get_space(self.search_space, tuple(self.kernel_sizes), self.depth_multiplier)

    def settings(self) -> Settings:
        """Returns the image size, class count and head of the networks."""
        return Settings(architectures.image_hw(self.image_size), self.num_classes, self.head)

    def run_options(self) -> tuple[tuple[str, int], ...]:
        """Returns the options for a device that runs the network; empty for other devices."""
        runs = self.device in (*RUNNING, *ELSEWHERE)
        return (("runs", self.runs), ("threads", self.threads)) if runs else ()

    def proposals(self) -> Iterator[np.ndarray]:
        """Yields the decisions of the networks in the order in which they are measured.

        Raises:
          InputError: the model cannot be read or belongs to another space, or the band or model is missing.
        """
        space = self.space()
        networks = samples.proposals(space, self.seed, spread=self.sampling != "uniform")
        if self.sampling != "band":
            return networks
        low, high = self._band()
        if self.model is None:
            raise InputError("--sampling=band requires --model, which predicts the latency of networks")
        model = latency.load(self.model)
        model.require_space(space)
        return samples.in_band(networks, model.predict, (low, high))

    def sampling_text(self) -> str:
        """Describes how the networks are drawn, for the header of the samples file."""
        if self.sampling != "band":
            return self.sampling
        low, high = self._band()
        return f"band {low:g} to {high:g} ms"

    def _band(self) -> tuple[float, float]:
        if self.band is None:
            raise InputError("--sampling=band requires --band=LOW,HIGH in ms")
        return self.band
