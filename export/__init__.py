"""From a trained PyTorch model to a bundle that the runtime loads: ONNX graphs, proof and manifest."""
