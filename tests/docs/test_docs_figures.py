"""What README and the pages of docs/ state is so: tables, figures and prose beside results/, messages beside the code."""

import ast
import json
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import vsn
from tests.helpers.docs_pages import PAGES, ROOT, read, script
from vsn.bench.tables import PAPER_TABLE_6

TEXTS = {path.name: path.read_text(encoding="utf-8") for path in PAGES}


def measured(name: str) -> Any:
    return json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if "<!-- table " in text])
def test_tables_are_as_their_script_writes_them(name: str):
    assert script("page_tables").filled(TEXTS[name]) == TEXTS[name], "python docs/scripts/page_tables.py writes them"


def test_every_table_is_shown():
    shown = set(re.findall(r"<!-- table ([\w-]+) -->", "".join(TEXTS.values())))
    assert shown == set(script("page_tables").TABLES)


@pytest.mark.parametrize("name", sorted(script("page_figures").FIGURES))
def test_figures_are_as_their_script_draws_them(name: str):
    drawn = script("page_figures").FIGURES[name]()
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == drawn, "python docs/scripts/page_figures.py draws them"
    assert f"]({name})" in "".join(TEXTS.values())


def test_headers_of_the_demos_recipes_say_what_their_models_reached():
    rows = {row["model"]: row for row in script("page_tables").peer_rows()}
    for path in sorted((ROOT / "recipes").glob("demo-*.toml")):
        model = tomllib.loads(path.read_text(encoding="utf-8"))["model"]["name"]
        line = script("page_tables").peer_header(rows[model]) if model in rows else "# accuracy   not measured"
        assert line in path.read_text(encoding="utf-8").splitlines(), path.name


def ratio(name: str, label: str, dtype: str = "fp32", mode: str = "eager") -> str:
    (row,) = [
        row
        for row in measured(name)["rows"]
        if (row["label"].split()[0], row["dtype"], row["mode"]) == (label, dtype, mode)
    ]
    return f"{row['latency']['ratio']:.2f}"


def spread(number: str, model: str) -> tuple[str, str]:
    """Mean and standard deviation of a row of docs/embedded.md, which another test holds beside its file."""
    table = TEXTS["embedded.md"].split(f"\nTable {number}. ")[1].split("\nTable ")[0]
    row = next(line for line in table.splitlines() if re.search(rf"\| {re.escape(model)} +\|", line))
    mean, sd = re.search(r"([\d.]+)(?: \([+\d.]+\))? \| +([\d.]+) \|", row).groups()
    return mean, sd


def starts(plain: str, extras: str) -> list[str]:
    """What docs/install.md says of two environments."""
    environments = measured("import-cpu")["environments"]
    size, more = (environments[name]["bytes"] / 1e9 for name in (plain, extras))
    whats = ("python", "import vsn", "vsn --help", "vsn.create_model")
    alone, both = (
        [f"{environments[name]['starts'][what]['cpu_median']:.2f}" for what in whats] for name in (plain, extras)
    )
    names = environments[extras]["extras"]
    return [
        f"an environment of {size:.1f} GB",
        f"takes {alone[1]} seconds of processor time (Python alone {alone[0]}), `vsn --help` {alone[2]} and the first "
        f"model {alone[3]}",
        f"extras {', '.join(names[:-1])} and {names[-1]} it is {more:.1f} GB and {both[1]}, {both[2]} and {both[3]} seconds",
    ]


def prose() -> dict[str, list[str]]:
    """What pages say in words, made of the measured figures."""
    demo, quick = measured("demo-cpu"), measured("demo-quick-cpu")
    tsn, tsm, vsn_row = demo["rows"]
    i3d, shift, shuffle = (
        ratio("table6-latency-cpu", one) for one in ("i3d-fine_resnet50", "tsm_resnet50", "vsn_resnet50")
    )
    compiled = {
        row["label"]: f"{row['latency']['ratio']:.2f}"
        for row in measured("ops-networks-cpu")["networks"]["rows"]
        if (row["mode"], row["dtype"]) == ("compile", "fp32")
    }
    arrow = measured("gestures-arrow-cpu")["runs"][-1]["test"][0]["top1"]
    hours = measured("gestures-15-cpu")["runs"][-1]["training_seconds"] / 3600
    known = script("page_tables").budget()
    paper = {name: row[0] / PAPER_TABLE_6["tsn_resnet50"][0] for name, row in PAPER_TABLE_6.items()}
    read = known["videos_a_second"] * known["clip_kilobytes"] / 1e6
    weights = float(re.search(r"`vsn_resnet50` \|.*?\| ([\d.]+)M \|", TEXTS["models.md"])[1])
    packing = measured("loading-memory-cpu")["data_set"]
    head, compact = spread("7", "headtail"), spread("7", "compact")
    alone, both = spread("9", "+ temporal shift"), spread("9", "+ combination")
    return {
        "index.md": [f"after {demo['seconds'] / 60:.1f} minutes there"],
        "tour.md": [f"CPU cores that took {quick['seconds'] / 60:.1f} minutes"],
        "install.md": [
            *starts("plain", "extras"),
            "under two minutes on two CPU cores: results/demo-quick-cpu.json",
        ],
        "how.md": [
            f"I3D: {i3d} times the latency of TSN",
            f"VSN-ResNet-50 takes {shuffle} times as long as TSN",
        ],
        "own-videos.md": [f"VSN reached {arrow:.1%}"],
        "choosing.md": [
            f"TSM reached {alone[0]}% with a standard deviation of {alone[1]} and VSN {both[0]}% with {both[1]}",
            f"TSN {tsn['top1']:.0%}, TSM {tsm['top1']:.0%} at {tsm['latency_ratio']:.2f} times, VSN "
            f"{vsn_row['top1']:.0%} at {vsn_row['latency_ratio']:.2f} times TSN's latency",
            f"Compiled, TSM costs {compiled['TSM']} and VSN {compiled['VSN']} times what a compiled TSN costs",
        ],
        "paper-tables.md": [
            f"VSN-R50 takes {shuffle} times as long as TSN-R50, TSM {shift} and I3D {i3d} times",
            f"headtail {head[0]}%, compact {compact[0]}%, alike",
            f"shift alone {alone[0]}%, shuffle alone {spread('9', '+ video shuffle')[0]}%, both {both[0]}%, "
            f"TSN {spread('9', 'baseline')[0]}%",
            f"The paper has {paper['vsn_resnet50']:.2f}, {paper['tsm_resnet50']:.2f} and "
            f"{paper['i3d-fine_resnet50']:.1f} on a P100",
        ],
        "scaling.md": [
            f"the demo in {demo['seconds'] / 60:.1f} minutes on two cores",
            f"VSN on 360 clips in {hours:.1f} hours on one core",
            f"loads {known['speed']['packed']:.0f} clips a second from packed videos and "
            f"{known['speed']['h264-12']:.0f} from H.264 with a key frame every 12 frames",
            f"{known['frames'] / 1e6:.0f} million frames",
            f"gesture clips took {packing['bytes_out'] / packing['bytes_in']:.1f} times the room when packed",
            f"= {known['videos_a_second']:.0f} videos a second and GPU",
            f'"read" is 8 frames of {known["clip_kilobytes"] / 8:.1f} kB a clip',
            f"A step of 8 videos takes {8e3 / known['videos_a_second']:.0f} ms on paper",
            f"{weights:.1f} million weights are {4 * weights:.0f} MB of gradients",
            f"nearly twice that for each GPU and step, {2 * 4 * weights:.0f} MB",
            f"a link slower than {8e-3 * weights / (8 / known['videos_a_second']):.1f} GB/s a GPU bounds the step",
            f"give {64 * read:.1f} GB/s to 8 nodes and {1024 * read:.1f} GB/s to 128",
            f"{8 * known['videos_a_second'] / known['speed']['packed']:.0f} cores and {8 * read:.2f} GB/s packed, "
            f"{8 * known['videos_a_second'] / known['speed']['h264-12']:.0f} cores from H.264",
        ],
    }


@pytest.mark.parametrize("page", sorted(prose()))
def test_prose_quotes_what_was_measured(page: str):
    said = " ".join(TEXTS[page].split())
    assert [words for words in prose()[page] if words not in said] == []


def test_the_hours_of_table_7_are_added_up():
    table = script("page_tables").paper_table("7")
    hours = sum(int(line.split("|")[-2]) for line in table.splitlines()[2:])
    said = " ".join(TEXTS["scaling.md"].split())
    assert f"the ten runs of Table 7 are {hours} of the hours" in said
    on_8, on_64 = (hours * 40 / (gpus * script("page_tables").TERAFLOPS) for gpus in (8, 64))
    assert f"that is {on_8:.0f} hours on 8 such GPUs and {on_64:.0f} on 64" in said


def test_the_protocols_are_as_measured():
    (run,) = [run for run in measured("protocols-cpu")["runs"] if run["run"] == "one-process"]
    assert len(run["test"]) > 5
    for one in run["test"]:
        low, high = one["top1_interval"]
        row = (
            f"| `{one['protocol']}` | {one['num_views']} | {one['multiply_adds'] / 1e6:,.0f}M | {one['top1']:.1%} | "
            f"{low:.1%} to {high:.1%} |"
        )
        assert row in TEXTS["evaluation.md"]


def test_the_five_ways_are_as_measured():
    for way, facts in measured("training-cpu")["ways"].items():
        last = facts["metrics"][-1]
        same = "yes" if facts["weights_equal_to_first"] is not False else "no"
        row = f"| {way} | {last['train_loss']:.3f} | {last['val_loss']:.3f} | {last['val_top1']:.1%} | {same} |"
        assert row in TEXTS["training.md"]


def test_flow_is_as_measured():
    rows = {(row["method"], row["cores"]): row for row in measured("flow-cpu")["rows"]}
    for method, to_opencv in (("tvl1", "{:.1f} and {:.1f}"), ("tvl1-opencv", "1")):
        one, two = rows[method, 1], rows[method, 2]
        row = (
            f"| `{method}` | {one['pairs_per_second']:.1f} | {two['pairs_per_second']:.1f} | "
            f"{to_opencv.format(one['times_opencv'], two['times_opencv'])} | {one['end_point_error']:.3f} |"
        )
        assert row in TEXTS["flow.md"]


def test_the_price_of_giving_memory_back_is_as_measured():
    given_back, kept = (
        next(
            f"{row['latency']['ratio']:.2f}"
            for row in run["rows"]
            if (row["label"].split()[0], row["mode"]) == ("vsn_resnet50", "compile")
        )
        for run in (measured("bench-memory-cpu")[key] for key in ("given_back", "kept"))
    )
    said = f"compiled VSN {given_back} times a compiled TSN without and {kept} times with memory kept"
    assert said in " ".join(TEXTS["bench.md"].split())


def test_gestures_in_words_are_as_measured():
    pairs = measured("two-streams-gestures-cpu")["pairs"]
    found = {}
    for pair in pairs:
        for stream, row in zip(pair["streams"], pair["report"]["inputs"], strict=True):
            found[stream["run"], pair["protocol"]] = f"{row['top1']:.1%}"
    hours = next(s for pair in pairs for s in pair["streams"] if s["run"] == "gdiff64")["training_seconds"] / 3600
    best, whole = found["gdiff64", "center"], found["gdiff64", "fcn"]
    header = (ROOT / "recipes" / "differences-cpu.toml").read_text(encoding="utf-8")
    assert f"`center` gave {best} where `fcn` gave {whole}" in " ".join(TEXTS["evaluation.md"].split())
    assert f"right for {best} of gestures by two unseen people after {hours:.1f} hours" in TEXTS["own-videos.md"]
    assert f"a network on frames for {found['grgb96', 'center']}" in TEXTS["own-videos.md"]
    assert f"# accuracy   {best} on 90 clips" in header
    assert f"# hours      {hours:.1f} for 360 clips" in header


def test_how_well_tests_look_is_as_measured():
    covered = next(row for row in measured("coverage-cpu")["rows"] if row["room"] == "total")
    total = measured("mutation-cpu")["total"]
    said = " ".join(TEXTS["design.md"].split())
    assert f"They run {covered['percent']:.1f}% of the statements" in said
    assert total["survived"] == 0
    assert f"Of {total['mutants']:,} mutants" in said
    assert (
        f"{total['sampled']} were drawn, and tests written for those that lived: tests fail for {total['killed']} of "
        f"them, and the other {total['equivalent']} change nothing" in said
    )


def test_every_file_of_results_is_spoken_of():
    said = "".join(TEXTS.values()) + "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "recipes").glob("*.toml")
    )
    assert [path.name for path in (ROOT / "results").glob("*.json") if path.name not in said] == []


@cache
def strings_of_the_code() -> str:
    """Every string of the source, an ellipsis where something is put in; pieces in a row are one."""
    found = []
    for path in (ROOT / "src" / "vsn").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def messages() -> list[str]:
    return [a or b for a, b in re.findall(r"(?m)^- (?:``(.+)``|`([^`\n]+)`)  $", TEXTS["troubleshooting.md"])]


def test_there_are_messages():
    assert len(messages()) == len(re.findall(r"(?m)^- .*  $", TEXTS["troubleshooting.md"])) > 40


@pytest.mark.parametrize("message", messages())
def test_messages_are_those_of_the_code(message: str):
    """The pieces between dots stand in one string of the code; where a message is put together, each in one."""
    pieces = [piece.strip() for piece in re.split("…", message) if len(piece.strip(" :;,.()")) > 2]
    assert pieces
    one_string = ".*".join(map(re.escape, pieces))
    code = strings_of_the_code()
    assert re.search(one_string, code) or all(len(piece) > 12 and piece in code for piece in pieces), pieces


def test_the_names_at_the_top_are_in_the_reference():
    shown = set(re.findall(r"(?m)^::: (\S+)$", TEXTS["reference.md"]))
    assert {f"{vsn._HOMES[name]}.{name}" for name in vsn.__all__} <= shown


def test_data_sets_are_all_described():
    from typing import get_args

    from vsn.config.data import Source

    described = read("data-sets.md") + "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "recipes").glob("paper-*.toml")
    )
    assert [
        name for name in get_args(Source) if name not in described + read("own-videos.md") + "folder synthetic"
    ] == []
    assert [name for name in get_args(Source) if f"`{name}`" not in read("data.md")] == []


def test_paths_in_the_page_of_adding_things_exist():
    named = set(re.findall(r"`((?:src|tests|benchmarks|docs)/[\w/.]+?/?)`", TEXTS["extending.md"]))
    assert len(named) > 8
    assert [name for name in named if not Path(ROOT / name).exists()] == []
