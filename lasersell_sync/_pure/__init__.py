"""The pure-Python fallback of the compiled core, its reference: same names, signatures, results and errors.

``json_scan`` knows JSON, ``decoder`` knows the schema, ``frames`` knows RFC 6455, ``lanes`` is what waits for a
consumer, ``handover`` how a consumer waits, ``caller`` how handlers are called, ``handles`` and ``newest`` what is
known of each position, ``recent`` what happened lately, ``maker`` builds instances, ``pump`` joins them, ``intake``
waits for the link and feeds it, ``records`` reads TLS, ``transactions`` reads base64 and instructions. Nothing here is
tuned; who needs speed has ``_core``. Everything is tested on both.
"""

from lasersell_sync._pure.caller import Caller
from lasersell_sync._pure.decoder import Decoder
from lasersell_sync._pure.frames import FrameParser, encode_frame
from lasersell_sync._pure.handles import Handles
from lasersell_sync._pure.handover import Handover
from lasersell_sync._pure.intake import Intake
from lasersell_sync._pure.lanes import Lanes
from lasersell_sync._pure.maker import Maker
from lasersell_sync._pure.newest import Newest
from lasersell_sync._pure.pump import Pump, Router, receive
from lasersell_sync._pure.recent import Recent
from lasersell_sync._pure.records import read_records
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
