"""Formats the text of `--help`: description and examples, then the flags by group with their defaults."""

import re
import textwrap

from absl import flags

# (group, pattern for the names of its flags). A flag belongs to the first group whose pattern matches;
# the last pattern matches all names.
_GROUPS = (
    (
        "files and folders",
        re.compile(
            r".*(_dir|_data|_config|_model|_from)|data|images|annotations|model|weights|output|picture|samples|"
            r"checkpoint|csv"
        ),
    ),
    (
        "network and device",
        re.compile(
            r"architecture|search_space|num_classes|image_size|depth_multiplier|kernel_sizes|device|target|"
            r".*accelerator.*|.*soc.*|threads|variant|head"
        ),
    ),
    ("distributed training", re.compile(r"distribution_strategy|tpu|worker_hosts|task_index")),
    ("settings", re.compile(r".*")),
)
_REQUIRED = "required"
_WIDTH = 100


def text(flag_values: flags.FlagValues, description: str) -> str:
    """Returns the complete help text of a command.

    Args:
      flag_values: the command's own flags.
      description: what the command does, with examples.
    """
    groups: dict[str, list[str]] = {name: [] for name in (_REQUIRED, *(name for name, _ in _GROUPS))}
    for name in flag_values:
        groups[_group(flag_values, name)] += _lines(flag_values[name])
    parts = [description.strip()]
    parts += ["\n".join([f"Flags ({group}):", *lines]) for group, lines in groups.items() if lines]
    return "\n\n".join(
        [
            *parts,
            "Write values as --flag=value. Exit codes: 0 done, 1 a check failed, 2 invalid input,\n"
            "130 interrupted (run the same command again to resume).",
        ]
    )


def _group(flag_values: flags.FlagValues, name: str) -> str:
    required = any("must have a value" in str(v.message) for v in flag_values[name].validators)
    return _REQUIRED if required else next(group for group, names in _GROUPS if names.fullmatch(name))


def _lines(flag: flags.Flag) -> list[str]:
    help_text = " ".join((flag.help or "").split())
    # Shorten the sentence that absl appends to the help of a flag that can be repeated.
    help_text = help_text.replace("; repeat this option to specify a list of values", " (can be repeated)")
    choices = re.match(r"<([^>]*)>: *", help_text)
    shown = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
    if choices:
        shown += f"={{{choices[1].replace('|', ',')}}}"
        help_text = help_text[choices.end() :]
    default = "" if flag.default in (None, []) else f" (default: {_default(flag)})"
    indent = " " * 6
    return [
        f"  {shown}",
        *textwrap.wrap(help_text + default, _WIDTH, initial_indent=indent, subsequent_indent=indent),
    ]


def _default(flag: flags.Flag) -> str:
    text = flag.default_as_str
    return text[1:-1] if text[:1] == text[-1:] == "'" else text
