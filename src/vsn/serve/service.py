"""A request from end to end: admitted, received, decoded, predicted, answered, and nothing of it left behind."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from vsn.config import ServeConfig, WindowConfig
from vsn.data.video.jpeg import encode_jpeg
from vsn.serve.answers import (
    Answer,
    HeatMaps,
    LabelProbability,
    State,
    TimelineFacts,
    TimelineSegment,
    TimelineWindow,
    Timing,
    VideoFacts,
)
from vsn.serve.batching import Batcher
from vsn.serve.decoding import JPEG_QUALITY, Decoded, DecodeJob, decode_upload
from vsn.serve.metrics import DECODE_FAILURES, Metrics
from vsn.serve.models import Clip, Logits, ServedModel
from vsn.serve.pool import DecodePool
from vsn.serve.problems import Problem, busy, decoder_lost, decoder_too_slow, stopping
from vsn.serve.uploads import UploadFolder, receive_video
from vsn.stream.frames import FileWindows, trained_seconds
from vsn.stream.timeline import scored_timeline
from vsn.system.workers import WorkerFailure

log = logging.getLogger("vsn.serve")
Outcome = TypeVar("Outcome")


class Service:
    """A model, the processes that read videos for it, and what is under way.

    Args:
        model: what is served; from `open` to `close` only the service uses it.
        config: the limits.
        decode: what the processes do with a file; another one is for tests.
        uploads: where the private folder is made; default the system's for temporary files.
    """

    def __init__(
        self,
        model: ServedModel,
        config: ServeConfig,
        *,
        decode: Callable[[DecodeJob], Decoded | Problem] = decode_upload,
        uploads: Path | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self.metrics = Metrics(max_batch=config.max_batch)
        self._decode = decode
        self._uploads_parent = uploads
        self._num_requests = 0
        self._states: dict[str, State] = {}
        self._opened: _Opened | None = None
        watch = self.metrics.watch
        watch("vsn_model_queue_length", "Clips that wait for the model", lambda: self._count("model"))
        watch("vsn_decode_queue_length", "Videos that wait for a decoder", lambda: self._count("decode"))
        watch("vsn_decoders_ready", "Processes that read videos", lambda: self._count("ready"))
        watch("vsn_upload_files", "Uploads on disk", lambda: self._count("files"))

    def open(self) -> None:
        """Start the processes and the thread of the model; make the folder for uploads."""
        config = self.config
        self._opened = _Opened(
            UploadFolder(self._uploads_parent),
            DecodePool(
                self._decode,
                num_workers=config.decode_workers,
                seconds_limit=config.decode_seconds,
                preload=decode_upload.__module__,
            ),
            Batcher(
                self.model.score,
                max_batch=config.max_batch,
                wait_ms=config.batch_wait_ms,
                on_batch=self.metrics.batch_clips.observe,
            ),
            # Decoded clips lie in memory: no more of them than the model takes soon.
            asyncio.Semaphore(config.decode_workers + config.max_batch),
            config.window_seconds or trained_seconds(self.model.recipe),
        )

    def close(self) -> None:
        """End what `open` started, delete what was uploaded. A second time does nothing."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.pool.close()
            opened.batcher.close()
            opened.uploads.close()

    def why_not_ready(self) -> str:
        """Why a request would not be answered now; empty when it would."""
        opened = self._opened
        if opened is None:
            return "the service is starting or stopping"
        if not opened.batcher.is_alive:
            return "the thread of the model has ended"
        return "" if opened.pool.num_ready else "no process that reads videos is there yet"

    def state(self, request_id: str) -> State:
        """How far a prediction is that came with this X-Request-Id."""
        return self._states.get(request_id) or State(stage="unknown", done=0, of=0)

    async def predict(self, request: Request, *, top_k: int, frames: bool, timeline: bool) -> Answer:
        """The labels of the video in a request. Raises `Problem`, or `ClientDisconnect`."""
        start = time.perf_counter()
        async with self._received(request) as (path, num_bytes, state):
            received = time.perf_counter()

            async def work() -> Answer:
                async with self._decoded(path, frames=frames, timeline=timeline) as decoded:
                    decoded_at = time.perf_counter()
                    clips = decoded.windows.clips if decoded.windows else ()
                    scores = await self._scores([decoded.clip, *clips], state)
                now = time.perf_counter()
                seconds = (received - start, decoded_at - received, now - decoded_at, now - start)
                return self._answer(decoded, scores, num_bytes, seconds, top_k=top_k)

            return await while_connected(request, work())

    async def explain(self, request: Request, *, label: str) -> HeatMaps:
        """Heat maps of a class, or of the most probable one. Raises `Problem`, or `ClientDisconnect`."""
        model = self.model
        model.check_heat_maps()
        target = model.index_of(label) if label else None
        async with self._received(request) as (path, _, state):

            async def work() -> HeatMaps:
                async with self._decoded(path, frames=True, timeline=False) as decoded:
                    (logits,) = await self._scores([decoded.clip], state)
                    index = int(logits.argmax()) if target is None else target
                    heat = await self._of_model(lambda: model.heat_maps(decoded.clip, index))
                return HeatMaps(
                    label=model.classes[index],
                    probability=dict(model.top(logits, len(model.classes)))[model.classes[index]],
                    frames=_data_urls(decoded.jpegs),
                    heat_maps=_data_urls([encode_jpeg(frame, quality=JPEG_QUALITY) for frame in heat]),
                )

            return await while_connected(request, work())

    @contextlib.asynccontextmanager
    async def _received(self, request: Request) -> AsyncIterator[tuple[Path, int, State]]:
        """A place among those taken at once, and the video of the request in a file that goes with the block."""
        opened = self._opened
        if opened is None or self._num_requests >= self.config.max_requests:
            raise stopping() if opened is None else busy(self.config.max_requests)
        self._num_requests += 1
        self.metrics.in_progress.set(self._num_requests)
        request_id = request.headers.get("x-request-id", "")[:64]
        state = State(stage="upload", done=0, of=0)
        if request_id:
            self._states[request_id] = state
        try:
            with opened.uploads.file() as path, self._timed("upload"):
                num_bytes = await receive_video(
                    request.stream(),
                    path,
                    content_type=request.headers.get("content-type", ""),
                    content_length=request.headers.get("content-length", ""),
                    max_bytes=self.config.max_upload_bytes,
                    max_seconds=self.config.upload_seconds,
                )
                state.stage = "decode"
                yield path, num_bytes, state
        finally:
            self._states.pop(request_id, None)
            self._num_requests -= 1
            self.metrics.in_progress.set(self._num_requests)

    @contextlib.asynccontextmanager
    async def _decoded(self, path: Path, *, frames: bool, timeline: bool) -> AsyncIterator[Decoded]:
        """What the model looks at of a file; while the block lasts it counts among the clips in memory."""
        opened, config = self._opened, self.config
        if opened is None:
            raise stopping()
        job = DecodeJob(
            path=path,
            recipe=self.model.recipe,
            classes=self.model.classes,
            max_seconds=config.max_seconds,
            max_pixels=config.max_pixels,
            frames=frames,
            timeline=timeline and self.model.has_windows,
            timeline_seconds=config.timeline_seconds,
            window_seconds=opened.window_seconds,
            max_windows=config.max_windows,
        )
        async with opened.room:
            with self._timed("decode"):
                found = await _result(lambda: opened.pool.submit(job))
            if isinstance(found, WorkerFailure):
                log.warning("An upload was not read: %s", found.reason)
                found = self._lost(found)
            if isinstance(found, Problem):
                if found.code in DECODE_FAILURES:
                    self.metrics.decode_failures.labels(found.code).inc()
                raise found
            yield found

    def _lost(self, lost: WorkerFailure) -> Problem:
        if self._opened is None:
            return stopping()
        if lost.timed_out:
            return decoder_too_slow(self.config.decode_seconds)
        # What an exception says is for the log: it may name places here.
        return decoder_lost(lost.reason if "process died" in lost.reason else "an unexpected error")

    async def _scores(self, clips: Sequence[Clip], state: State) -> list[Logits]:
        """Logits of each clip, in order."""
        opened = self._opened
        if opened is None:
            raise stopping()
        state.stage, state.of = "predict", len(clips)

        async def one(clip: Clip) -> Logits:
            found = await _result(lambda: opened.batcher.submit(clip))
            state.done += 1
            return found

        with self._timed("predict"):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(clip)) for clip in clips]
            return [task.result() for task in tasks]

    async def _of_model(self, work: Callable[[], Any]) -> Any:
        opened = self._opened
        if opened is None:
            raise stopping()
        return await _result(lambda: opened.batcher.call(work))

    def _answer(
        self,
        decoded: Decoded,
        scores: Sequence[Logits],
        num_bytes: int,
        seconds: tuple[float, float, float, float],
        *,
        top_k: int,
    ) -> Answer:
        def top(logits: Logits) -> list[LabelProbability]:
            return [LabelProbability(label=n, probability=p) for n, p in self.model.top(logits, top_k)]

        info, (upload, decode, predict, total) = decoded.info, (round(1000 * part, 2) for part in seconds)
        return Answer(
            predictions=top(scores[0]),
            protocol=self.model.recipe.eval.protocol,
            num_frames=self.model.recipe.model.num_frames,
            video=VideoFacts(
                num_bytes=num_bytes,
                num_frames=info.num_frames,
                frames_per_second=info.frames_per_second,
                seconds=decoded.seconds,
                width=info.width,
                height=info.height,
            ),
            timing=Timing(upload_ms=upload, decode_ms=decode, predict_ms=predict, total_ms=total),
            frames=_data_urls(decoded.jpegs),
            timeline=self.timeline(decoded.windows, scores[1:], top_k=top_k) if decoded.windows else None,
        )

    def timeline(self, windows: FileWindows, scores: Sequence[Logits], *, top_k: int) -> TimelineFacts | None:
        """What `vsn predict --windows` says of a video; None of one that is shorter than a window."""
        if not windows.numbers:
            return None
        classes = self.model.classes
        made = scored_timeline("", windows, scores, classes=classes, config=WindowConfig())
        return TimelineFacts(
            seconds=made.seconds,
            window_seconds=made.window_seconds,
            every_seconds=made.every,
            segments=[
                TimelineSegment(
                    start_seconds=one.start,
                    end_seconds=one.end,
                    label=one.label,
                    probability=one.score or 0.0,
                )
                for one in made.segments
            ],
            windows=[
                TimelineWindow(
                    start_seconds=one.start,
                    end_seconds=one.end,
                    label=one.label,
                    probability=one.probability,
                    predictions=[
                        LabelProbability(label=classes[i], probability=float(one.smoothed[i]))
                        for i in one.smoothed.argsort()[::-1][:top_k]
                    ],
                )
                for one in made.answers
            ],
        )

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.metrics.stage_seconds.labels(stage).observe(time.perf_counter() - start)

    def _count(self, what: str) -> float:
        if self._opened is None:
            return 0
        pool, batcher = self._opened.pool, self._opened.batcher
        return {
            "model": lambda: batcher.num_waiting,
            "decode": lambda: pool.num_waiting,
            "ready": lambda: pool.num_ready,
            "files": lambda: self._opened.uploads.num_files if self._opened else 0,
        }[what]()


class _Opened:
    """What lives from `Service.open` to `Service.close`."""

    def __init__(
        self,
        uploads: UploadFolder,
        pool: DecodePool[DecodeJob, Decoded | Problem],
        batcher: Batcher[Clip, Logits],
        room: asyncio.Semaphore,
        window_seconds: float | None,
    ) -> None:
        self.uploads, self.pool, self.batcher, self.room = uploads, pool, batcher, room
        self.window_seconds = window_seconds


async def while_connected(request: Request, work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Do the work, unless the client goes away first.

    To be called when the body has been read. Raises `ClientDisconnect`.
    """
    working = asyncio.ensure_future(work)
    going = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, going}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        going.cancel()
        await asyncio.gather(working, going, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _result(submit: Callable[[], Future[Outcome]]) -> Outcome:
    """What a thread makes of it; being stopped meanwhile is a `Problem`."""
    try:
        future = submit()
    except RuntimeError:
        raise stopping() from None
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        if future.cancelled() and not _being_cancelled():
            raise stopping() from None
        raise


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _data_urls(jpegs: Sequence[bytes]) -> list[str]:
    return ["data:image/jpeg;base64," + base64.b64encode(one).decode() for one in jpegs]
