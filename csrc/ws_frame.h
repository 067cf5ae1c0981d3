/*
 * WebSocket frames for a client (RFC 6455): bytes of the link to messages, and payloads to masked frames.
 *
 * Plain C. The parser may stop at every byte, and checks a rule as soon as the byte that breaks it is there, so that
 * the result does not depend on how the link cut the bytes. Memory grows with the bytes received, never by what a
 * header claims. The fallback is lasersell_sync/_pure/frames.py.
 */
#ifndef LASERSELL_WS_FRAME_H
#define LASERSELL_WS_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define LS_WS_MAX_CONTROL 125
#define LS_WS_MAX_HEADER 14 /* what ls_ws_write_header may write, mask included */

typedef enum {
    LS_WS_MORE,     /* the input is used up */
    LS_WS_COMPLETE, /* a message or control frame is complete: call again with what is left of the input */
    LS_WS_DONE,     /* a violation, or the peer closed: nothing will follow, the rest of the input is ignored */
    LS_WS_NO_MEMORY
} ls_ws_result;

typedef enum {
    LS_WS_NO_PROBLEM = 0,
    LS_WS_RESERVED_BITS,
    LS_WS_RESERVED_OPCODE,
    LS_WS_FRAGMENTED_CONTROL,
    LS_WS_NO_MESSAGE,
    LS_WS_MESSAGE_INSIDE,
    LS_WS_MASKED,
    LS_WS_LONG_CONTROL,
    LS_WS_TOP_BIT,
    LS_WS_NOT_MINIMAL,
    LS_WS_TOO_BIG,
    LS_WS_BAD_TEXT,
    LS_WS_SHORT_CLOSE,
    LS_WS_BAD_CLOSE_CODE,
    LS_WS_BAD_CLOSE_REASON
} ls_ws_problem;

typedef struct {
    uint8_t opcode; /* of the message's first frame */
    const uint8_t *payload; /* in the input or in the parser: valid until the next call */
    size_t size;
} ls_ws_message;

typedef struct {
    uint64_t max_message;
    /* What ended the parsing, if anything did. */
    ls_ws_problem problem;
    uint64_t problem_detail; /* the opcode, bound or close code that the problem is about */
    uint8_t is_closed;
    /* The frame being read: header bytes until they are complete, then the payload. */
    uint8_t header[10];
    uint8_t header_size;
    uint8_t in_payload;
    uint8_t is_final;
    uint8_t opcode;
    uint64_t claimed; /* the payload's size by its header; bounded before anything is kept */
    uint64_t taken;   /* of it, received so far */
    uint8_t control[LS_WS_MAX_CONTROL];
    /* The message being assembled; opcode 0 when no fragment is waiting for more. */
    uint8_t message_opcode;
    uint8_t *message;
    size_t message_size;
    size_t message_capacity;
} ls_ws_parser;

void ls_ws_init(ls_ws_parser *parser, uint64_t max_message);
void ls_ws_free(ls_ws_parser *parser);

/* Takes bytes from [*at, end) and moves *at behind what it took. */
ls_ws_result ls_ws_next(ls_ws_parser *parser, const uint8_t **at, const uint8_t *end, ls_ws_message *out);

/* Bytes that wait for the rest of their header, frame or message. */
size_t ls_ws_buffered(const ls_ws_parser *parser);

/* The close code that answers the parser's problem, and the problem in words (at most `size` bytes with the NUL). */
int ls_ws_close_code(const ls_ws_parser *parser);
void ls_ws_describe(const ls_ws_parser *parser, char *out, size_t size);

/* A final frame's header with the mask; returns its size. */
size_t ls_ws_write_header(uint8_t *out, uint8_t opcode, uint64_t size, const uint8_t mask[4]);
void ls_ws_mask(uint8_t *out, const uint8_t *payload, size_t size, const uint8_t mask[4]);

#endif
