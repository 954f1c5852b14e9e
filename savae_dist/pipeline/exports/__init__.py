"""A pipeline for elsewhere: folders for the Hub, ONNX, torch.export, INT8, a local page."""
