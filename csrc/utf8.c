#include "utf8.h"

#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

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

#if defined(__SSE2__)
static __m128i load16(const uint8_t *at)
{
    return _mm_loadu_si128((const __m128i *)(const void *)at);
}

/* Over whole pieces of 64 bytes, as far as they are ASCII. */
static const uint8_t *skip_ascii_pieces(const uint8_t *at, const uint8_t *end)
{
    while (end - at >= 64) {
        __m128i bytes = _mm_or_si128(
            _mm_or_si128(load16(at), load16(at + 16)), _mm_or_si128(load16(at + 32), load16(at + 48)));
        if (_mm_movemask_epi8(bytes) != 0) {
            break;
        }
        at += 64;
    }
    return at;
}
#else
static const uint8_t *skip_ascii_pieces(const uint8_t *at, const uint8_t *end)
{
    (void)end;
    return at;
}
#endif

/* To a byte above 0x7F with fewer than eight ASCII bytes before it, or to the end. */
static const uint8_t *skip_ascii(const uint8_t *at, const uint8_t *end)
{
    const uint8_t *begin = at;
    uint64_t word;
    at = skip_ascii_pieces(at, end);
    while (end - at >= 8) {
        memcpy(&word, at, 8);
        if (word & HIGH_BITS) {
            return at;
        }
        at += 8;
    }
    if (end - begin >= 8) { /* the rest, together with bytes that were seen already */
        memcpy(&word, end - 8, 8);
        if ((word & HIGH_BITS) == 0) {
            return end;
        }
    }
    return at;
}

const uint8_t *ls_utf8_find_error(const uint8_t *at, const uint8_t *end)
{
    /* Our messages are nearly all ASCII. */
    while ((at = skip_ascii(at, end)) < end) {
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
