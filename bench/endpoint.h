/*
 * What the benchmark's programs move frames between: a TAP, or a VM's socket as QEMU and libkrun
 * use it. Everything goes in bursts, so that the program under measurement is the bottleneck and
 * not the one that plays the VM.
 *
 * Thread rules: one thread may read an endpoint while another writes it.
 */
#pragma once

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* As many as the helper moves at once, so that neither side makes the other's batches small. */
#define BURST_FRAMES 64
/* An Ethernet header and 64 KiB: the largest frame of any kind. */
#define ENDPOINT_FRAME_MAX 65550
#define ETHERNET_HEADER    14

enum endpoint_kind {
	ENDPOINT_TAP,      /* one frame a call, always behind a virtio-net header */
	ENDPOINT_DATAGRAM, /* one frame a message: SOCK_DGRAM and SOCK_SEQPACKET */
	ENDPOINT_STREAM,   /* frames behind their length, four bytes in network order */
};

/* data points into the memory of the burst that the frame was read into. */
struct burst_frame {
	uint8_t *data;
	size_t length;
	struct virtio_net_hdr_mrg_rxbuf header; /* all zero where the endpoint carries none */
};

struct burst {
	struct burst_frame frames[BURST_FRAMES];
	size_t count;
	uint8_t *memory;
	size_t slot_size;
	/* Of a stream: what was received and not yet handed out. */
	size_t held_start;
	size_t held_end;
};

struct endpoint {
	int fd;
	enum endpoint_kind kind;
	bool has_header; /* a virtio-net header stands before each frame */
};

/*
 * Makes room for frames of up to frame_max bytes, header not counted. -ENOMEM. The caller owns it:
 * burst_done().
 */
int burst_init(struct burst *burst, size_t frame_max);

/* Frees it; accepts one that is all zero. */
void burst_done(struct burst *burst);

/*
 * Creates the TAP name in this process's network namespace, or joins a persistent one; has_offloads
 * lets the kernel hand over and take large frames and unfinished checksums. The caller owns
 * ret_endpoint->fd. Negative errno of open(2) and ioctl(2).
 */
int endpoint_open_tap(const char *name, bool has_offloads, struct endpoint *ret_endpoint);

/*
 * Takes over fd: a connected socket of AF_UNIX, whose frames stand behind a header if has_header
 * says so, or a TAP with IFF_VNET_HDR. -EPROTOTYPE for a socket that carries no frames.
 */
int endpoint_from_fd(int fd, bool has_header, struct endpoint *ret_endpoint);

/*
 * Waits until at least one frame is there, then takes what is there. Frames longer than the burst's
 * slots are lost. -ECONNRESET when the other side is gone; -EPROTO when a stream's lengths are
 * nonsense.
 */
int endpoint_read(const struct endpoint *endpoint, struct burst *burst);

/*
 * Writes all frames, and waits while a socket is full. A TAP may refuse a frame: it is lost, as on
 * a network card. -ECONNRESET when the other side is gone.
 */
int endpoint_write(const struct endpoint *endpoint, struct burst *burst);
