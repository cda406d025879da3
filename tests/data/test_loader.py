import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import get_worker_info
from torch.utils.data._utils.pin_memory import pin_memory
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from tests.helpers.clips import clip_dataset
from vsn.config import ClipSpec, DataConfig, ModelConfig, Recipe
from vsn.data import loader as loader_module
from vsn.data.dataset import BadVideo, Sample, VideoDataset
from vsn.data.loader import Batch, Share, balanced_weights, collate, epoch_keys, make_loader, step_batches
from vsn.data.readers import read_records
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.video import VideoError, pyav_reader
from vsn.data.video.packet_index import CACHE
from vsn.system.interrupt import StopRequest, stop_requests
from vsn.system.pool import WorkerError

SPEC = ClipSpec(short_side=32, crop_size=24)

# From Python 3.12 on, a fork in a process with threads warns; PyTorch's threads are always there.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(scope="session")
def records(tiny_data: Path) -> RecordSet:
    return read_records(DataConfig(root=str(tiny_data)), "train")


def one_video(path: Path) -> RecordSet:
    return RecordSet((VideoRecord(path, (1,), path.name),), ("a", "b"))


def test_collate_stacks_samples_of_one_size() -> None:
    clips = [torch.full((2, 3, *size), i, dtype=torch.uint8) for i, size in enumerate([(4, 6), (6, 4), (4, 6)])]
    batches = collate([Sample(clip, target=torch.tensor(10 + i), index=20 + i) for i, clip in enumerate(clips)])
    assert all(isinstance(batch, Batch) for batch in batches)
    assert [tuple(batch.clips.shape) for batch in batches] == [(2, 2, 3, 4, 6), (1, 2, 3, 6, 4)]
    assert [batch.targets.tolist() for batch in batches] == [[10, 12], [11]]
    assert [batch.indices.tolist() for batch in batches] == [[20, 22], [21]]
    assert batches[0].clips[:, 0, 0, 0, 0].tolist() == [0, 2]
    assert batches[0].clips.dtype == torch.uint8
    assert batches[0].targets.dtype == torch.int64


@forks
def test_the_default_number_of_workers_is_in_order_on_one_cpu(
    records: RecordSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    dataset = clip_dataset(records, clip=SPEC, num_frames=2, train=False)
    loader = make_loader(dataset, batch_size=4, num_workers=DataConfig().num_workers, shuffle=False)
    assert sum(len(batch.targets) for batches in loader for batch in batches) == len(records.records)


def test_keys_of_an_epoch() -> None:
    assert epoch_keys(3) == [(0, 0), (0, 1), (0, 2)]
    shuffled = epoch_keys(50, 1, seed=7, shuffle=True)
    assert sorted(shuffled) == [(1, index) for index in range(50)]
    assert shuffled == epoch_keys(50, 1, seed=7, shuffle=True)
    assert [index for _, index in shuffled] != list(range(50))
    for other in (epoch_keys(50, 2, seed=7, shuffle=True), epoch_keys(50, 1, seed=8, shuffle=True)):
        assert [index for _, index in other] != [index for _, index in shuffled]


@pytest.mark.parametrize("start", [-1, 13])
def test_an_epoch_cannot_start_outside(records: RecordSet, start: int) -> None:
    dataset = clip_dataset(records, clip=SPEC, train=True)
    with pytest.raises(ValueError, match=f"start is {start}; it must be 0 to 12"):
        make_loader(dataset, batch_size=4, num_workers=0, shuffle=True, start=start)


# --- shares of a step ---------------------------------------------------------------------------------


def by_process(num: int, batch_size: int, size: int, *, parts: int = 1, together: int = 1, **options):
    """The indices of each process, step by step."""
    keys = epoch_keys(num)
    shares = [
        step_batches(keys, batch_size, Share(rank, size, parts), together=together, **options) for rank in range(size)
    ]
    return [[[index for _, index in step] for step in steps] for steps in shares]


def test_processes_share_each_step() -> None:
    assert by_process(10, 4, 1) == [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]]
    assert by_process(10, 4, 2) == [[[0, 1], [4, 5], [8]], [[2, 3], [6, 7], [9]]]
    assert by_process(9, 4, 3) == [[[0, 1], [4, 5], [8]], [[2], [6], []], [[3], [7], []]]


def test_parts_of_a_step_are_each_over_all_processes() -> None:
    # The first part of the step is 0 to 3, the second 4 to 7, for one process and for two.
    assert by_process(8, 8, 2, parts=2) == [[[0, 1, 4, 5]], [[2, 3, 6, 7]]]
    assert by_process(5, 5, 2, parts=2) == [[[0, 1, 3]], [[2, 4]]]


def test_records_of_one_video_stay_in_one_process() -> None:
    assert by_process(12, 6, 2, together=2) == [[[0, 1, 2, 3], [6, 7, 8, 9]], [[4, 5], [10, 11]]]


def test_processes_take_whole_batches_by_turns() -> None:
    assert by_process(10, 4, 2, whole=True) == [[[0, 1, 2, 3], [8, 9]], [[4, 5, 6, 7]]]


@given(
    num=st.integers(0, 60), batch_size=st.integers(1, 20), size=st.integers(1, 5), parts=st.integers(1, 4),
    together=st.integers(1, 3), whole=st.booleans(),
)  # fmt: skip
def test_every_sample_goes_to_one_process(num, batch_size, size, parts, together, whole) -> None:
    shares = by_process(num * together, batch_size, size, parts=parts, together=together, whole=whole)
    assert sorted(index for steps in shares for step in steps for index in step) == list(range(num * together))
    if not whole:
        assert len({len(steps) for steps in shares}) == 1  # all meet in every step
        for number, step in enumerate(zip(*shares, strict=True)):
            start = number * batch_size
            assert sorted(itertools.chain(*step)) == list(range(num * together))[start : start + batch_size]
            sizes = [-(-len(part) // together) for part in step]
            assert max(sizes) - min(sizes) <= parts


def test_local_parts_are_cut_where_the_sampler_put_them() -> None:
    for num in range(1, 30):
        for parts in (1, 2, 3, 4):
            for rank, (step,) in enumerate(by_process(num, num, 3, parts=parts)):
                wanted = [np.array_split(part, 3)[rank].tolist() for part in np.array_split(np.arange(num), parts)]
                assert [part.tolist() for part in torch.tensor(step).tensor_split(parts)] == wanted


def loaded(records: RecordSet, *, num_workers: int, start: int = 0) -> list[tuple[int, int, bytes]]:
    dataset = clip_dataset(records, clip=SPEC, num_frames=4, train=True, flip="random")
    loader = make_loader(dataset, batch_size=5, num_workers=num_workers, epoch=3, shuffle=True, seed=1, start=start)
    return [
        (int(index), int(label), clip.numpy().tobytes())
        for batches in loader
        for batch in batches
        for clip, label, index in zip(batch.clips, batch.targets, batch.indices, strict=True)
    ]


@forks
def test_loaders_give_the_same_with_any_number_of_workers(records: RecordSet) -> None:
    in_process = loaded(records, num_workers=0)
    assert sorted(index for index, _, _ in in_process) == list(range(12))
    assert [label for index, label, _ in in_process] == [records.records[index].label for index, _, _ in in_process]
    assert loaded(records, num_workers=2) == in_process
    assert loaded(records, num_workers=0, start=5) == in_process[5:]


@forks
@pytest.mark.parametrize(("left", "is_shared"), [(None, True), (10**9, True), (100_000, False), (0, False)])
def test_batches_that_do_not_fit_into_shared_memory_are_sent_without_it(
    left: int | None, is_shared: bool, records: RecordSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers hold two batches each of 4 clips of 4x3x24x24 bytes: 110,592 bytes, beside labels and indices."""
    monkeypatch.setattr(loader_module, "_shared_memory_left", lambda: left)
    dataset = clip_dataset(records, clip=SPEC, num_frames=4, train=True)
    with_workers = list(make_loader(dataset, batch_size=4, num_workers=2, shuffle=True))
    assert {tensor.is_shared() for ((*tensors,),) in with_workers for tensor in tensors} == {is_shared}
    for ((*expected,),), ((*sent,),) in zip(
        make_loader(dataset, batch_size=4, num_workers=0, shuffle=True), with_workers, strict=True
    ):
        assert all(map(torch.equal, expected, sent))


def test_loader_length_and_last_batch(records: RecordSet) -> None:
    dataset = clip_dataset(records, clip=SPEC, num_frames=4, train=False)
    loader = make_loader(dataset, batch_size=5, num_workers=0, shuffle=False)
    assert len(loader) == 3
    assert [batches[0].indices.tolist() for batches in loader] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


@forks
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_video_raises_its_error_from_the_loader(gray_video: Path, tmp_path: Path, num_workers: int) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("not a video")
    records = RecordSet((*one_video(gray_video).records, VideoRecord(bad, (0,), "bad.mp4")), ("a", "b"))
    dataset = clip_dataset(records, clip=SPEC, num_frames=4, train=False)
    with pytest.raises(VideoError, match="not a video that FFmpeg can read") as caught:
        dataset[1]
    loader = make_loader(dataset, batch_size=1, num_workers=num_workers, shuffle=False)
    iterator = iter(loader)
    assert next(iterator)[0].indices.tolist() == [0]
    with pytest.raises(VideoError, match="not a video that FFmpeg can read") as from_loader:
        next(iterator)
    assert (from_loader.value.path, from_loader.value.reason) == (str(bad), caught.value.reason)


@forks
def test_workers_keep_to_one_thread(records: RecordSet) -> None:
    class Threads(VideoDataset):
        def __getitem__(self, key: int | tuple[int, int]) -> Sample:
            return super().__getitem__(key)._replace(target=torch.tensor(torch.get_num_threads()))

    dataset = Threads(records, Recipe(clip=SPEC, model=ModelConfig(num_frames=2)), train=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        loader = make_loader(dataset, batch_size=12, num_workers=1, shuffle=False)
        assert [batches[0].targets.tolist() for batches in loader] == [[1] * 12]
    finally:
        torch.set_num_threads(before)


def test_training_takes_records_of_one_video_together(gray_video: Path) -> None:
    records = RecordSet(one_video(gray_video).records * 12, ("a", "b"), per_video=2)
    dataset = clip_dataset(records, clip=SPEC, num_frames=2, train=True)
    loader = make_loader(dataset, batch_size=4, num_workers=0, shuffle=True, seed=1)
    order = [int(index) for (batch,) in loader for index in batch.indices]
    assert sorted(order) == list(range(12))
    assert order != list(range(12))
    assert all(second == first + 1 and first % 2 == 0 for first, second in zip(order[::2], order[1::2], strict=True))


# --- balance -----------------------------------------------------------------------------------------


def test_balanced_weights_draw_classes_equally_often() -> None:
    labels = [0] * 90 + [1] * 9 + [3]
    weights = balanced_weights([VideoRecord(Path("a"), (label,), "a") for label in labels])
    drawn = [index for epoch in range(30) for _, index in epoch_keys(100, epoch, shuffle=True, weights=weights)]
    shares = np.bincount([labels[index] for index in drawn], minlength=4) / len(drawn)
    assert shares[2] == 0
    assert shares[[0, 1, 3]] == pytest.approx([1 / 3] * 3, abs=0.03)


def test_a_balanced_loader(gray_video: Path) -> None:
    records = RecordSet(tuple(VideoRecord(gray_video, (int(i == 0),), str(i)) for i in range(20)), ("common", "rare"))
    dataset = clip_dataset(records, clip=SPEC, num_frames=2, train=True)
    loader = make_loader(dataset, batch_size=20, num_workers=0, shuffle=True, balance=True)
    ((batch,),) = list(loader)
    assert 4 < int((batch.targets == 1).sum()) < 16


# --- bad videos ---------------------------------------------------------------------------------------


@forks
@pytest.mark.parametrize("num_workers", [0, 1])
def test_bad_videos_are_collected_when_a_list_is_given(gray_video: Path, tmp_path: Path, num_workers: int) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("not a video")
    good = one_video(gray_video).records[0]
    records = RecordSet((good, VideoRecord(bad, (0,), "bad.mp4"), good, VideoRecord(bad, (1,), "b")), ("a", "b"))
    dataset = clip_dataset(records, clip=SPEC, num_frames=4, train=False)
    found: list[BadVideo] = []
    loader = make_loader(dataset, batch_size=3, num_workers=num_workers, shuffle=False, bad=found)
    batches = list(loader)
    assert [[batch.indices.tolist() for batch in step] for step in batches] == [[[0, 2]], []]
    assert [(video.index, video.path) for video in found] == [(1, str(bad)), (3, str(bad))]
    assert "not a video that FFmpeg can read" in found[0].reason


class Failing(VideoDataset):
    """At the video `at`, its worker does `fail`."""

    at, fail = 0, staticmethod(lambda: time.sleep(600))

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        if isinstance(key, tuple) and key[1] == self.at:
            self.fail()
        return super().__getitem__(key)


@pytest.fixture
def failing(records: RecordSet, monkeypatch: pytest.MonkeyPatch) -> Failing:
    monkeypatch.setattr(
        torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2
    )  # how long it waits for a worker to end
    monkeypatch.setattr(loader_module, "WORKER_SECONDS", 30)
    return Failing(records, Recipe(clip=SPEC, model=ModelConfig(num_frames=2)), train=False)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def last_video(records: RecordSet, index: int) -> str:
    return f"The last video that it opened is {str(records.records[index].shown)!r}."


@forks
def test_a_worker_that_hangs_is_given_up_and_killed(
    records: RecordSet, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "WORKER_SECONDS", 1)
    failing.at = 4
    loading = iter(make_loader(failing, batch_size=2, num_workers=1, shuffle=False))
    assert [next(loading)[0].indices.tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(WorkerError, match="for 1 seconds") as error:
        next(loading)
    assert last_video(records, 4) in str(error.value)
    assert not multiprocessing.active_children()


@forks
@pytest.mark.parametrize("number", ["SIGKILL", "SIGSEGV"])
def test_a_worker_that_dies_interrupts_no_step_and_its_video_is_named(
    records: RecordSet, failing: Failing, number: str
) -> None:
    step_begins = multiprocessing.Event()
    failing.at, failing.fail = 7, lambda: (step_begins.wait(), os.kill(os.getpid(), getattr(signal, number)))
    loading = iter(make_loader(failing, batch_size=2, num_workers=2, shuffle=False))
    assert next(loading)[0].indices.tolist() == [0, 1]
    workers = multiprocessing.active_children()
    step_begins.set()
    while all(worker.is_alive() for worker in workers):
        time.sleep(0.01)  # the step that a signal of a dead worker must not interrupt
    with pytest.raises(WorkerError, match=f"died .{number}") as error:
        list(loading)
    assert last_video(records, 7) in str(error.value)
    assert not multiprocessing.active_children()
    assert signal.getsignal(signal.SIGCHLD).__module__ == "torch.utils.data._utils.signal_handling"  # as it was


@forks
def test_a_worker_that_died_before_stops_the_next_loader_too(failing: Failing) -> None:
    """As one that dies after the last batch of an epoch: the validation that follows stops with the other processes."""
    stop = StopRequest()
    stop.fail(WorkerError("died"))
    assert list(make_loader(failing, batch_size=2, num_workers=1, shuffle=False, stop=stop)) == [[]]
    with pytest.raises(WorkerError, match="died"):
        stop.check()


@forks
def test_a_stop_does_not_wait_for_a_worker_that_hangs(failing: Failing) -> None:
    failing.at = 2
    with stop_requests() as stop:
        loading = iter(make_loader(failing, batch_size=2, num_workers=1, shuffle=False, stop=stop))
        assert len(next(loading)) == 1
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        started = time.monotonic()
        assert next(loading) == []
        assert stop.requested
        assert next(loading, None) is None
        assert time.monotonic() - started < 15
    assert not multiprocessing.active_children()
    with stop_requests() as stop:
        loader = make_loader(failing, batch_size=2, num_workers=1, shuffle=False, stop=stop)
        stop.requested = True
        assert list(loader) == [[]]


@forks
def test_a_stop_after_the_last_batch_adds_none(records: RecordSet) -> None:
    """Other processes know how many batches there are, and would wait for one that takes part in another step."""
    dataset = clip_dataset(records, clip=SPEC, num_frames=2, train=False)
    with stop_requests() as stop:
        loading = iter(make_loader(dataset, batch_size=12, num_workers=1, shuffle=False, stop=stop))
        assert len(next(loading)) == 1
        stop.requested = True
        assert next(loading, None) is None


@forks
@pytest.mark.parametrize("interrupted", [False, True])
def test_workers_that_hang_are_killed_together(
    failing: Failing, monkeypatch: pytest.MonkeyPatch, interrupted: bool
) -> None:
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 30)  # for each of them
    monkeypatch.setattr(Failing, "at", property(lambda self: (6, 2, 4)[get_worker_info().id]))
    stop = StopRequest()
    loading = iter(make_loader(failing, batch_size=2, num_workers=3, shuffle=False, stop=stop))
    assert len(next(loading)) == 1
    assert len(multiprocessing.active_children()) == 3
    stop.requested = True
    assert next(loading) == []
    started = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt), monkeypatch.context() as patched:
        if interrupted:  # by a second Ctrl-C
            patched.setattr(_MultiProcessingDataLoaderIter, "_shutdown_workers", interrupt)
        loading.close()
    assert time.monotonic() - started < 25
    assert not multiprocessing.active_children()


@forks
def test_a_worker_that_cannot_be_killed_holds_up_nothing(failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits for a network disk that is gone ignores even SIGKILL."""
    monkeypatch.setattr(loader_module, "_END_SECONDS", 0.1)
    hangs, stop = multiprocessing.Event(), StopRequest()
    failing.at, failing.fail = 2, lambda: (hangs.set(), time.sleep(600))
    loading = iter(make_loader(failing, batch_size=2, num_workers=1, shuffle=False, stop=stop))
    assert len(next(loading)) == 1
    assert hangs.wait(20)
    stop.requested = True
    with monkeypatch.context() as patched:
        patched.setattr(multiprocessing.process.BaseProcess, "kill", lambda worker: None)
        assert next(loading) == []
        loading.close()
    (worker,) = multiprocessing.active_children()
    worker.kill()
    worker.join()


@forks
def test_a_death_noticed_while_another_loader_waits_is_not_blamed_on_its_videos(
    records: RecordSet, failing: Failing
) -> None:
    step_begins = multiprocessing.Event()
    failing.at, failing.fail = 2, lambda: (step_begins.wait(), os.kill(os.getpid(), signal.SIGKILL))
    epoch = iter(make_loader(failing, batch_size=2, num_workers=1, shuffle=False))
    next(epoch)
    slow = Failing(records, failing.recipe, train=False)
    slow.at, slow.fail = 0, lambda: (step_begins.set(), time.sleep(600))
    with pytest.raises(WorkerError, match=r"died .DataLoader worker .* is killed by signal: Killed") as error:
        next(iter(make_loader(slow, batch_size=2, num_workers=1, shuffle=False)))
    assert "last video" not in str(error.value)
    with pytest.raises(WorkerError) as error:
        next(epoch)
    assert last_video(records, 2) in str(error.value)


@forks
def test_a_loader_that_another_thread_closes_leaves_the_next_one_working(records: RecordSet, failing: Failing) -> None:
    failing.at = -1
    left = [iter(make_loader(failing, batch_size=2, num_workers=1, shuffle=False))]
    next(left[0])
    thread = threading.Thread(target=left.clear)
    thread.start()
    thread.join()
    for _ in range(2):
        failing.at, failing.fail = 2, lambda: os.kill(os.getpid(), signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"died .SIGKILL"):
            list(make_loader(failing, batch_size=2, num_workers=1, shuffle=False))
    assert signal.getsignal(signal.SIGCHLD).__module__ == "torch.utils.data._utils.signal_handling"


@forks
def test_workers_of_a_later_epoch_do_not_index_files_again(
    records: RecordSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_from_table, log = pyav_reader.index_from_table, tmp_path / "indexed"

    def noted(path, container):
        with log.open("a") as file:
            file.write(f"{path}\n")
        return index_from_table(path, container)

    monkeypatch.setattr(pyav_reader, "index_from_table", noted)
    CACHE.clear()
    dataset = clip_dataset(records, clip=SPEC, num_frames=4, train=True)
    for epoch in range(3):
        assert all(make_loader(dataset, batch_size=2, num_workers=2, epoch=epoch, shuffle=True))
    paths = log.read_text().split()
    assert sorted(paths) == sorted({str(record.path) for record in records.records})
    # What the thread does that copies batches to pinned memory, with a GPU.
    CACHE.clear()
    assert dataset[0]
    CACHE.add(pin_memory(CACHE.take_new()))
