"""A small HTTP/1.1 server for JSON services, with connections that stay open.

One event loop, in one thread, reads and writes; a few worker threads run the application. A connection that asks for
nothing costs no thread, so thousands of them do no harm; when there are too many, those that have been idle longest
make room. h11 parses and frames; requests and responses are werkzeug's.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

import h11
from werkzeug.wrappers import Request, Response

from lasersell_sync.sandbox.servers.sockets import BACKLOG, close_all, connection_limit, log_loop_errors

_log = logging.getLogger("lasersell_sync.sandbox.http")

MAX_BODY_BYTES = 2**20
_MAX_HEAD_BYTES = 2**15
#: A connection that sends no complete request is closed after this long.
_IDLE_S = 120.0
#: What a client still has to say after an error is read for this long, so that it gets to read the error.
_LINGER_S = 0.5
_JOIN_S = 2.0
_WORKERS = 8

Application = Callable[[Request], Response]


def json_response(body: object, status: int = 200) -> Response:
    """A compact JSON answer."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return Response(text, status=status, mimetype="application/json")


class DisturbedResponse(Response):
    """An answer that comes late, or not at all.

    With ``hang_up`` the connection is cut in its place; with ``never`` it stays open and silent.
    """

    delay_s: float = 0.0
    hang_up: bool = False
    never: bool = False


class _Malformed(Exception):
    """Not a request that can be answered; the connection ends after the complaint."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def _environ(head: h11.Request, body: bytes) -> dict[str, Any]:
    """A request as WSGI describes it. Raises ``_Malformed``."""
    target = head.target.decode("latin-1")
    if not target.startswith("/") or head.http_version not in (b"1.0", b"1.1"):
        raise _Malformed(HTTPStatus.BAD_REQUEST, "this is not an HTTP/1.1 request")
    path, _, query = target.partition("?")
    headers: dict[str, str] = {}
    for raw_name, raw_value in head.headers:
        name, value = raw_name.decode("latin-1").upper().replace("-", "_"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return {
        **{f"HTTP_{name}": value for name, value in headers.items()},
        "REQUEST_METHOD": head.method.decode("latin-1"),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "0",
        "SERVER_PROTOCOL": f"HTTP/{head.http_version.decode('latin-1')}",
        "CONTENT_TYPE": headers.get("CONTENT_TYPE", ""),
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
        "wsgi.multithread": True,
    }


class _Connection:
    """One client, from its first request to its last. On the loop only."""

    def __init__(self, service: HttpService, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._service = service
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)

    def abort(self) -> None:
        """Cut it."""
        self._writer.transport.abort()

    async def serve(self) -> None:
        """Answer requests until one side has enough."""
        try:
            while await self._serve_one():
                self._http.start_next_cycle()
        except _Malformed as error:
            await self._refuse(error.status, str(error))
        except h11.RemoteProtocolError as error:
            await self._refuse(HTTPStatus(error.error_status_hint), str(error))
        except (OSError, EOFError, asyncio.TimeoutError):  # TimeoutError is an OSError only since Python 3.11
            pass  # the client is gone, or silent
        finally:
            self._writer.close()

    async def _serve_one(self) -> bool:
        """One request; whether another may follow."""
        # What is not complete in time is not answered; while it is awaited, the connection may have to make room.
        self._service.idle[self] = None
        environ = await asyncio.wait_for(self._read(), _IDLE_S)
        self._service.idle.pop(self, None)
        response = await self._service.answer(Request(environ))
        if isinstance(response, DisturbedResponse):
            if response.never:
                self._service.idle[self] = None  # it may have to make room
                await self._read_out()
                return False
            await asyncio.sleep(response.delay_s)
            if response.hang_up:
                self.abort()
                return False
        await self._write(response, with_body=environ["REQUEST_METHOD"] != "HEAD")
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _read(self) -> dict[str, Any]:
        head = await self._next_event()
        if isinstance(head, h11.ConnectionClosed):
            raise EOFError  # noqa: TRY004 (not a wrong type: the client has left)
        assert isinstance(head, h11.Request)
        if int(dict(head.headers).get(b"content-length", b"0")) > MAX_BODY_BYTES:
            raise _too_large()
        body = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise _too_large()
        return _environ(head, bytes(body))

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self._send(h11.InformationalResponse(status_code=100, headers=[], reason="Continue"))
            self._http.receive_data(await self._reader.read(2**16))
        return event

    # -- answers

    def _send(self, event: h11.Event) -> None:
        self._writer.write(self._http.send(event) or b"")

    async def _refuse(self, status: HTTPStatus, message: str) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = json_response({"error": message}, status)
            response.headers["Connection"] = "close"
            await self._write(response)
        await self._linger()

    async def _write(self, response: Response, *, with_body: bool = True) -> None:
        streamed = response.is_streamed and with_body
        framing = ("content-length", "transfer-encoding")
        headers = [(name, value) for name, value in response.headers.items() if name.lower() not in framing]
        body = b"" if streamed else response.get_data()
        if not streamed:
            headers.append(("Content-Length", str(len(body))))
        _, _, reason = response.status.partition(" ")
        head = self._http.send(h11.Response(status_code=response.status_code, headers=headers, reason=reason)) or b""
        if streamed:
            self._writer.write(head)
            await self._write_stream(response)
        else:
            rest = self._http.send(h11.Data(data=body)) if with_body else b""
            self._writer.write(head + (rest or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        await self._writer.drain()

    async def _write_stream(self, response: Response) -> None:
        """Part by part, as the application makes them; ``close`` ends it when the client has left."""
        parts = iter(response.iter_encoded())
        try:
            while (part := await self._service.in_worker(next, parts, None)) is not None:
                self._send(h11.Data(data=part))
                await self._writer.drain()
            self._send(h11.EndOfMessage())
        finally:
            with suppress(ValueError):  # the service stops while a worker is still making the next part
                response.close()

    async def _linger(self) -> None:
        """Read what still comes: closing on unread bytes would make the system throw our answer away."""
        with suppress(OSError, RuntimeError, asyncio.TimeoutError):
            self._writer.write_eof()
            await asyncio.wait_for(self._read_out(), _LINGER_S)

    async def _read_out(self) -> None:
        while await self._reader.read(2**16):
            pass


def _too_large() -> _Malformed:
    return _Malformed(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request body too large")


class HttpService:
    """Serves an application on listening sockets, from ``start`` to ``stop``.

    A streamed response holds one of the worker threads while it waits for its next part.

    Threads: one named ``name`` serves the connections; ``name-worker_N`` run the application.
    """

    def __init__(self, name: str, listeners: list[socket.socket], application: Application) -> None:
        self._name = name
        self._listeners = listeners
        self._application = application
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix=f"{name}-worker")
        self._limit = connection_limit()
        # On the loop only.
        self._stopping: asyncio.Event | None = None
        self._connections: set[_Connection] = set()
        #: who is waiting for a request to become complete, longest first
        self.idle: dict[_Connection, None] = {}

    def start(self) -> None:
        """Start accepting."""
        self._thread.start()

    def stop(self) -> None:
        """Close everything and join every thread; fine if it never started."""
        if self._thread.ident is None:
            self._loop.close()
            close_all(self._listeners)
        else:
            with suppress(RuntimeError):  # the loop is closed: stopped already
                self._loop.call_soon_threadsafe(self._request_stop)
            self._thread.join(_JOIN_S)
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _request_stop(self) -> None:
        if self._stopping is not None:
            self._stopping.set()

    # -- the loop's thread

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except Exception:  # noqa: BLE001 (the log is all that is left)
            _log.exception("%s failed", self._name)
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        log_loop_errors(self._loop, _log)
        servers = [
            await asyncio.start_server(self._converse, sock=listener, backlog=BACKLOG) for listener in self._listeners
        ]
        await self._stopping.wait()
        for server in servers:
            server.close()
        for connection in list(self._connections):
            connection.abort()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer)
        if len(self._connections) >= self._limit:
            self._make_room(connection)
        self._connections.add(connection)
        try:
            await connection.serve()
        except asyncio.CancelledError:
            pass  # the service stops; raised again, asyncio would log it
        finally:
            self._connections.discard(connection)
            self.idle.pop(connection, None)

    def _make_room(self, newcomer: _Connection) -> None:
        """The longest idle goes; the newcomer if nobody is idle."""
        victim = next(iter(self.idle), newcomer)
        self.idle.pop(victim, None)
        victim.abort()

    async def in_worker(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Run something that may wait for a lock in a worker thread."""
        return await self._loop.run_in_executor(self._workers, function, *arguments)

    async def answer(self, request: Request) -> Response:
        """The application's answer; a bug of ours is one failed answer, not a dead connection."""
        try:
            response: Response = await self.in_worker(self._application, request)
        except Exception:  # noqa: BLE001
            _log.exception("%s %s failed", request.method, request.path)
            return json_response({"error": "internal error"}, HTTPStatus.INTERNAL_SERVER_ERROR)
        return response
