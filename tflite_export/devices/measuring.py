"""Measures networks of a space on a device, one at a time in a separate process that may hang or crash.

Only this module connects the two: latency models don't depend on devices, nor devices on search spaces.
"""

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mobiledets_tf.errors import InputError, unknown_name
from mobiledets_tf.latency import LatencyModel, samples
from mobiledets_tf.latency.held_out import Figures, allowed_error_pct, figures
from mobiledets_tf.search_space import SearchSpace, decode
from tflite_export import devices
from tflite_export.devices.options import MeasureOptions
from tflite_export.graphs import Settings, network_graph

# A device needs at most a few seconds per detector; one that takes minutes has hung.
TIMEOUT_S = 120.0
# Additional time for the first network, during which the device's libraries are loaded.
START_S = 120.0


@dataclasses.dataclass(frozen=True)
class Target:
    """The networks to measure and the device to measure them on.

    Attributes:
      device, variant: see `tflite_export.devices`.
      space: search space of the decision vectors.
      settings: image size, classes and head.
      options: `threads` and `runs` for a device that runs the network.
    """

    device: str
    variant: str
    space: SearchSpace
    settings: Settings = Settings()
    options: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of_model(cls, model: LatencyModel) -> "Target":
        """Returns the target that a latency model was fitted to.

        Raises:
          InputError: the device cannot be measured by this program.
        """
        if model.device not in devices.TIMING:
            raise unknown_name("device to measure", model.device, devices.TIMING)
        settings = Settings(model.image_size, model.num_classes, model.head)
        options = model.info.get("measured_with", {})
        return cls(model.device, model.variant, model.space, settings, tuple(sorted(options.items())))

    @classmethod
    def of_header(cls, header: dict[str, Any], space: SearchSpace) -> "Target":
        """Returns the target that samples were measured on; raises the same errors as `of_model`."""
        if header["device"] not in devices.TIMING:
            raise unknown_name("device to measure", header["device"], devices.TIMING)
        settings = Settings(tuple(header["image_size"]), header["num_classes"], header["head"])
        options = tuple(sorted(header.get("measured_with", {}).items()))
        return cls(header["device"], header["variant"], space, settings, options)

    @classmethod
    def of_options(cls, options: MeasureOptions) -> "Target":
        """Returns the target that options name; the variant may be unknown to the device."""
        if options.device in devices.ELSEWHERE:
            variant = options.variant or ""
        else:
            default = devices.load(options.device).DEFAULT_VARIANT
            variant = default if options.variant is None else options.variant
        return cls(options.device, variant, options.space(), options.settings(), options.run_options())

    def header(self, seed: int, sampling: str) -> dict[str, Any]:
        """Returns the first line of a samples file; asks the device for its versions.

        Raises:
          InputError: the device's optional dependency is missing, or the variant is unknown.
        """
        module = devices.load(self.device)
        if self.variant not in module.VARIANTS:
            raise unknown_name(f"variant of {self.device}", self.variant, module.VARIANTS)
        return make_header(self, module.KIND, module.versions(self.variant), seed, sampling)

    def measure(self, decisions: np.ndarray) -> float:
        """Measures one network in this process; returns milliseconds."""
        graph = network_graph(decode(self.space, decisions), self.settings)
        return devices.load(self.device).measure_graph(graph, self.variant, **dict(self.options)).median_ms


def make_header(
    target: Target, kind: str, versions: dict[str, str], seed: int, sampling: str
) -> dict[str, Any]:
    """Returns the first line of a samples file: the device, the settings and how networks were drawn.

    Args:
      target: the device and the networks' settings.
      kind: one of `latency.kinds.KINDS`.
      versions: versions of everything that the times depend on.
      seed, sampling: how the networks were drawn; see `latency.samples`.
    """
    return {
        "device": target.device,
        "variant": target.variant,
        "kind": kind,
        "versions": versions,
        "search_space": target.space.options() | {"hash": target.space.hash},
        "image_size": list(target.settings.image_size),
        "num_classes": target.settings.num_classes,
        "head": target.settings.head,
        "seed": seed,
        "sampling": sampling,
    } | ({"measured_with": dict(target.options)} if target.options else {})


class Process:
    """A device in a separate process; call it with decisions to get milliseconds.

    If a network does not return in time, only the process is lost, not the run: the next network starts
    a new process. Use it as a context manager.
    """

    def __init__(self, target: Target, timeout_s: float = TIMEOUT_S):
        self.target, self.timeout_s = target, timeout_s
        self._context = multiprocessing.get_context("spawn")
        self._running: tuple[BaseProcess, Connection] | None = None

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def __call__(self, decisions: np.ndarray) -> float:
        """Measures one network; returns milliseconds.

        Raises:
          InputError: a problem that affects every network, such as a missing optional dependency.
          RuntimeError: the device failed on this network, crashed or did not return in time.
        """
        starting = self._running is None
        process, pipe = self._running = self._running or self._started()
        try:
            pipe.send(np.asarray(decisions))
            if not pipe.poll(self.timeout_s + (START_S if starting else 0)):
                raise RuntimeError(f"{self.target.device} did not answer within {self.timeout_s:g} s")
            kind, value = pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            process.join(5)
            code = process.exitcode
            self._stop()
            raise RuntimeError(f"the process of {self.target.device} died (exit code {code})") from error
        except BaseException:
            self._stop()
            raise
        if kind == "input":
            raise InputError(value)
        if kind == "error":
            raise RuntimeError(value)
        return value

    def _started(self) -> tuple[BaseProcess, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(self.target, theirs), daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def _stop(self) -> None:
        if self._running is not None:
            process, pipe = self._running
            process.kill()
            process.join()
            pipe.close()
            self._running = None


def run(
    options: MeasureOptions, progress: Callable[..., Iterable] = lambda items, **kwargs: items
) -> dict[str, Any]:
    """Measures networks of a space on a device of this machine until the samples file is complete.

    Args:
      options: the device, the networks and the file.
      progress: wraps the range of the missing networks with a progress bar (tqdm).

    Returns:
      The numbers of networks `measured` and `failed` in this call, its duration in `seconds`, and the
      `kind` and the `device` of the times.

    Raises:
      InputError: the device is not on this machine, its optional dependency is missing, the variant is
        unknown, or an existing file has samples with other settings.
    """
    if options.device in devices.ELSEWHERE:
        raise InputError(
            f"--device={options.device} is timed elsewhere; allowed here: {', '.join(devices.TIMING)}"
        )
    target = Target.of_options(options)
    header = target.header(options.seed, options.sampling_text())
    with Process(target, options.timeout_s) as measure:
        done = samples.collect(
            options.output, header, options.proposals(), options.networks, measure, progress
        )
    return done | {"kind": header["kind"], "device": target.device}


def _serve(target: Target, pipe: Connection) -> None:
    """Runs in the process that `Process` starts: replies to each network with (kind, value)."""
    # Interrupts are handled by the process that writes the file.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Devices print directly to stdout, past Python; the replies use the pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            decisions = pipe.recv()
            try:
                pipe.send(("ms", float(target.measure(decisions))))
            except InputError as error:
                pipe.send(("input", str(error)))
            except Exception as error:  # A device's libraries may raise any exception.
                pipe.send(("error", str(error) or type(error).__name__))


def measured_beside_predicted(
    model: LatencyModel, networks: Iterable[np.ndarray], timeout_s: float = TIMEOUT_S
) -> Iterator[dict[str, Any]]:
    """Measures networks again on the device of a model, such as the finalists of a search.

    Args:
      model: a model of a device in `devices.TIMING`.
      networks: decision vectors of the model's space.
      timeout_s: time limit for each network.

    Yields:
      A JSON-ready dict for each network: `decisions`, `predicted` and `measured` in the model's unit,
      `kind` of the figure, `error_pct`. If measuring failed, `failed`, a reason, replaces `measured`
      and `error_pct`.

    Raises:
      InputError: the device cannot be reached from this machine.
    """
    target = Target.of_model(model)
    with Process(target, timeout_s) as measure:
        for decisions in networks:
            predicted = model.predict_one(decisions)
            row = {"decisions": [int(d) for d in decisions], "predicted": predicted, "kind": model.kind}
            try:
                measured = measure(decisions)
            except RuntimeError as error:
                yield row | {"failed": " ".join(str(error).split())[:300]}
                continue
            yield row | {"measured": measured, "error_pct": 100 * (predicted / measured - 1)}


def refine(
    header: dict[str, Any],
    report: str | os.PathLike,
    path: str | os.PathLike,
    timeout_s: float = TIMEOUT_S,
    progress: Callable = lambda items, **_: items,
) -> tuple[samples.Samples, int]:
    """Measures the networks of a search's report as other samples were measured.

    Args:
      header: header of the other samples.
      report: `search_report.json` of a search in the same space.
      path: the samples file to write; an existing file is completed.
      timeout_s: time limit for each network.
      progress: wraps the networks, such as tqdm.

    Returns:
      The content of the file, and the number of networks in the report.

    Raises:
      InputError: the report is damaged or belongs to another space, or the device cannot be reached.
    """
    space = samples.space_of(header)
    networks = samples.given(report, space)
    target = Target.of_header(header, space)
    ours = target.header(0, f"given by {Path(report).name}")
    with Process(target, timeout_s) as measure:
        samples.collect(path, ours, iter(networks), len(networks), measure, progress)
    return samples.load(path, space), len(networks)


@dataclasses.dataclass(frozen=True)
class Check:
    """Comparison of a model's predictions with new measurements of fresh networks.

    Attributes:
      figures: the errors of the new measurements.
      failed: number of networks that could not be timed.
      bound_pct: allowed mean error in percent.
      versions: old and new version of everything whose version has changed.
    """

    figures: Figures
    failed: int
    bound_pct: float
    versions: dict[str, tuple[str | None, str | None]]

    @property
    def holds(self) -> bool:
        """Whether the mean error is at most the allowed one."""
        return self.figures.mean_abs_pct_error <= self.bound_pct


def check(
    model: LatencyModel,
    count: int,
    seed: int,
    bound_pct: float | None = None,
    timeout_s: float = TIMEOUT_S,
    progress: Callable = lambda items, **_: items,
) -> Check:
    """Measures fresh networks inside the model's latency band and compares them with its predictions.

    Args:
      model: a model of a device in `devices.TIMING`.
      count, seed: number of networks, and the seed of their sample.
      bound_pct: allowed mean error; default: twice the held-out error, at least 2 %.
      timeout_s: time limit for each network.
      progress: wraps the networks, such as tqdm.

    Raises:
      InputError: the device cannot be reached, or none of the networks could be timed.
    """
    held_out = model.info.get("held_out", {})
    if bound_pct is None:
        bound_pct = allowed_error_pct(held_out)
    networks = samples.proposals(model.space, seed, spread=True)
    if held_out.get("band"):
        networks = samples.in_band(networks, model.predict, tuple(held_out["band"]))
    rows = list(
        progress(
            measured_beside_predicted(model, itertools.islice(networks, count), timeout_s),
            total=count,
            desc="networks",
            unit="network",
        )
    )
    good = [row for row in rows if "measured" in row]
    if not good:
        raise InputError(f"{model.device} timed none of {len(rows)} networks: {rows[0]['failed']}")
    predicted, measured = (np.array([row[key] for row in good]) for key in ("predicted", "measured"))
    now = devices.load(model.device).versions(model.variant)
    before = model.info.get("versions", {})
    changed = {k: (before.get(k), now.get(k)) for k in before | now if before.get(k) != now.get(k)}
    return Check(figures(predicted, measured), len(rows) - len(good), bound_pct, changed)


def finalist_times(model: LatencyModel, networks: Sequence[np.ndarray]) -> list[float | str] | None:
    """Measures the finalists of a search on the device of a latency model, with a progress bar.

    An unreachable device is reported on stderr but is not an error: the result of the search does not
    depend on it.

    Returns:
      For each network its time in ms, or the reason why it could not be measured; None if networks
      cannot be timed on the device or if it is unreachable.
    """
    if model.device not in devices.TIMING:
        return None
    title = f"final population on {model.title}"
    try:
        rows = tqdm(
            measured_beside_predicted(model, networks), total=len(networks), unit="network", desc=title
        )
        return [row.get("measured", row.get("failed")) for row in rows]
    except InputError as error:
        print(f"the final population was not measured on {model.title}: {error}", file=sys.stderr)
        return None
