#include "wire/forward-spec.h"

#include "base/cleanup.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static_assert(ENDPOINT_TEXT_SIZE >= INET6_ADDRSTRLEN + sizeof("[]:65535"), "every endpoint fits");
static_assert(FORWARD_TARGET_SIZE >= ENDPOINT_TEXT_SIZE, "an endpoint is a target, too");

static const struct {
	const char *text;
	uint8_t protocol;
} protocols[] = {
	{"tcp", IPPROTO_TCP},
	{"udp", IPPROTO_UDP},
};

void forward_spec_init(struct forward_spec *spec)
{
	*spec = (struct forward_spec){.protocol = IPPROTO_TCP};
}

int forward_spec_set_protocol(struct forward_spec *spec, const char *text)
{
	for (size_t i = 0; i < array_length(protocols); i++)
		if (strcmp(protocols[i].text, text) == 0) {
			spec->protocol = protocols[i].protocol;
			return 0;
		}
	return -EINVAL;
}

const char *forward_protocol_to_text(uint8_t protocol)
{
	for (size_t i = 0; i < array_length(protocols); i++)
		if (protocols[i].protocol == protocol)
			return protocols[i].text;
	return "?";
}

static int parse_port(const char *text, uint16_t *ret_port)
{
	uint32_t port;

	if (text_to_uint32(text, 1, UINT16_MAX, &port) < 0)
		return -EINVAL;
	*ret_port = (uint16_t)port;
	return 0;
}

/* Splits "HOST:PORT" and "[HOST]:PORT" at the last colon. host has ENDPOINT_TEXT_SIZE bytes. */
static int split(
	const char *text, char *host, size_t host_size, bool *ret_bracketed, uint16_t *ret_port)
{
	const char *colon = strrchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : 0;
	bool bracketed = *text == '[';

	if (bracketed && (length < 2 || text[length - 1] != ']'))
		return -EINVAL;
	if (bracketed) {
		text++;
		length -= 2;
	}
	if (length == 0 || length >= host_size || parse_port(colon + 1, ret_port) < 0)
		return -EINVAL;
	memcpy(host, text, length);
	host[length] = '\0';
	*ret_bracketed = bracketed;
	return 0;
}

static int parse_address(const char *host, bool bracketed, struct endpoint *endpoint)
{
	struct in_addr address;

	memset(endpoint->address, 0, sizeof(endpoint->address));
	endpoint->is_ipv6 = bracketed;
	if (bracketed)
		return inet_pton(AF_INET6, host, endpoint->address) == 1 ? 0 : -EINVAL;
	if (text_to_ipv4(host, &address) < 0)
		return -EINVAL;
	memcpy(endpoint->address, &address, sizeof(address));
	return 0;
}

int forward_spec_set_listen(struct forward_spec *spec, const char *text)
{
	struct endpoint listen = {.is_ipv6 = false};
	char host[ENDPOINT_TEXT_SIZE];
	bool bracketed;

	if (parse_port(text, &listen.port) == 0) {
		spec->listen = listen;
		spec->has_address = false;
		return 0;
	}
	if (split(text, host, sizeof(host), &bracketed, &listen.port) < 0 ||
		parse_address(host, bracketed, &listen) < 0)
		return -EINVAL;
	spec->listen = listen;
	spec->has_address = true;
	return 0;
}

/* "1.2.3.4" looks like no name, and "300.2.3.4" must not become one. */
static bool is_name(const char *host, bool bracketed)
{
	return !bracketed && hostname_is_valid(host) && strspn(host, "0123456789") != strlen(host);
}

int forward_spec_set_target(struct forward_spec *spec, const char *text)
{
	struct endpoint target = {.is_ipv6 = false};
	char host[HOSTNAME_SIZE];
	bool bracketed;

	if (split(text, host, sizeof(host), &bracketed, &target.port) < 0)
		return -EINVAL;
	spec->hostname[0] = '\0';
	if (is_name(host, bracketed))
		text_copy(spec->hostname, sizeof(spec->hostname), host);
	else if (parse_address(host, bracketed, &target) < 0 || endpoint_has_every_address(&target))
		return -EINVAL;
	spec->target = target;
	return 0;
}

int forward_spec_settle(struct forward_spec *spec)
{
	if (*spec->hostname)
		spec->target.is_ipv6 = spec->has_address && spec->listen.is_ipv6;
	if (!spec->has_address)
		spec->listen.is_ipv6 = spec->target.is_ipv6;
	return spec->listen.is_ipv6 == spec->target.is_ipv6 ? 0 : -EINVAL;
}

bool endpoints_are_equal(const struct endpoint *a, const struct endpoint *b)
{
	return a->is_ipv6 == b->is_ipv6 && a->port == b->port &&
	       memcmp(a->address, b->address, sizeof(a->address)) == 0;
}

bool forward_specs_are_equal(const struct forward_spec *a, const struct forward_spec *b)
{
	return a->protocol == b->protocol && endpoints_are_equal(&a->listen, &b->listen) &&
	       strcasecmp(a->hostname, b->hostname) == 0 &&
	       endpoints_are_equal(&a->target, &b->target);
}

bool endpoint_has_every_address(const struct endpoint *endpoint)
{
	static const uint8_t zeros[sizeof(endpoint->address)];

	return memcmp(endpoint->address, zeros, sizeof(zeros)) == 0;
}

bool endpoints_overlap(const struct endpoint *a, const struct endpoint *b)
{
	return a->is_ipv6 == b->is_ipv6 && a->port == b->port &&
	       (endpoint_has_every_address(a) || endpoint_has_every_address(b) ||
		       endpoints_are_equal(a, b));
}

void endpoint_to_text(const struct endpoint *endpoint, char text[ENDPOINT_TEXT_SIZE])
{
	char address[INET6_ADDRSTRLEN];

	inet_ntop(endpoint->is_ipv6 ? AF_INET6 : AF_INET, endpoint->address, address,
		sizeof(address));
	snprintf(text, ENDPOINT_TEXT_SIZE, endpoint->is_ipv6 ? "[%s]:%u" : "%s:%u", address,
		endpoint->port);
}

void forward_target_to_text(const struct forward_spec *spec, char text[FORWARD_TARGET_SIZE])
{
	if (*spec->hostname)
		snprintf(text, FORWARD_TARGET_SIZE, "%s:%u", spec->hostname, spec->target.port);
	else
		endpoint_to_text(&spec->target, text);
}
