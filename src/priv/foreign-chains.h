/*
 * Reading other people's firewalls from the kernel: chains that packets of ours pass, and the rules
 * of ours in them.
 */
#pragma once

#include "priv/foreign-rules.h"

#include <netlink/socket.h>

/* More base chains than this are no firewall; the rest is not looked at. */
#define FOREIGN_CHAINS_MAX 128

/* A rule of ours. */
struct foreign_rule {
	uint64_t handle;
	char comment[FOREIGN_COMMENT_SIZE];
};

/* The rules of ours in one chain. */
struct foreign_rules {
	struct foreign_rule *rules; /* owned */
	size_t count;
};

/*
 * Every base chain of hook input, forward or output in tables that are not ours, and every chain
 * DOCKER-USER: where a forward chain jumps to one, rules of ours belong there, because Docker keeps
 * what is in it. The array is the caller's to free. Negative errno.
 */
int foreign_list_chains(
	struct nl_sock *socket, struct foreign_chain **ret_chains, size_t *ret_chains_count);

/* The rules of this instance in the chain, to be freed with foreign_rules_done(). Negative errno;
 * -ENOENT: there is no such chain. */
int foreign_list_rules(struct nl_sock *socket, uint32_t instance, const struct foreign_chain *chain,
	struct foreign_rules *ret_rules);

/* Frees the array. */
void foreign_rules_done(struct foreign_rules *rules);
