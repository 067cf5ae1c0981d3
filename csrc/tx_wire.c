#include "tx_wire.h"

#define NO_DIGIT 64

/* What each character stands for; NO_DIGIT: it is none of the 64. */
static const uint8_t digits[256] = {
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 62, 64, 64, 64, 63,
    52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 64, 64, 64, 64, 64, 64,
    64, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 64, 64, 64, 64, 64,
    64, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
    41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
};

/* Four characters in one number of 24 bits; 0 where one of them is no digit. */
static inline int read_group(const uint8_t *at, uint32_t *group)
{
    uint32_t a = digits[at[0]], b = digits[at[1]], c = digits[at[2]], d = digits[at[3]];
    *group = a << 18 | b << 12 | c << 6 | d;
    return ((a | b | c | d) & NO_DIGIT) == 0;
}

/* The last group, where it stands for one byte or two: its number of bytes, or -1. The bits left over must be zero. */
static ptrdiff_t read_padded(const uint8_t *at, uint8_t *out)
{
    uint32_t a = digits[at[0]], b = digits[at[1]], c = digits[at[2]];
    if (((a | b) & NO_DIGIT) != 0) {
        return -1;
    }
    out[0] = (uint8_t)(a << 2 | b >> 4);
    if (at[2] == '=') {
        return (b & 0x0F) == 0 ? 1 : -1;
    }
    if ((c & NO_DIGIT) != 0 || (c & 0x03) != 0) {
        return -1;
    }
    out[1] = (uint8_t)(b << 4 | c >> 2);
    return 2;
}

ptrdiff_t ls_base64_decode(const uint8_t *at, const uint8_t *end, uint8_t *out)
{
    const uint8_t *begin = out;
    uint32_t group;
    if ((end - at) % 4 != 0) {
        return -1;
    }
    for (; at < end; at += 4, out += 3) {
        if (!read_group(at, &group)) {
            ptrdiff_t rest = end - at == 4 && at[3] == '=' ? read_padded(at, out) : -1;
            return rest < 0 ? -1 : out - begin + rest;
        }
        out[0] = (uint8_t)(group >> 16);
        out[1] = (uint8_t)(group >> 8);
        out[2] = (uint8_t)group;
    }
    return out - begin;
}

const uint8_t *ls_tx_length(const uint8_t *at, const uint8_t *end, size_t *length)
{
    size_t found = 0;
    for (unsigned shift = 0; shift <= 14 && at < end; shift += 7) {
        uint8_t byte = *at++;
        found |= (size_t)(byte & 0x7F) << shift;
        if ((byte & 0x80) == 0) {
            *length = found;
            return at;
        }
    }
    return NULL;
}

/* So many bytes as their compact-u16 says; NULL: they are not there. */
static const uint8_t *read_counted(const uint8_t *at, const uint8_t *end, const uint8_t **bytes, size_t *count)
{
    at = ls_tx_length(at, end, count);
    if (at == NULL || (size_t)(end - at) < *count) {
        return NULL;
    }
    *bytes = at;
    return at + *count;
}

const uint8_t *ls_tx_instruction_at(const uint8_t *at, const uint8_t *end, ls_tx_instruction *out)
{
    if (at >= end) {
        return NULL;
    }
    out->program = *at++;
    at = read_counted(at, end, &out->accounts, &out->account_count);
    return at == NULL ? NULL : read_counted(at, end, &out->data, &out->data_size);
}
