"""Recipes that build on one another."""

import re
import tomllib
from pathlib import Path

import pytest

from vsn.cli.recipes import GROUPS
from vsn.config import ConfigError, Recipe
from vsn.config.recipes import dump_recipe, find_recipe, load_recipe, recipe_folder, recipe_from_dict, recorded_recipe


def write(folder: Path, **files: str) -> Path:
    """Write recipes `name.toml`; the path of the last one."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
    return path


def test_tables_are_laid_over_the_base_key_by_key(tmp_path: Path):
    top = write(
        tmp_path,
        low='[train]\nlr = 0.5\nepochs = 7\nfreeze = ["a", "b"]\n[model]\ndropout = 0.25\n',
        middle='base = "low.toml"\n[train]\nepochs = 8\nbatch_size = 3\n',
        top='base = "middle.toml"\n[train]\nbatch_size = 4\nfreeze = ["c"]\n[clip]\nsampling = "dense"\n',
    )
    assert load_recipe(top) == recipe_from_dict(
        {
            "train": {"lr": 0.5, "epochs": 8, "batch_size": 4, "freeze": ["c"]},
            "model": {"dropout": 0.25},
            "clip": {"sampling": "dense"},
        }
    )


def test_what_a_run_recorded_before_a_setting_existed_is_what_was_done_then(tmp_path: Path):
    settings = Recipe().to_dict()
    assert recorded_recipe(settings).clip.by == "time"
    del settings["clip"]["by"]
    assert recorded_recipe(settings).clip.by == recorded_recipe({}).clip.by == "index"
    for name, pool in (("nl-i3d_resnet50", "after"), ("vsn_resnet50", "before")):
        assert recorded_recipe({"model": {"name": name}}).model.non_local_pool == pool
    path = tmp_path / "recipe.toml"
    path.write_text("[train]\nepochs = 7\n")
    assert (load_recipe(path, recorded=True).clip.by, load_recipe(path).clip.by) == ("index", "time")
    assert load_recipe(path, recorded=True).train.epochs == 7


def test_a_base_counts_from_the_folder_of_the_recipe_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, low="[train]\nepochs = 7\n")
    top = write(tmp_path / "sub", top='base = "../low.toml"\n')
    monkeypatch.chdir(tmp_path / "sub")
    assert load_recipe(top).train.epochs == load_recipe("top.toml").train.epochs == 7


def test_a_base_may_be_a_recipe_that_comes_with_vsn(tmp_path: Path):
    # Also one that has the same name: a name never means a file next to it.
    own = write(tmp_path, demo='base = "demo"\n[train]\nepochs = 1\n')
    demo = load_recipe(find_recipe("demo"))
    assert load_recipe(own).model == demo.model
    assert (load_recipe(own).train.epochs, load_recipe(own).train.lr) == (1, demo.train.lr)


def test_what_is_printed_has_no_base(tmp_path: Path):
    path = write(tmp_path, low="[train]\nepochs = 7\n", top='base = "low.toml"\n')
    printed = tomllib.loads(dump_recipe(load_recipe(path)))
    assert printed.keys() == Recipe().to_dict().keys()


def test_values_that_only_agree_together_are_checked_together(tmp_path: Path):
    """A crop of 300 does not fit the default short side; the base's is 320."""
    path = write(tmp_path, low="[clip]\nshort_side = 320\n", top='base = "low.toml"\n[clip]\ncrop_size = 300\n')
    assert load_recipe(path).clip.crop_size == 300


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": 'base = "a.toml"'}, r"in a circle: \S*a\.toml -> \S*a\.toml\."),
        (
            {"b": 'base = "c.toml"', "c": 'base = "b.toml"', "a": 'base = "b.toml"'},
            r"in a circle: \S*a\.toml -> \S*b\.toml -> \S*c\.toml -> \S*b\.toml\.",
        ),
        (
            {"b": 'base = "gone.toml"', "a": 'base = "b.toml"'},
            r"a\.toml -> \S*b\.toml: base is 'gone\.toml', .* no file \S*gone\.toml\.",
        ),
        (
            {"a": 'base = "finetun"'},
            r"a\.toml: base is 'finetun', .*'finetune\'",
        ),
        ({"a": 'base = "zzz"'}, r"base is 'zzz', .*`vsn recipe list`"),
        ({"a": "base = 3"}, r"a\.toml: base is 3;"),
        ({"a": 'base = ""'}, r"a\.toml: base is '';"),
        ({"b": "[train", "a": 'base = "b.toml"'}, r"\S*b\.toml is not a TOML file"),
    ],
)
def test_bases_that_do_not_hold(tmp_path: Path, files: dict[str, str], message: str):
    with pytest.raises(ConfigError, match=message):
        load_recipe(write(tmp_path, **files))


@pytest.mark.parametrize(
    ("low", "top", "message"),
    [
        ("[train]\nepoch = 3", "[train]\nlr = 1.0", r"low\.toml: unknown setting 'train\.epoch'; did you"),
        ("[train]\nlr = 1.0", "[train]\nepoch = 3", r"top\.toml: unknown setting 'train\.epoch'"),
        ("[trian]\nlr = 1.0", "", r"low\.toml: unknown setting 'trian'"),
        ("", "[trian]\nlr = 1.0", r"top\.toml: unknown setting 'trian'"),
        ("[train]\nlr = 'x'", "[train]\nepochs = 3", r"low\.toml: train\.lr is 'x'"),
        ("[train]\nlr = -1", "[train]\nepochs = 3", r"low\.toml: train\.lr is -1\.0"),
        ("[train]\nepochs = 3", "[train]\nlr = -1", r"top\.toml: train\.lr is -1\.0"),
        ("train = 3", "", r"low\.toml: train must be a table"),
        ("[data]\ntask = 'arrow'", "[augment]\nmixup = 0.2", r"top\.toml: augment\.mixup and augment"),
    ],
)
def test_an_error_names_the_file_in_which_the_setting_stands(tmp_path: Path, low: str, top: str, message: str):
    path = write(tmp_path, low=low, top=f'base = "low.toml"\n{top}')
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_a_nested_dict_has_no_base():
    with pytest.raises(ConfigError, match="recipe: unknown setting 'base'"):
        recipe_from_dict({"base": "demo"})


def test_the_list_is_grouped_and_fits_80_columns(capsys: pytest.CaptureFixture[str]):
    from vsn import cli

    cli.main(["recipe", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [heading for heading, _ in GROUPS]
    assert [line for line in lines if len(line) > 80] == []
    listed = [line.split()[0] for line in lines if line.startswith(" ")]
    assert sorted(listed) == sorted(path.stem for path in recipe_folder().glob("*.toml"))
    first_ablation = next(i for i, name in enumerate(listed) if name.startswith("ablation-"))
    paper = [name for name in listed[:first_ablation] if name.startswith("paper-")]  # the peers come last
    assert "paper-something-v1-eco" in listed[first_ablation:]
    assert listed.index("demo") < listed.index(paper[0])
    plain = [name for name in paper if "flow" not in name]
    assert paper == [*sorted(plain), *sorted(set(paper) - set(plain))]
    assert re.search(r"^  demo +The embedded data set", "\n".join(lines), re.MULTILINE)
