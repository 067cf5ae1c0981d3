/* UTF-8, strictly: no overlong forms, no surrogates, nothing above U+10FFFF. Plain C, no allocation. */
#ifndef LASERSELL_UTF8_H
#define LASERSELL_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the well-formed sequence that begins at `at` (1 to 4), or 0 if there is none before `end`. */
size_t ls_utf8_sequence(const uint8_t *at, const uint8_t *end);

/* The first byte of the first ill-formed sequence in [at, end), or `end` if all is well. */
const uint8_t *ls_utf8_find_error(const uint8_t *at, const uint8_t *end);

/* Writes the code point's 1 to 4 bytes and returns their number; the caller has ruled out surrogates. */
size_t ls_utf8_write(uint32_t code_point, uint8_t *out);

#endif
