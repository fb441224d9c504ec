/*
 * What priv tells the process of a capture, one message an order over a SOCK_SEQPACKET pair; both
 * are the same program. The other way go uint32_t: how many interfaces have ended so far.
 */
#pragma once

#include <net/if.h>
#include <stdint.h>

#define CAPTURE_ORDERS       3 /* the process's fds */
#define CAPTURE_OUTPUT       4
#define CAPTURE_COMMENT_SIZE 128

enum capture_order_kind {
	CAPTURE_BEGIN,     /* first, without an fd */
	CAPTURE_NETWORK,   /* with a packet socket that hears nothing; the end of its interface is
			      the end of the capture */
	CAPTURE_INTERFACE, /* with a packet socket, bound to the interface */
};

struct capture_order {
	uint32_t kind;                      /* enum capture_order_kind */
	uint32_t snaplen;                   /* of CAPTURE_BEGIN: bytes of a packet that are kept */
	uint32_t count;                     /* of CAPTURE_BEGIN: packets; 0: any number */
	uint32_t mtu;                       /* of CAPTURE_INTERFACE */
	char name[IFNAMSIZ];                /* of CAPTURE_INTERFACE */
	char comment[CAPTURE_COMMENT_SIZE]; /* of CAPTURE_INTERFACE; may be empty */
};
