/*
 * What dnsmasq knows of a network's VMs: reservations in its own words (dnsmasq(8),
 * --dhcp-hostsfile), and names in those of hosts(5) (--addn-hosts), which it serves without DHCP
 * too and which no lease can take over.
 */
#pragma once

#include "broker/network.h"

/*
 * A line "MAC,ADDRESS[,HOSTNAME]" for every reservation. The hostname is that of the live interface
 * with the MAC (vm-names.h); should several have one hostname, the oldest has it. To be freed; NULL
 * when memory is out.
 */
char *hosts_make_text(const struct network *network);

/*
 * A line "ADDRESS HOSTNAME.DOMAIN HOSTNAME" for every reservation with a hostname. To be freed;
 * NULL when memory is out.
 */
char *hosts_make_names(const struct network *network);
