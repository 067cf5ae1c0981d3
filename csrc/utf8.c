#include "utf8.h"

#include <string.h>

#define HIGH_BITS UINT64_C(0x8080808080808080)

static int is_continuation(uint8_t byte)
{
    return (byte & 0xC0) == 0x80;
}

size_t ls_utf8_sequence(const uint8_t *at, const uint8_t *end)
{
    size_t left = (size_t)(end - at);
    if (left == 0) {
        return 0;
    }
    uint8_t lead = at[0];
    if (lead < 0x80) {
        return 1;
    }
    if (lead < 0xC2 || lead > 0xF4) { /* a continuation, an overlong lead, or beyond U+10FFFF */
        return 0;
    }
    if (lead < 0xE0) {
        return left >= 2 && is_continuation(at[1]) ? 2 : 0;
    }
    if (lead < 0xF0) {
        if (left < 3 || !is_continuation(at[1]) || !is_continuation(at[2])) {
            return 0;
        }
        if ((lead == 0xE0 && at[1] < 0xA0) || (lead == 0xED && at[1] > 0x9F)) { /* overlong; a surrogate */
            return 0;
        }
        return 3;
    }
    if (left < 4 || !is_continuation(at[1]) || !is_continuation(at[2]) || !is_continuation(at[3])) {
        return 0;
    }
    if ((lead == 0xF0 && at[1] < 0x90) || (lead == 0xF4 && at[1] > 0x8F)) { /* overlong; beyond U+10FFFF */
        return 0;
    }
    return 4;
}

const uint8_t *ls_utf8_find_error(const uint8_t *at, const uint8_t *end)
{
    while (at < end) {
        /* Our messages are nearly all ASCII: eight bytes a step while that holds. */
        while (end - at >= 8) {
            uint64_t word;
            memcpy(&word, at, 8);
            if (word & HIGH_BITS) {
                break;
            }
            at += 8;
        }
        if (at == end) {
            break;
        }
        size_t size = ls_utf8_sequence(at, end);
        if (size == 0) {
            return at;
        }
        at += size;
    }
    return end;
}

size_t ls_utf8_write(uint32_t code_point, uint8_t *out)
{
    if (code_point < 0x80) {
        out[0] = (uint8_t)code_point;
        return 1;
    }
    if (code_point < 0x800) {
        out[0] = (uint8_t)(0xC0 | (code_point >> 6));
        out[1] = (uint8_t)(0x80 | (code_point & 0x3F));
        return 2;
    }
    if (code_point < 0x10000) {
        out[0] = (uint8_t)(0xE0 | (code_point >> 12));
        out[1] = (uint8_t)(0x80 | ((code_point >> 6) & 0x3F));
        out[2] = (uint8_t)(0x80 | (code_point & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | (code_point >> 18));
    out[1] = (uint8_t)(0x80 | ((code_point >> 12) & 0x3F));
    out[2] = (uint8_t)(0x80 | ((code_point >> 6) & 0x3F));
    out[3] = (uint8_t)(0x80 | (code_point & 0x3F));
    return 4;
}
