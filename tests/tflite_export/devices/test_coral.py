"""An attached Edge TPU: the library, the compiler and the delegate, each with a stand-in."""

import json
import os
import shutil
import subprocess

import pytest

from mobiledets_tf.cli import benchmark, detect
from mobiledets_tf.errors import InputError
from tflite_export.detector import footage
from tflite_export.devices import coral

# What libedgetpu exports (edgetpu_c.h) and what LiteRT asks of a delegate's library. The delegate
# takes no operation, so that all of a file runs on the CPU.
_LIBRARY = """
#include <stdint.h>
#include <stddef.h>
struct device { int type; const char *path; };
static struct device devices[1] = {{1, "usb"}};
const char *edgetpu_version(void) { return "BuildLabel(stand-in)"; }
struct device *edgetpu_list_devices(size_t *count) { *count = DEVICES; return DEVICES ? devices : NULL; }
void edgetpu_free_devices(struct device *device) {}
struct delegate {
  void *data; int (*prepare)(void *, struct delegate *);
  void *copy_from, *copy_to, *free_handle; int64_t flags; void *opaque;
};
static int prepare(void *context, struct delegate *delegate) { return 0; }
static struct delegate made = {NULL, prepare};
void *tflite_plugin_create_delegate(char **keys, char **values, size_t n, void (*report)(const char *)) {
  return DEVICES ? &made : NULL;
}
void tflite_plugin_destroy_delegate(void *delegate) {}
"""
COMPILER = """#!/bin/sh
case "$1" in --version) echo "Edge TPU Compiler version 16.0.384591198"; exit 0;; esac
echo called >> "$(dirname "$0")/calls"
echo "Edge TPU Compiler version 16.0.384591198"
cp "$4" "$3/$(basename "$4" .tflite)_edgetpu.tflite"
"""


@pytest.fixture
def attach(tmp_path, monkeypatch):
    """Puts a library that sees so many devices in the place of libedgetpu."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler")

    def make(count: int):
        source, library = tmp_path / "edgetpu.c", tmp_path / f"libedgetpu{count}.so"
        source.write_text(_LIBRARY)
        subprocess.run(
            [compiler, "-shared", "-fPIC", f"-DDEVICES={count}", "-o", library, source], check=True
        )
        monkeypatch.setattr(coral, "LIBRARY", str(library))

    return make


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    path = tmp_path / "bin" / "edgetpu_compiler"
    path.parent.mkdir()
    path.write_text(COMPILER)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    return path


def test_a_file_is_compiled_and_measured(attach, compiler, tflite, capsys):
    attach(1)
    flags = [f"--model={tflite('int8', 'uint8')}", "--device=coral", "--runs=3", "--format=json"]
    assert benchmark.run(["mobiledets-benchmark", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["device"], found["kind"]) == ("coral", "measured")
    assert found["runs"] >= 3
    assert 0 < found["min_ms"] <= found["median_ms"]
    assert (compiler.parent / "calls").read_text() == "called\n"
    versions = coral.versions()
    assert versions["libedgetpu"] == "BuildLabel(stand-in)"
    assert versions["edgetpu_compiler"] == "16.0.384591198"


def test_a_compiled_file_is_not_compiled_again(attach, compiler, tflite, monkeypatch):
    attach(1)
    # A file of another tool stands for a compiled one: it has a custom operation as well.
    monkeypatch.setattr(coral, "COMPILED_OP", "TFLite_Detection_PostProcess")
    assert coral.measure(tflite("int8", "uint8"), runs=1).median_ms > 0
    assert not (compiler.parent / "calls").exists()


def test_what_is_missing_is_named(attach, tflite, monkeypatch, tmp_path, capsys):
    model = tflite("int8", "uint8")
    monkeypatch.setattr(coral, "LIBRARY", "libedgetpu-not-here.so.1")
    with pytest.raises(InputError, match="libedgetpu1-std"):
        coral.measure(model)
    given = [f"--model={model}", "--device=coral", "--variant=usb"]
    assert benchmark.run(["mobiledets-benchmark", *given]) == 2
    assert "variant of coral 'usb'; allowed: none" in capsys.readouterr().err
    attach(0)
    assert coral.attached() == 0
    with pytest.raises(InputError, match="finds no Edge TPU"):
        coral.measure(model)
    attach(1)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert benchmark.run(["mobiledets-benchmark", f"--model={model}", "--device=coral"]) == 2
    assert "edgetpu_compiler is not on PATH" in capsys.readouterr().err


def test_what_the_compiler_refuses_is_exit_1(attach, compiler, tflite, capsys):
    attach(1)
    compiler.write_text("#!/bin/sh\necho 'ERROR: Model not quantized'; exit 1\n")
    model = tflite("int8", "uint8")
    assert benchmark.run(["mobiledets-benchmark", f"--model={model}", "--device=coral"]) == 1
    assert "edgetpu_compiler exited with code 1" in capsys.readouterr().err


def test_a_detector_on_it(attach, compiler, tflite, pictures, tmp_path, capsys):
    attach(1)
    (tmp_path / "in").mkdir()
    footage.write_image(tmp_path / "in" / "a.png", pictures[0])
    given = [f"--model={tflite('int8', 'uint8')}", f"--images={tmp_path / 'in'}", "--device=coral"]
    assert detect.run(["mobiledets-detect", *given, f"--output_dir={tmp_path / 'out'}"]) == 0
    assert "1 images" in capsys.readouterr().out
    assert (compiler.parent / "calls").read_text() == "called\n"
    compiler.write_text("#!/bin/sh\necho 'ERROR: Model not quantized'; exit 1\n")
    assert detect.run(["mobiledets-detect", *given, f"--output_dir={tmp_path / 'two'}"]) == 1
    assert "cannot be compiled for the Edge TPU" in capsys.readouterr().err
    attach(0)
    assert detect.run(["mobiledets-detect", *given, f"--output_dir={tmp_path / 'two'}"]) == 2
    assert "finds no Edge TPU" in capsys.readouterr().err
