"""The data packages stand below TensorFlow."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["architecture", "errors", "files", "cli.app", "cli.describe"])
def test_import_leaves_tensorflow_out(module):
    heavy = ("tensorflow", "tf_keras", "numpy")
    code = f"import sys, mobiledets_tf.{module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
