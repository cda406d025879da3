import os
import signal
import threading

import pytest

from vsn.system.interrupt import stop_requests


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
