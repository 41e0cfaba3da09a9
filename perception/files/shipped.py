"""Where the data lie that come with the package: bundles, configurations and the demo's drive."""

from __future__ import annotations

from pathlib import Path

from perception.errors import ConfigError, names_hint

_SITE = Path(__file__).parents[2]
"""The source tree, or the folder that the wheel was installed into."""


def shipped(what: str) -> Path:
    """A folder of data that comes with the package; it need not be there.

    Args:
        what: `bundles`, `configs` or `recordings`.
    """
    installed = _SITE / "anysense" / what
    return installed if installed.is_dir() else _SITE / what


def from_wheel() -> bool:
    """Whether this is an installed wheel, which has fewer data than the source tree."""
    return (_SITE / "anysense" / "bundles").is_dir()


def find_config(name: str | Path) -> Path:
    """A training configuration given by its path, or by the name of one that comes with the package.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(name)
    folder = shipped("configs")
    known = {
        found.relative_to(folder).with_suffix("").as_posix(): found
        for found in sorted(folder.rglob("*.yaml"))
    }
    if path.is_file() or path.suffix or str(name) not in known:
        if path.suffix or path.exists():
            ours = path.with_suffix("").as_posix().removeprefix("configs/")
            if ours in known and path.suffix == ".yaml" and not path.exists():
                raise ConfigError(
                    "no such file",
                    where=str(name),
                    hint=f"ours is called '{ours}'; to change it, copy {known[ours]}",
                )
            return path
        raise ConfigError(
            "no such configuration", where=str(name), hint=names_hint(name, list(known))
        )
    return known[str(name)]
