"""A trained model as a file to deploy, checked against the model it came from.

    deep copy -> parts -> (8-bit) -> files in a temporary folder -> opened again -> parity on real images -> renamed

`zoo.export.job.export` does it. One idea a file: parts, graph (torch.export), onnx, pt2, safetensors, int8, int8_onnx,
images, parity. A format's module has `SUFFIX`, `write` and `open_file`.
"""
