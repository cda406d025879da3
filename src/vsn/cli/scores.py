"""`vsn fuse`, `compare`, `submit` and `calibrate`: work on saved scores, without a network."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vsn.cli.options import Json
from vsn.system.files import to_json
from vsn.system.numbers import counted, percent, percent_interval

if TYPE_CHECKING:
    from vsn.scores.scores import Scores

File = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="a score file (RUN/eval/*.npz), or a run folder.")]
Split = Annotated[str, tyro.conf.arg(help="the split whose scores are taken from run folders.")]
ScoreProtocol = Annotated[str, tyro.conf.arg(help="the protocol whose scores are taken from run folders.")]


def fuse(
    files: Annotated[list[Path], tyro.conf.Positional],
    weights: tuple[float, ...] = (),
    search: bool = False,
    logits: bool = False,
    common: bool = False,
    split: Split = "",
    protocol: ScoreProtocol = "",
    seed: int = 0,
    out: Path | None = None,
    json_output: Json = False,
) -> None:
    """Average the scores of several models: an ensemble, or the two streams of RGB and flow.

    The mean of the softmax probabilities with equal weights, as in the paper's Table 2. Videos and classes
    are matched by name. Prints each input, the mean, and its gain over the best input.

    Args:
        files: score files (RUN/eval/*.npz), or run folders.
        weights: one per file; only their ratio matters.
        search: choose the weights on half of the videos, and report results on the other half.
        logits: average logits, not probabilities.
        common: fuse only the videos that all files have, and report how many were left out.
        seed: of the halves of --search.
        out: write the fused scores there; with --search, those of the reported half.
    """
    from vsn.cli.score_tables import print_fusion
    from vsn.scores.fuse import fuse_scores, fusion_report, search_weights
    from vsn.scores.match import match_scores

    if search and weights:
        raise ValueError("--search chooses the weights; leave out --search or --weights.")
    if out is not None and out.suffix != ".npz":
        raise ValueError(f"--out is {str(out)!r}; scores are written as .npz.")
    names, inputs = _load(files, split, protocol)
    matched, left_out = match_scores(inputs, names, common=common)
    chosen, searched = weights or None, {}
    if search:
        result = search_weights(matched, logits=logits, seed=seed)
        chosen = result.weights
        num_searched = int(result.searched.sum())
        searched = {"num_videos": num_searched, "seed": seed, "weights": list(chosen), "score": result.score}
        # Results on the videos that chose the weights would be biased.
        matched = [scores.take(~result.searched) for scores in matched]
    fused = fuse_scores(matched, weights=chosen, logits=logits)
    # The file records its inputs, so that a fusion of fusions keeps its costs.
    for part, name in zip(fused.facts["fused_from"], names, strict=True):
        part["file"] = name
    if searched:
        fused.facts["searched"] = searched
    if out is not None:
        fused.save(out)
    # A test split without public labels can be fused and submitted, but not measured.
    report = None if fused.num_unlabeled else fusion_report(matched, names, fused)
    if json_output:
        values = report.to_dict() if report else {"num_videos": len(fused.video_ids)}
        print(to_json(values | {"left_out": left_out} | ({"searched": searched} if searched else {}), indent=2))
        return
    if left_out:
        print(f"{left_out} videos are not in all files and were left out.")
    if searched:
        print(
            f"Weights chosen on {searched['num_videos']} videos (seed {seed}): {' '.join(f'{w:g}' for w in chosen or ())}. "
            "The following results are of the other videos."
        )
    if report:
        print_fusion(report)
    else:
        print(f"{len(fused.video_ids)} videos, some without a label: no accuracy was computed.")


def compare(
    files: Annotated[list[Path], tyro.conf.Positional],
    common: bool = False,
    split: Split = "",
    protocol: ScoreProtocol = "",
    show_all: Annotated[bool, tyro.conf.arg(name="all")] = False,
    out: Path | None = None,
    json_output: Json = False,
) -> None:
    """Compare models video by video: are the others better than the first, in which classes, on which videos.

    Intervals of the paired differences and McNemar's exact test; of two models also the classes and videos that
    changed.

    Args:
        files: two or more score files (RUN/eval/*.npz) or run folders; differences are to the first.
        common: compare on the videos that all have, and report how many were left out.
        show_all: print every class and every video that changed.
        out: also write one self-contained HTML page, which compares the best with each other one and shows the videos.
    """
    from rich.console import Console

    from vsn.cli.score_tables import print_changes, print_comparisons
    from vsn.runs.results import short_names
    from vsn.scores.compare import compare_scores
    from vsn.scores.match import match_scores
    from vsn.system.terminal import print_note

    if len(files) < 2:
        raise ValueError(f"Got {len(files)} score files or run folders; name two or more, such as runs/tsm runs/vsn.")
    paths, inputs = _load(files, split, protocol)
    matched, left_out = match_scores(inputs, paths, common=common)
    comparisons = [compare_scores(matched[0], other) for other in matched[1:]]
    names = short_names(paths)
    missing = (
        f"{counted(left_out, 'video')} not in {'both' if len(files) == 2 else 'all'}, left out." if left_out else ""
    )
    if out is not None:
        from vsn.report.comparison import write_comparison
        from vsn.report.differences import Named

        named = [Named(name, scores) for name, scores in zip(names, matched, strict=True)]
        command = ["vsn", *sys.argv[1:]]
        print(write_comparison(named, out, notes=[missing] if missing else [], command=command), file=sys.stderr)
    if json_output:
        values = [
            {"a": paths[0], "b": path, "left_out": left_out, **comparison.to_dict()}
            for path, comparison in zip(paths[1:], comparisons, strict=True)
        ]
        print(to_json(values[0] if len(values) == 1 else values, indent=2))
        return
    for name, path in zip(names, paths, strict=True):
        print(f"{name}: {path}")
    if missing:
        print(missing)
    print_comparisons(names, comparisons)
    if len(comparisons) == 1:
        print_changes(names, comparisons[0], show_all=show_all)
    else:
        print_note(Console(), "Classes and videos that changed are printed for two models: name two of them.")


def submit(
    file: File,
    server: Annotated[Literal["something-v1", "something-v2"], tyro.conf.arg(name="for")],
    out: Path = Path("submission.csv"),
    labels: Path | None = None,
    videos: Path | None = None,
    answers: Path | None = None,
    split: Split = "test",
    protocol: ScoreProtocol = "",
) -> None:
    """Write the file that a test server of Something-Something takes, from the scores of its test split.

    Args:
        server: something-v1 takes lines `id;class text`, something-v2 the official indices of five classes.
        out: the file to write.
        labels: for something-v2, the official labels.json with the indices of the classes.
        videos: the official list of the test split, to check that every video is there once, and no other.
        answers: true labels as lines `id;class text`, to compute the accuracy here.
    """
    from vsn.scores import submit as servers
    from vsn.system.files import write_text

    _, (scores,) = _load([file], split, protocol)
    # A server refuses the whole file for one missing video.
    if videos is not None:
        servers.check_complete(scores, servers.read_video_ids(videos))
    indices = servers.read_indices(labels) if labels is not None else None
    text = servers.submission(scores, server, indices=indices)
    # The accuracy is computed first, so that wrong answers leave no file.
    marks = servers.mark(scores, servers.read_answers(answers)) if answers is not None else None
    write_text(out, text)
    print(f"{out}: {len(scores.video_ids)} videos for {server}")
    if videos is None:
        print("Not checked whether these are all videos of the split; pass the official list with --videos.")
    if marks is not None:
        interval = percent_interval(marks.top1_interval)
        print(f"{answers}: top-1 {percent(marks.top1)} (95% interval {interval}), top-5 {percent(marks.top5)}")


def calibrate(
    file: File,
    apply: Path | None = None,
    precision: float | None = None,
    split: Split = "val",
    protocol: ScoreProtocol = "",
    out: Path | None = None,
    plot: Path | None = None,
    json_output: Json = False,
) -> None:
    """Fit a temperature on validation scores, so that probabilities match how often labels are right.

    With --precision, also choose the lowest probability from which labels are right that often, with 95%
    certainty; below it the label is "unknown".

    Args:
        apply: scores of other videos, to measure the calibration on; a file, or a run folder.
        precision: the share of labels that should be right, such as 0.95.
        out: write the calibration there, as JSON.
        plot: draw accuracy against confidence there, before and after, as SVG.
    """
    from vsn.cli.score_tables import print_calibration
    from vsn.scores import calibrate as fitting
    from vsn.system.files import write_text

    if plot is not None and plot.suffix.lower() != ".svg":
        raise ValueError(f"--plot is {str(plot)!r}; the chart is written as .svg.")
    (name,), (scores,) = _load([file], split, protocol)
    fitted = fitting.calibrate(scores, precision=precision, file=name)
    # On the videos it was fitted on a calibration looks better than it is.
    applied = None
    if apply is not None:
        (name,), (scores,) = _load([apply], "", protocol)
        applied = fitting.evaluate_calibration(fitted, scores)
    if plot is not None:
        from vsn.report.charts import reliability_chart

        curves = {
            "before": fitting.reliability_curve(scores),
            f"T = {fitted.temperature:.2f}": fitting.reliability_curve(scores, temperature=fitted.temperature),
        }
        write_text(plot, reliability_chart(curves, title=name))
    if out is not None:
        fitted.save(out)
    if json_output:
        print(to_json({**asdict(fitted), "applied": applied and {"file": name, **asdict(applied)}}, indent=2))
    else:
        print_calibration(fitted, applied)


def _load(paths: list[Path], split: str, protocol: str) -> tuple[list[str], list[Scores]]:
    """Load score files, or those of run folders; note on standard error what they should have in common and do not."""
    from vsn.runs.results import find_scores, weights_changed
    from vsn.scores.facts import different_facts
    from vsn.scores.scores import load_scores

    files = find_scores(paths, split=split or None, protocol=protocol or None)
    names, scores = [str(path) for path in files], [load_scores(path) for path in files]
    facts = [each.facts for each in scores]
    # Fusing or comparing scores of different views is possible, but rarely meant.
    for key, values in different_facts(facts).items():
        pairs = ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
        print(f"Note: the scores differ in their {key}: {pairs}.", file=sys.stderr)
    # `find_scores` does not choose such a file, but it may be named.
    for file, stated in zip(files, facts, strict=True):
        run = file.absolute().parent.parent
        if weights_changed(run, stated.get("weights", "last"), stated.get("weights_hash")):
            print(f"Note: {file} is outdated: the weights of the run have changed since.", file=sys.stderr)
    return names, scores
