"""What README and the pages of docs/ state is so: tables, figures and prose beside results/, messages beside the code."""

import ast
import json
import math
import re
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from scipy import stats

import vsn
from tests.helpers.docs_pages import PAGES, ROOT, read, script
from vsn.bench.tables import PAPER_TABLE_6
from vsn.system.numbers import percent, short_count

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


def start_up_figures(plain: str, extras: str) -> list[str]:
    """Sizes and start-up times of two environments, as docs/install.md quotes them."""
    figures = []
    for name in (plain, extras):
        environment = measured("import-cpu")["environments"][name]
        figures.append(f"{environment['bytes'] / 1e9:.1f} GB")
        figures += [
            f"{environment['starts'][what]['cpu_median']:.2f}"
            for what in ("import vsn", "vsn --help", "vsn.create_model")
        ]
    return figures


def difference(name: str, pair: str, *, sign: int = 1) -> str:
    """A paired difference of two runs in points, as docs/clips.md quotes it."""
    found = measured(name)["differences"][pair]
    bounds = sorted(100 * sign * bound for bound in found["interval"])
    return f"{100 * sign * found['top1']:.1f} points (95% interval {bounds[0]:.1f} to {bounds[1]:.1f})"


def of_people(a: str, b: str) -> str:
    """How far one network is above another on the gestures, in points: means over the seeds, t interval over the people."""
    by_person: dict[str, dict[str, list[float]]] = {a: {}, b: {}}
    for run, row in measured("gestures-people-cpu")["rows"].items():
        for person in row["groups"] if (name := run[:3]) in by_person else ():
            by_person[name].setdefault(person["group"], []).append(100 * person["top1"])
    apart = [fmean(by_person[a][person]) - fmean(by_person[b][person]) for person in by_person[a]]
    half = stats.t.ppf(0.975, len(apart) - 1) * stdev(apart) / math.sqrt(len(apart))
    more = sum(difference > 0 for difference in apart)
    interval = f"95% interval {fmean(apart) - half:.1f} to {fmean(apart) + half:.1f}; {more} of {len(apart)} people"
    return f"{round(fmean(apart), 1) + 0:.1f} points ({interval})"


def mean_of_folds(name: str, model: str) -> float:
    """The accuracy of a network over the seeds of a file of folds, in percent."""
    rows = measured(name)["rows"]
    return 100 * fmean(row["top1"] for run, row in rows.items() if run.startswith(model))


def clip_figures() -> dict[str, list[str]]:
    """Figures of the default recipe on clips of fights, as README and docs/clips.md quote them."""
    by_model: dict[str, list[Any]] = {}
    for run in measured("fights-default-cpu")["runs"]:
        by_model.setdefault(run["recipe"]["model"]["name"].split("_")[0], []).append(run)
    top1 = {
        name: [{test["order"]: test["top1"] for test in run["test"]} for run in runs] for name, runs in by_model.items()
    }
    means = {name: percent(fmean(test["forward"] for test in tests)) for name, tests in top1.items()}
    minutes = f"{fmean(run['training_seconds'] for run in by_model['vsn']) / 60:.1f} minutes"
    low, high = (percent(bound) for bound in by_model["vsn"][0]["test"][0]["top1_interval"])
    on_people = {name: f"{mean_of_folds('gestures-people-cpu', name):.1f}%" for name in ("tsm", "vsn")}
    between = [100 * (tsm["forward"] - vsn["forward"]) for tsm, vsn in zip(top1["tsm"], top1["vsn"], strict=True)]
    return {
        "README.md": [
            minutes,
            f"{means['vsn']} of 60",
            ", ".join(percent(test["forward"]) for test in top1["vsn"]),
            f"{low} to {high}",
            f"TSN ({means['tsn']}) and TSM ({means['tsm']})",
            f"on {on_people['tsm']} of 450 clips and VSN on {on_people['vsn']}",
        ],
        "clips.md": [
            minutes,
            f"{means['vsn']} for VSN, {means['tsm']} for TSM and {means['tsn']} for TSN",
            f"from {max(between):.1f} points in favor of TSM over VSN to {-min(between):.1f} against it",
            percent(fmean(test["still"] for test in top1["vsn"])),
        ],
    }


def hard_figures() -> dict[str, list[str]]:
    """Figures of TSM and VSN, of headtail blocks and of longer training, on the hard level of the embedded data set."""
    top1: dict[str, dict[int, float]] = {}
    without_order: dict[str, list[float]] = {}
    for run in measured("embedded-hard-cpu")["runs"]:
        top1.setdefault(run["name"], {})[run["seed"]] = run["forward"]["top1"]
        without_order.setdefault(run["name"], []).append(run["shuffled"]["top1"])
    means = {name: percent(fmean(shares.values())) for name, shares in top1.items()}
    longer = measured("embedded-hard-long-cpu")["runs"]

    # Networks without shift, by the number of their shuffles.
    one, two, three = ([n for n in top1 if n.startswith("places=") and n.count("+") == k] for k in range(3))
    early, late = ([f"places={place},shift=false" for place in pair] for pair in (("res2", "res3"), ("res4", "res5")))
    four = ["shift=false"]

    def mean(names: list[str]) -> float:
        return 100 * fmean(fmean(top1[name].values()) for name in names)

    def error(names: list[str]) -> float:
        """Standard error of `mean` over the seeds: the networks are those that are, not a sample."""
        return 100 * math.sqrt(sum(stdev(top1[name].values()) ** 2 / len(top1[name]) for name in names)) / len(names)

    def apart(a: list[str], b: list[str]) -> tuple[str, str]:
        return f"{abs(mean(a) - mean(b)):.0f} points", f"standard error of {math.hypot(error(a), error(b)):.0f}"

    def found(a: str, b: str) -> str:
        """The difference that five seeds find: two standard deviations, pooled."""
        return f"{200 * math.sqrt((stdev(top1[a].values()) ** 2 + stdev(top1[b].values()) ** 2) / 2):.0f}"

    more, more_error = apart(two, one)
    below, below_error = apart(one, four)
    above, above_error = apart(early, late)
    pairs = {name: name.removeprefix("places=").split(",")[0] for name in two}
    neighbors = [name for name, places in pairs.items() if places in ("res2+res3", "res3+res4", "res4+res5")]
    farther, farther_error = apart([name for name in two if name not in neighbors], neighbors)
    shuffled = [fmean(values) for values in without_order.values()]
    return {
        "README.md": [
            f"TSM is right on {means['name=tsm_resnet26_slim']}",
            f"VSN on {means['recipe']}",
            *(f"TSM {percent(run['forward']['top1'])} after 36" for run in longer if "tsm" in run["name"]),
        ],
        "embedded.md": [
            *(f"{means[name]}, sd {100 * stdev(top1[name].values()):.1f}" for name in ("block=headtail", "recipe")),
            f"one shuffle is {below} below four, with a {below_error}",
            f"are {more} above one, with a {more_error}",
            f"({', '.join(f'{mean(group):.1f}%' for group in (two, three))} and {mean(four):.1f}%)",
            f"from {percent(min(shuffled))} to {percent(max(shuffled))}",
            f"five seeds find a difference of {found('shift=false', 'recipe')}",
            f"Five seeds find a difference of {found('block=headtail', 'recipe')} points",
            f"are {farther} above two in neighboring stages, with a {farther_error}",
            f"One early shuffle is {above} above one late, with a {above_error}",
            *(f"from {percent(top1[run['name']][run['seed']])} to {percent(run['forward']['top1'])}" for run in longer),
        ],
        "flow.md": [percent(longer[-1]["forward"]["top1"])],
    }


def flow_figures() -> list[str]:
    """How far VSN is above TSN on flow, with one field and with five; and what a second network adds to one on frames."""
    top1: dict[str, list[float]] = {}
    for run in measured("table5-hard-cpu")["runs"]:
        top1.setdefault(run["name"], []).append(100 * run["forward"]["top1"])
    of_vsn = ("modality=flow,flow_length=1", "modality=flow")
    gains = (fmean(top1[name]) - fmean(top1[f"name=tsn_resnet26_slim,{name}"]) for name in of_vsn)
    fused: dict[str, list[float]] = {"flow": [], "rgb": []}
    alone: dict[str, list[float]] = {"flow": [], "rgb": []}
    for pair in measured("two-streams-hard-cpu")["pairs"]:
        modality = pair["streams"][1]["recipe"]["model"]["modality"]
        fused[modality].append(100 * pair["report"]["fused"]["top1"])
        for name, row in zip(("rgb", "flow") if modality == "flow" else (), pair["report"]["inputs"], strict=False):
            alone[name].append(100 * row["top1"])

    def apart(a: list[float], b: list[float]) -> str:
        """Mean difference in points, with the t interval over the seeds."""
        differences = [x - y for x, y in zip(a, b, strict=True)]
        half = stats.t.ppf(0.975, len(differences) - 1) * stdev(differences) / math.sqrt(len(differences))
        mean = fmean(differences)
        return f"{mean:.1f} points (95% interval {mean - half:.1f} to {mean + half:.1f})"

    return [
        f"by {' and '.join(f'{gain:.0f}' for gain in gains)} points",
        f"Flow adds {apart(fused['flow'], alone['rgb'])}",
        f"a second network on frames {apart(fused['rgb'], alone['rgb'])}",
        f"the difference is {apart(fused['flow'], fused['rgb'])}",
        f"({fmean(alone['rgb']):.1f}% against {fmean(alone['flow']):.1f}%)",
    ]


def runtime_figures() -> list[str]:
    """Sizes and CPU times of the environments without PyTorch, as docs/export.md quotes them."""
    alone, service = measured("environments-cpu")["environments"].values()
    figures = [f"{(one['bytes'] - one['bytes_of_pip']) / 1e6:.0f} MB" for one in (alone, service)]
    starts = alone["starts"]
    figures += [f"{starts[name]['cpu_median']:.2f}" for name in ("vsn predict", "vsn --help")]
    return [*figures, f"{starts['vsn predict']['max_bytes'] / 1e6:.0f} MB"]


def camera_figures() -> list[str]:
    """What docs/stream.md says of three cameras."""
    run = measured("cameras-cpu")
    assert not any(camera["dropped"] or camera["lost"] for camera in run["cameras"])
    assert run["memory_mb"]["last_tenth"] < 1.02 * run["memory_mb"]["first_tenth"]
    first, second, third = run["cameras"]
    gap = max(first["longest_without_seconds"], second["longest_without_seconds"])
    return [
        f"{first['windows']}, {second['windows']} and {third['windows']} windows",
        f"{gap:.1f} seconds",
        f"{third['longest_without_seconds']:.0f} seconds after",
    ]


def quoted_figures() -> dict[str, list[str]]:
    """Figures with their units that pages quote outside tables, computed from results/."""
    demo, quick = measured("demo-cpu"), measured("demo-quick-cpu")
    tsn, tsm, vsn_row = demo["rows"]
    i3d, shift, shuffle = (
        ratio("table6-latency-cpu", label) for label in ("i3d-fine_resnet50", "tsm_resnet50", "vsn_resnet50")
    )
    compiled = {
        row["label"]: f"{row['latency']['ratio']:.2f}"
        for row in measured("ops-networks-cpu")["networks"]["rows"]
        if (row["mode"], row["dtype"]) == ("compile", "fp32")
    }
    in_batches = {
        row["label"]: f"{row['throughput']['ratio']:.2f}"
        for row in measured("ops-networks-16-cpu")["networks"]["rows"]
        if (row["mode"], row["dtype"]) == ("eager", "fp32")
    }
    arrow = measured("gestures-arrow-cpu")["runs"][-1]["test"][0]["top1"]
    streams = [stream for pair in measured("two-streams-gestures-cpu")["pairs"] for stream in pair["streams"]]
    hours = next(stream for stream in streams if stream["run"] == "gdiff64")["training_seconds"] / 3600
    budget = script("page_tables").budget()
    paper = {name: row[0] / PAPER_TABLE_6["tsn_resnet50"][0] for name, row in PAPER_TABLE_6.items()}
    read = budget["videos_a_second"] * budget["clip_kilobytes"] / 1e6
    weights = float(re.search(r"`vsn_resnet50` \|.*?\| ([\d.]+)M \|", TEXTS["models.md"])[1])
    packing = measured("loading-memory-cpu")["data_set"]
    headtail, compact = spread("7", "headtail"), spread("7", "compact")
    shift_only, both = spread("9", "+ temporal shift"), spread("9", "+ combination")
    intervals = measured("interval-coverage-cpu")
    coverages: dict[str, list[float]] = {}
    for row in intervals["rows"]:
        coverages.setdefault(row["interval"], []).append(row["coverage"])
    shares = {(r["num_videos"], r["p"]): r["coverage"] for r in intervals["rows"] if r["interval"] == "share"}
    mid_p, wilson, bootstrap = (intervals["methods"][method] for method in ("mid-P", "Wilson", "percentile bootstrap"))
    holds, average_precision = (
        next(values for kind, values in coverages.items() if kind.startswith(start))
        for start in ("precision of", "mean average")
    )
    unequal = [value for kind, values in coverages.items() if "unequal" in kind for value in values]
    folds, arrow_pairs = (measured(name)["differences"] for name in ("fights-folds-cpu", "fights-arrow-cpu"))

    def by_seed(name: str, other: str, pairs: Any = folds, prefix: str = "") -> str:
        found = (pairs[f"{prefix}{name}-{seed} - {prefix}{other}-{seed}"]["top1"] for seed in range(3))
        *others, last = (f"{100 * difference:.1f}" for difference in found)
        return f"{', '.join(others)} and {last}"

    return {
        "evaluation.md": [
            f"coverage is {percent(mid_p['least'])} at the least and {percent(mid_p['mean'])} on average",
            f"Wilson's: {percent(wilson['least'])} and {percent(wilson['mean'])}",
            f"bootstrap: {percent(bootstrap['least'])} and {percent(bootstrap['mean'])}",
            *(f"{percent(shares[60, 0.95])} for 60 videos at 95%", f"{percent(shares[20, 0.99])} for 20 videos at 99%"),
            f"down to {percent(min(coverages['mean-class difference']))}",
            f"{percent(min(holds))} to {percent(max(holds))} of simulated draws",
            f"true value in {percent(min(average_precision))}",
            f"true value in {percent(min(unequal))} to {percent(max(unequal))} of draws",
        ],
        "README.md": [*clip_figures()["README.md"], *hard_figures()["README.md"]],
        "clips.md": [
            *clip_figures()["clips.md"],
            f"VSN is {by_seed('vsn', 'tsn')} points above TSN, by the seed, and TSM {by_seed('tsm', 'tsn')}.",
            " and ".join(
                f"{100 * low:.1f} to {100 * high:.1f}"
                for low, high in (folds[f"{name}-2 - tsn-2"]["interval"] for name in ("vsn", "tsm"))
            ),
            ", ".join(
                percent(run["test"][0]["top1"]) for run in measured("fights-arrow-cpu")["runs"] if "tsn" in run["run"]
            ),
            f"VSN is {by_seed('vsn', 'tsn', arrow_pairs, 'fights-')} points above it",
            f"and {by_seed('vsn', 'tsm', arrow_pairs, 'fights-')} points above TSM",
            difference("gestures-swapped-cpu", "vsn-0 - tsn-0"),
            "by {:.1f} points for TSN and {:.1f} for TSM; VSN loses {:.1f}".format(
                *(
                    abs(mean_of_folds("fights-random-cpu", model) - mean_of_folds("fights-folds-cpu", model))
                    for model in ("tsn", "tsm", "vsn")
                )
            ),
            "TSM is right on {} and VSN on {}, means of three seeds".format(
                *(
                    percent(
                        fmean(
                            run["test"][0]["top1"]
                            for run in measured("gestures-arrow-differences-cpu")["runs"]
                            if model in run["run"]
                        )
                    )
                    for model in ("tsm", "vsn")
                )
            ),
            f"{of_people('tsm', 'vsn')} above VSN",
            f"{of_people('tsm', 'tsn')} above TSN",
            f"VSN is {of_people('vsn', 'tsn')} above TSN",
            *(
                difference("gestures-differences-cpu", pair, sign=-1).replace("points (", "points above VSN (")
                for pair in (
                    "vsn-0 - tsm-0",
                    "vsn-1 - tsm-1",
                    "slim-vsn-0 - slim-tsm-0",
                    "epochs80-vsn-0 - epochs80-tsm-0",
                )
            ),
            f"{difference('gestures-differences-cpu', 'res5-0 - tsm-0', sign=-1)} below TSM",
            " against ".join(
                percent(run["metrics"][-1]["train_top1"])
                for name in ("epochs80-vsn-0", "epochs80-tsm-0")
                for run in measured("gestures-differences-cpu")["runs"]
                if run["run"] == name
            ),
        ],
        "embedded.md": hard_figures()["embedded.md"],
        "flow.md": [*hard_figures()["flow.md"], *flow_figures()],
        "index.md": [f"{demo['seconds'] / 60:.1f} minutes"],
        "tour.md": [f"{quick['seconds'] / 60:.1f} minutes"],
        "install.md": [
            *start_up_figures("plain", "extras"),
            f"{measured('quota-cpu')['time_to_one_thread']['ratio']:.2f} times as long as with one",
        ],
        "export.md": runtime_figures(),
        "stream.md": camera_figures(),
        "how.md": [f"{i3d} times", f"{shuffle} times"],
        "own-videos.md": [
            percent(arrow),
            *(
                percent(run["test"][0]["top1"])
                for run in measured("fights-arrow-cpu")["runs"]
                if run["run"].startswith("fights-vsn")
            ),
        ],
        "choosing.md": [
            *(f"{shift_only[0]}%", shift_only[1], f"{both[0]}%", both[1]),
            *(f"TSN {percent(tsn['top1'], 0)}", f"TSM {percent(tsm['top1'], 0)}", f"VSN {percent(vsn_row['top1'], 0)}"),
            *(f"{tsm['latency_ratio']:.2f} times", f"{vsn_row['latency_ratio']:.2f} times"),
            *(compiled["TSM"], compiled["VSN"], f"TSM processes {in_batches['TSM']} and VSN {in_batches['VSN']}"),
        ],
        "paper-tables.md": [
            *(f"VSN-R50 processes {in_batches['VSN']} times", f"TSM {in_batches['TSM']} ("),
            *(f"{shuffle} times", shift, i3d, f"headtail {headtail[0]}%", f"compact {compact[0]}%"),
            *(
                f"{shift_only[0]}%",
                f"{spread('9', '+ video shuffle')[0]}%",
                f"{both[0]}%",
                f"{spread('9', 'baseline')[0]}%",
            ),
            *(f"{paper['vsn_resnet50']:.2f}", f"{paper['tsm_resnet50']:.2f}", f"{paper['i3d-fine_resnet50']:.1f}"),
        ],
        "scaling.md": [
            *(
                f"{demo['seconds'] / 60:.1f} minutes",
                f"{hours:.1f} hours",
                f"{budget['frames'] / 1e6:.0f} million frames",
            ),
            *(f"{budget['speed']['packed']:.0f} clips", f"{budget['speed']['h264-12']:.0f} from H.264"),
            f"{packing['bytes_out'] / packing['bytes_in']:.1f} times",
            *(f"{budget['videos_a_second']:.0f} videos", f"{budget['clip_kilobytes'] / 8:.1f} kB"),
            f"{8e3 / budget['videos_a_second']:.0f} ms",
            *(f"{weights:.1f} million weights", f"{4 * weights:.0f} MB", f"{2 * 4 * weights:.0f} MB"),
            f"{8e-3 * weights / (8 / budget['videos_a_second']):.1f} GB/s",
            *(f"{64 * read:.1f} GB/s", f"{1024 * read:.1f} GB/s", f"{8 * read:.2f} GB/s"),
            f"{8 * budget['videos_a_second'] / budget['speed']['packed']:.0f} cores",
            f"{8 * budget['videos_a_second'] / budget['speed']['h264-12']:.0f} cores",
        ],
    }


@pytest.mark.parametrize("page", sorted(quoted_figures()))
def test_pages_quote_the_measured_figures(page: str):
    text = " ".join(TEXTS[page].split())
    assert [figure for figure in quoted_figures()[page] if figure not in text] == []


def test_the_hours_of_table_7_are_added_up():
    table = script("page_tables").paper_table("7")
    hours = sum(int(line.split("|")[-2]) for line in table.splitlines()[2:])
    text = " ".join(TEXTS["scaling.md"].split())
    on_8, on_64 = (hours * 40 / (gpus * script("page_tables").TERAFLOPS) for gpus in (8, 64))
    for figure in (f"{hours} of the hours", f"{on_8:.0f} hours on 8", f"{on_64:.0f} on 64"):
        assert figure in text


def test_the_protocols_are_as_measured():
    (run,) = [run for run in measured("protocols-cpu")["runs"] if run["run"] == "one-process"]
    assert len(run["test"]) > 5
    for one in run["test"]:
        low, high = one["top1_interval"]
        row = (
            f"| `{one['protocol']}` | {one['num_views']} | {short_count(one['multiply_adds'])} | {percent(one['top1'])} | "
            f"{percent(low)} to {percent(high)} |"
        )
        assert row in TEXTS["evaluation.md"]


def test_the_five_ways_are_as_measured():
    for way, facts in measured("training-cpu")["ways"].items():
        last = facts["metrics"][-1]
        same = "yes" if facts["weights_equal_to_first"] is not False else "no"
        row = f"| {way} | {last['train_loss']:.3f} | {last['val_loss']:.3f} | {percent(last['val_top1'])} | {same} |"
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


def test_the_cost_of_returning_memory_is_as_measured():
    text = " ".join(TEXTS["bench.md"].split())
    for key in ("given_back", "kept"):
        rows = measured("bench-memory-cpu")[key]["rows"]
        (row,) = [r for r in rows if (r["label"].split()[0], r["mode"]) == ("vsn_resnet50", "compile")]
        assert f"{row['latency']['ratio']:.2f} times" in text


def test_gesture_figures_are_as_measured():
    pairs = measured("two-streams-gestures-cpu")["pairs"]
    top1 = {}
    for pair in pairs:
        for stream, row in zip(pair["streams"], pair["report"]["inputs"], strict=True):
            top1[stream["run"], pair["protocol"]] = f"{percent(row['top1'])}"
    hours = next(s for pair in pairs for s in pair["streams"] if s["run"] == "gdiff64")["training_seconds"] / 3600
    best, whole = top1["gdiff64", "center"], top1["gdiff64", "fcn"]
    assert best in TEXTS["evaluation.md"]
    assert whole in TEXTS["evaluation.md"]
    assert best in TEXTS["own-videos.md"]
    assert f"{hours:.1f} hours" in TEXTS["own-videos.md"]
    assert top1["grgb96", "center"] in TEXTS["own-videos.md"]


def test_coverage_and_mutation_figures_are_as_measured():
    covered = next(row for row in measured("coverage-cpu")["rows"] if row["package"] == "total")
    total = measured("mutation-cpu")["total"]
    assert total["survived"] == 0
    text = " ".join(TEXTS["architecture.md"].split())
    figures = [
        f"{covered['percent']:.1f}%",
        f"{total['mutants']:,} mutants",
        *(str(total[k]) for k in ("sampled", "killed", "equivalent")),
    ]
    assert [figure for figure in figures if figure not in text] == []


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


def test_memory_of_the_service():
    memory = measured("serve-memory-cpu")
    assert memory["holds"]
    figures = [memory["at_once"]["max_mb"], *(memory["bound"][f"{part}_mb"] for part in ("sum", "idle", "allocator"))]
    text = TEXTS["serve.md"].partition("`results/serve-memory-cpu.json`")[2]
    for figure in figures:
        assert f"{figure:,.0f} MB" in text
