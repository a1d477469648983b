"""Arrays through ONNX networks."""
