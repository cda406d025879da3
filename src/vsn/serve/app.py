"""Define the HTTP routes over `Service`, and the JSON of every error."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from difflib import get_close_matches
from importlib.resources import files
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from vsn.config.distribution import installed_version
from vsn.serve.decoding import max_model_pixels
from vsn.serve.guards import NO_KEY_NEEDED, NO_RESPONSE, Guards, problem_response
from vsn.serve.keys import read_keys
from vsn.serve.problems import KINDS, MEDIA_TYPE, Problem
from vsn.serve.schemas import Card, Error, Health, HeatMaps, Prediction, Progress
from vsn.serve.service import Service

PAGE = {
    "/": ("serve.html", "text/html"),
    "/serve.css": ("serve.css", "text/css"),
    "/serve.js": ("serve.js", "text/javascript"),
    "/parts.js": ("parts.js", "text/javascript"),
    "/favicon.svg": ("serve.svg", "image/svg+xml"),
}
UPLOAD_PATHS = ("/v1/predict", "/v1/explain")
_LIMITS = (
    "max_upload_mb",
    "max_seconds",
    "max_pixels",
    "max_model_pixels",
    "max_requests",
    "predict_seconds",
    "timeline_seconds",
)

# The routes read the body themselves, as it arrives: a parameter of type UploadFile would store all of it first.
# So the body is declared for OpenAPI here.
_VIDEO = {"type": "string", "format": "binary", "description": "a video file of any kind that FFmpeg reads"}
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["video"], "properties": {"video": _VIDEO}}
            }
        },
    }
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": text}
    for status, text in {
        408: "the upload took too long",
        413: "the upload is too large",
        415: "not a form, or not a video",
        422: "an invalid setting, form or video: too long, too large, damaged",
        503: "too many requests at once, a decoder that was killed, or the service is stopping; see Retry-After",
        504: "decoding the video, or the model, took too long",
        507: "the service cannot store the upload",
    }.items()
}
RequestId = Annotated[
    str, Header(alias="X-Request-Id", description="a name under which /v1/progress reports on this request")
]


def create_app(service: Service) -> FastAPI:
    """Return the service as an ASGI application, which opens the service at startup and closes it at shutdown."""
    model, config = service.model, service.config
    keys = read_keys(config.api_key_file) if config.api_key_file else None
    limits = replace(config, max_model_pixels=max_model_pixels(config, model.recipe))

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
        summary=f"Video classification by {model.card.name}",
        lifespan=lifespan,
        # FastAPI's documentation pages load scripts from a CDN, which the content security policy forbids.
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
        # Redirects would name the host of the request, which behind a proxy is that of the service itself.
        redirect_slashes=False,
        servers=[{"url": config.public_url.rstrip("/")}] if config.public_url else None,
        dependencies=[Depends(_check_query)],
    )

    @app.post("/v1/predict", responses=_ERRORS, openapi_extra=_FORM)
    async def predict(
        request: Request,
        request_id: RequestId = "",
        top_k: Annotated[int, Query(ge=1, description="number of labels; at most all")] = config.top_k,
        frames: Annotated[bool, Query(description="return the sampled frames too")] = False,
        timeline: Annotated[
            bool, Query(description="return labels over time, for a video longer than timeline_seconds of /v1/model")
        ] = False,
    ) -> Prediction:
        """Label a video, with the preprocessing, labels and probabilities of `vsn predict`."""
        return await service.predict(request, request_id, top_k=top_k, frames=frames, timeline=timeline)

    @app.post("/v1/explain", responses=_ERRORS, openapi_extra=_FORM)
    async def explain(
        request: Request,
        request_id: RequestId = "",
        label: Annotated[str, Query(description="a class; default the most probable one")] = "",
    ) -> HeatMaps:
        """Show where in each sampled frame the score of a class comes from (Grad-CAM)."""
        return await service.explain(request, request_id, label=label)

    @app.get("/v1/progress/{request_id}")
    async def progress(request_id: str) -> Progress:
        """Return the progress of the request with this X-Request-Id."""
        return service.progress(request_id)

    @app.get("/v1/model", response_model_exclude_none=True)
    async def card() -> Card:
        """Return the model card: classes, preprocessing, measured accuracy; and the limits of the service."""
        return model.card.model_copy(update={"limits": {key: getattr(limits, key) for key in _LIMITS}})

    @app.get("/healthz")
    async def healthz() -> Health:
        """Return whether the process responds."""
        return Health(status="ok")

    @app.get("/readyz", responses={503: {"model": Health, "description": "not yet, or no longer"}})
    async def readyz(response: Response) -> Health:
        """Return whether a video would be processed now."""
        reason = service.why_not_ready()
        response.status_code = 503 if reason else 200
        return Health(status="not ready" if reason else "ready", reason=reason)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    # One route per file of the page: a mounted folder would also serve the files of reports.
    for path, (name, media_type) in PAGE.items():
        app.add_api_route(path, _static_file(name, media_type), methods=["GET"], include_in_schema=False)
    _add_error_handlers(app)
    if keys is not None:
        _describe_keys(app.openapi())
    _describe_errors(app.openapi())
    app.add_middleware(
        Guards,
        metrics=service.metrics,
        paths=[*PAGE, *app.openapi()["paths"], "/metrics", "/openapi.json"],
        config=config,
        keys=keys,
    )
    return app


def _check_query(request: Request) -> None:
    """Refuse parameters that a route does not have: a setting with a typing error would be ignored in silence."""
    route = request.scope.get("route")
    # Links to the page carry parameters of other programs.
    if not isinstance(route, APIRoute) or not route.include_in_schema:
        return
    known = [parameter.alias for parameter in route.dependant.query_params]
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            hint = f"Did you mean {nearest[0]!r}?" if nearest else "Leave it out."
            expected = f"Expected {', '.join(known) or 'none'}."
            raise Problem("bad_setting", f"The parameter {name[:80]!r} is unknown.", limit=expected, hint=hint)
        if names.count(name) > 1:
            raise Problem("bad_setting", f"The parameter {name} is set {names.count(name)} times.", hint="Set it once.")


def _static_file(name: str, media_type: str) -> Callable[[], Awaitable[Response]]:
    # Read once, at startup: a missing file then fails there.
    content = files("vsn").joinpath("static", name).read_bytes()

    async def respond() -> Response:
        return Response(content, media_type=media_type)

    return respond


def _describe_keys(api: dict[str, Any]) -> None:
    """Declare that every route but the probes needs a key."""
    text = "a key of the file that --api-key-file names"
    api["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": text},
        "basic": {"type": "http", "scheme": "basic", "description": f"any user; as password {text}"},
    }
    api["security"] = [{"bearer": []}, {"basic": []}]
    for path, operations in api["paths"].items():
        for operation in operations.values():
            if path in NO_KEY_NEEDED:
                operation["security"] = []
            else:
                schema = {"$ref": "#/components/schemas/Error"}
                content = {"application/json": {"schema": schema}}
                operation["responses"]["401"] = {"description": "no valid key", "content": content}


def _describe_errors(api: dict[str, Any]) -> None:
    """Give every error of the schema its media type and an example; FastAPI describes all JSON as application/json."""
    for path in api["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                codes = [code for code, kind in KINDS.items() if str(kind.status) == status]
                # A probe that is not ready responds with its usual JSON.
                if "/Error" in str(response.get("content")) and codes:
                    schema = response["content"]["application/json"]["schema"]
                    example = Problem(codes[0], "What was received.").body()
                    response["content"] = {MEDIA_TYPE: {"schema": schema, "example": example}}


def _add_error_handlers(app: FastAPI) -> None:
    """Give every error, also those of FastAPI and Starlette, the same JSON."""

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> Response:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    async def bad_setting(request: Request, error: RequestValidationError) -> Response:
        # The first error is enough: fixing it shows the next.
        first = error.errors()[0]
        name, value = first["loc"][-1], str(first.get("input"))[:80]
        return await problem(
            request, Problem("bad_setting", f"{name} is {value!r}: {first['msg']}.", hint=f"Change {name}.")
        )

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        # Truncated: a client chooses method and path, and both go into the response.
        received = f"{request.method[:16]} {request.url.path[:80]!r}: {error.detail}."
        response = problem_response(Problem("http", received, status=error.status_code))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(ClientDisconnect)
    async def disconnected(_: Request, error: ClientDisconnect) -> Response:
        # Only for the counters: there is no client to read it.
        return Response(status_code=NO_RESPONSE)
