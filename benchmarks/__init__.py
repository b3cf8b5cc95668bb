"""Speed compared with TensorFlow and ONNX Runtime: `make bench`."""
