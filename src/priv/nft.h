/*
 * nftables through libnftables: commands in, one line of complaint out.
 */
#pragma once

#include <stddef.h>

struct nft_ctx;

#define NFT_COMPLAINT_SIZE 96

/*
 * Runs commands, all in one transaction, over a context of their own. -EIO when nftables refused
 * them: complaint then holds the first line of what it said.
 */
int nft_run(const char *commands, char complaint[NFT_COMPLAINT_SIZE]);

/*
 * Takes the name space for this process: an nft table that belongs to the context's netlink socket
 * and vanishes with it, whatever way the process ends (NFT_TABLE_F_OWNER, kernel 5.12). Nobody else
 * can remove or make it meanwhile. -EBUSY: another broker has it. *ret_lock is to be kept open and
 * given to nft_unlock_namespace().
 */
int nft_lock_namespace(struct nft_ctx **ret_lock, char complaint[NFT_COMPLAINT_SIZE]);

/* Lets go of it; accepts NULL. */
void nft_unlock_namespace(struct nft_ctx *lock);
