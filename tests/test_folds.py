"""Cross-validation: every video is scored once, by the run that has seen neither it nor anything of its group."""

import hashlib
import io
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.conftest import TINY_CLASSES
from tests.helpers.held import held_elsewhere
from tests.helpers.laid_out import lay
from tests.helpers.motions import moving_video
from tests.helpers.ranks import run_ranks
from tests.helpers.tiny_runs import assert_same_weights, at_step, rename_data, tiny_recipe
from tests.training.test_train import interrupt
from vsn import folds
from vsn.cli import main
from vsn.config import ConfigError, DataConfig, Recipe
from vsn.data.groups import describe_similar_groups
from vsn.data.packing.pack import pack_dataset
from vsn.folds import FoldSpec, cross_validate, divide, out_of_fold, plan
from vsn.inference.evaluate import evaluate_run
from vsn.models.run_weights import find_run_weights
from vsn.report.illustrate import illustrated_report
from vsn.runs.folds import OUT_OF_FOLD
from vsn.runs.listing import list_runs
from vsn.runs.results import EvalResult, find_scores
from vsn.runs.run import RunError
from vsn.scores.scores import ScoresError, load_scores
from vsn.system.lock import LockError
from vsn.training.train import TrainingStopped

PEOPLE = r"/(\d)\.mp4"
"""Video i of each class of `tiny_data` is of person i."""


def recipe_of(root: Path, **train: Any) -> Recipe:
    return rename_data(tiny_recipe(root, epochs=1, **train), group_pattern=PEOPLE)


@pytest.fixture(scope="module")
def folder(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory, quiet: Console) -> Path:
    out = tmp_path_factory.mktemp("folds") / "people"
    cross_validate(recipe_of(tiny_data), FoldSpec(3), out, console=quiet)
    return out


def test_every_video_is_scored_once_by_a_run_that_does_not_know_its_group(folder: Path, tiny_data: Path) -> None:
    result = out_of_fold(folder)
    scores = load_scores(result.scores_file)
    paths = [path.relative_to(tiny_data).as_posix() for path in sorted(tiny_data.rglob("*.mp4"))]
    assert sorted(scores.video_ids.tolist()) == paths
    seen: set[str] = set()
    for number in (1, 2, 3):
        run = folder / f"fold-{number}"
        videos = json.loads((run / "videos.json").read_text())
        people = [{name[-5] for name in videos[part]} for part in ("train", "val")]
        assert not people[0] & people[1]
        assert len(videos["train"]) + len(videos["val"]) == 15
        own = load_scores(find_scores([run])[0])
        rows = [scores.video_ids.tolist().index(name) for name in own.video_ids.tolist()]
        np.testing.assert_array_equal(scores.logits[rows], own.logits)
        assert set(own.video_ids.tolist()) == set(videos["val"])
        seen |= set(videos["val"])
    assert seen == set(paths)
    assert scores.groups == [name[-5] for name in scores.video_ids.tolist()]
    assert (result.num_videos, result.choice_note) == (15, "")
    stated = json.loads((folder / "folds.json").read_text())
    assert sum(fold["top1"] * fold["num_videos"] for fold in stated["folds"]) == pytest.approx(15 * result.top1)


def test_the_folder_passes_for_a_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", str(folder), str(folder), "--json"])
    assert json.loads(capsys.readouterr().out)["num_videos"] == 15
    # `vsn calibrate` asks for the validation split.
    assert find_scores([folder], split="val") == [out_of_fold(folder).scores_file]
    main(["report", str(folder), "--out", str(tmp_path / "report.html"), "--device", "cpu"])
    page = (tmp_path / "report.html").read_text()
    assert "out-of-fold" in page
    assert "3 runs trained from random weights for 1 epoch each, one per fold" in page
    assert "data:image/jpeg" in page
    summaries = list_runs([folder.parent])
    assert [(run.path.name, run.state) for run in summaries] == [
        ("people", "finished"), ("fold-1", "finished"), ("fold-2", "finished"), ("fold-3", "finished"),
    ]  # fmt: skip


def test_what_needs_weights_names_the_runs_of_the_folds(folder: Path) -> None:
    with pytest.raises(RunError, match=r"folder of folds.*fold-1"):
        evaluate_run(folder, progress=False)
    with pytest.raises(SystemExit, match="`vsn folds` command"):
        main(["train", "--resume", str(folder)])


def test_scores_that_a_folder_of_folds_does_not_have(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder / "fold-1", tmp_path / "run")
    for split in (None, "val"):
        with pytest.raises(ScoresError, match=": compare folders of folds with each other, or name files of scores"):
            find_scores([folder, other], split=split)
    unfinished = shutil.copytree(folder, tmp_path / "unfinished")
    shutil.rmtree(unfinished / "eval")
    with pytest.raises(ScoresError, match="not finished: run the same `vsn folds` command again"):
        find_scores([unfinished])
    with pytest.raises(ConfigError, match="or a folder of folds"):
        find_run_weights(str(folder))


def test_labels_to_look_at_are_shown(folder: Path, tmp_path: Path) -> None:
    """Planted in the joined scores: a confident model, and two videos with the label of another class."""
    copy = shutil.copytree(folder, tmp_path / "people")
    result = out_of_fold(copy)
    scores = load_scores(result.scores_file)
    logits = 9.0 * np.eye(3, dtype=np.float32)[scores.labels]
    wrong = [int(np.flatnonzero(scores.labels == label)[0]) for label in (0, 1)]
    logits[wrong] = 9.0 * np.eye(3, dtype=np.float32)[(scores.labels[wrong] + 1) % 3]
    made = replace(scores, logits=logits)
    described = {"split": OUT_OF_FOLD, "order": "forward", "protocol": result.protocol, "root": result.root}
    EvalResult.measure(made, **described).save(copy, made)
    html = illustrated_report([copy], tmp_path / "report.html", title="Folds", num_videos=1, device="cpu").read_text()
    section = html.partition('id="labels"')[2].partition("</section>")[0]
    for row in wrong:
        assert section.count(scores.video_ids[row]) >= 2  # in the table, and above its strip
    assert "2 videos of 15" in section
    assert section.count("data:image/jpeg") == 8  # four frames each
    assert "Accuracy by group" in html


def test_a_fold_is_a_run_like_any_other(folder: Path, tmp_path: Path) -> None:
    """Tested on its own it finds its list, and gives what it gave."""
    copy = shutil.copytree(folder / "fold-2", tmp_path / "fold-2")
    shutil.rmtree(copy / "eval")
    again = evaluate_run(copy, progress=False)
    assert again["top1"] == json.loads((folder / "folds.json").read_text())["folds"][1]["top1"]
    assert again["split"] == "val"


def test_a_second_call_trains_nothing(folder: Path, tiny_data: Path, quiet: Console) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.glob("fold-*/*.safetensors")}
    scores = out_of_fold(folder).scores_file.read_bytes()
    cross_validate(recipe_of(tiny_data), FoldSpec(3), folder, console=quiet)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert out_of_fold(folder).scores_file.read_bytes() == scores


def test_an_interrupted_call_goes_on(
    folder: Path, tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "folds"
    with monkeypatch.context() as patch:
        at_step(patch, 4, interrupt)  # in the second fold
        with pytest.raises(TrainingStopped, match="fold-2; the same `vsn folds`"):
            cross_validate(recipe_of(tiny_data), FoldSpec(3), out, console=quiet)
    with pytest.raises(RunError, match="no joined scores yet"):
        out_of_fold(out)
    done = plan(recipe_of(tiny_data), FoldSpec(3), out)
    assert [fold["top1"] is not None for fold in done] == [True, False, False]
    cross_validate(recipe_of(tiny_data), FoldSpec(3), out, console=quiet)
    for number in (1, 2, 3):
        assert_same_weights(out / f"fold-{number}", folder / f"fold-{number}")
    assert out_of_fold(out).top1 == out_of_fold(folder).top1


def cross_validate_quietly(recipe: Recipe, out: Path) -> float | None:
    return cross_validate(recipe, FoldSpec(2), out, console=Console(quiet=True))["folds"][1]["top1"]


def test_two_ranks(tiny_data: Path, tmp_path: Path) -> None:
    """Both go on to the next fold when rank 0 has written the last file of one."""
    first, second = run_ranks(2, cross_validate_quietly, recipe_of(tiny_data), tmp_path / "folds")
    assert first == second
    assert len(load_scores(out_of_fold(tmp_path / "folds").scores_file).video_ids) == 15


def test_time_left_is_printed_from_the_second_fold_on(folder: Path, tiny_data: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, copy := tmp_path / "folds")
    for name in ("fold-2", "fold-3", "eval"):
        shutil.rmtree(copy / name)
    stated = json.loads((copy / "folds.json").read_text())
    for fold in stated["folds"][1:]:
        fold |= {"top1": None, "seconds": None}
    stated["folds"][0]["seconds"] = 600.0
    (copy / "folds.json").write_text(json.dumps(stated))
    console = Console(record=True, width=200, file=io.StringIO())
    recipe = recipe_of(tiny_data)
    cross_validate(recipe, FoldSpec(3), copy, console=console)
    assert "[2/3] fold-2" in console.export_text(clear=False)
    assert "minutes left" in console.export_text()


# --- what is divided -------------------------------------------------------------------------------


def csv_recipe(root: Path, text: str) -> Recipe:
    names = [line.split(",")[0] for line in text.splitlines()[1:]]
    lay(root, {"clips.csv": text}, *names)
    return rename_data(tiny_recipe(root), source="csv")


ROWS = "".join(
    f"{name}{person}{split[:2]}.mp4,{name},p{person},{split}\n"
    for name in "ab" for person in range(4) for split in ("train", "test")
)  # fmt: skip


def test_a_test_split_is_left_alone_unless_it_is_named(tmp_path: Path) -> None:
    config = csv_recipe(tmp_path, "path,label,group,split\n" + ROWS).data
    usual, both = divide(config, FoldSpec(4)), divide(config, FoldSpec(4, splits=("train", "test")))
    assert {record.video_id[2:4] for record in usual.records} == {"tr"}
    assert len(usual.records) == 8
    assert len(both.records) == 16
    assert usual.splits == ("train", "val")
    assert both.splits == ("train", "test", "val")


def test_single_videos(tmp_path: Path) -> None:
    divisions = [
        divide(csv_recipe(tmp_path / name, "path,label,group,split\n" + ROWS).data, FoldSpec(2, by="video"))
        for name in ("here", "there", "elsewhere")
    ]
    division = divisions[0]
    assert all((other.folds == division.folds).all() for other in divisions)  # wherever the data lies
    people = [{division.records[row].group for row in np.flatnonzero(division.folds == fold)} for fold in (0, 1)]
    assert people[0] & people[1]
    assert division.groups_of(0) == []


def test_segments_of_a_file_stay_together(tiny_data: Path, tmp_path: Path, quiet: Console) -> None:
    """Without stated groups each file is one; the lists of the folds keep the times, and the background that was drawn."""
    files = sorted(path.relative_to(tiny_data).as_posix() for path in tiny_data.rglob("*.mp4"))[:4]
    rows = [f"{file},{label},{start},{end}" for file in files for label, start, end in (("a", "", 0.4), ("b", 0.6, ""))]
    lay(tmp_path, {"clips.csv": "\n".join(["path,label,start,end", *rows])})
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes((tiny_data / file).read_bytes())
    recipe = rename_data(tiny_recipe(tmp_path, epochs=1), source="csv")
    cross_validate(recipe, FoldSpec(2), tmp_path / "out", console=quiet)
    scores = load_scores(out_of_fold(tmp_path / "out").scores_file)
    assert len(scores.video_ids) == 8
    held = [set(json.loads((tmp_path / f"out/fold-{k}/videos.json").read_text())["val"]) for k in (1, 2)]
    assert [len({name.partition("#")[0] for name in names}) for names in held] == [2, 2]
    assert held[0] | held[1] == set(scores.video_ids.tolist())
    assert len({name.partition("#")[0] for name in held[0] | held[1]}) == 4


def test_background_is_drawn_once_and_divided(tiny_data: Path, tmp_path: Path, quiet: Console) -> None:
    files = sorted(path.relative_to(tiny_data).as_posix() for path in tiny_data.rglob("*.mp4"))[:4]
    rows = [f"{file},{label},{start},{end}" for file in files for label, start, end in (("a", 0, 0.2), ("b", 0.8, 1.0))]
    lay(tmp_path, {"clips.csv": "\n".join(["path,label,start,end", *rows])})
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes((tiny_data / file).read_bytes())
    recipe = rename_data(tiny_recipe(tmp_path, epochs=1), source="csv", background=0.5)
    cross_validate(recipe, FoldSpec(2), tmp_path / "out", console=quiet)
    scores = load_scores(out_of_fold(tmp_path / "out").scores_file)
    assert set(scores.classes) == {"a", "b", "background"}
    assert len(scores.video_ids) == 8 + (scores.labels == scores.classes.index("background")).sum() > 8


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("path,label\na1.mp4,a\nb1.mp4,b\na2.mp4,a\nb2.mp4,b\n", FoldSpec(2), r"4 of 4 videos have no group.*--by"),
        ("path,label,group,split\n" + ROWS, FoldSpec(5), r"4 groups .*5 folds.*2 to 4 folds"),
        ("path,label,group,split\n" + ROWS, FoldSpec(1), "1 folds"),
        (
            "path,label,group,split\n" + ROWS + "c.mp4,c,p1,train\n",
            FoldSpec(2),
            r"without fold \d there are no videos of 'c'.*the group 'p1'",
        ),
        ("path,label,group,split\n" + ROWS, FoldSpec(2, splits=("train", "extra")), "no split 'extra'"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_divided(tmp_path: Path, text: str, spec: FoldSpec, message: str, quiet: Console) -> None:
    with pytest.raises(ConfigError, match=message):
        cross_validate(csv_recipe(tmp_path / "data", text), spec, tmp_path / "out", console=quiet)
    assert not (tmp_path / "out").exists()


# --- the folder ------------------------------------------------------------------------------------


def test_other_settings_and_other_videos_are_refused(
    folder: Path, tiny_data: Path, tmp_path: Path, quiet: Console
) -> None:
    recipe = recipe_of(tiny_data)
    for other, spec, message in (
        (replace(recipe, train=replace(recipe.train, lr=0.5)), FoldSpec(3), r"train\.lr was .* and is 0\.5"),
        (recipe, FoldSpec(2), "number 3, not 2"),
        (recipe, FoldSpec(3, by="video"), "by 'group', not 'video'"),
    ):
        with pytest.raises(RunError, match=message):
            cross_validate(other, spec, folder, console=quiet)
    data = shutil.copytree(tiny_data, tmp_path / "data")
    moved = rename_data(recipe, root=str(data))
    assert [fold["top1"] for fold in cross_validate(moved, FoldSpec(3), folder, console=quiet)["folds"]] != [None] * 3
    first, *_ = files = sorted(data.rglob("*.mp4"))
    content = first.read_bytes()
    first.write_bytes(content + b"\0")  # other videos under the same names differ in size
    with pytest.raises(RunError, match="other files or segments under the same names"):
        cross_validate(moved, FoldSpec(3), folder, console=quiet)
    first.write_bytes(content)
    files[-1].rename(files[-1].with_name("6.mp4"))
    with pytest.raises(RunError, match="the data has changed"):
        cross_validate(moved, FoldSpec(3), folder, console=quiet)


def test_a_video_has_one_group_and_one_label(tiny_data: Path, tmp_path: Path) -> None:
    names = [path.relative_to(tiny_data).as_posix() for path in sorted(tiny_data.rglob("*.mp4"))]
    lines = [f"{name},{name.split('/')[0]},{'train' if n % 5 else 'val'},{n % 5}" for n, name in enumerate(names)]
    again = lines[1].split(",")
    for change, what in (({1: names[-1].split("/")[0]}, "labels"), ({3: "4"}, "groups")):
        for split in ("val", "train"):  # read as two splits, and as one
            other = [{2: split, **change}.get(n, cell) for n, cell in enumerate(again)]
            (tmp_path / "clips.csv").write_text("\n".join(["path,label,split,group", *lines, ",".join(other)]))
            config = replace(recipe_of(tiny_data).data, source="csv", annotations=str(tmp_path / "clips.csv"))
            with pytest.raises(ConfigError, match=rf"(two|different) {what}.*keep the right one|has two {what}"):
                divide(replace(config, group_pattern=""), FoldSpec(3))


def test_copies_are_in_one_fold_or_refused_before_training(tiny_data: Path, tmp_path: Path) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    first = sorted(data.rglob("1.mp4"))[0]
    shutil.copy(first, first.with_name("2b-5.mp4"))
    config = rename_data(recipe_of(data), root=str(data), group_pattern=r"(\d)\.mp4").data
    with pytest.raises(ConfigError, match=r"/1\.mp4' and .*/2b-5\.mp4' are the same video, of the groups '1' and '5'"):
        divide(config, FoldSpec(3))
    divide(replace(config, allow_overlap=True), FoldSpec(3))
    for seed in range(5):
        division = divide(replace(config, split_seed=seed), FoldSpec(3, by="video"))
        of_copies = [
            fold
            for record, fold in zip(division.records, division.folds.tolist(), strict=True)
            if record.path in (first, first.with_name("2b-5.mp4"))
        ]
        assert len(of_copies) == 2
        assert len(set(of_copies)) == 1


def test_copies_have_one_label(tiny_data: Path, tmp_path: Path) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    first, *_ = files = sorted(data.rglob("1.mp4"))
    shutil.copy(first, files[1].with_name("9.mp4"))
    for by in ("video", "group"):
        with pytest.raises(
            ConfigError, match=r"/1\.mp4' and .*/9\.mp4' are the same video, and have two labels: '.*' and '"
        ):
            divide(rename_data(recipe_of(data), root=str(data)).data, FoldSpec(3, by=by))  # type: ignore[arg-type]


def test_other_frames_of_the_same_names_are_found(tmp_path: Path) -> None:
    hashes = set()
    for root, pixels in (("a", b"1"), ("b", b"22"), ("c", b"3")):
        for number in range(4):
            lay(tmp_path / root, {f"{name}/{number}/img_00001.jpg": pixels.decode() for name in ("x", "y")})
        config = replace(recipe_of(tmp_path / root).data, root=str(tmp_path / root), source="folder", group_pattern="")
        hashes.add(divide(config, FoldSpec(2, by="video")).files_hash)
    assert len(hashes) == 2


def test_notes_of_the_data_are_shown_but_not_how_a_part_would_be_held_out(tiny_data: Path, tmp_path: Path) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    for path in sorted(data.rglob("1.mp4")):
        path.rename(path.with_name("p1.mp4"))
    for path in sorted(data.rglob("2.mp4")):
        path.rename(path.with_name("P1.mp4"))
    shutil.copy(data / sorted(data.rglob("*.mp4"))[0], data / "alone.mp4")
    recipe = rename_data(recipe_of(data), root=str(data), group_pattern=r"/([^/]+)\.mp4")
    out = io.StringIO()
    plan(recipe, FoldSpec(3), tmp_path / "out", console=Console(file=out, width=1000))
    shown = out.getvalue()
    assert "Groups whose names differ only in spelling count as different: 'p1', 'P1'." in shown
    assert "alone.mp4" in shown
    assert "held out" not in shown.lower()


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("1", "1.0"), "'1', '1.0'"),
        (("p1", "P 1"), "'p1', 'P 1'"),
        (("Jos\u00e9", "Jose\u0301"), r"'Jos\xe9', 'Jose\u0301'"),  # which look the same
    ],
)
def test_spellings_of_one_group_are_noted(names: tuple[str, ...], shown: str) -> None:
    (note,) = describe_similar_groups([*names, "2", "", "2"])
    assert sorted(
        note.removeprefix("Groups whose names differ only in spelling count as different: ")[:-1].split(", ")
    ) == (sorted(shown.split(", ")))
    assert describe_similar_groups(["p1", "p2", "p10", "1 2", "12"]) == []


def test_segments_of_one_file_in_two_groups(tmp_path: Path) -> None:
    def divided(second: float, **data: Any) -> tuple[str, ...]:
        rows = [
            f"{name}{i}.mp4,{name},{who},{start},{end}"
            for name in "ab"
            for i in range(4)
            for who, start, end in ((f"S{i}", 0, 1), (f"S{(i + 1) % 4}", second, 2))
        ]
        recipe = csv_recipe(tmp_path / str(second), "path,label,group,start,end\n" + "\n".join(rows) + "\n")
        return divide(replace(recipe.data, **data), FoldSpec(4)).notes

    (note,) = (note for note in divided(1.0) if "segments of several groups" in note)
    assert "Files with segments of several groups: 8, for example 'a0.mp4" in note
    with pytest.raises(ConfigError, match=r"'a0.mp4.* and 'a0.mp4.* overlap, of the groups 'S0' and 'S1'"):
        divided(0.5)
    divided(0.5, allow_overlap=True)


def test_segments_with_other_times_are_not_those_that_were_tested(
    tiny_data: Path, tmp_path: Path, quiet: Console
) -> None:
    def begin(end: float) -> None:
        rows = [f"{tiny_data}/{name}/{i}.mp4,{name},{name}-{i},{i},0,{end}" for name in TINY_CLASSES for i in range(4)]
        lay(tmp_path / "data", {"clips.csv": "\n".join(["path,label,id,group,start,end", *rows, ""])})
        recipe = rename_data(tiny_recipe(tmp_path / "data", epochs=1), source="csv")
        cross_validate(recipe, FoldSpec(2), tmp_path / "out", console=quiet)

    begin(0.5)
    with pytest.raises(RunError, match="sizes or times have changed since"):
        begin(0.4)
    begin(0.5)


def test_folds_of_early_versions_go_on(tiny_data: Path, tmp_path: Path, quiet: Console) -> None:
    """These recorded no size of a packed video."""
    pack_dataset(DataConfig(root=str(tiny_data)), tmp_path / "packed", num_workers=0, progress=False)
    recipe = rename_data(tiny_recipe(tmp_path / "packed", epochs=1), source="csv")
    folds_of = cross_validate(recipe, FoldSpec(3, by="video"), tmp_path / "out", console=quiet)
    sizes = dict.fromkeys((path.relative_to(tiny_data).as_posix() for path in tiny_data.rglob("*.mp4")), 0)
    early = hashlib.sha256(json.dumps(sorted(sizes.items())).encode()).hexdigest()
    for file, changes in (
        (tmp_path / "out" / "folds.json", {"files_hash": early}),
        (tmp_path / "out" / "fold-1" / "videos.json", {"sizes": sizes}),
    ):
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    shutil.rmtree(tmp_path / "out" / "fold-1" / "eval")  # it is tested again
    again = cross_validate(recipe, FoldSpec(3, by="video"), tmp_path / "out", console=quiet)
    assert [fold["top1"] for fold in again["folds"]] == [fold["top1"] for fold in folds_of["folds"]]
    assert again["files_hash"] != early


def test_a_data_set_that_is_packed_again_is_another(tiny_data: Path, tmp_path: Path, quiet: Console) -> None:
    def begin(data: Path) -> None:
        shutil.rmtree(tmp_path / "packed", ignore_errors=True)
        pack_dataset(DataConfig(root=str(data)), tmp_path / "packed", num_workers=0, progress=False)
        recipe = rename_data(recipe_of(tmp_path / "packed"), source="csv")
        cross_validate(recipe, FoldSpec(3, by="video"), tmp_path / "out", console=quiet)

    begin(tiny_data)
    other = shutil.copytree(tiny_data, tmp_path / "data")
    moving_video(other / TINY_CLASSES[0] / "0.mp4", 12)
    with pytest.raises(RunError, match="other files or segments"):
        begin(other)
    begin(tiny_data)


def test_every_part_of_data_without_splits_is_divided(tiny_data: Path) -> None:
    for splits in ((), ("test",), ("val",), ("train", "test")):
        assert len(divide(recipe_of(tiny_data).data, FoldSpec(3, splits=splits)).records) == 15


def test_a_folder_that_could_not_be_begun_can_be_begun_again(tiny_data: Path, tmp_path: Path, quiet: Console) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    odd = next(folder for folder in sorted(data.iterdir()) if folder.is_dir())
    odd.rename(odd.with_name("a|b"))
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"'a\|b' cannot be listed"):
            cross_validate(rename_data(recipe_of(data), root=str(data)), FoldSpec(3), tmp_path / "out", console=quiet)
    odd.with_name("a|b").rename(odd.with_name("#NAME?"))
    for _ in range(2):
        with pytest.raises(ConfigError, match="error of a formula"):
            cross_validate(rename_data(recipe_of(data), root=str(data)), FoldSpec(3), tmp_path / "out", console=quiet)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf8_is_named(tiny_data: Path, tmp_path: Path, quiet: Console) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    file = sorted(data.rglob("*.mp4"))[0]
    file.rename(file.with_name(os.fsdecode(b"S3_a\xff.mp4")))
    with pytest.raises(ValueError, match=r"S3_a\\udcff\.mp4' cannot be listed, because it is not UTF-8\. Rename"):
        cross_validate(tiny_recipe(data, epochs=1), FoldSpec(3, by="video"), tmp_path / "out", console=quiet)
    assert not (tmp_path / "out").exists()


def test_early_stopping_by_the_held_out_videos_is_refused(tiny_data: Path, tmp_path: Path, quiet: Console) -> None:
    with pytest.raises(ConfigError, match=r"train\.early_stop is 2"):
        cross_validate(recipe_of(tiny_data, early_stop=2), FoldSpec(3), tmp_path / "out", console=quiet)


def test_one_writer_at_a_time(tiny_data: Path, tmp_path: Path, quiet: Console) -> None:
    with held_elsewhere(tmp_path / "out") as pid, pytest.raises(LockError, match=str(pid)):
        cross_validate(recipe_of(tiny_data), FoldSpec(3), tmp_path / "out", console=quiet)


def test_a_stop_before_the_first_fold_leaves_a_folder_that_can_be_begun(
    tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(folds, "write_json", stopped)
        with pytest.raises(KeyboardInterrupt):
            cross_validate(recipe_of(tiny_data), FoldSpec(3), tmp_path / "out", console=quiet)
    plan(recipe_of(tiny_data), FoldSpec(3), tmp_path / "out", console=quiet)
    assert not (tmp_path / "out").exists()
