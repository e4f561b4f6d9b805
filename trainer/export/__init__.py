"""`export`: writes a trained network as ONNX files, compares their outputs with the network's, and writes the card."""
