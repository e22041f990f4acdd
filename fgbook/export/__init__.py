"""Trained models as files that other programs run: ONNX and torch.export."""

ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
"""Format -> how the names of its files end."""
