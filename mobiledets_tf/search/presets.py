"""Presets: named sets of flag values, and how each differs from `tunas`."""

from mobiledets_tf.errors import unknown_name

# Values of the released code (TuNAS, arXiv 2008.06120), except those that depend on the data set.
TUNAS: dict[str, float | int | str] = {
    "algorithm": "tunas",
    "region": "space",
    "published": False,
    "reward": "abs",
    "quality_images": 0,
    "finalist_steps": 0,
    "steps": 50000,
    "op_warmup_fraction": 0.25,
    "filter_warmup_fraction": 0.25,
    "rl_delay_fraction": 0.25,
    "controller_learning_rate": 4.8e-3,
    "rl_batch_multiplier": 4,
    "quality": "AP",
    "extraction": "argmax",
}
# Values for a few hundred to a few thousand steps. Mutations of known networks share weights well, and all
# networks are inside the latency band. The quality is the loss: on 8 held-out batches it had a split-half
# tau of 0.82, while that of AP50 was 0.16. Finalists are compared by training each alone. There is no op
# warm-up because a step with op warm-up takes ten times as long.
SMALL: dict[str, float | int | str] = {
    "algorithm": "evolution",
    "region": "known",
    "published": True,
    "reward": "band",
    "quality_images": 128,
    "finalist_steps": 240,
    "steps": 480,
    "op_warmup_fraction": 0.0,
    "filter_warmup_fraction": 0.0,
    "controller_learning_rate": 0.05,
    "rl_batch_multiplier": 2,
    "quality": "loss",
    "extraction": "target",
}
PRESETS = {"tunas": TUNAS, "small": TUNAS | SMALL}


def get_preset(name: str) -> dict[str, float | int | str]:
    """Returns the flag values of a preset by flag name.

    Raises:
      InputError: the preset is unknown.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]


def changes(name: str) -> str:
    """Describes how a preset differs from `tunas`; empty for `tunas` itself."""
    preset = get_preset(name)
    return ", ".join(
        f"{flag} {TUNAS[flag]} -> {preset[flag]}" for flag in TUNAS if preset[flag] != TUNAS[flag]
    )
