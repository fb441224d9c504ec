#include "run/qemu-memory.h"

#include "base/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define WORDS_MAX 10
#define MEBIBYTE  (UINT64_C(1) << 20)

static char error[QEMU_MEMORY_ERROR_SIZE];

static int read_words(const char *const *words, struct qemu_memory *ret_memory)
{
	char *command[WORDS_MAX + 2] = {(char *)(uintptr_t) "qemu-system-x86_64"};

	for (size_t i = 0; words[i]; i++)
		command[i + 1] = (char *)(uintptr_t)words[i];
	error[0] = '\0';
	return qemu_memory_read(command, ret_memory, error);
}

/* Each is what QEMU 7.2 and 10.0 make of it as well. */
static const struct {
	const char *words[6];
	uint64_t size_bytes;
} sizes[] = {
	{{NULL}, 128 * MEBIBYTE},
	{{"-m", "0"}, 128 * MEBIBYTE},
	{{"-m", "512"}, 512 * MEBIBYTE},
	{{"--m", "512"}, 512 * MEBIBYTE},
	{{"-m", "2G"}, 2048 * MEBIBYTE},
	{{"-m", "2g"}, 2048 * MEBIBYTE},
	{{"-m", "1.5G"}, 1536 * MEBIBYTE},
	{{"-m", "262144K"}, 256 * MEBIBYTE},
	{{"-m", "268435456b"}, 256 * MEBIBYTE},
	{{"-m", "1T"}, 1024 * 1024 * MEBIBYTE},
	{{"-m", "0.3G"}, 0x13334000},
	{{"-m", "size=1G,slots=2,maxmem=4G"}, 1024 * MEBIBYTE},
	{{"-m", "slots=2,maxmem=4G,size=256"}, 256 * MEBIBYTE},
	{{"-m", "1G,slots=2,maxmem=4G"}, 1024 * MEBIBYTE},
	{{"-m", "256", "-m", "512"}, 512 * MEBIBYTE},
	{{"-m", "256", "-m", "slots=2,maxmem=1G"}, 256 * MEBIBYTE},
	{{"-machine", "q35,smm=off", "-M", "usb=on"}, 128 * MEBIBYTE},
	{{"-object", "rng-random,id=r", "-m", "64"}, 64 * MEBIBYTE},
	{{"-object", "memory-backend-ram,id=n,size=1G", "-m", "64"}, 64 * MEBIBYTE},
	/* Not QEMU's option, but its last word. */
	{{"-m"}, 128 * MEBIBYTE},
};

static void test_sizes(void **state)
{
	for (size_t i = 0; i < array_length(sizes); i++) {
		struct qemu_memory memory = {.is_arranged = true};

		assert_int_equal(read_words(sizes[i].words, &memory), 0);
		assert_false(memory.is_arranged);
		assert_int_equal(memory.size_bytes, sizes[i].size_bytes);
	}
}

static const char *const arranged[][WORDS_MAX] = {
	{"-object", "memory-backend-memfd,id=a,size=1G", "-machine", "q35,memory-backend=a"},
	{"-M", "memory-backend=a", "-object", "memory-backend-memfd,share=on,id=a,size=1G"},
	{"-machine", "pc,memory-backend=a", "-object",
		"memory-backend-file,id=a,mem-path=/dev/shm,size=1G,share=on"},
	{"-machine", "memory-backend=a", "-object", "qom-type=memory-backend-ram,id=a,share=yes"},
	{"-machine", "memory-backend=a", "-object",
		"{\"qom-type\":\"memory-backend-ram\",\"id\":\"a\",\"share\":true}"},
	{"-machine", "memory-backend=a", "-object", "memory-backend-shm,id=a,size=1G"},
	{"-numa", "node,memdev=a", "-object", "memory-backend-memfd,id=a,size=1G"},
	/* b is no part of the guest's memory. */
	{"-machine", "memory-backend=a", "-object", "memory-backend-memfd,id=a,size=1G", "-object",
		"memory-backend-ram,id=b,size=1G"},
	{"-machine", "memory-backend=a", "-object", "memory-backend-ram,id=a,share=off,share=on"},
	{"-mem-path", "/dev/hugepages", "-numa", "node,memdev=a"},
};

static void test_memory_of_the_users_own(void **state)
{
	for (size_t i = 0; i < array_length(arranged); i++) {
		struct qemu_memory memory = {.is_arranged = false};

		assert_int_equal(read_words(arranged[i], &memory), 0);
		assert_true(memory.is_arranged);
	}
}

static const struct {
	const char *words[6];
	const char *said;
} refusals[] = {
	{{"-machine", "memory-backend=a", "-object", "memory-backend-ram,id=a,size=1G"},
		"-object memory-backend-ram,id=a,size=1G,share=on"},
	{{"-machine", "memory-backend=a", "-object", "memory-backend-memfd,id=a,share=off"},
		"share=on"},
	{{"-numa", "node,memdev=a", "-object", "memory-backend-file,id=a,size=1G"}, "share=on"},
	{{"-numa", "node"}, "-numa node,memdev=mem"},
	{{"-numa", "node,mem=1G"}, "-object memory-backend-memfd"},
	{{"-mem-path", "/dev/hugepages"}, "-object memory-backend-file"},
	{{"-m", "0x100"}, "-m 0x100"},
	{{"-m", "1X"}, "-m 1X"},
	{{"-m", "1GB"}, "-m 1GB"},
	{{"-m", ".5G"}, "-m .5G"},
	{{"-m", "-1"}, "-m -1"},
	{{"-m", "size=,slots=1"}, "-m size="},
	{{"-m", "999999999E"}, "-m 999999999E"},
};

static void test_refusals(void **state)
{
	for (size_t i = 0; i < array_length(refusals); i++) {
		const struct qemu_memory before = {.size_bytes = 77};
		struct qemu_memory memory = before;

		assert_int_equal(read_words(refusals[i].words, &memory), -EINVAL);
		assert_non_null(strstr(error, refusals[i].said));
		assert_non_null(strstr(error, "--attach vhost-user"));
		assert_null(strchr(error, '\n'));
		assert_int_equal(memory.size_bytes, before.size_bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_memory_of_the_users_own),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
