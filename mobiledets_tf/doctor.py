"""Examines the software stack and the devices of this machine, and names the fix for each fault."""

import importlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledets_tf.errors import InputError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "mobiledets-tf"
_IN_CHECKOUT = (Path(__file__).parents[1] / "Makefile").exists()
_REINSTALL = "make setup"
if not _IN_CHECKOUT:
    _REINSTALL = f"{sys.executable} -m pip install --force-reinstall {DISTRIBUTION}"
# Packages that training, search and export need; used in a checkout that is not installed and so has no
# metadata to read.
_CORE = (
    "tensorflow",
    "tf_keras",
    "tf-models-official",
    "tf-models-research-object-detection",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "numpy",
    "absl-py",
    "defusedxml",
    "matplotlib",
    "pillow",
    "opencv-python-headless",
    "pycocotools",
    "pyyaml",
    "scikit-learn",
    "tqdm",
)
_OBJECT_DETECTION_MODULES = (
    "object_detection.builders.model_builder",
    "object_detection.model_lib_v2",
    "object_detection.inputs",
    "object_detection.metrics.coco_evaluation",
    "object_detection.eval_util",
)
_OTHER_MODULES = (
    "tensorflow_model_optimization",
    "ai_edge_litert.interpreter",
    "pycocotools.cocoeval",
    "sklearn",
)


@dataclass(frozen=True)
class Version:
    """A package that training, search and export need.

    Attributes:
      package: name of the package.
      installed: installed version, or None.
      pin: required version, or '' if any version will do.
      ok: whether the installed version satisfies the pin.
      fix: command that installs the required version; None if `ok`.
    """

    package: str
    installed: str | None
    pin: str
    ok: bool
    fix: str | None


@dataclass(frozen=True)
class Import:
    """A module that training, search and export need.

    Attributes:
      module: name of the module.
      ok: whether it can be imported.
      error: first line of the error if it cannot be imported.
    """

    module: str
    ok: bool
    error: str | None = None


@dataclass(frozen=True)
class Device:
    """A device that networks can be run on or compiled for.

    Attributes:
      name: name of the device.
      reachable: whether it can be used from this machine.
      detail: what was found, or what is missing.
      fix: command that installs or shows what is missing, or None.
    """

    name: str
    reachable: bool
    detail: str
    fix: str | None


@dataclass(frozen=True)
class Report:
    """The complete report. `ok` and `verdict` judge the software; an unreachable device is not a failure."""

    python: str
    versions: list[Version]
    imports: list[Import]
    repairs: list[dict[str, str]] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all modules that training, search and export need can be imported."""
        return all(item.ok for item in self.imports)

    @property
    def verdict(self) -> str:
        """One line that says whether the software works and which devices can be reached."""
        broken = [item.module for item in self.imports if not item.ok]
        if broken:
            return f"the software does not work: {', '.join(broken)} cannot be imported; run: {_REINSTALL}"
        reached = ", ".join(device.name for device in self.devices if device.reachable) or "none"
        wrong = sum(not version.ok for version in self.versions)
        note = f"; {wrong} package(s) do not have the required version" if wrong else ""
        return f"the software works; reachable devices: {reached}{note}"


def examine() -> Report:
    """Examines this machine; this takes about ten seconds, most of which are spent importing TensorFlow."""
    repairs, imports = _import_core()
    return Report(
        python=sys.version.split()[0],
        versions=_versions(),
        imports=imports,
        repairs=repairs,
        devices=[_host_cpu(), _gpu(imports), _edgetpu(), _coral(), _hexagon(), _ethos_u(), _android()],
    )


def _import_core() -> tuple[list[dict[str, str]], list[Import]]:
    first = _try_import("mobiledets_tf.compat")
    if not first.ok:
        return [], [first]
    from mobiledets_tf import compat

    repairs: list[dict[str, str]] = []
    imports = [first]
    try:
        repairs = [asdict(repair) for repair in compat.enable_object_detection()]
    except ImportError as error:
        imports.append(Import("object_detection", False, _first_line(error)))
    else:
        with compat.quiet():
            imports += [_try_import(module) for module in _OBJECT_DETECTION_MODULES]
    return repairs, imports + [_try_import(module) for module in _OTHER_MODULES]


def _try_import(module: str) -> Import:
    try:
        importlib.import_module(module)
    except Exception as error:  # A broken package can raise any error, which is then reported.
        return Import(module, False, _first_line(error))
    return Import(module, True)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _versions() -> list[Version]:
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or []]
    except importlib.metadata.PackageNotFoundError:
        requirements = [Requirement(name) for name in _CORE]
    return [_version(requirement) for requirement in requirements if requirement.marker is None]


def _version(requirement: "Requirement") -> Version:
    pin, installed = str(requirement.specifier), _installed(requirement.name)
    ok = installed is not None and requirement.specifier.contains(installed, prereleases=True)
    fix = None if ok else f'{sys.executable} -m pip install "{requirement.name}{pin}"'
    return Version(requirement.name, installed, pin, ok, fix)


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _host_cpu() -> Device:
    version = _installed("ai-edge-litert")
    return _package_device("host_cpu", "LiteRT", version, "ai-edge-litert")


def _hexagon() -> Device:
    version = _installed("onnxruntime-qnn")
    return _package_device("hexagon", "onnxruntime-qnn (simulated)", version, f"{DISTRIBUTION}[hexagon]")


def _package_device(name: str, what: str, version: str | None, package: str) -> Device:
    if version is not None:
        return Device(name, True, f"{what} {version}", None)
    return Device(name, False, f"{what} is not installed", f'{sys.executable} -m pip install "{package}"')


def _ethos_u() -> Device:
    version = _installed("ethos-u-vela")
    return _package_device("ethos_u", "Vela compiler", version, f"{DISTRIBUTION}[ethos_u]")


def _gpu(imports: list[Import]) -> Device:
    if not imports[0].ok:
        return Device("gpu", False, "TensorFlow cannot be imported", _REINSTALL)
    from mobiledets_tf.compat import tf

    found = tf.config.list_physical_devices("GPU")
    if found:
        details = (tf.config.experimental.get_device_details(gpu) for gpu in found)
        names = ", ".join(each.get("device_name", "unknown") for each in details)
        return Device("gpu", True, f"TensorFlow sees {len(found)}: {names}", None)
    return _missing_gpu(tf.test.is_built_with_cuda(), _nvidia_driver(), _cuda_libraries())


def _missing_gpu(with_cuda: bool, driver: str | None, libraries: bool) -> Device:
    """Explains why TensorFlow sees no GPU: it may lack the card's driver, CUDA support or CUDA's libraries.

    Args:
      with_cuda: whether TensorFlow is built with CUDA.
      driver: names of the cards that NVIDIA's driver sees, or None.
      libraries: whether CUDA's libraries are installed.
    """
    install = f'{sys.executable} -m pip install "{DISTRIBUTION}[gpu]"'
    if _IN_CHECKOUT:
        install = f"{sys.executable} -m pip install --constraint constraints.txt --editable '.[gpu]'"
    if driver is None:
        missing = "no NVIDIA driver responds (nvidia-smi)"
        return Device("gpu", False, missing, "sudo ubuntu-drivers install")
    reason, fix = "TensorFlow cannot use it, though CUDA's libraries are installed", "nvidia-smi"
    if not with_cuda:
        reason, fix = "this TensorFlow is built without CUDA", install
    elif not libraries:
        reason, fix = "CUDA's libraries are not installed", install
    return Device("gpu", False, f"the driver sees {driver}; {reason}", fix)


def _nvidia_driver() -> str | None:
    """Returns the names of the cards that NVIDIA's driver sees, or None."""
    path = shutil.which("nvidia-smi")
    if path is None:
        return None
    command = [path, "--query-gpu=name", "--format=csv,noheader"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    names = [line.strip() for line in ran.stdout.splitlines() if line.strip()]
    return ", ".join(names) if ran.returncode == 0 and names else None


def _cuda_libraries() -> bool:
    """Returns whether the packages of `tensorflow[and-cuda]` are installed."""
    return _installed("nvidia-cudnn-cu12") is not None


def _edgetpu() -> Device:
    path = shutil.which("edgetpu_compiler")
    if path:
        return Device("edgetpu", True, path, None)
    missing = "edgetpu_compiler is not on PATH (from Coral's own repository, coral.ai/docs/edgetpu/compiler)"
    return Device("edgetpu", False, missing, "sudo apt-get install edgetpu-compiler")


def _coral() -> Device:
    from tflite_export.devices import coral

    try:
        count = coral.attached()
    except InputError as error:
        return Device("coral", False, str(error), "sudo apt-get install libedgetpu1-std")
    if count:
        return Device("coral", True, f"{count} Edge TPU attached", None)
    return Device("coral", False, "no Edge TPU is attached", "lsusb; ls /dev/apex_0")


def _android() -> Device:
    path = shutil.which("adb")
    if not path:
        return Device("android", False, "adb is not on PATH", "sudo apt-get install adb")
    try:
        ran = subprocess.run([path, "devices"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Device("android", False, f"adb does not respond: {_first_line(error)}", "adb kill-server")
    phones = [line.split()[0] for line in ran.stdout.splitlines()[1:] if line.strip().endswith("device")]
    if phones:
        return Device("android", True, f"adb: {', '.join(phones)}", None)
    return Device("android", False, "adb sees no phone", "adb devices")


def as_json(report: Report) -> str:
    """Formats a report as JSON."""
    return json.dumps({"ok": report.ok, "verdict": report.verdict} | asdict(report), indent=1)


def as_text(report: Report) -> str:
    """Formats a report as text: each fault is followed by the command that fixes it."""
    lines = [f"Python {report.python}", "", "packages"]
    for v in report.versions:
        given = v.installed or "missing"
        lines.append(
            _line(v.ok, f"{v.package} {given}", "" if v.ok else f"required {v.pin or 'any version'}", v.fix)
        )
    lines += ["", "repairs applied in memory"]
    lines += [f"  {repair['name']}: {repair['reason']}" for repair in report.repairs] or ["  none needed"]
    lines += ["", "imports"]
    lines += [_line(item.ok, item.module, item.error or "", None) for item in report.imports]
    lines += ["", "devices"]
    lines += [_line(device.reachable, device.name, device.detail, device.fix) for device in report.devices]
    return "\n".join([*lines, "", report.verdict])


def _line(ok: bool, what: str, detail: str, fix: str | None) -> str:
    text = f"  {'ok' if ok else '--'}  {what}" + (f": {detail}" if detail else "")
    return text + (f"\n      fix: {fix}" if fix else "")
