#include "ws_frame.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "utf8.h"

enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

#define FIRST_BUFFER 4096
#define KEPT_BUFFER (64 * 1024) /* after a message, a larger buffer is given back */

void ls_ws_init(ls_ws_parser *parser, uint64_t max_message)
{
    memset(parser, 0, sizeof *parser);
    parser->max_message = max_message;
}

void ls_ws_free(ls_ws_parser *parser)
{
    free(parser->message);
    parser->message = NULL;
    parser->message_size = 0;
    parser->message_capacity = 0;
}

size_t ls_ws_buffered(const ls_ws_parser *parser)
{
    size_t control = parser->in_payload && parser->opcode >= CLOSE ? (size_t)parser->taken : 0;
    return parser->header_size + control + parser->message_size;
}

static int fail(ls_ws_parser *parser, ls_ws_problem problem, uint64_t detail)
{
    parser->problem = problem;
    parser->problem_detail = detail;
    return 0;
}

/* ── headers: 1 if the rules are kept so far ────────────────────────────────────────────────────────────────── */

static int check_first_byte(ls_ws_parser *parser, uint8_t byte)
{
    uint8_t opcode = byte & 0x0F;
    parser->is_final = byte >> 7;
    parser->opcode = opcode;
    if (byte & 0x70) {
        return fail(parser, LS_WS_RESERVED_BITS, 0);
    }
    if ((opcode > BINARY && opcode < CLOSE) || opcode > PONG) {
        return fail(parser, LS_WS_RESERVED_OPCODE, opcode);
    }
    if (opcode >= CLOSE) {
        return parser->is_final ? 1 : fail(parser, LS_WS_FRAGMENTED_CONTROL, 0);
    }
    if (opcode == CONTINUATION) {
        return parser->message_opcode != 0 ? 1 : fail(parser, LS_WS_NO_MESSAGE, 0);
    }
    return parser->message_opcode == 0 ? 1 : fail(parser, LS_WS_MESSAGE_INSIDE, 0);
}

static int check_second_byte(ls_ws_parser *parser, uint8_t byte)
{
    if (byte & 0x80) {
        return fail(parser, LS_WS_MASKED, 0);
    }
    if (parser->opcode >= CLOSE && byte > LS_WS_MAX_CONTROL) {
        return fail(parser, LS_WS_LONG_CONTROL, 0);
    }
    return 1;
}

static uint64_t big_endian(const uint8_t *at, size_t size)
{
    uint64_t value = 0;
    for (size_t index = 0; index < size; index++) {
        value = value << 8 | at[index];
    }
    return value;
}

static int start_payload(ls_ws_parser *parser, uint64_t size, uint64_t least)
{
    if (size >> 63) {
        return fail(parser, LS_WS_TOP_BIT, 0);
    }
    if (size < least) {
        return fail(parser, LS_WS_NOT_MINIMAL, 0);
    }
    /* message_size never exceeds max_message, so the difference cannot wrap; the sum could. */
    if (parser->opcode < CLOSE && size > parser->max_message - parser->message_size) {
        return fail(parser, LS_WS_TOO_BIG, parser->max_message);
    }
    parser->claimed = size;
    parser->taken = 0;
    parser->in_payload = 1;
    parser->header_size = 0;
    return 1;
}

static int take_header_byte(ls_ws_parser *parser, uint8_t byte)
{
    parser->header[parser->header_size++] = byte;
    if (parser->header_size == 1) {
        return check_first_byte(parser, byte);
    }
    uint8_t short_size = parser->header[1] & 0x7F;
    if (parser->header_size == 2) {
        if (!check_second_byte(parser, byte)) {
            return 0;
        }
        return short_size < 126 ? start_payload(parser, short_size, 0) : 1;
    }
    if (parser->header_size == 4 && short_size == 126) {
        return start_payload(parser, big_endian(parser->header + 2, 2), 126);
    }
    if (parser->header_size == 10) {
        return start_payload(parser, big_endian(parser->header + 2, 8), 0x10000);
    }
    return 1;
}

/* ── payloads ───────────────────────────────────────────────────────────────────────────────────────────────── */

static int append(ls_ws_parser *parser, const uint8_t *bytes, size_t size)
{
    size_t needed = parser->message_size + size;
    if (needed > parser->message_capacity) {
        /* Doubling: byte-sized pieces of a large message are copied a bounded number of times each. */
        size_t capacity = parser->message_capacity < FIRST_BUFFER ? FIRST_BUFFER : 2 * parser->message_capacity;
        capacity = capacity < needed ? needed : capacity;
        uint8_t *grown = realloc(parser->message, capacity);
        if (grown == NULL) {
            return 0;
        }
        parser->message = grown;
        parser->message_capacity = capacity;
    }
    if (size > 0) {
        memcpy(parser->message + parser->message_size, bytes, size);
    }
    parser->message_size = needed;
    return 1;
}

static int may_be_sent(uint64_t close_code)
{
    /* RFC 6455 7.4 and the IANA registry; 1004 to 1006 and 1015 are reserved or local only. */
    return (close_code >= 1000 && close_code <= 1003) || (close_code >= 1007 && close_code <= 1014) ||
           (close_code >= 3000 && close_code <= 4999);
}

static int check_close(ls_ws_parser *parser, const uint8_t *payload, size_t size)
{
    if (size == 0) {
        return 1;
    }
    if (size == 1) {
        return fail(parser, LS_WS_SHORT_CLOSE, 0);
    }
    uint64_t code = big_endian(payload, 2);
    if (!may_be_sent(code)) {
        return fail(parser, LS_WS_BAD_CLOSE_CODE, code);
    }
    if (ls_utf8_find_error(payload + 2, payload + size) != payload + size) {
        return fail(parser, LS_WS_BAD_CLOSE_REASON, 0);
    }
    return 1;
}

static ls_ws_result end(ls_ws_parser *parser)
{
    parser->header_size = 0;
    parser->in_payload = 0;
    ls_ws_free(parser);
    return LS_WS_DONE;
}

static ls_ws_result deliver(ls_ws_message *out, uint8_t opcode, const uint8_t *payload, size_t size)
{
    out->opcode = opcode;
    out->payload = payload;
    out->size = size;
    return LS_WS_COMPLETE;
}

static ls_ws_result finish_control(ls_ws_parser *parser, const uint8_t *payload, ls_ws_message *out)
{
    size_t size = (size_t)parser->claimed;
    parser->in_payload = 0;
    if (parser->opcode == CLOSE) {
        if (!check_close(parser, payload, size)) {
            return end(parser);
        }
        parser->is_closed = 1;
    }
    return deliver(out, parser->opcode, payload, size);
}

static ls_ws_result finish_message(
    ls_ws_parser *parser, uint8_t opcode, const uint8_t *payload, size_t size, ls_ws_message *out)
{
    parser->message_opcode = 0;
    if (opcode == TEXT && ls_utf8_find_error(payload, payload + size) != payload + size) {
        fail(parser, LS_WS_BAD_TEXT, 0);
        return end(parser);
    }
    return deliver(out, opcode, payload, size);
}

/* The whole of an unfragmented message or a control frame lies in the input: no copy. */
static ls_ws_result take_whole(ls_ws_parser *parser, const uint8_t *payload, ls_ws_message *out)
{
    if (parser->opcode >= CLOSE) {
        return finish_control(parser, payload, out);
    }
    parser->in_payload = 0;
    return finish_message(parser, parser->opcode, payload, (size_t)parser->claimed, out);
}

static ls_ws_result take_part(ls_ws_parser *parser, const uint8_t *bytes, size_t size, ls_ws_message *out)
{
    if (parser->opcode >= CLOSE) {
        if (size > 0) {
            memcpy(parser->control + parser->taken, bytes, size);
        }
    }
    else if (!append(parser, bytes, size)) {
        parser->is_closed = 1; /* bytes are lost: nothing that follows could be read */
        return LS_WS_NO_MEMORY;
    }
    parser->taken += size;
    if (parser->taken < parser->claimed) {
        return LS_WS_MORE;
    }
    if (parser->opcode >= CLOSE) {
        return finish_control(parser, parser->control, out);
    }
    parser->in_payload = 0;
    if (parser->message_opcode == 0) {
        parser->message_opcode = parser->opcode;
    }
    if (!parser->is_final) {
        return LS_WS_MORE;
    }
    size_t whole = parser->message_size;
    parser->message_size = 0; /* delivered; the bytes stay until the next call */
    /* A message of empty fragments has no buffer, and arithmetic on a null pointer is undefined even by 0. */
    const uint8_t *payload = whole > 0 ? parser->message : parser->control;
    return finish_message(parser, parser->message_opcode, payload, whole, out);
}

/*
 * What nearly every frame is: an unfragmented text of less than 64 KiB that lies in the input from its first header
 * byte to its last. Returns 0 and changes nothing for every other one, those with a mistake included.
 */
static int take_usual_text(
    ls_ws_parser *parser, const uint8_t **at, const uint8_t *input_end, ls_ws_message *out, ls_ws_result *result)
{
    const uint8_t *header = *at;
    size_t left = (size_t)(input_end - header);
    if (parser->in_payload || parser->header_size > 0 || parser->message_opcode != 0) {
        return 0;
    }
    if (left < 4 || header[0] != (0x80 | TEXT) || header[1] > 126) {
        return 0;
    }
    size_t header_size = header[1] < 126 ? 2 : 4;
    size_t size = header[1] < 126 ? header[1] : (size_t)header[2] << 8 | header[3];
    if ((header_size == 4 && size < 126) || size > left - header_size || size > parser->max_message) {
        return 0;
    }
    *at = header + header_size + size;
    *result = finish_message(parser, TEXT, header + header_size, size, out);
    return 1;
}

ls_ws_result ls_ws_next(ls_ws_parser *parser, const uint8_t **at, const uint8_t *input_end, ls_ws_message *out)
{
    if (parser->message_size == 0 && parser->message_capacity > KEPT_BUFFER) {
        ls_ws_free(parser); /* the message that needed it was delivered by the call before */
    }
    if (parser->problem != LS_WS_NO_PROBLEM || parser->is_closed) {
        *at = input_end;
        return end(parser);
    }
    ls_ws_result usual;
    if (take_usual_text(parser, at, input_end, out, &usual)) {
        return usual;
    }
    for (;;) {
        while (!parser->in_payload) {
            if (*at == input_end) {
                return LS_WS_MORE;
            }
            if (!take_header_byte(parser, *(*at)++)) {
                return end(parser);
            }
        }
        uint64_t missing = parser->claimed - parser->taken;
        size_t here = (size_t)(input_end - *at);
        size_t size = missing < here ? (size_t)missing : here;
        const uint8_t *bytes = *at;
        *at += size;
        int is_whole = parser->taken == 0 && size == missing && parser->is_final && parser->opcode != CONTINUATION;
        ls_ws_result result = is_whole ? take_whole(parser, bytes, out) : take_part(parser, bytes, size, out);
        if (result != LS_WS_MORE || (*at == input_end && parser->in_payload)) {
            return result;
        }
    }
}

/* ── problems in words ──────────────────────────────────────────────────────────────────────────────────────── */

int ls_ws_close_code(const ls_ws_parser *parser)
{
    switch (parser->problem) {
    case LS_WS_BAD_TEXT:
    case LS_WS_BAD_CLOSE_REASON:
        return 1007;
    case LS_WS_TOO_BIG:
        return 1009;
    default:
        return 1002;
    }
}

static const char *problem_text(ls_ws_problem problem)
{
    switch (problem) {
    case LS_WS_RESERVED_BITS:
        return "reserved bits are set in a frame and no extension was agreed";
    case LS_WS_FRAGMENTED_CONTROL:
        return "fragmented control frame";
    case LS_WS_NO_MESSAGE:
        return "continuation frame without a message to continue";
    case LS_WS_MESSAGE_INSIDE:
        return "new message inside a fragmented one";
    case LS_WS_MASKED:
        return "masked frame from a server";
    case LS_WS_LONG_CONTROL:
        return "control frame of more than 125 bytes";
    case LS_WS_TOP_BIT:
        return "frame length has its top bit set";
    case LS_WS_NOT_MINIMAL:
        return "frame length is not written in its shortest form";
    case LS_WS_BAD_TEXT:
        return "text message is not UTF-8";
    case LS_WS_SHORT_CLOSE:
        return "close frame of one byte";
    case LS_WS_BAD_CLOSE_REASON:
        return "close reason is not UTF-8";
    default:
        return "";
    }
}

void ls_ws_describe(const ls_ws_parser *parser, char *out, size_t size)
{
    uint64_t detail = parser->problem_detail;
    switch (parser->problem) {
    case LS_WS_RESERVED_OPCODE:
        snprintf(out, size, "reserved opcode %" PRIu64, detail);
        break;
    case LS_WS_TOO_BIG:
        snprintf(out, size, "message of more than %" PRIu64 " bytes", detail);
        break;
    case LS_WS_BAD_CLOSE_CODE:
        snprintf(out, size, "close code %" PRIu64 " may not be sent", detail);
        break;
    default:
        snprintf(out, size, "%s", problem_text(parser->problem));
    }
}

/* ── writing ────────────────────────────────────────────────────────────────────────────────────────────────── */

size_t ls_ws_write_header(uint8_t *out, uint8_t opcode, uint64_t size, const uint8_t mask[4])
{
    size_t length_bytes = size <= LS_WS_MAX_CONTROL ? 0 : size < 0x10000 ? 2 : 8;
    out[0] = (uint8_t)(0x80 | opcode);
    out[1] = (uint8_t)(0x80 | (length_bytes == 0 ? size : length_bytes == 2 ? 126 : 127));
    for (size_t index = 0; index < length_bytes; index++) {
        out[2 + index] = (uint8_t)(size >> (8 * (length_bytes - 1 - index)));
    }
    memcpy(out + 2 + length_bytes, mask, 4);
    return 2 + length_bytes + 4;
}

void ls_ws_mask(uint8_t *out, const uint8_t *payload, size_t size, const uint8_t mask[4])
{
    /* Plain and byte by byte: compilers turn it into vector code, and commands are small. */
    for (size_t index = 0; index < size; index++) {
        out[index] = payload[index] ^ mask[index & 3];
    }
}
