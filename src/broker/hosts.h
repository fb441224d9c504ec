/*
 * A network's reservations in dnsmasq's words (dnsmasq(8), --dhcp-hostsfile).
 */
#pragma once

#include "broker/network.h"

/*
 * A line "MAC,ADDRESS[,HOSTNAME]" for every reservation. The hostname is that of the live interface
 * with the MAC; of several live interfaces with one hostname the oldest has it. To be freed; NULL
 * when memory is out.
 */
char *hosts_make_text(const struct network *network);
