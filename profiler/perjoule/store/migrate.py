"""From older versions of the result file to the newest, one step a version.

A step takes the JSON object of version ``n`` and returns that of ``n + 1``; it names, drops and fills keys, and
computes no number: those are derived again. When ``perjoule.records.SCHEMA_VERSION`` grows, a function
``migrate_<n>_to_<n+1>`` is written here and named in ``STEPS``; the golden file of version ``n`` then has to load.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from perjoule.records import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

Content = dict[str, Any]
STEPS: dict[int, Callable[[Content], Content]] = {}  # there is one version so far


class MigrationError(Exception):
    """A file that says it is of an older version and is not like one."""


def oldest() -> int:
    """Return the oldest version that can be read."""
    return min([SCHEMA_VERSION, *STEPS])


def newest(content: Content) -> Content:
    """Return the content in the newest version; the very same object if it is of it already.

    Raises ``MigrationError`` for content that its version does not describe.
    """
    version = content["schema_version"]
    if version == SCHEMA_VERSION:
        return content
    content = copy.deepcopy(content)
    for step in range(version, SCHEMA_VERSION):
        try:
            content = STEPS[step](content)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise MigrationError(f"it is not of schema_version {step}: {type(error).__name__} {error}") from error
        content["schema_version"] = step + 1
    return content
