"""Run the command `vsn`: a table of commands, each a thin layer over a public function.

Modules of the package are imported inside the commands, so that help and mistyped options do not wait for torch.
"""

from __future__ import annotations

import codecs
import errno
import inspect
import io
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import TypeAlias

import tyro

import vsn
from vsn.cli.ablate import AblateCommand
from vsn.cli.bench import bench
from vsn.cli.boxes import BoxesCommand
from vsn.cli.convert import convert
from vsn.cli.data import DoctorCommand, PackCommand, synth
from vsn.cli.demo import demo
from vsn.cli.env import env
from vsn.cli.evaluate import evaluate
from vsn.cli.export import export
from vsn.cli.features import features
from vsn.cli.flow import ExtractCommand, show
from vsn.cli.folds import FoldsCommand
from vsn.cli.hub import pull, push, save
from vsn.cli.models import models
from vsn.cli.output import help_wrapped_by_words, waiting_for_torch, warnings_as_notes
from vsn.cli.predict import predict
from vsn.cli.recipes import list_recipes, show_recipe
from vsn.cli.report import report
from vsn.cli.runs import runs
from vsn.cli.scores import calibrate, compare, fuse, submit
from vsn.cli.serve import serve
from vsn.cli.settings import RecipeCommand, command_line, parse_recipe_command
from vsn.cli.stream import stream
from vsn.cli.training import TrainCommand
from vsn.config.distribution import explain_missing
from vsn.system.allocator import keep_freed_memory
from vsn.system.limits import limit_threads

DESCRIPTION = (
    "Video Shuffle Networks: recognize what happens in a video at the price of a 2D CNN. "
    "`vsn COMMAND --help` explains a command, `vsn --version` prints the version."
)

# A `RecipeCommand` cannot be a plain function: the defaults of the settings that follow come from the recipe it names.
Command: TypeAlias = Callable[..., None] | type[RecipeCommand]
"""A function, whose parameters are its options; or a `RecipeCommand`, which settings of a recipe follow."""

Commands: TypeAlias = Mapping[str, "Command | Commands"]

COMMANDS: Commands = {
    "demo": demo,
    "train": TrainCommand,
    "ablate": AblateCommand,
    "folds": FoldsCommand,
    "bench": bench,
    "eval": evaluate,
    "predict": predict,
    "export": export,
    "serve": serve,
    "stream": stream,
    "features": features,
    "convert": convert,
    "fuse": fuse,
    "compare": compare,
    "submit": submit,
    "calibrate": calibrate,
    "report": report,
    "models": models,
    "runs": runs,
    "env": env,
    "data": {"synth": synth, "pack": PackCommand, "doctor": DoctorCommand},
    "flow": {"extract": ExtractCommand, "show": show},
    "boxes": {"extract": BoxesCommand},
    "hub": {"push": push, "save": save, "pull": pull},
    "recipe": {"list": list_recipes, "show": show_recipe},
}
# Gains are measured for training and compiled networks (results/allocator-cpu.json, bench-memory-cpu.json). The other
# commands that run a network keep memory too, because their published speeds and memory were measured so.
KEEP_MEMORY = ("demo", "train", "ablate", "folds", "bench", "eval", "predict", "features", "stream", "serve")
"""Commands whose process keeps freed memory; see `vsn.system.allocator`."""
MIN_COLUMNS = 40
"""Width of the output in a narrower terminal, such as a pane of an editor."""
GROUPS = {
    "data": "Write the embedded data set; pack and examine data sets.",
    "flow": "Compute, store and look at optical flow.",
    "boxes": "Find and store the boxes of objects.",
    "hub": "Push runs to the Hugging Face hub, and pull them.",
    "recipe": "List and print recipes.",
}


def find_command(arguments: Sequence[str]) -> tuple[str, Command | None]:
    """Find the command that arguments begin with: "data pack" and its class; "" and None for help or a typing error."""
    # At most two words: "train", or "data pack". Options come later, so `vsn --help train` finds no command.
    name, commands = "", COMMANDS
    for word in arguments[:2]:
        entry = commands.get(word)
        if entry is None:
            break
        name = f"{name} {word}".lstrip()
        if not isinstance(entry, Mapping):
            return name, entry
        commands = entry
    return "", None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Errors that a user can fix are one line, without a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # The arguments as given, not sys.argv: tests and other programs call main(["train", ...]).
    command_line.set(shlex.join(["vsn", *arguments]))
    # Where the output cannot hold a character, such as that of a box or of a class name, it is escaped.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    # tyro divides the width into columns of help, and never ends where one of them is left no place.
    if shutil.get_terminal_size().columns < MIN_COLUMNS:
        os.environ["COLUMNS"] = str(MIN_COLUMNS)
    prog = "vsn"
    try:
        with warnings_as_notes():
            _run(arguments)
    except BrokenPipeError:  # a reader of the output, such as head, has closed the pipe
        # Python flushes stdout at exit, and would print a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None  # 128 + SIGPIPE, as a shell reports it
    except KeyboardInterrupt as error:  # commands that can save their work catch the signal before
        print("vsn: stopped", file=sys.stderr)
        raise SystemExit(getattr(error, "exit_status", 130)) from None  # 128 + SIGINT, as a shell reports it
    except ModuleNotFoundError as error:
        message = explain_missing(error, prog)
        if message is None or os.environ.get("VSN_TRACEBACK"):
            raise
        raise SystemExit(f"vsn: {message}") from None
    # Errors of users: bad settings, missing files, failed workers. Others are bugs, and keep their traceback.
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("VSN_TRACEBACK"):
            raise
        status = getattr(error, "exit_status", 1)
        if not str(error):  # one of several processes: rank 0 has reported the error
            raise SystemExit(status) from None
        # torchrun mixes the output of all processes.
        rank = os.environ.get("RANK", "0")
        who = "vsn" if rank == "0" else f"vsn (rank {rank})"
        message = f"{who}: {' '.join(_describe_error(error).split())}"
        if status == 1:
            raise SystemExit(message) from None
        print(message, file=sys.stderr)
        raise SystemExit(status) from None


def _run(arguments: Sequence[str]) -> None:
    limit_threads()
    if arguments[:1] == ["--version"]:
        print(f"vsn {vsn.__version__}")
        return
    name, command = find_command(arguments)
    if name in KEEP_MEMORY:
        keep_freed_memory()
    prog, rest = f"vsn {name}", arguments[len(name.split()) :]
    shows_help = command is None or not {"-h", "--help"}.isdisjoint(arguments)
    with help_wrapped_by_words() if shows_help else waiting_for_torch(prog):
        if command is None:
            # tyro prints the help, or refuses the word and lists the commands there are.
            _overview(COMMANDS).cli(prog="vsn", description=DESCRIPTION, args=arguments or ["--help"])
        elif isinstance(command, type):
            # Two steps: own options first, because they name the recipe; then its settings.
            options: RecipeCommand
            options, settings = parse_recipe_command(command, rest, prog)
            options.run(settings)
        else:
            tyro.cli(command, args=rest, prog=prog)


_ADVICE = {
    errno.EACCES: "Choose another place, or change its permissions.",
    errno.EPERM: "Choose another place, or change its permissions.",
    errno.EROFS: "Choose a place that can be written.",
    errno.ENOTDIR: "A part of the path is a file; choose another place.",
    errno.ENOSPC: "Free some space, or choose another place.",
}


def _describe_error(error: Exception) -> str:
    """Return the message of an error; those of the operating system and of codecs become sentences."""
    message = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        advice = _ADVICE.get(error.errno or 0, "Check the path.")
        message = f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}. {advice}"
    if (
        "torchvision::" in message
    ):  # its library was not loaded: built for another torch, or for CUDA with a torch for CPUs
        found = ", ".join(f"{package} {version(package)}" for package in ("torch", "torchvision"))
        message = (
            f"{found}: these two do not fit together ({message}). Install both in one command, from one index: "
            "pip install --force-reinstall torch torchvision"
        )
    # Then a file with such a name is not found, although it is there.
    encoding = sys.getfilesystemencoding()
    if codecs.lookup(encoding).name != "utf-8" and (isinstance(error, UnicodeError) or not message.isascii()):
        message += (
            f" Names of files are {encoding} in this environment, which lacks characters used here. Set PYTHONUTF8=1, or a "
            "locale of UTF-8 such as LC_ALL=C.UTF-8."
        )
    return message


def _overview(commands: Commands) -> tyro.extras.SubcommandApp:
    """Collect commands for `vsn --help`, and for the error on an unknown command; none of them runs."""
    app = tyro.extras.SubcommandApp()
    for name, command in commands.items():
        if isinstance(command, Mapping):
            app.command(_overview(command), name=name, help=GROUPS[name])
        else:
            summary = (inspect.getdoc(command) or "").partition("\n")[0]  # `vsn COMMAND --help` prints the rest
            app.command(name=name, help=summary)(command)
    return app
