"""Licences of bundles: whether a product may be shipped on them."""

from __future__ import annotations

import re
from typing import Final

from perception.runtime.manifest import Licence

CODE: Final = "Apache-2.0"
"""Of AnySense itself, models included."""

PERMISSIVE: Final = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC-BY-4.0", "CC0-1.0"),
        *("ISC", "MIT", "MIT-0", "PDDL-1.0", "Unlicense", "Zlib"),
    }
)
"""SPDX identifiers of licences that allow to sell what is made of the licensed, at most with a notice."""

_STATED = re.compile(r"([\w.+-]+)(?: \(([^()]*)\))?")
_BUT = re.compile(r"non.?commercial|research|academ|evaluation|not |only|except|unless", re.I)


def permissive(licence: str) -> bool:
    """Whether a text is one of `PERMISSIVE`, with no more than a remark in brackets that takes nothing back.

    Anything else is not, a text that nobody has thought of included: this errs on the side of asking.
    """
    stated = _STATED.fullmatch(licence.strip())
    return bool(stated and stated[1] in PERMISSIVE and not _BUT.search(stated[2] or ""))


def may_ship(licence: Licence) -> bool:
    """Whether weights may be part of a product: they, and the data they were trained on, allow it."""
    return permissive(licence.weights) and permissive(licence.data)


def described(licence: Licence) -> str:
    """The three licences and what follows, in one line."""
    verdict = (
        "may be part of a product" if may_ship(licence) else "not for a product without asking"
    )
    return f"code {CODE}; weights {licence.weights}; data {licence.data}: {verdict}"
