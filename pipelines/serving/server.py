"""The server's process: connections, signals and processes."""

import asyncio
import logging
import multiprocessing
import resource
from multiprocessing import forkserver
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipelines.serving.app import build_app
from pipelines.serving.loaded import ServedModel
from pipelines.serving.settings import ServeSettings

logger = logging.getLogger(__name__)

# of the processes that read uploads, in addition to this package
_PRELOADED = ("pipelines.serving.tensors", "pipelines.serving.upload")

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
    b"connection: close\r\nretry-after: 5\r\ncontent-length: 70\r\n\r\n"
    b'{"error": "the server has too many open connections; try again later"}'
)


def serve(model: str, host: str, port: int, settings: ServeSettings) -> None:
    """Serves a model until SIGTERM or Ctrl-C; running requests end first.

    Args:
        model: `champion`, an MLflow URI or a model folder.
        host: Address to listen on.
        port: Port to listen on; 0 chooses one.
        settings: Limits, and the layout of a .zip.

    Raises:
        UserError: If the model cannot be loaded.
    """
    # a fork of this process would copy locks that its other threads hold
    multiprocessing.set_start_method("forkserver", force=True)
    multiprocessing.set_forkserver_preload(list(_PRELOADED))
    forkserver.ensure_running()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    served = ServedModel(model, settings)
    app = build_app(served, settings)
    logger.info("serving %s at http://%s:%d", served.current.uri, host, port)
    uvicorn.run(
        app,
        host=host,
        port=port,
        http=limited_protocol(settings),
        ws="none",
        loop="asyncio",
        server_header=False,
        access_log=False,
        log_config=None,
        backlog=settings.max_connections,
        timeout_graceful_shutdown=settings.shutdown_s,
    )


def limited_protocol(settings: ServeSettings) -> type[asyncio.Protocol]:
    """The protocol of a connection, with a limit of their number and of the time for a header."""

    class LimitedProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - of asyncio
            super().connection_made(transport)
            if len(self.connections) > settings.max_connections:
                transport.write(_FULL)
                transport.close()
                return
            self._expect_header()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._expect_header()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _expect_header(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            elif self._timer is None:
                self._timer = self.loop.call_later(settings.read_timeout_s, self._expire)

        def _expire(self) -> None:
            self._timer = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return LimitedProtocol
