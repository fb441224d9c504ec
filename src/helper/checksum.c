#include "helper/checksum.h"

#include "base/cleanup.h"

#include <stdatomic.h>

/*
 * Defines a way to sum with vectors of width bytes. Each 64-bit lane gathers its words modulo 2^64,
 * and their high halves; together they give the low halves too, with three instructions a vector
 * and no look at a carry. Two vectors a step, since one adder waits for itself. A macro, because
 * the width is part of the type; wider vectors than the target has would go through memory (GCC 12:
 * a quarter of the speed).
 */
#define DEFINE_SUM(function, width, ...)                                                           \
	__VA_ARGS__ static uint64_t function(const uint8_t *bytes, size_t length)                  \
	{                                                                                          \
		typedef uint64_t vector __attribute__((vector_size(width)));                       \
		vector whole[2] = {{0}}, high[2] = {{0}}, low;                                     \
		uint64_t sum = 0;                                                                  \
                                                                                                   \
		for (; length >= 2 * (width); length -= 2 * (width), bytes += 2 * (width)) {       \
			vector first, second;                                                      \
                                                                                                   \
			memcpy(&first, bytes, sizeof(first));                                      \
			memcpy(&second, bytes + sizeof(first), sizeof(second));                    \
			whole[0] += first;                                                         \
			whole[1] += second;                                                        \
			high[0] += first >> 32;                                                    \
			high[1] += second >> 32;                                                   \
		}                                                                                  \
		high[0] += high[1];                                                                \
		low = whole[0] + whole[1] - (high[0] << 32);                                       \
		low += high[0];                                                                    \
		for (size_t i = 0; i < (width) / sizeof(uint64_t); i++)                            \
			sum += low[i];                                                             \
		return checksum_add_short(sum, bytes, length);                                     \
	}

DEFINE_SUM(sum_portably, 16)
#ifdef __x86_64__
DEFINE_SUM(sum_with_avx2, 32, __attribute__((target("avx2"))))
DEFINE_SUM(sum_with_avx512, 64, __attribute__((target("avx512f"))))
#endif

/*
 * GB/s in cache on an AMD EPYC with AVX-512 (GCC 12, -O2), at 1448 bytes and 64 KiB: AVX-512 101
 * and 101, AVX2 88 and 100, portable 54 and 58; from an address that is no multiple of 64, which is
 * what payloads have: 64 and 62, 65 and 62, 41 and 42.
 */
static const struct checksum_way ways[] = {
#ifdef __x86_64__
	{"AVX-512", sum_with_avx512},
	{"AVX2", sum_with_avx2},
#endif
	{"portable", sum_portably},
};

const struct checksum_way *checksum_ways(size_t *ret_count)
{
	size_t first = 0;

#ifdef __x86_64__
	first += !__builtin_cpu_supports("avx512f");
	first += first == 1 && !__builtin_cpu_supports("avx2");
#endif
	*ret_count = array_length(ways) - first;
	return &ways[first];
}

static uint64_t sum_first_time(const uint8_t *bytes, size_t length);

/* Two threads may choose at the same time; they choose the same. */
static uint64_t (*_Atomic chosen)(const uint8_t *bytes, size_t length) = sum_first_time;

static uint64_t sum_first_time(const uint8_t *bytes, size_t length)
{
	size_t count;
	const struct checksum_way *best = checksum_ways(&count);

	atomic_store_explicit(&chosen, best->sum, memory_order_relaxed);
	return best->sum(bytes, length);
}

uint64_t checksum_add(uint64_t sum, const void *bytes, size_t length)
{
	return sum + atomic_load_explicit(&chosen, memory_order_relaxed)(bytes, length);
}
