/*
 * What --qemu appends to the command: the options of QEMU that fit an attachment. Pure.
 *
 * Source: QEMU's manual page (-netdev, -device, -chardev, -object, -machine); each line was tried
 * with versions 7.2 and 10.0.
 */
#pragma once

#include "run/attachment.h"
#include "run/qemu-memory.h"

#define QEMU_OPTIONS_ERROR_SIZE QEMU_MEMORY_ERROR_SIZE

/*
 * A new command line: command (NULL-terminated) with QEMU's options for attachment behind it. The
 * array and the added words are one block, to be freed with free(); the other words stay the
 * caller's. On failure -ENOMEM, or -EINVAL when command excludes what is needed, and error
 * (QEMU_OPTIONS_ERROR_SIZE bytes) holds one line that says what to do.
 */
int qemu_options_append(const struct attachment *attachment, char *const *command,
	char ***ret_command, char *error);
