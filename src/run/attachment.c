#include "run/attachment.h"

#include "base/cleanup.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

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
			0)
		return -EINVAL;
	*attachment->address = '\0';
	return json_object_get(object, "vmnet_ipv4_address")
		       ? copy_text(object, "vmnet_ipv4_address", attachment->address,
				 sizeof(attachment->address))
		       : 0;
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

/* "4:5:6", as QEMU wants them. */
static void list_numbers(size_t first, size_t count, char text[ATTACHMENT_FD_LIST_SIZE])
{
	size_t length = 0;

	text[0] = '\0';
	for (size_t i = 0; i < count; i++)
		length += (size_t)snprintf(text + length, ATTACHMENT_FD_LIST_SIZE - length, "%s%zu",
			i > 0 ? ":" : "", first + i);
}

void attachment_list_fds(const struct attachment *attachment, char *fds, char *vhosts)
{
	list_numbers(ATTACHMENT_FIRST_FD, attachment->fds_count, fds);
	list_numbers(ATTACHMENT_FIRST_FD + attachment->fds_count, attachment->vhosts_count, vhosts);
}

size_t attachment_queues_count(const struct attachment *attachment)
{
	switch (attachment->attach) {
	case RUN_ATTACH_NATIVE:
		return attachment->fds_count;
	case RUN_ATTACH_VHOST_USER:
		return attachment->vhost_user_queues;
	default:
		return 0;
	}
}

/* Without a value it is taken away. */
static int set_variable(const char *name, const char *value)
{
	int result = value ? setenv(name, value, 1) : unsetenv(name);

	return result < 0 ? -errno : 0;
}

int attachment_set_environment(const struct attachment *attachment)
{
	bool is_vhost_user = attachment->attach == RUN_ATTACH_VHOST_USER;
	bool has_fd = !is_vhost_user && attachment->attach != RUN_ATTACH_TAP;
	size_t queues_count = attachment_queues_count(attachment);
	char first_fd[NUMBER_TEXT_SIZE];
	char mtu[NUMBER_TEXT_SIZE];
	char queues[NUMBER_TEXT_SIZE];
	char fds[ATTACHMENT_FD_LIST_SIZE];
	char vhosts[ATTACHMENT_FD_LIST_SIZE];
	const struct {
		const char *name;
		const char *value;
	} variables[] = {
		{"VMNET_MAC_ADDRESS", attachment->mac},
		{"VMNET_ADDRESS", *attachment->address ? attachment->address : NULL},
		{"VMNET_INTERFACE_NAME", attachment->interface_name},
		{"VMNET_NETWORK", attachment->network},
		{"VMNET_MTU", mtu},
		{"VMNET_FD", has_fd ? first_fd : NULL},
		{"VMNET_VHOST_USER_SOCKET", is_vhost_user ? attachment->vhost_user_path : NULL},
		{"VMNET_QUEUES", queues_count ? queues : NULL},
		{"VMNET_VHOST_FDS", attachment->attach == RUN_ATTACH_NATIVE ? vhosts : NULL},
	};

	snprintf(first_fd, sizeof(first_fd), "%d", ATTACHMENT_FIRST_FD);
	snprintf(mtu, sizeof(mtu), "%u", attachment->mtu);
	snprintf(queues, sizeof(queues), "%zu", queues_count);
	attachment_list_fds(attachment, fds, vhosts);
	for (size_t i = 0; i < array_length(variables); i++) {
		int result = set_variable(variables[i].name, variables[i].value);

		if (result < 0)
			return result;
	}
	return 0;
}
