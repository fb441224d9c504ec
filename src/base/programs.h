/*
 * Programs of others that are started with privileges. They are in fixed places, because PATH is
 * the environment's word.
 */
#pragma once

/* The path of dnsmasq (thekelleys.org.uk/dnsmasq); NULL: not installed. */
const char *program_find_dnsmasq(void);
