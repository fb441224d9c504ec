#include "priv/foreign-chains.h"

#include "base/cleanup.h"
#include "priv/nfnl.h"
#include "priv/rtnl.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netlink/attr.h>
#include <string.h>

#define DOCKER_CHAIN "DOCKER-USER"
#define DUMP_TRIES   10

struct chain_list {
	struct foreign_chain *chains;
	size_t count;
};

struct rule_list {
	uint32_t instance;
	struct foreign_rules rules;
	int error;
};

/* Ours are accounted for in nat.h, those of other instances are not for us to open. */
static bool is_own_table(const char *table)
{
	return strncmp(table, "vmnet_", strlen("vmnet_")) == 0;
}

static uint8_t family_of(struct nl_msg *message)
{
	const struct nfgenmsg *header = nlmsg_data(nlmsg_hdr(message));

	return header->nfgen_family;
}

/* False for a chain that no packet of ours passes by itself. */
static bool read_hook(struct nlattr *attribute, uint8_t *ret_hook)
{
	struct nlattr *hook[NFTA_HOOK_MAX + 1];
	uint32_t number;

	if (nla_parse_nested(hook, NFTA_HOOK_MAX, attribute, NULL) < 0 || !hook[NFTA_HOOK_HOOKNUM])
		return false;
	number = ntohl(nla_get_u32(hook[NFTA_HOOK_HOOKNUM]));
	if (number != NF_INET_LOCAL_IN && number != NF_INET_FORWARD && number != NF_INET_LOCAL_OUT)
		return false;
	*ret_hook = (uint8_t)number;
	return true;
}

/* False for a chain that is none of those foreign_list_chains() tells of. */
static bool read_chain(
	uint8_t family, struct nlattr *const attributes[], struct foreign_chain *ret_chain)
{
	struct foreign_chain chain = {.family = family, .hook = NF_INET_FORWARD};
	const struct nlattr *type = attributes[NFTA_CHAIN_TYPE];

	if (!attributes[NFTA_CHAIN_TABLE] || !attributes[NFTA_CHAIN_NAME] ||
		is_own_table(nla_get_string(attributes[NFTA_CHAIN_TABLE])))
		return false;
	nla_strlcpy(chain.table, attributes[NFTA_CHAIN_TABLE], sizeof(chain.table));
	nla_strlcpy(chain.name, attributes[NFTA_CHAIN_NAME], sizeof(chain.name));
	if (attributes[NFTA_CHAIN_HOOK]) {
		if (!type || strcmp(nla_get_string(type), "filter") != 0 ||
			!read_hook(attributes[NFTA_CHAIN_HOOK], &chain.hook))
			return false;
		chain.drops = attributes[NFTA_CHAIN_POLICY] &&
			      ntohl(nla_get_u32(attributes[NFTA_CHAIN_POLICY])) == NF_DROP;
		chain.wanted = chain.drops && chain.hook != NF_INET_LOCAL_OUT;
	} else if (strcmp(chain.name, DOCKER_CHAIN) != 0) {
		return false;
	}
	*ret_chain = chain;
	return true;
}

static int take_chain(struct nl_msg *message, void *context)
{
	struct nlattr *attributes[NFTA_CHAIN_MAX + 1];
	struct chain_list *list = context;
	uint8_t family = family_of(message);

	if (family != NFPROTO_IPV4 && family != NFPROTO_IPV6 && family != NFPROTO_INET)
		return NL_OK;
	if (list->count < FOREIGN_CHAINS_MAX &&
		nlmsg_parse(nlmsg_hdr(message), sizeof(struct nfgenmsg), attributes, NFTA_CHAIN_MAX,
			NULL) >= 0 &&
		read_chain(family, attributes, &list->chains[list->count]))
		list->count++;
	return NL_OK;
}

static int dump_chains(struct nl_sock *socket, struct chain_list *list)
{
	struct nl_msg *request = nfnl_message(NFT_MSG_GETCHAIN, NFPROTO_UNSPEC, 0);

	list->count = 0;
	return request ? nfnl_dump(socket, request, take_chain, list) : -ENOMEM;
}

static int dump_rules(struct nl_sock *socket, const struct foreign_chain *chain,
	nl_recvmsg_msg_cb_t valid, void *context)
{
	cleanup_with(nlmsg_free) struct nl_msg *request =
		nfnl_message(NFT_MSG_GETRULE, chain->family, 0);

	if (!request || nla_put_string(request, NFTA_RULE_TABLE, chain->table) < 0 ||
		nla_put_string(request, NFTA_RULE_CHAIN, chain->name) < 0)
		return -ENOMEM;
	return nfnl_dump(socket, take_ptr(request), valid, context);
}

/* A verdict that names the chain has it as an attribute with its NUL. */
static int take_jump(struct nl_msg *message, void *context)
{
	const struct nlmsghdr *header = nlmsg_hdr(message);
	struct {
		struct nlattr attribute;
		char name[sizeof(DOCKER_CHAIN)];
	} verdict = {.attribute = {.nla_len = sizeof(verdict), .nla_type = NFTA_VERDICT_CHAIN}};
	bool *found = context;

	memcpy(verdict.name, DOCKER_CHAIN, sizeof(verdict.name));
	if (memmem(header, header->nlmsg_len, &verdict, sizeof(verdict)))
		*found = true;
	return NL_OK;
}

/* The forward chain that jumps to Docker's, or NULL. */
static struct foreign_chain *find_jumper(
	struct nl_sock *socket, struct chain_list *list, const struct foreign_chain *docker)
{
	for (size_t i = 0; i < list->count; i++) {
		struct foreign_chain *chain = &list->chains[i];
		bool jumps = false;

		if (chain->family != docker->family || chain->hook != NF_INET_FORWARD ||
			strcmp(chain->table, docker->table) != 0 || chain == docker)
			continue;
		if (dump_rules(socket, chain, take_jump, &jumps) == 0 && jumps)
			return chain;
	}
	return NULL;
}

static void settle_docker_chains(struct nl_sock *socket, struct chain_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		struct foreign_chain *docker = &list->chains[i];
		struct foreign_chain *jumper;

		if (strcmp(docker->name, DOCKER_CHAIN) != 0)
			continue;
		jumper = find_jumper(socket, list, docker);
		if (!jumper)
			continue;
		docker->drops = jumper->drops;
		docker->wanted = jumper->wanted;
		jumper->wanted = false;
	}
}

int foreign_list_chains(
	struct nl_sock *socket, struct foreign_chain **ret_chains, size_t *ret_chains_count)
{
	cleanup_free struct foreign_chain *chains = calloc(FOREIGN_CHAINS_MAX, sizeof(*chains));
	struct chain_list list = {.chains = chains};
	int error = -EINTR;

	if (!chains)
		return -ENOMEM;
	for (int tries = 0; error == -EINTR && tries < DUMP_TRIES; tries++)
		error = dump_chains(socket, &list);
	if (error)
		return error;
	settle_docker_chains(socket, &list);
	*ret_chains_count = list.count;
	*ret_chains = take_ptr(chains);
	return 0;
}

static int add_rule(struct rule_list *list, uint64_t handle, const char *comment)
{
	struct foreign_rule *rules =
		reallocarray(list->rules.rules, list->rules.count + 1, sizeof(*rules));

	if (!rules)
		return -ENOMEM;
	list->rules.rules = rules;
	rules[list->rules.count] = (struct foreign_rule){.handle = handle};
	return text_copy(rules[list->rules.count++].comment, FOREIGN_COMMENT_SIZE, comment);
}

static int take_rule(struct nl_msg *message, void *context)
{
	struct nlattr *attributes[NFTA_RULE_MAX + 1];
	struct nlmsghdr *header = nlmsg_hdr(message);
	char comment[FOREIGN_COMMENT_SIZE];
	struct rule_list *list = context;

	if (!foreign_find_comment(list->instance, header, header->nlmsg_len, comment) ||
		nlmsg_parse(header, sizeof(struct nfgenmsg), attributes, NFTA_RULE_MAX, NULL) < 0 ||
		!attributes[NFTA_RULE_HANDLE])
		return NL_OK;
	list->error = add_rule(list, be64toh(nla_get_u64(attributes[NFTA_RULE_HANDLE])), comment);
	return list->error ? NL_STOP : NL_OK;
}

int foreign_list_rules(struct nl_sock *socket, uint32_t instance, const struct foreign_chain *chain,
	struct foreign_rules *ret_rules)
{
	struct rule_list list;
	int error = -EINTR;

	for (int tries = 0; error == -EINTR && tries < DUMP_TRIES; tries++) {
		list = (struct rule_list){.instance = instance};
		error = dump_rules(socket, chain, take_rule, &list);
		if (!error)
			error = list.error;
		if (error)
			foreign_rules_done(&list.rules);
	}
	if (!error)
		*ret_rules = list.rules;
	return error;
}

void foreign_rules_done(struct foreign_rules *rules)
{
	free(rules->rules);
	*rules = (struct foreign_rules){0};
}
