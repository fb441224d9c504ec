/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "wire/messages.h"
#include "wire/varlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

static const char network_text[] =
	"{\"name\":\"shared\",\"mode\":\"shared\",\"subnet\":\"192.168.64.0/24\","
	"\"gateway\":\"192.168.64.1\",\"mtu\":1500,\"bridge\":\"vmbr01234567\","
	"\"domain\":\"shared.vmnet\",\"running\":true}";
static const char stopped_text[] = "{\"name\":\"blue\",\"mode\":\"host\",\"mtu\":9000,"
				   "\"domain\":\"blue.vmnet\",\"running\":false}";

static struct broker_network make_network(void)
{
	struct broker_network network = {.mtu = 1500, .running = true};

	text_copy(network.name, sizeof(network.name), "shared");
	text_copy(network.mode, sizeof(network.mode), "shared");
	text_copy(network.bridge, sizeof(network.bridge), "vmbr01234567");
	text_copy(network.domain, sizeof(network.domain), "shared.vmnet");
	text_to_ipv4_subnet("192.168.64.0/24", &network.subnet);
	text_to_ipv4("192.168.64.1", &network.gateway);
	return network;
}

static struct create_interface_call make_create(void)
{
	struct create_interface_call call = {
		.wanted.network = "shared",
		.has_mac = true,
		.mac = {{0x52, 0x54, 0, 0x12, 0x34, 0x56}},
		.has_interface_id = true,
		.hostname = "web",
		.queues = 8,
		.vhost = true,
		.isolation = true,
		.sockets_count = 2,
		.sockets = {1, 15},
	};

	text_to_uuid("6d6b1f5c-40fc-4d10-a8a5-6f7d2c0e9b11", &call.interface_id);
	return call;
}

static struct created_interface make_created(void)
{
	struct created_interface created = {
		.network = make_network(),
		.interface_name = "vmtap00000001",
		.mac = {{2, 0, 0, 0, 0, 1}},
		.queues_count = 2,
		.queues = {1, 0},
		.vhosts_count = 2,
		.vhosts = {2, 15},
		.locked = true,
		.socket_buffer_bytes = 8388608,
	};

	text_to_uuid("6d6b1f5c-40fc-4d10-a8a5-6f7d2c0e9b11", &created.interface_id);
	text_to_ipv4("192.168.64.2", &created.address);
	return created;
}

static const char created_text[] =
	"\"interfaceName\":\"vmtap00000001\",\"mac\":\"02:00:00:00:00:01\","
	"\"interfaceId\":\"6D6B1F5C-40FC-4D10-A8A5-6F7D2C0E9B11\",\"address\":\"192.168.64.2\","
	"\"heldByConnection\":false,\"locked\":true,\"queues\":[1,0],\"vhosts\":[2,15],"
	"\"socketBufferBytes\":"
	"8388608}";

static json_t *load(const char *text)
{
	json_t *value = json_loads(text, JSON_REJECT_DUPLICATES, NULL);

	assert_non_null(value);
	return value;
}

/* Takes value over. The order of members is nobody's business. */
static void expect_text(json_t *value, const char *text)
{
	json_t *expected = load(text);

	assert_non_null(value);
	if (!json_equal(value, expected)) {
		char *dumped = json_dumps(value, JSON_COMPACT);

		fail_msg("%s is not %s", dumped, text);
	}
	json_decref(expected);
	json_decref(value);
}

static void errors_have_the_names_of_the_contract(void **state)
{
	static const char *const names[] = {"NotFound", "NotAllowed", "InvalidRequest",
		"CreateFailure", "InternalError", "QuotaExceeded", "Conflict"};
	enum broker_error error;

	assert_int_equal(array_length(names), BROKER_ERROR_COUNT);
	for (size_t i = 0; i < array_length(names); i++) {
		const char *name = broker_error_name((enum broker_error)i);

		assert_memory_equal(name, "org.vmnet.Broker.", 17);
		assert_string_equal(name + 17, names[i]);
		assert_int_equal(broker_error_from_name(name, &error), 0);
		assert_int_equal(error, i);
	}
	assert_int_equal(broker_error_from_name("org.vmnet.Broker.Nothing", &error), -EINVAL);
	assert_int_equal(broker_error_from_name("NotFound", &error), -EINVAL);
}

static void error_reasons_arrive(void **state)
{
	char long_text[2 * BROKER_REASON_SIZE];
	char reason[BROKER_REASON_SIZE];
	json_t *message;

	expect_text(broker_error_encode(BROKER_ERROR_CONFLICT, "it's \"taken\""),
		"{\"error\":\"org.vmnet.Broker.Conflict\","
		"\"parameters\":{\"reason\":\"it's \\\"taken\\\"\"}}");
	expect_text(broker_error_encode(BROKER_ERROR_NOT_FOUND, "a\xc3"),
		"{\"error\":\"org.vmnet.Broker.NotFound\",\"parameters\":{\"reason\":\"a?\"}}");
	memset(long_text, 'y', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	message = broker_error_encode(BROKER_ERROR_INTERNAL, long_text);
	broker_error_decode(json_object_get(message, "parameters"), reason);
	assert_int_equal(strlen(reason), BROKER_REASON_SIZE - 1);
	json_decref(message);
	broker_error_decode(NULL, reason);
	assert_string_equal(reason, "");
}

static void networks_survive_the_wire(void **state)
{
	struct broker_network network = make_network(), decoded;
	json_t *value = broker_network_encode(&network);

	assert_int_equal(broker_network_decode(value, &decoded), 0);
	assert_memory_equal(&decoded, &network, sizeof(network));
	expect_text(value, network_text);
	value = acquired_network_encode(&network);
	memset(&decoded, 0xff, sizeof(decoded));
	assert_int_equal(acquired_network_decode(value, &decoded), 0);
	assert_string_equal(decoded.domain, "shared.vmnet");
	json_decref(value);
}

static void networks_have_ipv6_or_not(void **state)
{
	struct broker_network network = make_network(), decoded;
	json_t *value;

	network.has_ipv6 = true;
	assert_int_equal(inet_pton(AF_INET6, "fd00:1:2:3::", &network.ipv6_prefix), 1);
	value = broker_network_encode(&network);
	assert_string_equal(
		json_string_value(json_object_get(value, "ipv6Prefix")), "fd00:1:2:3::/64");
	assert_string_equal(json_string_value(json_object_get(value, "gateway6")), "fd00:1:2:3::1");
	assert_int_equal(broker_network_decode(value, &decoded), 0);
	assert_memory_equal(&decoded, &network, sizeof(network));
	json_decref(value);
}

static void a_network_that_does_not_run_has_no_addresses(void **state)
{
	json_t *value = load(stopped_text);
	struct broker_network network;

	assert_int_equal(broker_network_decode(value, &network), 0);
	assert_int_equal(network.subnet.prefix_length, 0);
	assert_int_equal(network.gateway.s_addr, 0);
	assert_string_equal(network.bridge, "");
	assert_int_equal(network.mtu, 9000);
	assert_false(network.running);
	expect_text(broker_network_encode(&network), stopped_text);
	json_object_set_new(value, "subnet", json_null());
	json_object_set_new(value, "later", json_true());
	assert_int_equal(broker_network_decode(value, &network), 0);
	json_decref(value);
}

/* Decoding must fail when this member has this value (NULL: is absent), and must leave the output
 * alone. */
static void expect_bad_member(const char *text, const char *key, json_t *bad,
	int (*decode)(json_t *value, void *ret_struct), void *output, size_t output_size)
{
	json_t *value = load(text);

	if (bad)
		json_object_set_new(value, key, bad);
	else
		json_object_del(value, key);
	memset(output, 0xa5, output_size);
	if (decode(value, output) != -EBADMSG)
		fail_msg("member %s: bad value was accepted", key);
	for (size_t i = 0; i < output_size; i++)
		assert_int_equal(((uint8_t *)output)[i], 0xa5);
	json_decref(value);
}

static int decode_network(json_t *value, void *ret_struct)
{
	return broker_network_decode(value, ret_struct);
}

static void expect_bad_network(const char *key, json_t *bad)
{
	struct broker_network network;

	expect_bad_member(network_text, key, bad, decode_network, &network, sizeof(network));
}

static void bad_networks_are_refused(void **state)
{
	static const char *const required[] = {"name", "mode", "mtu", "running"};

	for (size_t i = 0; i < array_length(required); i++)
		expect_bad_network(required[i], NULL);
	expect_bad_network("name", json_string("no name"));
	expect_bad_network("name", json_integer(1));
	expect_bad_network("name", json_string("a23456789012345678901234567890123"));
	expect_bad_network("mode", json_string(""));
	expect_bad_network("ipv6Prefix", json_string("fd00::"));
	expect_bad_network("ipv6Prefix", json_string("fd00::/63"));
	expect_bad_network("ipv6Prefix", json_string("192.168.64.0/64"));
	expect_bad_network("ipv6Prefix", json_integer(1));
	expect_bad_network("mode", json_string("0123456789abcdef"));
	expect_bad_network("subnet", json_string("192.168.64.1/24"));
	expect_bad_network("subnet", json_string("192.168.64.0/24 "));
	expect_bad_network("subnet", json_integer(24));
	expect_bad_network("gateway", json_string("192.168.64"));
	expect_bad_network("gateway", json_string("1111.1111.1111.1111"));
	expect_bad_network("mtu", json_integer(-1));
	expect_bad_network("mtu", json_integer(INT64_C(1) << 32));
	expect_bad_network("mtu", json_real(1500));
	expect_bad_network("bridge", json_string("sixteen-bytes-xx"));
	expect_bad_network("domain", json_string("a234567890123456789012345678901234567.vmnet"));
	expect_bad_network("running", json_integer(1));
}

static void acquire_survives_the_wire(void **state)
{
	struct acquire_network_call call = {.wanted.network = "blue.1_a-b"}, decoded;
	char reason[BROKER_REASON_SIZE];
	json_t *parameters = acquire_network_encode(&call);

	assert_int_equal(acquire_network_decode(parameters, &decoded, reason), 0);
	assert_string_equal(decoded.wanted.network, "blue.1_a-b");
	expect_text(parameters, "{\"network\":\"blue.1_a-b\"}");
}

static void expect_acquire_refused(const char *text, const char *expected)
{
	json_t *parameters = text ? load(text) : NULL;
	struct acquire_network_call call = {.wanted.network = "kept"};
	char reason[BROKER_REASON_SIZE] = "";

	assert_int_equal(acquire_network_decode(parameters, &call, reason), -EINVAL);
	assert_string_equal(call.wanted.network, "kept");
	if (!strstr(reason, expected))
		fail_msg("\"%s\" does not contain \"%s\"", reason, expected);
	json_decref(parameters);
}

static void bad_acquires_are_refused_with_a_reason(void **state)
{
	char long_key[1000] = "{\"network\":\"a\",\"";

	expect_acquire_refused(NULL, "parameter \"network\" is missing");
	expect_acquire_refused("{}", "parameter \"network\" is missing");
	expect_acquire_refused("{\"network\":null}", "parameter \"network\" is missing");
	expect_acquire_refused("{\"network\":1}", "parameter \"network\" must be a network name");
	expect_acquire_refused("{\"network\":\"\"}", "parameter \"network\" must be");
	expect_acquire_refused("{\"network\":\"../x\"}", "parameter \"network\" must be");
	expect_acquire_refused("{\"network\":\"a23456789012345678901234567890123\"}", "1 to 32");
	expect_acquire_refused("{\"network\":\"a\",\"netwrok\":1}",
		"unknown parameter \"netwrok\"; there are: network");
	memset(long_key + strlen(long_key), 'k', 900);
	strcat(long_key, "\":1}");
	expect_acquire_refused(long_key, "kkk\"; there are: network");
}

static void create_survives_the_wire(void **state)
{
	struct create_interface_call call = make_create(), decoded;
	char reason[BROKER_REASON_SIZE];
	json_t *parameters = create_interface_encode(&call);

	assert_int_equal(create_interface_decode(parameters, &decoded, reason), 0);
	assert_string_equal(decoded.wanted.network, "shared");
	assert_true(decoded.has_mac);
	assert_memory_equal(&decoded.mac, &call.mac, sizeof(call.mac));
	assert_true(decoded.has_interface_id);
	assert_memory_equal(&decoded.interface_id, &call.interface_id, sizeof(call.interface_id));
	assert_string_equal(decoded.hostname, "web");
	assert_int_equal(decoded.queues, 8);
	assert_true(decoded.vhost);
	assert_true(decoded.isolation);
	assert_int_equal(decoded.sockets_count, 2);
	assert_int_equal(decoded.sockets[0], 1);
	assert_int_equal(decoded.sockets[1], 15);
	expect_text(parameters,
		"{\"network\":\"shared\",\"mac\":\"52:54:00:12:34:56\","
		"\"interfaceId\":\"6D6B1F5C-40FC-4D10-A8A5-6F7D2C0E9B11\",\"hostname\":\"web\","
		"\"queues\":8,\"vhost\":true,\"isolation\":true,\"sockets\":[1,15]}");
}

static void a_named_tap_has_one_queue(void **state)
{
	struct create_interface_call call = {.wanted.network = "host", .named = true}, decoded;
	char reason[BROKER_REASON_SIZE];
	json_t *parameters = create_interface_encode(&call);

	assert_int_equal(create_interface_decode(parameters, &decoded, reason), 0);
	assert_true(decoded.named);
	json_object_set_new(parameters, "queues", json_integer(1));
	assert_int_equal(create_interface_decode(parameters, &decoded, reason), 0);
	json_object_set_new(parameters, "queues", json_integer(2));
	assert_int_equal(create_interface_decode(parameters, &decoded, reason), -EINVAL);
	assert_non_null(strstr(reason, "parameter \"named\""));
	assert_non_null(strstr(reason, "leave out queues"));
	json_object_del(parameters, "queues");
	json_object_set_new(parameters, "vhost", json_true());
	assert_int_equal(create_interface_decode(parameters, &decoded, reason), -EINVAL);
	assert_non_null(strstr(reason, "leave out vhost"));
	json_object_del(parameters, "vhost");
	expect_text(parameters, "{\"network\":\"host\",\"named\":true}");
}

static void create_needs_only_a_network(void **state)
{
	struct create_interface_call call = {.wanted.network = "host"}, decoded;
	char reason[BROKER_REASON_SIZE];
	json_t *parameters = load("{\"network\":\"host\",\"mac\":null,\"interfaceId\":null,"
				  "\"hostname\":null,\"queues\":null,\"vhost\":null,\"isolation\":"
				  "null,\"sockets\":[]}");

	memset(&decoded, 0xff, sizeof(decoded));
	assert_int_equal(create_interface_decode(parameters, &decoded, reason), 0);
	assert_false(decoded.has_mac);
	assert_false(decoded.has_interface_id);
	assert_string_equal(decoded.hostname, "");
	assert_int_equal(decoded.queues, 0);
	assert_false(decoded.vhost);
	assert_false(decoded.isolation);
	assert_false(decoded.named);
	assert_int_equal(decoded.sockets_count, 0);
	json_decref(parameters);
	expect_text(create_interface_encode(&call), "{\"network\":\"host\"}");
}

static void expect_create_refused(const char *key, json_t *value)
{
	struct create_interface_call good = make_create(), call = {.wanted.network = "kept"};
	json_t *parameters = create_interface_encode(&good);
	char reason[BROKER_REASON_SIZE] = "";
	char expected[64];

	if (value)
		json_object_set_new(parameters, key, value);
	else
		json_object_del(parameters, key);
	snprintf(expected, sizeof(expected), "parameter \"%s\"", key);
	assert_int_equal(create_interface_decode(parameters, &call, reason), -EINVAL);
	assert_string_equal(call.wanted.network, "kept");
	if (!strstr(reason, expected))
		fail_msg("\"%s\" does not contain \"%s\"", reason, expected);
	json_decref(parameters);
}

static void bad_creates_are_refused_with_a_reason(void **state)
{
	expect_create_refused("network", NULL);
	expect_create_refused("network", json_true());
	expect_create_refused("interfaceID", json_string("x"));
	expect_create_refused("mac", json_integer(1));
	expect_create_refused("mac", json_string("52:54:00:12:34"));
	expect_create_refused("mac", json_string("01:00:5e:00:00:01"));
	expect_create_refused("mac", json_string("00:00:00:00:00:00"));
	expect_create_refused("interfaceId", json_string("6d6b1f5c"));
	expect_create_refused("interfaceId", json_integer(6));
	expect_create_refused("hostname", json_string(""));
	expect_create_refused("hostname", json_string("a.b"));
	expect_create_refused("hostname", json_array());
	expect_create_refused("queues", json_integer(0));
	expect_create_refused("queues", json_integer(9));
	expect_create_refused("queues", json_integer(INT64_C(1) << 32 | 1));
	expect_create_refused("queues", json_string("1"));
	expect_create_refused("queues", json_real(1.0));
	expect_create_refused("vhost", json_integer(1));
	expect_create_refused("vhost", json_string("true"));
	expect_create_refused("isolation", json_integer(1));
	expect_create_refused("named", json_string("vmtap0"));
	expect_create_refused("sockets", json_integer(0));
	expect_create_refused("sockets", load("[0,1,2]"));
	expect_create_refused("sockets", load("[1,1]"));
	expect_create_refused("sockets", load("[-1]"));
	expect_create_refused("sockets", load("[16]"));
	expect_create_refused("sockets", load("[4294967296]"));
	expect_create_refused("sockets", load("[\"0\"]"));
}

static void created_interfaces_survive_the_wire(void **state)
{
	struct created_interface created = make_created(), decoded;
	json_t *parameters = created_interface_encode(&created);
	char expected[1024];

	assert_int_equal(created_interface_decode(parameters, &decoded), 0);
	assert_memory_equal(&decoded, &created, sizeof(created));
	snprintf(expected, sizeof(expected), "{\"network\":%s,%s", network_text, created_text);
	expect_text(parameters, expected);
}

static void a_bridged_interface_has_no_address(void **state)
{
	struct created_interface created = make_created(), decoded;
	json_t *parameters;

	created.address.s_addr = 0;
	created.held_by_connection = true;
	created.network.subnet = (struct ipv4_subnet){{0}, 0};
	created.network.gateway.s_addr = 0;
	snprintf(created.network.mode, sizeof(created.network.mode), "bridged");
	snprintf(created.network.uplink, sizeof(created.network.uplink), "eth0");
	parameters = created_interface_encode(&created);
	assert_null(json_object_get(parameters, "address"));
	assert_int_equal(created_interface_decode(parameters, &decoded), 0);
	assert_memory_equal(&decoded, &created, sizeof(created));
	json_decref(parameters);
}

static void a_named_interface_has_no_fds(void **state)
{
	struct created_interface created = make_created(), decoded;
	json_t *parameters;

	created.held_by_connection = true;
	created.queues_count = created.vhosts_count = 0;
	memset(created.queues, 0, sizeof(created.queues));
	memset(created.vhosts, 0, sizeof(created.vhosts));
	parameters = created_interface_encode(&created);
	assert_int_equal(created_interface_decode(parameters, &decoded), 0);
	assert_memory_equal(&decoded, &created, sizeof(created));
	json_decref(parameters);
}

static int decode_created(json_t *value, void *ret_struct)
{
	return created_interface_decode(value, ret_struct);
}

static void expect_bad_created(const char *key, json_t *bad)
{
	struct created_interface created;
	char text[1024];

	snprintf(text, sizeof(text), "{\"network\":%s,%s", network_text, created_text);
	expect_bad_member(text, key, bad, decode_created, &created, sizeof(created));
}

static void bad_created_interfaces_are_refused(void **state)
{
	static const char *const keys[] = {"network", "interfaceName", "mac", "interfaceId",
		"queues", "vhosts", "socketBufferBytes"};

	expect_bad_created("address", json_true());
	expect_bad_created("address", json_string("10.0.0"));
	for (size_t i = 0; i < array_length(keys); i++) {
		expect_bad_created(keys[i], NULL);
		expect_bad_created(keys[i], json_null());
		expect_bad_created(keys[i], json_true());
	}
	expect_bad_created("interfaceName", json_string("sixteen-bytes-xx"));
	expect_bad_created("interfaceName", json_string(""));
	expect_bad_created("queues", json_array());
	expect_bad_created("queues", load("[0,1,2,3,4,5,6,7,8]"));
	expect_bad_created("queues", load("[0,0]"));
	expect_bad_created("vhosts", load("[2]"));
	expect_bad_created("vhosts", load("[2,2]"));
	expect_bad_created("vhosts", load("[2,3,4]"));
	expect_bad_created("vhosts", load("[2,16]"));
	expect_bad_created("socketBufferBytes", json_integer(-1));
	expect_bad_created("mac", json_string("02:00:00:00:00:001"));
}

static void enlarge_survives_the_wire(void **state)
{
	struct enlarge_socket_buffers_call call = {.sockets_count = 1, .sockets = {0}}, decoded;
	char reason[BROKER_REASON_SIZE];
	json_t *parameters = enlarge_socket_buffers_encode(&call);
	uint32_t bytes;

	assert_int_equal(enlarge_socket_buffers_decode(parameters, &decoded, reason), 0);
	assert_int_equal(decoded.sockets_count, 1);
	assert_int_equal(decoded.sockets[0], 0);
	expect_text(parameters, "{\"sockets\":[0]}");
	parameters = enlarged_socket_buffers_encode(UINT32_MAX);
	assert_int_equal(enlarged_socket_buffers_decode(parameters, &bytes), 0);
	assert_int_equal(bytes, UINT32_MAX);
	expect_text(parameters, "{\"socketBufferBytes\":4294967295}");
	assert_int_equal(enlarged_socket_buffers_decode(NULL, &bytes), -EBADMSG);
}

static void bad_enlarges_are_refused_with_a_reason(void **state)
{
	static const char *const texts[] = {"{}", "{\"sockets\":[]}", "{\"sockets\":[0,1,2]}",
		"{\"sockets\":[0],\"socket\":1}"};

	for (size_t i = 0; i < array_length(texts); i++) {
		struct enlarge_socket_buffers_call call = {.sockets_count = 77};
		char reason[BROKER_REASON_SIZE] = "";
		json_t *parameters = load(texts[i]);

		assert_int_equal(enlarge_socket_buffers_decode(parameters, &call, reason), -EINVAL);
		assert_int_equal(call.sockets_count, 77);
		assert_non_null(strstr(reason, "parameter \"socket"));
		json_decref(parameters);
	}
}

/* --- memory that runs out: NULL comes back, and nothing leaks, whichever one allocation fails ---
 */

static int allocations_until_failure;

static void *failing_malloc(size_t size)
{
	return allocations_until_failure-- == 0 ? NULL : malloc(size);
}

static struct broker_interface make_interface(void)
{
	struct created_interface created = make_created();
	struct broker_interface interface = {
		.network = "shared",
		.interface_name = "vmtap00000001",
		.has_record = true,
		.mac = created.mac,
		.interface_id = created.interface_id,
		.address = created.address,
		.hostname = "web",
		.uid = UINT32_MAX - 1,
		.queues = 2,
		.locked = true,
	};

	return interface;
}

static void interfaces_are_described(void **state)
{
	struct broker_interface interface = make_interface();

	expect_text(broker_interface_encode(&interface),
		"{\"network\":\"shared\",\"interfaceName\":\"vmtap00000001\","
		"\"mac\":\"02:00:00:00:00:01\","
		"\"interfaceId\":\"6D6B1F5C-40FC-4D10-A8A5-6F7D2C0E9B11\","
		"\"address\":\"192.168.64.2\",\"hostname\":\"web\",\"uid\":4294967294,"
		"\"queues\":2,\"isolated\":false,\"locked\":true,\"named\":false}");
	interface.has_record = false;
	expect_text(broker_interface_encode(&interface),
		"{\"network\":\"shared\",\"interfaceName\":\"vmtap00000001\",\"queues\":2,"
		"\"isolated\":false,\"locked\":true,\"named\":false}");
}

static void a_list_of_interfaces_may_begin_anywhere(void **state)
{
	static const char *const bad[] = {
		"{\"after\":1}", "{\"after\":\"sixteen-letters-\"}", "{\"network\":\"shared\"}"};
	struct list_interfaces_call call;
	char reason[BROKER_REASON_SIZE];
	json_t *parameters = load("{\"after\":\"vmtap00000001\"}");

	assert_int_equal(list_interfaces_decode(parameters, &call, reason), 0);
	assert_string_equal(call.after, "vmtap00000001");
	json_decref(parameters);
	assert_int_equal(list_interfaces_decode(NULL, &call, reason), 0);
	assert_string_equal(call.after, "");
	for (size_t i = 0; i < array_length(bad); i++) {
		parameters = load(bad[i]);
		*reason = '\0';
		assert_int_equal(list_interfaces_decode(parameters, &call, reason), -EINVAL);
		assert_true(*reason);
		json_decref(parameters);
	}
}

static json_t *encode_number(int number)
{
	struct broker_interface interface = make_interface();
	struct broker_network network = make_network();
	struct create_interface_call create = make_create();
	struct created_interface created = make_created();
	struct enlarge_socket_buffers_call enlarge = {.sockets_count = 2, .sockets = {0, 1}};

	switch (number) {
	case 0:
		return broker_error_encode(BROKER_ERROR_CONFLICT, "text");
	case 1:
		return acquired_network_encode(&network);
	case 2:
		return create_interface_encode(&create);
	case 3:
		return created_interface_encode(&created);
	case 4:
		return enlarge_socket_buffers_encode(&enlarge);
	case 5:
		return broker_interface_encode(&interface);
	default:
		return varlink_make_call("a.B", NULL);
	}
}

/* Lets one allocation after the other fail until an encoding needs no more of them. */
static int count_failures(int number, const char *complete)
{
	for (int failing = 0;; failing++) {
		json_t *value;
		bool has_failed;

		allocations_until_failure = failing;
		value = encode_number(number);
		has_failed = allocations_until_failure < 0;
		allocations_until_failure = -1;
		/* A value in spite of a failure must not lack what could not be allocated. */
		if (value)
			expect_text(value, complete);
		if (!has_failed)
			return failing;
	}
}

static void running_out_of_memory_is_reported(void **state)
{
	for (int number = 0; number < 7; number++) {
		json_t *value = encode_number(number);
		char *complete = json_dumps(value, JSON_COMPACT);
		int failures;

		json_decref(value);
		json_set_alloc_funcs(failing_malloc, free);
		failures = count_failures(number, complete);
		json_set_alloc_funcs(malloc, free);
		/* Every encoder needs at least its object and a member. */
		assert_true(failures >= 2);
		free(complete);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors_have_the_names_of_the_contract),
		cmocka_unit_test(error_reasons_arrive),
		cmocka_unit_test(networks_survive_the_wire),
		cmocka_unit_test(networks_have_ipv6_or_not),
		cmocka_unit_test(a_network_that_does_not_run_has_no_addresses),
		cmocka_unit_test(bad_networks_are_refused),
		cmocka_unit_test(acquire_survives_the_wire),
		cmocka_unit_test(bad_acquires_are_refused_with_a_reason),
		cmocka_unit_test(create_survives_the_wire),
		cmocka_unit_test(a_named_tap_has_one_queue),
		cmocka_unit_test(create_needs_only_a_network),
		cmocka_unit_test(bad_creates_are_refused_with_a_reason),
		cmocka_unit_test(created_interfaces_survive_the_wire),
		cmocka_unit_test(a_bridged_interface_has_no_address),
		cmocka_unit_test(a_named_interface_has_no_fds),
		cmocka_unit_test(bad_created_interfaces_are_refused),
		cmocka_unit_test(enlarge_survives_the_wire),
		cmocka_unit_test(bad_enlarges_are_refused_with_a_reason),
		cmocka_unit_test(interfaces_are_described),
		cmocka_unit_test(a_list_of_interfaces_may_begin_anywhere),
		cmocka_unit_test(running_out_of_memory_is_reported),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
