"""Runs the units of `study.py`: each drives the project's commands and returns a JSON-ready result."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from commands import call, run
from study_plan import BAND, QUIET, Results, Scale, Unit

_HERE = Path(__file__).parent


class Runner:
    """Runs units.

    Args:
      results: work folder of the study.
      scale: sizes.
      scale_name: name of the sizes, a value of --scale.
    """

    def __init__(self, results: Results, scale: Scale, scale_name: str):
        self._results, self._scale, self._scale_name = results, scale, scale_name

    def run(self, unit: Unit) -> dict[str, Any]:
        """Runs a unit.

        Returns:
          Its result; only `failed`, a reason, if rerunning the unit would not help.

        Raises:
          subprocess.CalledProcessError: a command failed or was stopped.
          InputError: a file of another unit cannot be read.
        """
        return getattr(self, f"_{unit.kind}")(unit.settings, self._results.folder(unit.id))

    def _data(self, about: dict[str, Any], folder: Path) -> dict[str, Any]:
        scale, images = self._scale, about["source"]
        # The commands reject a folder that a killed command left incomplete; remaking data takes a minute.
        shutil.rmtree(folder, ignore_errors=True)
        if not images:
            images = folder / "images"
            run(
                "data",
                "--mode=sample",
                f"--output_dir={images}",
                f"--num_train={scale.images}",
                f"--num_val={scale.val_images}",
                f"--image_size={scale.image_size}",
                "--seed=0",
            )
        run("data", "--mode=convert", f"--images={images}", f"--output_dir={folder / 'records'}")
        dataset = json.loads((folder / "records" / "dataset.json").read_text())
        return {"classes": len(dataset["categories"]), "records": str(folder / "records")}

    def _model(self, about: dict[str, Any], folder: Path) -> dict[str, Any]:
        model, cost = folder / "latency_model.json", about["cost"]
        shape = (*self._shape(about["space"]), "--num_classes=10")
        if cost == "madds":
            run("latency", "--mode=fit", "--device=madds", *shape, f"--output={model}")
            return {"model": str(model), "held_out": None}
        samples = folder / "samples.jsonl"
        run(
            "latency",
            "--mode=measure",
            f"--device={cost}",
            *shape,
            f"--networks={self._scale.networks}",
            f"--output={samples}",
        )
        run("latency", "--mode=fit", f"--samples={samples}", f"--output={model}")
        written = json.loads(model.read_text())
        return {"model": str(model), "held_out": written["held_out"], "versions": written["versions"]}

    def _published(self, about: dict[str, Any], folder: Path) -> dict[str, Any]:
        from mobiledets_tf import architecture

        path = folder / "architecture.json"
        architecture.save(architecture.load(about["name"]).scaled(self._scale.depth_multiplier), path)
        return {"architecture": str(path)}

    def _search(self, about: dict[str, Any], folder: Path) -> dict[str, Any]:
        scale, cost = self._scale, about["cost"]
        reference = self._results.read(f"time/published-edgetpu/{cost}")["result"]["cost"]
        model = self._results.read(f"model/{cost}-{about['space']}")["result"]["model"]
        target = about["target"] * reference
        if reason := _out_of_reach(model, target):
            return {"failed": reason}
        # A latency measured while other units run is meaningless; the networks are timed at the end.
        quiet = ("--nomeasure_finalists",) if cost in QUIET else ()
        taken = run(
            "search",
            *self._shape(about["space"]),
            f"--train_data={self._records('drawn')}",
            f"--latency_model={model}",
            f"--latency_target={target}",
            f"--latency_band={BAND}",
            f"--model_dir={folder}",
            f"--batch_size={scale.batch_size}",
            f"--steps={scale.steps}",
            f"--finalists={scale.finalists}",
            f"--finalist_steps={scale.finalist_steps}",
            f"--learning_rate={scale.learning_rate}",
            f"--finalist_learning_rate={scale.learning_rate}",
            f"--seed={about['seed']}",
            *quiet,
        )
        report = json.loads((folder / "search_report.json").read_text())
        (device,) = report["devices"]
        return {
            "architecture": str(folder / "architecture.json"),
            "search_s": taken,
            "reliability": report["reliability"],
            **{
                key: device[key]
                for key in (
                    "target",
                    "cost",
                    "cost_kind",
                    "cost_unit",
                    "source",
                    "params",
                    "madds",
                    "against_known",
                    "certainty",
                    "model_error",
                    "population",
                )
            },
        }

    def _train(self, about: dict[str, Any], folder: Path) -> dict[str, Any]:
        scale, records = self._scale, self._records(about["data"])
        network = self._network(about["network"])
        if network is None:
            return {"failed": "its search found no network"}
        taken = run(
            "train",
            f"--architecture={network}",
            f"--train_data={records}",
            f"--model_dir={folder}",
            f"--image_size={scale.image_size}",
            f"--steps={scale.train_steps}",
            f"--batch_size={scale.batch_size}",
            f"--learning_rate={scale.learning_rate}",
            "--norandom_flip",
            "--norandom_crop",
            f"--seed={about['seed']}",
            "--mode=train",
        )
        call(str(_HERE / "search_worth.py"), f"--evaluate={folder}", f"--data={records}")
        metrics = json.loads((folder / "final_metrics.json").read_text())
        return {"train_s": taken, "AP": metrics["AP"], "AP50": metrics["AP50"]}

    def _time(self, about: dict[str, Any], folder: Path) -> dict[str, Any]:
        del folder
        network = self._network(about["network"])
        if network is None:
            return {"failed": "its search found no network"}
        line = [
            sys.executable,
            str(_HERE / "study.py"),
            f"--scale={self._scale_name}",
            "--measure",
            about["cost"],
            network,
        ]
        measured = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True, close_fds=False).stdout
        return json.loads(measured.splitlines()[-1])

    def _shape(self, space: str) -> tuple[str, ...]:
        scale = self._scale
        return (
            f"--search_space={space}",
            f"--image_size={scale.image_size}",
            f"--depth_multiplier={scale.depth_multiplier}",
        )

    def _records(self, name: str) -> str:
        return self._results.read(f"data/{name}")["result"]["records"]

    def _network(self, name: str) -> str | None:
        """Returns the architecture file of a network; None if its search found none."""
        maker = f"published/{name}" if name.startswith("published-") else f"search/{name}"
        return self._results.read(maker)["result"].get("architecture")


def _out_of_reach(model: str, target: float) -> str | None:
    """Returns why no network of a latency model's space is in the band around `target`; None if one is."""
    from mobiledets_tf import latency
    from mobiledets_tf.errors import InputError
    from mobiledets_tf.search.band import Band

    loaded = latency.load(model)
    try:
        Band(loaded, target, BAND)
    except InputError as error:
        return str(error)
    return None


def measure(cost: str, network: str, scale: Scale) -> dict[str, Any]:
    """Returns `cost` of a network of ten classes, in ms or multiply-adds, with its `kind` and counts."""
    from mobiledets_tf import architecture

    loaded = architecture.load(network)
    counts = architecture.describe(loaded, 10, scale.image_size)
    counts = {name: counts[name] for name in ("params", "madds")}
    if cost == "madds":
        return counts | {"cost": counts["madds"], "kind": "exact"}
    from tflite_export import devices
    from tflite_export.graphs import Settings, network_graph

    device = devices.load(cost)
    graph = network_graph(loaded, Settings((scale.image_size, scale.image_size), 10))
    options = {"threads": 1, "runs": 100} if cost in devices.RUNNING else {}
    found = device.measure_graph(graph, device.DEFAULT_VARIANT, **options)
    return counts | {"cost": found.median_ms, "kind": found.kind, "spread": found.spread}


def named(folders: list[str]) -> dict[str, str]:
    """Maps the names of the user's data folders to their paths; exits with code 2 if a name is not unique."""
    found: dict[str, str] = {}
    for folder in folders:
        name = Path(folder).resolve().name
        if name in found or name == "drawn" or not Path(folder).is_dir():
            reason = (
                "is not a folder" if not Path(folder).is_dir() else f"is a second data set named {name!r}"
            )
            print(f"--data={folder} {reason}", file=sys.stderr)
            sys.exit(2)
        found[name] = str(Path(folder).resolve())
    return found


def command_line() -> str:
    """Returns the command that reproduces the study."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--report_only"]
    return shlex.join(["python", "benchmarks/study.py", *arguments])
