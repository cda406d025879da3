"""CSV lists as people and spreadsheets write them: read as meant, or refused with the cause."""

import doctest
import importlib
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.laid_out import ids, touch
from vsn.config import ConfigError, DataConfig, Source
from vsn.data.readers import read_records

HEADER = ("path", "label", "split")
ROWS = [(f"clips/{n}.mp4", "open" if n[0] == "a" else "close", "val" if n[1] == "3" else "train")
        for n in ("a1", "a2", "a3", "b1", "b2", "b3")]  # fmt: skip
TRAIN = ["clips/a1.mp4", "clips/a2.mp4", "clips/b1.mp4", "clips/b2.mp4"]


def table(rows: list[tuple[str, ...]], header: tuple[str, ...] = HEADER, separator: str = ",", end: str = "\n") -> str:
    return "".join(separator.join(row) + end for row in (header, *rows))


def lay(root: Path, content: str | bytes, *more: str) -> DataConfig:
    touch(root, *(row[0] for row in ROWS), *more)
    (root / "clips.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return DataConfig(root=str(root), source="csv")


SEMICOLONS = table(ROWS, separator=";")
TABS = table(ROWS, separator="\t")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (SEMICOLONS, "semicolons"),
        (TABS, "tabs"),
        (SEMICOLONS.encode("utf-8-sig"), "semicolons"),
        (SEMICOLONS.encode("utf-16"), "UTF-16 with cells separated by semicolons"),
        (TABS.encode("utf-16"), "UTF-16 with cells separated by tabs"),  # "Unicode text" of Excel
        (b"\xfe\xff" + TABS.encode("utf-16-be"), "UTF-16"),
        (table(ROWS).encode("utf-32"), "UTF-32"),
        ("sep=;\n" + SEMICOLONS, "semicolons"),
        ('\ufeff"sep=;"\r\n' + table(ROWS, separator=";", end="\r\n"), "semicolons"),
        (table(ROWS, header=("Path", "LABEL", " Split ")), ""),
        (table(ROWS, end="\r\n"), ""),
        (table(ROWS, end="\r"), ""),
        (table([tuple(f'"{cell}"' for cell in row) for row in ROWS]), ""),
        (table([tuple(f" {cell}\xa0" for cell in row) for row in ROWS]), ""),
        ("\n\n" + table(ROWS, end="\n\n"), ""),
        (table([*((*row, "", "") for row in ROWS), ("", "", "", "", "")], header=(*HEADER, "", "")), ""),
        (table([(str(i), *row) for i, row in enumerate(ROWS)], header=("", *HEADER)), ""),  # pandas
        (table([(str(i), *row) for i, row in enumerate(ROWS)], header=("Unnamed: 0", *HEADER)), ""),
        (table([(*row, "S1", "x") for row in ROWS], header=(*HEADER, "Subject", "#weather")), "'subject', '#weather'"),
        (table([(*row, "1") for row in ROWS], header=(*HEADER, "fold")), "'fold'"),
        (table([(row[0].replace("/", "\\"), *row[1:]) for row in ROWS]), r"'clips\\a1.mp4' (clips.csv, line 2)"),
        (table([(row[0].upper(), *row[1:]) for row in ROWS]), "'CLIPS/A1.MP4' (clips.csv, line 2)"),
        (table([(f".\\{row[0]}".replace("/", "\\").title(), *row[1:]) for row in ROWS]), "spelled otherwise"),
    ],
)  # fmt: skip
def test_read_as_the_plain_list_is(tmp_path: Path, content: str | bytes, said: str) -> None:
    train = read_records(lay(tmp_path, content), "train")
    assert ids(train) == TRAIN
    assert train.classes == ("close", "open")
    assert [record.label for record in train.records] == [1, 1, 0, 0]
    assert said in "".join(train.notes)
    assert len(train.notes) == bool(said)


@pytest.mark.parametrize("name", ["semicolon", "tab", "utf16", "header-case", "backslash"])
def test_the_lists_that_were_refused(shared_data: Path, name: str) -> None:
    root = shared_data / "data/faults/lists"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    plain, other = (DataConfig(root=str(root), source="csv", annotations=f"{n}.csv") for n in ("plain", name))
    for split in ("train", "val"):
        assert read_records(other, split) == read_records(plain, split)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (table(ROWS).replace("open", "öffnen").encode("latin-1"), r"line 2 has the byte 0xf6.*öffnen.*Save it as UTF-8"),
        (table(ROWS, end="\r").replace("b1.mp4,close", "b1.mp4,Übung").encode("cp1252"), "line 5 .*Übung"),
        (b"PK\3\4rest of a workbook", "xlsx"),
        (table(ROWS).encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (table(ROWS).replace("open", "öffnen").encode("utf-16-le"), "UTF-16"),
        (table(ROWS).encode("utf-16") + b"x", "its byte order mark states UTF-16"),
        (table([("C:\\data\\" + row[0], *row[1:]) for row in ROWS]), "path on a Windows machine"),
        (table([(row[0].replace("/", "%20"), *row[1:]) for row in ROWS]), "web address"),
        (table([(f"“{row[0]}”", *row[1:]) for row in ROWS]), "quotes are part of the name"),
        (table([(f"/{row[0]}", *row[1:]) for row in ROWS]), "begin with / are those of a disk"),
        (table(ROWS, separator="|"), "separated by commas, semicolons or tabs"),
        (table(ROWS, separator=" "), "separated by commas, semicolons or tabs"),
        (table([(row[0].removesuffix(".mp4"), *row[1:]) for row in ROWS]), "There is 'clips/a1.mp4'"),
        (table([(f"'{row[0]}'", *row[1:]) for row in ROWS]), "quotes are part of the name"),
        (table([(row[0].replace("a", "Ã¼"), *row[1:]) for row in ROWS]), "letters were damaged"),
        (table([('"clips/a1.mp4', "open", "train"), *ROWS]), "is not CSV"),
        (table([("a, b.mp4", "open", "train"), *ROWS]), "line 2 has 4 cells, and the header 3"),
        (table(ROWS[:1]).partition("\n")[2], "first line is a video: add a line with the names of the columns"),
        (table([(*row, "x") for row in ROWS], header=(*HEADER, "LABEL")), "the column 'label' twice"),
    ],
)  # fmt: skip
def test_refused_with_the_cause(tmp_path: Path, content: str | bytes, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        read_records(lay(tmp_path, content), "train")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("start", "end"), "starts at '1' and ends at '1'"),
        (("Start_Time",), "'start_time' name parts"),
        (("t_end",), "'t_end' name parts"),
        (("startFrame",), "'startframe' name parts"),
        (("begin sec",), "'begin sec' name parts"),
        (("offset",), "'offset' name parts"),
        (("cloudy", "bbox"), "unknown columns 'cloudy', 'bbox'; known are path, label, split, id.*#"),
    ],
)
def test_unknown_columns_are_refused(tmp_path: Path, columns: tuple[str, ...], message: str) -> None:
    rows = [(*row, *("1" for _ in columns)) for row in ROWS]
    with pytest.raises(ConfigError, match=message):
        read_records(lay(tmp_path, table(rows, header=(*HEADER, *columns))), "train")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("path", "label", "splt"), "unknown column 'splt'; did you mean 'split'"),
        (("path", "label", "Subset"), "unknown column 'subset'; did you mean 'split'"),
        (("file_name", "label", "split"), "unknown column 'file_name'; did you mean 'path'"),
        (("path", "category", "split"), "unknown column 'category'; did you mean 'label'"),
        (("path", "labels", "split"), "unknown column 'labels'; did you mean 'label'"),
    ],
)
def test_the_column_that_was_meant_is_named(tmp_path: Path, header: tuple[str, str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_records(lay(tmp_path, table(ROWS, header=header)), "train")


def test_words_that_only_contain_end_are_no_parts(tmp_path: Path) -> None:
    header = (*HEADER, "gender", "num_frames", "fps", "weekend", "trend")
    with pytest.raises(ConfigError, match="unknown columns 'weekend', 'trend'"):
        read_records(lay(tmp_path, table([(*row, *"12345") for row in ROWS], header=header)), "train")


@pytest.mark.parametrize("name", ["readers.class_names", "readers.splits", "readers.entries", "flips"])
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"vsn.data.{name}"))
    assert result.attempted > 0
    assert result.failed == 0


# --- names on disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_composed_and_decomposed_names(tmp_path: Path, form: str) -> None:
    on_disk = unicodedata.normalize({"NFC": "NFD", "NFD": "NFC"}[form], "clips/café/ä4.mp4")
    listed = unicodedata.normalize(form, "clips/café/ä4.mp4")
    train = read_records(lay(tmp_path, table([*ROWS, (listed, "open", "train")]), on_disk), "train")
    assert ids(train)[-1] == on_disk
    assert repr(listed) in train.notes[0]
    assert "line 8" in train.notes[0]


def test_the_listed_spelling_wins(tmp_path: Path) -> None:
    rows = [*ROWS, ("clips/A1.mp4", "close", "train"), ("clips\\x.mp4", "close", "train")]
    train = read_records(lay(tmp_path, table(rows), "clips/A1.mp4", "clips\\x.mp4", "clips/x.mp4"), "train")
    assert ids(train)[-2:] == ["clips/A1.mp4", "clips\\x.mp4"]
    assert train.notes == ()


def test_two_files_that_differ_in_case_are_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"1 of 5 videos are missing: 'clips/x.MP4' \(line 8\)"):
        read_records(
            lay(tmp_path, table([*ROWS, ("clips/x.MP4", "open", "train")]), "clips/x.mp4", "clips/X.mp4"), "train"
        )


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("mmaction2-list", "Clips\\a1.mp4 0\r\nclips\\b1.mp4 1\r\n"),
        ("slowfast-list", "clips\\a1.mp4 0\r\nclips/B1.mp4 1\r\n"),
    ],
)
def test_lists_written_on_windows(tmp_path: Path, source: Source, text: str) -> None:
    touch(tmp_path, "clips/a1.mp4", "clips/b1.mp4")
    (tmp_path / "train.txt").write_bytes(text.encode("utf-16"))
    train = read_records(DataConfig(root=str(tmp_path), source=source, val_split="none"), "train")
    assert ids(train) == ["clips/a1.mp4", "clips/b1.mp4"]
    assert "spelled otherwise on disk" in train.notes[0]


# --- splits and classes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("splits", "train", "notes"),
    [
        (("train", "Train", "val"), [1, 2], ["The splits 'Train', 'train' are read as one."]),
        (("TRAIN", "training", "Validation"), [1, 2], ["The splits 'TRAIN', 'training' are read as one."]),
        (("train", "unused", "val"), [1], ["lines of the splits 'unused' are not used: 1."]),
        (("train", "train2", "val"), [1], ["lines of the splits 'train2' are not used: 1."]),
        (("train", "train", "val"), [1, 2], []),
    ],
)
def test_spellings_of_splits(tmp_path: Path, splits: tuple[str, str, str], train: list[int], notes: list[str]) -> None:
    rows = [(f"{i}.mp4", "ab"[i % 2], split) for i, split in enumerate(splits, 1)]
    config = lay(tmp_path, table([*rows, ("4.mp4", "a", "val")]), *(f"{i}.mp4" for i in range(1, 5)))
    records = read_records(config, "train")
    assert ids(records) == [f"{i}.mp4" for i in train]
    assert [note.removeprefix("clips.csv: ") for note in records.notes] == notes


@pytest.mark.parametrize("split", ["trian", "Tets", "validaton", "trains"])
def test_misspelt_splits_are_refused(tmp_path: Path, split: str) -> None:
    with pytest.raises(ConfigError, match=f"has the split '{split}'; did you mean"):
        read_records(lay(tmp_path, table([*ROWS, ("clips/a1.mp4", "open", split)])), "train")
    root = touch(tmp_path / "folders", "train/a/1.mp4", "train/b/1.mp4", "val/a/2.mp4", f"{split}/a/3.mp4")
    with pytest.raises(ConfigError, match=f"{split} holds videos and is no split. Did you mean"):
        read_records(DataConfig(root=str(root)), "train")


def test_a_folder_without_videos_is_no_misspelt_split(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a/1.mp4", "train/b/1.mp4", "val/a/2.mp4", "trained/model.pt")
    assert len(read_records(DataConfig(root=str(root)), "train").records) == 2


def test_a_folder_beside_the_splits_is_named(tmp_path: Path) -> None:
    """It was the validation split of its authors; a part of the training videos is held out in its place."""
    videos = (f"{split}/{c}/{i}.mp4" for split in ("train", "dev") for c in "ab" for i in range(3))
    root = touch(tmp_path, *videos, "flow/other/v/1.jpg")
    train = read_records(DataConfig(root=str(root)), "train")
    assert len(train.records) == 4
    assert any("'dev' (data.val_split" in note for note in train.notes)
    dev = DataConfig(root=str(root), val_split="dev")
    assert read_records(dev, "train").notes == ()
    assert len(read_records(dev, "dev").records) == 6


def test_spellings_of_classes(tmp_path: Path) -> None:
    rows = [("1.mp4", "Wave", "train"), ("2.mp4", "wave", "train"), ("3.mp4", "turn  Left", "train"),
            ("4.mp4", "turn left", "val"), ("5.mp4", "W\u200bAVE", "val")]  # fmt: skip
    config = lay(tmp_path, table(rows), *(row[0] for row in rows))
    train, val = read_records(config, "train"), read_records(config, "val")
    assert train.classes == val.classes == ("turn left", "wave")
    assert [record.label for record in (*train.records, *val.records)] == [1, 1, 0, 0, 1]
    assert "as 'wave'" in train.notes[0]


def test_spellings_of_class_folders(tmp_path: Path) -> None:
    nfd = unicodedata.normalize("NFD", "café")
    root = touch(
        tmp_path, "train/Wave/1.mp4", f"train/{nfd}/1.mp4", "val/wave/2.mp4", "Val/café/3.mp4", "val/WAVE /4.mp4"
    )
    config = DataConfig(root=str(root))
    train, val = read_records(config, "train"), read_records(config, "val")
    assert train.classes == val.classes
    assert len(train.classes) == 2
    assert sorted(ids(val)) == ["Val/café/3.mp4", "val/WAVE /4.mp4", "val/wave/2.mp4"]
    assert {r.video_id: r.label for r in val.records}["Val/café/3.mp4"] == train.records[1].label
    assert any("are read as one" in note for note in val.notes)


@pytest.mark.parametrize(
    ("written", "classes"),
    [
        (("0", "0.0", "1.00", "1"), ("0", "1")),
        (("01", "1", "1.0", "2"), ("1", "2")),
        (("007", "08"), ("007", "08")),
        (("1.5", "1.50", "-1", "1"), ("-1", "1", "1.5", "1.50")),
        (("hand wave", "hand_wave", "Hand-Wave", "clap"), ("clap", "hand wave")),
        (("1-2", "12", "1 2", "1_2"), ("1 2", "1-2", "12")),
        (("T-1", "T1", "T+1"), ("T+1", "T-1", "T1")),
    ],
)
def test_forms_of_one_class(tmp_path: Path, written: tuple[str, ...], classes: tuple[str, ...]) -> None:
    rows = [(f"{i}-{j}.mp4", label) for i in range(2) for j, label in enumerate(written)]
    config = lay(tmp_path, table(rows, header=("path", "label")), *(row[0] for row in rows))
    train = read_records(config, "train")
    assert train.classes == classes
    assert any("are read as one" in note for note in train.notes) == (len(classes) < len(written))


@pytest.mark.parametrize("cell", ["#N/A", "#REF!", "#NAME?", "#DIV/0!", "#NV", "#WERT!", "#VALUE!"])
@pytest.mark.parametrize("column", [1, 2])
def test_errors_of_formulas_are_no_values(tmp_path: Path, cell: str, column: int) -> None:
    rows = [list(row) for row in ROWS]
    rows[1][column] = cell
    config = lay(tmp_path, table(rows), *(row[0] for row in ROWS))
    with pytest.raises(ConfigError, match=f"line 3: .*{re.escape(repr(cell))}.*formula"):
        read_records(config, "train")


@pytest.mark.parametrize("cell", ["NaN", "null", "N/A", "?", "None"])
def test_words_for_empty_cells_are_noted(tmp_path: Path, cell: str) -> None:
    rows = [(f"{i}.mp4", cell if i == 1 else "ab"[i % 2]) for i in range(8)]
    config = lay(tmp_path, table(rows, header=("path", "label")), *(row[0] for row in rows))
    train = read_records(config, "train")
    assert cell in train.classes
    assert any(repr(cell) in note and "line 3" in note for note in train.notes)


def test_one_list_for_each_split(tmp_path: Path) -> None:
    for name in ("train", "val"):
        lay(tmp_path, table(ROWS), *(row[0] for row in ROWS))
        (tmp_path / f"{name}.csv").write_text(table(ROWS))
    with pytest.raises(ConfigError, match="column split"):
        read_records(DataConfig(root=str(tmp_path), source="csv"), "train")


def test_lock_files_of_spreadsheets_are_no_lists(tmp_path: Path) -> None:
    config = lay(tmp_path, table(ROWS), *(row[0] for row in ROWS))
    (tmp_path / "~$list.csv").write_text("x")
    assert len(read_records(replace(config, annotations=""), "train").records) == 4


def test_addresses_are_no_paths(tmp_path: Path) -> None:
    config = lay(tmp_path, table([("https://example.org/1.mp4", "a", "train")]))
    with pytest.raises(ConfigError, match=r"web address.*[Dd]ownload"):
        read_records(config, "train")


def test_upper_case_names_of_lists(tmp_path: Path) -> None:
    touch(tmp_path, *(row[0] for row in ROWS))
    (tmp_path / "CLIPS.CSV").write_text(table(ROWS))
    assert len(read_records(DataConfig(root=str(tmp_path), source="csv"), "train").records) == 4


CELLS = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="|/\\%'"), min_size=1).map(
    str.strip
)


@given(
    names=st.lists(
        CELLS.filter(lambda name: len(name) > 1 and name.isprintable()), min_size=2, max_size=4, unique=True
    ),
    separator=st.sampled_from(",;\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_cells_read_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], separator: str, encoding: str, end: str
) -> None:
    """Any label, quoted, in every form of the file."""
    root = tmp_path_factory.mktemp("cells")
    quoted = [(f"{i}.mp4", '"{}"'.format(name.replace('"', '""'))) for i, name in enumerate(names)]
    touch(root, *(path for path, _ in quoted))
    (root / "a.csv").write_bytes(table(quoted, header=("path", "label"), separator=separator, end=end).encode(encoding))
    records = read_records(DataConfig(root=str(root), source="csv", val_fraction=0.01), "train")
    by_id = {record.video_id: records.classes[record.label] for record in records.records}
    assert by_id == {f"{i}.mp4": name for i, name in enumerate(names)}


# --- a video on two lines --------------------------------------------------------------------------


@pytest.mark.parametrize("again", ["clips/a1.mp4", "./clips/a1.mp4", "clips//a1.mp4", "clips/../clips/a1.mp4",
                                   "clips\\a1.mp4", "{root}/clips/a1.mp4", "Clips/A1.mp4"])  # fmt: skip
def test_a_repeated_video_counts_once(tmp_path: Path, again: str) -> None:
    again = again.format(root=tmp_path)
    train = read_records(lay(tmp_path, table([*ROWS, (again, "open", "train")])), "train")
    assert ids(train) == TRAIN
    assert "'clips/a1.mp4' (clips.csv, line 2 and clips.csv, line 8)" in train.notes[-1]
    with pytest.raises(
        ConfigError, match=r"line 2 and .*line 8 give 'clips/a1.mp4' different labels, 'open' and 'close'"
    ):
        read_records(lay(tmp_path, table([*ROWS, (again, "close", "train")])), "train")


def test_a_link_to_a_folder_makes_another_video(tmp_path: Path) -> None:
    """`link/../a.mp4` is beside the folder that the link points to."""
    config = lay(tmp_path, table([*ROWS, ("link/../a1.mp4", "close", "train")]), "else/where/x", "else/a1.mp4")
    touch(tmp_path, "a1.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "else/where")
    (tmp_path / "clips.csv").write_text(
        table([*ROWS, ("link/../a1.mp4", "close", "train"), ("a1.mp4", "open", "train")])
    )
    assert len(read_records(config, "train").records) == 6


def test_ids_that_count_anew_in_each_split_are_refused(tmp_path: Path) -> None:
    """The flow of both would be one file, and a test result would pass for one on validation videos."""
    text = "path,label,split,id\n1.mp4,a,train,1\n2.mp4,b,train,2\n3.mp4,a,val,1\n"
    touch(tmp_path, "1.mp4", "2.mp4", "3.mp4")
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ConfigError, match=r"lines 2 and 4 have the id '1'.*#"):
        read_records(DataConfig(root=str(tmp_path), source="csv"), "train")


def test_ids_of_repeated_lines(tmp_path: Path) -> None:
    text = "path,label,id\n1.mp4,a,x\n2.mp4,b,y\n1.mp4,a,x\n"
    touch(tmp_path, "1.mp4", "2.mp4")
    (tmp_path / "a.csv").write_text(text)
    assert sorted(ids(read_records(DataConfig(root=str(tmp_path), source="csv"), "train"))) == ["x", "y"]
