"""Run `vsn serve`: open the model, listen, serve until Ctrl-C, clean up."""

from __future__ import annotations

import socket
from pathlib import Path

from rich.console import Console

from vsn.config import ConfigError, ServeConfig
from vsn.runs.run import WeightsKind


def serve(path: Path, config: ServeConfig, *, weights: WeightsKind = "last", device: str = "auto") -> None:
    """Serve a run folder or an exported file until Ctrl-C or SIGTERM.

    Raises:
        RunError, ConfigError: the model cannot be opened, the extra is not installed, or the port is taken.
    """
    # Imported here: the command must say what to install, and `vsn --help` must not wait for it.
    try:
        import uvicorn

        from vsn.serve.app import create_app
        from vsn.serve.guards import is_loopback
        from vsn.serve.models import open_model
        from vsn.serve.service import Service
    except ModuleNotFoundError as error:
        raise ConfigError(f'vsn serve needs {error.name}, which is not installed: pip install "vsn[serve]"') from error
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    model = open_model(path, weights=weights, device=device)
    service = Service(model, config)
    settings = uvicorn.Config(
        create_app(service),
        log_level="warning",
        server_header=False,
        # Anybody can send X-Forwarded-For; nothing here needs the address of a client.
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=5,
    )
    # Bound before uvicorn starts: with port 0 the URL must be known, and a taken port is an error in one line.
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listener = socket.create_server((config.host, config.port), family=family, backlog=256)
    except OSError as error:
        raise ConfigError(f"Cannot listen: {error.strerror}. Choose another --port, or 0 for any free one.") from error
    with listener as sock:
        host, port = sock.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        # No markup: rich would take the brackets of an IPv6 address for a style.
        line = f"{model.card.model} with {len(model.classes)} classes at {url} (stop with Ctrl-C)"
        console.print(line, markup=False)
        if not is_loopback(config.host):
            console.print(
                f"[yellow]Warning:[/yellow] {config.host} is reachable from other machines, and the service has no "
                "authentication. Put a proxy with authentication and TLS in front of it."
            )
        try:
            uvicorn.Server(settings).run(sockets=[sock])
        except KeyboardInterrupt:
            console.print("vsn: stopped")
        finally:
            # A second Ctrl-C skips the shutdown of the application.
            service.close()
