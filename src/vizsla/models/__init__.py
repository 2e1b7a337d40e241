"""A trained network as a folder that works anywhere: its card, weights, ONNX graph and predictor."""
