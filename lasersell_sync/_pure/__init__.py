"""The pure-Python fallback of the compiled core, its reference: same names, signatures, results and errors.

``json_scan`` knows JSON, ``decoder`` the schema, ``frames`` RFC 6455. ``lanes`` holds items for consumers,
``priority_queue`` lets consumers wait, ``handler_loop`` calls handlers. ``tables`` has handles, newest values and
recent events by position. ``message_pipeline`` joins them, and ``receive_loop`` waits for the link and feeds it.
``transactions`` reads base64 and instructions. Nothing here is tuned; who needs speed has ``_core``. Everything is
tested on both.
"""

from lasersell_sync._pure.decoder import Decoder, InstanceFactory
from lasersell_sync._pure.frames import FrameParser, encode_frame
from lasersell_sync._pure.handler_loop import HandlerLoop
from lasersell_sync._pure.lanes import Lanes
from lasersell_sync._pure.message_pipeline import EventRouter, MessagePipeline, receive
from lasersell_sync._pure.priority_queue import PriorityQueue
from lasersell_sync._pure.receive_loop import ReceiveLoop, read_records
from lasersell_sync._pure.tables import EventRing, HandleTable, LatestByKey
from lasersell_sync._pure.transactions import decode_base64, read_instructions

__all__ = [
    "Decoder",
    "EventRing",
    "EventRouter",
    "FrameParser",
    "HandleTable",
    "HandlerLoop",
    "InstanceFactory",
    "Lanes",
    "LatestByKey",
    "MessagePipeline",
    "PriorityQueue",
    "ReceiveLoop",
    "decode_base64",
    "encode_frame",
    "read_instructions",
    "read_records",
    "receive",
]
