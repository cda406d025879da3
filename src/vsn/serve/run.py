"""`vsn serve`: a model opened, a server started, everything put away at the end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from vsn.config import ConfigError, ServeConfig
from vsn.runs.run import WeightsKind

NO_EXTRA = 'vsn serve needs packages that are not installed ({name}): pip install "vsn[serve]"'


def serve(
    path: Path,
    config: ServeConfig,
    *,
    weights: WeightsKind = "last",
    device: str = "auto",
    console: Console | None = None,
    on_start: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve a run folder or an exported file until Ctrl-C or SIGTERM.

    Args:
        path: what is served.
        config: where, and the limits.
        weights: the last of the run, or those of its best validation.
        device: auto, cpu or cuda.
        console: where to say where it listens.
        on_start: told the URL once the port is taken.

    Raises:
        RunError, ConfigError: the model cannot be opened, the extra is not installed, or the port is taken.
    """
    try:
        import uvicorn

        from vsn.serve.app import create_app
        from vsn.serve.guards import is_loopback
        from vsn.serve.models import open_model
        from vsn.serve.service import Service
    except ModuleNotFoundError as error:
        raise ConfigError(NO_EXTRA.format(name=error.name)) from error
    console = console or Console(stderr=True)
    model = open_model(path, weights=weights, device=device)
    service = Service(model, config)
    settings = uvicorn.Config(
        create_app(service),
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=5,
    )
    with _listen(config) as sock:
        host, port = sock.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        console.print(
            f"{model.card['model']} with {len(model.classes)} classes at {url} (Ctrl-C ends it)",
            highlight=False,
            soft_wrap=True,
        )
        if not is_loopback(config.host):
            console.print(
                f"[yellow]Warning:[/yellow] {config.host} is reached from other machines, and the service asks nobody "
                "who they are. Put a proxy with authentication and TLS before it.",
                highlight=False,
                soft_wrap=True,
            )
        on_start(url)
        try:
            uvicorn.Server(settings).run(sockets=[sock])
        except KeyboardInterrupt:
            console.print("vsn: stopped", highlight=False)
        finally:
            service.close()  # a second Ctrl-C leaves no time for the application's own end


def _listen(config: ServeConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((config.host, config.port))
        sock.listen(256)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"{config.host}:{config.port} cannot be listened on ({error.strerror or error}). Choose another --port, "
            "or 0 for any free one."
        ) from error
    return sock
