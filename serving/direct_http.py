"""uvicorn's HTTP protocol with a short cut for the hot path: no task, no messages, one write an answer."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from infra.http import Problem
from infra.limited_http import LimitedHttp
from serving.fallback import StoredLists
from serving.overload import BODY, HEADERS, Overloaded
from serving.recommendations import Asked, RecommendationsApp, serves

Header = tuple[bytes, bytes]
_CLOSE: Header = (b"connection", b"close")


class DirectHttp(LimitedHttp):
    """Answers the hot path from a callback of the shared read; everything else goes the usual way, as ASGI.

    ASGI costs a task, five coroutines and two checked messages a request, as much as the answer itself. The rest
    (what is wrong with a request, pipelines, clients that do not read) is left to the ASGI app, so this is a short cut
    and no second server. It rests on uvicorn's own `RequestResponseCycle`; tests run it in a real server.
    """

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        hot: RecommendationsApp | None = getattr(app, "recommendations", None)
        if hot is None or self.pipeline or self.flow.write_paused or not serves(cycle.scope):  # type: ignore[arg-type]
            super()._start_asgi_task(cycle, app)
            return
        try:
            asked = hot.begin(cycle.scope)  # type: ignore[arg-type]
        except Overloaded:
            self.loop.call_at(hot.turn_away.turn(), self._turn_away, cycle)
            return
        except Problem:
            super()._start_asgi_task(cycle, app)
            return
        if asked.reading is None:
            self._answer(cycle, hot, asked, None)
        else:
            asked.reading.add_done_callback(partial(self._on_read, cycle, hot, asked))

    def _on_read(
        self,
        cycle: RequestResponseCycle,
        hot: RecommendationsApp,
        asked: Asked,
        reading: "asyncio.Future[StoredLists | None]",
    ) -> None:
        if cycle.disconnected:
            return
        try:
            self._answer(cycle, hot, asked, reading.result())
        except Exception:
            self.logger.exception("Exception on the hot path")
            self.transport.close()

    def _answer(
        self, cycle: RequestResponseCycle, hot: RecommendationsApp, asked: Asked, stored: StoredLists | None
    ) -> None:
        self._write(cycle, 200, *hot.finish(asked, stored))

    def _turn_away(self, cycle: RequestResponseCycle) -> None:
        if not cycle.disconnected:
            self._write(cycle, 503, HEADERS, BODY)

    def _write(self, cycle: RequestResponseCycle, status: int, headers: Sequence[Header], body: bytes) -> None:
        closing = () if cycle.keep_alive else (_CLOSE,)
        lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers, *closing)]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        cycle.response_started = cycle.response_complete = True
        if closing:
            self.transport.close()
        cycle.on_response()
