#include "run/qemu-options.h"

#include "base/cleanup.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NETDEV_ID    "vmnet0"
#define MEMORY_ID    "vmnet-memory"
#define OPTIONS_MAX  5 /* memory needs two, a vhost-user network three */
#define VALUE_SIZE   192
#define ETHERNET_MTU 1500

/* A command line that grows. */
struct line {
	char **words; /* with room for OPTIONS_MAX options and the NULL behind them */
	size_t count;
	char (*values)[VALUE_SIZE]; /* in the same block */
	size_t values_count;
};

__attribute__((format(printf, 3, 4))) static void add_option(
	struct line *line, const char *option, const char *format, ...)
{
	char *value = line->values[line->values_count++];
	va_list arguments;

	assert(line->values_count <= OPTIONS_MAX);
	va_start(arguments, format);
	vsnprintf(value, VALUE_SIZE, format, arguments);
	va_end(arguments);
	/* exec's argument vector is not const for reasons of history only: execve(2). */
	line->words[line->count++] = (char *)(uintptr_t)option;
	line->words[line->count++] = value;
	line->words[line->count] = NULL;
}

static void add_socket(struct line *line, const struct attachment *attachment)
{
	add_option(line, "-netdev", "dgram,id=" NETDEV_ID ",local.type=fd,local.str=%d",
		ATTACHMENT_FIRST_FD);
}

static void add_stream(struct line *line, const struct attachment *attachment)
{
	add_option(line, "-netdev", "stream,id=" NETDEV_ID ",server=off,addr.type=fd,addr.str=%d",
		ATTACHMENT_FIRST_FD);
}

static void add_vhost_user(struct line *line, const struct attachment *attachment)
{
	add_option(
		line, "-chardev", "socket,id=" NETDEV_ID ",path=%s", attachment->vhost_user_path);
	add_option(line, "-netdev", "vhost-user,id=" NETDEV_ID ",chardev=" NETDEV_ID ",queues=%zu",
		attachment_queues_count(attachment));
}

/* vhost=off must be said: QEMU 7.2 aborts when it tries /dev/vhost-net by itself and can't. */
static void add_native(struct line *line, const struct attachment *attachment)
{
	const char *plural = attachment->fds_count > 1 ? "s" : "";
	char queues[ATTACHMENT_FD_LIST_SIZE];
	char vhosts[ATTACHMENT_FD_LIST_SIZE];

	attachment_list_fds(attachment, queues, vhosts);
	if (vhosts[0])
		add_option(line, "-netdev", "tap,id=" NETDEV_ID ",fd%s=%s,vhost=on,vhostfd%s=%s",
			plural, queues, plural, vhosts);
	else
		add_option(
			line, "-netdev", "tap,id=" NETDEV_ID ",fd%s=%s,vhost=off", plural, queues);
}

/* Without scripts QEMU takes the TAP as it is. vhost=off as above. */
static void add_tap(struct line *line, const struct attachment *attachment)
{
	add_option(line, "-netdev",
		"tap,id=" NETDEV_ID ",ifname=%s,script=no,downscript=no,vhost=off",
		attachment->interface_name);
}

static void (*const add_netdev[])(struct line *line, const struct attachment *attachment) = {
	[RUN_ATTACH_SOCKET] = add_socket,
	[RUN_ATTACH_STREAM] = add_stream,
	[RUN_ATTACH_VHOST_USER] = add_vhost_user,
	[RUN_ATTACH_NATIVE] = add_native,
	[RUN_ATTACH_TAP] = add_tap,
};
static_assert(array_length(add_netdev) == RUN_ATTACH_COUNT, "one function per attach kind");

static void add_device(struct line *line, const struct attachment *attachment)
{
	size_t queues_count = attachment_queues_count(attachment);
	char multi_queue[40] = "";
	char mtu[32] = "";

	/* One vector for each queue's two directions, one for changes of configuration, one for the
	 * control queue. */
	if (queues_count > 1)
		snprintf(multi_queue, sizeof(multi_queue), ",mq=on,vectors=%zu",
			2 * queues_count + 2);
	if (attachment->mtu != ETHERNET_MTU)
		snprintf(mtu, sizeof(mtu), ",host_mtu=%u", attachment->mtu);
	add_option(line, "-device", "virtio-net-pci,netdev=" NETDEV_ID ",mac=%s%s%s",
		attachment->mac, multi_queue, mtu);
}

/* Of several -machine QEMU makes one. */
static int add_memory(struct line *line, char *const *command, char *error)
{
	struct qemu_memory memory;
	int result = qemu_memory_read(command, &memory, error);

	if (result < 0 || memory.is_arranged)
		return result;
	add_option(line, "-object",
		"memory-backend-memfd,id=" MEMORY_ID ",size=%" PRIu64 ",share=on",
		memory.size_bytes);
	add_option(line, "-machine", "memory-backend=" MEMORY_ID);
	return 0;
}

static int make_line(struct line *line, char *const *command)
{
	size_t count = 0;
	size_t slots;

	while (command[count])
		count++;
	slots = count + 2 * OPTIONS_MAX + 1;
	line->words = malloc(slots * sizeof(*line->words) + OPTIONS_MAX * VALUE_SIZE);
	if (!line->words)
		return -ENOMEM;
	line->values = (char(*)[VALUE_SIZE])(line->words + slots);
	memcpy(line->words, command, (count + 1) * sizeof(*line->words));
	line->count = count;
	return 0;
}

int qemu_options_append(
	const struct attachment *attachment, char *const *command, char ***ret_command, char *error)
{
	cleanup_free char **words = NULL;
	struct line line = {0};
	int result = make_line(&line, command);

	if (result < 0) {
		snprintf(error, QEMU_OPTIONS_ERROR_SIZE, "out of memory");
		return result;
	}
	words = line.words;
	if (attachment->attach == RUN_ATTACH_VHOST_USER)
		result = add_memory(&line, command, error);
	if (result < 0)
		return result;
	add_netdev[attachment->attach](&line, attachment);
	add_device(&line, attachment);
	*ret_command = take_ptr(words);
	return 0;
}
