"""Cooperative threads: patched first they work, patched late nothing starts, and whoever ends a greenlet ends it for good."""

from __future__ import annotations

import pytest

from tests.support.stream_server import Peer, ScriptedServer
from tests.support.waiting import until
from tests.workers.programs import run

#: What starts threads or takes locks, by how it is made.
MAKERS = {
    "StreamClient.connect": "StreamClient('key').with_endpoint(URL).connect(CONFIGURE)",
    "StreamSession.connect": "connect()",
    "TxSender": "TxSender(SendTargetRpc('http://127.0.0.1:9'))",
    "ExitApiClient": "ExitApiClient('key')",
    "ExitApiClient.from_env": "ExitApiClient.from_env()",
    "AutoSeller": "AutoSeller(object(), [], sender=object(), journal=':memory:')",
    "Journal": "Journal(':memory:')",
    "Recorder": "Recorder('/nonexistent/recording')",
    "SigningGuard": "SigningGuard()",
    "an RPC call": "solana_rpc.warm_send_target(SendTargetRpc('http://127.0.0.1:9'))",
}
PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


@pytest.mark.parametrize("kind", PATCHES)
def test_patch_after_the_import_is_noticed_before_anything_else(kind: str) -> None:
    """Whatever is made first: no thread, no file, no connection, and not even a look at the other arguments."""
    program = f"""
    from lasersell_sync.trading.solana import solana_rpc
    CONFIGURE = StreamConfigure(["7Np41oeYqPefeNQEHSv1UDhYrehxin3NStELsSKCT4K2"], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=0.0))
    os.environ["LASERSELL_API_KEY"] = "key"
    before = threading.active_count()
    {PATCHES[kind]}
    for name, maker in {MAKERS!r}.items():
        try: eval(maker)
        except ConcurrencyError as error:
            if "{kind} patched" not in str(error): print(name, error)
        except Exception as error: print(name, repr(error))
        else: print(name, "was made")
    print(threading.active_count() == before)
    """
    with ScriptedServer() as server:
        done = run(program, server.url)
        assert done.stdout == "True\n", done.stdout + done.stderr[-2000:]
        assert server.peers.empty()


@pytest.mark.parametrize("moment", ["reading", "waiting for the next attempt"])
def test_reader_greenlet_that_is_killed_fails_the_session_and_makes_no_second_connection(moment: str) -> None:
    """``gevent.killall`` by the program: the reader does not come back, and every consumer is woken with the cause."""
    program = """
    import gc, gevent
    session = connect(initial_backoff_s=30.0, max_backoff_s=30.0)
    session.wait_for("hello_ok", 10)
    if WAITS:
        session.sender().ping(1)  # the server drops the link for it
        while session.status.value != "backoff": time.sleep(0.01)
    reader = session.connection.reader._thread
    greenlets = [thing for thing in gc.get_objects() if isinstance(thing, gevent.Greenlet)]
    ours = [each for each in greenlets if getattr(getattr(each, "_run", None), "__self__", None) is reader]
    assert len(ours) == 1, greenlets
    gevent.killall(ours)
    reader.join(10)
    print(reader.is_alive(), session.status.value, flush=True)
    try:
        while session.recv(timeout=10) is not None: pass
        print("ended")
    except ThreadDiedError as error: print("lasersell-reader" in str(error), "GreenletExit" in str(error))
    session.close()
    """
    flags = f"WAITS = {moment.startswith('waiting')}\n"

    def script(peer: Peer) -> None:
        peer.greet()
        if moment.startswith("waiting"):
            peer.recv()
            peer.abort()
        peer.serve()

    with ScriptedServer(script) as server:
        done = run(program, server.url, before=PATCHES["gevent"] + "\n" + flags)
        assert done.stdout == "False failed\nTrue True\n", done.stdout + done.stderr[-2000:]
        server.peer()
        until(lambda: not server._connections)
        assert server.peers.empty()
