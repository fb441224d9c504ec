#include "broker/resolvers.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "rootless/pasta.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>

#define KEYWORD "nameserver"
/* Room for an IPv6 address with its zone. */
#define SERVER_SIZE 80

/* The address of a line, which has no end; false for any other line. */
static bool read_server(const char *line, size_t length, char server[SERVER_SIZE])
{
	const char *end = line + length;
	size_t size = 0;

	while (line < end && isblank((unsigned char)*line))
		line++;
	if ((size_t)(end - line) <= strlen(KEYWORD) || strncmp(line, KEYWORD, strlen(KEYWORD)) != 0)
		return false;
	line += strlen(KEYWORD);
	if (!isblank((unsigned char)*line))
		return false;
	while (line < end && isblank((unsigned char)*line))
		line++;
	while (line < end && isgraph((unsigned char)*line) && size < SERVER_SIZE - 1)
		server[size++] = *line++;
	server[size] = '\0';
	return size > 0 && strspn(server, "0123456789abcdefABCDEF:.") > 0;
}

char *resolvers_make_text(const char *bytes, size_t size,
	const char *(*choose)(void *context, const char *address), void *context)
{
	char *text = NULL;
	size_t text_size;
	FILE *stream = open_memstream(&text, &text_size);

	if (!stream)
		return NULL;
	for (const char *end = bytes + size; bytes < end;) {
		const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
		size_t length = (size_t)((newline ? newline : end) - bytes);
		char server[SERVER_SIZE];
		const char *chosen =
			read_server(bytes, length, server) ? choose(context, server) : NULL;

		if (chosen)
			fprintf(stream, KEYWORD " %s\n", chosen);
		bytes += length + (newline != NULL);
	}
	return text_take_stream(stream, &text);
}

static bool is_gateway(const struct network *network, const char *address)
{
	struct in_addr own = ipv4_subnet_host(network->link.subnet, network->link.gateway_offset);
	struct in6_addr own6 = ipv6_prefix_gateway(network->link.ipv6_prefix.s6_addr);
	struct in6_addr ipv6;
	struct in_addr ipv4;

	if (inet_pton(AF_INET, address, &ipv4) == 1)
		return ipv4.s_addr == own.s_addr;
	return network->link.has_ipv6 && inet_pton(AF_INET6, address, &ipv6) == 1 &&
	       memcmp(&ipv6, &own6, sizeof(ipv6)) == 0;
}

/* A gateway of ours would ask itself in circles. */
static bool is_own(const struct registry *registry, const char *address)
{
	for (const struct network *network = registry->networks; network; network = network->next)
		if (network->state != NETWORK_ABSENT && is_gateway(network, address))
			return true;
	return false;
}

static bool is_loopback(const char *address)
{
	struct in6_addr ipv6;
	struct in_addr ipv4;

	if (inet_pton(AF_INET, address, &ipv4) == 1)
		return ntohl(ipv4.s_addr) >> IN_CLASSA_NSHIFT == IN_LOOPBACKNET;
	return inet_pton(AF_INET6, address, &ipv6) == 1 && IN6_IS_ADDR_LOOPBACK(&ipv6);
}

static const char *choose(void *context, const char *address)
{
	const struct registry *registry = context;

	if (is_own(registry, address))
		return NULL;
	/* Of the host's loopback, which is not the networks': pasta asks it for them. */
	return registry->is_rootless && is_loopback(address) ? PASTA_RESOLVER : address;
}

int resolvers_write(struct network *network)
{
	struct registry *registry = network->registry;
	cleanup_free char *text = NULL;
	char bytes[PLATFORM_RESOLVERS_SIZE];
	size_t size;
	int error;

	if (!network->settings.dns || network->link.mode != NETWORK_MODE_SHARED)
		return 0;
	/* None, or none that may be read, is none to ask. */
	if (platform_read_resolvers(registry->platform, bytes, &size) < 0)
		size = 0;
	text = resolvers_make_text(bytes, size, choose, registry);
	if (!text)
		return -ENOMEM;
	if (network->resolvers && strcmp(network->resolvers, text) == 0)
		return 0;
	error = records_save_resolvers(registry->records, network->name, text);
	if (error)
		return error;
	free(network->resolvers);
	network->resolvers = take_ptr(text);
	return 0;
}

void resolvers_write_all(struct registry *registry)
{
	for (struct network *network = registry->networks; network; network = network->next) {
		int error = network->state == NETWORK_ABSENT ? 0 : resolvers_write(network);

		if (error)
			log_warn(network->tag, "its name servers could not be written: %s",
				strerror(-error));
	}
}
