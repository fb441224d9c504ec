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
	setenv("VMNET_VHOST_USER_SOCKET", "/old", 1);
	assert_int_equal(attachment_set_environment(&attachment), 0);
	assert_string_equal(getenv("VMNET_FD"), "4");
	assert_string_equal(getenv("VMNET_MAC_ADDRESS"), "52:54:00:12:34:56");
	assert_string_equal(getenv("VMNET_ADDRESS"), "192.168.64.9");
	assert_string_equal(getenv("VMNET_INTERFACE_NAME"), "vmtap1a2b3c4d");
	assert_string_equal(getenv("VMNET_NETWORK"), "blue");
	assert_string_equal(getenv("VMNET_MTU"), "1500");
	assert_null(getenv("VMNET_QUEUES"));
	assert_null(getenv("VMNET_VHOST_FDS"));
	assert_null(getenv("VMNET_VHOST_USER_SOCKET"));
	attachment.attach = RUN_ATTACH_STREAM;
	setenv("VMNET_FD", "99", 1);
	assert_int_equal(attachment_set_environment(&attachment), 0);
	assert_string_equal(getenv("VMNET_FD"), "4");
	assert_null(getenv("VMNET_QUEUES"));
}

static void test_environment_of_vhost_user(void **state)
{
	struct attachment attachment = make_attachment(RUN_ATTACH_VHOST_USER, 0, 9000);

	attachment.vhost_user_queues = 2;
	text_copy(attachment.vhost_user_path, sizeof(attachment.vhost_user_path), "/tmp/v/net");
	setenv("VMNET_FD", "99", 1);
	setenv("VMNET_VHOST_FDS", "9", 1);
	assert_int_equal(attachment_set_environment(&attachment), 0);
	assert_null(getenv("VMNET_FD"));
	assert_null(getenv("VMNET_VHOST_FDS"));
	assert_string_equal(getenv("VMNET_VHOST_USER_SOCKET"), "/tmp/v/net");
	assert_string_equal(getenv("VMNET_QUEUES"), "2");
	assert_string_equal(getenv("VMNET_MTU"), "9000");
	assert_string_equal(getenv("VMNET_MAC_ADDRESS"), "52:54:00:12:34:56");
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

static void test_environment_of_a_named_tap(void **state)
{
	static const char *const unset[] = {
		"VMNET_FD", "VMNET_QUEUES", "VMNET_VHOST_FDS", "VMNET_VHOST_USER_SOCKET"};
	struct attachment attachment = make_attachment(RUN_ATTACH_TAP, 0, 1500);

	for (size_t i = 0; i < array_length(unset); i++)
		setenv(unset[i], "9", 1);
	text_copy(attachment.interface_name, sizeof(attachment.interface_name), "vmtap0badcafe");
	assert_int_equal(attachment_set_environment(&attachment), 0);
	assert_string_equal(getenv("VMNET_INTERFACE_NAME"), "vmtap0badcafe");
	for (size_t i = 0; i < array_length(unset); i++)
		assert_null(getenv(unset[i]));
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
		cmocka_unit_test(test_environment_of_vhost_user),
		cmocka_unit_test(test_environment_of_a_tap),
		cmocka_unit_test(test_environment_of_a_named_tap),
		cmocka_unit_test(test_done_closes_what_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
