/*
 * DHCP leases, as dnsmasq writes them down for itself: nothing of them is remembered here.
 */
#pragma once

#include "broker/network.h"

#include <jansson.h>
#include <stdint.h>

/* One line of dnsmasq's file of leases. */
struct lease_line {
	int64_t expires_s; /* since the epoch; 0: never */
	struct mac mac;
	struct in_addr address;
	char hostname[HOSTNAME_SIZE]; /* empty: none, or no valid one */
};

/*
 * Takes a line, without its end: "EXPIRES MAC ADDRESS NAME CLIENT-ID", a name of "*" is none.
 * Returns false for what is no IPv4 lease of an Ethernet client. Pure.
 */
bool lease_line_parse(const char *text, struct lease_line *ret_line);

/*
 * ListLeases' answer: of the leases on networks that run, which uid may know of (those of its own
 * VMs; root: all), the first ones by address behind after, as many as one answer has. A new
 * reference, or NULL when memory is out.
 */
json_t *leases_make_page(const struct registry *registry, uid_t uid, struct in_addr after);
