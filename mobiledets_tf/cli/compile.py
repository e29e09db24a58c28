"""`mobiledets-compile`: checks whether a .tflite file is ready for an accelerator and, if not, says why."""

import json
import sys

from absl import flags

from mobiledets_tf.cli import app
from tflite_export.devices import COMPILING

FLAGS = flags.FlagValues()
_SHOWN = 20

flags.DEFINE_string("model", None, "Any .tflite file, from this project or elsewhere.", flag_values=FLAGS)
flags.DEFINE_enum("target", "edgetpu", COMPILING, "Target accelerator.", flag_values=FLAGS)
flags.DEFINE_string(
    "variant",
    None,
    "Chip: a SoC for hexagon (e.g. SM8550) or a configuration for ethos_u (e.g. u65-512); an unknown "
    "name prints the allowed ones.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "eval_data",
    None,
    "hexagon: real images on which the emulated Hexagon is compared with LiteRT's interpreter: a "
    "folder written by mobiledets-data (its val shards) or a TFRecord pattern.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "output_dir",
    None,
    "Folder for the output of the vendor's compiler; default: the model's folder.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "labels",
    None,
    "File of class names, one per line, with or without an index. They are written with metadata into"
    " a copy of the detector, NAME_labels.tflite, which is then compiled.",
    flag_values=FLAGS,
)
flags.DEFINE_enum("format", "text", ["text", "json"], "Output format.", flag_values=FLAGS)
flags.mark_flag_as_required("model", flag_values=FLAGS)

DESCRIPTION = """
Checks whether a .tflite file is ready for an accelerator, and compiles it if the vendor's compiler is
installed. The exit code is 0 if the file is ready and 1 if it is not.

  mobiledets-compile --model=runs/export/detector.tflite --target=edgetpu
"""


def main() -> int:
    """Prints the verdict and returns the exit code: 0 if the file is ready, otherwise 1."""
    from mobiledets_tf import api

    verdict = api.compile(app.options(FLAGS, api.CompileOptions))
    print(json.dumps(verdict, indent=1) if FLAGS.format == "json" else as_text(verdict))
    return 0 if verdict["ready"] else 1


def as_text(verdict: dict) -> str:
    """Formats the verdict as text: one line per finding, then the result of the compiler."""
    findings, compiler = verdict["findings"], verdict["compiler"]
    lines = [f"{verdict['model']}: {'ready' if verdict['ready'] else 'NOT ready'} for {verdict['target']}"]
    lines += [f"  {_finding_line(finding)}" for finding in findings[:_SHOWN]]
    if len(findings) > _SHOWN:
        lines.append(f"  and {len(findings) - _SHOWN} more; --format=json lists all")
    if parameters := verdict.get("parameters"):
        where = "partly streamed from the host" if parameters["streamed"] else "all in the chip's cache"
        lines.append(f"parameters: {parameters['bytes']:,} bytes, {where}")
        lines.append(_coverage_line(verdict["coverage"]))
    lines.append(f"compiler: {compiler['status']}{': ' if compiler['reason'] else ''}{compiler['reason']}")
    if compiler["status"] != "compiled":
        lines.append(f"  to compile: {compiler['command']}")
    lines += _compiler_lines(compiler["result"])
    if emulation := verdict.get("emulation"):
        lines.append(_emulation_line(emulation))
    return "\n".join(lines)


def _coverage_line(coverage: dict) -> str:
    line = (
        f"static check: {coverage['mapped']} of {coverage['operations']} operations mapped, "
        f"{coverage['subgraphs']} subgraphs"
    )
    first = coverage["first_on_cpu"]
    return line + (f", on the CPU from op {_place(first)}" if first else "")


def _place(first: dict) -> str:
    return f"{first['op_index']} {first['op']}" + (f" in {first['block']}" if first["block"] else "")


def _compiler_lines(result: dict) -> list[str]:
    """Formats the contents of the compiler's log; returns no lines if the compiler was not run."""
    lines = []
    if result.get("soc"):
        rest = ", ".join(f"{count} {name}" for name, count in result["on_cpu"].items()) or "none"
        lines.append(
            f"  {result['soc']}: {result['offloaded']} of {result['operations']} operations "
            f"offloaded in {result['partitions']} partition(s); on the CPU: {rest}"
        )
    if result.get("layers"):
        lines.append(
            f"  {result['variant']}: {result['npu_operations']} of Vela's operations on the NPU, "
            f"{result['cpu_operations']} on the CPU, {result['cycles']:,} cycles"
        )
        lines += _block_lines(result["layers"])
    if result.get("on_edgetpu") is not None:
        lines.append(
            f"  version {result['version']}: {result['on_edgetpu']} operations on the Edge TPU, "
            f"{result['on_cpu']} on the CPU, {result['subgraphs']} subgraphs"
        )
    if result.get("streamed_bytes") is not None:
        lines.append(f"  {result['cached_bytes']:,} bytes cached, {result['streamed_bytes']:,} streamed")
    if first := result.get("first_on_cpu"):
        lines.append(f"  first on the CPU: op {_place(first)}: {first['status']}")
    return lines


def _block_lines(layers: list[dict]) -> list[str]:
    from tflite_export.export.export_report import block_cycles

    return [f"    {name:<18} {count:12,} cycles" for name, count in block_cycles(layers).items()]


def _emulation_line(emulation: dict) -> str:
    if "reason" in emulation:
        return f"emulation: not run: {emulation['reason']}"
    outputs = ", ".join(f"{name} {values['max_lsb']}" for name, values in emulation["outputs"].items())
    most, images = emulation["max_lsb"], emulation["images"]
    return f"emulation: at most {most} LSB from LiteRT on {images} images ({outputs})"


def _finding_line(finding: dict) -> str:
    if finding["op_index"] is None:
        return finding["reason"]
    block = f" in {finding['block']}" if finding["block"] else ""
    return f"op {finding['op_index']} {finding['op']}{block}: {finding['reason']} [{finding['tensor']}]"


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
