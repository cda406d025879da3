"""Export models: to ONNX, OpenVINO, torch.export, AOTInductor, ExecuTorch, LiteRT and a web page."""
