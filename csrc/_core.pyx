# The compiled core: includes and exports only. Decoder, FrameParser and encode_frame come from the files below, the
# plain C that they glue together from json_scan.c, utf8.c and ws_frame.c. README.md has the rules of this directory.
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
