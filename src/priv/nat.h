/*
 * Shared networks reach the world, and nothing else reaches anybody: the instance's nft table and
 * the forwarding switches, made from what the kernel's bridges say.
 */
#pragma once

#include "priv/links.h"
#include "priv/outcome.h"

/*
 * Brings both up to date, the table in one transaction, repairing whatever others did to them, and
 * our accepts in other firewalls; without bridges the table goes, and what forwarding was before
 * comes back. is_rootless: the way out is pasta's, and the namespace nobody else's. Says into
 * outcome what failed; the rules that were in force stay then.
 */
int nat_apply(struct links *links, bool is_rootless, struct verb_outcome *outcome);

/*
 * The nft commands for the table of one instance, to be freed. Pure. NULL when memory is out.
 * Sources: what libvirt excludes from masquerading, ports that NFS servers trust (RFC 1813 4.1,
 * "secure ports").
 */
char *nat_build_commands(uint32_t instance, bool is_rootless, const struct bridge_facts *bridges,
	size_t bridges_count);
