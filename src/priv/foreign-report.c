/* What the host's firewalls look like, for whoever explains it to a person. */

#include "priv/foreign.h"

#include "priv/foreign-chains.h"
#include "priv/nfnl.h"
#include "priv/rtnl.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define cleanup_rules __attribute__((__cleanup__(foreign_rules_done)))

static const char *family_name(const struct foreign_chain *chain)
{
	static const char *const names[NFPROTO_NUMPROTO] = {
		[NFPROTO_INET] = "inet",
		[NFPROTO_IPV4] = "ip",
		[NFPROTO_IPV6] = "ip6",
	};

	return names[chain->family];
}

static const char *hook_name(const struct foreign_chain *chain)
{
	static const char *const names[NF_INET_NUMHOOKS] = {
		[NF_INET_LOCAL_IN] = "input",
		[NF_INET_FORWARD] = "forward",
		[NF_INET_LOCAL_OUT] = "output",
	};

	return names[chain->hook];
}

static const char *state_name(const struct foreign_chain *chain)
{
	if (chain->wanted)
		return "open";
	if (!chain->drops)
		return "accept";
	return chain->hook == NF_INET_FORWARD ? "docker" : "drop";
}

static int write_chain(
	FILE *out, struct nl_sock *socket, uint32_t instance, const struct foreign_chain *chain)
{
	cleanup_rules struct foreign_rules rules = {0};
	int error = foreign_list_rules(socket, instance, chain, &rules);

	if (error == -ENOENT)
		return 0;
	if (error)
		return error;
	fprintf(out, "chain %s %s %s %s %s\n", family_name(chain), hook_name(chain), chain->table,
		chain->name, state_name(chain));
	for (size_t i = 0; i < rules.count; i++)
		fprintf(out, "rule %s %s %s %s\n", family_name(chain), chain->table, chain->name,
			rules.rules[i].comment);
	return 0;
}

static int write_chains(FILE *out, uint32_t instance)
{
	cleanup_with(nl_socket_free) struct nl_sock *socket = NULL;
	cleanup_free struct foreign_chain *chains = NULL;
	size_t chains_count = 0;
	int error = nfnl_open(&socket);

	if (!error)
		error = foreign_list_chains(socket, &chains, &chains_count);
	for (size_t i = 0; i < chains_count && !error; i++)
		error = write_chain(out, socket, instance, &chains[i]);
	return error;
}

/* The kernel names there what has ever been used of the old iptables; only root may read it. */
static void write_legacy(FILE *out, const char *path, const char *family)
{
	cleanup_file FILE *names = fopen(path, "re");
	char name[64];

	while (names && fscanf(names, "%63s", name) == 1)
		fprintf(out, "legacy %s %s\n", family, name);
}

static int write_report(uint32_t instance, char **ret_text, size_t *ret_size)
{
	cleanup_free char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	int error;

	if (!out)
		return -ENOMEM;
	error = write_chains(out, instance);
	write_legacy(out, "/proc/net/ip_tables_names", "ip");
	write_legacy(out, "/proc/net/ip6_tables_names", "ip6");
	if (fclose(out) != 0 && !error)
		error = -ENOMEM;
	if (error)
		return error;
	*ret_size = size;
	*ret_text = take_ptr(text);
	return 0;
}

int foreign_report(struct links *links, struct verb_outcome *outcome)
{
	cleanup_fd int fd = -1;
	cleanup_free char *text = NULL;
	size_t size = 0;
	int error = write_report(links_instance(links), &text, &size);

	if (error)
		return outcome_fail(
			outcome, error, "reading the host's firewalls: %s", strerror(-error));
	fd = memfd_create("firewalls", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, size) != (ssize_t)size)
		return -ENOSPC;
	return outcome_add_fd(outcome, take_fd(&fd));
}
