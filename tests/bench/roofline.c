/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The loops of ptnetmap/bench/roofline.py once more, for a C compiler: what those are compared with, to know that a
 * slow roofline does not flatter everything else. Same memory, same policy of waiting, same arguments.
 */
#define _GNU_SOURCE
#include <immintrin.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

enum { SLOTS = 1024, LINE = 64, BUFFER = 2048, ENOUGH_ROOM = SLOTS / 4, FEW = 64, PATIENCE = 32, CHECK_EVERY = 1024 };
enum { SPINS = 50 };

struct slot {
    uint64_t idx_len_flags, ptr;
};

struct ring {
    _Alignas(LINE) _Atomic int64_t head;
    int64_t total;
    _Alignas(LINE) _Atomic int64_t tail;
    int64_t first, last, bytes;
    _Alignas(LINE) _Atomic int64_t stop;
    _Alignas(LINE) struct slot near[SLOTS];
    struct slot far[SLOTS];
};

static int64_t now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void breathe(int64_t attempt)
{
    if (attempt < SPINS)
        _mm_pause();
    else
        sched_yield();
}

static void fill(struct ring *r, int64_t start, int64_t count, int64_t length)
{
    struct slot *restrict near = r->near, *restrict far = r->far;
    for (int64_t i = start; i < start + count; i++) {
        /* Word by word, from registers: a slot written in parts and read back whole would stall the store buffer. */
        uint64_t word = (uint64_t)i | (uint64_t)length << 32;
        near[i].idx_len_flags = word;
        near[i].ptr = 0;
        far[i].idx_len_flags = word;
        far[i].ptr = 0;
    }
}

static int64_t drain(struct ring *r, int64_t start, int64_t count)
{
    struct slot *restrict near = r->near, *restrict far = r->far;
    int64_t sum = 0;
    for (int64_t i = start; i < start + count; i++) {
        sum += far[i].idx_len_flags >> 32 & 0xFFFF;
        near[i].idx_len_flags = far[i].idx_len_flags;
        near[i].ptr = far[i].ptr;
    }
    return sum;
}

static void copy(const char *restrict source, char *restrict destination, int64_t start, int64_t count, int64_t lines)
{
    if (lines == 1) {
        for (int64_t i = start; i < start + count; i++)
            memcpy(destination + i * BUFFER, source + i * BUFFER, LINE);
    } else {
        for (int64_t i = start; i < start + count; i++)
            for (int64_t at = i * BUFFER; at < i * BUFFER + lines * LINE; at += LINE)
                memcpy(destination + at, source + at, LINE);
    }
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t send_packets(struct ring *r, int64_t batch, int64_t length, int64_t packets, int64_t deadline)
{
    int64_t head = 0, tail = 0, check = 0;
    for (;;) {
        int64_t count = least(batch, packets - head);
        if (SLOTS - (head - tail) < count) {
            int64_t enough = count > ENOUGH_ROOM ? count : ENOUGH_ROOM, attempt = 0;
            tail = atomic_load_explicit(&r->tail, memory_order_acquire);
            while (SLOTS - (head - tail) < enough) {
                if (atomic_load_explicit(&r->stop, memory_order_acquire))
                    return head;
                breathe(attempt++);
                tail = atomic_load_explicit(&r->tail, memory_order_acquire);
            }
        }
        int64_t start = head & (SLOTS - 1), run = least(count, SLOTS - start);
        fill(r, start, run, length);
        if (run < count)
            fill(r, 0, count - run, length);
        head += count;
        int over = head == packets;
        if (head >= check) {
            check = head + CHECK_EVERY;
            over |= atomic_load_explicit(&r->stop, memory_order_acquire) || now(CLOCK_MONOTONIC_COARSE) >= deadline;
        }
        if (over)
            r->total = head;
        atomic_store_explicit(&r->head, head, memory_order_release);
        if (over)
            return head;
    }
}

int64_t receive_packets(struct ring *r, int64_t most, const char *source, char *destination, int64_t lines)
{
    int64_t tail = 0, sum = 0;
    for (;;) {
        int64_t head = atomic_load_explicit(&r->head, memory_order_acquire), attempt = 0;
        while (head == tail) {
            if (atomic_load_explicit(&r->stop, memory_order_acquire))
                return tail;
            breathe(attempt++);
            head = atomic_load_explicit(&r->head, memory_order_acquire);
        }
        if (tail == 0)
            r->first = now(CLOCK_MONOTONIC);
        if (head - tail < FEW && head != r->total) {
            for (int i = 0; i < PATIENCE; i++)
                _mm_pause();
            head = atomic_load_explicit(&r->head, memory_order_acquire);
        }
        while (tail != head) {
            int64_t start = tail & (SLOTS - 1), run = least(least(head - tail, most), SLOTS - start);
            sum += drain(r, start, run);
            if (lines)
                copy(source, destination, start, run, lines);
            tail += run;
            atomic_store_explicit(&r->tail, tail, memory_order_release);
        }
        if (tail == r->total) {
            r->last = now(CLOCK_MONOTONIC);
            r->bytes = sum;
            return tail;
        }
    }
}
