/*
 * Per-interface switches of the kernel (Documentation/networking/ip-sysctl.rst).
 */
#pragma once

#include <stdbool.h>

/* Where they are: "/proc/sys/net". */
const char *sysctl_root(void);

/*
 * Sets /proc/sys/net/FAMILY/conf/INTERFACE/KEY to value, "0" or "1", unless it is so already: a
 * redundant write is an event for everybody who watches. Negative errno; -ENOENT: no such interface
 * or family in this kernel.
 */
int sysctl_set_interface(
	const char *family, const char *interface_name, const char *key, char value);

/* Whether this host does IPv6: a kernel without it, and "disable_ipv6" for all, say no. */
bool sysctl_has_ipv6(void);

/* Turns IPv6 off on a link, before it is up, so that it never gets an address; fine where there is
 * no IPv6. */
int sysctl_disable_ipv6(const char *interface_name);
