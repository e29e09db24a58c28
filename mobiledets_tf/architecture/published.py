"""The four published MobileDets, layer by layer.

Source: TF1 `ssd_mobiledet_feature_extractor.py` of tensorflow/models. The third layer of
block 6 of the DSP network has a residual connection here, as in TF1, where the published
checkpoints come from; Model Garden's table omits it.
"""

from collections.abc import Callable

from mobiledets_tf.architecture.specs import (
    Architecture,
    ConvSpec,
    FusedInvertedBottleneckSpec,
    InvertedBottleneckNoExpansionSpec,
    InvertedBottleneckSpec,
    LayerSpec,
    TuckerSpec,
)


def _separable(filters: int) -> LayerSpec:
    return InvertedBottleneckNoExpansionSpec(filters)


def _ibn(filters: int, expansion: int, kernel: int = 3, strides: int = 1, residual: bool = True) -> LayerSpec:
    return InvertedBottleneckSpec(filters, kernel, strides, residual and strides == 1, expansion)


def _fused(
    filters: int, expansion: int, kernel: int = 3, strides: int = 1, residual: bool = True
) -> LayerSpec:
    return FusedInvertedBottleneckSpec(filters, kernel, strides, residual and strides == 1, expansion)


def _tucker(filters: int, in_ratio: float, out_ratio: float, residual: bool = True) -> LayerSpec:
    return TuckerSpec(filters, 3, 1, residual, in_ratio, out_ratio)


def cpu() -> Architecture:
    """Returns MobileDet-CPU: inverted bottlenecks with h-swish and squeeze-excite (Pixel CPU)."""
    return Architecture(
        name="cpu",
        stem=ConvSpec(16, strides=2),
        activation="hard_swish",
        se_ratio=0.25,
        blocks=(
            (_separable(8),),
            (_ibn(16, 4, strides=2),),
            (_ibn(32, 8, strides=2), _ibn(32, 4), _ibn(32, 4), _ibn(32, 4)),
            (_ibn(72, 8, 5, strides=2), _ibn(72, 8), _ibn(72, 4, 5), _ibn(72, 4)),
            (_ibn(72, 8, residual=False), _ibn(72, 8), _ibn(72, 8), _ibn(72, 8)),
            (_ibn(104, 8, 5, strides=2), _ibn(104, 4, 5), _ibn(104, 4, 5), _ibn(104, 4)),
            (_ibn(144, 8, residual=False),),
        ),
    )


def edgetpu() -> Architecture:
    """Returns MobileDet-EdgeTPU (Pixel 4 Edge TPU)."""
    return Architecture(
        name="edgetpu",
        stem=ConvSpec(32, strides=2),
        blocks=(
            (_tucker(16, 0.25, 0.75, residual=False),),
            (_fused(16, 8, strides=2), _fused(16, 4), _fused(16, 8), _fused(16, 4)),
            (_fused(40, 8, 5, strides=2), _fused(40, 4), _fused(40, 4), _fused(40, 4)),
            (_ibn(72, 8, strides=2), _ibn(72, 8), _fused(72, 4), _fused(72, 4)),
            (_ibn(96, 8, 5, residual=False), _ibn(96, 8, 5), _ibn(96, 8), _ibn(96, 8)),
            (_ibn(120, 8, 5, strides=2), _ibn(120, 8), _ibn(120, 4, 5), _ibn(120, 8)),
            (_ibn(384, 8, 5, residual=False),),
        ),
    )


def dsp() -> Architecture:
    """Returns MobileDet-DSP (Pixel 4 DSP)."""
    return Architecture(
        name="dsp",
        stem=ConvSpec(32, strides=2),
        blocks=(
            (_separable(24),),
            (_fused(32, 4, strides=2), _fused(32, 4), _ibn(32, 4), _tucker(32, 0.25, 0.75)),
            (_fused(64, 8, strides=2), _ibn(64, 4), _fused(64, 4), _fused(64, 4)),
            (_fused(120, 8, strides=2), _ibn(120, 4), _ibn(120, 8), _ibn(120, 8)),
            (_fused(144, 8, residual=False), _ibn(144, 8), _ibn(144, 8), _ibn(144, 8)),
            (_ibn(160, 4, strides=2), _ibn(160, 4), _fused(160, 4), _tucker(160, 0.75, 0.75)),
            (_ibn(240, 8, residual=False),),
        ),
    )


def gpu() -> Architecture:
    """Returns MobileDet-GPU (Jetson Xavier, TensorRT)."""
    return Architecture(
        name="gpu",
        stem=ConvSpec(32, strides=2),
        blocks=(
            (_tucker(16, 0.25, 0.25, residual=False),),
            (_fused(32, 8, strides=2), *[_tucker(32, 0.25, 0.25)] * 3),
            (_fused(64, 8, strides=2), _fused(64, 8), _fused(64, 8), _fused(64, 4)),
            (_fused(128, 8, strides=2), *[_fused(128, 4)] * 3),
            (_fused(128, 8, residual=False), *[_fused(128, 8)] * 3),
            (_fused(128, 4, strides=2), *[_fused(128, 4)] * 3),
            (_ibn(384, 8, residual=False),),
        ),
    )


PUBLISHED: dict[str, Callable[[], Architecture]] = {"cpu": cpu, "edgetpu": edgetpu, "dsp": dsp, "gpu": gpu}
