#include "base/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int text_to_uint32(const char *text, uint32_t minimum, uint32_t maximum, uint32_t *ret_value)
{
	uint64_t value = 0;

	if (!*text)
		return -EINVAL;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		value = value * 10 + (uint64_t)(*text - '0');
		if (value > maximum)
			return -EINVAL;
	}
	if (value < minimum)
		return -EINVAL;
	*ret_value = (uint32_t)value;
	return 0;
}

int text_to_ipv4(const char *text, struct in_addr *ret_address)
{
	struct in_addr address;

	/* inet_pton() takes dotted quads only, unlike inet_aton(), for which "1" is an address. */
	if (inet_pton(AF_INET, text, &address) != 1)
		return -EINVAL;
	*ret_address = address;
	return 0;
}

/* By hand, as mac_to_text(). */
void ipv4_to_text(struct in_addr address, char *text)
{
	uint32_t value = ntohl(address.s_addr);

	for (int shift = 24; shift >= 0; shift -= 8) {
		uint32_t byte = value >> shift & 0xff;

		if (byte >= 100)
			*text++ = (char)('0' + byte / 100);
		if (byte >= 10)
			*text++ = (char)('0' + byte / 10 % 10);
		*text++ = (char)('0' + byte % 10);
		*text++ = '.';
	}
	text[-1] = '\0';
}

int text_to_ipv4_subnet(const char *text, struct ipv4_subnet *ret_subnet)
{
	char address_text[INET_ADDRSTRLEN];
	struct ipv4_subnet subnet = {0};
	const char *slash = strchr(text, '/');
	uint32_t prefix_length;
	int error;

	if (!slash || (size_t)(slash - text) >= sizeof(address_text))
		return -EINVAL;
	memcpy(address_text, text, (size_t)(slash - text));
	address_text[slash - text] = '\0';
	error = text_to_ipv4(address_text, &subnet.address);
	if (error)
		return error;
	error = text_to_uint32(slash + 1, 8, 30, &prefix_length);
	if (error)
		return error;
	subnet.prefix_length = (uint8_t)prefix_length;
	if (subnet.address.s_addr & ~ipv4_subnet_mask(subnet).s_addr)
		return -EINVAL;
	*ret_subnet = subnet;
	return 0;
}

void ipv4_subnet_to_text(struct ipv4_subnet subnet, char *text)
{
	char address_text[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &subnet.address, address_text, sizeof(address_text));
	snprintf(text, SUBNET_TEXT_SIZE, "%s/%u", address_text, subnet.prefix_length % 100u);
}

struct in_addr ipv4_subnet_mask(struct ipv4_subnet subnet)
{
	uint32_t mask = subnet.prefix_length ? UINT32_MAX << (32 - subnet.prefix_length) : 0;

	return (struct in_addr){.s_addr = htonl(mask)};
}

struct in_addr ipv4_subnet_host(struct ipv4_subnet subnet, uint32_t offset)
{
	return (struct in_addr){.s_addr = htonl(ntohl(subnet.address.s_addr) + offset)};
}

uint32_t ipv4_subnet_size(struct ipv4_subnet subnet)
{
	return UINT32_C(1) << (32 - subnet.prefix_length);
}

bool ipv4_subnet_contains(struct ipv4_subnet subnet, struct in_addr address)
{
	return (address.s_addr & ipv4_subnet_mask(subnet).s_addr) == subnet.address.s_addr;
}

bool ipv4_subnets_overlap(struct ipv4_subnet a, struct ipv4_subnet b)
{
	in_addr_t shorter = a.prefix_length < b.prefix_length ? ipv4_subnet_mask(a).s_addr
							      : ipv4_subnet_mask(b).s_addr;

	return (a.address.s_addr & shorter) == (b.address.s_addr & shorter);
}

static int hexadecimal_digit(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return -EINVAL;
}

static int hexadecimal_byte(const char *text)
{
	int high = hexadecimal_digit(text[0]);
	int low = high < 0 ? high : hexadecimal_digit(text[1]);

	return low < 0 ? -EINVAL : high << 4 | low;
}

int text_to_mac(const char *text, struct mac *ret_mac)
{
	struct mac mac;

	if (strlen(text) != MAC_TEXT_SIZE - 1)
		return -EINVAL;
	for (size_t i = 0; i < MAC_SIZE; i++) {
		int byte = hexadecimal_byte(text + 3 * i);

		if (byte < 0 || (i + 1 < MAC_SIZE && text[3 * i + 2] != ':'))
			return -EINVAL;
		mac.bytes[i] = (uint8_t)byte;
	}
	*ret_mac = mac;
	return 0;
}

void mac_to_text(struct mac mac, char *text)
{
	static const char digits[] = "0123456789abcdef";

	/* By hand: a network's hosts and reservations are hundreds, written for each interface. */
	for (size_t i = 0; i < sizeof(mac.bytes); i++) {
		*text++ = digits[mac.bytes[i] >> 4];
		*text++ = digits[mac.bytes[i] & 15];
		*text++ = ':';
	}
	text[-1] = '\0';
}

bool mac_is_unicast(struct mac mac)
{
	static const struct mac zero;

	return !(mac.bytes[0] & 1) && memcmp(&mac, &zero, sizeof(mac)) != 0;
}

static bool is_uuid_dash(size_t position)
{
	return position == 8 || position == 13 || position == 18 || position == 23;
}

int text_to_uuid(const char *text, struct uuid *ret_uuid)
{
	struct uuid uuid;
	size_t position = 0;

	if (strlen(text) != UUID_TEXT_SIZE - 1)
		return -EINVAL;
	for (size_t i = 0; i < UUID_SIZE; i++) {
		int byte;

		if (is_uuid_dash(position) && text[position++] != '-')
			return -EINVAL;
		byte = hexadecimal_byte(text + position);
		if (byte < 0)
			return -EINVAL;
		uuid.bytes[i] = (uint8_t)byte;
		position += 2;
	}
	*ret_uuid = uuid;
	return 0;
}

void uuid_to_text(struct uuid uuid, char *text)
{
	size_t position = 0;

	for (size_t i = 0; i < UUID_SIZE; i++) {
		if (is_uuid_dash(position))
			text[position++] = '-';
		position += (size_t)snprintf(text + position, 3, "%02X", uuid.bytes[i]);
	}
}

/* isalnum(3) asks the locale, and a library does not know in which one it runs. */
static bool is_letter_or_digit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool network_name_is_valid(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length >= NETWORK_NAME_SIZE || !is_letter_or_digit(*name))
		return false;
	for (; *name; name++)
		if (!is_letter_or_digit(*name) && !strchr("_.-", *name))
			return false;
	return true;
}

bool hostname_is_valid(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length >= HOSTNAME_SIZE || name[0] == '-' || name[length - 1] == '-')
		return false;
	for (; *name; name++)
		if (!is_letter_or_digit(*name) && *name != '-')
			return false;
	return true;
}

bool domain_is_valid(const char *name)
{
	if (strlen(name) > 253)
		return false;
	for (;;) {
		size_t length = strcspn(name, ".");
		char label[HOSTNAME_SIZE];

		if (length >= sizeof(label))
			return false;
		memcpy(label, name, length);
		label[length] = '\0';
		if (!hostname_is_valid(label))
			return false;
		if (!name[length])
			return true;
		name += length + 1;
	}
}

char *text_take_stream(FILE *stream, char **text)
{
	bool failed = ferror(stream);

	/* Closing writes the last of it, and only then *text is what it is. */
	if (fclose(stream) == 0 && !failed)
		return *text;
	free(*text);
	return NULL;
}

int text_copy(char *destination, size_t size, const char *source)
{
	size_t length = strlen(source);

	if (length >= size)
		return -ENAMETOOLONG;
	memcpy(destination, source, length + 1);
	return 0;
}
