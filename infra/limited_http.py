"""uvicorn's HTTP protocol with limits for what comes before a body: it has none for the head of a request."""

import asyncio

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0
LONGEST_HEAD = 64 * 1024
GRACE_SECONDS = 5


class LimitedHttp(HttpToolsProtocol):
    """Closes connections that send no request, or one whose head comes too slowly or does not end."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._awaits_head, self._head_came, self._head_bytes = True, False, 0
        self._patience: asyncio.TimerHandle | None = None
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what came. What ends one request and begins the next does not count as head."""
        awaited, self._head_came = self._awaits_head, False
        super().data_received(data)
        if self._head_came or not awaited or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > LONGEST_HEAD:
            self.send_400_response(f"The head of the request is longer than {LONGEST_HEAD} bytes.")
        elif self._patience is None:
            self._wait()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._awaits_head, self._head_came, self._head_bytes = False, True, 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What comes next is another head."""
        self._awaits_head = True
        super().on_message_complete()

    def _wait(self) -> None:
        self._patience = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def run_edge(app: ASGIApp, host: str, port: int, protocol: type[LimitedHttp] = LimitedHttp) -> None:
    """Serve an app until SIGTERM or SIGINT; requests under way are answered first."""
    uvicorn.run(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=protocol,
        log_config=None,
        access_log=False,  # Paths name people.
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
