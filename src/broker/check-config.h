/*
 * vmnet-broker --check-config: what is wrong with a configuration, for whoever writes it. Takes no
 * privilege and no running broker.
 */
#pragma once

/*
 * Prints every mistake in the configuration of a directory on stdout, one a line, or "ok". Names of
 * users and groups that this system does not have are told on stderr and are no mistake: their
 * networks serve, and the file may be meant for another machine. Returns the number of mistakes, or
 * negative errno.
 */
int check_config(const char *directory);
