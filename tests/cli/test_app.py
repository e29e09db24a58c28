"""How commands answer: exit codes and one line on stderr."""

import errno
import importlib
import pkgutil
import re
import resource
import subprocess
import sys

import pytest
from absl import flags

from mobiledets_tf import cli
from mobiledets_tf.cli import app
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
        (PermissionError(errno.EACCES, "Permission denied"), 2),
        (InputError("two\nlines"), 2),
    ],
)
def test_exit_codes(error, code, capsys):
    _, run = _command(_raise(error))
    assert run(["prog"]) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1


def test_a_fault_of_the_program_is_not_hidden():
    for error in (RuntimeError("bug"), OSError(errno.EBADF, "Bad file descriptor")):
        _, run = _command(_raise(error))
        with pytest.raises(type(error), match="bug|descriptor"):
            run(["prog"])


def test_main_may_choose_the_exit_code():
    for given, code in ((None, 0), (0, 0), (1, 1)):
        assert _command(lambda _, given=given: given)[1](["prog"]) == code


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


def test_required_flags_are_missed_again_in_the_next_call(capsys):
    _, run = _command(lambda _: 0, required=True)
    assert run(["prog", "--model_dir=x"]) == 0
    assert run(["prog"]) == 2


def test_commands_of_one_process_do_not_share_flags():
    seen = []
    _, first = _command(lambda values: seen.append(values.steps))
    _, second = _command(lambda values: seen.append(values.steps))
    assert first(["prog", "--steps=7"]) == second(["prog", "--steps=8"]) == first(["prog"]) == 0
    assert seen == [7, 8, 3]


def _cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


COMMANDS = sorted(
    module.name
    for module in pkgutil.iter_modules(cli.__path__)
    if hasattr(importlib.import_module(f"mobiledets_tf.cli.{module.name}"), "run")
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_wrong_flags_of_every_command_answer_at_once(command):
    """Without TensorFlow and within two seconds, of the processor: other work on it doesn't count."""
    code = (
        f"import sys; from mobiledets_tf.cli import {command} as c; "
        "help, wrong = c.run(['c', '--help']), c.run(['c', '--no_such_flag=1']); "
        "print(help, wrong, 'tensorflow' in sys.modules)"
    )
    before = _cpu_seconds_of_children()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 2 False"
    assert "unknown flag --no_such_flag" in done.stderr and done.stderr.count("\n") == 1
    assert _cpu_seconds_of_children() - before < 2


def _help(command):
    code = f"from mobiledets_tf.cli import {command} as c; c.run(['c', '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    values = importlib.import_module(f"mobiledets_tf.cli.{command}").FLAGS
    return done.stdout, values


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_every_flag_once_with_its_default(command):
    shown, values = _help(command)
    name = {"import_weights": "import"}.get(command, command)
    examples, _, listed = shown.partition("Flags (")
    assert f"\n  mobiledets-{name}" in examples
    blocks = re.split(r"\n  (?=--)", listed)
    by_name = {re.match(r"--(?:\[no\])?(\w+)", block)[1]: " ".join(block.split()) for block in blocks[1:]}
    assert len(blocks) - 1 == len(by_name) and set(by_name) == set(values)
    for flag, block in by_name.items():
        if values[flag].default not in (None, []):
            assert f"(default: {values[flag].default_as_str.strip(chr(39))})" in block
    assert max(map(len, shown.splitlines())) <= 110


def test_help_groups_required_flags_first_and_shows_choices(capsys):
    _, run = _command(lambda _: 0, required=True)
    assert run(["prog", "--help"]) == 0
    shown = capsys.readouterr().out
    required, settings = shown.index("Flags (required):"), shown.index("Flags (settings):")
    assert required < shown.index("--model_dir") < settings < shown.index("--mode={train,eval}")


def test_help_shows_flags_and_survives_a_closed_pipe():
    command = f"{sys.executable} -m mobiledets_tf.cli.describe"
    shown = subprocess.run([*command.split(), "--help"], capture_output=True, text=True, check=True)
    assert "--architecture" in shown.stdout
    reader = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE); "
    reader += "p.stdout.close(); sys.exit(p.wait())"
    piped = subprocess.run([sys.executable, "-c", reader, *command.split(), "--help"], capture_output=True)
    assert b"Traceback" not in piped.stderr
