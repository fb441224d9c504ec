/* What guest and TAP agree on: virtio's feature bits (1.2, 5.1.3) and the TAP's offloads. */
#include "helper/vhost-user-device.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <sys/ioctl.h>

/* Newer than the oldest headers this is built with (Linux 6.2). */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#ifndef VIRTIO_NET_F_GUEST_USO4
#define VIRTIO_NET_F_GUEST_USO4 54
#define VIRTIO_NET_F_GUEST_USO6 55
#define VIRTIO_NET_F_HOST_USO   56
#endif

#define BIT(number) (1ull << (number))

static const uint64_t features_always =
	BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_ANY_LAYOUT) | BIT(VIRTIO_RING_F_EVENT_IDX) |
	BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VHOST_USER_F_PROTOCOL_FEATURES) |
	BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_MTU) | BIT(VIRTIO_NET_F_CSUM) |
	BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN) |
	BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6) |
	BIT(VIRTIO_NET_F_GUEST_ECN);

static const uint64_t features_uso =
	BIT(VIRTIO_NET_F_HOST_USO) | BIT(VIRTIO_NET_F_GUEST_USO4) | BIT(VIRTIO_NET_F_GUEST_USO6);

/* The control queue is the front-end's own business; Cloud Hypervisor has one only if we offer it,
 * while with crosvm it would be ours. So it is offered where it is needed. */
static const uint64_t features_many_queues = BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ);

static const uint64_t features_large_frames =
	BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_USO4) |
	BIT(VIRTIO_NET_F_GUEST_USO6);

uint64_t vhost_user_offer_features(size_t queue_pairs, bool has_uso)
{
	return features_always | (has_uso ? features_uso : 0) |
	       (queue_pairs > 1 ? features_many_queues : 0);
}

static bool has(uint64_t features, unsigned int number)
{
	return features & BIT(number);
}

unsigned int vhost_user_tap_offloads(uint64_t features)
{
	unsigned int offloads = TUN_F_CSUM;

	/* Without it the others mean nothing, to the TAP as to the guest. */
	if (!has(features, VIRTIO_NET_F_GUEST_CSUM))
		return 0;
	offloads |= has(features, VIRTIO_NET_F_GUEST_TSO4) ? TUN_F_TSO4 : 0;
	offloads |= has(features, VIRTIO_NET_F_GUEST_TSO6) ? TUN_F_TSO6 : 0;
	/* The TAP takes congestion marks only with one of the two. */
	if (has(features, VIRTIO_NET_F_GUEST_ECN) && offloads & (TUN_F_TSO4 | TUN_F_TSO6))
		offloads |= TUN_F_TSO_ECN;
	/* The TAP takes both or none. */
	if (has(features, VIRTIO_NET_F_GUEST_USO4) && has(features, VIRTIO_NET_F_GUEST_USO6))
		offloads |= TUN_F_USO4 | TUN_F_USO6;
	return offloads;
}

int vhost_user_apply_features(struct vhost_user *device, uint64_t features)
{
	bool has_merging = has(features, VIRTIO_NET_F_MRG_RXBUF);
	bool has_count = has_merging || has(features, VIRTIO_F_VERSION_1);
	int header_size = has_count ? VHOST_USER_HEADER_SIZE : VHOST_USER_LEGACY_HEADER_SIZE;
	unsigned long offloads = vhost_user_tap_offloads(features);

	/* Both are the whole TAP's, whichever queue they are set through. */
	if (ioctl(device->taps[0], TUNSETVNETHDRSZ, &header_size) < 0)
		return -errno;
	if (ioctl(device->taps[0], TUNSETOFFLOAD, offloads) < 0)
		return -errno;
	for (size_t i = 0; i < 2 * device->queue_pairs; i++) {
		struct vhost_user_queue *queue = &device->queues[i];

		queue->place.has_event_index = has(features, VIRTIO_RING_F_EVENT_IDX);
		queue->place.has_indirect = has(features, VIRTIO_RING_F_INDIRECT_DESC);
		queue->has_merging = has_merging;
		queue->header_size = (size_t)header_size;
		queue->frame_max = features & features_large_frames
					   ? VHOST_USER_FRAME_MAX
					   : device->mtu + FRAME_HEADER_SIZE + 4;
	}
	return 0;
}
