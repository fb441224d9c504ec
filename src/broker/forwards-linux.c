/* Forwards on Linux: their rules by priv, and which programs listen on the host by /proc. */
#include "broker/linux.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* Linux' own default (net.ipv4.ip_unprivileged_port_start). */
#define UNPRIVILEGED_PORT_DEFAULT 1024

/* --- rules --- */

static void encode(const struct platform_forward *forward, struct verb_forward *ret_encoded)
{
	*ret_encoded = (struct verb_forward){
		.is_ipv6 = forward->listen.is_ipv6,
		.protocol = forward->protocol,
		.listen_port = forward->listen.port,
		.target_port = forward->target.port,
	};
	memcpy(ret_encoded->listen, forward->listen.address, sizeof(ret_encoded->listen));
	memcpy(ret_encoded->target, forward->target.address, sizeof(ret_encoded->target));
}

static int write_file(int file, const struct platform_forward *forwards, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct verb_forward encoded;

		encode(&forwards[i], &encoded);
		if (write(file, &encoded, sizeof(encoded)) != sizeof(encoded))
			return -EIO;
	}
	if (fcntl(file, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		return -errno;
	return 0;
}

int platform_apply_forwards(struct platform *platform, struct platform_forward *forwards,
	size_t count, bool ends_flows, char *detail)
{
	struct verb_request request = {
		.verb = VERB_APPLY_FORWARDS,
		.apply_forwards = {.count = (uint32_t)count, .ends_flows = ends_flows},
	};
	cleanup_fd int file = memfd_create("forwards", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct verb_reply reply;
	int error;

	if (platform->is_rootless)
		return forwarder_watch_apply(
			platform->forwarder, forwards, count, ends_flows, detail);
	if (file < 0)
		return -errno;
	error = write_file(file, forwards, count);
	if (!error)
		error = linux_call(platform, &request, &file, 1, &reply, NULL, detail);
	return error ? error : (int)reply.value;
}

/* --- programs of the host --- */

/* What is looked for, and one line of /proc/net/tcp and its like. */
struct search {
	const struct endpoint *wanted;
	bool is_rootless;   /* forwards listen themselves, and are no programs of the host */
	unsigned int state; /* in which a socket takes what nobody asked for */
	struct platform_listener *found;
};

/* The words of an address are printed as numbers of the host's byte order (seq_printf "%08X"). */
static bool parse_address(const char *text, bool is_ipv6, struct endpoint *endpoint)
{
	size_t words = is_ipv6 ? 4 : 1;

	endpoint->is_ipv6 = is_ipv6;
	for (size_t i = 0; i < words; i++) {
		uint32_t word;

		if (sscanf(text + 8 * i, "%8x", &word) != 1)
			return false;
		memcpy(endpoint->address + 4 * i, &word, sizeof(word));
	}
	return true;
}

/* "[::]" takes IPv4 too, unless its program asked otherwise, which is not to be seen. */
static bool takes_the_same(const struct endpoint *program, const struct endpoint *wanted)
{
	if (program->is_ipv6 && !wanted->is_ipv6)
		return program->port == wanted->port && endpoint_has_every_address(program);
	return endpoints_overlap(program, wanted);
}

/* proc(5): slot, local address and port, remote ones, state, queues, timer, retransmits, uid,
 * timeout, inode. */
static bool match_line(struct search *search, const char *line, bool is_ipv6)
{
	struct platform_listener listener = {.uid = 0};
	unsigned int port, state, uid;
	unsigned long inode;
	char address[33];

	if (sscanf(line, " %*u: %32[0-9A-Fa-f]:%4x %*[0-9A-Fa-f]:%*4x %2x %*s %*s %*s %u %*u %lu",
		    address, &port, &state, &uid, &inode) != 5 ||
		strlen(address) != (is_ipv6 ? 32u : 8u) || state != search->state ||
		!parse_address(address, is_ipv6, &listener.endpoint))
		return false;
	listener.endpoint.port = (uint16_t)port;
	listener.uid = uid;
	if (!takes_the_same(&listener.endpoint, search->wanted) ||
		(search->is_rootless && forwarder_has_socket(inode)))
		return false;
	*search->found = listener;
	return true;
}

/* Returns 1 when one was found, 0 when not. A kernel without IPv6 has no such file. */
static int search_file(struct search *search, const char *path, bool is_ipv6)
{
	cleanup_file FILE *file = fopen(path, "re");
	char line[512];

	while (file && fgets(line, sizeof(line), file))
		if (match_line(search, line, is_ipv6))
			return 1;
	return 0;
}

int platform_find_listener(struct platform *platform, uint8_t protocol,
	const struct endpoint *endpoint, struct platform_listener *ret_listener)
{
	enum {
		STATE_UNCONNECTED = 7,
		STATE_LISTEN = 10
	};
	bool is_tcp = protocol == IPPROTO_TCP;
	struct search search = {
		.wanted = endpoint,
		.is_rootless = platform->is_rootless,
		.state = is_tcp ? STATE_LISTEN : STATE_UNCONNECTED,
		.found = ret_listener,
	};
	int found = endpoint->is_ipv6
			    ? 0
			    : search_file(&search,
				      is_tcp ? "/proc/self/net/tcp" : "/proc/self/net/udp", false);

	if (found)
		return found;
	return search_file(&search, is_tcp ? "/proc/self/net/tcp6" : "/proc/self/net/udp6", true);
}

uint32_t platform_first_unprivileged_port(struct platform *platform)
{
	cleanup_file FILE *file = fopen("/proc/sys/net/ipv4/ip_unprivileged_port_start", "re");
	uint32_t port;

	return file && fscanf(file, "%u", &port) == 1 ? port : UNPRIVILEGED_PORT_DEFAULT;
}
