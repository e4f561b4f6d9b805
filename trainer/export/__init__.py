"""A trained network → ONNX files whose outputs are compared with the network's, and their card."""
