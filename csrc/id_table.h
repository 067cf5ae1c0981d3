/*
 * From a position's id to what is kept of it: an open-addressing table in plain C.
 *
 * An id lies in the place that its hash says or in one of those behind it, with no empty place between; removing one
 * closes the gap, so nothing but the ids that are there costs anything. At most half of the places are taken.
 */
#ifndef LASERSELL_ID_TABLE_H
#define LASERSELL_ID_TABLE_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
    uint64_t id;
    void *value; /* NULL: an empty place */
} ls_id_entry;

typedef struct {
    ls_id_entry *entries; /* NULL as long as nothing was put */
    size_t mask;          /* places - 1; a power of two of them */
    size_t count;
} ls_id_table;

#define LS_FIRST_PLACES 16

/* The upper bits of the product depend on all bits of the id. */
static inline size_t ls_id_place(const ls_id_table *table, uint64_t id)
{
    return (size_t)((id * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & table->mask;
}

/* Where the id is, or the empty place where it would be; the table has entries. */
static inline ls_id_entry *ls_id_entry_of(const ls_id_table *table, uint64_t id)
{
    size_t place = ls_id_place(table, id);
    while (table->entries[place].value != NULL && table->entries[place].id != id) {
        place = (place + 1) & table->mask;
    }
    return &table->entries[place];
}

/* What was put under the id, or NULL. */
static inline void *ls_id_find(const ls_id_table *table, uint64_t id)
{
    return table->entries == NULL ? NULL : ls_id_entry_of(table, id)->value;
}

/* Room for one id more: 0 if there is no memory for it, and then nothing has changed. */
static inline int ls_id_reserve(ls_id_table *table)
{
    size_t places = table->entries == NULL ? 0 : table->mask + 1;
    if (2 * (table->count + 1) <= places) {
        return 1;
    }
    ls_id_table larger = {.mask = (places == 0 ? LS_FIRST_PLACES : 2 * places) - 1, .count = table->count};
    larger.entries = calloc(larger.mask + 1, sizeof(ls_id_entry));
    if (larger.entries == NULL) {
        return 0;
    }
    for (size_t place = 0; place < places; place++) {
        if (table->entries[place].value != NULL) {
            *ls_id_entry_of(&larger, table->entries[place].id) = table->entries[place];
        }
    }
    free(table->entries);
    *table = larger;
    return 1;
}

/* Puts a value that is not NULL, after ls_id_reserve; returns the one that was there. */
static inline void *ls_id_put(ls_id_table *table, uint64_t id, void *value)
{
    ls_id_entry *entry = ls_id_entry_of(table, id);
    void *old = entry->value;
    table->count += old == NULL;
    entry->id = id;
    entry->value = value;
    return old;
}

/* Takes the id out; returns its value, or NULL. */
static inline void *ls_id_remove(ls_id_table *table, uint64_t id)
{
    if (table->entries == NULL) {
        return NULL;
    }
    size_t gap = (size_t)(ls_id_entry_of(table, id) - table->entries);
    void *value = table->entries[gap].value;
    if (value == NULL) {
        return NULL;
    }
    table->count -= 1;
    for (size_t next = (gap + 1) & table->mask; table->entries[next].value != NULL; next = (next + 1) & table->mask) {
        /* May it move up? Only if the gap is not before its own place. */
        size_t way = (next - ls_id_place(table, table->entries[next].id)) & table->mask;
        if (way >= ((next - gap) & table->mask)) {
            table->entries[gap] = table->entries[next];
            gap = next;
        }
    }
    table->entries[gap].value = NULL;
    return value;
}

/* The next value from the place `at` on, which moves behind it; NULL when there is none. */
static inline void *ls_id_next(const ls_id_table *table, size_t *at, uint64_t *id)
{
    size_t places = table->entries == NULL ? 0 : table->mask + 1;
    while (*at < places) {
        const ls_id_entry *entry = &table->entries[(*at)++];
        if (entry->value != NULL) {
            *id = entry->id;
            return entry->value;
        }
    }
    return NULL;
}

static inline void ls_id_free(ls_id_table *table)
{
    free(table->entries);
    table->entries = NULL;
    table->mask = 0;
    table->count = 0;
}

#endif
