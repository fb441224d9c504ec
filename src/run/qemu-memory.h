/*
 * The guest's memory as a QEMU command line sets it up, as far as vhost-user has to know: its
 * back-end reads and writes that memory, so it must be shared, and QEMU does not share it by
 * default. Pure.
 *
 * Sources: QEMU's manual page, options -m, -machine, -M, -numa, -object, -mem-path; what the
 * versions 7.2 and 10.0 do with them was tried.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define QEMU_MEMORY_ERROR_SIZE 512

struct qemu_memory {
	bool is_arranged;    /* the command names shared memory itself: nothing is to be added */
	uint64_t size_bytes; /* else what QEMU makes of -m, or its default */
};

/*
 * Reads command (NULL-terminated, the program's name first). Where the memory is arranged in a way
 * that can't be shared, or the size is not understood: -EINVAL, and error (QEMU_MEMORY_ERROR_SIZE
 * bytes) holds one line that says what to write instead.
 */
int qemu_memory_read(char *const *command, struct qemu_memory *ret_memory, char *error);
