"""The routes: a thin layer of HTTP over `Service`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from vsn.serve.answers import Answer, Card, Error, Health, HeatMaps, State
from vsn.serve.guards import LOOPBACK, Guards, is_loopback
from vsn.serve.problems import Problem
from vsn.serve.service import Service
from vsn.system.version import installed_version

log = logging.getLogger("vsn.serve")

PAGE = {"/": ("serve.html", "text/html"), "/serve.css": ("serve.css", "text/css")}
PAGE |= {"/serve.js": ("serve.js", "text/javascript"), "/favicon.svg": ("serve.svg", "image/svg+xml")}

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["video"],
                    "properties": {
                        "video": {
                            "type": "string",
                            "format": "binary",
                            "description": "a video file of any kind that FFmpeg reads",
                        }
                    },
                }
            }
        },
    },
    "parameters": [
        {
            "name": "X-Request-Id",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "maxLength": 64},
            "description": "a name of your choice, under which /v1/progress tells how far the request is",
        }
    ],
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": text}
    for status, text in {
        408: "the upload took too long",
        413: "the upload is too large",
        415: "no form, or no video",
        422: "a setting, a form or a video that cannot be used: too long, too large, damaged",
        503: "too many requests at once, or the service is stopping; Retry-After says when to come again",
        504: "reading the video took too long",
    }.items()
}


def create_app(service: Service) -> FastAPI:
    """The service as an ASGI application; it opens the service when it starts and closes it when it ends."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.open()
        try:
            yield
        finally:
            service.close()

    app = FastAPI(
        title="vsn",
        version=installed_version(),
        summary=f"What happens in a video, by {service.model.card['name']}",
        lifespan=lifespan,
        docs_url=None,  # pages that load their script from elsewhere
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    _add_predictions(app, service)
    _add_facts(app, service)
    _add_page(app)
    _add_problems(app)
    config = service.config
    app.add_middleware(
        Guards,
        metrics=service.metrics,
        paths=[*PAGE, *app.openapi()["paths"], "/metrics", "/openapi.json"],
        hosts=[*LOOPBACK, config.host] if is_loopback(config.host) else [],
    )
    return app


def _add_predictions(app: FastAPI, service: Service) -> None:
    config = service.config

    @app.post("/v1/predict", responses=_ERRORS, openapi_extra=_FORM)
    async def predict(
        request: Request,
        top_k: Annotated[int, Query(ge=1, description="how many labels; at most all")] = config.top_k,
        frames: Annotated[bool, Query(description="send the sampled frames too")] = False,
        timeline: Annotated[
            bool,
            Query(description="of a video longer than the timeline_seconds of /v1/model: what holds when, too"),
        ] = False,
    ) -> Answer:
        """Label a video: the same preprocessing, labels and probabilities as `vsn predict`."""
        return await service.predict(request, top_k=top_k, frames=frames, timeline=timeline)

    @app.post("/v1/explain", responses=_ERRORS, openapi_extra=_FORM)
    async def explain(
        request: Request,
        label: Annotated[str, Query(description="a class; default the most probable one")] = "",
    ) -> HeatMaps:
        """Where in each sampled frame the score of a class comes from (Grad-CAM)."""
        return await service.explain(request, label=label)

    @app.get("/v1/progress/{request_id}")
    async def progress(request_id: str) -> State:
        """How far the request with this X-Request-Id is."""
        return service.state(request_id)


def _add_facts(app: FastAPI, service: Service) -> None:
    model, config = service.model, service.config

    @app.get("/v1/model")
    async def card() -> Card:
        """The model: classes, preprocessing, what was measured of it; and the limits of the service."""
        limits = {
            key: getattr(config, key)
            for key in ("max_upload_mb", "max_seconds", "max_pixels", "max_requests", "timeline_seconds")
        }
        heat_maps = model.predictor is not None and model.recipe.model.modality == "rgb"
        return Card(**model.card, heat_maps=heat_maps, timelines=model.has_windows, limits=limits)

    @app.get("/healthz")
    async def healthz() -> Health:
        """Whether the process answers."""
        return Health(status="ok")

    @app.get("/readyz", responses={503: {"model": Health, "description": "not yet, or no longer"}})
    async def readyz(response: Response) -> Health:
        """Whether a video would be answered now."""
        reason = service.why_not_ready()
        response.status_code = 503 if reason else 200
        return Health(status="not ready" if reason else "ready", reason=reason)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI) -> None:
    for path, (name, kind) in PAGE.items():
        app.add_api_route(path, _file(name, kind), methods=["GET"], include_in_schema=False)


def _file(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    content = files("vsn").joinpath("static", name).read_bytes()

    async def answer() -> Response:
        return Response(content, media_type=kind)

    return answer


def _add_problems(app: FastAPI) -> None:
    """Every error in one form."""

    def answer(problem: Problem) -> JSONResponse:
        return JSONResponse(problem.body(), problem.status, headers=problem.headers)

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> Response:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def bad_setting(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = str(first["loc"][-1])
        came = f"{name} is {str(first.get('input'))[:80]!r}: {first['msg']}."
        return answer(
            Problem(422, "bad_setting", came=came, allowed="/openapi.json says what is.", advice="Change it.")
        )

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        came = f"{request.method[:16]} {request.url.path[:80]!r}: {error.detail}."
        allowed = "/openapi.json lists what can be asked."
        found = Problem(error.status_code, "http", came=came, allowed=allowed, advice="Check the address.")
        return JSONResponse(found.body(), error.status_code, headers=error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # for the counters: nobody reads it

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        log.error("A request failed", exc_info=error)
        return answer(
            Problem(
                500,
                "internal",
                came="The service failed at this request.",
                allowed="This should not happen.",
                advice="Its log says more.",
            )
        )
