/*
 * Strict text to value and back. Leading blanks, trailing bytes, empty text and values out of range
 * are -EINVAL (too long: -ENAMETOOLONG); nothing is ever cut silently.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define NETWORK_NAME_SIZE 33 /* with its NUL */
#define HOSTNAME_SIZE     64 /* with its NUL; a DNS label, RFC 1035 2.3.4 */
#define MAC_SIZE          6
#define MAC_TEXT_SIZE     18
#define UUID_SIZE         16
#define UUID_TEXT_SIZE    37
#define SUBNET_TEXT_SIZE  19

struct mac {
	uint8_t bytes[MAC_SIZE];
};

struct uuid {
	uint8_t bytes[UUID_SIZE];
};

/* address is the network's base address: host bits are zero. */
struct ipv4_subnet {
	struct in_addr address;
	uint8_t prefix_length;
};

/* Decimal digits only, within [minimum, maximum]. */
int text_to_uint32(const char *text, uint32_t minimum, uint32_t maximum, uint32_t *ret_value);

/* Dotted quad. */
int text_to_ipv4(const char *text, struct in_addr *ret_address);

/* The same into text, which has INET_ADDRSTRLEN bytes. */
void ipv4_to_text(struct in_addr address, char *text);

/* "192.168.64.0/24"; prefix length 8..30; a base address with host bits set is -EINVAL. */
int text_to_ipv4_subnet(const char *text, struct ipv4_subnet *ret_subnet);

/* "192.168.64.0/24" into text, which has SUBNET_TEXT_SIZE bytes. */
void ipv4_subnet_to_text(struct ipv4_subnet subnet, char *text);

/* The netmask, in network byte order. */
struct in_addr ipv4_subnet_mask(struct ipv4_subnet subnet);

/* base + offset, in network byte order; offset 1 is the gateway by our convention. */
struct in_addr ipv4_subnet_host(struct ipv4_subnet subnet, uint32_t offset);

/* Number of addresses, 2^(32 - prefix_length); prefix_length 1..32. */
uint32_t ipv4_subnet_size(struct ipv4_subnet subnet);

bool ipv4_subnet_contains(struct ipv4_subnet subnet, struct in_addr address);
bool ipv4_subnets_overlap(struct ipv4_subnet a, struct ipv4_subnet b);

/* Six hexadecimal pairs with colons, any case. Says nothing of what kind of address it is. */
int text_to_mac(const char *text, struct mac *ret_mac);

/* Lower case with colons into text, which has MAC_TEXT_SIZE bytes. */
void mac_to_text(struct mac mac, char *text);

/* A VM may have it: not multicast, not all zero. */
bool mac_is_unicast(struct mac mac);

/* RFC 9562 text form, any case. */
int text_to_uuid(const char *text, struct uuid *ret_uuid);

/* Upper case, as the original helper prints it, into text, which has UUID_TEXT_SIZE bytes. */
void uuid_to_text(struct uuid uuid, char *text);

/* [A-Za-z0-9][A-Za-z0-9_.-]*, 1..32 bytes: safe in paths, link aliases, nft comments and DNS. */
bool network_name_is_valid(const char *name);

/* A DNS label: letters, digits and inner hyphens, 1..63 bytes (RFC 1035 2.3.1, RFC 1123 2.1). */
bool hostname_is_valid(const char *name);

/* Labels as hostname_is_valid() has them with dots between, at most 253 bytes (RFC 1035 2.3.4). */
bool domain_is_valid(const char *name);

/*
 * Closes a stream of open_memstream(3) that writes to *text, and returns what was written, to be
 * freed; NULL when memory was out for a part of it.
 */
char *text_take_stream(FILE *stream, char **text);

/* Copies a whole string or nothing: -ENAMETOOLONG when it does not fit with its NUL. */
int text_copy(char *destination, size_t size, const char *source);
