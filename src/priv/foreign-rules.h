/*
 * The rules of ours in other people's firewalls: which there shall be, how they are recognised, and
 * how the kernel is told. Pure, so that it can be tested without one.
 */
#pragma once

#include "base/text.h"

#include <net/if.h>
#include <netlink/msg.h>
#include <stdbool.h>
#include <stdint.h>

/* Tables and chains have names of up to 255 bytes (NFT_NAME_MAXLEN). */
#define FOREIGN_NAME_SIZE 256
/* A comment of nft may have 128 bytes; ours are shorter. */
#define FOREIGN_COMMENT_SIZE 64

/*
 * A chain of somebody else's in which an accept of ours counts: rules of our own table can not
 * overrule a drop in another (nft(8), "accept").
 */
struct foreign_chain {
	uint8_t family; /* NFPROTO_IPV4, NFPROTO_IPV6 or NFPROTO_INET */
	uint8_t hook;   /* NF_INET_LOCAL_IN, NF_INET_FORWARD or NF_INET_LOCAL_OUT */
	bool drops;     /* its policy; of a chain without one, that of the chain that jumps to it */
	bool wanted;    /* rules of ours belong into it */
	char table[FOREIGN_NAME_SIZE];
	char name[FOREIGN_NAME_SIZE];
};

/* How many openings a bridge can have; their numbers are 0 and up. */
size_t foreign_openings_count(void);

/*
 * Whether a chain, by family and hook, has a place for an opening at all. Forwarding is opened both
 * ways, because what nobody asked for is dropped by our own table; input for DHCP, DNS and ICMP.
 */
bool foreign_opening_fits(size_t opening, const struct foreign_chain *chain);

/* How the rule for a bridge is called; "vmnet/1/INSTANCE BRIDGE WHAT". */
void foreign_comment(
	uint32_t instance, const char *bridge, size_t opening, char comment[FOREIGN_COMMENT_SIZE]);

/*
 * Finds the comment of a rule of this instance anywhere in the bytes of a rule: nft keeps it beside
 * the rule, iptables makes it a part of the rule when it saves and restores one. False: the rule
 * is not ours.
 */
bool foreign_find_comment(
	uint32_t instance, const void *bytes, size_t size, char ret_comment[FOREIGN_COMMENT_SIZE]);

/*
 * A request that puts an opening for a bridge at the head of the chain, to be freed. NULL when
 * memory is out. Only expressions that iptables-nft 1.8.9 knows how to print: with a native "ct
 * state" it gives the whole table up as incompatible.
 */
struct nl_msg *foreign_insert_message(
	uint32_t instance, const struct foreign_chain *chain, const char *bridge, size_t opening);

/* A request that deletes a rule of the chain by its handle. NULL when memory is out. */
struct nl_msg *foreign_delete_message(const struct foreign_chain *chain, uint64_t handle);
