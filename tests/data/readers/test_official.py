"""Read official annotation files from all usual places; errors for what is missing."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.laid_out import Files, below, ids, labels, lay
from vsn.config import ConfigError, DataConfig, Source
from vsn.data.readers import NoSplitError, read_records

# --- Kinetics --------------------------------------------------------------------------------------

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
KINETICS: Files = {
    "train.csv": f'{HEADER}"petting animal (not cat)",-a_1,5,15,train,0\nair drumming,b2,100,110,train,1\n',
    "val.csv": f"{HEADER}air drumming,c3,0,10,val,0\n",
    "test.csv": "youtube_id,time_start,time_end,split\nd4,1,11,test\n",
}
KINETICS_CLASSES = ("air drumming", "petting animal (not cat)")


def kinetics(root: Path, **settings: str) -> DataConfig:
    return DataConfig(root=str(root), source="kinetics", **settings)


@pytest.mark.parametrize(
    ("train", "val"),
    [
        (
            "videos/petting animal (not cat)/-a_1_000005_000015.mp4",
            "videos/air_drumming/c3_000000_000010.mkv",
        ),
        ("petting_animal_not_cat/-a_1_000005_000015.webm", "air drumming/c3.mp4"),
        ("train/petting_animal_(not_cat)/-a_1_000005_000015.mp4", "val/air_drumming/c3_000000_000010.mp4"),
        ("videos_train/petting/-a_1.mp4", "videos_val/air/c3_000000_000010.mp4"),
        ("compress/train_256/petting/-a_1_000005_000015.mp4", "compress/val_256/air/c3_000000_000010.mp4"),
        ("train/-a_1_000005_000015.mp4", "validate/c3_000000_000010.mp4"),
        ("k400/-a_1_000005_000015.mp4", "k400/c3_000000_000010.mp4"),
        ("-a_1_000005_000015.mp4", "c3_000000_000010.mp4"),
        ("frames_train/petting/-a_1_000005_000015/", "frames_val/air/c3_000000_000010/"),
        ("rawframes/petting/-a_1_000005_000015/", "rawframes/air_drumming/c3/"),
    ],
)
def test_kinetics_layouts(tmp_path: Path, train: str, val: str) -> None:
    for path in (train, val):
        lay(tmp_path, below("annotations", KINETICS), f"{path}img_00001.jpg" if path.endswith("/") else path)
    records = read_records(kinetics(tmp_path), "train")
    assert (records.classes, records.num_missing) == (KINETICS_CLASSES, 1)
    assert (ids(records), labels(records)) == ([train.rstrip("/")], [(1,)])
    assert ids(read_records(kinetics(tmp_path), "val")) == [val.rstrip("/")]


def test_kinetics_files_come_before_frame_folders_of_the_same_name(tmp_path: Path) -> None:
    lay(
        tmp_path,
        KINETICS,
        "b2_000100_000110/1.jpg",
        "b2_000100_000110.mp4",
        "-a_1/1.jpg",
        "-a_1_000005_000015",
    )
    assert ids(read_records(kinetics(tmp_path), "train")) == ["-a_1", "b2_000100_000110.mp4"]


def test_kinetics_looks_for_no_videos_among_frames(tmp_path: Path) -> None:
    lay(tmp_path, KINETICS, "-a_1/1.jpg", "-a_1/b2.mp4")
    assert ids(read_records(kinetics(tmp_path), "train")) == ["-a_1"]


@pytest.mark.parametrize(
    "names",
    [
        ("kinetics-400_train.csv", "kinetics-400_val.csv", "kinetics-400_test.csv"),
        ("kinetics_train.csv", "kinetics_validate.csv", "kinetics_test.csv"),
        ("k700_2020_train.csv", "k700_2020_val.csv", "k700_2020_test.csv"),
        ("kinetics700_2020/train.csv", "kinetics700_2020/validate.csv", "kinetics700_2020/test.csv"),
        ("labels/train.csv", "labels/val.csv", "labels/test.csv"),
    ],
)
def test_kinetics_names_of_annotation_files(tmp_path: Path, names: tuple[str, ...]) -> None:
    files = dict(zip(names, KINETICS.values(), strict=True))
    lay(tmp_path, files, "videos/b2_000100_000110.mp4", "videos/d4_000001_000011.mp4")
    assert labels(read_records(kinetics(tmp_path), "train")) == [(0,)]
    assert labels(read_records(kinetics(tmp_path), "test")) == [()]


def test_kinetics_in_one_file(tmp_path: Path) -> None:
    text = KINETICS["train.csv"] + "air drumming,c3,0.0,10.0,validate,0\n"
    lay(tmp_path, {"k.csv": text}, "videos/b2.mp4", "videos/c3.mp4")
    config = kinetics(tmp_path, annotations="k.csv")
    assert ids(read_records(config, "train")) == ["videos/b2.mp4"]
    assert ids(read_records(config, "val")) == ["videos/c3.mp4"]
    with pytest.raises(NoSplitError, match="no split 'test'; present: 'train', 'val'"):
        read_records(config, "test")


def test_kinetics_takes_the_video_of_the_class(tmp_path: Path) -> None:
    text = f"{HEADER}air drumming,b2,0,10,train,0\npushing car,b2,0,10,train,0\n"
    lay(tmp_path, {"train.csv": text}, "videos/pushing_car/b2.mp4", "videos/air_drumming/b2.mp4")
    assert ids(read_records(kinetics(tmp_path), "train")) == [
        "videos/air_drumming/b2.mp4",
        "videos/pushing_car/b2.mp4",
    ]


def test_kinetics_takes_no_video_of_another_split(tmp_path: Path) -> None:
    """The same id, cut at other times, may be in both."""
    text = f"{HEADER}air drumming,b2,50,60,val,0\npushing car,e5,0,10,val,0\n"
    lay(tmp_path, KINETICS | {"val.csv": text}, "train/b2.mp4", "val/e5.mp4")
    records = read_records(kinetics(tmp_path), "val")
    assert (ids(records), records.num_missing) == (["val/e5.mp4"], 1)


def test_a_kinetics_class_is_no_split(tmp_path: Path) -> None:
    text = f"{HEADER}training dog,b2,0,10,train,0\npushing car,e5,0,10,train,0\n"
    lay(tmp_path, {"train.csv": text}, "training_dog/b2.mp4", "pushing car/e5.mp4")
    assert len(read_records(kinetics(tmp_path), "train").records) == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no train.csv or kinetics-400_train.csv was found"),
        ({"train.csv": "path label\n"}, "'path label'.* youtube_id,"),
        ({"train.csv": ""}, "the header is 'empty'"),
        ({"train.csv": HEADER}, "no line follows the header"),
        ({"train.csv": f"{HEADER}a,b2,x,10,train,0\n"}, "line 2: .*'x' and '10'"),
        ({"train.csv": f"{HEADER}a,b2\n"}, "line 2: .*'' and ''"),
        ({"train.csv": f"{HEADER}a,,0,10,train,0\n"}, "line 2: youtube_id or split is empty"),
        ({"train.csv": f"{HEADER}a,b2,0,10,train,0\n"}, "the only class is 'a'"),
        (KINETICS | {"annotations/kinetics_train.csv": HEADER}, "both list the split 'train'; set data.annotations"),
        (KINETICS | {"train.csv": f"{HEADER}a,x,0,10,train,0\nb,y,0,10,train,0\n"},
         r"2 of 2 videos are missing: 'x_000000_000010.mp4' \(line 2\), 'y_.*Looked in .*videos; set data.videos"),
    ],
)  # fmt: skip
def test_kinetics_errors(tmp_path: Path, files: Files, message: str) -> None:
    lay(tmp_path, files, "videos/b2.mp4")
    with pytest.raises(ConfigError, match=message):
        read_records(kinetics(tmp_path), "train")


# --- Moments in Time -------------------------------------------------------------------------------

MOMENTS: Files = {
    "moments_categories.txt": "clapping,0\nbowing,1\nadult+male+singing,2\n",
    "trainingSet.csv": "bowing/yt-1.mp4,bowing,3,0\nclapping/v-2.mp4,clapping,2,1\n",
    "validationSet.csv": "adult+male+singing/v_3.mp4,adult+male+singing,3,1\n",
}


@pytest.mark.parametrize("folder", ["training", "videos", "videos/training", "."])
@pytest.mark.parametrize("annotations", [".", "annotations", "labels"])
def test_moments_layouts(tmp_path: Path, folder: str, annotations: str) -> None:
    lay(tmp_path, below(annotations, MOMENTS), f"{folder}/clapping/v-2.mp4", "validation/bowing/yt-1.mp4")
    config = DataConfig(root=str(tmp_path), source="moments")
    train = read_records(config, "train")
    assert train.classes == ("clapping", "bowing", "adult+male+singing")
    assert (labels(train), train.num_missing) == ([(0,)], 1)
    assert ids(train) == [f"{folder}/clapping/v-2.mp4".removeprefix("./")]


def test_multi_moments(tmp_path: Path) -> None:
    files = {
        "moments_categories.txt": MOMENTS["moments_categories.txt"],
        "trainingSet.txt": "a.mp4,2,0\nb.mp4,1\nc.mp4,bowing,clapping,bowing\n",
        "validationSet.txt": "d.mp4,0\n",
    }
    lay(tmp_path, files, *(f"videos/{name}.mp4" for name in "abcd"))
    config = DataConfig(root=str(tmp_path), source="moments", task="multilabel")
    train = read_records(config, "train")
    assert (labels(train), train.multi_label) == ([(2, 0), (1,), (1, 0)], True)
    with pytest.raises(ConfigError, match=r"'videos/a.mp4' has 2 labels .*Set data.task = \"multilabel\""):
        read_records(replace(config, task="classify"), "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moments_categories.txt": None}, "no moments_categories.txt or mmit_categories.txt was found"),
        (
            {"trainingSet.csv": None, "validationSet.csv": None},
            "no trainingSet.csv or trainingSet.txt was found",
        ),
        ({"trainingSet.csv": None}, "no split 'train'; present: 'validation'"),
        (
            {"trainingSet.csv": "a.mp4,jumping,3,0\n"},
            "line 1: .*'jumping', .*moments_categories.txt",
        ),
        ({"trainingSet.csv": "a.mp4,3\n"}, "line 1: the label is 3; .* 0 to 2"),
        ({"moments_categories.txt": "a,0\nb,2\n"}, "labels must be 0 to 1, each once; 'b' has 2"),
        ({"trainingSet.csv": "x/a.mp4,bowing,3,0\n"}, r"1 of 1 videos are missing: 'x/a.mp4' \(line 1\)"),
    ],
)
def test_moments_errors(tmp_path: Path, changes: dict[str, str | None], message: str) -> None:
    lay(tmp_path, {name: text for name, text in (MOMENTS | changes).items() if text is not None})
    with pytest.raises(ConfigError, match=message):
        read_records(DataConfig(root=str(tmp_path), source="moments"), "train")


def test_kinetics_two_parts_of_one_file(tmp_path: Path) -> None:
    """Neither "listed twice" nor two labels of a video: the file is all of it."""
    header = "label,youtube_id,time_start,time_end,split\n"
    rows = "ab,x,5,15,train\nab,x,30,40,train\ncd,y,0,10,train\n"
    lay(tmp_path, {"train.csv": header + rows}, "videos/x.mp4", "videos/y.mp4")
    with pytest.raises(
        ConfigError, match=r"lines 2 and 3 are two parts of the video 'x'.*x_000005_000015.mp4 and x_000030"
    ):
        read_records(kinetics(tmp_path), "train")
    lay(tmp_path, {"train.csv": header + rows.replace("30,40", "5,15")})
    assert len(read_records(replace(kinetics(tmp_path), val_split="none"), "train").records) == 2


# --- UCF101 and HMDB51 -----------------------------------------------------------------------------

UCF: Files = {
    "classInd.txt": "1 ApplyEyeMakeup\n2 YoYo\n",
    "trainlist01.txt": "YoYo/v_YoYo_g08_c01.avi 2\r\nApplyEyeMakeup/v_A_g08_c01.avi 1\r\n",
    "testlist01.txt": "YoYo/v_YoYo_g01_c01.avi\n",
    "trainlist02.txt": "YoYo/v_YoYo_g01_c01.avi 2\n",
}
UCF_VIDEOS = ["YoYo/v_YoYo_g08_c01", "ApplyEyeMakeup/v_A_g08_c01", "YoYo/v_YoYo_g01_c01"]


@pytest.mark.parametrize("annotations", [".", "ucfTrainTestlist", "annotations", "splits"])
@pytest.mark.parametrize(
    ("folder", "suffix"),
    [("UCF-101", ".avi"), ("videos", ".mp4"), (".", ".avi"), ("frames", "/img_00001.jpg")],
)
def test_ucf101_layouts(tmp_path: Path, annotations: str, folder: str, suffix: str) -> None:
    lay(tmp_path, below(annotations, UCF), *(f"{folder}/{name}{suffix}" for name in UCF_VIDEOS))
    config = DataConfig(root=str(tmp_path), source="ucf101", val_split="test")
    train = read_records(config, "train")
    assert train.classes == ("ApplyEyeMakeup", "YoYo")
    assert labels(train) == [(1,), (0,)]
    assert labels(read_records(config, "test")) == [(1,)]
    assert ids(read_records(config, "test")) == ids(read_records(replace(config, fold=2), "train"))


def test_ucf101_without_class_folders(tmp_path: Path) -> None:
    lay(tmp_path, UCF, *(f"videos/{Path(name).name}.avi" for name in UCF_VIDEOS))
    config = DataConfig(root=str(tmp_path), source="ucf101", val_split="test")
    assert ids(read_records(config, "train")) == ["videos/v_YoYo_g08_c01.avi", "videos/v_A_g08_c01.avi"]


@pytest.mark.parametrize(
    ("changes", "changed", "message"),
    [
        ({}, {"fold": 3}, "no trainlist03.txt was found"),
        ({"classInd.txt": None}, {}, "no classInd.txt was found"),
        ({"classInd.txt": "1 YoYo\n3 ApplyEyeMakeup\n"}, {}, "labels must be 0 to 1, each once"),
        (
            {"trainlist01.txt": "Yoyo/a.avi 2\n"},
            {},
            r"line 1: .*'Yoyo', .*classInd.txt",
        ),
        (
            {"trainlist01.txt": "YoYo/v_YoYo_g08_c01.avi 1\n"},
            {},
            "line 1: .*'YoYo' is 1; in classInd.txt it is 2",
        ),
        (
            {"trainlist01.txt": "YoYo/v_x.avi 2\n"},
            {},
            r"1 of 1 videos are missing: 'YoYo/v_x.avi' \(line 1\)",
        ),
    ],
)
def test_ucf101_errors(tmp_path: Path, changes: dict[str, str | None], changed: dict[str, int], message: str) -> None:
    files = {name: text for name, text in (UCF | changes).items() if text is not None}
    lay(tmp_path, files, *(f"UCF-101/{name}.avi" for name in UCF_VIDEOS))
    with pytest.raises(ConfigError, match=message):
        read_records(replace(DataConfig(root=str(tmp_path), source="ucf101"), **changed), "train")


HMDB: Files = {
    "wave_test_split1.txt": "a b!.avi 1 \nc.avi 2 \nd.avi 0 \n",
    "brush_hair_test_split1.txt": "e.avi 2 \nf.avi 1 \n",
    "brush_hair_test_split2.txt": "e.avi 1 \nf.avi 2 \n",
    "wave_test_split2.txt": "c.avi 1 \n",
}


@pytest.mark.parametrize("folder", ["testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits", "."])
@pytest.mark.parametrize("places", [("hmdb51_org", True, ".avi"), ("videos", False, ".mp4"), ("", True, "/1.jpg")])
def test_hmdb51_layouts(tmp_path: Path, folder: str, places: tuple[str, bool, str]) -> None:
    base, with_classes, suffix = places
    videos = ("wave/a b!", "wave/c", "wave/d", "brush_hair/e", "brush_hair/f")
    names = [name if with_classes else Path(name).name for name in videos]
    lay(tmp_path, below(folder, HMDB), *(f"{base or '.'}/{name}{suffix}" for name in names))
    config = DataConfig(root=str(tmp_path), source="hmdb51")
    train = read_records(config, "train")
    assert (train.classes, labels(train)) == (("brush_hair", "wave"), [(0,), (1,)])
    assert [record.path.stem for record in train.records] == ["f", "a b!"]
    assert [record.path.stem for record in read_records(config, "test").records] == ["e", "c"]
    assert [record.path.stem for record in read_records(replace(config, fold=2), "train").records] == [
        "e",
        "c",
    ]


@pytest.mark.parametrize(
    ("files", "changed", "message"),
    [
        (HMDB, {"fold": 3}, "no <class>_test_split3.txt was found"),
        (
            HMDB | {"wave_test_split1.txt": "c.avi 3\n"},
            {},
            r"line 1: .*'c.avi 3'",
        ),
        (HMDB | {"wave_test_split1.txt": "1\n"}, {}, "line 1: .*'1'"),
        ({"wave_test_split1.txt": "c.avi 1\n"}, {}, "the only class is 'wave'"),
        (HMDB, {}, r"2 of 2 videos are missing: 'brush_hair/f.avi' \(line 2\), 'wave/a b!.avi' \(line 1\)"),
    ],
)
def test_hmdb51_errors(tmp_path: Path, files: Files, changed: dict[str, int], message: str) -> None:
    lay(tmp_path, files, *(("hmdb51_org/wave/c.avi",) if len(files) == 1 else ()))
    with pytest.raises(ConfigError, match=message):
        read_records(replace(DataConfig(root=str(tmp_path), source="hmdb51"), **changed), "train")


# --- Diving48 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["rgb", "Diving48_rgb/rgb", "videos", "."])
@pytest.mark.parametrize("annotations", [".", "annotations"])
def test_diving48_layouts(tmp_path: Path, folder: str, annotations: str) -> None:
    files = {
        "Diving48_vocab.json": '[["Back", "15som", "05Twis", "FREE"], ["Inward", "Dive", "NoTwis", "PIKE"]]',
        "Diving48_V2_train.json": '[{"vid_name": "-m_0", "label": 1, "start_frame": 0, "end_frame": 48}]',
        "Diving48_V2_test.json": '[{"vid_name": "x_1", "label": 0, "start_frame": 0, "end_frame": 48}]',
    }
    lay(tmp_path, below(annotations, files), f"{folder}/-m_0.mp4", f"{folder}/x_1.mp4")
    config = DataConfig(root=str(tmp_path), source="diving48")
    train = read_records(config, "train")
    assert train.classes == ("Back 15som 05Twis FREE", "Inward Dive NoTwis PIKE")
    assert (labels(train), train.records[0].path) == ([(1,)], tmp_path / folder / "-m_0.mp4")
    assert labels(read_records(config, "test")) == [(0,)]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ('[{"vid_name": "a", "label": 2}]', "entry 1: the label is 2; .* 0 to 1"),
        ('[{"vid_name": "a", "label": "1"}]', "entry 1: the label is '1'"),
        ('[{"label": 1}]', "entry 1: vid_name is missing"),
        ('[{"vid_name": "b", "label": 1}]', r"1 of 1 videos are missing: 'b.mp4' \(entry 1\)"),
        (None, "no Diving48_V2_train.json was found"),
    ],
)
def test_diving48_errors(tmp_path: Path, train: str | None, message: str) -> None:
    lay(
        tmp_path,
        {"Diving48_vocab.json": '["x", "y"]'} | ({"Diving48_V2_train.json": train} if train else {}),
        "a.mp4",
    )
    with pytest.raises(ConfigError, match=message):
        read_records(DataConfig(root=str(tmp_path), source="diving48"), "train")


# --- all of them -----------------------------------------------------------------------------------

ALL: tuple[Source, ...] = (
    "something-v1", "something-v2", "jester", "kinetics", "moments", "ucf101", "hmdb51", "diving48",
    "tsn-list", "mmaction2-list", "slowfast-list",
)  # fmt: skip


@pytest.mark.parametrize("source", ALL)
def test_an_empty_folder(tmp_path: Path, source: Source) -> None:
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path)) + ".* (was|were) found.*Set data.annotations"):
        read_records(DataConfig(root=str(tmp_path), source=source), "train")


@settings(max_examples=50)
@given(
    names=st.lists(
        st.text("abc ,d", min_size=1).filter(lambda name: name == name.strip() != ","),
        unique=True,
        min_size=1,
    ),
    form=st.sampled_from(["plain", "from 0", "from 1", "trailing", "json", "json text", "json list"]),
    order=st.randoms(),
)
def test_class_files_read_back(tmp_path_factory: pytest.TempPathFactory, names, form, order) -> None:  # type: ignore[no-untyped-def]
    from vsn.data.readers.class_names import read_class_list

    lines = list(enumerate(names))
    if form not in ("plain", "json list"):
        order.shuffle(lines)
    file = tmp_path_factory.mktemp("classes") / ("c.json" if form.startswith("json") else "c.txt")
    match form:
        case "plain":
            text = "\n".join(names)
        case "from 0" | "from 1":
            text = "\n".join(f"{label + (form == 'from 1')} {name}" for label, name in lines)
        case "trailing":
            text = "\n".join(f"{name},{label}" for label, name in lines)
        case "json list":
            text = json.dumps(names)
        case _:
            text = json.dumps({name: str(label) if form == "json text" else label for label, name in lines})
    file.write_text(text)
    assert read_class_list(file).names == tuple(names)
