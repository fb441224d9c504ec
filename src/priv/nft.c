#include "priv/nft.h"

#include "base/cleanup.h"

#include <errno.h>
#include <malloc.h>
#include <nftables/libnftables.h>
#include <stdio.h>
#include <string.h>

#define COMPLAINT_SIZE 96

DEFINE_CLEANUP(struct nft_ctx, nft_ctx_free)

static int open_context(struct nft_ctx **ret_context)
{
	cleanup_with(nft_ctx_free) struct nft_ctx *context = nft_ctx_new(NFT_CTX_DEFAULT);

	if (!context || nft_ctx_buffer_error(context) || nft_ctx_buffer_output(context))
		return -ENOMEM;
	*ret_context = take_ptr(context);
	return 0;
}

/* The first line says what failed; the rest repeats the commands. */
static void copy_complaint(struct nft_ctx *context, char complaint[COMPLAINT_SIZE])
{
	const char *text = nft_ctx_get_error_buffer(context);
	size_t length = text ? strcspn(text, "\n") : 0;

	snprintf(complaint, COMPLAINT_SIZE, "%.*s", (int)length, text ? text : "");
}

static int run(const char *commands, char complaint[COMPLAINT_SIZE])
{
	cleanup_with(nft_ctx_free) struct nft_ctx *context = NULL;
	int error;

	complaint[0] = '\0';
	error = open_context(&context);
	if (error)
		return error;
	if (nft_run_cmd_from_buffer(context, commands) != 0) {
		copy_complaint(context, complaint);
		return -EIO;
	}
	return 0;
}

int nft_apply(char *owned_commands, const char *what, struct verb_outcome *outcome)
{
	cleanup_free char *commands = owned_commands;
	char complaint[COMPLAINT_SIZE];
	int error;

	if (!commands)
		return outcome_fail(outcome, -ENOMEM, "memory is out");
	error = run(commands, complaint);
	/* libnftables takes megabytes for a moment, and the C library would keep them for good. */
	malloc_trim(0);
	return error ? outcome_fail(outcome, error, "%s: %s", what, complaint) : 0;
}
