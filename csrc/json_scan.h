/*
 * JSON text as UTF-8 bytes, read one token at a time: the rules of RFC 8259 and nothing of our messages.
 *
 * Plain C: no Python, no allocation, no recursion. The text is [at, end); nothing before `at` or at and behind `end`
 * is read. A function takes a token's first byte and returns the byte behind the token, or NULL after it filled
 * `error`. The text is scanned from left to right and the first byte that breaks a rule is the error; the fallback,
 * lasersell_sync/_pure/json_scan.py, gives the same reason at the same byte.
 *
 * What a well-formed message of the server needs is inline here; the rest is in json_scan.c.
 */
#ifndef LASERSELL_JSON_SCAN_H
#define LASERSELL_JSON_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Objects and arrays inside one another, the message itself included; as the reference implementation counts. */
#define LS_MAX_DEPTH 127

typedef enum {
    LS_OK = 0,
    LS_TEXT_ENDS,
    LS_TEXT_GOES_ON,
    LS_NO_VALUE,
    LS_NO_KEY,
    LS_NO_COLON,
    LS_NO_COMMA_IN_OBJECT,
    LS_NO_COMMA_IN_ARRAY,
    LS_TOO_DEEP,
    LS_BAD_LITERAL,
    LS_BAD_NUMBER,
    LS_NUMBER_RANGE,
    LS_NOT_INTEGER,
    LS_MINUS_ZERO,
    LS_INTEGER_RANGE, /* `wanted` is the integer's kind */
    LS_WRONG_KIND,    /* `wanted` and `found` are set */
    LS_CONTROL_CHARACTER,
    LS_BAD_ESCAPE,
    LS_LONE_SURROGATE,
    LS_BAD_UTF8,
    LS_MISSING_FIELD,
    LS_DUPLICATE_FIELD,
    LS_UNKNOWN_TYPE, /* the caller knows the type's name */
    LS_REASON_COUNT
} ls_reason;

typedef struct {
    ls_reason reason;
    const uint8_t *at;
    const char *wanted;
    const char *found;
} ls_error;

/* A string's bytes between its quotes. */
typedef struct {
    const uint8_t *begin;
    const uint8_t *end;
    int is_ascii;   /* no byte above 0x7F */
    int is_escaped; /* has a backslash: use ls_unescape */
} ls_string;

/* A number, as far as its kind matters to the reader. */
typedef struct {
    const uint8_t *begin;
    const uint8_t *end;
    int is_negative;
    int is_integer;    /* neither fraction nor exponent */
    int is_exact;      /* |value| is mantissa * 10^exponent, nothing was cut off */
    uint64_t mantissa; /* the first 19 digits */
    int64_t exponent;
} ls_number;

/* In words, for LS_WRONG_KIND etc. the part before the details. Never NULL. */
const char *ls_reason_text(ls_reason reason);

/* Sets the error and returns NULL, so that a failure is one statement. */
const uint8_t *ls_fail(ls_error *error, ls_reason reason, const uint8_t *at);

/* No value of the kind `wanted` ("a string") begins at `at`: says what begins there instead. */
const uint8_t *ls_fail_kind(ls_error *error, const uint8_t *at, const uint8_t *end, const char *wanted);

const uint8_t *ls_scan_number(const uint8_t *at, const uint8_t *end, ls_number *out, ls_error *error);

/* True if the number is so large that its nearest double is infinite. Exact, whatever its length. */
int ls_number_overflows(const ls_number *number);

/* `true`, `false` or `null`; the first byte says which it must be. */
const uint8_t *ls_scan_literal(const uint8_t *at, const uint8_t *end, ls_error *error);

/* Checks one whole value inside `depth` levels and forgets it. */
const uint8_t *ls_skip_value(const uint8_t *at, const uint8_t *end, int depth, ls_error *error);

/* The rest of a string from its first byte that is not plain; `out` has its beginning. */
const uint8_t *ls_scan_string_rest(const uint8_t *at, const uint8_t *end, ls_string *out, ls_error *error);

/* Writes a checked string without its escapes, as UTF-8; `out` has room for string->end - string->begin bytes. */
size_t ls_unescape(const ls_string *string, uint8_t *out);

/* A field's name, its colon and the space behind: returns the value's first byte. */
const uint8_t *ls_scan_key(const uint8_t *at, const uint8_t *end, ls_string *out, ls_error *error);

/* An integer that the fast reader below did not take: what is wrong with it, or its value after all. */
const uint8_t *ls_scan_integer_slow(
    const uint8_t *at, const uint8_t *end, const char *kind, uint64_t max, int is_signed, uint64_t *out,
    ls_error *error);

/* ── bytes ──────────────────────────────────────────────────────────────────────────────────────────────────── */

static inline uint64_t ls_load64(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, 8); /* alignment is not promised; compilers make this one load */
    return word;
}

/* Zero bits below the lowest set bit; `bits` is not 0. */
static inline unsigned ls_lowest_bit(uint64_t bits)
{
#if defined(__GNUC__) || defined(__clang__)
    return (unsigned)__builtin_ctzll(bits);
#else
    unsigned index = 0;
    while (!(bits & 1)) {
        bits >>= 1;
        index += 1;
    }
    return index;
#endif
}

static inline int ls_is_digit(uint8_t byte)
{
    return (uint8_t)(byte - '0') <= 9;
}

/* Could this byte continue a number? Then the digits before it are not all of it. */
static inline int ls_in_number(uint8_t byte)
{
    return ls_is_digit(byte) || byte == '.' || byte == 'e' || byte == 'E' || byte == '-' || byte == '+';
}

static inline const uint8_t *ls_skip_space(const uint8_t *at, const uint8_t *end)
{
    if (at < end && *at > ' ') { /* the server writes none */
        return at;
    }
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) {
        at += 1;
    }
    return at;
}

static inline uint32_t ls_load32(const uint8_t *at)
{
    uint32_t word;
    memcpy(&word, at, 4);
    return word;
}

#if defined(__SSE2__)
/* One bit for each of 16 bytes: are they the same? */
static inline unsigned ls_equal16(const uint8_t *one, const uint8_t *other)
{
    return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(
        _mm_loadu_si128((const __m128i *)(const void *)one), _mm_loadu_si128((const __m128i *)(const void *)other)));
}
#endif

/* memcmp() == 0 for short texts, without the call: compares words, the last one overlapping the one before. */
static inline int ls_same_bytes(const uint8_t *one, const uint8_t *other, size_t size)
{
#if defined(__SSE2__)
    if (size >= 16) {
        for (size_t done = 0; done + 16 < size; done += 16) {
            if (ls_equal16(one + done, other + done) != 0xFFFF) {
                return 0;
            }
        }
        return ls_equal16(one + size - 16, other + size - 16) == 0xFFFF;
    }
#endif
    if (size >= 8) {
        if (ls_load64(one) != ls_load64(other) || ls_load64(one + size - 8) != ls_load64(other + size - 8)) {
            return 0;
        }
        for (size_t done = 8; done + 8 < size; done += 8) {
            if (ls_load64(one + done) != ls_load64(other + done)) {
                return 0;
            }
        }
        return 1;
    }
    if (size >= 4) {
        return ls_load32(one) == ls_load32(other) && ls_load32(one + size - 4) == ls_load32(other + size - 4);
    }
    /* First, middle and last cover one to three bytes. */
    return size == 0 ||
           (one[0] == other[0] && one[size / 2] == other[size / 2] && one[size - 1] == other[size - 1]);
}

/* A word of the text's ends and its size, to look it up by: the ends tell public keys apart. */
static inline uint64_t ls_hash(const uint8_t *at, size_t size)
{
    uint64_t first = 0, last = 0;
    if (size >= 8) {
        first = ls_load64(at);
        last = ls_load64(at + size - 8);
    }
    else if (size >= 4) {
        first = ls_load32(at);
        last = ls_load32(at + size - 4);
    }
    else if (size > 0) {
        first = (uint64_t)at[0] << 16 | (uint64_t)at[size / 2] << 8 | at[size - 1];
    }
    return (first ^ (last << 23 | last >> 41) ^ size) * UINT64_C(0x9E3779B97F4A7C15);
}

/* Do the `size` bytes of `key` come next? */
static inline int ls_starts_with(const uint8_t *at, const uint8_t *end, const uint8_t *key, size_t size)
{
    return (size_t)(end - at) >= size && ls_same_bytes(at, key, size);
}

/* ── keys ───────────────────────────────────────────────────────────────────────────────────────────────────── */

/* A field's name as it stands behind another field, ,"name": and made ready to be compared 16 bytes at a time. */
typedef struct {
    const uint8_t *text;
    size_t size;
    uint8_t head[16]; /* the first bytes, as many as there are */
    uint8_t tail[16]; /* the last ones, of a key of more than 16 */
    unsigned head_mask; /* one bit for each byte of the head */
} ls_key;

#define LS_MAX_KEY 68 /* comma, quotes, colon, and a name of 64 bytes */

void ls_prepare_key(ls_key *key, const uint8_t *text, size_t size);

/* Does the key come next, its comma at `at`? With `no_comma`, whatever stands there is taken for one. LS_MAX_KEY readable. */
static inline int ls_wide_key_comes(const ls_key *key, const uint8_t *at, unsigned no_comma)
{
#if defined(__SSE2__)
    unsigned same = ls_equal16(at, key->head) | no_comma;
    if ((same & key->head_mask) != key->head_mask) {
        return 0;
    }
    if (key->size <= 32) {
        return key->size <= 16 || ls_equal16(at + key->size - 16, key->tail) == 0xFFFF;
    }
#endif
    return ls_same_bytes(at + no_comma, key->text + no_comma, key->size - no_comma);
}

/* The same in a text that ends at `end`; bytes up to `limit` may be read. */
static inline int ls_key_comes(
    const ls_key *key, const uint8_t *at, const uint8_t *end, const uint8_t *limit, unsigned no_comma)
{
    if ((size_t)(end - at) < key->size) {
        return 0;
    }
    if (limit - at >= LS_MAX_KEY) {
        return ls_wide_key_comes(key, at, no_comma);
    }
    return ls_same_bytes(at + no_comma, key->text + no_comma, key->size - no_comma);
}

/* ── strings ────────────────────────────────────────────────────────────────────────────────────────────────── */

/* The first byte that is not plain text: a quote, a backslash, a control character, or above 0x7F; else `end`. */
static inline const uint8_t *ls_plain_run(const uint8_t *at, const uint8_t *end)
{
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"');
    const __m128i backslash = _mm_set1_epi8('\\');
    const __m128i space = _mm_set1_epi8(' ');
    while (end - at >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)at);
        /* The comparison is signed: bytes above 0x7F are negative, so below a space like the control characters. */
        __m128i special = _mm_or_si128(
            _mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash)),
            _mm_cmplt_epi8(bytes, space));
        unsigned mask = (unsigned)_mm_movemask_epi8(special);
        if (mask != 0) {
            return at + ls_lowest_bit(mask);
        }
        at += 16;
    }
#endif
    while (at < end && *at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\') {
        at += 1;
    }
    return at;
}

/* A string from its opening quote; bytes up to `limit` may be read. */
static inline const uint8_t *ls_scan_string_wide(
    const uint8_t *at, const uint8_t *end, const uint8_t *limit, ls_string *out, ls_error *error)
{
    out->begin = at + 1;
    out->is_ascii = 1;
    out->is_escaped = 0;
    at = ls_plain_run(at + 1, limit);
    if (at < end && *at == '"') {
        out->end = at;
        return at + 1;
    }
    return ls_scan_string_rest(at < end ? at : end, end, out, error);
}

static inline const uint8_t *ls_scan_string(const uint8_t *at, const uint8_t *end, ls_string *out, ls_error *error)
{
    return ls_scan_string_wide(at, end, end, out, error);
}

/* ── integers ───────────────────────────────────────────────────────────────────────────────────────────────── */

#if defined(_WIN32) || (defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
#define LS_WIDE_DIGITS 1

static const uint64_t LS_POWERS_OF_TEN[9] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};

/*
 * How many of a word's characters are digits before the first that is none (0 to 8); the word is XORed with '0's.
 * A digit has become 0 to 9; adding 0x76 sets the top bit of everything else. A carry can only come out of a byte that
 * is itself no digit, so the first mark is right, and only the first is used.
 */
static inline unsigned ls_word_digits(uint64_t word)
{
    uint64_t marks = ((word + UINT64_C(0x7676767676767676)) | word) & UINT64_C(0x8080808080808080);
    return marks == 0 ? 8 : ls_lowest_bit(marks) >> 3;
}

/*
 * The value of a word's first `count` (1 to 8) digits. The shift drops what follows them and puts zeros in front; then
 * neighbours are joined: pairs, fours, all eight.
 */
static inline uint64_t ls_word_value(uint64_t word, unsigned count)
{
    word <<= 64 - 8 * count;
    word = word * 10 + (word >> 8);
    return ((word & UINT64_C(0x000000FF000000FF)) * UINT64_C(0x000F424000000064) +
            ((word >> 16) & UINT64_C(0x000000FF000000FF)) * UINT64_C(0x0000271000000001)) >> 32;
}

/* The next 16 characters, XORed with '0's; zero bytes (no digits) for those behind the end. The text has 16 or more. */
static inline void ls_load_digits(const uint8_t *at, const uint8_t *end, uint64_t words[2])
{
    const uint64_t zeros = UINT64_C(0x3030303030303030);
    size_t left = (size_t)(end - at);
    if (left >= 16) {
        words[0] = ls_load64(at) ^ zeros;
        words[1] = ls_load64(at + 8) ^ zeros;
    }
    else if (left > 8) {
        words[0] = ls_load64(at) ^ zeros;
        words[1] = (ls_load64(end - 8) >> (8 * (16 - left))) ^ zeros;
    }
    else {
        words[0] = left == 0 ? zeros : (ls_load64(end - 8) >> (8 * (8 - left))) ^ zeros;
        words[1] = zeros;
    }
}

#if defined(__SSE2__)
/*
 * As ls_sixteen_digits, for 16 readable bytes on both sides of `at`. The digits are loaded once more so that they end the
 * 16 bytes, what stands before them is cleared, and neighbours are joined: pairs, fours, eights.
 */
static inline unsigned ls_sixteen_digits_wide(const uint8_t *at, uint64_t *value)
{
    static const uint8_t clear_before[32] = {
        0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,
        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    };
    const __m128i zeros = _mm_set1_epi8('0');
    __m128i digits = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)(const void *)at), zeros);
    unsigned are_digits = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(digits, _mm_set1_epi8(9)), digits));
    unsigned count = ls_lowest_bit(~are_digits); /* bits above 16 are set */
    digits = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)(const void *)(at + count - 16)), zeros);
    digits = _mm_and_si128(digits, _mm_loadu_si128((const __m128i *)(const void *)(clear_before + count)));
    __m128i pairs = _mm_add_epi16(
        _mm_mullo_epi16(_mm_and_si128(digits, _mm_set1_epi16(0xFF)), _mm_set1_epi16(10)), _mm_srli_epi16(digits, 8));
    __m128i fours = _mm_madd_epi16(pairs, _mm_set1_epi32(1 << 16 | 100));
    __m128i eights = _mm_madd_epi16(_mm_packs_epi32(fours, fours), _mm_set1_epi32(1 << 16 | 10000));
    uint64_t joined;
    _mm_storel_epi64((__m128i *)(void *)&joined, eights);
    *value = (joined & 0xFFFFFFFF) * 100000000 + (joined >> 32);
    return count;
}
#endif

/* How many of the next 16 characters are digits before the first that is none, and their value. */
static inline unsigned ls_sixteen_digits(const uint8_t *begin, const uint8_t *at, const uint8_t *end, uint64_t *value)
{
#if defined(__SSE2__)
    if (at - begin >= 16 && end - at >= 16) {
        return ls_sixteen_digits_wide(at, value);
    }
#else
    (void)begin;
#endif
    uint64_t words[2];
    ls_load_digits(at, end, words);
    unsigned count = ls_word_digits(words[0]);
    if (count == 8) {
        unsigned more = ls_word_digits(words[1]);
        *value = ls_word_value(words[0], 8);
        if (more > 0) {
            *value = *value * LS_POWERS_OF_TEN[more] + ls_word_value(words[1], more);
        }
        return 8 + more;
    }
    if (count > 0) {
        *value = ls_word_value(words[0], count);
    }
    return count;
}
#endif

/*
 * The fast reader of unsigned digits: returns the byte behind them if they are a whole JSON integer of at most 19
 * digits, else NULL, which only means that ls_scan_integer_slow must look. Does not fill an error. `begin` is the
 * text's: bytes before `at` may be read.
 */
static inline const uint8_t *ls_scan_digits(
    const uint8_t *begin, const uint8_t *at, const uint8_t *end, uint64_t *out)
{
    const uint8_t *first = at;
    uint64_t value = 0;
#ifdef LS_WIDE_DIGITS
    if (end - begin >= 16) {
        at += ls_sixteen_digits(begin, at, end, &value);
    }
#else
    (void)begin;
#endif
    if (at - first == 16 || at == first) { /* there may be more, or the words could not be read */
        for (; at < end && ls_is_digit(*at); at++) {
            if (at - first >= 19) { /* the twentieth digit may overflow */
                return NULL;
            }
            value = value * 10 + (uint64_t)(*at - '0');
        }
        if (at == first) {
            return NULL;
        }
    }
    if (*first == '0' && at - first > 1) {
        return NULL;
    }
    *out = value;
    return at == end || (*at != ',' && *at != '}' && ls_in_number(*at)) ? NULL : at;
}

/* What stands behind nearly every value. */
static inline int ls_ends_value(uint8_t byte)
{
    return byte == ',' || byte == '}';
}

/*
 * As ls_scan_digits, for 1 to 16 digits with a comma or brace behind them. Readable must be 16 bytes before `at`, and 17
 * from there on.
 */
static inline const uint8_t *ls_scan_usual_digits(const uint8_t *at, uint64_t *out)
{
#if defined(LS_WIDE_DIGITS)
    unsigned count = ls_sixteen_digits(at - 16, at, at + 16, out);
    if (count - 1 < 16 && (*at != '0' || count == 1) && ls_ends_value(at[count])) {
        return at + count;
    }
#else
    (void)at, (void)out;
#endif
    return NULL;
}

/*
 * The fast reader of short decimals such as 12.5 or -3: at most 15 digits, no exponent. Returns NULL for everything
 * else, which only means that ls_scan_number must look. The value is mantissa / 10^scale, both exact as doubles.
 */
static inline const uint8_t *ls_scan_decimal(
    const uint8_t *begin, const uint8_t *at, const uint8_t *end, uint64_t *mantissa, unsigned *scale)
{
#ifdef LS_WIDE_DIGITS
    if (end - begin < 16) {
        return NULL;
    }
    const uint8_t *first = at;
    unsigned count = ls_sixteen_digits(begin, at, end, mantissa);
    at += count;
    *scale = 0;
    if (count == 0 || (*first == '0' && count > 1)) {
        return NULL;
    }
    if (at < end && *at == '.') {
        uint64_t fraction = 0;
        *scale = ls_sixteen_digits(begin, at + 1, end, &fraction);
        if (*scale == 0 || *scale > 8) {
            return NULL;
        }
        *mantissa = *mantissa * LS_POWERS_OF_TEN[*scale] + fraction;
        count += *scale;
        at += 1 + *scale;
    }
    return count > 15 || at == end || ls_in_number(*at) ? NULL : at;
#else
    (void)begin, (void)at, (void)end, (void)mantissa, (void)scale;
    return NULL;
#endif
}

#endif
