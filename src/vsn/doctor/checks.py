"""Checks of the videos themselves: what does not decode, what is cut short, what comes twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import median

from vsn.doctor.diagnosis import Loading
from vsn.doctor.evidence import Evidence, Finding, Place, bad_effect, counted, make_finding
from vsn.doctor.files import FileReport, Problem
from vsn.doctor.labels import LABEL_CHECKS
from vsn.system.pool import num_cpus

LONG_KEY_INTERVAL = 100
MANY_FRAMES = 32
"""Videos that are costly to read sparsely: more than this many frames for each one of the clip, and more
than LONG_KEY_INTERVAL from key frame to key frame."""
LARGE_SIDE = 2.5
"""Shorter side of a video, over clip.short_side, above which most decoded pixels are thrown away."""
LOST_SHARE = 0.02
"""Share of the announced frames that may be missing; some containers count a few too many."""

_DONE_WITH = {"val": "validated on", "test": "tested on"}
_UNREADABLE: dict[Problem, tuple[str, tuple[str, str], str]] = {
    "missing": ("video", ("is not there", "are not there"), "Get the files, or take their lines out of the annotations."),
    "empty": ("video", ("is empty", "are empty"), "Download or extract again, or take out of the data set."),
    "unreadable": (
        "video",
        ("cannot be decoded", "cannot be decoded"),
        "Play it in a media player: where that works, convert it with FFmpeg; otherwise download it again, "
        "or take it out of the data set.",
    ),
    "crashed": (
        "video",
        ("kills the process that decodes it", "kill the process that decodes them"),
        "Take out of the data set, or convert with FFmpeg.",
    ),
    "too-slow": (
        "video",
        ("takes too long to decode", "take too long to decode"),
        "Take out of the data set, cut into parts, or convert with FFmpeg.",
    ),
}  # fmt: skip


def check_all(evidence: Evidence) -> list[Finding]:
    """Every finding but that of loading."""
    return [finding for check in CHECKS for finding in check(evidence)]


# --- splits ----------------------------------------------------------------------------------------


def check_roles(evidence: Evidence) -> Iterator[Finding]:
    """Splits that serve two ends, and videos that the annotations name but nobody has."""
    for split in evidence.splits:
        if "train" in split.roles and len(split.roles) > 1:
            yield make_finding(
                "leak",
                "error",
                f"The videos of {split.name} are trained on, and {' and '.join(_DONE_WITH[r] for r in split.roles[1:])}",
                [],
                "Set data.val_split and data.test_split to other splits than data.train_split.",
            )
        elif len(split.roles) > 1:
            yield make_finding(
                "val-is-test",
                "note",
                f"The same videos are validated and tested on ({split.name})",
                [],
                "If an epoch or a setting is chosen by the validation accuracy, make three splits: the test accuracy "
                "comes out too good otherwise.",
            )
    missing = [split for split in evidence.splits if split.records.num_missing]
    num_missing = sum(split.records.num_missing for split in missing)
    if missing:
        yield make_finding(
            "not-on-disk",
            "warning",
            f"{counted(num_missing, 'annotated video', ('is', 'are'))} not on disk and left out",
            [f"{s.records.num_missing:,} of {s.records.num_missing + len(s.videos):,} of {s.name}" for s in missing],
            "Results are on fewer videos than others report; say so with them.",
        )


# --- what does not decode --------------------------------------------------------------------------


def check_readable(evidence: Evidence) -> Iterator[Finding]:
    """One finding for each way of being unreadable."""
    problems = {path: report.problem for path, report in evidence.reports.items()}
    for problem, (noun, verb, advice) in _UNREADABLE.items():
        bad = [report for report in evidence.reports.values() if report.problem == problem]
        if not bad:
            continue
        severity, effect = (
            bad_effect(evidence, [report.path for report in bad], problems)
            if evidence.reads_frames
            else ("warning", "A run on flow reads no frames; `vsn flow extract` and a run on frames do.")
        )
        yield make_finding(
            problem,
            severity,
            counted(len(bad), noun, verb),
            [f"{evidence.named(report.path)}: {report.reason.rstrip('.')}" for report in bad],
            advice,
            effect=effect,
        )


def check_truncated(evidence: Evidence) -> Iterator[Finding]:
    """Files that end before what their header announces, or whose tail does not decode."""
    short = [
        report
        for report in evidence.reports.values()
        if not report.problem and report.announced - report.num_frames > max(2, LOST_SHARE * report.announced)
    ]
    if short:
        yield make_finding(
            "truncated",
            "warning",
            f"{counted(len(short), 'video', ('is', 'are'))} cut short or damaged",
            [f"{evidence.named(r.path)}: {r.num_frames} of {r.announced} frames" for r in short],
            "Download or copy again. Training takes the frames there are, which may miss what the label says.",
        )


def check_short(evidence: Evidence) -> Iterator[Finding]:
    """Videos of fewer frames than a clip has, single frames apart."""
    wanted = evidence.num_frames
    good = [report for report in evidence.reports.values() if not report.problem]
    single = [report for report in good if report.num_frames == 1]
    short = [report for report in good if 1 < report.num_frames < wanted]
    if single and wanted > 1:
        yield make_finding(
            "single-frame",
            "warning",
            f"{counted(len(single), 'video', ('has', 'have'))} a single frame, shown {wanted} times",
            [evidence.named(report.path) for report in single],
            "Check what they are, such as a cover picture or a failed extraction; nothing moves in them.",
        )
    if short:
        yield make_finding(
            "too-short",
            "warning",
            f"{counted(len(short), 'video', ('has', 'have'))} fewer frames than the {wanted} of a clip",
            [f"{evidence.named(r.path)}: {counted(r.num_frames, 'frame')}" for r in short],
            "Frames are repeated to fill the clip. Where that is many videos, take a smaller model.num_frames, "
            "or extract more frames a second.",
        )


def check_sizes(evidence: Evidence) -> Iterator[Finding]:
    """Videos whose frames change size."""
    changing = [report for report in evidence.reports.values() if report.num_sizes > 1]
    if changing:
        yield make_finding(
            "variable-size",
            "warning",
            f"{counted(len(changing), 'video', ('has', 'have'))} frames of different sizes",
            [f"{evidence.named(r.path)}: {r.num_sizes} sizes, the first {r.width}x{r.height}" for r in changing],
            "All are stretched to the size of the first. Look whether they are recordings put together.",
        )


def check_frame_names(evidence: Evidence) -> Iterator[Finding]:
    """Frame folders that do not all name and number their frames alike."""
    names: dict[str, list[FileReport]] = {}
    for report in evidence.reports.values():
        if report.frame_names:
            names.setdefault(report.frame_names, []).append(report)
    if len(names) > 1:
        ranked = sorted(names.items(), key=lambda pair: -len(pair[1]))
        items = [
            f"{name}: {counted(len(some), 'folder')}, such as {evidence.named(some[0].path)}" for name, some in ranked
        ]
        yield make_finding(
            "mixed-frame-names",
            "warning",
            f"Frame folders name their frames in {len(names)} ways",
            items[::-1],
            "Look whether two extractions were mixed, or the first frames of some videos are missing.",
        )


def check_listed_frames(evidence: Evidence) -> Iterator[Finding]:
    """Videos with more or fewer frames than their list states; lists may count flow, a frame less."""
    listed = {
        record.path: record.listed_frames
        for split in evidence.splits
        for record in split.videos
        if record.listed_frames
    }
    reports = evidence.reports
    other = [
        (reports[path].num_frames, number, path)
        for path, number in listed.items()
        if path in reports and not reports[path].problem and reports[path].num_frames != number
    ]
    other.sort(key=lambda row: (row[0] - row[1], row[2]))
    fewer = sum(there < number for there, number, _ in other)
    if other:
        yield make_finding(
            "listed-frames",
            "warning" if fewer else "note",
            f"{counted(len(other), 'video', ('has', 'have'))} another number of frames than listed, "
            f"{fewer or 'none'} of them fewer",
            [f"{evidence.named(path)}: {there} of {number} frames" for there, number, path in other],
            "Frames are taken from all that are there. Where some are missing, extract them again; a list that "
            "counts one less throughout may count optical flow.",
        )


def check_cost(evidence: Evidence) -> Iterator[Finding]:
    """Videos that are decoded for far more than is used of them."""
    large = LARGE_SIDE * evidence.clip.short_side
    many = MANY_FRAMES * evidence.num_frames
    costly = [
        report
        for report in evidence.reports.values()
        if evidence.reads_frames
        and not report.problem
        and (
            min(report.height, report.width) > large
            or (report.key_interval > LONG_KEY_INTERVAL and report.num_frames > many)
        )
    ]
    if costly:
        costly.sort(key=lambda report: -report.seconds)
        milliseconds = 1000 * median(report.seconds for report in costly)
        yield make_finding(
            "costly",
            "note",
            f"{counted(len(costly), 'video', ('is', 'are'))} costly to decode (about {milliseconds:.0f} ms for a clip)",
            [
                f"{evidence.named(r.path)}: {r.num_frames} frames of {r.width}x{r.height}, key frames up to "
                f"{r.key_interval} apart, {1000 * r.seconds:.0f} ms"
                for r in costly
            ],
            f"`vsn data pack` stores frames of {evidence.clip.short_side} pixels that are read one by one.",
        )


# --- what comes twice ------------------------------------------------------------------------------


def check_copies(evidence: Evidence) -> Iterator[Finding]:
    """The same content in two splits, twice in one, or under two labels."""
    copied = {path for group in evidence.copies for path in group}
    groups = [*evidence.copies, *((path,) for path in evidence.places if path not in copied)]
    leaks: list[str] = []
    shared: list[str] = []
    conflicts: list[str] = []
    copies: list[str] = []
    listed: list[str] = []
    tests_twice = False
    for group in groups:
        places = [place for path in group for place in evidence.places[path]]
        if pair := _pair(places, lambda a, b: "train" in a.split.roles and "train" not in b.split.roles):
            leaks.append(f"{pair[0]} is {pair[1]}")
        elif pair := _pair(places, lambda a, b: "val" in a.split.roles and "val" not in b.split.roles):
            shared.append(f"{pair[0]} is {pair[1]}")
        if pair := _pair(places, lambda a, b: set(a.classes) != set(b.classes) and a.classes and b.classes):
            conflicts.append(" and ".join(f"{place} is {', '.join(place.classes)}" for place in pair))
        elif pair := _pair(places, lambda a, b: a.split is b.split):
            same_path = any(set(pair) <= set(evidence.places[path]) for path in group)
            (listed if same_path else copies).append(f"{pair[0]} is {pair[1].video_id}")
            tests_twice |= same_path and pair[0].split.roles != ("train",)
    if leaks:
        yield make_finding(
            "leak",
            "error",
            f"{counted(len(leaks), 'training video', ('is', 'are'))} also validated or tested on",
            leaks,
            "Take out one of each pair: accuracy on videos that were trained on says nothing.",
        )
    if conflicts:
        yield make_finding(
            "label-conflict",
            "error",
            f"{counted(len(conflicts), 'video', ('comes', 'come'))} twice, with different labels",
            conflicts,
            "One of the two labels is wrong; keep the right one.",
        )
    if listed:
        yield make_finding(
            "listed-twice",
            "error" if tests_twice else "warning",
            f"{counted(len(listed), 'video', ('is', 'are'))} listed more than once in a split",
            listed,
            "Keep one line of each; `vsn eval` refuses a split that lists a video twice.",
        )
    if copies:
        yield make_finding(
            "copies",
            "warning",
            f"{counted(len(copies), 'video', ('comes', 'come'))} more than once in a split, under different names",
            copies,
            "Keep one of each: copies count double, in training and in the accuracy.",
        )
    if shared:
        yield make_finding(
            "val-in-test",
            "warning",
            f"{counted(len(shared), 'video', ('is', 'are'))} both validated and tested on",
            shared,
            "Take out one of each pair, or choose nothing by the validation accuracy.",
        )


def _pair(places: list[Place], agree: Callable[[Place, Place], object]) -> tuple[Place, Place] | None:
    """The first two places, in this order, of which that is true."""
    for a in places:
        for b in places:
            if a is not b and agree(a, b):
                return a, b
    return None


# --- loading ---------------------------------------------------------------------------------------


def check_loading(loading: Loading | None, gpu_videos_per_second: float | None) -> Iterator[Finding]:
    """A GPU that would wait for the loader."""
    if loading is None or gpu_videos_per_second is None or loading.clips_per_second >= gpu_videos_per_second:
        return
    each = loading.clips_per_second / max(1, loading.num_workers)
    needed = math.ceil(gpu_videos_per_second / each)
    if needed <= num_cpus():
        advice = f"Set data.num_workers = {needed}, or decode less with `vsn data pack`."
    else:
        advice = (
            f"That would take about {needed} CPUs, and this machine has {num_cpus()}: decode less, with `vsn data pack`, "
            f"and set data.num_workers = {num_cpus()}."
        )
    yield make_finding(
        "slow-loading",
        "warning",
        f"Loading gives {loading.clips_per_second:.0f} videos a second with {counted(loading.num_workers, 'worker')}, "
        f"and the GPU takes {gpu_videos_per_second:.0f}: it would wait "
        f"{1 - loading.clips_per_second / gpu_videos_per_second:.0%} of the time",
        [],
        advice,
    )


CHECKS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    check_roles,
    check_readable,
    check_copies,
    *LABEL_CHECKS,
    check_truncated,
    check_short,
    check_sizes,
    check_frame_names,
    check_listed_frames,
    check_cost,
)
