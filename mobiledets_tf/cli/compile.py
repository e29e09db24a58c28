"""`mobiledets-compile`: is a .tflite file ready for an accelerator, and if not, why."""

import json
import os
import sys

from absl import flags

from mobiledets_tf.cli import app

FLAGS = flags.FlagValues()
# Known here as well, so that `--help` need not load them; a test compares both.
TARGETS = ("edgetpu",)
_SHOWN = 20

flags.DEFINE_string("model", None, "The .tflite file; any, ours or not.", flag_values=FLAGS)
flags.DEFINE_enum("target", "edgetpu", TARGETS, "The accelerator.", flag_values=FLAGS)
flags.DEFINE_string(
    "output_dir", None, "Where the vendor's compiler writes; default: the model's folder.", flag_values=FLAGS
)
flags.DEFINE_enum("format", "text", ["text", "json"], "What to print.", flag_values=FLAGS)
flags.mark_flag_as_required("model", flag_values=FLAGS)

DESCRIPTION = """
Checks a .tflite file for an accelerator, and compiles it where the vendor's compiler is installed.
Exit code 0 when the file is ready, 1 when it is not.

  mobiledets-compile --model=runs/export/detector.tflite --target=edgetpu
"""


def main() -> int:
    """Prints the verdict; returns 0 for ready, 1 for not."""
    from tflite_export import devices, inspect

    device = devices.load(FLAGS.target)
    model = inspect.read(FLAGS.model)
    findings = device.check(model)
    # Also where the check found faults: the compiler may still map a part of the file.
    compilation = device.compile_model(FLAGS.model, FLAGS.output_dir or os.path.dirname(FLAGS.model) or ".")
    verdict = {
        "model": FLAGS.model,
        "target": FLAGS.target,
        "ready": not findings and compilation.status != "failed",
        "findings": [finding.to_dict() for finding in findings],
        "operations": model.histogram(),
        "parameters": device.parameters(model),
        "coverage": device.coverage(model),
        "compiler": compilation.to_dict(),
    }
    print(json.dumps(verdict, indent=1) if FLAGS.format == "json" else as_text(verdict))
    return 0 if verdict["ready"] else 1


def as_text(verdict: dict) -> str:
    """The verdict as text: one line a finding, the compiler's answer last."""
    findings, compiler = verdict["findings"], verdict["compiler"]
    lines = [f"{verdict['model']}: {'ready' if verdict['ready'] else 'NOT ready'} for {verdict['target']}"]
    lines += [f"  {_finding_line(finding)}" for finding in findings[:_SHOWN]]
    if len(findings) > _SHOWN:
        lines.append(f"  and {len(findings) - _SHOWN} more; --format=json lists all")
    parameters = verdict["parameters"]
    where = "streamed from the host in part" if parameters["streamed"] else "all in the chip's cache"
    lines.append(f"parameters: {parameters['bytes']:,} bytes, {where}")
    lines.append(_coverage_line(verdict["coverage"]))
    lines.append(f"compiler: {compiler['status']}{': ' if compiler['reason'] else ''}{compiler['reason']}")
    if compiler["status"] != "compiled":
        lines.append(f"  to compile: {compiler['command']}")
    lines += _compiler_lines(compiler["result"])
    return "\n".join(lines)


def _coverage_line(coverage: dict) -> str:
    line = f"static check: {coverage['mapped']} of {coverage['operations']} operations mapped, " \
           f"{coverage['subgraphs']} subgraphs"  # fmt: skip
    first = coverage["first_on_cpu"]
    return line + (f", on the CPU from op {_place(first)}" if first else "")


def _place(first: dict) -> str:
    return f"{first['op_index']} {first['op']}" + (f" in {first['block']}" if first["block"] else "")


def _compiler_lines(result: dict) -> list[str]:
    """What the compiler's log says; nothing where it was not run."""
    lines = []
    if result.get("on_edgetpu") is not None:
        lines.append(f"  version {result['version']}: {result['on_edgetpu']} operations on the Edge TPU, "
                     f"{result['on_cpu']} on the CPU, {result['subgraphs']} subgraphs")  # fmt: skip
    if result.get("streamed_bytes") is not None:
        lines.append(f"  {result['cached_bytes']:,} bytes cached, {result['streamed_bytes']:,} streamed")
    if first := result.get("first_on_cpu"):
        lines.append(f"  first on the CPU: op {_place(first)}: {first['status']}")
    return lines


def _finding_line(finding: dict) -> str:
    if finding["op_index"] is None:
        return finding["reason"]
    block = f" in {finding['block']}" if finding["block"] else ""
    return f"op {finding['op_index']} {finding['op']}{block}: {finding['reason']} [{finding['tensor']}]"


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
