/*
 * nftables through libnftables: commands in, one line of complaint out.
 */
#pragma once

#include <stddef.h>

#define NFT_COMPLAINT_SIZE 96

/*
 * Runs commands, all in one transaction, over a context of their own. -EIO when nftables refused
 * them: complaint then holds the first line of what it said.
 */
int nft_run(const char *commands, char complaint[NFT_COMPLAINT_SIZE]);
