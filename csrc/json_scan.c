#include "json_scan.h"

#include "utf8.h"

/* ── errors ─────────────────────────────────────────────────────────────────────────────────────────────────── */

static const char *const REASONS[LS_REASON_COUNT] = {
    [LS_OK] = "no error",
    [LS_TEXT_ENDS] = "text ends too early",
    [LS_TEXT_GOES_ON] = "text goes on after the message",
    [LS_NO_VALUE] = "expected a value",
    [LS_NO_KEY] = "expected a field name",
    [LS_NO_COLON] = "expected ':'",
    [LS_NO_COMMA_IN_OBJECT] = "expected ',' or '}'",
    [LS_NO_COMMA_IN_ARRAY] = "expected ',' or ']'",
    [LS_TOO_DEEP] = "nested deeper than 127 levels",
    [LS_BAD_LITERAL] = "invalid literal",
    [LS_BAD_NUMBER] = "invalid number",
    [LS_NUMBER_RANGE] = "number out of range",
    [LS_NOT_INTEGER] = "expected an integer, found a fraction or exponent",
    [LS_MINUS_ZERO] = "expected an integer, found -0",
    [LS_INTEGER_RANGE] = "out of range for",
    [LS_WRONG_KIND] = "expected",
    [LS_CONTROL_CHARACTER] = "control character in a string",
    [LS_BAD_ESCAPE] = "invalid escape",
    [LS_LONE_SURROGATE] = "lone surrogate",
    [LS_BAD_UTF8] = "invalid UTF-8",
    [LS_MISSING_FIELD] = "missing field",
    [LS_DUPLICATE_FIELD] = "duplicate field",
    [LS_UNKNOWN_TYPE] = "unknown message type",
};

const char *ls_reason_text(ls_reason reason)
{
    return REASONS[reason];
}

const uint8_t *ls_fail(ls_error *error, ls_reason reason, const uint8_t *at)
{
    error->reason = reason;
    error->at = at;
    return NULL;
}

/* What begins with this byte, or NULL if no value does. */
static const char *kind_of(uint8_t byte)
{
    switch (byte) {
    case '"':
        return "a string";
    case '{':
        return "an object";
    case '[':
        return "an array";
    case 't':
    case 'f':
        return "a boolean";
    case 'n':
        return "null";
    default:
        return byte == '-' || ls_is_digit(byte) ? "a number" : NULL;
    }
}

const uint8_t *ls_fail_kind(ls_error *error, const uint8_t *at, const uint8_t *end, const char *wanted)
{
    if (at == end) {
        return ls_fail(error, LS_TEXT_ENDS, at);
    }
    error->wanted = wanted;
    error->found = kind_of(*at);
    return ls_fail(error, error->found == NULL ? LS_NO_VALUE : LS_WRONG_KIND, at);
}

/* ── keys ───────────────────────────────────────────────────────────────────────────────────────────────────── */

void ls_prepare_key(ls_key *key, const uint8_t *text, size_t size)
{
    size_t head = size < 16 ? size : 16;
    memset(key, 0, sizeof *key);
    key->text = text;
    key->size = size;
    key->head_mask = (1U << head) - 1;
    memcpy(key->head, text, head);
    if (size > 16) {
        memcpy(key->tail, text + size - 16, 16);
    }
}

/* ── literals and numbers ───────────────────────────────────────────────────────────────────────────────────── */

const uint8_t *ls_scan_literal(const uint8_t *at, const uint8_t *end, ls_error *error)
{
    const char *word = *at == 't' ? "true" : *at == 'f' ? "false" : "null";
    size_t size = strlen(word);
    if ((size_t)(end - at) < size || memcmp(at, word, size) != 0) {
        return ls_fail(error, LS_BAD_LITERAL, at);
    }
    return at + size;
}

/* Takes a run of digits into the mantissa; `scale` is -1 per digit behind the decimal point. */
static const uint8_t *take_digits(const uint8_t *at, const uint8_t *end, int scale, ls_number *out, int *count)
{
    for (; at < end && ls_is_digit(*at); at++) {
        if (*count < 19) {
            out->mantissa = out->mantissa * 10 + (uint64_t)(*at - '0');
            *count += out->mantissa != 0; /* leading zeros are not significant */
            out->exponent += scale;
        }
        else {
            /* Cut off: exact only if all that follows is zeros. */
            out->is_exact = out->is_exact && *at == '0';
            out->exponent += scale + 1;
        }
    }
    return at;
}

static const uint8_t *take_exponent(const uint8_t *at, const uint8_t *end, ls_number *out)
{
    const int64_t limit = INT64_C(1000000000000); /* beyond any text's length, so zeros cannot make up for it */
    int is_negative = 0;
    int64_t value = 0;
    if (at < end && (*at == '+' || *at == '-')) {
        is_negative = *at == '-';
        at += 1;
    }
    if (at == end || !ls_is_digit(*at)) {
        return NULL;
    }
    for (; at < end && ls_is_digit(*at); at++) {
        value = value > limit ? value : value * 10 + (*at - '0');
    }
    out->exponent += is_negative ? -value : value;
    return at;
}

/* RFC 8259's grammar; NULL where it is broken. */
static const uint8_t *take_number(const uint8_t *at, const uint8_t *end, ls_number *out)
{
    int count = 0;
    if (at < end && *at == '-') {
        out->is_negative = 1;
        at += 1;
    }
    if (at == end || !ls_is_digit(*at)) {
        return NULL;
    }
    at = *at == '0' ? at + 1 : take_digits(at, end, 0, out, &count);
    if (at < end && *at == '.') {
        const uint8_t *fraction = at + 1;
        out->is_integer = 0;
        at = take_digits(fraction, end, -1, out, &count);
        if (at == fraction) {
            return NULL;
        }
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        out->is_integer = 0;
        at = take_exponent(at + 1, end, out);
    }
    return at;
}

const uint8_t *ls_scan_number(const uint8_t *at, const uint8_t *end, ls_number *out, ls_error *error)
{
    memset(out, 0, sizeof *out);
    out->begin = at;
    out->is_integer = 1;
    out->is_exact = 1;
    const uint8_t *behind = take_number(at, end, out);
    if (behind == NULL || (behind < end && ls_in_number(*behind))) { /* "01", "1-" */
        return ls_fail(error, LS_BAD_NUMBER, at);
    }
    out->end = behind;
    return behind;
}

/*
 * The smallest decimal that rounds to infinity, 2^1024 - 2^970: halfway between the largest double and the next power
 * of two, and halfway rounds to even, which is up. It has 309 digits.
 */
static const char OVERFLOW_DIGITS[] =
    "17976931348623158079372897140530341507993413271003782693617377898044496829276475094664901797758720709633028641669"
    "28879109465555478519404026306574886715058206819089020007083836762738548458177115317644757302700698555713669596228"
    "42914819860834936475292719074168444365510704342711559699508093042880177904174497792";
#define OVERFLOW_SIZE 309

int ls_number_overflows(const ls_number *number)
{
    /* value = 0.d1d2d3... * 10^magnitude, with d1 not 0. 20 covers the digits that a mantissa can have. */
    if (number->mantissa == 0 || number->exponent < OVERFLOW_SIZE - 20) {
        return 0;
    }
    int64_t magnitude = number->exponent;
    for (uint64_t rest = number->mantissa; rest != 0; rest /= 10) {
        magnitude += 1;
    }
    if (magnitude != OVERFLOW_SIZE) {
        return magnitude > OVERFLOW_SIZE;
    }
    int compared = 0;
    for (const uint8_t *at = number->begin; at < number->end && *at != 'e' && *at != 'E'; at++) {
        if (!ls_is_digit(*at) || (compared == 0 && *at == '0')) { /* sign, point, leading zeros */
            continue;
        }
        if (compared == OVERFLOW_SIZE) {
            return 1; /* equal so far; whatever follows only adds */
        }
        if (*at != OVERFLOW_DIGITS[compared]) {
            return *at > OVERFLOW_DIGITS[compared];
        }
        compared += 1;
    }
    while (compared < OVERFLOW_SIZE) { /* the digits not written are zeros */
        if (OVERFLOW_DIGITS[compared++] != '0') {
            return 0;
        }
    }
    return 1;
}

const uint8_t *ls_scan_integer_slow(
    const uint8_t *at, const uint8_t *end, const char *kind, uint64_t max, int is_signed, uint64_t *out,
    ls_error *error)
{
    ls_number number;
    const uint8_t *behind = ls_scan_number(at, end, &number, error);
    if (behind == NULL) {
        return NULL;
    }
    if (!number.is_integer) {
        return ls_fail(error, LS_NOT_INTEGER, at);
    }
    if (number.is_negative && number.mantissa == 0) {
        return ls_fail(error, LS_MINUS_ZERO, at);
    }
    error->wanted = kind;
    if ((number.is_negative && !is_signed) || number.end - number.begin > 20) {
        return ls_fail(error, LS_INTEGER_RANGE, at);
    }
    /* The mantissa holds 19 digits; a twentieth is added by hand, where it cannot overflow unseen. */
    uint64_t value = number.mantissa;
    if (number.exponent == 1) {
        uint64_t digit = (uint64_t)(number.end[-1] - '0');
        if (value > (UINT64_MAX - digit) / 10) {
            return ls_fail(error, LS_INTEGER_RANGE, at);
        }
        value = value * 10 + digit;
    }
    if (value > max + (uint64_t)number.is_negative) { /* two's complement reaches one further down */
        return ls_fail(error, LS_INTEGER_RANGE, at);
    }
    *out = number.is_negative ? 0 - value : value;
    return behind;
}

/* ── strings ────────────────────────────────────────────────────────────────────────────────────────────────── */

static int hex_value(uint8_t byte)
{
    if (ls_is_digit(byte)) {
        return byte - '0';
    }
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* The UTF-16 unit that \uXXXX spells at `at`, or -1 if there is none. */
static int32_t code_unit(const uint8_t *at, const uint8_t *end)
{
    if (end - at < 6 || at[0] != '\\' || at[1] != 'u') {
        return -1;
    }
    int32_t unit = 0;
    for (int index = 2; index < 6; index++) {
        int digit = hex_value(at[index]);
        if (digit < 0) {
            return -1;
        }
        unit = unit * 16 + digit;
    }
    return unit;
}

/* Checks the escape at `at`. Surrogates must come as a pair. */
static const uint8_t *check_escape(const uint8_t *at, const uint8_t *end, ls_error *error)
{
    if (end - at < 2) {
        return ls_fail(error, LS_TEXT_ENDS, end);
    }
    if (at[1] != 'u') {
        return at[1] != 0 && strchr("\"\\/bfnrt", at[1]) != NULL ? at + 2 : ls_fail(error, LS_BAD_ESCAPE, at);
    }
    int32_t unit = code_unit(at, end);
    if (unit < 0) {
        return ls_fail(error, LS_BAD_ESCAPE, at);
    }
    if (unit < 0xD800 || unit > 0xDFFF) {
        return at + 6;
    }
    int32_t low = code_unit(at + 6, end);
    if (unit >= 0xDC00 || low < 0xDC00 || low > 0xDFFF) {
        return ls_fail(error, LS_LONE_SURROGATE, at);
    }
    return at + 12;
}

const uint8_t *ls_scan_string_rest(const uint8_t *at, const uint8_t *end, ls_string *out, ls_error *error)
{
    while (at < end) {
        if (*at == '"') {
            out->end = at;
            return at + 1;
        }
        if (*at < 0x20) {
            return ls_fail(error, LS_CONTROL_CHARACTER, at);
        }
        if (*at == '\\') {
            out->is_escaped = 1;
            at = check_escape(at, end, error);
            if (at == NULL) {
                return NULL;
            }
        }
        else if (*at >= 0x80) {
            size_t size = ls_utf8_sequence(at, end);
            if (size == 0) {
                return ls_fail(error, LS_BAD_UTF8, at);
            }
            out->is_ascii = 0;
            at += size;
        }
        else {
            at = ls_plain_run(at, end);
        }
    }
    return ls_fail(error, LS_TEXT_ENDS, end);
}

static uint8_t simple_escape(uint8_t letter)
{
    switch (letter) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return letter; /* quote, backslash, slash */
    }
}

size_t ls_unescape(const ls_string *string, uint8_t *out)
{
    uint8_t *to = out;
    const uint8_t *at = string->begin;
    while (at < string->end) {
        if (*at != '\\') {
            *to++ = *at++;
        }
        else if (at[1] != 'u') {
            *to++ = simple_escape(at[1]);
            at += 2;
        }
        else {
            uint32_t code_point = (uint32_t)code_unit(at, string->end);
            at += 6;
            if (code_point >= 0xD800 && code_point <= 0xDFFF) {
                uint32_t low = (uint32_t)code_unit(at, string->end);
                code_point = 0x10000 + ((code_point - 0xD800) << 10) + (low - 0xDC00);
                at += 6;
            }
            to += ls_utf8_write(code_point, to); /* at most 4 bytes for 12, 3 for 6: there is room */
        }
    }
    return (size_t)(to - out);
}

/* ── whole values ───────────────────────────────────────────────────────────────────────────────────────────── */

const uint8_t *ls_scan_key(const uint8_t *at, const uint8_t *end, ls_string *out, ls_error *error)
{
    if (at == end || *at != '"') {
        return ls_fail(error, at == end ? LS_TEXT_ENDS : LS_NO_KEY, at);
    }
    at = ls_scan_string(at, end, out, error);
    if (at == NULL) {
        return NULL;
    }
    at = ls_skip_space(at, end);
    if (at == end || *at != ':') {
        return ls_fail(error, at == end ? LS_TEXT_ENDS : LS_NO_COLON, at);
    }
    return ls_skip_space(at + 1, end);
}

static const uint8_t *skip_scalar(const uint8_t *at, const uint8_t *end, ls_error *error)
{
    if (*at == '"') {
        ls_string string;
        return ls_scan_string(at, end, &string, error);
    }
    if (*at == 't' || *at == 'f' || *at == 'n') {
        return ls_scan_literal(at, end, error);
    }
    if (*at != '-' && !ls_is_digit(*at)) {
        return ls_fail(error, LS_NO_VALUE, at);
    }
    ls_number number;
    const uint8_t *behind = ls_scan_number(at, end, &number, error);
    if (behind != NULL && ls_number_overflows(&number)) {
        return ls_fail(error, LS_NUMBER_RANGE, at);
    }
    return behind;
}

/* What closes and separates on every level that is open; a stack of bytes instead of recursion. */
typedef struct {
    int depth;
    uint8_t closing[LS_MAX_DEPTH + 1];
} ls_levels;

/* At a value: returns the byte behind it if it is a scalar or empty, else the first value inside; sets `is_done`. */
static const uint8_t *enter_value(
    const uint8_t *at, const uint8_t *end, ls_levels *levels, int *is_done, ls_error *error)
{
    *is_done = 1;
    if (at == end) {
        return ls_fail(error, LS_TEXT_ENDS, at);
    }
    if (*at != '{' && *at != '[') {
        return skip_scalar(at, end, error);
    }
    if (levels->depth >= LS_MAX_DEPTH) {
        return ls_fail(error, LS_TOO_DEEP, at);
    }
    uint8_t closing = *at == '{' ? '}' : ']';
    at = ls_skip_space(at + 1, end);
    if (at < end && *at == closing) {
        return at + 1;
    }
    *is_done = 0;
    levels->depth += 1;
    levels->closing[levels->depth] = closing;
    ls_string key;
    return closing == '}' ? ls_scan_key(at, end, &key, error) : at;
}

/* Behind a value: closes levels down to `base`, or returns the next value on the innermost one; sets `is_done`. */
static const uint8_t *leave_value(
    const uint8_t *at, const uint8_t *end, ls_levels *levels, int base, int *is_done, ls_error *error)
{
    *is_done = 1;
    while (levels->depth > base) {
        uint8_t closing = levels->closing[levels->depth];
        at = ls_skip_space(at, end);
        if (at == end) {
            return ls_fail(error, LS_TEXT_ENDS, at);
        }
        if (*at == closing) {
            levels->depth -= 1;
            at += 1;
            continue;
        }
        if (*at != ',') {
            return ls_fail(error, closing == '}' ? LS_NO_COMMA_IN_OBJECT : LS_NO_COMMA_IN_ARRAY, at);
        }
        *is_done = 0;
        at = ls_skip_space(at + 1, end);
        ls_string key;
        return closing == '}' ? ls_scan_key(at, end, &key, error) : at;
    }
    return at;
}

const uint8_t *ls_skip_value(const uint8_t *at, const uint8_t *end, int depth, ls_error *error)
{
    ls_levels levels = {.depth = depth};
    int is_done = 0;
    do {
        at = enter_value(at, end, &levels, &is_done, error);
        if (at != NULL && is_done) {
            at = leave_value(at, end, &levels, depth, &is_done, error);
        }
    } while (at != NULL && !is_done);
    return at;
}
