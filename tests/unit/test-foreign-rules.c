/* Our rules in other firewalls: where they fit, how they are called and found again. */

#include "base/cleanup.h"
#include "priv/foreign-rules.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netlink/attr.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define INSTANCE 0xc0ffee

static struct foreign_chain chain_of(uint8_t family, uint8_t hook)
{
	return (struct foreign_chain){.family = family, .hook = hook, .table = "t", .name = "c"};
}

/* The openings of a chain, by the last words of their comments. */
static void openings_of(uint8_t family, uint8_t hook, char text[256])
{
	const struct foreign_chain chain = chain_of(family, hook);

	*text = '\0';
	for (size_t i = 0; i < foreign_openings_count(); i++) {
		char comment[FOREIGN_COMMENT_SIZE];

		if (!foreign_opening_fits(i, &chain))
			continue;
		foreign_comment(INSTANCE, "vmbr12345678", i, comment);
		assert_memory_equal(comment, "vmnet/1/00c0ffee vmbr12345678 ", 30);
		strcat(strcat(text, comment + 30), ",");
	}
}

static void each_chain_has_its_openings(void **state)
{
	static const struct {
		uint8_t family, hook;
		const char *openings;
	} chains[] = {
		{NFPROTO_IPV4, NF_INET_FORWARD, "out,in,"},
		{NFPROTO_IPV6, NF_INET_FORWARD, "out,in,"},
		{NFPROTO_INET, NF_INET_FORWARD, "out,in,"},
		{NFPROTO_IPV4, NF_INET_LOCAL_IN, "icmp,dhcp,dns,dns-tcp,"},
		{NFPROTO_IPV6, NF_INET_LOCAL_IN, "icmpv6,dhcpv6,dns,dns-tcp,"},
		{NFPROTO_INET, NF_INET_LOCAL_IN, "icmp,icmpv6,dhcp,dhcpv6,dns,dns-tcp,"},
		{NFPROTO_INET, NF_INET_LOCAL_OUT, ""},
	};
	char text[256];

	for (size_t i = 0; i < array_length(chains); i++) {
		openings_of(chains[i].family, chains[i].hook, text);
		assert_string_equal(text, chains[i].openings);
	}
}

static void comments_are_found_in_whatever_holds_them(void **state)
{
	static const char text[] = "\x01\x02 vmnet/1/00c0ffee vmbr12345678 out\0rest";
	char comment[FOREIGN_COMMENT_SIZE];

	assert_true(foreign_find_comment(INSTANCE, text, sizeof(text), comment));
	assert_string_equal(comment, "vmnet/1/00c0ffee vmbr12345678 out");
	/* Another instance's is not ours; one that is cut off ends where the bytes end. */
	assert_false(foreign_find_comment(INSTANCE + 1, text, sizeof(text), comment));
	assert_true(foreign_find_comment(INSTANCE, text, 25, comment));
	assert_string_equal(comment, "vmnet/1/00c0ffee vmbr1");
	assert_false(foreign_find_comment(INSTANCE, text, 10, comment));
	assert_false(foreign_find_comment(INSTANCE, text, 0, comment));
}

static void comment_that_never_ends_is_cut(void **state)
{
	char text[512], comment[FOREIGN_COMMENT_SIZE];

	memset(text, 'x', sizeof(text));
	memcpy(text, "vmnet/1/00c0ffee ", 17);
	assert_true(foreign_find_comment(INSTANCE, text, sizeof(text), comment));
	assert_int_equal(strlen(comment), FOREIGN_COMMENT_SIZE - 1);
}

static void rule_carries_table_chain_and_comment(void **state)
{
	struct foreign_chain chain = chain_of(NFPROTO_IPV4, NF_INET_LOCAL_IN);
	char comment[FOREIGN_COMMENT_SIZE], found[FOREIGN_COMMENT_SIZE];

	memset(chain.table, 'n', FOREIGN_NAME_SIZE - 1);
	for (size_t i = 0; i < foreign_openings_count(); i++) {
		struct nl_msg *message =
			foreign_insert_message(INSTANCE, &chain, "vmbr12345678", i);
		struct nlattr *attributes[NFTA_RULE_MAX + 1];

		assert_non_null(message);
		assert_int_equal(nlmsg_parse(nlmsg_hdr(message), sizeof(struct nfgenmsg),
					 attributes, NFTA_RULE_MAX, NULL),
			0);
		assert_string_equal(nla_get_string(attributes[NFTA_RULE_TABLE]), chain.table);
		assert_string_equal(nla_get_string(attributes[NFTA_RULE_CHAIN]), "c");
		foreign_comment(INSTANCE, "vmbr12345678", i, comment);
		assert_true(foreign_find_comment(
			INSTANCE, nlmsg_hdr(message), nlmsg_hdr(message)->nlmsg_len, found));
		assert_string_equal(found, comment);
		nlmsg_free(message);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_chain_has_its_openings),
		cmocka_unit_test(comments_are_found_in_whatever_holds_them),
		cmocka_unit_test(comment_that_never_ends_is_cut),
		cmocka_unit_test(rule_carries_table_chain_and_comment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
