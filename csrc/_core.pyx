# The compiled core: includes only. The files below glue plain C (json_scan.c, tx_wire.c, utf8.c, ws_frame.c) to Python, each
# building on those before it. README.md has the rules of this directory.
#
# cython: language_level=3
# cython: binding=False
# cython: always_allow_keywords=False
# cython: embedsignature=True
# cython: embedsignature.format=clinic
# cython: boundscheck=False
# cython: wraparound=False
# cython: cdivision=True
# cython: initializedcheck=False

include "decoder.pxi"
include "frames.pxi"
include "lanes.pxi"
include "priority_queue.pxi"
include "handler_loop.pxi"
include "instance_factory.pxi"
include "handle_table.pxi"
include "latest_by_key.pxi"
include "event_ring.pxi"
include "message_pipeline.pxi"
include "records.pxi"
include "transactions.pxi"
include "receive_loop.pxi"
