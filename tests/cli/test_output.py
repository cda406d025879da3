"""How the command line looks in a terminal."""

import io
import os
import pty
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from vsn import cli
from vsn.cli.output import wrap_words
from vsn.cli.predict import print_prediction
from vsn.inference.prediction import Prediction


def commands(table: cli.Commands = cli.COMMANDS, group: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, entry in table.items():
        yield from commands(entry, (*group, name)) if isinstance(entry, Mapping) else [(*group, name)]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", [(), *commands()], ids=" ".join)
def test_help_is_wrapped_between_words(
    command: tuple[str, ...], width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert not stop.value.code
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > width] == []
    assert len(lines) > 5


@pytest.mark.parametrize(
    ("line", "width", "expected"),
    [
        ("one two three", 9, ["one two", "three"]),
        ("usage: vsn {train,eval}", 18, ["usage: vsn {train,", "eval}"]),
        ("\x1b[1mone\x1b[0m two", 7, ["\x1b[1mone\x1b[0m two"]),  # colors have no width
        ("a-word-longer-than-the-line two", 9, ["a-word-longer-than-the-line", "two"]),
        ("│ a box, which fits already │", 5, ["│ a box, which fits already │"]),
        ("", 9, [""]),
    ],
)
def test_words_are_wrapped(line: str, width: int, expected: list[str]):
    assert wrap_words(line, width) == expected


def test_warnings_are_notes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def models() -> None:
        warnings.warn("some values\n overflowed", stacklevel=1)

    monkeypatch.setitem(cli.COMMANDS, "models", models)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        cli.main(["models"])
    assert capsys.readouterr().err == "Note: some values overflowed\n"


def in_terminal(*command: str, width: int) -> str:
    """What a command prints in a terminal of its own."""
    primary, secondary = pty.openpty()
    with subprocess.Popen(
        command, stdin=secondary, stdout=secondary, stderr=secondary, env=os.environ | {"COLUMNS": str(width)}
    ) as process:
        os.close(secondary)
        text = b""
        while True:
            try:
                part = os.read(primary, 65536)
            except OSError:  # the last process that had the terminal open has ended
                break
            if not part:
                break
            text += part
        process.wait(timeout=60)
    os.close(primary)
    return text.decode()


def test_a_start_says_what_it_waits_for(tmp_path: Path):
    """Here PyTorch is a file that takes its time."""
    (tmp_path / "torch.py").write_text("import time\ntime.sleep(1.0)\n")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom vsn.cli.output import waiting_for_torch\n"
    script += "with waiting_for_torch('vsn eval'):\n    import torch\nprint('done')"
    command = (sys.executable, "-c", script)
    text = in_terminal(*command, width=80)
    assert "vsn eval: loading PyTorch ..." in text
    assert re.search(r"\r\x1b\[2Kdone", text)  # the line is gone before the first output
    piped = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (piped.stdout, piped.stderr) == ("done\n", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [80, 120])
def test_predictions_that_do_not_fit_are_one_a_label(width: int, monkeypatch: pytest.MonkeyPatch):
    labels = ("something leaving on the left and coming back from the right", "red, then green")
    prediction = Prediction(path=Path("videos/one.mp4"), labels=labels, probabilities=(0.9425, 0.05), accepted=True)
    monkeypatch.setenv("COLUMNS", str(width))
    piped, terminal = io.StringIO(), Terminal()
    for stream in (piped, terminal):
        monkeypatch.setattr(sys, "stdout", stream)
        print_prediction(prediction, json_output=False)
    assert piped.getvalue() == f"videos/one.mp4: {labels[0]} 94.3%; {labels[1]} 5.0%\n"
    shown = terminal.getvalue().splitlines()
    if width == 80:
        assert shown == ["videos/one.mp4:", f"   94.3%  {labels[0]}", f"    5.0%  {labels[1]}"]
    else:
        assert shown == [piped.getvalue().rstrip()]
