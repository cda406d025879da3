"""`vsn fuse`, `compare`, `submit` and `calibrate`: what can be done with saved scores, without a network."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from vsn.scores.scores import Scores

_Json = Annotated[bool, tyro.conf.arg(name="json")]


def fuse(
    files: Annotated[list[Path], tyro.conf.Positional],
    weights: tuple[float, ...] = (),
    search: bool = False,
    logits: bool = False,
    common: bool = False,
    split: str = "",
    protocol: str = "",
    seed: int = 0,
    out: Path | None = None,
    json_output: _Json = False,
) -> None:
    """Average the scores of several models: an ensemble, or the two streams of RGB and flow.

    The mean of the softmax probabilities, one to one, as in the paper's Table 2. Videos and classes are
    matched by name. Prints each input, the mean, and what it gains over the best input.

    Args:
        files: files of scores (RUN/eval/*.npz), or run folders that have one fit for it.
        weights: one a file; only their ratio counts.
        search: find the weights on half of the videos, and report on the other half alone.
        logits: average logits instead of probabilities.
        common: fuse the videos that all files have, and say how many were left out.
        split: of run folders, the split.
        protocol: of run folders, the protocol.
        seed: of the halves of --search.
        out: write the fused scores here; with --search those of the reported half alone.
        json_output: print JSON.
    """
    from vsn.cli.score_tables import print_fusion
    from vsn.scores.fuse import fuse_scores, fusion_report, search_weights
    from vsn.scores.match import match_scores

    if search and weights:
        raise ValueError("--search finds the weights; give it or --weights, not both.")
    names, inputs = _load(files, split, protocol)
    matched, left_out = match_scores(inputs, names, common=common)
    chosen: tuple[float, ...] | None = weights or None
    found = search_weights(matched, logits=logits, seed=seed) if search else None
    if found is not None:
        chosen = found.weights
        matched = [one.take(~found.searched) for one in matched]
    fused = fuse_scores(matched, weights=chosen, logits=logits)
    for part, name in zip(fused.facts["fused_from"], names, strict=True):
        part["file"] = name
    labeled = not fused.num_unlabeled
    report: dict[str, Any] = {"num_videos": len(fused.video_ids)}
    if labeled:
        report = fusion_report(matched, names, fused).to_dict()
    report["left_out"] = left_out
    if found is not None:
        report["searched"] = {
            "num_videos": int(found.searched.sum()),
            "seed": seed,
            "weights": list(found.weights),
            "score": found.score,
        }
        fused.facts["searched"] = report["searched"]
    if out is not None:
        fused.save(_npz(out))
    if json_output:
        print(json.dumps(report, indent=2))
    else:
        print_fusion(report)


def compare(
    a: Annotated[Path, tyro.conf.Positional],
    b: Annotated[Path, tyro.conf.Positional],
    common: bool = False,
    split: str = "",
    protocol: str = "",
    seed: int = 0,
    show_all: Annotated[bool, tyro.conf.arg(name="all")] = False,
    json_output: _Json = False,
) -> None:
    """Compare two models video by video: is the second better, in which classes, on which videos.

    The paired bootstrap of the difference, McNemar's exact test, the classes and videos that changed sides.

    Args:
        a: a file of scores, or a run folder that has one fit for it.
        b: the other; differences are b minus a.
        common: compare on the videos that both have, and say how many were left out.
        split: of run folders, the split.
        protocol: of run folders, the protocol.
        seed: of the bootstrap.
        show_all: print every class and every video that changed sides.
        json_output: print JSON.
    """
    from vsn.cli.score_tables import print_comparison
    from vsn.scores.compare import compare_scores
    from vsn.scores.match import match_scores

    names, inputs = _load([a, b], split, protocol)
    matched, left_out = match_scores(inputs, names, common=common)
    result = {"a": names[0], "b": names[1], "left_out": left_out, **compare_scores(*matched, seed=seed).to_dict()}
    if json_output:
        print(json.dumps(result, indent=2))
    else:
        print_comparison(result, show_all=show_all)


def submit(
    file: Annotated[Path, tyro.conf.Positional],
    server: Annotated[Literal["something-v1", "something-v2"], tyro.conf.arg(name="for")],
    out: Path = Path("submission.csv"),
    labels: Path | None = None,
    videos: Path | None = None,
    answers: Path | None = None,
    split: str = "test",
    protocol: str = "",
) -> None:
    """Write the file a test server of Something-Something takes, from the scores of its test split.

    Args:
        file: a file of scores, fused ones too, or a run folder that has one fit for it.
        server: something-v1 takes `id;class text` a line, something-v2 the official indices of five classes.
        out: the file to write, whole or not at all.
        labels: for something-v2, the official labels.json: names the classes' indices.
        videos: the official list of the test split; every video of it must be there once, and no other.
        answers: lines `id;class text`; score the scores by them here.
        split: of a run folder, the split.
        protocol: of a run folder, the protocol.
    """
    from vsn.scores import submit as servers
    from vsn.system.files import write_text

    _, (scores,) = _load([file], split, protocol)
    if videos is not None:
        servers.check_complete(scores, servers.read_video_ids(videos))
    indices = servers.read_indices(labels) if labels is not None else None
    text = servers.submission(scores, server, indices=indices)
    marks = servers.mark(scores, servers.read_answers(answers)) if answers is not None else None
    write_text(out, text)
    print(f"{out}: {len(scores.video_ids)} videos for {server}")
    if videos is None:
        print("Whether these are all videos of the split was not checked; --videos names the official list.")
    if marks is not None:
        low, high = marks.top1_interval
        print(f"By {answers}: top-1 {marks.top1:.1%} (95% interval {low:.1%} to {high:.1%}), top-5 {marks.top5:.1%}")


def calibrate(
    file: Annotated[Path, tyro.conf.Positional],
    apply: Path | None = None,
    precision: float | None = None,
    split: str = "val",
    protocol: str = "",
    out: Path | None = None,
    plot: Path | None = None,
    json_output: _Json = False,
) -> None:
    """Fit a temperature on validation scores, so that probabilities mean what they say.

    With --precision, also the lowest probability at which the labels given are that often right; below
    it the answer is "unknown".

    Args:
        file: validation scores: a file, or a run folder that has one fit for it.
        apply: scores of other videos, to see there what was fitted here; a file, or a run folder.
        precision: the share of given labels that should be right, such as 0.95.
        split: of a run folder as FILE, the split.
        protocol: of run folders, the protocol.
        out: write the calibration here, as JSON.
        plot: write accuracy against confidence here, before and after, as SVG.
        json_output: print JSON.
    """
    from vsn.cli.score_tables import print_calibration
    from vsn.scores import calibrate as fitting
    from vsn.system.files import write_text

    if plot is not None and plot.suffix.lower() != ".svg":
        raise ValueError(f"--plot is {str(plot)!r}; the chart is an SVG file, so end its name in .svg.")
    (name,), (scores,) = _load([file], split, protocol)
    found = fitting.calibrate(scores, precision=precision, file=name)
    report = {**vars(found), "applied": None}
    shown = scores
    if apply is not None:
        (applied_name,), (shown,) = _load([apply], "", protocol)
        report["applied"] = {
            "file": applied_name,
            **asdict(fitting.evaluate_calibration(found, shown)),
        }
    if plot is not None:
        from vsn.report.reliability import reliability_chart

        curves = {
            "before": fitting.reliability_curve(shown),
            f"T = {found.temperature:.2f}": fitting.reliability_curve(shown, temperature=found.temperature),
        }
        write_text(plot, reliability_chart(curves, title=report["applied"]["file"] if apply else name))
    if out is not None:
        found.save(out)
    if json_output:
        print(json.dumps(report, indent=2))
    else:
        print_calibration(report)


def _load(paths: list[Path], split: str, protocol: str) -> tuple[list[str], list[Scores]]:
    """Names and scores of files, or of the run folders' files."""
    from vsn.runs.results import find_scores
    from vsn.scores.scores import load_scores

    found = [find_scores(path, split=split or None, protocol=protocol or None) for path in paths]
    names, scores = [str(path) for path in found], [load_scores(path) for path in found]
    for key in ("split", "protocol", "order", "weights"):
        values = [str(one.facts.get(key, "")) for one in scores]
        if len(set(values)) > 1 and all(values):
            said = ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
            print(f"Note: the scores differ in their {key}: {said}.", file=sys.stderr)
    return names, scores


def _npz(path: Path) -> Path:
    if path.suffix != ".npz":
        raise ValueError(f"--out is {str(path)!r}; scores are written as .npz, so end its name so.")
    return path
