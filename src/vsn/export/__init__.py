"""Export models to ONNX, OpenVINO, torch.export and AOTInductor, and use the exported files."""
