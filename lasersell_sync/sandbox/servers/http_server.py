"""A small HTTP/1.1 server for JSON services, with connections that stay open.

One event loop, in one thread, reads and writes; a few worker threads run the application. A connection that asks for
nothing costs no thread, so thousands of them do no harm; when there are too many, those that have been idle longest
make room. Requests and responses are werkzeug's.
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
from dataclasses import dataclass, field
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from werkzeug.wrappers import Request, Response

from lasersell_sync.sandbox.servers.sockets import BACKLOG, close_all, connection_limit

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


@dataclass(slots=True)
class _Head:
    """A request's first part."""

    method: str
    target: str
    version: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def keeps_alive(self) -> bool:
        """Whether another request may follow."""
        wish = self.headers.get("connection", "").lower()
        return wish == "keep-alive" if self.version == "HTTP/1.0" else wish != "close"

    def environ(self, body: bytes) -> dict[str, Any]:
        """The request as WSGI describes it."""
        path, _, query = self.target.partition("?")
        named = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers.items()}
        return {
            **named,
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "0",
            "SERVER_PROTOCOL": self.version,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(body),
            "wsgi.multithread": True,
        }


def _parse_head(raw: bytes) -> _Head:
    """Raises ``_Malformed``."""
    lines = raw[:-4].decode("latin-1").lstrip("\r\n").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.0", "HTTP/1.1") or not words[0].isalpha() or words[1][:1] != "/":
        raise _Malformed(HTTPStatus.BAD_REQUEST, "this is not an HTTP/1.1 request")
    method, target, version = words
    head = _Head(method, target, version)
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\0" in line or "\n" in line:
            raise _Malformed(HTTPStatus.BAD_REQUEST, "malformed header")
        key, value = name.lower(), value.strip()
        head.headers[key] = f"{head.headers[key]},{value}" if key in head.headers else value
    return head


class _Connection:
    """One client, from its first request to its last. On the loop only."""

    def __init__(self, service: HttpService, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._service = service
        self._reader = reader
        self._writer = writer

    def abort(self) -> None:
        """Cut it."""
        self._writer.transport.abort()

    async def serve(self) -> None:
        """Answer requests until one side has enough."""
        try:
            while await self._serve_one():
                pass
        except _Malformed as error:
            await self._write(json_response({"error": str(error)}, error.status), keep_alive=False)
            await self._linger()
        except (OSError, EOFError, asyncio.TimeoutError):  # TimeoutError is an OSError only since Python 3.11
            pass  # the client is gone, or silent
        finally:
            self._writer.close()

    async def _serve_one(self) -> bool:
        """One request; whether another may follow."""
        # What is not complete in time is not answered; while it is awaited, the connection may have to make room.
        self._service.idle[self] = None
        head, body = await asyncio.wait_for(self._read(), _IDLE_S)
        self._service.idle.pop(self, None)
        response = await self._service.answer(Request(head.environ(body)))
        if isinstance(response, DisturbedResponse):
            if response.never:
                self._service.idle[self] = None  # it may have to make room
                await self._read_out()
                return False
            await asyncio.sleep(response.delay_s)
            if response.hang_up:
                self.abort()
                return False
        await self._write(response, keep_alive=head.keeps_alive, with_body=head.method != "HEAD")
        return head.keeps_alive

    async def _read(self) -> tuple[_Head, bytes]:
        try:
            raw = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise _Malformed(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request head too large") from None
        head = _parse_head(raw)
        if head.headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return head, await self._read_body(head)

    async def _read_body(self, head: _Head) -> bytes:
        if "transfer-encoding" in head.headers:
            if head.headers["transfer-encoding"].lower() != "chunked" or "content-length" in head.headers:
                raise _too_large()
            return await self._read_chunked()
        text = head.headers.get("content-length", "0")
        if not text.isdecimal() or not text.isascii() or len(text) > 19 or int(text) > MAX_BODY_BYTES:
            raise _too_large()
        return await self._reader.readexactly(int(text))

    async def _read_chunked(self) -> bytes:
        body = bytearray()
        while True:
            try:
                line = await self._reader.readuntil(b"\r\n")
                size = int(line.partition(b";")[0], 16)
            except (ValueError, asyncio.LimitOverrunError):
                raise _too_large() from None
            if size < 0 or len(body) + size > MAX_BODY_BYTES:
                raise _too_large()
            if size == 0:
                while await self._reader.readuntil(b"\r\n") != b"\r\n":
                    pass  # trailers
                return bytes(body)
            body += await self._reader.readexactly(size)
            if await self._reader.readexactly(2) != b"\r\n":
                raise _too_large()

    # -- answers

    async def _write(self, response: Response, *, keep_alive: bool, with_body: bool = True) -> None:
        streamed = response.is_streamed and with_body
        head = [f"HTTP/1.1 {response.status}"]
        for name, value in response.headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                head.append(f"{name}: {value}")
        body = b"" if streamed else response.get_data()
        head.append("Transfer-Encoding: chunked" if streamed else f"Content-Length: {len(body)}")
        if not keep_alive:
            head.append("Connection: close")
        start = "\r\n".join([*head, "", ""]).encode("latin-1")
        self._writer.write(start + body if with_body else start)
        await self._writer.drain()
        if streamed:
            await self._write_stream(response)

    async def _write_stream(self, response: Response) -> None:
        """Chunk by chunk, as the application makes them; it is told by ``close`` when the client has left."""
        parts = iter(response.iter_encoded())
        try:
            while True:
                part = await self._service.in_worker(next, parts, None)
                if part is None:
                    self._writer.write(b"0\r\n\r\n")
                    break
                if part:
                    self._writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                await self._writer.drain()
            await self._writer.drain()
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
    return _Malformed(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request body too large or malformed")


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
        except Exception:  # noqa: BLE001 (nobody is left to tell but the log)
            _log.exception("%s failed", self._name)
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        self._loop.set_exception_handler(_swallow)
        servers = [
            await asyncio.start_server(self._converse, sock=listener, limit=_MAX_HEAD_BYTES, backlog=BACKLOG)
            for listener in self._listeners
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


def _swallow(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the loop complains about (a client gone while we wrote, too many open files), at debug level."""
    _log.debug("%s: %s", context.get("message"), context.get("exception"))
