"""The interface of all models, AnyFuse and its parts, and the zoo of published ones (PyTorch)."""
