"""What docs/api.md shows runs, and the names at the top of the package are what they say."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vsn
from vsn import cli

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


def test_the_blocks_of_the_page_run(
    finished_run: Path, gray_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(finished_run, tmp_path / "runs" / "mine")
    shutil.copy(gray_video, tmp_path / "new.mp4")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    ran = 0
    for block in BLOCKS:
        if "user/name" in block or "torch.hub" in block:  # network; their tests are test_hub and test_hubconf
            continue
        exec(compile(block, "docs/api.md", "exec"), names)
        ran += 1
    assert ran == 5
    assert names["logits"].shape == (2, 5)
    assert names["features"].shape == (2, 8, 512)
    assert (names["pooled"].shape, names["by_frame"].shape) == ((256,), (4, 256))
    assert names["again"].video_ids.tolist() == names["many"].video_ids.tolist()


def test_the_commands_of_the_pages_have_these_options(capsys: pytest.CaptureFixture[str]):
    for page, verbs in (("api.md", 3), ("convert.md", 1)):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8").replace("\\\n", "")
        found = 0
        for line in re.findall(r"^vsn (hub \w+|features|convert)([^#\n]*)", text, re.M):
            verb, rest = line
            with pytest.raises(SystemExit):
                cli.main([*verb.split(), "--help"])
            shown = capsys.readouterr().out
            assert [option for option in re.findall(r"--[a-z-]+", rest) if option not in shown] == []
            found += 1
        assert found == verbs


@pytest.mark.parametrize("name", vsn.__all__)
def test_names_at_the_top_are_those_of_their_homes(name: str):
    found = getattr(vsn, name)
    assert found is getattr(importlib.import_module(vsn._HOMES[name]), name)
    assert callable(found)
    assert found.__doc__
    text = Path(vsn.__file__).read_text(encoding="utf-8")
    assert f"from {vsn._HOMES[name]} import {name} as {name}\n" in text, "type checkers do not see it"


def test_all_is_what_has_a_home():
    assert vsn.__all__ == list(vsn._HOMES)
    assert set(vsn.__all__) <= set(dir(vsn))


def test_names_of_no_network_import_no_torch():
    code = (
        "import sys, vsn; vsn.load_recipe(vsn.find_recipe('demo')); vsn.load_features; "
        "print([m for m in ('torch', 'av', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_list_models_by_pattern():
    assert vsn.list_models("vsn_resnet1*") == [name for name in vsn.list_models() if name.startswith("vsn_resnet1")]
    assert {"vsn_resnet18", "vsn_resnet101"} <= set(vsn.list_models("vsn_*"))
    assert vsn.list_models("nothing*") == []


def test_models_command(capsys: pytest.CaptureFixture[str]):
    cli.main(["models", "tsm_resnet1?"])
    assert capsys.readouterr().out == "tsm_resnet18\n"
    with pytest.raises(SystemExit, match=r"'x\*'.*`vsn models`"):
        cli.main(["models", "x*"])
