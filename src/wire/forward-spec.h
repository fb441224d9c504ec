/*
 * What a forward is asked to do, in the words of people: "8080", "127.0.0.1:8080", "[::]:8080" for
 * where it listens, "web:80", "192.168.64.5:80", "[fd00::5]:80" for where it leads. Pure.
 */
#pragma once

#include "base/text.h"

#include <stdbool.h>
#include <stdint.h>

/* An address that is given, and its port. */
struct endpoint {
	bool is_ipv6;
	uint16_t port;
	uint8_t address[16]; /* network byte order, IPv4 in the first 4 bytes; zeros: every one */
};

#define ENDPOINT_TEXT_SIZE  64
#define FORWARD_TARGET_SIZE (HOSTNAME_SIZE + sizeof(":65535"))
#define FORWARD_LISTEN_ALLOWED                                                                     \
	"must be a port, or an address of this host and a port: \"8080\", \"127.0.0.1:8080\", "    \
	"\"[::]:8080\""
#define FORWARD_TARGET_ALLOWED                                                                     \
	"must be a VM's name or address and a port: \"web:80\", \"192.168.64.5:80\", "             \
	"\"[fd00::5]:80\""
#define FORWARD_PROTOCOL_ALLOWED "must be \"tcp\" or \"udp\""

struct forward_spec {
	uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	bool has_address; /* the text of listen had one: it says which family is meant */
	struct endpoint listen;
	char hostname[HOSTNAME_SIZE]; /* of the VM it leads to; empty: target.address */
	struct endpoint target;       /* with a hostname only its port */
};

/* Zeros and IPPROTO_TCP. */
void forward_spec_init(struct forward_spec *spec);

/* Each takes one text into the spec. -EINVAL: see FORWARD_..._ALLOWED. */
int forward_spec_set_protocol(struct forward_spec *spec, const char *text);
int forward_spec_set_listen(struct forward_spec *spec, const char *text);
int forward_spec_set_target(struct forward_spec *spec, const char *text);

/*
 * Once, behind the others: gives listen the family of the target where its text named none.
 * -EINVAL: the families of both differ, which no forward can bridge.
 */
int forward_spec_settle(struct forward_spec *spec);

bool forward_specs_are_equal(const struct forward_spec *a, const struct forward_spec *b);

/* "tcp" or "udp"; static storage. */
const char *forward_protocol_to_text(uint8_t protocol);

/* "0.0.0.0:8080" or "[::]:8080". */
void endpoint_to_text(const struct endpoint *endpoint, char text[ENDPOINT_TEXT_SIZE]);

/* "web:80" or an endpoint. */
void forward_target_to_text(const struct forward_spec *spec, char text[FORWARD_TARGET_SIZE]);

bool endpoint_has_every_address(const struct endpoint *endpoint);
bool endpoints_are_equal(const struct endpoint *a, const struct endpoint *b);

/* True when a packet can be for both: one port, and one address or every address. */
bool endpoints_overlap(const struct endpoint *a, const struct endpoint *b);
