"""`vsn models`: list model names."""

from __future__ import annotations

from typing import Annotated

import tyro


def models(pattern: Annotated[str, tyro.conf.Positional] = "*") -> None:
    """List the models that need no extra package.

    Args:
        pattern: only names that match it, such as 'vsn_*'.
    """
    from vsn.models import list_models

    names = list_models(pattern)
    if not names:
        raise ValueError(f"No model name matches {pattern!r}; `vsn models` lists all of them.")
    print("\n".join(names))
