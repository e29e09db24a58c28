"""Sets of flag values, and what each changes."""

from mobiledets_tf.errors import unknown_name

# As released (TuNAS, arXiv 2008.06120), apart from what the data set decides.
TUNAS = {
    "op_warmup_fraction": 0.25,
    "filter_warmup_fraction": 0.25,
    "rl_delay_fraction": 0.25,
    "controller_learning_rate": 4.8e-3,
    "rl_batch_multiplier": 4,
    "quality": "AP",
    "extraction": "argmax",
}
# Some hundred steps on some thousand images: a mixed step takes as long as ten others, a slow
# policy learns nothing, AP of a hardly trained network is next to 0, and a policy that has not settled
# stands for no network near the target.
SMALL = {
    "op_warmup_fraction": 0.0,
    "controller_learning_rate": 0.05,
    "rl_batch_multiplier": 2,
    "quality": "AP50",
    "extraction": "target",
}
PRESETS = {"tunas": TUNAS, "small": TUNAS | SMALL}


def get_preset(name: str) -> dict[str, float | int | str]:
    """Flag values by flag name.

    Raises:
      InputError: unknown name.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]


def changes(name: str) -> str:
    """What a preset changes against `tunas`, for people; empty for `tunas` itself."""
    preset = get_preset(name)
    return ", ".join(
        f"{flag} {TUNAS[flag]} -> {preset[flag]}" for flag in TUNAS if preset[flag] != TUNAS[flag]
    )
