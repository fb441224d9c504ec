#include "run/attachment.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LINE                                                                                       \
	"{\"vmnet_mac_address\":\"52:54:00:12:34:56\",\"vmnet_mtu\":9000,"                         \
	"\"vmnet_interface_name\":\"vmtap1a2b3c4d\",\"vmnet_network\":\"blue\","                   \
	"\"vmnet_ipv4_address\":\"192.168.64.9\",\"vmnet_max_packet_size\":9014}\n"

static struct attachment make_attachment(enum run_attach attach, size_t fds_count, uint32_t mtu)
{
	struct attachment attachment;

	attachment_init(&attachment);
	attachment.attach = attach;
	attachment.fds_count = fds_count;
	assert_int_equal(attachment_read_line(&attachment, LINE), 0);
	attachment.mtu = mtu;
	return attachment;
}

static void test_line_is_read(void **state)
{
	struct attachment attachment = make_attachment(RUN_ATTACH_SOCKET, 1, 9000);

	assert_int_equal(attachment_read_line(&attachment, LINE), 0);
	assert_string_equal(attachment.network, "blue");
	assert_string_equal(attachment.interface_name, "vmtap1a2b3c4d");
	assert_string_equal(attachment.mac, "52:54:00:12:34:56");
	assert_string_equal(attachment.address, "192.168.64.9");
	assert_int_equal(attachment.mtu, 9000);
}

/* One word of LINE replaced makes each of these. */
static void test_bad_lines_change_nothing(void **state)
{
	static const char *const bad[] = {
		"",
		"[]\n",
		"{\n",
		"{\"vmnet_mac_address\":\"52:54:00:12:34:56\"}\n",
		"{\"vmnet_mac_address\":\"52:54:00:12:34:56\",\"vmnet_mtu\":\"1500\","
		"\"vmnet_interface_name\":\"t\",\"vmnet_network\":\"n\","
		"\"vmnet_ipv4_address\":\"192.168.64.9\"}\n",
		"{\"vmnet_mac_address\":\"52:54:00:12:34:56\",\"vmnet_mtu\":0,"
		"\"vmnet_interface_name\":\"t\",\"vmnet_network\":\"n\","
		"\"vmnet_ipv4_address\":\"192.168.64.9\"}\n",
		"{\"vmnet_mac_address\":\"52:54:00:12:34:56\",\"vmnet_mtu\":1500,"
		"\"vmnet_interface_name\":\"a-name-of-sixteen\",\"vmnet_network\":\"n\","
		"\"vmnet_ipv4_address\":\"192.168.64.9\"}\n",
		"{\"vmnet_mac_address\":\"52:54:00:12:34:56,mq=on\",\"vmnet_mtu\":1500,"
		"\"vmnet_interface_name\":\"t\",\"vmnet_network\":\"n\","
		"\"vmnet_ipv4_address\":\"192.168.64.9\"}\n",
	};
	struct attachment attachment = make_attachment(RUN_ATTACH_SOCKET, 1, 1400);
	struct attachment before = attachment;

	for (size_t i = 0; i < array_length(bad); i++) {
		assert_int_equal(attachment_read_line(&attachment, bad[i]), -EINVAL);
		assert_memory_equal(&attachment, &before, sizeof(before));
	}
}

static void test_environment_of_a_socket(void **state)
{
	struct attachment attachment = make_attachment(RUN_ATTACH_SOCKET, 1, 1500);

	setenv("VMNET_QUEUES", "7", 1);
	setenv("VMNET_VHOST_FDS", "9", 1);
	setenv("VMNET_FD", "99", 1);
	assert_int_equal(attachment_set_environment(&attachment), 0);
	assert_string_equal(getenv("VMNET_FD"), "4");
	assert_string_equal(getenv("VMNET_MAC_ADDRESS"), "52:54:00:12:34:56");
	assert_string_equal(getenv("VMNET_ADDRESS"), "192.168.64.9");
	assert_string_equal(getenv("VMNET_INTERFACE_NAME"), "vmtap1a2b3c4d");
	assert_string_equal(getenv("VMNET_NETWORK"), "blue");
	assert_string_equal(getenv("VMNET_MTU"), "1500");
	assert_null(getenv("VMNET_QUEUES"));
	assert_null(getenv("VMNET_VHOST_FDS"));
}

static void test_environment_of_a_tap(void **state)
{
	struct attachment attachment = make_attachment(RUN_ATTACH_NATIVE, 3, 1500);

	assert_int_equal(attachment_set_environment(&attachment), 0);
	assert_string_equal(getenv("VMNET_FD"), "4");
	assert_string_equal(getenv("VMNET_QUEUES"), "3");
	assert_string_equal(getenv("VMNET_VHOST_FDS"), "");
	attachment.vhosts_count = 3;
	assert_int_equal(attachment_set_environment(&attachment), 0);
	assert_string_equal(getenv("VMNET_QUEUES"), "3");
	assert_string_equal(getenv("VMNET_VHOST_FDS"), "7:8:9");
	attachment.fds_count = attachment.vhosts_count = RUN_QUEUES_MAX;
	assert_int_equal(attachment_set_environment(&attachment), 0);
	assert_string_equal(getenv("VMNET_VHOST_FDS"), "12:13:14:15:16:17:18:19");
}

struct qemu_case {
	enum run_attach attach;
	size_t fds_count;
	uint32_t mtu;
	const char *netdev;
	const char *device;
};

static const struct qemu_case qemu_cases[] = {
	{RUN_ATTACH_SOCKET, 1, 1500, "dgram,id=vmnet0,local.type=fd,local.str=4",
		"virtio-net-pci,netdev=vmnet0,mac=52:54:00:12:34:56"},
	{RUN_ATTACH_SOCKET, 1, 9000, "dgram,id=vmnet0,local.type=fd,local.str=4",
		"virtio-net-pci,netdev=vmnet0,mac=52:54:00:12:34:56,host_mtu=9000"},
	{RUN_ATTACH_NATIVE, 1, 1500, "tap,id=vmnet0,fd=4,vhost=off",
		"virtio-net-pci,netdev=vmnet0,mac=52:54:00:12:34:56"},
	{RUN_ATTACH_NATIVE, 2, 1500, "tap,id=vmnet0,fds=4:5,vhost=off",
		"virtio-net-pci,netdev=vmnet0,mac=52:54:00:12:34:56,mq=on,vectors=6"},
	{RUN_ATTACH_NATIVE, 8, 65520, "tap,id=vmnet0,fds=4:5:6:7:8:9:10:11,vhost=off",
		"virtio-net-pci,netdev=vmnet0,mac=52:54:00:12:34:56,mq=on,vectors=18,"
		"host_mtu=65520"},
};

static void test_qemu_gets_its_options(void **state)
{
	char program[] = "qemu-system-x86_64";
	char memory[] = "-m";
	char *const command[] = {program, memory, NULL};

	for (size_t i = 0; i < array_length(qemu_cases); i++) {
		const struct qemu_case *expected = &qemu_cases[i];
		struct attachment attachment =
			make_attachment(expected->attach, expected->fds_count, expected->mtu);
		cleanup_free char **made = NULL;

		assert_int_equal(attachment_make_command(&attachment, command, true, &made), 0);
		assert_ptr_equal(made[0], program);
		assert_ptr_equal(made[1], memory);
		assert_string_equal(made[2], "-netdev");
		assert_string_equal(made[3], expected->netdev);
		assert_string_equal(made[4], "-device");
		assert_string_equal(made[5], expected->device);
		assert_null(made[6]);
	}
}

static void test_other_commands_stay_as_they_are(void **state)
{
	struct attachment attachment = make_attachment(RUN_ATTACH_NATIVE, 2, 1500);
	char program[] = "vm";
	char *const command[] = {program, NULL};
	cleanup_free char **made = NULL;

	assert_int_equal(attachment_make_command(&attachment, command, false, &made), 0);
	assert_ptr_equal(made[0], program);
	assert_null(made[1]);
}

static void test_done_closes_what_is_left(void **state)
{
	struct attachment attachment;
	int ends[2];

	attachment_init(&attachment);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	attachment.fds[0] = ends[0];
	attachment.helper_socket = ends[1];
	attachment.line = strdup("line");
	attachment_close_fds(&attachment);
	assert_int_equal(fcntl(ends[0], F_GETFD), -1);
	assert_int_not_equal(fcntl(ends[1], F_GETFD), -1);
	attachment_done(&attachment);
	assert_int_equal(fcntl(ends[1], F_GETFD), -1);
	attachment_done(&attachment);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_line_is_read),
		cmocka_unit_test(test_bad_lines_change_nothing),
		cmocka_unit_test(test_environment_of_a_socket),
		cmocka_unit_test(test_environment_of_a_tap),
		cmocka_unit_test(test_qemu_gets_its_options),
		cmocka_unit_test(test_other_commands_stay_as_they_are),
		cmocka_unit_test(test_done_closes_what_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
