#include "forwarder/address.h"

#include <netinet/in.h>
#include <string.h>

static const uint8_t zeros[16];

socklen_t address_make(
	bool is_ipv6, const uint8_t bytes[16], uint16_t port, struct sockaddr_storage *ret_address)
{
	struct sockaddr_in *ipv4 = (struct sockaddr_in *)ret_address;
	struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)ret_address;

	memset(ret_address, 0, sizeof(*ret_address));
	if (is_ipv6) {
		ipv6->sin6_family = AF_INET6;
		ipv6->sin6_port = htons(port);
		memcpy(&ipv6->sin6_addr, bytes, sizeof(ipv6->sin6_addr));
		return sizeof(*ipv6);
	}
	ipv4->sin_family = AF_INET;
	ipv4->sin_port = htons(port);
	memcpy(&ipv4->sin_addr, bytes, sizeof(ipv4->sin_addr));
	return sizeof(*ipv4);
}

bool address_is(const struct sockaddr_storage *address, bool is_ipv6, const uint8_t bytes[16],
	uint16_t port)
{
	const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)address;
	const struct sockaddr_in6 *ipv6 = (const struct sockaddr_in6 *)address;

	if (is_ipv6)
		return ipv6->sin6_family == AF_INET6 && ipv6->sin6_port == htons(port) &&
		       memcmp(&ipv6->sin6_addr, bytes, sizeof(ipv6->sin6_addr)) == 0;
	return ipv4->sin_family == AF_INET && ipv4->sin_port == htons(port) &&
	       memcmp(&ipv4->sin_addr, bytes, sizeof(ipv4->sin_addr)) == 0;
}

/* RFC 6890: 0.0.0.0/8 is this network, 127.0.0.0/8 the loopback, from 224.0.0.0 on multicast, what
 * is reserved and broadcast. */
static bool is_ipv4_target(const uint8_t bytes[16])
{
	return bytes[0] != 0 && bytes[0] != 127 && bytes[0] < 224;
}

/* A link-local address says nothing without its link. ::/96 and ::ffff:0:0/96 hold IPv4. */
static bool is_ipv6_target(const uint8_t bytes[16])
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	if (bytes[0] == 0xff || (bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80))
		return false;
	return memcmp(bytes, zeros, sizeof(mapped)) != 0 &&
	       memcmp(bytes, mapped, sizeof(mapped)) != 0;
}

bool address_is_target(bool is_ipv6, const uint8_t bytes[16])
{
	return is_ipv6 ? is_ipv6_target(bytes) : is_ipv4_target(bytes);
}

static bool has_zeros_behind_ipv4(const uint8_t bytes[16])
{
	return memcmp(bytes + 4, zeros, sizeof(zeros) - 4) == 0;
}

bool forward_is_valid(const struct forwarder_forward *forward)
{
	if (forward->is_ipv6 > 1 || forward->listen_port == 0 || forward->target_port == 0 ||
		(forward->protocol != IPPROTO_TCP && forward->protocol != IPPROTO_UDP))
		return false;
	if (!forward->is_ipv6 && (!has_zeros_behind_ipv4(forward->listen) ||
					 !has_zeros_behind_ipv4(forward->target)))
		return false;
	return address_is_target(forward->is_ipv6, forward->target);
}

bool forward_has_same_listen(const struct forwarder_forward *a, const struct forwarder_forward *b)
{
	return a->is_ipv6 == b->is_ipv6 && a->protocol == b->protocol &&
	       a->listen_port == b->listen_port &&
	       memcmp(a->listen, b->listen, sizeof(a->listen)) == 0;
}

bool forward_has_same_target(const struct forwarder_forward *a, const struct forwarder_forward *b)
{
	return a->is_ipv6 == b->is_ipv6 && a->target_port == b->target_port &&
	       memcmp(a->target, b->target, sizeof(a->target)) == 0;
}
