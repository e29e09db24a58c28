"""Sets of flag values, and what each changes."""

from mobiledets_tf.errors import unknown_name

# As released (TuNAS, arXiv 2008.06120), apart from what the data set decides.
TUNAS = {
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
# For a few hundred to a few thousand steps. Mutations of known networks share weights well; all networks
# are inside the latency band; on 8 held-out batches the loss had a split-half tau of 0.82, AP50 one of
# 0.16; the finalists are compared by training each alone. A step with op warm-up takes as long as ten others.
SMALL = {
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
