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
include "handover.pxi"
include "caller.pxi"
include "maker.pxi"
include "handles.pxi"
include "newest.pxi"
include "recent.pxi"
include "pump.pxi"
include "records.pxi"
include "transactions.pxi"
include "intake.pxi"
