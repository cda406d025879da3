import os
import signal
import threading
from pathlib import Path

import pytest

from vsn.config import DataConfig
from vsn.data.embedded import write
from vsn.data.flow import extract
from vsn.data.packing import pack
from vsn.data.per_video import videos_of_folder
from vsn.system.interrupt import Interrupted, child_signals, stop_requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_is_noted_and_the_former_ways_come_back(number: signal.Signals):
    previous = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    with stop_requests() as request:
        assert not request.requested
        os.kill(os.getpid(), number)
        assert request.requested
    assert {one: signal.getsignal(one) for one in previous} == previous


def test_a_second_ctrl_c_stops_at_once():
    with stop_requests() as request:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # as often as it likes
        assert request.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_first_ctrl_c_after_a_failure_is_the_first():
    """It must not interrupt the save that the failure asked for."""
    with stop_requests() as stop:
        stop.fail(ValueError("a worker died"))
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(ValueError, match="a worker died"):
        stop.check()


def test_a_program_that_handles_signals_itself_keeps_its_way():
    seen = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with stop_requests() as request:
            signal.raise_signal(signal.SIGTERM)
        assert (seen, request.requested) == ([signal.SIGTERM], False)
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_threads_get_no_signals():
    found = []

    def work() -> None:
        with stop_requests() as request:
            found.append(request.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


def discarded_interrupt() -> None:
    """Send Ctrl-C where Python discards the exception that it raises."""

    class Deleted:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    Deleted()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_that_python_discards_is_raised_again():
    with stop_requests(raises=True) as stop:
        stop.check()
        discarded_interrupt()
        with pytest.raises(Interrupted):
            stop.check()
    with stop_requests(raises=True), pytest.raises(Interrupted) as raised:
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.exit_status == 143


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("command", ["extract", "synth", "pack"])
def test_long_work_stops_after_the_item_that_discarded_the_signal(
    command: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, options = tmp_path / "out", {"num_workers": 0, "progress": False}
    videos = videos_of_folder(tiny_data)
    module, function, work = {
        "extract": (extract, "_extract", lambda: extract.extract_flow(videos, out, **options)),
        "synth": (write, "_write", lambda: write.write_dataset(out, **options)),
        "pack": (
            pack,
            "write_shard",
            lambda: pack.pack_dataset(DataConfig(root=str(tiny_data)), out, **options),
        ),
    }[command]
    usual, items = getattr(module, function), []

    def interrupted(item: object, **settings: object) -> object:
        items.append(item)
        discarded_interrupt()
        return usual(item, **settings)

    monkeypatch.setattr(module, function, interrupted)
    with pytest.raises(Interrupted):
        work()
    assert len(items) == 1


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="Windows has no SIGCHLD")
def test_signals_of_children_are_held_until_the_process_waits():
    calls: list[int] = []
    handler = lambda number, frame: calls.append(number)  # noqa: E731
    before = signal.signal(signal.SIGCHLD, handler)
    try:
        first, second = child_signals.held(), child_signals.held()
        first.__enter__()
        second.__enter__()
        signal.raise_signal(signal.SIGCHLD)
        assert calls == []
        with child_signals.delivered():
            assert calls == [signal.SIGCHLD]  # the one that was held
            signal.raise_signal(signal.SIGCHLD)
            assert calls == [signal.SIGCHLD] * 2
        with child_signals.delivered():
            assert len(calls) == 2
        first.__exit__(None, None, None)  # not the one that began last
        signal.raise_signal(signal.SIGCHLD)
        assert len(calls) == 2
        second.__exit__(None, None, None)
        assert signal.getsignal(signal.SIGCHLD) is handler
    finally:
        signal.signal(signal.SIGCHLD, before)
