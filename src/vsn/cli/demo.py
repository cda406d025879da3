"""`vsn demo`: train and compare TSN, TSM and VSN on the embedded data set."""

from __future__ import annotations

from pathlib import Path

from vsn.config.recipes import find_recipe, load_recipe


def demo(out: Path | None = None, quick: bool = False, seed: int = 0) -> None:
    """Show the paper's claim: TSN, TSM and VSN on videos that differ only in the order of frames.

    Makes the embedded data set, trains the three models, prints one table and writes report.html.

    Args:
        out: folder of the data set, the runs and the report; default vsn-demo (vsn-demo-quick with --quick). An
            interrupted demo continues there.
        quick: eight of the classes, fewer videos and epochs: under 2 minutes.
        seed: of the data set and the training.
    """
    from vsn.demo import run_demo, shorten

    out = out or Path("vsn-demo-quick" if quick else "vsn-demo")
    recipe = load_recipe(find_recipe("demo"))
    run_demo(out, recipe if quick else shorten(recipe), quick=quick, seed=seed)
