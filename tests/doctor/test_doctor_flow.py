"""Every fault planted in stored flow is found as that fault; sound flow has no findings."""

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.helpers.stored_flow import write_fields
from vsn import cli
from vsn.config import ClipSpec, DataConfig, ModelConfig, Recipe
from vsn.data.dataset import VideoDataset
from vsn.data.flow.stored import write_flow_file
from vsn.data.flow.values import FlowMetadata, write_flow_metadata
from vsn.data.records import RecordSet
from vsn.data.video import write_video
from vsn.doctor import Diagnosis, Finding, examine, loading, print_page

CLIP = ClipSpec(short_side=32, crop_size=16)
FACTS = FlowMetadata(short_side=32)
T, L, NUM_FRAMES = 4, 2, 10


def fields(count: int = NUM_FRAMES - 1, size: tuple[int, int] = (32, 48), seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(100, 150, (count, *size, 2), dtype=np.uint8))


@pytest.fixture(scope="module")
def sound_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of two classes with their flow, as `vsn flow extract` leaves it."""
    root, seed = tmp_path_factory.mktemp("sound"), 0
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for name in ("jump", "wave"):
            for number in range(count):
                seed += 1
                blocks = np.random.default_rng(seed).integers(40, 200, (4, 6, 3)).repeat(8, 0).repeat(8, 1)
                frames = [(blocks + i).astype(np.uint8) for i in range(NUM_FRAMES)]
                place = f"{split}/{name}/{split}{number}"
                write_video(root / "videos" / f"{place}.mp4", frames, frames_per_second=10)
                write_flow_file(root / "flow" / f"{place}.vsnflow", fields(seed=seed), video_id=place)
    write_flow_metadata(root / "flow", FACTS)
    return root


@pytest.fixture
def data(sound_set: Path, tmp_path: Path) -> Path:
    """The set, to plant a fault in."""
    return Path(shutil.copytree(sound_set, tmp_path / "data"))


def diagnose(root: Path, *, wanted: FlowMetadata = FACTS, flow: str = "../flow", **settings: object) -> Diagnosis:
    model = ModelConfig(
        num_frames=T,
        modality="flow",
        flow_length=L,
        flow_bound=wanted.bound,
        flow_method=wanted.method,
        flow_short_side=wanted.short_side,
    )
    recipe = Recipe(data=DataConfig(root=str(root / "videos"), flow=flow), clip=CLIP, model=model)
    return examine(recipe, **{"num_workers": 0, "loading_seconds": 0, "progress": False} | settings)


def only(diagnosis: Diagnosis, code: str, severity: str) -> Finding:
    """The one finding there is, which must be this one."""
    assert [(one.code, one.severity) for one in diagnosis.findings] == [(code, severity)]
    return diagnosis.findings[0]


def file_of(root: Path, place: str) -> Path:
    return root / "flow" / f"{place}.vsnflow"


def write(root: Path, place: str, **of: object) -> None:
    write_flow_file(file_of(root, place), fields(**of), video_id=place)


@pytest.mark.parametrize("thorough", [False, True])
def test_sound_flow_has_no_findings_and_is_described(sound_set: Path, thorough: bool) -> None:
    diagnosis = diagnose(sound_set, thorough=thorough)
    assert diagnosis.findings == ()
    assert diagnosis.flow == "Flow: .vsnflow files, 9 fields in the first; tv-l1, bound 20 pixels, zero 128."
    console = Console(record=True, width=200, file=io.StringIO())
    print_page(diagnosis, console)
    assert "Flow .vsnflow files, 9 fields in the first; tv-l1" in " ".join(console.export_text().split())


def test_a_run_on_frames_does_not_need_flow(data: Path) -> None:
    shutil.rmtree(data / "flow")
    recipe = Recipe(data=DataConfig(root=str(data / "videos"), flow="../flow"), clip=CLIP)
    diagnosis = examine(recipe, num_workers=0, loading_seconds=0, progress=False)
    assert (diagnosis.findings, diagnosis.flow) == ((), "")


@pytest.mark.parametrize("flow", ["", "../elsewhere"])
def test_no_flow_at_all(data: Path, flow: str) -> None:
    shutil.rmtree(data / "flow")
    found = only(diagnose(data, flow=flow), "no-flow", "error")
    assert ("no stored flow was found" if not flow else "data.flow is '../elsewhere'") in found.message
    assert found.message.endswith("A run on flow stops with this error.")


def test_videos_without_flow(data: Path) -> None:
    for place in ("train/jump/train1", "test/wave/test0"):
        file_of(data, place).unlink()
    found = only(diagnose(data), "flow-missing", "error")
    assert found.message.startswith("2 of 8 videos without flow in ")
    assert found.items == ("train/jump/train1.mp4 (train)", "test/wave/test0.mp4 (test)")
    assert only(diagnose(data, sample=1), "flow-missing", "error").items == found.items


@pytest.mark.parametrize(
    ("stored", "wanted", "items"),
    [
        ({"bound": 15.0}, {}, ["bound is 15.0 there, model.flow_bound is 20.0"]),
        ({}, {"bound": 10.0}, ["bound is 20.0 there, model.flow_bound is 10.0"]),
        ({"method": "dis"}, {}, ["method is 'dis' there, model.flow_method is 'tv-l1'"]),
        (
            {},
            {"short_side": 24},
            ["short_side is 32 there, model.flow_short_side, or where that is 0 clip.short_side, is 24"],
        ),
        ({"zero": 127}, {}, ["flow.json has zero = 127, and only 128 is supported"]),
        (
            {"bound": 15.0, "method": "dis"},
            {},
            ["bound is 15.0 there, model.flow_bound is 20.0", "method is 'dis' there, model.flow_method is 'tv-l1'"],
        ),
    ],
)  # fmt: skip
def test_flow_stored_with_other_settings(data: Path, stored: dict, wanted: dict, items: list[str]) -> None:
    write_flow_metadata(data / "flow", replace(FACTS, **stored))
    found = only(diagnose(data, wanted=replace(FACTS, **wanted)), "flow-otherwise", "error")
    assert list(found.items) == items


def test_flow_files_without_flow_json(data: Path) -> None:
    (data / "flow" / "flow.json").unlink()
    assert "flow.json is missing" in only(diagnose(data), "flow-files", "error").message


def test_flow_images_without_flow_json_use_defaults(data: Path) -> None:
    shutil.rmtree(data / "flow")
    for path in sorted((data / "videos").rglob("*.mp4")):
        write_fields(data / "flow" / path.parent.relative_to(data / "videos"), path.stem, fields(), "xy")
    diagnosis = diagnose(data, thorough=True)
    assert diagnosis.findings == ()
    assert "assumed: there is no" in diagnosis.flow


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def damage(path: Path) -> None:
    """Spoil the first field, which a clip of 4 times 2 fields out of 9 does not look at."""
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"\xff\xd8") + 700] ^= 0xFF
    path.write_bytes(bytes(whole))


@pytest.mark.parametrize(
    ("place", "severity", "effect"),
    [
        (
            "train/jump/train0",
            "error",
            "Training would stop: more of its videos are bad than data.bad_videos = 0.01",
        ),
        ("val/jump/val0", "error", "Validation would stop."),
    ],
)
def test_flow_that_cannot_be_read(data: Path, place: str, severity: str, effect: str) -> None:
    cut(file_of(data, place))
    found = only(diagnose(data), "flow-unreadable", severity)
    assert found.message.startswith(f"1 video with unreadable flow: {place}.mp4 ")
    assert effect in found.message
    file_of(data, place).write_bytes(b"")
    assert only(diagnose(data), "flow-empty", severity).items[0].startswith(f"{place}.mp4")


def test_thorough_finds_a_damaged_field(data: Path) -> None:
    damage(file_of(data, "test/jump/test0"))
    assert diagnose(data).findings == ()
    found = only(diagnose(data, thorough=True), "flow-unreadable", "error")
    assert found.items[0].startswith("test/jump/test0.mp4 (test): field 0 is damaged")


@pytest.mark.parametrize(("count", "fits"), [(8, False), (9, True), (10, True), (11, False)])
def test_number_of_fields_does_not_match_the_frames(data: Path, count: int, fits: bool) -> None:
    write(data, "train/wave/train1", count=count)
    diagnosis = diagnose(data)
    if fits:
        assert diagnosis.findings == ()
    else:
        found = only(diagnosis, "flow-length", "warning")
        assert found.items == (f"train/wave/train1.mp4 (train): {count} fields for 10 frames",)


@pytest.mark.parametrize("stated", [True, False])
def test_flow_of_another_size(data: Path, stated: bool) -> None:
    write_flow_metadata(data / "flow", FACTS if stated else FlowMetadata())
    write(data, "val/wave/val0", size=(24, 36))
    found = only(diagnose(data), "flow-size", "warning")
    assert "not 32 pixels" in found.message
    assert found.items == ("val/wave/val0.mp4 (val): 36x24",)


def test_two_videos_share_flow(data: Path) -> None:
    file_of(data, "train/jump/train0").rename(data / "flow" / "train0.vsnflow")
    file_of(data, "train/wave/train0").unlink()
    found = only(diagnose(data), "flow-shared", "error")
    assert found.items == ("train/jump/train0.mp4 (train) and train/wave/train0.mp4 (train)",)


def test_undecodable_video_is_a_warning_for_a_run_on_flow(data: Path) -> None:
    (data / "videos" / "train" / "jump" / "train0.mp4").write_text("no video")
    found = only(diagnose(data), "unreadable", "warning")
    assert "A run on flow reads no frames" in found.message


def test_loading_measures_flow(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, int, set[str]]] = []
    usual = loading.VideoDataset

    def noted(records: RecordSet, recipe: Recipe, **settings: Any) -> VideoDataset:
        suffixes = {record.path.suffix for record in records.records}
        opened.append((recipe.model.modality, recipe.model.flow_length, suffixes))
        return usual(records, recipe, **settings)

    monkeypatch.setattr(loading, "VideoDataset", noted)
    diagnosis = diagnose(data, loading_seconds=2.0)
    assert diagnosis.findings == ()
    assert opened == [("flow", L, {".vsnflow"})]
    assert diagnosis.loading is not None
    assert diagnosis.loading.num_clips > 0


def test_command_checks_flow_for_a_flow_model(data: Path, capsys: pytest.CaptureFixture) -> None:
    file_of(data, "train/jump/train1").unlink()
    settings = [
        *("--data.root", str(data / "videos"), "--data.flow", "../flow", "--workers", "0"),
        *("--clip.short-side", "32", "--clip.crop-size", "16"),
    ]
    with pytest.raises(SystemExit, match="1"):
        cli.main(["data", "doctor", *settings, "--model.modality", "flow"])
    assert "1 of 8 videos without flow in" in " ".join(capsys.readouterr().out.split())
    cli.main(["data", "doctor", *settings])


def test_flow_is_not_packed_again(data: Path, tmp_path: Path) -> None:
    command = ["data", "pack", "--data.root", str(data / "videos"), "--out", str(tmp_path / "packed")]
    with pytest.raises(SystemExit, match=r"modality.*'flow'"):
        cli.main([*command, "--model.modality", "flow"])
    assert not (tmp_path / "packed").exists()
