"""The engines that run a network: PyTorch, onnxruntime and OpenVINO."""
