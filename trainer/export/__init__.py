"""A trained network → ONNX files that are proved to say the same, and the card that goes with them."""
