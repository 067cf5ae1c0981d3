"""The pure-Python fallback of the compiled core, its reference: same names, signatures, results and errors.

``json_scan`` knows JSON, ``decoder`` knows the schema, ``frames`` knows RFC 6455, ``lanes`` is what waits for a
consumer, ``handover`` how a consumer waits, ``caller`` how handlers are called, ``handles`` and ``newest`` what is
known of each position, ``recent`` what happened lately, ``maker`` builds instances, ``pump`` joins them, ``intake``
waits for the link and feeds it, ``records`` reads TLS, ``transactions`` reads base64 and instructions. Nothing here is
tuned; who needs speed has ``_core``. Everything is tested on both.
"""

from lasersell_sync._pure.decoder import Decoder, Maker
from lasersell_sync._pure.frames import FrameParser, encode_frame
from lasersell_sync._pure.handler_loop import Caller
from lasersell_sync._pure.lanes import Lanes
from lasersell_sync._pure.message_pipeline import Pump, Router, receive
from lasersell_sync._pure.priority_queue import Handover
from lasersell_sync._pure.receive_loop import Intake, read_records
from lasersell_sync._pure.tables import Handles, Newest, Recent
from lasersell_sync._pure.transactions import decode_base64, read_instructions

__all__ = [
    "Caller",
    "Decoder",
    "FrameParser",
    "Handles",
    "Handover",
    "Intake",
    "Lanes",
    "Maker",
    "Newest",
    "Pump",
    "Recent",
    "Router",
    "decode_base64",
    "encode_frame",
    "read_instructions",
    "read_records",
    "receive",
]
