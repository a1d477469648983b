"""The networks that ship, each an ONNX file beside its card."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def shipped() -> set[str]:
    """Names of the networks that ship, whatever they do.

    Examples
    --------
    >>> {"blind-unet", "brain"} <= shipped()
    True
    """
    return {path.stem for path in FOLDER.glob("*.onnx")}
