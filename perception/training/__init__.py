"""Training: configuration, augmentation, losses, loop, methods, pre-training, adaptation (PyTorch)."""
