/*
 * What the files of the Linux platform share: verbs to priv, netlink, and what each of them
 * watches.
 */
#pragma once

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "broker/platform.h"
#include "priv/verbs.h"

#include <netlink/netlink.h>
#include <systemd/sd-event.h>

struct link_watch;
struct nat_watch;
struct guard_watch;
struct child_watch;
struct process_watch;
struct firewalld;
struct resolved;
struct resolvers_watch;
struct forwarder_watch;

struct platform {
	sd_event *event;
	uint32_t instance;
	/* The networks are in a namespace of their own, and so is priv; this process is in the
	 * host's. */
	bool is_rootless;
	int verbs;         /* SOCK_SEQPACKET to priv */
	bool lost;         /* priv did not answer: the loop ends with -ENOTCONN */
	uint32_t sequence; /* of the last request */
	sd_event_source *verbs_source;
	const struct platform_events *events; /* never NULL */
	void *context;
	struct link_watch *links;
	struct nat_watch *nat;
	struct guard_watch *guard;
	struct child_watch *children;
	struct process_watch *processes;
	struct firewalld *firewalld;
	struct resolved *resolved;
	struct resolvers_watch *resolvers;
	struct forwarder_watch *forwarder; /* NULL unless is_rootless */
};

/*
 * Sends one request with fds and waits for its reply, at most 10 s. request->magic and sequence are
 * filled in. ret_fds (may be NULL: they are closed) are the caller's. Returns the verb's result,
 * with detail (may be NULL), or -ENOTCONN when priv is gone; the loop ends then.
 */
int linux_call(struct platform *platform, struct verb_request *request, const int *fds,
	size_t fds_count, struct verb_reply *ret_reply, struct fd_list *ret_fds, char *detail);

/*
 * A blocking NETLINK_ROUTE socket to the networks' namespace; with platform NULL to the host's,
 * which is the same one unless it is_rootless. Negative errno.
 */
int linux_open_routes(struct platform *platform, struct nl_sock **ret_socket);

/*
 * Sends a dump request (RTM_GETLINK, ...) with a header and calls valid for every message of the
 * answer. Starts over when the kernel says that the dump was not consistent, so valid can see a
 * message twice. Whose namespace: as with linux_open_routes(). Negative errno.
 */
int linux_dump(struct platform *platform, int type, void *header, size_t header_size,
	nl_recvmsg_msg_cb_t valid, void *context);

/* The same for one object by its header. -ENODEV when it is not there. */
int linux_get(struct platform *platform, int type, void *header, size_t header_size,
	nl_recvmsg_msg_cb_t valid, void *context);

/* Our links: links-linux.c. */
int link_watch_new(struct platform *platform, struct link_watch **ret_watch);
void link_watch_free(struct link_watch *watch);
/* priv made or removed one: from now on its end is reported, or not any more. guarded: there are
 * rules for it alone. */
int link_watch_add(struct link_watch *watch, int index, enum link_kind kind, uint32_t number,
	const char *network, bool guarded);
/* The MAC that a macvtap link, which was added, has to keep. */
void link_watch_expect_mac(struct link_watch *watch, int index, struct mac mac);
void link_watch_remove_network(struct link_watch *watch, const char *network);
/* The link's number; false when it is none of our interfaces. */
bool link_watch_find_interface(
	const struct link_watch *watch, int index, enum link_kind *ret_kind, uint32_t *ret_number);
int link_watch_visit(
	struct link_watch *watch, const struct platform_visitor *visitor, void *context);

/*
 * Every change of nftables, whoever made it: nft-events-linux.c. NULL says that some were lost.
 */
typedef void nft_event(void *context, struct nlmsghdr *message);
struct nft_events;
int nft_events_new(
	struct platform *platform, nft_event *take, void *context, struct nft_events **ret_events);
/* NULL is allowed. */
void nft_events_free(struct nft_events *events);
/* Takes what the kernel has told already: the last word may wait behind what kept the loop busy. */
void nft_events_read_queued(struct nft_events *events);
/* Whether something went: a table, or a part of one. */
bool nft_event_removes(const struct nlmsghdr *message);

/* The nft table and the host's routes: nat-linux.c. */
int nat_watch_new(struct platform *platform, struct nat_watch **ret_watch);
void nat_watch_free(struct nat_watch *watch);

/* Our bridges' zone in firewalld, where that runs: firewalld-linux.c. */
int firewalld_new(struct platform *platform, struct firewalld **ret_firewalld);
/* Waits shortly for what was removed last. */
void firewalld_free(struct firewalld *firewalld);
/* A network's bridge has come: it is put into our zone, now and whenever that is needed again. */
int firewalld_add(struct firewalld *firewalld, const char *network);
/* It has gone. */
void firewalld_remove(struct firewalld *firewalld, const char *network);
/* What firewalld said last when it refused, in its own words; empty: nothing. */
const char *firewalld_problem(const struct firewalld *firewalld);

/* The guard's rules: guard-linux.c. */
int guard_watch_new(struct platform *platform, struct guard_watch **ret_watch);
void guard_watch_free(struct guard_watch *watch);
/* An interface with rules of its own has gone: they are soon taken away. */
void guard_watch_note_end(struct guard_watch *watch);

/* The host's name servers: resolvers-linux.c. */
int resolvers_watch_new(struct platform *platform, struct resolvers_watch **ret_watch);
void resolvers_watch_free(struct resolvers_watch *watch);

/* The forwarder of a rootless broker, which is connected to when there is something for it:
 * forwarder-linux.c. */
int forwarder_watch_new(struct platform *platform, const char *runtime_directory,
	struct forwarder_watch **ret_watch);
/* NULL is allowed. */
void forwarder_watch_free(struct forwarder_watch *watch);
/* As platform_apply_forwards(). */
int forwarder_watch_apply(struct forwarder_watch *watch, struct platform_forward *forwards,
	size_t count, bool ends_flows, char *detail);

/*
 * platform_apply_forwards() for networks in a user's own namespaces: forwards-rootless-linux.c.
 * Opens, in the caller's namespace, what has to be listened on, and has the forwarder
 * (forwarder/forwarder-protocol.h) at the other end of the connected socket lead it on. Waits for
 * each of its answers, at most 10 s. Returns how many forwards are active; when some are not,
 * detail (PLATFORM_DETAIL_SIZE bytes, else "") says of the first why, and how to mend it. Negative
 * errno, with detail, when the forwarder does not answer as it should: the socket is of no more use
 * then.
 */
int forwarder_apply(int forwarder, struct platform_forward *forwards, size_t count, bool ends_flows,
	char *detail);

/* Whether the socket with that inode is one of the forwarder's. */
bool forwarder_has_socket(unsigned long inode);

/* Our names in systemd-resolved, where that runs: resolved-linux.c. */
int resolved_new(struct platform *platform, struct resolved **ret_resolved);
void resolved_free(struct resolved *resolved);
/* A network's bridge has gone. */
void resolved_remove(struct resolved *resolved, const char *network);

/* Processes that interfaces are leased to: processes-linux.c. */
int process_watch_new(struct platform *platform, struct process_watch **ret_watch);
void process_watch_free(struct process_watch *watch);

/* dnsmasq processes: children-linux.c. */
int child_watch_new(struct platform *platform, struct child_watch **ret_watch);
void child_watch_free(struct child_watch *watch);
/* Takes both fds over (log may be -1), on failure too. */
int child_watch_add(struct child_watch *watch, const char *network, int pidfd, int log);
/* Its end is not reported any more. */
void child_watch_remove(struct child_watch *watch, const char *network);
/* Signals the network's process. -ESRCH. */
int child_watch_signal(struct child_watch *watch, const char *network, int number);
