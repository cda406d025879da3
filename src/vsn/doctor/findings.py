"""Define all findings of the doctor: code, severity, message and advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vsn.system.numbers import counted

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One problem of a data set, or one fact worth knowing."""

    code: str
    """A name that stays the same across versions, such as "unreadable"."""
    severity: Severity
    """error: breaks or biases a run; warning: may; note: worth knowing."""
    message: str
    """The problem, the number of videos or classes, and the first of them."""
    items: tuple[str, ...]
    """All videos or classes concerned, each with its own detail."""
    advice: str
    """What to do; empty where there is nothing."""


_FIX = "Fix this, then run the doctor again."
_FLOW_AGAIN = "Delete it and run `vsn flow extract` again, which writes only what is missing."

_COUNTED = {"videos": "video", "classes": "class", "groups": "group"}
"""Field of a template -> the noun that the number of items stands before."""

# Code, or code/variant -> severity, problem, advice. {videos}, {classes} and {groups} are the number of items with its noun,
# {n} is the number; the other fields come from the check.
# fmt: off
_TEMPLATES: dict[str, tuple[Severity, str, str]] = {
    # Splits.
    "unreadable-data": ("error", "{error}", _FIX),
    "unreadable-split": ("error", "{error}", _FIX),
    "no-split": ("error", "{error}", "{advice}"),
    "no-split/test": ("note", "{error}", "Training does not need it; `vsn eval` uses the validation split."),
    "leak/roles": ("error", "The videos of {split} are used for {uses}",
        "Set data.val_split and data.test_split to other splits."),
    "val-is-test": ("note", "Validation and testing use the same videos ({split})",
        "Use three splits if the validation accuracy selects anything; else the test accuracy is too high."),
    "not-on-disk": ("warning", "{missing} not on disk and left out", "Report the number of videos with the results."),
    "as-read": ("note", "{note}", ""),
    # Labels.
    "no-test-labels": ("note", "The {number:,} videos of {split} have no labels", "Accuracy cannot be computed there."),
    "unlabeled": ("error", "{videos} without a label in {split}", "Label them, or remove them from the annotations."),
    "class-unseen": ("error", "{classes} tested without training videos",
        "All their videos count as wrong. Move some to the training split, or remove the classes."),
    "class-empty": ("warning", "{classes} of {num_classes:,} without any video",
        "Check for a gap in the class numbers, another version of the class list, or missing downloads."),
    "class-untested": ("note", "{classes} trained, but neither validated nor tested",
        "The accuracy tells nothing about these classes."),
    "imbalance": ("warning", "The largest class, {largest}, has {ratio:.0f} times the {smallest} of the smallest",
        "{advice}"),
    "flip": ("error", 'data.flip = "random" mirrors videos of {classes} without changing the label',
        'Set data.flip = "{rule}": {reason}'),
    "flip-unclear": ("warning", "The names of classes may differ in left and right only", "{question}."),
    "mirrored": ("warning", "In a mirror, videos of a class look like those of another",
        'If they differ in left and right, set data.flip = "never", or name them with "left" and "right" and set "swap".'),
    # Videos.
    "missing": ("error", "{videos} not found", "Get the files, or remove their lines from the annotations."),
    "empty": ("error", "{videos} empty", "Download or extract them again, or remove them."),
    "unreadable": ("error", "{videos} that cannot be decoded",
        "If a media player plays them, convert them with FFmpeg. Otherwise download them again or remove them."),
    "crashed": ("error", "{videos} crashed the decoding process", "Remove them, or convert them with FFmpeg."),
    "too-slow": ("error", "{videos} exceeded the time limit for decoding",
        "Remove them, cut them into parts, or convert them with FFmpeg."),
    "outside": ("error", "{videos} outside of their files",
        "Correct start and end: they are seconds from the beginning of the file."),
    "truncated": ("warning", "{videos} truncated or damaged",
        "Download or copy them again: the frames that are left may not show the labeled action."),
    "single-frame": ("warning", "{videos} with a single frame, repeated {num_frames} times",
        "They show no motion: check for cover pictures and failed extractions."),
    "too-short": ("warning", "{videos} with fewer frames than the {num_frames} of a clip",
        "Frames are repeated to fill the clip. Reduce model.num_frames, or extract more frames per second."),
    "variable-size": ("warning", "{videos} with frames of different sizes",
        "All are resized to the size of the first: check for concatenated recordings."),
    "uneven/time": ("note", "{videos} with frames unevenly spaced in time",
        "Nothing: clips are equal in time. If a frame stays for most of a video, check whether its clock is right."),
    "uneven/index": ("warning", "{videos} with frames unevenly spaced in time",
        'Their clips are not equal in time: set clip.by = "time", or encode them at a constant rate.'),
    "mixed-frame-names": ("warning", "Frame folders use {n} naming schemes",
        "Check whether two extractions were mixed, or first frames are missing."),
    "listed-frames": ("warning", "{videos} with another number of frames than listed, {num_fewer} with fewer",
        "If frames are missing, extract them again. A list that counts one less throughout may count flow."),
    "costly": ("note", "{videos} expensive to decode (about {latency_ms:.0f} ms per clip)",
        "`vsn data pack` stores frames of {short_side} pixels that are read one by one."),
    "not-seekable": ("note", "{videos} decoded from the first frame on, because of their files",
        "Reading long ones is slow. `vsn data pack` stores frames that are read one by one; or encode H.264 in MP4."),
    # Copies.
    "leak": ("error", "{videos} of the training split also used for validation or testing",
        "Remove one of each pair: accuracy on training videos is meaningless."),
    "label-conflict": ("error", "{videos} present twice, with different labels", "Keep the right label."),
    "copies": ("warning", "{videos} present more than once in a split, under different names",
        "Keep one of each: training leaves out the others, and evaluation counts all."),
    "val-in-test": ("warning", "{videos} used for both validation and testing",
        "Remove one of each pair, or select nothing by the validation accuracy."),
    "near-copy": ("warning", "{videos} of one split that show what a video of another shows",
        "Look at the pairs: the same recording, encoded again, resized or trimmed, belongs in one split."),
    "near-copy/mirrored": ("warning", "{videos} of one split that show a video of another in a mirror",
        "Look at the pairs: a mirrored copy belongs in the split of its original."),
    "group-leak": ("warning", "{groups} in the training split and in another",
        "The accuracy there says less about other groups, such as other people: keep each group in one split, or state no "
        "splits, and whole groups are held out."),
    # Flow.
    "no-flow": ("error", "{error}", _FIX),
    "flow-files": ("error", "{error}", _FIX),
    "flow-missing/located": ("error", "{n:,} of {num_videos:,} videos without flow in {folder}",
        "Run `vsn flow extract`, or remove these videos; a video of one frame has no flow."),
    "flow-shared": ("error", "{n:,} flow files or folders match several videos each",
        "Keep the folders of the videos in the flow folder, as `vsn flow extract` does."),
    "flow-otherwise": ("error", "The flow in {folder} is not stored as the model needs it",
        "Run `vsn flow extract` again, or change the model's settings to match."),
    "flow-missing": ("error", "{videos} with missing flow", _FLOW_AGAIN),
    "flow-empty": ("error", "{videos} with empty flow", _FLOW_AGAIN),
    "flow-unreadable": ("error", "{videos} with unreadable flow", _FLOW_AGAIN),
    "flow-crashed": ("error", "{videos} with flow that crashed the reading process", _FLOW_AGAIN),
    "flow-too-slow": ("error", "{videos} with flow that exceeded the time limit for reading", _FLOW_AGAIN),
    "flow-length": ("warning", "{videos} whose N frames do not have N - 1 or N flow fields",
        "Extract it again: it has gaps, or is of another version of the video."),
    "flow-size": ("warning", "{videos} with flow whose shorter side is not {side} pixels",
        "Motion is in pixels of the frames it was computed from: extract all flow with one --short-side."),
    # Loading.
    "slow-loading": ("warning",
        "{workers} load {speed:.0f} videos per second; the GPU needs {gpu:.0f} and would wait {idle:.0%}", "{advice}"),
}
# fmt: on


def make_finding(
    code: str, items: Sequence[str] = (), *, severity: Severity | None = None, effect: str = "", **fields: object
) -> Finding:
    """Fill in the template of a code.

    Args:
        code: of a template, perhaps with a variant: "no-split/test".
        items: the videos or classes concerned.
        severity: instead of the template's.
        effect: on a run, added to the message.
        fields: of the template.

    >>> make_finding("empty", ["a.mp4"], effect="Testing would stop.").message
    '1 video empty: a.mp4. Testing would stop.'
    """
    # format does not look into inserted values, so names of videos and classes may have braces.
    usual_severity, problem, advice = _TEMPLATES[code]
    number = len(items)
    counts = {nouns: counted(number, noun) for nouns, noun in _COUNTED.items()}
    problem = problem.format(n=number, **counts, **fields)
    example = f"{': ' if number == 1 else ', for example '}{items[0]}" if items else ""
    return Finding(
        code.partition("/")[0],
        severity or usual_severity,
        f"{problem}{example}. {effect}".rstrip(),
        tuple(items),
        advice.format(**fields),
    )
