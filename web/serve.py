"""Show the page on this machine: `python -m web.serve [--port N]`, after `python -m web.build`."""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import sys
from pathlib import Path
from typing import TYPE_CHECKING, AnyStr

from web.build import DIST

if TYPE_CHECKING:
    from _typeshed import SupportsRead, SupportsWrite


class Handler(http.server.SimpleHTTPRequestHandler):
    """Static files, with the headers that let WebAssembly use several threads."""

    extensions_map = {  # noqa: RUF012 (as in the base class)
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        """Add them."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def copyfile(self, source: SupportsRead[AnyStr], outputfile: SupportsWrite[AnyStr]) -> None:
        """Send a file; a browser that has seen enough closes the connection."""
        with contextlib.suppress(ConnectionError):
            super().copyfile(source, outputfile)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of what went well."""
        if len(args) > 1 and str(args[1]) >= "400":
            super().log_message(format, *args)


def server(folder: Path = DIST, port: int = 0) -> http.server.ThreadingHTTPServer:
    """A server of the folder, on the loopback alone; `serve_forever` starts it."""
    handler = functools.partial(Handler, directory=str(folder))
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="web.serve", description="Show the page on this machine.")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    args = parser.parse_args()
    if not (DIST / "index.html").exists():
        sys.exit("web.serve: error: web/dist is missing; run python -m web.build")
    try:
        with server(port=args.port) as running:
            print(f"http://127.0.0.1:{args.port}", flush=True)
            running.serve_forever()
    except OSError as error:
        sys.exit(f"web.serve: error: port {args.port}: {error.strerror}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
