"""How commands answer: exit codes and one line on stderr."""

import errno
import json
import subprocess
import sys

import pytest
from absl import flags

from mobiledets_tf.cli import app, describe
from mobiledets_tf.errors import CheckFailed, InputError


def _command(main, required=False):
    values = flags.FlagValues()
    flags.DEFINE_enum("mode", "train", ("train", "eval"), "What to do.", flag_values=values)
    flags.DEFINE_integer("steps", 3, "How long.", flag_values=values)
    if required:
        flags.DEFINE_string("model_dir", None, "Where.", flag_values=values)
        flags.mark_flag_as_required("model_dir", flag_values=values)
    return values, app.command(values, lambda: main(values), "Does a thing.")


def _raise(error):
    def main(_):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("bad file"), 2),
        (CheckFailed("gate"), 1),
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 2),
    ],
)
def test_exit_codes(error, code, capsys):
    _, run = _command(_raise(error))
    assert run(["prog"]) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--stepz=4", "did you mean 'steps'"),
        ("--mode=trian", "did you mean 'train'"),
        ("--steps=many", "steps"),
        ("loose", "unexpected argument 'loose'"),
    ],
)
def test_wrong_flags_get_one_line(argument, expected, capsys):
    _, run = _command(lambda _: 0)
    assert run(["prog", argument]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


def test_missing_required_flag(capsys):
    _, run = _command(lambda _: 0, required=True)
    assert run(["prog"]) == 2
    assert "--model_dir is required" in capsys.readouterr().err


def test_flags_start_from_defaults_in_each_call():
    seen = []
    _, run = _command(lambda values: seen.append(values.steps))
    assert run(["prog", "--steps=7"]) == 0 and run(["prog"]) == 0
    assert seen == [7, 3]


def test_help_shows_flags_and_survives_a_closed_pipe():
    command = f"{sys.executable} -m mobiledets_tf.cli.describe"
    shown = subprocess.run([*command.split(), "--help"], capture_output=True, text=True, check=True)
    assert "--architecture" in shown.stdout
    reader = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE); "
    reader += "p.stdout.close(); sys.exit(p.wait())"
    piped = subprocess.run([sys.executable, "-c", reader, *command.split(), "--help"], capture_output=True)
    assert b"Traceback" not in piped.stderr


def test_describe_json(capsys):
    assert describe.run(["prog", "--architecture=edgetpu", "--format=json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["params"] == 4_196_095 and described["madds"] == 1_533_181_504
    assert len(described["layers"]) == 23 and described["anchors"] == 2034
    assert {"op", "kernel", "stride", "in_channels", "out_channels"} <= set(described["layers"][0])


def test_describe_refuses_an_unknown_name(capsys):
    assert describe.run(["prog", "--architecture=edgetpx"]) == 2
    assert "did you mean 'edgetpu'" in capsys.readouterr().err
