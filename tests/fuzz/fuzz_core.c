/*
 * The plain C below the compiled core, under a fuzzer or a sanitizer, without Python. README.md says how to run it.
 *
 * Every input is copied to a block of exactly its size, so that a read before or behind it is seen. Besides crashes,
 * promises are checked that hold for any input; a broken one aborts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_scan.h"
#include "tx_wire.h"
#include "utf8.h"
#include "ws_frame.h"

#define PROMISE(condition)                                                        \
    do {                                                                          \
        if (!(condition)) {                                                       \
            fprintf(stderr, "line %d: broken promise: %s\n", __LINE__, #condition); \
            abort();                                                              \
        }                                                                         \
    } while (0)

/* Our own loops teach a fuzzer nothing, and watching them costs half of its time. */
#if defined(__clang__)
#define UNWATCHED __attribute__((no_sanitize("coverage")))
#else
#define UNWATCHED
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ── JSON ───────────────────────────────────────────────────────────────────────────────────────────────────── */

static void check_error(const ls_error *error, const uint8_t *begin, const uint8_t *end)
{
    PROMISE(error->reason > LS_OK && error->reason < LS_REASON_COUNT);
    PROMISE(error->at >= begin && error->at <= end);
    PROMISE(ls_reason_text(error->reason) != NULL);
}

static void check_string(const uint8_t *at, const uint8_t *end)
{
    ls_error error = {0};
    ls_string string;
    const uint8_t *behind = ls_scan_string(at, end, &string, &error);
    if (behind == NULL) {
        check_error(&error, at, end);
        return;
    }
    size_t size = (size_t)(string.end - string.begin);
    PROMISE(behind == string.end + 1 && *string.end == '"');
    PROMISE(ls_utf8_find_error(string.begin, string.end) == string.end);
    uint8_t *plain = malloc(size + 1);
    size_t plain_size = ls_unescape(&string, plain);
    PROMISE(plain_size <= size);
    PROMISE(ls_utf8_find_error(plain, plain + plain_size) == plain + plain_size);
    free(plain);
}

static void check_number(const uint8_t *begin, const uint8_t *at, const uint8_t *end)
{
    ls_error error = {0};
    ls_number number;
    const uint8_t *behind = ls_scan_number(at, end, &number, &error);
    if (behind != NULL) {
        PROMISE(number.begin == at && number.end == behind && behind > at);
        char text[512];
        size_t size = (size_t)(behind - at);
        if (size < sizeof text) {
            memcpy(text, at, size);
            text[size] = 0;
            double value = strtod(text, NULL);
            PROMISE((value - value != 0) == ls_number_overflows(&number));
        }
    }
    /* The fast readers take a subset, and agree on it. */
    uint64_t fast, slow;
    const uint8_t *fast_behind = ls_scan_digits(begin, at, end, &fast);
    const uint8_t *slow_behind = NULL;
    if (at < end) {
        slow_behind = ls_scan_integer_slow(at, end, "u64", UINT64_MAX, 0, &slow, &error);
    }
    PROMISE(fast_behind == NULL || (fast_behind == slow_behind && fast == slow) || fast_behind == end);
    unsigned scale;
    const uint8_t *decimal_behind = ls_scan_decimal(begin, at, end, &fast, &scale);
    if (decimal_behind != NULL) {
        PROMISE(decimal_behind == behind && number.is_exact && scale <= 8);
        for (; number.exponent < 0 && number.mantissa != 0 && number.exponent + (int64_t)scale > 0; scale--) {
            fast /= 10;
        }
        PROMISE(number.mantissa == fast);
    }
}

/* A sign, or one of the first two digits of a run; what the others begin is the same again. */
UNWATCHED static int begins_number(const uint8_t *begin, const uint8_t *at)
{
    return *at == '-' || (ls_is_digit(*at) && (at - begin < 2 || !ls_is_digit(at[-1]) || !ls_is_digit(at[-2])));
}

UNWATCHED static void check_json(const uint8_t *begin, const uint8_t *end)
{
    ls_error error = {0};
    const uint8_t *at = ls_skip_space(begin, end);
    const uint8_t *behind = ls_skip_value(at, end, 0, &error);
    if (behind == NULL) {
        check_error(&error, begin, end);
    }
    else {
        PROMISE(behind > at && behind <= end);
    }
    for (at = begin; at < end; at++) {
        if (*at == '"') {
            check_string(at, end);
            ls_string key;
            if (ls_scan_key(at, end, &key, &error) == NULL) {
                check_error(&error, begin, end);
            }
        }
        if (begins_number(begin, at)) {
            check_number(begin, at, end);
        }
    }
}

/* ── frames ─────────────────────────────────────────────────────────────────────────────────────────────────── */

#define MAX_MESSAGE 200 /* low enough for small inputs to break it */

UNWATCHED static uint64_t add_to_digest(uint64_t digest, const ls_ws_message *message)
{
    digest = (digest ^ message->opcode ^ message->size << 8) * 1099511628211u;
    for (size_t index = 0; index < message->size; index++) {
        digest = (digest ^ message->payload[index]) * 1099511628211u;
    }
    return digest;
}

/* A digest of everything that comes out, the bytes being fed in pieces of `step`. Every piece ends where its block
 * ends, and is overwritten by the next one: neither a read behind it nor a pointer kept into it goes unseen. */
UNWATCHED static uint64_t feed(const uint8_t *data, size_t size, size_t step)
{
    ls_ws_parser parser;
    ls_ws_message message;
    ls_ws_result result = LS_WS_MORE;
    uint64_t digest = 1469598103934665603u;
    uint8_t *block = malloc(step);
    ls_ws_init(&parser, MAX_MESSAGE);
    for (size_t from = 0; from < size; from += step) {
        size_t piece = size - from < step ? size - from : step;
        const uint8_t *at = block + step - piece;
        memcpy(block + step - piece, data + from, piece);
        while ((result = ls_ws_next(&parser, &at, block + step, &message)) == LS_WS_COMPLETE) {
            PROMISE(message.size <= MAX_MESSAGE);
            PROMISE(message.opcode != 1 || ls_utf8_find_error(message.payload, message.payload + message.size) ==
                                               message.payload + message.size);
            digest = add_to_digest(digest, &message);
        }
        PROMISE(result == LS_WS_DONE || (result == LS_WS_MORE && at == block + step));
        PROMISE(ls_ws_buffered(&parser) <= from + piece);
        PROMISE(parser.message_capacity <= 2 * MAX_MESSAGE + 4096);
    }
    free(block);
    char words[128];
    ls_ws_describe(&parser, words, sizeof words);
    digest = (digest ^ (uint64_t)parser.problem ^ parser.problem_detail << 4) * 1099511628211u;
    digest = (digest ^ ls_ws_buffered(&parser)) * 1099511628211u;
    ls_ws_free(&parser);
    return digest;
}

static void check_frames(const uint8_t *data, size_t size)
{
    uint64_t whole = feed(data, size, size);
    PROMISE(feed(data, size, 1) == whole);
    PROMISE(feed(data, size, 7) == whole);
}

UNWATCHED static void check_masking(const uint8_t *data, size_t size)
{
    uint8_t header[LS_WS_MAX_HEADER];
    const uint8_t mask[4] = {1, 2, 3, 250};
    PROMISE(ls_ws_write_header(header, 2, size, mask) <= LS_WS_MAX_HEADER);
    uint8_t *masked = malloc(size);
    ls_ws_mask(masked, data, size, mask);
    ls_ws_mask(masked, masked, size, mask);
    PROMISE(memcmp(masked, data, size) == 0);
    free(masked);
}

/* ── transactions ───────────────────────────────────────────────────────────────────────────────────────────── */

UNWATCHED static void encode_base64(const uint8_t *raw, size_t size, uint8_t *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t at = 0; at < size; at += 3, out += 4) {
        uint32_t group = (uint32_t)raw[at] << 16 | (at + 1 < size ? (uint32_t)raw[at + 1] << 8 : 0) |
                         (at + 2 < size ? raw[at + 2] : 0);
        out[0] = (uint8_t)digits[group >> 18];
        out[1] = (uint8_t)digits[group >> 12 & 63];
        out[2] = (uint8_t)(at + 1 < size ? digits[group >> 6 & 63] : '=');
        out[3] = (uint8_t)(at + 2 < size ? digits[group & 63] : '=');
    }
}

/* Decodes into a block of exactly the size that is enough. */
static void check_base64(const uint8_t *data, size_t size)
{
    size_t text_size = (size + 2) / 3 * 4;
    uint8_t *text = malloc(text_size < size ? size : text_size);
    uint8_t *raw = malloc(size / 4 * 3);
    ptrdiff_t found = ls_base64_decode(data, data + size, raw);
    if (found >= 0) {
        PROMISE((size_t)found <= size / 4 * 3 && ((size_t)found + 2) / 3 * 4 == size);
        encode_base64(raw, (size_t)found, text);
        PROMISE(memcmp(text, data, size) == 0);
    }
    free(raw);
    raw = malloc(text_size / 4 * 3);
    encode_base64(data, size, text);
    PROMISE(ls_base64_decode(text, text + text_size, raw) == (ptrdiff_t)size);
    PROMISE(memcmp(raw, data, size) == 0);
    free(raw);
    free(text);
}

static void check_instructions(const uint8_t *at, const uint8_t *end)
{
    size_t length = 0;
    ls_tx_instruction item;
    const uint8_t *behind = ls_tx_length(at, end, &length);
    PROMISE(behind == NULL || (behind > at && behind <= end && behind - at <= 3 && length >> 21 == 0));
    while ((behind = ls_tx_instruction_at(at, end, &item)) != NULL) {
        PROMISE(item.program == *at && item.accounts > at && item.accounts + item.account_count < item.data);
        PROMISE(item.data + item.data_size == behind && behind <= end);
        at = behind;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    uint8_t *copy = malloc(size);
    memcpy(copy, data, size);
    ls_utf8_find_error(copy, copy + size);
    check_json(copy, copy + size);
    check_frames(copy, size);
    check_masking(copy, size);
    check_base64(copy, size);
    check_instructions(copy, copy + size);
    free(copy);
    return 0;
}

/* ── without a fuzzer: mutations of given texts ─────────────────────────────────────────────────────────────── */

#ifdef FUZZ_STANDALONE

static uint64_t random_state;

static uint64_t next_random(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

static size_t mutate(const uint8_t *text, size_t size, uint8_t *out, size_t room)
{
    static const char *const tokens[] = {
        "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u", "\\ud800", "null", "-", "0", ".", "e9", "99999999999999999999",
        "\x81", "\x81\x7e", "\x81\x7f", "\x88\x02\x03\xe8", "\x01\x03", "\xed\xa0\x80", "\xf0\x9f\x9a\x80", "\x1f",
    };
    memcpy(out, text, size);
    for (uint64_t times = 1 + next_random(4); times > 0; times--) {
        size_t at = (size_t)next_random(size + 1);
        uint64_t kind = next_random(4);
        if (kind == 0 && at < size) {
            out[at] = (uint8_t)next_random(256);
        }
        else if (kind == 1) {
            size = at == 0 ? size : at;
        }
        else if (kind == 2 && at < size) {
            size_t gone = 1 + (size_t)next_random(size - at);
            memmove(out + at, out + at + gone, size - at - gone);
            size -= gone;
        }
        else {
            const char *token = tokens[next_random(sizeof tokens / sizeof *tokens)];
            size_t more = strlen(token);
            if (size + more <= room) {
                memmove(out + at + more, out + at, size - at);
                memcpy(out + at, token, more);
                size += more;
            }
        }
    }
    return size;
}

/* usage: fuzz_core FILE ROUNDS SEED; the file holds texts, each behind its size as four bytes, lowest first. */
int main(int count, char **arguments)
{
    FILE *file = count == 4 ? fopen(arguments[1], "rb") : NULL;
    if (file == NULL) {
        fprintf(stderr, "usage: %s FILE ROUNDS SEED\n", arguments[0]);
        return 2;
    }
    unsigned long rounds = strtoul(arguments[2], NULL, 10);
    random_state = strtoull(arguments[3], NULL, 10) * 2654435761u + 88172645463325252u;
    uint8_t prefix[4];
    unsigned long texts = 0;
    while (fread(prefix, 1, 4, file) == 4) {
        size_t size = prefix[0] | (size_t)prefix[1] << 8 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 24;
        uint8_t *text = malloc(size + 1);
        uint8_t *changed = malloc(size + 1024);
        size_t got = fread(text, 1, size, file);
        PROMISE(got == size);
        LLVMFuzzerTestOneInput(text, size);
        for (unsigned long round = 0; round < rounds; round++) {
            LLVMFuzzerTestOneInput(changed, mutate(text, size, changed, size + 1024));
        }
        free(text);
        free(changed);
        texts += 1;
    }
    fclose(file);
    printf("%lu texts, %lu changed ones each: no complaint\n", texts, rounds);
    return 0;
}
#endif
