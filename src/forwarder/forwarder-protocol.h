/*
 * What the front asks of the forwarder: records of fixed size over a SOCK_SEQPACKET socket, one
 * request, one reply, in order.
 *
 * The list is declared whole: BEGIN, one ADD for each forward, END. What is listened on already
 * stays as it is, with a new target where that has changed; what was not mentioned ends with END.
 * A front that goes before its END has changed targets and added sockets and ended nothing. ADD is
 * allowed outside of such a list, too. A request that is malformed gets a reply with -EBADMSG and
 * changes nothing.
 *
 * TCP connections go on when their forward ends or leads elsewhere. UDP flows end with their
 * forward; those of one that leads elsewhere go on, unless END says ends_flows.
 */
#pragma once

#include <assert.h>
#include <stdint.h>

#define FORWARDER_MAGIC        0x766d6631u /* "vmf1" */
#define FORWARDER_FORWARDS_MAX 1024
#define FORWARDER_DETAIL_SIZE  112

enum forwarder_kind {
	FORWARDER_BEGIN,
	/*
	 * With one fd: a socket for an endpoint that is not listened on yet, non-blocking, bound to
	 * it, for TCP listening, for IPv6 with IPV6_V6ONLY. -EEXIST: the endpoint has one. -ENOSPC:
	 * there are FORWARDER_FORWARDS_MAX. Without: -ENOENT when the endpoint has none.
	 * -EINVAL: the forward or its socket is not as it should be.
	 */
	FORWARDER_ADD,
	/* -EINVAL without a BEGIN. */
	FORWARDER_END,
	FORWARDER_KIND_COUNT,
};

/* Addresses in network byte order, IPv4 in the first 4 bytes and zeros behind; ports in the
 * host's. */
struct forwarder_forward {
	uint8_t is_ipv6;  /* 0 or 1: both addresses */
	uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	uint16_t listen_port;
	uint16_t target_port;
	uint8_t listen[16]; /* zeros: every address */
	uint8_t target[16]; /* unicast, and not of the loopback */
};
static_assert(sizeof(struct forwarder_forward) == 38, "records of one size without padding");

struct forwarder_request {
	uint32_t magic;
	uint32_t kind;
	uint32_t sequence;
	uint32_t ends_flows;              /* of END: UDP flows whose forward leads elsewhere end */
	struct forwarder_forward forward; /* of ADD */
	uint8_t unused[10];
};
static_assert(sizeof(struct forwarder_request) == 64, "a request has one size");

struct forwarder_reply {
	uint32_t magic;
	uint32_t kind;
	uint32_t sequence;
	int32_t result;                     /* 0, for END how many forwards there are, or
					       negative errno */
	char detail[FORWARDER_DETAIL_SIZE]; /* what failed, for people; always NUL-terminated */
};
static_assert(sizeof(struct forwarder_reply) == 128, "a reply has one size");
