"""Check a data set: each check is a function of the evidence that yields findings; `CHECKS` lists them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, get_args

from vsn.data.flips import describe_pairs, flipped_labels, has_side, propose_flip_rule, unclear_pairs
from vsn.data.groups import groups_in_training
from vsn.data.part import VideoPart, overlapping_pairs, shared_fraction
from vsn.data.readers.entries import MAX_SHARED
from vsn.doctor.evidence import Evidence
from vsn.doctor.findings import Finding, Severity, make_finding
from vsn.doctor.mirror import mirrored_pairs
from vsn.doctor.splits import Place
from vsn.doctor.videos import Problem
from vsn.system.limits import num_cpus
from vsn.system.numbers import counted, percent

LONG_KEY_INTERVAL = 100
MANY_FRAMES = 32
"""Sparse reading is expensive for videos with more than MANY_FRAMES frames for each one of the clip, and more than
LONG_KEY_INTERVAL frames between key frames: the decoder starts at a key frame."""
LARGE_SIDE = 2.5
"""Ratio of the shorter side of a video to clip.short_side above which most decoded pixels are discarded."""
LOST_SHARE = 0.02
"""Share of the announced frames that may be missing; some containers count a few too many."""
IMBALANCE_RATIO = 20.0
"""Ratio of the largest to the smallest class, in videos, above which the small classes are hardly learned."""

_USES = {"train": "training", "val": "validation", "test": "testing"}


def _found(code: str, items: Sequence[str], **fields: Any) -> Iterator[Finding]:
    """Yield the finding of these items; nothing without items."""
    if items:
        yield make_finding(code, items, **fields)


# --- splits ----------------------------------------------------------------------------------------


def check_roles(evidence: Evidence) -> Iterator[Finding]:
    """Find splits with two roles, and annotated videos that are not on disk."""
    for split in evidence.splits:
        if "train" in split.roles and len(split.roles) > 1:
            uses = " and ".join(_USES[role] for role in split.roles)
            yield make_finding("leak/roles", split=split.name, uses=uses)
        elif len(split.roles) > 1:
            yield make_finding("val-is-test", split=split.name)
    # Readers leave out annotated videos that are not on disk, as many download only a part of Kinetics.
    incomplete = [(split, split.records.num_missing) for split in evidence.splits if split.records.num_missing]
    if incomplete:
        items = [f"{n:,} of {n + len(split.videos):,} of {split.name}" for split, n in incomplete]
        yield make_finding("not-on-disk", items, missing=counted(sum(n for _, n in incomplete), "annotated video"))


def check_reading(evidence: Evidence) -> Iterator[Finding]:
    """Pass on what the reader decided, such as a held-out part, or a separator."""
    notes = dict.fromkeys(note for split in evidence.splits for note in split.records.notes)
    for note in notes:
        yield make_finding("as-read", note=note.rstrip("."))


# --- labels ----------------------------------------------------------------------------------------


def check_unlabeled(evidence: Evidence) -> Iterator[Finding]:
    """Find splits, or single videos, without labels."""
    for split in evidence.splits:
        # Task "arrow" makes its own labels, and a multi-label video may have none.
        if split.records.per_video > 1 or split.records.multi_label:
            continue
        unlabeled = [record.video_id for record in split.videos if not record.labels]
        if unlabeled and split.roles == ("test",) and len(unlabeled) == len(split.videos):
            yield make_finding("no-test-labels", number=len(unlabeled), split=split.name)
        elif unlabeled:
            yield make_finding("unlabeled", unlabeled, split=split.name)


def check_classes(evidence: Evidence) -> Iterator[Finding]:
    """Find classes without training videos, tested or not, and classes never tested."""
    train = evidence.split_of("train")
    if train is None or not (counts := train.class_counts()):
        return
    # Class -> how the first split that tests it does: "wave (3 videos in test)".
    tested: dict[str, str] = {}
    for split in evidence.splits:
        if "train" not in split.roles:
            for name, number in split.class_counts().items():
                if number:
                    tested.setdefault(name, f"{name} ({counted(number, 'video')} in {split.name})")
    known = dict.fromkeys((*counts, *tested))
    untrained = [name for name in known if not counts[name]]
    yield from _found("class-unseen", [tested[name] for name in untrained if name in tested])
    yield from _found("class-empty", [name for name in untrained if name not in tested], num_classes=len(known))
    if tested:  # else no other split has labels, and every class would be listed
        yield from _found("class-untested", [name for name, n in counts.items() if n and name not in tested])


def check_balance(evidence: Evidence) -> Iterator[Finding]:
    """Find training classes of very different sizes."""
    train = evidence.split_of("train")
    sizes = {name: n for name, n in (train.class_counts() if train else Counter()).items() if n}
    if train is None or len(sizes) < 2:
        return
    largest, smallest = max(sizes, key=sizes.__getitem__), min(sizes.values())
    if sizes[largest] / smallest <= IMBALANCE_RATIO:
        return
    if evidence.recipe.data.balance:
        advice = "data.balance is on: each class is drawn equally often."
    elif train.records.multi_label:
        advice = "Set train.class_weights, and report mean class accuracy or mAP."
    else:
        advice = (
            "Set data.balance = true (draws classes equally often) or train.class_weights = true (weights the loss), and "
            "compare by mean class accuracy."
        )
    # Smallest first, so that the message names the worst.
    small = sorted((n, name) for name, n in sizes.items() if sizes[largest] / n > IMBALANCE_RATIO)
    yield make_finding(
        "imbalance",
        [f"{name} ({counted(n, 'video')})" for n, name in small],
        severity="note" if evidence.recipe.data.balance else "warning",
        largest=largest,
        ratio=sizes[largest] / smallest,
        smallest=counted(smallest, "video"),
        advice=advice,
    )


def check_flips(evidence: Evidence) -> Iterator[Finding]:
    """Find random flips of classes named by left or right."""
    classes = evidence.splits[0].records.classes if evidence.splits else ()
    # "swipe left" mirrored shows "swipe right" with the label "swipe left". Task "arrow" does not use the names.
    sided = [name for name in classes if has_side(name)]
    flip = evidence.recipe.data.flip
    if evidence.recipe.data.task == "arrow":
        return
    if sided and flip == "random":
        rule, reason = propose_flip_rule(classes)
        yield make_finding("flip", sided, rule=rule, reason=reason)
    # "random" and "swap" are the answers to the question whether these are sides; the first may be a default.
    if flip in ("auto", "random") and (pairs := unclear_pairs(classes)):
        items = [f"{classes[a]} and {classes[b]}" for a, b in pairs]
        yield make_finding("flip-unclear", items, question=describe_pairs(classes, pairs).rstrip("."))


def check_mirrored(evidence: Evidence) -> Iterator[Finding]:
    """Find classes that look like another one in a mirror, and are flipped without changing the label."""
    train = evidence.split_of("train")
    if train is None or train.records.per_video > 1 or train.records.multi_label:
        return
    flipped = flipped_labels(train.records.classes, evidence.recipe.data.flip)
    motions: dict[str, list[bytes]] = {}
    for record in train.videos:
        if flipped.get(record.label) == record.label and (report := evidence.reports.get(record.shown)):
            motions.setdefault(train.records.classes[record.label], []).append(report.motion)
    yield from _found("mirrored", [f"{a} and {b}" for a, b in mirrored_pairs(motions)])


# --- videos ----------------------------------------------------------------------------------------


def check_readable(evidence: Evidence) -> Iterator[Finding]:
    """Find videos, or their flow, that cannot be read: one finding per problem."""
    kinds = [("", evidence.reports)] + ([("flow-", evidence.flow.reports)] if evidence.flow is not None else [])
    for prefix, reports in kinds:
        problems = {video: report.problem for video, report in reports.items()}
        for problem in get_args(Problem)[1:]:  # the first is "", no problem
            bad = [video for video, its_problem in problems.items() if its_problem == problem]
            severity, effect = unreadable_effect(evidence, bad, problems)
            if not prefix and not evidence.reads_frames:
                severity, effect = (
                    "warning",
                    "A run on flow reads no frames; `vsn flow extract` and a run on frames do.",
                )
            items = [evidence.name(video, reports[video].reason.rstrip(".")) for video in bad]
            yield from _found(f"{prefix}{problem}", items, severity=severity, effect=effect)


def unreadable_effect(
    evidence: Evidence, bad: Collection[VideoPart], problems: Mapping[VideoPart, Problem]
) -> tuple[Severity, str]:
    """Return the severity and the effect on a run if the videos `bad`, or their flow, cannot be read.

    `problems` has every video inspected, with "" for those without a problem.
    """
    if any(problems[video] in ("crashed", "too-slow") for video in bad):
        return "error", "A run would crash or hang there."
    train = evidence.split_of("train")
    trained = [video for video in train.shown if video in problems] if train else []
    # Training tolerates a share of bad videos, validation and testing none.
    limit = evidence.recipe.data.bad_videos
    over_limit = sum(bool(problems[video]) for video in trained) > limit * len(trained)
    roles = {role for video in bad for place in evidence.places[video] for role in place.split.roles}
    effects = []
    if "train" in roles:
        effects.append(
            f"Training would stop: more of its videos are bad than data.bad_videos = {limit:g} allows."
            if over_limit
            else f"Training would skip them, as data.bad_videos = {limit:g} allows."
        )
    stopped = [_USES[role] for role in ("val", "test") if role in roles]
    if stopped:
        effects.append(f"{' and '.join(stopped).capitalize()} would stop.")
    return "error" if stopped or over_limit else "warning", " ".join(effects)


def check_truncated(evidence: Evidence) -> Iterator[Finding]:
    """Find files that end before the frames that their header announces, or whose tail does not decode."""
    items = [
        evidence.name(report.video, f"{report.num_frames} of {report.announced} frames")
        for report in evidence.readable
        if report.announced - report.num_frames > max(2, LOST_SHARE * report.announced)
    ]
    yield from _found("truncated", items)


def check_short(evidence: Evidence) -> Iterator[Finding]:
    """Find videos with fewer frames than a clip."""
    # A single frame is often a cover picture or a failed extraction, so it is another finding than a short video.
    num_frames = evidence.recipe.model.num_frames
    short = [report for report in evidence.readable if report.num_frames < num_frames]
    single = [evidence.name(report.video) for report in short if report.num_frames == 1]
    yield from _found("single-frame", single, num_frames=num_frames)
    several = [evidence.name(r.video, counted(r.num_frames, "frame")) for r in short if r.num_frames > 1]
    yield from _found("too-short", several, num_frames=num_frames)


def check_sizes(evidence: Evidence) -> Iterator[Finding]:
    """Find videos whose frames change size."""
    items = [
        evidence.name(report.video, f"{report.num_sizes} sizes, the first {report.width}x{report.height}")
        for report in evidence.readable
        if report.num_sizes > 1
    ]
    yield from _found("variable-size", items)


def check_times(evidence: Evidence) -> Iterator[Finding]:
    """Find videos whose frames are unevenly spaced in time."""
    items = [
        evidence.name(
            report.video,
            f"{report.frames_per_second:.1f} frames per second on average, {report.usual_rate:.1f} where it moves, "
            f"{report.duration:.1f} s, one frame stays {report.longest_still:.1f} s",
        )
        for report in evidence.readable
        if report.usual_rate
    ]
    yield from _found(f"uneven/{evidence.recipe.clip.by}", items)


def check_frame_names(evidence: Evidence) -> Iterator[Finding]:
    """Find frame folders with different naming schemes."""
    folders: dict[str, list[VideoPart]] = {}
    for report in evidence.reports.values():
        if report.frame_names:
            folders.setdefault(report.frame_names, []).append(report.video)
    if len(folders) > 1:
        most_common_first = sorted(folders.items(), key=lambda pair: -len(pair[1]))
        items = [
            f"{scheme}: {counted(len(videos), 'folder')}, such as {evidence.name(videos[0])}"
            for scheme, videos in reversed(most_common_first)
        ]
        yield make_finding("mixed-frame-names", items)


def check_listed_frames(evidence: Evidence) -> Iterator[Finding]:
    """Find videos with more or fewer frames than their list file states."""
    listed = {
        record.shown: record.listed_frames
        for split in evidence.splits
        for record in split.videos
        if record.listed_frames
    }
    different = [
        (report.num_frames, number, report.video)
        for report in evidence.readable
        if (number := listed.get(report.video)) and number != report.num_frames
    ]
    # Most missing frames first.
    different.sort(key=lambda row: (row[0] - row[1], row[2]))
    num_fewer = sum(present < number for present, number, _ in different)
    yield from _found(
        "listed-frames",
        [evidence.name(video, f"{present} of {number} frames") for present, number, video in different],
        severity="warning" if num_fewer else "note",
        num_fewer=num_fewer,
    )


def check_cost(evidence: Evidence) -> Iterator[Finding]:
    """Find videos that decode far more than is used of them."""
    # Two causes: pixels that the resize discards, and frames decoded only to reach the next one of the clip.
    side, many = evidence.recipe.clip.short_side, MANY_FRAMES * evidence.recipe.model.num_frames
    expensive = [
        report
        for report in evidence.readable
        if min(report.height, report.width) > LARGE_SIDE * side
        or (report.key_interval > LONG_KEY_INTERVAL and report.num_frames > many)
    ]
    if expensive and evidence.reads_frames:
        expensive.sort(key=lambda report: -report.seconds)
        items = [
            evidence.name(
                r.video,
                f"{r.num_frames} frames of {r.width}x{r.height}, key frames up to {r.key_interval} apart, "
                f"{1000 * r.seconds:.0f} ms",
            )
            for r in expensive
        ]
        yield make_finding(
            "costly", items, latency_ms=1000 * median(report.seconds for report in expensive), short_side=side
        )


def check_seeking(evidence: Evidence) -> Iterator[Finding]:
    """Find long videos in which single frames cannot be read without those before them."""
    if evidence.reads_frames:
        many = MANY_FRAMES * evidence.recipe.model.num_frames
        items = [
            evidence.name(report.video, f"{report.num_frames} frames; seekable: no, {report.obstacle}")
            for report in evidence.readable
            if report.obstacle and report.num_frames > many
        ]
        yield from _found("not-seekable", items)


# --- copies ----------------------------------------------------------------------------------------


def check_copies(evidence: Evidence) -> Iterator[Finding]:
    """Find the same content in two splits, twice in one split, or with two labels."""
    # Groups of files with one content; a file without copies is its own group, because two splits may list it.
    copied = {path for group in evidence.copies for path in group}
    groups = [*evidence.copies, *((path,) for path in evidence.places_of_file if path not in copied)]
    items: dict[str, list[str]] = {code: [] for code in ("leak", "label-conflict", "copies", "val-in-test")}
    for group in groups:
        places = [place for path in group for place in evidence.places_of_file[path]]
        pairs = _pairs(places)
        # A leak from training biases the result more than one from validation: of a group report only the worse.
        if pair := _first(pairs, lambda a, b: "train" in a.split.roles and "train" not in b.split.roles):
            items["leak"].append(f"{pair[0]} is {pair[1]}" if _is_whole(pair) else f"{pair[0]} overlaps {pair[1]}")
        elif pair := _first(pairs, lambda a, b: "val" in a.split.roles and "val" not in b.split.roles):
            items["val-in-test"].append(f"{pair[0]} is {pair[1]}")
        if pair := _first(pairs, _has_two_labels):
            items["label-conflict"].append(" and ".join(f"{place} is {', '.join(place.classes)}" for place in pair))
        elif pair := _first(pairs, lambda a, b: a.split is b.split and a.record.path != b.record.path):
            items["copies"].append(f"{pair[0]} is {pair[1].record.video_id}")
    for code, found in items.items():
        is_allowed = code == "leak" and evidence.recipe.data.allow_overlap
        yield from _found(code, found, severity="warning" if is_allowed else None)


_Pairs = Sequence[tuple[Place, Place]]


def _pairs(places: Sequence[Place]) -> _Pairs:
    """Return the pairs of places of one content that show the same frames, in both orders, by their order in `places`."""
    found = overlapping_pairs(enumerate(places), lambda place: place[1].record.part)
    both = sorted(
        (pair for (i, a), (j, b) in found for pair in ((i, j, a, b), (j, i, b, a))), key=lambda pair: pair[:2]
    )
    return [(a, b) for _, _, a, b in both]


def _first(pairs: _Pairs, condition: Callable[[Place, Place], object]) -> tuple[Place, Place] | None:
    return next((pair for pair in pairs if condition(*pair)), None)


def _is_whole(pair: tuple[Place, Place]) -> bool:
    return all(place.record.part is None for place in pair)


def _has_two_labels(a: Place, b: Place) -> bool:
    is_same = shared_fraction(a.record.part, b.record.part) > MAX_SHARED
    return is_same and bool(a.classes and b.classes) and set(a.classes) != set(b.classes)


def check_near_copies(evidence: Evidence) -> Iterator[Finding]:
    """Find videos of two splits that show one recording under other bytes; mirrored ones apart."""
    items: dict[str, list[str]] = {"near-copy": [], "near-copy/mirrored": []}
    for a, b, likeness in evidence.near_copies:
        code = "near-copy/mirrored" if likeness.mirrored else "near-copy"
        items[code].append(f"{evidence.name(b)} is {evidence.name(a)}, {percent(likeness.shared, 0)} of it in common")
    for code, found in items.items():
        yield from _found(code, found)


def check_groups(evidence: Evidence) -> Iterator[Finding]:
    """Find groups, such as a person, of the training split that are in another split too."""
    train = evidence.split_of("train")
    if train is None:
        return
    videos = {split.name: Counter(record.group for record in split.videos) for split in evidence.splits}
    items = []
    for group, others in groups_in_training(videos, train.name).items():
        counts = [f"{name}: {counted(videos[name][group], 'video')}" for name in (train.name, *others)]
        items.append(f"{group} ({', '.join(counts)})")
    yield from _found("group-leak", items)


# --- flow and loading --------------------------------------------------------------------------------


def check_flow(evidence: Evidence) -> Iterator[Finding]:
    """Find videos whose flow has another length than their frames, or another size than its motion is measured in."""
    if evidence.flow is None:
        return
    readable = [report for report in evidence.flow.reports.values() if not report.problem]
    # N frames make N - 1 fields, or N where the last is repeated.
    lengths = [
        evidence.name(video.video, f"{counted(flow.num_frames, 'field')} for {counted(video.num_frames, 'frame')}")
        for flow in readable
        if not (video := evidence.reports[flow.video]).problem
        and flow.num_frames not in (video.num_frames - 1, video.num_frames)
    ]
    yield from _found("flow-length", lengths)
    if side := evidence.flow.short_side:
        sizes = [evidence.name(r.video, f"{r.width}x{r.height}") for r in readable if min(r.height, r.width) != side]
        yield from _found("flow-size", sizes, side=side)


def check_loading(evidence: Evidence) -> Iterator[Finding]:
    """Find a GPU that would wait for the loader."""
    loading, gpu = evidence.loading, evidence.gpu_videos_per_second
    if loading is None or gpu is None or loading.clips_per_second >= gpu:
        return
    speed = loading.clips_per_second
    # Loading scales with the workers until the CPUs are used up.
    num_needed = math.ceil(gpu / (speed / max(1, loading.num_workers)))
    if num_needed <= num_cpus():
        advice = f"Set data.num_workers = {num_needed}, or reduce decoding with `vsn data pack`."
    else:
        advice = (
            f"Full speed needs about {num_needed} CPUs, and this machine has {num_cpus()}: reduce decoding with "
            f"`vsn data pack`, and set data.num_workers = {num_cpus()}."
        )
    workers = counted(loading.num_workers, "worker")
    yield make_finding("slow-loading", workers=workers, speed=speed, gpu=gpu, idle=1 - speed / gpu, advice=advice)


CHECKS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    check_roles,
    check_reading,
    check_readable,
    check_copies,
    check_near_copies,
    check_groups,
    check_unlabeled,
    check_classes,
    check_balance,
    check_flips,
    check_mirrored,
    check_truncated,
    check_short,
    check_sizes,
    check_frame_names,
    check_listed_frames,
    check_times,
    check_cost,
    check_seeking,
    check_flow,
    check_loading,
)


def check_all(evidence: Evidence) -> list[Finding]:
    """Run every check."""
    return [finding for check in CHECKS for finding in check(evidence)]
