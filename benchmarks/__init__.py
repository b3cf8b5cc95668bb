"""Speed, measured side by side with TensorFlow and ONNX Runtime: `make bench`."""
