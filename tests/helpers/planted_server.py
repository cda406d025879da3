"""Run the service with decoders that do what the uploaded files say: python planted_server.py RUN UPLOADS SETTINGS."""

import dataclasses
import json
import sys
from pathlib import Path

from tests.helpers.planted import planted_decode
from vsn.config import ServeConfig
from vsn.serve.models import open_model
from vsn.serve.server import listen, run_service
from vsn.serve.service import Service


def main(run: str, uploads: str, settings: str) -> None:
    config = dataclasses.replace(ServeConfig(port=0), **json.loads(settings))
    service = Service(open_model(Path(run), device="cpu"), config, decode=planted_decode, uploads=Path(uploads))
    with listen(config) as sock:
        print(sock.getsockname()[1], flush=True)
        run_service(service, sock)


if __name__ == "__main__":
    main(*sys.argv[1:])
