#include "run/qemu-options.h"

#include "base/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MAC "52:54:00:12:34:56"

static struct attachment make_attachment(
	enum run_attach attach, size_t queues, size_t vhosts, uint32_t mtu)
{
	struct attachment attachment;

	attachment_init(&attachment);
	attachment.attach = attach;
	attachment.mtu = mtu;
	attachment.vhosts_count = vhosts;
	if (attach == RUN_ATTACH_VHOST_USER) {
		attachment.vhost_user_queues = queues;
		text_copy(attachment.vhost_user_path, sizeof(attachment.vhost_user_path),
			"/tmp/v/net");
	} else {
		attachment.fds_count = queues;
	}
	text_copy(attachment.mac, sizeof(attachment.mac), MAC);
	text_copy(attachment.interface_name, sizeof(attachment.interface_name), "vmtap0");
	return attachment;
}

static const struct {
	enum run_attach attach;
	size_t queues;
	size_t vhosts;
	uint32_t mtu;
	const char *netdev;
	const char *device;
} cases[] = {
	{RUN_ATTACH_SOCKET, 1, 0, 1500, "dgram,id=vmnet0,local.type=fd,local.str=4",
		"virtio-net-pci,netdev=vmnet0,mac=" MAC},
	{RUN_ATTACH_SOCKET, 1, 0, 9000, "dgram,id=vmnet0,local.type=fd,local.str=4",
		"virtio-net-pci,netdev=vmnet0,mac=" MAC ",host_mtu=9000"},
	{RUN_ATTACH_STREAM, 1, 0, 1500, "stream,id=vmnet0,server=off,addr.type=fd,addr.str=4",
		"virtio-net-pci,netdev=vmnet0,mac=" MAC},
	{RUN_ATTACH_STREAM, 1, 0, 65520, "stream,id=vmnet0,server=off,addr.type=fd,addr.str=4",
		"virtio-net-pci,netdev=vmnet0,mac=" MAC ",host_mtu=65520"},
	{RUN_ATTACH_NATIVE, 1, 0, 1500, "tap,id=vmnet0,fd=4,vhost=off",
		"virtio-net-pci,netdev=vmnet0,mac=" MAC},
	{RUN_ATTACH_NATIVE, 1, 1, 1500, "tap,id=vmnet0,fd=4,vhost=on,vhostfd=5",
		"virtio-net-pci,netdev=vmnet0,mac=" MAC},
	{RUN_ATTACH_NATIVE, 2, 0, 1280, "tap,id=vmnet0,fds=4:5,vhost=off",
		"virtio-net-pci,netdev=vmnet0,mac=" MAC ",mq=on,vectors=6,host_mtu=1280"},
	{RUN_ATTACH_NATIVE, 8, 8, 65520,
		"tap,id=vmnet0,fds=4:5:6:7:8:9:10:11,vhost=on,"
		"vhostfds=12:13:14:15:16:17:18:19",
		"virtio-net-pci,netdev=vmnet0,mac=" MAC ",mq=on,vectors=18,host_mtu=65520"},
	{RUN_ATTACH_TAP, 0, 0, 1500,
		"tap,id=vmnet0,ifname=vmtap0,script=no,downscript=no,vhost=off",
		"virtio-net-pci,netdev=vmnet0,mac=" MAC},
};

static void test_options_of_fds(void **state)
{
	char program[] = "qemu-system-x86_64";
	char memory[] = "-m";
	char *const command[] = {program, memory, NULL};

	for (size_t i = 0; i < array_length(cases); i++) {
		struct attachment attachment = make_attachment(
			cases[i].attach, cases[i].queues, cases[i].vhosts, cases[i].mtu);
		char error[QEMU_OPTIONS_ERROR_SIZE];
		cleanup_free char **made = NULL;

		assert_int_equal(qemu_options_append(&attachment, command, &made, error), 0);
		assert_ptr_equal(made[0], program);
		assert_ptr_equal(made[1], memory);
		assert_string_equal(made[2], "-netdev");
		assert_string_equal(made[3], cases[i].netdev);
		assert_string_equal(made[4], "-device");
		assert_string_equal(made[5], cases[i].device);
		assert_null(made[6]);
	}
}

static void assert_added(
	const struct attachment *attachment, char *const *command, const char *const *expected)
{
	char error[QEMU_OPTIONS_ERROR_SIZE];
	cleanup_free char **made = NULL;
	size_t i = 0;

	assert_int_equal(qemu_options_append(attachment, command, &made, error), 0);
	for (; command[i]; i++)
		assert_ptr_equal(made[i], command[i]);
	for (; *expected; i++, expected++) {
		assert_non_null(made[i]);
		assert_string_equal(made[i], *expected);
	}
	assert_null(made[i]);
}

static void test_vhost_user_gets_shared_memory(void **state)
{
	static const char *const expected[] = {"-object",
		"memory-backend-memfd,id=vmnet-memory,size=1073741824,share=on", "-machine",
		"memory-backend=vmnet-memory", "-chardev", "socket,id=vmnet0,path=/tmp/v/net",
		"-netdev", "vhost-user,id=vmnet0,chardev=vmnet0,queues=2", "-device",
		"virtio-net-pci,netdev=vmnet0,mac=" MAC ",mq=on,vectors=6,host_mtu=9000", NULL};
	char words[][20] = {"qemu", "-machine", "q35", "-m", "1G"};
	char *const command[] = {words[0], words[1], words[2], words[3], words[4], NULL};
	struct attachment attachment = make_attachment(RUN_ATTACH_VHOST_USER, 2, 0, 9000);

	assert_added(&attachment, command, expected);
}

static void test_memory_of_the_users_own_stays(void **state)
{
	static const char *const expected[] = {"-chardev", "socket,id=vmnet0,path=/tmp/v/net",
		"-netdev", "vhost-user,id=vmnet0,chardev=vmnet0,queues=1", "-device",
		"virtio-net-pci,netdev=vmnet0,mac=" MAC, NULL};
	char words[][40] = {
		"qemu", "-machine", "memory-backend=m", "-object", "memory-backend-memfd,id=m"};
	char *const command[] = {words[0], words[1], words[2], words[3], words[4], NULL};
	struct attachment attachment = make_attachment(RUN_ATTACH_VHOST_USER, 1, 0, 1500);

	assert_added(&attachment, command, expected);
}

static void test_memory_that_cannot_be_shared(void **state)
{
	char words[][20] = {"qemu", "-mem-path", "/dev/hugepages"};
	char *const command[] = {words[0], words[1], words[2], NULL};
	struct attachment attachment = make_attachment(RUN_ATTACH_VHOST_USER, 1, 0, 1500);
	char error[QEMU_OPTIONS_ERROR_SIZE] = "";
	char **made = NULL;

	assert_int_equal(qemu_options_append(&attachment, command, &made, error), -EINVAL);
	assert_non_null(strstr(error, "-mem-path"));
	assert_null(made);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options_of_fds),
		cmocka_unit_test(test_vhost_user_gets_shared_memory),
		cmocka_unit_test(test_memory_of_the_users_own_stays),
		cmocka_unit_test(test_memory_that_cannot_be_shared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
