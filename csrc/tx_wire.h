/* Solana transactions: standard base64, and the instructions of a legacy or version 0 message. Plain C, no allocation. */
#ifndef LASERSELL_TX_WIRE_H
#define LASERSELL_TX_WIRE_H

#include <stddef.h>
#include <stdint.h>

/*
 * The bytes of standard base64 with padding, in the one spelling that encoding gives back: their number, or -1 for any
 * other text. `out` has room for three bytes for every four characters.
 */
ptrdiff_t ls_base64_decode(const uint8_t *at, const uint8_t *end, uint8_t *out);

typedef struct {
    uint8_t program; /* which of the transaction's accounts */
    const uint8_t *accounts; /* which of them, a byte each */
    size_t account_count;
    const uint8_t *data;
    size_t data_size;
} ls_tx_instruction;

/* A compact-u16: seven bits a byte, three bytes at the most. The byte behind it, or NULL: cut short, or longer. */
const uint8_t *ls_tx_length(const uint8_t *at, const uint8_t *end, size_t *length);

/* The instruction that begins at `at`, and the byte behind it; NULL: [at, end) ends before. */
const uint8_t *ls_tx_instruction_at(const uint8_t *at, const uint8_t *end, ls_tx_instruction *out);

#endif
