"""Write the model card of a run: what was measured with exactly these weights, and how to use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vsn.config import Recipe
from vsn.data.processor import Processor
from vsn.runs.results import EvalResult
from vsn.scores.metrics import has_top5
from vsn.system.numbers import percent

_KINDS = {
    "vsn": "a Video Shuffle Network (Ma, Zhou, Lu, Zhang)",
    "tsm": "a TSM (Lin, Gan, Han, 2018)",
    "tsn": "a TSN (Wang et al., 2016)",
}
TAGS = ["vsn", "video"]
# Markdown, so nothing is escaped; on the hub, HTML in a card is sanitized.
_ENVIRONMENT = Environment(
    loader=PackageLoader("vsn.runs.hub"), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
)
_ENVIRONMENT.filters["percent"] = percent


def write_card(
    recipe: Recipe,
    classes: Sequence[str],
    results: Sequence[EvalResult],
    *,
    versions: Mapping[str, Any],
    converted: Mapping[str, Any] | None,
    license: str | None,
    repo: str,
) -> str:
    """Return a card: YAML settings of the hub, then Markdown. Needs huggingface_hub.

    ``results`` must be of the published weights; ``versions`` and ``converted`` are the contents of these JSON files.
    """
    from huggingface_hub import ModelCardData

    settings = ModelCardData(
        library_name="vsn",
        pipeline_tag="video-classification",
        license=license,
        tags=TAGS,
        model_name=repo.rpartition("/")[2],
        # An entry of the hub has no field for the order of frames, so only the usual one is listed.
        eval_results=[_hub_result(result, recipe) for result in results if result.order == "forward"] or None,
    )
    text = _ENVIRONMENT.get_template("card.md.jinja").render(
        repo=repo,
        recipe=recipe,
        model=recipe.model,
        train=recipe.train,
        kind=_KINDS.get(recipe.model.name.partition("_")[0], "a video model"),
        has_top5=has_top5(len(classes)),
        is_multi_label=recipe.data.task == "multilabel",
        data_name=_data_name(recipe),
        classes=classes,
        results=results,
        choice_notes=sorted(
            {f"Split {result.split!r}: {result.choice_note}" for result in results if result.choice_note}
        ),
        num_bad=sum(len(result.bad_videos or ()) for result in results),
        versions=", ".join(f"{name} {versions[name]}" for name in ("vsn", "torch", "torchvision") if name in versions),
        preprocessing=Processor(recipe).describe(),
        converted=converted,
        license=license,
    )
    return f"---\n{settings.to_yaml()}\n---\n\n{text}"


def _data_name(recipe: Recipe) -> str:
    """The data set; for the generic readers with the name of its folder."""
    data = recipe.data
    folder = Path(data.root).name
    return f"{folder} ({data.source})" if folder and data.source in ("folder", "csv") else data.source


def _hub_result(result: EvalResult, recipe: Recipe) -> Any:
    from huggingface_hub import EvalResult as HubResult

    is_multi_label = result.mean_average_precision is not None
    value = result.mean_average_precision if is_multi_label else result.top1
    assert value is not None, "only measured results are published"
    return HubResult(
        task_type="video-classification",
        dataset_type=recipe.data.source,
        dataset_name=_data_name(recipe),
        dataset_split=result.split,
        metric_type="mean_average_precision" if is_multi_label else "accuracy",
        metric_name=f"{'mAP' if is_multi_label else 'top-1'}, protocol {result.protocol}",
        metric_value=round(value, 4),
    )
