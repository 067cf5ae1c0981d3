"""The reference twin of the compiled core: same names, signatures, results and errors, written for reading.

``json_scan`` knows JSON, ``decoder`` knows the schema, ``frames`` knows RFC 6455. Nothing here is tuned; who needs
speed has ``_core``. Everything is tested on both.
"""

from lasersell_sync._pure.decoder import Decoder
from lasersell_sync._pure.frames import FrameParser, encode_frame

__all__ = ["Decoder", "FrameParser", "encode_frame"]
