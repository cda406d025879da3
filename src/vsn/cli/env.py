"""`vsn env`: print what a bug report needs."""

from __future__ import annotations

import json

from vsn.cli.options import Json


def env(*, json_output: Json = False) -> None:
    """Print versions, hardware, GPUs and extras, for a bug report. Nothing in it names a person, host or folder."""
    from vsn.system.environment import describe_environment

    facts = describe_environment()
    if json_output:
        print(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        print(f"{f'{name}:':<{width}}{value}")
