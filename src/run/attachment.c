#include "run/attachment.h"

#include "base/cleanup.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#define QEMU_NETDEV_ID   "vmnet0"
#define QEMU_WORD_SIZE   160
#define ETHERNET_MTU     1500
#define FD_LIST_SIZE     32
#define NUMBER_TEXT_SIZE 12

void attachment_init(struct attachment *attachment)
{
	*attachment = (struct attachment){.helper_socket = -1};
	for (size_t i = 0; i < array_length(attachment->fds); i++)
		attachment->fds[i] = -1;
	for (size_t i = 0; i < array_length(attachment->vhosts); i++)
		attachment->vhosts[i] = -1;
}

void attachment_close_fds(struct attachment *attachment)
{
	for (size_t i = 0; i < array_length(attachment->fds); i++)
		fd_close(take_fd(&attachment->fds[i]));
	for (size_t i = 0; i < array_length(attachment->vhosts); i++)
		fd_close(take_fd(&attachment->vhosts[i]));
}

void attachment_done(struct attachment *attachment)
{
	attachment_close_fds(attachment);
	fd_close(take_fd(&attachment->helper_socket));
	free(take_ptr(attachment->line));
}

static int copy_text(json_t *object, const char *key, char *target, size_t size)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value && text_copy(target, size, value) == 0 ? 0 : -EINVAL;
}

static int read_object(json_t *object, struct attachment *attachment)
{
	json_t *mtu = json_object_get(object, "vmnet_mtu");

	if (!json_is_integer(mtu) || json_integer_value(mtu) <= 0 ||
		json_integer_value(mtu) > UINT16_MAX)
		return -EINVAL;
	attachment->mtu = (uint32_t)json_integer_value(mtu);
	if (copy_text(object, "vmnet_network", attachment->network, sizeof(attachment->network)) <
			0 ||
		copy_text(object, "vmnet_interface_name", attachment->interface_name,
			sizeof(attachment->interface_name)) < 0 ||
		copy_text(object, "vmnet_mac_address", attachment->mac, sizeof(attachment->mac)) <
			0 ||
		copy_text(object, "vmnet_ipv4_address", attachment->address,
			sizeof(attachment->address)) < 0)
		return -EINVAL;
	return 0;
}

int attachment_read_line(struct attachment *attachment, const char *line)
{
	struct attachment read = *attachment;
	json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
	int result = object ? read_object(object, &read) : -EINVAL;

	json_decref(object);
	if (result < 0)
		return result;
	*attachment = read;
	return 0;
}

static int set_variable(const char *name, const char *value)
{
	return setenv(name, value, 1) < 0 ? -errno : 0;
}

static int set_number(const char *name, size_t number)
{
	char text[NUMBER_TEXT_SIZE];

	snprintf(text, sizeof(text), "%zu", number);
	return set_variable(name, text);
}

/* "4" or "4:5:6", as QEMU wants them. */
static void list_numbers(size_t first, size_t count, char text[FD_LIST_SIZE])
{
	size_t length = 0;

	text[0] = '\0';
	for (size_t i = 0; i < count; i++)
		length += (size_t)snprintf(
			text + length, FD_LIST_SIZE - length, "%s%zu", i > 0 ? ":" : "", first + i);
}

static int set_queue_variables(const struct attachment *attachment)
{
	char vhosts[FD_LIST_SIZE];
	int result;

	if (attachment->attach != RUN_ATTACH_NATIVE) {
		unsetenv("VMNET_QUEUES");
		unsetenv("VMNET_VHOST_FDS");
		return 0;
	}
	result = set_number("VMNET_QUEUES", attachment->fds_count);
	list_numbers(ATTACHMENT_FIRST_FD + attachment->fds_count, attachment->vhosts_count, vhosts);
	return result < 0 ? result : set_variable("VMNET_VHOST_FDS", vhosts);
}

int attachment_set_environment(const struct attachment *attachment)
{
	const struct {
		const char *name;
		const char *value;
	} variables[] = {
		{"VMNET_MAC_ADDRESS", attachment->mac},
		{"VMNET_ADDRESS", attachment->address},
		{"VMNET_INTERFACE_NAME", attachment->interface_name},
		{"VMNET_NETWORK", attachment->network},
	};
	int result;

	for (size_t i = 0; i < array_length(variables); i++) {
		result = set_variable(variables[i].name, variables[i].value);
		if (result < 0)
			return result;
	}
	result = set_number("VMNET_FD", ATTACHMENT_FIRST_FD);
	if (result < 0)
		return result;
	result = set_number("VMNET_MTU", attachment->mtu);
	return result < 0 ? result : set_queue_variables(attachment);
}

static void make_netdev(const struct attachment *attachment, char *word)
{
	char fds[FD_LIST_SIZE];

	list_numbers(ATTACHMENT_FIRST_FD, attachment->fds_count, fds);
	if (attachment->attach == RUN_ATTACH_SOCKET)
		snprintf(word, QEMU_WORD_SIZE,
			"dgram,id=" QEMU_NETDEV_ID ",local.type=fd,local.str=%s", fds);
	else
		snprintf(word, QEMU_WORD_SIZE, "tap,id=" QEMU_NETDEV_ID ",%s=%s,vhost=off",
			attachment->fds_count > 1 ? "fds" : "fd", fds);
}

static void make_device(const struct attachment *attachment, char *word)
{
	char multi_queue[40] = "";
	char mtu[32] = "";

	/* One vector for each queue's two directions, one for changes of configuration, one for the
	 * control queue. */
	if (attachment->fds_count > 1)
		snprintf(multi_queue, sizeof(multi_queue), ",mq=on,vectors=%zu",
			2 * attachment->fds_count + 2);
	if (attachment->mtu != ETHERNET_MTU)
		snprintf(mtu, sizeof(mtu), ",host_mtu=%u", attachment->mtu);
	snprintf(word, QEMU_WORD_SIZE, "virtio-net-pci,netdev=" QEMU_NETDEV_ID ",mac=%s%s%s",
		attachment->mac, multi_queue, mtu);
}

int attachment_make_command(const struct attachment *attachment, char *const *command,
	bool for_qemu, char ***ret_command)
{
	static char netdev_option[] = "-netdev";
	static char device_option[] = "-device";
	size_t count = 0;
	size_t slots;
	char *words;
	char **made;

	while (command[count])
		count++;
	slots = count + 5;
	made = malloc(slots * sizeof(char *) + 2 * QEMU_WORD_SIZE);
	if (!made)
		return -ENOMEM;
	words = (char *)(made + slots);
	memcpy(made, command, count * sizeof(char *));
	if (for_qemu) {
		make_netdev(attachment, words);
		make_device(attachment, words + QEMU_WORD_SIZE);
		made[count++] = netdev_option;
		made[count++] = words;
		made[count++] = device_option;
		made[count++] = words + QEMU_WORD_SIZE;
	}
	made[count] = NULL;
	*ret_command = made;
	return 0;
}
