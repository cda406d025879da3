"""Answer a request from end to end: admit, receive, decode, predict, respond, and clean up."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from vsn.config import ServeConfig, WindowConfig
from vsn.data.video.jpeg import encode_jpeg
from vsn.scores.segments import Segment
from vsn.serve import schemas
from vsn.serve.batching import Batcher
from vsn.serve.decoding import JPEG_QUALITY, Decoded, DecodeJob, decode_upload
from vsn.serve.keys import CLIENT
from vsn.serve.metrics import DECODE_FAILURES, Metrics
from vsn.serve.models import Clip, Logits, ServedModel
from vsn.serve.pool import DecodePool
from vsn.serve.problems import Problem
from vsn.serve.uploads import UploadFolder, receive_video, shown_bytes
from vsn.stream.file_windows import FileWindows
from vsn.stream.labels import WindowPrediction
from vsn.stream.plan import trained_seconds
from vsn.stream.timeline import scored_timeline
from vsn.system.pool import WorkerFailure

log = logging.getLogger("vsn.serve")
Outcome = TypeVar("Outcome")
STILL = "The file has one frame, a still picture: motion and the order of frames cannot be judged."


@dataclass(frozen=True, kw_only=True)
class _Running:
    """What exists only between `Service.open` and `Service.close`."""

    uploads: UploadFolder
    pool: DecodePool[DecodeJob, Decoded | Problem]
    batcher: Batcher[Clip, Logits]
    memory_slots: asyncio.Semaphore
    """Decoded clips wait in memory: no more than the model takes soon."""
    window_slots: asyncio.Semaphore
    """Timelines have tens of clips: no more than are decoded, and one that is computed."""
    limits: ServeConfig
    """The configuration with `window_seconds` filled in."""


@dataclass(frozen=True)
class _Upload:
    """A received video."""

    path: Path
    num_bytes: int
    progress: schemas.Progress


class Service:
    """A model, the processes that decode videos for it, and the requests in progress.

    Args:
        model: the model; between `open` and `close` only the service uses it.
        config: the limits.
        decode: what worker processes do with a file; tests pass one that fails.
        uploads: parent of the private folder; default the folder of the system for temporary files.
    """

    def __init__(
        self,
        model: ServedModel,
        config: ServeConfig,
        *,
        decode: Callable[[DecodeJob], Decoded | Problem] = decode_upload,
        uploads: Path | None = None,
    ) -> None:
        self.model, self.config = model, config
        self.metrics = Metrics(max_batch=config.max_batch)
        self._decode, self._uploads_parent = decode, uploads
        self._num_requests = 0
        self._is_refusing = False
        self._stop = asyncio.Event()
        self._progress: dict[str, schemas.Progress] = {}
        self._opened: _Running | None = None

        def gauge(name: str, text: str, value: Callable[[_Running], float]) -> None:
            self.metrics.add_gauge(name, text, lambda: value(self._opened) if self._opened else 0)

        gauge("vsn_model_queue_length", "Clips that wait for the model", lambda running: running.batcher.num_waiting)
        gauge("vsn_decode_queue_length", "Videos that wait for a decoder", lambda running: running.pool.num_waiting)
        gauge(
            "vsn_model_busy_seconds",
            "Time that the running batch has taken; also of clients that have left",
            lambda running: running.batcher.busy_seconds,
        )
        gauge("vsn_decoders_ready", "Decoding processes", lambda running: running.pool.num_ready)
        gauge(
            "vsn_decoders_busy",
            "Processes that decode a video; also of clients that have left",
            lambda running: running.pool.num_busy,
        )
        gauge("vsn_upload_files", "Uploads on disk", lambda running: running.uploads.num_files)

    def open(self) -> None:
        """Start the processes and the thread of the model; create the folder for uploads."""
        config = self.config
        self._opened = _Running(
            uploads=UploadFolder(self._uploads_parent),
            pool=DecodePool(
                self._decode,
                num_workers=config.decode_workers,
                seconds_limit=config.decode_seconds,
                memory_limit=1e6 * config.decode_memory_mb,
                preload=decode_upload.__module__,
            ),
            batcher=Batcher(
                self.model.score,
                max_batch=config.max_batch,
                wait_ms=config.batch_wait_ms,
                on_batch=self.metrics.batch_clips.observe,
            ),
            memory_slots=asyncio.Semaphore(config.decode_workers + config.max_batch),
            window_slots=asyncio.Semaphore(config.decode_workers + 1),
            # Here, once: probing the training videos takes seconds.
            limits=replace(
                config,
                window_seconds=config.window_seconds
                or trained_seconds(self.model.recipe, recorded=self.model.predictor.training_seconds),
            ),
        )

    def close(self) -> None:
        """End what `open` started and delete the uploads. A second call does nothing."""
        # First of all no new jobs; then the order in which a request uses the parts.
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.pool.close()
            opened.batcher.close()
            opened.uploads.close()

    def refuse_requests(self) -> None:
        """Refuse new requests; those in progress go on."""
        self._is_refusing = True

    def stop_requests(self) -> None:
        """Answer the requests in progress with a `Problem` (503). For the thread of the event loop."""
        self._stop.set()

    def why_not_ready(self) -> str:
        """Return why a request would not be answered now; "" if it would."""
        opened = self._opened
        if opened is None or self._is_refusing:
            return "the service is starting or stopping"
        if self._num_requests >= self.config.max_requests:
            return f"all {self.config.max_requests} requests at once are taken (max_requests)"
        limit = self.config.predict_seconds
        if opened.batcher.busy_seconds > limit:
            return f"the model has computed one batch for more than {limit:g} s (predict_seconds)"
        return "" if opened.pool.num_ready else "no decoding process has started yet"

    def progress(self, request_id: str) -> schemas.Progress:
        """Return the progress of the request with this X-Request-Id."""
        return self._progress.get(request_id) or schemas.Progress(stage="unknown")

    async def predict(
        self, request: Request, request_id: str, *, top_k: int, frames: bool, timeline: bool
    ) -> schemas.Prediction:
        """Label the video in the body of a request. Raises `Problem` or `ClientDisconnect`."""
        model, start = self.model, time.perf_counter()

        async def respond(upload: _Upload) -> schemas.Prediction:
            received = time.perf_counter()
            async with self._decoded(upload.path, frames=frames, timeline=timeline) as video:
                decoded = time.perf_counter()
                windows = video.windows
                clips = [video.clip, *(windows.clips if windows else ())]
                async with self._model_time():
                    logits, *window_logits = await self._scores(clips, upload.progress)
            end = time.perf_counter()
            return schemas.Prediction(
                predictions=[
                    schemas.LabelProbability(label=label, probability=probability)
                    for label, probability in model.top(logits, top_k)
                ],
                protocol=model.recipe.eval.protocol,
                num_frames=model.recipe.model.num_frames,
                video=schemas.VideoInfo(num_bytes=upload.num_bytes, seconds=video.seconds, **asdict(video.info)),
                note=STILL if video.info.num_frames == 1 else "",
                timing=schemas.Timing(
                    upload_ms=round(1000 * (received - start), 2),
                    decode_ms=round(1000 * (decoded - received), 2),
                    predict_ms=round(1000 * (end - decoded), 2),
                    total_ms=round(1000 * (end - start), 2),
                ),
                frames=_data_urls(video.jpegs),
                timeline=make_timeline(windows, window_logits, classes=model.classes, top_k=top_k) if windows else None,
            )

        return await self._handle(request, request_id, respond)

    async def explain(self, request: Request, request_id: str, *, label: str) -> schemas.HeatMaps:
        """Draw heat maps of a class, or of the most probable one. Raises `Problem` or `ClientDisconnect`."""
        model = self.model
        # Before the upload, so that nobody sends a large file in vain.
        model.check_heat_maps()
        target = model.index_of(label) if label else None

        async def respond(upload: _Upload) -> schemas.HeatMaps:
            async with self._decoded(upload.path, frames=True, timeline=False) as video, self._model_time():
                (logits,) = await self._scores([video.clip], upload.progress)
                index = int(logits.argmax()) if target is None else target
                # Grad-CAM needs gradients of the model: in its thread, between batches.
                heat_maps = await _result(self._running().batcher.call(lambda: model.heat_maps(video.clip, index)))
            name = model.classes[index]
            return schemas.HeatMaps(
                label=name,
                probability=dict(model.top(logits, len(model.classes)))[name],
                frames=_data_urls(video.jpegs),
                heat_maps=_data_urls([encode_jpeg(frame, quality=JPEG_QUALITY) for frame in heat_maps]),
            )

        return await self._handle(request, request_id, respond)

    def _running(self) -> _Running:
        if self._opened is None:
            raise _stopping()
        return self._opened

    async def _handle(
        self, request: Request, request_id: str, respond: Callable[[_Upload], Coroutine[Any, Any, Outcome]]
    ) -> Outcome:
        """Admit a request, write its video to a file, respond unless the client leaves, and delete the file."""
        running, config = self._running(), self.config
        if self._is_refusing:
            raise _stopping()
        if self._num_requests >= config.max_requests:
            limit = f"It takes {config.max_requests} videos at once (max_requests)."
            raise Problem("busy", "The service is at its limit.", limit=limit)
        # No await between check and count: tasks of one event loop cannot interleave here.
        self._num_requests += 1
        self.metrics.in_progress.set(self._num_requests)
        progress = schemas.Progress(stage="upload")
        # Clients choose the id; bounded, it cannot fill memory.
        request_id = request_id[:64]
        if request_id:
            self._progress[request_id] = progress

        async def receive_and_respond() -> Outcome:
            with running.uploads.file() as path:
                with self._timed("upload"):
                    num_bytes = await receive_video(
                        request.stream(),
                        path,
                        content_type=request.headers.get("content-type", ""),
                        content_length=request.headers.get("content-length", ""),
                        max_bytes=config.max_upload_bytes,
                        max_seconds=config.upload_seconds,
                    )
                progress.stage = "decode"
                return await while_connected(request, respond(_Upload(path, num_bytes, progress)))

        try:
            return await self._until_stopped(receive_and_respond())
        finally:
            # Runs on every way out: response, problem, disconnect, shutdown. So does the deletion of the file.
            self._progress.pop(request_id, None)
            self._num_requests -= 1
            self.metrics.in_progress.set(self._num_requests)

    async def _until_stopped(self, work: Coroutine[Any, Any, Outcome]) -> Outcome:
        """Run `work` until `stop_requests`: then cancel it and raise `Problem` (503)."""
        working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise _stopping()
        finally:
            working.cancel()
            stopping.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _decoded(self, path: Path, *, frames: bool, timeline: bool) -> AsyncIterator[Decoded]:
        """Decode a file; its clips hold a memory slot until the end of the block."""
        running, model = self._running(), self.model
        job = DecodeJob(
            path=path,
            recipe=model.recipe,
            limits=running.limits,
            frames=frames,
            timeline=timeline and model.card.timelines,
        )
        # Waiting for a slot is not part of the time limit, which starts in the worker process.
        async with contextlib.AsyncExitStack() as window_slot, contextlib.AsyncExitStack() as memory_slot:
            # This one first: those that wait for it must not keep others out.
            if job.timeline:
                await window_slot.enter_async_context(running.window_slots)
            await memory_slot.enter_async_context(running.memory_slots)
            with self._timed("decode"):
                outcome = await _result(running.pool.submit(job))
                # The file may be fine. If it is what takes the memory, it does so twice.
                if isinstance(outcome, WorkerFailure) and outcome.killed and self._opened is not None:
                    outcome = await _result(running.pool.submit(job))
            if isinstance(outcome, WorkerFailure):
                log.warning("An upload of %s was not decoded: %s", CLIENT.get(), outcome.reason)
                seconds = f"{self.config.decode_seconds:g} s"
                if self._opened is None:
                    outcome = _stopping()
                elif outcome.timed_out:
                    received = f"Decoding the video took over {seconds} and was stopped."
                    outcome = Problem("decode_timeout", received, limit=f"The limit is {seconds}.")
                elif outcome.over_memory:
                    memory = shown_bytes(1e6 * self.config.decode_memory_mb)
                    received = f"Decoding the video took over {memory} of memory and was stopped."
                    outcome = Problem("decode_memory", received, limit=f"The limit is {memory}.")
                elif outcome.killed:
                    outcome = Problem("decoder_killed", f"Decoding the video was interrupted: {outcome.reason}.")
                else:
                    # The text of an exception is for the log only: it may name paths of the server.
                    reason = outcome.reason if outcome.died else "an unexpected error"
                    outcome = Problem("decoder_crashed", f"Decoding the video failed: {reason}.")
            if isinstance(outcome, Problem):
                if outcome.code in DECODE_FAILURES:
                    self.metrics.decode_failures.labels(outcome.code).inc()
                raise outcome
            if outcome.windows is None:
                await window_slot.aclose()
            yield outcome

    @contextlib.asynccontextmanager
    async def _model_time(self) -> AsyncIterator[None]:
        """Raise `Problem` (504) when the block takes longer than a request may; its clips then leave the queue."""
        seconds = self.config.predict_seconds
        try:
            async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                yield
        except TimeoutError:
            raise Problem(
                "predict_timeout",
                f"The model, with the requests before this one, took over {seconds:g} s.",
                limit=f"The limit is {seconds:g} s.",
            ) from None

    async def _scores(self, clips: Sequence[Clip], progress: schemas.Progress) -> list[Logits]:
        """Return the logits of each clip, in order."""
        batcher = self._running().batcher
        progress.stage, progress.total = "predict", len(clips)

        # All clips at once, so that they can share batches.
        with self._timed("predict"):
            futures = [batcher.submit(clip) for clip in clips]
            logits: list[Logits] = []
            try:
                for future in futures:
                    logits.append(await _result(future))
                    progress.done += 1
            finally:
                # After an error, or when the client has left, the other clips need not be computed.
                for future in futures:
                    future.cancel()
            return logits

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.metrics.stage_seconds.labels(stage).observe(time.perf_counter() - start)


def make_timeline(
    windows: FileWindows, logits: Sequence[Logits], *, classes: Sequence[str], top_k: int
) -> schemas.Timeline | None:
    """Return the timeline of `vsn predict --windows` from the logits of windows; None for a video shorter than one."""
    if not windows.numbers:
        return None
    timeline = scored_timeline("", windows, logits, classes=classes, config=WindowConfig())
    return schemas.Timeline(
        seconds=timeline.seconds,
        parts=list(timeline.parts),
        window_seconds=timeline.window_seconds,
        every_seconds=timeline.every,
        segments=[
            schemas.TimelineSegment(**_interval(segment), probability=segment.score or 0.0)
            for segment in timeline.segments
        ],
        windows=[
            schemas.TimelineWindow(
                **_interval(window),
                probability=window.probability,
                predictions=[
                    schemas.LabelProbability(label=classes[i], probability=float(window.smoothed[i]))
                    for i in window.smoothed.argsort()[::-1][:top_k]
                ],
            )
            for window in timeline.predictions
        ],
    )


def _interval(part: Segment | WindowPrediction) -> dict[str, Any]:
    return {"start_seconds": part.start, "end_seconds": part.end, "label": part.label}


async def while_connected(request: Request, work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run `work` until the client disconnects: then cancel it and raise `ClientDisconnect`.

    The body must have been read: from then on the next message of the client is its disconnect.
    """

    async def disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(disconnect())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _result(future: Future[Outcome]) -> Outcome:
    """Await a future of the pool or the batcher, which they cancel when the service stops (`Problem`)."""
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        # A client that leaves cancels this task, and through it the future: that is no problem of the service.
        task = asyncio.current_task()
        if future.cancelled() and not (task is not None and task.cancelling()):
            raise _stopping() from None
        raise


def _stopping() -> Problem:
    return Problem("stopping", "The service is stopping.")


def _data_urls(jpegs: Sequence[bytes]) -> list[str]:
    return ["data:image/jpeg;base64," + base64.b64encode(jpeg).decode() for jpeg in jpegs]
