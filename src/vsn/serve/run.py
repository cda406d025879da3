"""Run `vsn serve`: open the model, listen, serve until Ctrl-C, clean up."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from vsn.config import ConfigError, ServeConfig
from vsn.config.distribution import install_command
from vsn.runs.run import WeightsKind
from vsn.system.interrupt import stop_requests


def serve(path: Path, config: ServeConfig, *, weights: WeightsKind = "last", device: str = "auto") -> None:
    """Serve a run folder or an exported file until Ctrl-C or SIGTERM.

    Raises:
        RunError, ConfigError: the model cannot be opened, the extra is not installed, or the port is taken.
    """
    # Imported here: the command must say what to install, and `vsn --help` must not wait for it.
    try:
        from vsn.serve.app import UPLOAD_PATHS
        from vsn.serve.keys import read_keys
        from vsn.serve.models import open_model
        from vsn.serve.origins import is_loopback
        from vsn.serve.server import listen, run_service
        from vsn.serve.service import Service
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"vsn serve needs {error.name}, which is not installed: {install_command('serve')}"
        ) from error
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if config.api_key_file is not None:
        read_keys(config.api_key_file)  # only to report errors now; the application reads it again
    # Before the model is opened, which takes seconds. With port 0 the URL is known only now.
    with listen(config) as sock:
        model = open_model(path, weights=weights, device=device)
        model.check()
        service = Service(model, config)
        host, port = sock.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        # No markup: rich would take the brackets of an IPv6 address for a style.
        behind = f"{config.public_url}, behind a proxy to " if config.public_url else ""
        line = f"{model.card.model} with {len(model.classes)} classes at {behind}{url} (stop with Ctrl-C)"
        console.print(line, markup=False)
        if not is_loopback(config.host):
            missing = "no encryption: keys can be read on the way" if config.api_key_file else "no authentication"
            console.print(
                f"[yellow]Warning:[/yellow] {config.host} is reachable from other machines, and the service has {missing}. "
                f"Put a proxy with {'' if config.api_key_file else 'authentication and '}TLS in front of it."
            )

        def report() -> None:
            answers = ", ".join(f"{count} {status}" for status, count in service.metrics.answers(UPLOAD_PATHS).items())
            console.print(f"vsn: stopped; answers to uploads: {answers or 'none'}")

        try:
            # The server raises the signal again when it has stopped: SIGTERM would end the process before it deletes
            # its temporary files.
            with stop_requests(raises=True):
                run_service(service, sock, on_stop=report)
        except KeyboardInterrupt:
            pass
        finally:
            # A second Ctrl-C skips the shutdown of the application.
            service.close()
