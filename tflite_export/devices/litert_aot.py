"""Qualcomm Hexagon through LiteRT: ahead-of-time compilation of a .tflite file for a named SoC.

The compiler plug-in of `ai_edge_litert` needs Qualcomm's QNN libraries. They come from Qualcomm's own
SDK package if it contains any (it is empty when installed without a network), otherwise from
onnxruntime-qnn. In the compiled file, operations that stay on the CPU remain visible beside the
dispatched ones, which gives the offload coverage. The compiler runs in a separate process, so that a
crash or a hang of the vendor's code cannot bring down the command.
"""

import collections
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from mobiledets_tf.errors import InputError
from tflite_export.devices import Compilation, Finding, process
from tflite_export.devices.int8_check import finding, finding_of_file
from tflite_export.tflite import model_file
from tflite_export.tflite.model_file import CPU_BY_DESIGN, ModelFile

COMPILER = "LiteRT's Qualcomm compiler"
TIMEOUT_S = 600
# The SoCs that the plug-in supports, as it lists them.
SOCS = (
    "SA8255",
    "SA8295",
    "SM8350",
    "SM8450",
    "SM8475",
    "SM8550",
    "SM8650",
    "SM8750",
    "SM8845",
    "SM8850",
)
DEFAULT_SOC = "SM8550"
_SDK = "ai_edge_litert_sdk_qualcomm"
_QNN = "onnxruntime_qnn"
_HTP = "libQnnHtp.so"
_COUNTS = re.compile(r"(\d+)\s*/\s*(\d+) ops offloaded to (\d+) partitions")
_DISPATCH = "DISPATCH_OP"
# Only public calls are used; the statistics are printed by the plug-in.
_SCRIPT = """
import sys
from ai_edge_litert.aot import aot_compile
from ai_edge_litert.aot.vendors.qualcomm import target
model, folder, soc = sys.argv[1:]
result = aot_compile.aot_compile(model, output_dir=folder, target=target.Target(target.SocModel(soc)))
print(result.compilation_report())
sys.exit(bool(result.failed_backends) or not result.models_with_backend)
"""


def libraries() -> tuple[list[Path], str]:
    """Returns the folders of the QNN libraries, and a note about them ('' if there is none).

    Raises:
      InputError: no installed package contains the libraries.
    """
    sdk = _package(_SDK)
    # An SDK also contains the libraries for phones, so those for x86_64 are sorted first.
    found = sorted(sdk.rglob(_HTP), key=lambda path: "x86_64" not in str(path)) if sdk else []
    if found:
        return [found[0].parent], ""
    note = f"package {_SDK} is installed without its SDK (no {_HTP} in it)" if sdk else ""
    qnn = _package(_QNN)
    if qnn is None or not (qnn / _HTP).is_file():
        empty = note or (f"package {_QNN} contains no {_HTP}" if qnn else f"{_QNN} is not installed")
        raise InputError(f"QNN libraries are missing: {empty}; run: pip install 'mobiledets-tf[hexagon]'")
    return [qnn, qnn.with_name(f"{_QNN}.libs")], f"{note}; the libraries of {_QNN} are used" if note else ""


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    locations = spec.submodule_search_locations if spec else None
    return Path(locations[0]) if locations else None


def compile_model(
    path: str | os.PathLike, output_dir: str | os.PathLike, soc: str = DEFAULT_SOC
) -> Compilation:
    """Compiles a file and writes NAME_SOC.tflite to `output_dir`; a failure leaves nothing there.

    Returns:
      The compilation. Its result contains `soc`, `operations`, `offloaded`, `partitions`, `on_cpu`
      (counts by operation) and `libraries`; its findings name the operations that stay on the CPU.
    """
    path, output_dir = Path(path).resolve(), Path(output_dir).resolve()
    command = f"mobiledets-compile --model={path} --target=hexagon --variant={soc}"
    try:
        folders, note = libraries()
    except InputError as error:
        return Compilation("not compiled", command, str(error))
    model = model_file.read(path)
    with tempfile.TemporaryDirectory(prefix="mobiledets-aot-") as folder:
        code, printed = process.run(
            COMPILER,
            [sys.executable, "-c", _SCRIPT, str(path), folder, soc],
            TIMEOUT_S,
            _environment(folders, Path(folder)),
        )
        made = next(Path(folder).glob("*.tflite"), None)
        reason, compiled = _judge(code, printed, made, Path(folder))
        if reason or compiled is None or made is None:
            return Compilation("failed", command, reason, log=printed)
        result, findings = _coverage(model, compiled, printed, soc)
        target = output_dir / f"{path.stem}_{soc}.tflite"
        _place(made, target)
    result["libraries"] = note or str(folders[0])
    return Compilation("compiled", command, "", str(target), printed, result, findings)


def _environment(folders: list[Path], temporary: Path) -> dict[str, str]:
    # The plug-in loads a library of another backend that no package ships, but never calls it, so any
    # library that can be loaded replaces it.
    stand_in = temporary / "lib" / "libQnnLpai.so"
    stand_in.parent.mkdir()
    stand_in.symlink_to(folders[0] / "libQnnSystem.so")
    paths = [str(stand_in.parent), *map(str, folders), os.environ.get("LD_LIBRARY_PATH", "")]
    added = {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths)), "TMPDIR": str(temporary)}
    return os.environ | added


def _judge(code: int | str, printed: str, made: Path | None, folder: Path) -> tuple[str, ModelFile | None]:
    """Returns why there is no trustworthy compiled file (or ''), and the compiled file."""
    if reason := process.fault(COMPILER, code):
        said = "\n".join([printed, *(file.read_text("utf-8", "replace") for file in folder.glob("*.error"))])
        last = (said.strip().splitlines() or [""])[-1].strip()[:300]
        return f"{reason}{': ' + last if last and not isinstance(code, str) else ''}", None
    if made is None:
        return f"{COMPILER} reported no error but wrote no file", None
    try:
        return "", model_file.read(made)
    except InputError:
        return f"{COMPILER} reported no error, but its output is not a .tflite file", None


def _coverage(model: ModelFile, compiled: ModelFile, printed: str, soc: str) -> tuple[dict, list[Finding]]:
    on_cpu = collections.Counter(op.name for op in compiled.operators)
    partitions = on_cpu.pop(_DISPATCH, 0)
    if counts := _COUNTS.search(printed):
        partitions = int(counts[3])
    # Operations that stay on the CPU keep the names of their outputs.
    names = {tensor.name for op in compiled.operators if op.name != _DISPATCH for tensor in op.outputs}
    left = [op for op in model.operators if any(tensor.name in names for tensor in op.outputs)]
    findings = [
        finding(op, op.outputs[0] if op.outputs else None, f"stays on the CPU when compiled for {soc}")
        for op in left
        if op.name in on_cpu and op.name not in CPU_BY_DESIGN
    ]
    if not partitions:
        findings.append(finding_of_file(f"no operation of the file is offloaded for {soc}"))
    total = len(model.operators)
    return {
        "soc": soc,
        "operations": total,
        "offloaded": total - sum(on_cpu.values()),
        "partitions": partitions,
        "on_cpu": dict(on_cpu),
    }, findings


def _place(made: Path, target: Path) -> None:
    from mobiledets_tf.files import atomic_path

    with atomic_path(target) as temporary:
        shutil.copyfile(made, temporary)
