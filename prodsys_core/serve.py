"""The web pages: Django behind waitress, on loopback."""

import signal
import sys
from types import FrameType

from django.core.wsgi import get_wsgi_application
from waitress.server import create_server

THREADS = 4
"""Pages are for a few managers; each thread has its own database connection."""


def serve(host: str, port: int) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; raises OSError if the address cannot be used."""
    server = create_server(get_wsgi_application(), host=host, port=port, threads=THREADS, ident="prodsys")
    address = f"http://{host}:{server.effective_port}/"

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    print(f"serving on {address}", file=sys.stderr, flush=True)
    try:
        server.run()
    finally:
        server.close()
