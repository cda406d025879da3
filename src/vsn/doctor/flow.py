"""Locate the stored flow of the videos of all splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vsn.config import ConfigError, FlowLayout, Recipe
from vsn.data.flow.find import describe_located, locate_flow, stored_metadata
from vsn.data.flow.values import FlowMetadata, differing_metadata, expected_flow
from vsn.data.part import VideoPart
from vsn.data.records import RecordSet
from vsn.doctor.findings import Finding, make_finding
from vsn.doctor.splits import Place, Split
from vsn.doctor.videos import VideoReport

_EFFECT = "A run on flow stops with this error."


@dataclass(frozen=True)
class DatasetFlow:
    """Stored flow of the videos of all splits."""

    folder: Path
    layout: FlowLayout
    paths: dict[VideoPart, Path] = field(default_factory=dict)
    """Video -> its flow; without the videos that have none."""
    reports: dict[VideoPart, VideoReport] = field(default_factory=dict)
    """Video -> report, of the videos inspected."""
    metadata: FlowMetadata = field(default_factory=FlowMetadata)
    """As in `flow.json`, or the defaults if there is none."""
    description: str = ""
    """How the flow is stored, for the user; "" if unknown."""
    short_side: int | None = None
    """Shorter side of the fields in pixels, by `flow.json` or else the model; None: unknown."""


def find_flow(splits: Sequence[Split], recipe: Recipe) -> tuple[DatasetFlow | None, list[Finding]]:
    """Locate the flow of every video, None without any; return findings that stop a run before it reads flow."""
    wanted = expected_flow(recipe)
    errors: dict[str, str] = {}
    flow: DatasetFlow | None = None
    missing: list[str] = []
    # Flow -> the videos that would use it. More than one is an error: videos "a/1" and "b/1" both match flow "1".
    owners: dict[Path, dict[VideoPart, Place]] = {}
    for split in splits:
        try:
            located = locate_flow(RecordSet(split.videos, split.records.classes), recipe.data)
        except ConfigError as error:
            errors.setdefault("no-flow", str(error))
            continue
        flow = flow or DatasetFlow(located.folder, located.layout)
        for record, path in zip(split.videos, located.places, strict=True):
            place = Place(split, record, ())
            if path is None:
                missing.append(str(place))
            else:
                flow.paths[record.shown] = path
                owners.setdefault(path, {}).setdefault(record.shown, place)
        # The first split with flow tells how all of it is stored.
        if not flow.description and any(located.places):
            try:
                stated = stored_metadata(located)
                # Assigned before describe_located, which may fail: the values are known even if the files are not.
                flow = replace(flow, metadata=stated or FlowMetadata())
                flow = replace(flow, description=describe_located(located, stated))
            except ConfigError as error:
                errors.setdefault("flow-files", str(error))
    findings = [make_finding(code, effect=_EFFECT, error=message.rstrip(".")) for code, message in errors.items()]
    if flow is None:
        return None, findings
    if missing:
        num_videos = sum(len(split.videos) for split in splits)
        findings.append(
            make_finding("flow-missing/located", missing, effect=_EFFECT, num_videos=num_videos, folder=flow.folder)
        )
    if shared := [" and ".join(map(str, places.values())) for places in owners.values() if len(places) > 1]:
        findings.append(make_finding("flow-shared", shared))
    if differing := differing_metadata(flow.metadata, wanted):
        findings.append(make_finding("flow-otherwise", differing, effect=_EFFECT, folder=flow.folder))
    return replace(flow, short_side=flow.metadata.short_side or wanted.short_side), findings
