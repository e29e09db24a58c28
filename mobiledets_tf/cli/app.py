"""Common entry point of all commands: parses the flags, calls the command, returns its exit code.

Exit codes: 0 done, 1 a check failed or a bound was missed, 2 the input or a flag is invalid,
130 interrupted with the state saved.
"""

import dataclasses
import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from absl import flags, logging

from mobiledets_tf.cli import help_text
from mobiledets_tf.errors import CheckFailed, InputError, nearest

Kind = TypeVar("Kind")

HELP_FLAGS = ("--help", "-help", "-h", "--helpshort", "--helpfull", "-?")


def command(
    flag_values: flags.FlagValues, main: Callable[[], int | None], description: str
) -> Callable[..., int]:
    """Creates the entry point of a command.

    Args:
      flag_values: the command's own flags. Each command has its own set, so that one process
        can run several commands (tests, notebooks).
      main: function to call after the flags are parsed; it returns an exit code, or None for 0.
      description: what the command does, with an example; shown by `--help`.

    Returns:
      A function that accepts an optional argument list (default `sys.argv`) and returns an
      exit code; it can be used as a console script.
    """

    def run(argv: Sequence[str] | None = None) -> int:
        argv = list(sys.argv if argv is None else argv)
        try:
            if any(argument in HELP_FLAGS for argument in argv[1:]):
                print(help_text.text(flag_values, description), flush=True)
                return 0
            _parse(flag_values, argv)
            return main() or 0
        except InputError as error:
            return _say("error", str(error), 2)
        except CheckFailed as error:
            return _say("failed", str(error), 1)
        except KeyboardInterrupt:
            return _say("interrupted", "run the same command again to resume", 130)
        except BrokenPipeError:
            # The reader of the output has closed the pipe (`| head`), so there is nothing left to report.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except OSError as error:
            if error.errno in (
                errno.ENOSPC,
                errno.EDQUOT,
                errno.EACCES,
                errno.EROFS,
                errno.EISDIR,
                errno.ENOTDIR,
                errno.EEXIST,
                errno.EPERM,
                errno.ENAMETOOLONG,
            ):
                return _say("error", f"{error.strerror}: {error.filename or 'while writing'}", 2)
            raise

    return run


def note(text: str) -> None:
    """Prints a line to stderr."""
    print(text, file=sys.stderr)


def needed(flag_values: flags.FlagValues, name: str) -> Any:
    """Returns the value of a flag that the chosen --mode needs; raises InputError if it is not given."""
    value = flag_values[name].value
    if not value:
        raise InputError(f"--mode={flag_values.mode} requires --{name}")
    return value


def options(flag_values: flags.FlagValues, kind: type[Kind], **given: Any) -> Kind:
    """Returns options whose fields have the values of the flags of the same names.

    Args:
      flag_values: the command's own flags.
      kind: class of the options, a dataclass.
      **given: values of fields that differ from a flag or have none.
    """
    names = [field.name for field in dataclasses.fields(cast(Any, kind)) if field.name not in given]
    return kind(**{name: flag_values[name].value for name in names}, **given)


def _parse(flag_values: flags.FlagValues, argv: list[str]) -> None:
    # Reset all flags to their defaults, in case this process has called the command before.
    flag_values.unparse_flags()
    for name in flag_values:
        flag_values[name].unparse()
    try:
        rest = flag_values(argv)[1:]
    except flags.Error as error:
        raise InputError(_explain(str(error), flag_values)) from error
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}; write values as --flag=value")
    if not flags.FLAGS.is_parsed():
        # absl logging and libraries read the global flags (none is ours), so these must be parsed too.
        flags.FLAGS(argv[:1])
    logging.use_absl_handler()
    logging.set_verbosity(logging.WARNING)


def _explain(message: str, flag_values: flags.FlagValues) -> str:
    """Rewrites an error message of absl as one line that suggests the nearest flag or value."""
    message = " ".join(message.split())
    unknown = re.match(r"Unknown command line flag '([^']+)'", message)
    if unknown:
        return f"unknown flag --{unknown[1]}{nearest(unknown[1], list(flag_values))}; see --help"
    value = re.match(r"flag --(\w+)=(.*?): value should be one of <(.*)>", message)
    if value:
        allowed = value[3].split("|")
        return f"--{value[1]}={value[2]}{nearest(value[2], allowed)}; allowed: {', '.join(allowed)}"
    missing = re.match(r"flag --(\w+)=None: Flag --\w+ must have a value other than None", message)
    return f"--{missing[1]} is required; see --help" if missing else message


def _say(kind: str, message: str, code: int) -> int:
    print(f"{os.path.basename(sys.argv[0])}: {kind}: {' '.join(message.split())}", file=sys.stderr)
    return code
