import itertools
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.tiny_runs import tiny_recipe
from vsn.config import ConfigError, EvalConfig
from vsn.data.dataset import Sample, VideoDataset
from vsn.data.open import open_split
from vsn.data.video import VideoError
from vsn.inference.evaluate import score_videos
from vsn.inference.feature_files import Features, FeaturesError, load_features
from vsn.inference.features import extract_features
from vsn.inference.predict import RunPredictor
from vsn.inference.predictor import Predictor
from vsn.runs.checkpoint import load_model
from vsn.runs.run import open_run, weights_hash


@pytest.fixture(scope="module")
def predictor(finished_run: Path) -> Predictor:
    return Predictor.from_run(finished_run, device="cpu")


def head_of(features: np.ndarray, model: torch.nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return model.head(torch.from_numpy(features)).numpy()


@pytest.mark.parametrize("protocol", ["fcn", "3crop-2clip", "10crop"])
def test_the_classifier_makes_the_scores_of_the_features(finished_run: Path, predictor: Predictor, protocol):
    run, view = open_run(finished_run), EvalConfig(protocol=protocol)
    dataset = open_split(run.recipe, "test", view=view, classes=run.classes)
    scores = score_videos(load_model(run), dataset, batch_size=2, progress=False)
    features = np.stack([predictor.features(record.path, protocol=view) for record in dataset.records])
    assert features.shape == (3, 256)
    assert features.dtype == np.float32
    np.testing.assert_allclose(head_of(features, predictor.model), scores.logits, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("protocol", ["fcn", "3crop", "10crop"])
def test_features_by_frame_have_the_mean(predictor: Predictor, gray_video: Path, protocol):
    view = EvalConfig(protocol=protocol)
    by_frame = predictor.features(gray_video, per_frame=True, protocol=view)
    assert by_frame.shape == (4, 256)
    assert np.ptp(by_frame, axis=0).max() > 1e-4
    pooled = predictor.features(gray_video, protocol=view)
    np.testing.assert_allclose(by_frame.mean(axis=0), pooled, rtol=1e-5, atol=1e-7)


def test_features_by_frame_are_those_of_the_frames(finished_run: Path, predictor: Predictor):
    run = open_run(finished_run)
    dataset = open_split(run.recipe, "test", classes=run.classes)
    with torch.inference_mode():
        expected = predictor.model.frame_features(dataset[0].clip[None])[0].numpy()
    assert np.array_equal(predictor.features(dataset.records[0].path, per_frame=True), expected)


def test_no_mean_by_frame_over_clips_of_other_frames(predictor: Predictor, gray_video: Path, tmp_path: Path):
    view = EvalConfig(protocol="3crop-2clip")
    with pytest.raises(ConfigError, match=r"'3crop-2clip'.* fcn, center, 3crop, 10crop"):
        predictor.features(gray_video, per_frame=True, protocol=view)


def test_hooks_do_not_stay(predictor: Predictor, gray_video: Path):
    predictor.features(gray_video)
    assert not predictor.model.head._forward_pre_hooks


def test_a_split_with_its_labels(finished_run: Path, predictor: Predictor, tmp_path: Path):
    found = extract_features(finished_run, tmp_path / "f.npz", split="train", device="cpu", progress=False)
    run = open_run(finished_run)
    dataset = open_split(run.recipe, "train")
    assert found.video_ids.tolist() == [record.video_id for record in dataset.records]
    assert found.labels.tolist() == [record.label for record in dataset.records]
    assert found.classes == ("swipe_left", "swipe_right", "wave")
    for record, row in zip(dataset.records, found.features, strict=True):
        assert np.array_equal(row, predictor.features(record.path)), "not to the last bit"
    assert found.facts == {
        "model": "vsn_resnet14_tiny",
        "num_frames": 4,
        "weights": "last",
        "weights_hash": weights_hash(run),
        "protocol": "fcn",
        "num_views": 1,
        "order": "forward",
        "per_frame": False,
        "split": "train",
        "source": "folder",
    }
    read = load_features(tmp_path / "f.npz")
    assert read.facts == found.facts
    assert read.classes == found.classes
    assert np.array_equal(read.features, found.features)
    assert np.array_equal(read.labels, found.labels)
    assert read.video_ids.tolist() == found.video_ids.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def test_workers_change_nothing(finished_run: Path, tmp_path: Path):
    files = [tmp_path / f"{n}.npz" for n in (0, 2)]
    one, two = (
        extract_features(finished_run, file, num_workers=n, device="cpu", per_frame=True, progress=False)
        for n, file in zip((0, 2), files, strict=True)
    )
    assert one.features.shape == (12, 4, 256)
    assert np.array_equal(one.features, two.features)


def test_another_data_set_with_classes_of_its_own(finished_run: Path, gray_video: Path, tmp_path: Path):
    for name in ("new/a.mp4", "other/b.mp4"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        shutil.copy(gray_video, tmp_path / "data" / name)
    (tmp_path / "list.csv").write_text("path,label,split\ndata/new/a.mp4,x,test\ndata/other/b.mp4,y,test\n")
    found = extract_features(
        finished_run,
        tmp_path / "f.npz",
        source="csv",
        root=tmp_path,
        split="test",
        device="cpu",
        progress=False,
    )
    assert (found.classes, found.labels.tolist()) == (("x", "y"), [0, 1])
    assert found.facts["source"] == "csv"


def test_files_and_folders(finished_run: Path, tiny_data: Path, gray_video: Path, predictor, tmp_path: Path):
    found = extract_features(
        finished_run,
        tmp_path / "f.npz",
        videos=[gray_video, tiny_data / "wave"],
        device="cpu",
        progress=False,
    )
    assert found.video_ids.tolist() == [
        gray_video.as_posix(),
        *((tiny_data / "wave" / f"{i}.mp4").as_posix() for i in range(5)),
    ]
    assert found.labels.tolist() == [-1] * 6
    assert found.classes == ()
    assert np.array_equal(found.features[0], predictor.features(gray_video))


def broken_data(tiny_data: Path, root: Path) -> Path:
    shutil.copytree(tiny_data, root)
    (root / "wave" / "2.mp4").write_bytes(b"broken")
    return root


def test_a_video_that_cannot_be_read_stops_and_what_is_done_is_kept(
    finished_run: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root, out = broken_data(tiny_data, tmp_path / "data"), tmp_path / "f.npz"
    videos = [root / "swipe_left", root / "wave"]
    with pytest.raises(VideoError, match=r"wave/2\.mp4"):
        extract_features(finished_run, out, videos=videos, device="cpu", progress=False)
    assert not out.exists()
    partial = load_features(tmp_path / "f.partial.npz")
    assert len(partial.video_ids) == 7
    shutil.copy(root / "wave" / "1.mp4", root / "wave" / "2.mp4")
    asked: list[str] = []
    real = Predictor.features

    def counted(self, path, **settings):
        asked.append(Path(path).name)
        return real(self, path, **settings)

    monkeypatch.setattr(Predictor, "features", counted)
    found = extract_features(finished_run, out, videos=videos, device="cpu", progress=False)
    assert asked == ["2.mp4", "3.mp4", "4.mp4"]
    assert len(found.video_ids) == 10
    assert not (tmp_path / "f.partial.npz").exists()
    whole = extract_features(finished_run, tmp_path / "g.npz", videos=videos, device="cpu", progress=False)
    assert np.array_equal(found.features, whole.features)
    assert found.video_ids.tolist() == whole.video_ids.tolist()


@pytest.mark.parametrize(("task", "order"), [("classify", "forward"), ("classify", "shuffled"), ("arrow", "forward")])
def test_a_split_goes_on_where_it_stopped(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, order
):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    text = (run / "recipe.toml").read_text()
    assert 'task = "classify"' in text
    (run / "recipe.toml").write_text(text.replace('task = "classify"', f'task = "{task}"'))
    view, out, whole = EvalConfig(batch_size=1, order=order), tmp_path / "f.npz", tmp_path / "whole.npz"
    calls = itertools.count(1)

    def interrupted(*arguments, **settings):
        if next(calls) == 5:  # in the middle of a video that the arrow of time shows twice
            signal.raise_signal(signal.SIGINT)
        return clip_features(*arguments, **settings)

    clip_features = RunPredictor.clip_features

    with monkeypatch.context() as patched:
        patched.setattr(RunPredictor, "clip_features", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract_features(run, out, config=view, device="cpu", num_workers=0, progress=False)
    assert len(load_features(tmp_path / "f.partial.npz").video_ids) == 5
    found = extract_features(run, out, config=view, device="cpu", num_workers=0, progress=False)
    expected = extract_features(run, whole, config=view, device="cpu", num_workers=0, progress=False)
    assert found.video_ids.tolist() == expected.video_ids.tolist()
    assert np.array_equal(found.features, expected.features)
    assert np.array_equal(found.labels, expected.labels)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_stop_while_a_worker_hangs_saves_what_is_finished(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def hanging(dataset: VideoDataset, key: int | tuple[int, int]) -> Sample:
        if key == (0, 2):
            while not (tmp_path / "2 done").exists():
                time.sleep(0.01)
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(600)
        return getitem(dataset, key)

    def noted(*arguments, **settings):
        rows = clip_features(*arguments, **settings)
        (tmp_path / f"{next(calls)} done").touch()
        return rows

    getitem, clip_features, calls = VideoDataset.__getitem__, RunPredictor.clip_features, itertools.count(1)
    monkeypatch.setattr(VideoDataset, "__getitem__", hanging)
    monkeypatch.setattr(RunPredictor, "clip_features", noted)
    monkeypatch.setattr(
        torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2
    )  # how long it waits for a worker to end
    with pytest.raises(KeyboardInterrupt):
        extract_features(
            finished_run,
            tmp_path / "f.npz",
            config=EvalConfig(batch_size=1),
            device="cpu",
            num_workers=1,
            progress=False,
        )
    assert len(load_features(tmp_path / "f.partial.npz").video_ids) in (1, 2)


def test_a_beginning_with_other_settings_is_refused(finished_run: Path, gray_video: Path, tmp_path: Path):
    extract_features(finished_run, tmp_path / "f.npz", videos=[gray_video], device="cpu", progress=False)
    (tmp_path / "f.npz").rename(tmp_path / "f.partial.npz")
    with pytest.raises(FeaturesError, match="per_frame False, now it is True"):
        extract_features(
            finished_run,
            tmp_path / "f.npz",
            videos=[gray_video],
            per_frame=True,
            device="cpu",
            progress=False,
        )
    assert (tmp_path / "f.partial.npz").exists()


def test_unreadable_videos_as_nan(finished_run: Path, tiny_data: Path, tmp_path: Path):
    root = broken_data(tiny_data, tmp_path / "data")
    found = extract_features(
        finished_run,
        tmp_path / "f.npz",
        videos=[root / "wave"],
        bad_videos="nan",
        device="cpu",
        progress=False,
    )
    assert np.isnan(found.features).all(axis=1).tolist() == [False, False, True, False, False]
    recipe = tiny_recipe(root)
    dataset = open_split(recipe, "train")
    by_split = extract_features(
        finished_run,
        tmp_path / "g.npz",
        root=root,
        bad_videos="nan",
        device="cpu",
        num_workers=2,
        progress=False,
    )
    bad = [record.video_id == "wave/2.mp4" for record in dataset.records]
    assert sum(bad) == 1
    assert np.isnan(by_split.features).all(axis=1).tolist() == bad


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"videos": ["a.mp4"], "split": "test"}, "got both"),
        ({"split": "nowhere"}, "nowhere"),
        ({"videos": ["VIDEO", "VIDEO"]}, r"gray\.mp4 is named more than once"),
    ],
)
def test_refused(finished_run: Path, gray_video: Path, tmp_path: Path, settings, message: str):
    if "videos" in settings:
        settings = settings | {"videos": [gray_video if v == "VIDEO" else v for v in settings["videos"]]}
    with pytest.raises(ValueError, match=message):
        extract_features(finished_run, tmp_path / "f.npz", device="cpu", progress=False, **settings)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(finished_run: Path, gray_video: Path, tmp_path: Path):
    (tmp_path / "f.npz").write_text("mine")
    with pytest.raises(FeaturesError, match="exists"):
        extract_features(finished_run, tmp_path / "f.npz", videos=[gray_video])
    with pytest.raises(FeaturesError, match=r"must end in \.npz"):
        extract_features(finished_run, tmp_path / "f.csv", videos=[gray_video])


def test_bad_files_of_features(tmp_path: Path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "text.npz").write_text("no archive")
    good = Features(np.array(["a"]), np.zeros((1, 2), np.float32), np.array([-1]), ())
    good.save(tmp_path / "good.npz")
    assert load_features(tmp_path / "good.npz").features.shape == (1, 2)
    whole = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name, message in (
        ("absent", "does not exist"),
        ("other", r"no \['classes'"),
        ("text", "is damaged"),
        ("cut", "is damaged"),
    ):
        with pytest.raises(FeaturesError, match=message):
            load_features(tmp_path / f"{name}.npz")
    with pytest.raises(FeaturesError, match=r"expected \(2, D\) or \(2, T, D\)"):
        Features(np.array(["a", "b"]), np.zeros((1, 2), np.float32), np.array([-1, -1]), ())


def test_command(finished_run: Path, tiny_data: Path, tmp_path: Path, capsys):
    from vsn import cli

    out = tmp_path / "f.npz"
    cli.main(["features", str(finished_run), str(tiny_data / "wave"), "--out", str(out), "--device", "cpu"])
    assert capsys.readouterr().out == f"{out}: features (5, 256) of 5 videos.\n"
    again = ["features", str(finished_run), "--out", str(tmp_path / "g.npz"), "--split", "val", "--per-frame"]
    cli.main([*again, "--protocol", "center", "--device", "cpu"])
    assert load_features(tmp_path / "g.npz").features.shape == (3, 4, 256)
    assert load_features(tmp_path / "g.npz").facts["protocol"] == "center"
