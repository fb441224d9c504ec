/*
 * nftables through libnftables: commands in, one line of complaint out.
 */
#pragma once

#include "priv/outcome.h"

/*
 * Runs commands (NULL: memory was out for them), which it takes over, all in one transaction and
 * over a context of their own. -EIO when nftables refused them; says into outcome the first line of
 * what it said, behind what they are for ("nftables").
 */
int nft_apply(char *owned_commands, const char *what, struct verb_outcome *outcome);
