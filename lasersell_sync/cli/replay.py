"""``lasersell-sync replay``: a recorded session, served to clients in any language."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import click

from lasersell_sync.recording import Recording, RecordingError, timed_frames
from lasersell_sync.sandbox.servers.replay_server import ReplayServer

__all__ = ["replay"]


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8082, show_default=True, help="WebSocket; 0: a free one."
)
@click.option(
    "--speed", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="1 is as recorded."
)
@click.option("--fast", is_flag=True, help="As fast as the client reads, whatever --speed says.")
def replay(file: Path, port: int, speed: float, fast: bool) -> None:
    """Serve a recording until Ctrl-C or SIGTERM.

    Every client that connects and sends configure, with any API key, gets the recorded frames from the first on. After
    the last its connection is closed with code 1000, "the recording is over"; the same key plays again after 30 s
    without a connection, another one at once. Once ready, it writes one line of JSON to stdout: stream_url. What is for
    people goes to stderr.
    """
    told_to_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told_to_stop.set())
    try:
        recording = Recording(file)
        server = ReplayServer(
            lambda: timed_frames(recording), port=port, speed=None if fast else speed, on_end=_say_that_it_is_over
        )
    except (RecordingError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        server.start()
    except OSError as error:
        raise click.ClickException(f"{error.strerror or error}. Use another port, or 0 for a free one") from error
    try:
        click.echo(json.dumps({"stream_url": server.stream_url}))
        click.echo("\nThe replay is ready; Ctrl-C stops it. For clients in another terminal:", err=True)
        click.echo(f"  export LASERSELL_STREAM_URL={server.stream_url} LASERSELL_API_KEY=any", err=True)
        told_to_stop.wait()
    finally:
        server.stop()
    if server.error is not None:
        raise click.ClickException(str(server.error))


def _say_that_it_is_over() -> None:
    click.echo("A client has received the whole recording; its connection is closed.", err=True)
