"""The networks that ship, each an ONNX file beside its card."""
