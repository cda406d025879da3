"""Checks of the labels: classes nobody trains, far too uneven ones, flips that turn them wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator

from vsn.data.flips import has_side, propose_flip_rule
from vsn.doctor.evidence import Evidence, Finding, counted, make_finding

IMBALANCE_RATIO = 20.0
"""Videos of the largest class over those of the smallest, above which the small ones are lost."""


def effective_classes(counts: Counter[str]) -> float:
    """Number of equally large classes that would be as uncertain: 2 to the entropy of `counts`.

    >>> effective_classes(Counter(a=5, b=5, c=5))
    3.0
    """
    total = sum(counts.values())
    shares = [number / total for number in counts.values() if number]
    return round(2 ** -sum(share * math.log2(share) for share in shares), 6) if total else 0.0


def check_labels_known(evidence: Evidence) -> Iterator[Finding]:
    """Splits, or single videos, without labels."""
    for split in evidence.splits:
        without = [record.video_id for record in split.videos if not record.labels]
        if not without or split.records.per_video > 1 or split.records.multi_label:
            continue
        if split.roles == ("test",) and len(without) == len(split.videos):
            yield make_finding(
                "no-test-labels",
                "note",
                f"The {len(without):,} videos of {split.name} have no labels",
                [],
                "Accuracy cannot be computed there; predictions can.",
            )
        else:
            yield make_finding(
                "unlabeled",
                "error",
                f"{counted(len(without), 'video', ('has', 'have'))} no label in {split.name}",
                without,
                "Label them or take them out of the annotations.",
            )


def check_classes(evidence: Evidence) -> Iterator[Finding]:
    """Classes without training videos, whether tested or not, and classes never tested."""
    train = evidence.split_of("train")
    if train is None or not (counts := train.class_counts()):
        return
    others = [split for split in evidence.splits if "train" not in split.roles]
    tested: dict[str, str] = {}
    for split in others:
        for name, number in split.class_counts().items():
            if number:
                tested.setdefault(name, f"{name} ({counted(number, 'video')} in {split.name})")
    known = dict.fromkeys((*counts, *tested))
    untrained = [name for name in known if not counts[name]]
    unseen = [tested[name] for name in untrained if name in tested]
    if unseen:
        yield make_finding(
            "class-unseen",
            "error",
            f"{counted(len(unseen), 'class', ('is', 'are'))} tested without a training video",
            unseen,
            "All their videos count as wrong. Move some to the training split, or leave the classes out.",
        )
    empty = [name for name in untrained if name not in tested]
    if empty:
        yield make_finding(
            "class-empty",
            "warning",
            f"{counted(len(empty), 'class', ('has', 'have'))} no video at all, of {len(known):,}",
            empty,
            "A gap in the class numbers, a class list of another version, or videos still to be downloaded? "
            "The model gets an output for each that is never right.",
        )
    untested = [name for name, number in counts.items() if number and name not in tested]
    labeled = [split for split in others if any(split.class_counts().values())]
    if untested and labeled:
        yield make_finding(
            "class-untested",
            "note",
            f"{counted(len(untested), 'class', ('is', 'are'))} trained but never validated or tested",
            untested,
            "The accuracy says nothing of these classes.",
        )


def check_balance(evidence: Evidence) -> Iterator[Finding]:
    """Training classes of very different sizes."""
    train = evidence.split_of("train")
    sizes = {name: n for name, n in (train.class_counts() if train else Counter()).items() if n}
    if len(sizes) < 2:
        return
    largest, smallest = max(sizes, key=lambda name: sizes[name]), min(sizes, key=lambda name: sizes[name])
    ratio = sizes[largest] / sizes[smallest]
    if ratio <= IMBALANCE_RATIO:
        return
    small = sorted((n, name) for name, n in sizes.items() if sizes[largest] / n > IMBALANCE_RATIO)
    multi = train is not None and train.records.multi_label
    balanced = evidence.config.balance
    yield make_finding(
        "imbalance",
        "note" if balanced else "warning",
        f"The largest class, {largest}, has {ratio:.0f} times the {counted(sizes[smallest], 'video')} of the smallest",
        [f"{name} ({counted(n, 'video')})" for n, name in small],
        "data.balance is on: each class is drawn equally often."
        if balanced
        else "Set train.class_weights, and report mean class accuracy or mAP."
        if multi
        else "Set data.balance = true (draws classes equally often) or train.class_weights = true (weighs the loss), "
        "and look at the mean class accuracy.",
    )


def check_flips(evidence: Evidence) -> Iterator[Finding]:
    """Random flips of classes whose names say left or right."""
    classes = evidence.splits[0].records.classes if evidence.splits else ()
    sided = [name for name in classes if has_side(name)]
    if not sided or evidence.config.flip != "random" or evidence.config.task == "arrow":
        return
    rule, why = propose_flip_rule(classes)
    yield make_finding(
        "flip",
        "error",
        f'data.flip = "random" turns {counted(len(sided), "class", ("into its", "into their"))} opposite, labels unchanged',
        sided,
        f'Set data.flip = "{rule}": {why}',
    )


LABEL_CHECKS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    check_labels_known,
    check_classes,
    check_balance,
    check_flips,
)
