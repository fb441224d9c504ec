#include "priv/capture-packets.h"

#include "priv/pcapng.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

/* The kernel takes a frame's VLAN tag out and tells it beside: there has to be room to put it back.
 */
#define VLAN_TAG_SIZE  4
#define VLAN_TAG_PLACE 12 /* behind both MACs */
#define DATA_OFFSET    (VLAN_TAG_SIZE + PCAPNG_PACKET_HEAD)
/* Ethernet header and a VLAN tag beside what counts for the MTU. */
#define FRAME_OVERHEAD 18
/* The kernel's counters have 32 bits. */
#define COUNT_AFTER (1u << 20)

/* What comes beside a packet. */
union ancillary {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(struct timespec)) +
		   CMSG_SPACE(sizeof(struct tpacket_auxdata))];
};

struct capture_batch {
	uint32_t snaplen;
	size_t slot_size;
	uint8_t *slots;
	struct mmsghdr messages[CAPTURE_BATCH];
	struct iovec data[CAPTURE_BATCH];
	union ancillary ancillary[CAPTURE_BATCH];
	struct sockaddr_ll from[CAPTURE_BATCH];
};

static uint8_t *slot_data(const struct capture_batch *batch, size_t i)
{
	return batch->slots + i * batch->slot_size + DATA_OFFSET;
}

int capture_batch_new(uint32_t snaplen, struct capture_batch **ret_batch)
{
	cleanup_with(capture_batch_free) struct capture_batch *batch = calloc(1, sizeof(*batch));

	if (!batch)
		return -ENOMEM;
	batch->snaplen = snaplen;
	batch->slot_size = (DATA_OFFSET + (size_t)snaplen + PCAPNG_PACKET_TAIL_MAX + 7) & ~7ul;
	batch->slots = malloc(CAPTURE_BATCH * batch->slot_size);
	if (!batch->slots)
		return -ENOMEM;
	for (size_t i = 0; i < CAPTURE_BATCH; i++)
		batch->data[i] = (struct iovec){slot_data(batch, i), snaplen};
	*ret_batch = take_ptr(batch);
	return 0;
}

void capture_batch_free(struct capture_batch *batch)
{
	if (!batch)
		return;
	free(batch->slots);
	free(batch);
}

static void prepare(struct capture_batch *batch)
{
	for (size_t i = 0; i < CAPTURE_BATCH; i++)
		batch->messages[i].msg_hdr = (struct msghdr){
			.msg_name = &batch->from[i],
			.msg_namelen = sizeof(batch->from[i]),
			.msg_iov = &batch->data[i],
			.msg_iovlen = 1,
			.msg_control = &batch->ancillary[i],
			.msg_controllen = sizeof(batch->ancillary[i]),
		};
}

/* What is not there stays zero. */
static void read_ancillary(
	struct msghdr *header, struct timespec *ret_time, struct tpacket_auxdata *ret_auxdata)
{
	for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
		if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SO_TIMESTAMPNS)
			memcpy(ret_time, CMSG_DATA(part), sizeof(*ret_time));
		else if (part->cmsg_level == SOL_PACKET && part->cmsg_type == PACKET_AUXDATA)
			memcpy(ret_auxdata, CMSG_DATA(part), sizeof(*ret_auxdata));
	}
}

/* Where the packet begins now. */
static uint8_t *put_vlan_back(uint8_t *data, const struct tpacket_auxdata *auxdata)
{
	uint16_t tag[] = {
		htons(auxdata->tp_status & TP_STATUS_VLAN_TPID_VALID ? auxdata->tp_vlan_tpid
								     : ETH_P_8021Q),
		htons(auxdata->tp_vlan_tci),
	};

	static_assert(sizeof(tag) == VLAN_TAG_SIZE, "TPID and TCI");
	memmove(data - VLAN_TAG_SIZE, data, VLAN_TAG_PLACE);
	memcpy(data - VLAN_TAG_SIZE + VLAN_TAG_PLACE, tag, sizeof(tag));
	return data - VLAN_TAG_SIZE;
}

/* What one cannot see in a packet that never was on a wire. */
static const char *choose_comment(bool is_large, bool lacks_checksum)
{
	static const char *const comments[2][2] = {
		{NULL, "checksum not filled in yet"},
		{"larger than the MTU: not yet cut, or joined again",
			"larger than the MTU: not yet cut, checksum not filled in yet"},
	};

	return comments[is_large][lacks_checksum];
}

static enum pcapng_direction direction_of(const struct sockaddr_ll *from)
{
	return from->sll_pkttype == PACKET_OUTGOING ? PCAPNG_OUTBOUND : PCAPNG_INBOUND;
}

static struct iovec wrap(struct capture_batch *batch, struct capture_source *source, size_t i)
{
	struct timespec time = {0};
	struct tpacket_auxdata auxdata = {0};
	uint8_t *data = slot_data(batch, i);
	struct pcapng_packet packet = {
		.interface = source->interface,
		.original = batch->messages[i].msg_len,
		.direction = direction_of(&batch->from[i]),
	};

	read_ancillary(&batch->messages[i].msg_hdr, &time, &auxdata);
	packet.time_ns = (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
	/* What came later than that says that it is up again. */
	source->is_down = source->is_down && packet.time_ns <= source->down_ns;
	packet.captured = packet.original;
	packet.comment = choose_comment(packet.original > source->mtu + FRAME_OVERHEAD,
		auxdata.tp_status & TP_STATUS_CSUMNOTREADY);
	if (auxdata.tp_status & TP_STATUS_VLAN_VALID && packet.original >= VLAN_TAG_PLACE) {
		data = put_vlan_back(data, &auxdata);
		packet.original += VLAN_TAG_SIZE;
		packet.captured += VLAN_TAG_SIZE;
	}
	if (packet.captured > batch->snaplen)
		packet.captured = batch->snaplen;
	return (struct iovec){
		.iov_base = data - PCAPNG_PACKET_HEAD,
		.iov_len = pcapng_wrap_packet(data, &packet),
	};
}

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Told once, in front of the packets that wait. */
static void note_error(struct capture_source *source, int error)
{
	if (error != ENETDOWN)
		return;
	source->is_down = true;
	source->down_ns = now_ns();
}

int capture_batch_receive(struct capture_batch *batch, struct capture_source *source,
	unsigned int maximum, struct iovec ret_blocks[CAPTURE_BATCH])
{
	int count;

	prepare(batch);
	/* With MSG_TRUNC a packet's length is what it was, however little of it was kept. */
	count = recvmmsg(source->fd, batch->messages, maximum, MSG_DONTWAIT | MSG_TRUNC, NULL);
	if (count < 0) {
		note_error(source, errno);
		return 0;
	}
	for (int i = 0; i < count; i++)
		ret_blocks[i] = wrap(batch, source, (size_t)i);
	source->unread += (uint32_t)count;
	if (source->unread > COUNT_AFTER)
		capture_source_count(source);
	return count;
}

void capture_source_stop(struct capture_source *source)
{
	struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
	const struct sock_fprog program = {.len = 1, .filter = &nothing};

	(void)setsockopt(source->fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

void capture_source_count(struct capture_source *source)
{
	struct tpacket_stats statistics;
	socklen_t size = sizeof(statistics);

	/* Zero again with each reading. */
	if (getsockopt(source->fd, SOL_PACKET, PACKET_STATISTICS, &statistics, &size) < 0)
		return;
	source->received += statistics.tp_packets;
	source->dropped += statistics.tp_drops;
	source->unread = 0;
}

bool capture_interface_has_gone(int fd)
{
	struct sockaddr_ll address = {.sll_ifindex = 0};
	socklen_t size = sizeof(address);

	/* The kernel forgets the index of one that was removed, not of one that is down. */
	return getsockname(fd, (struct sockaddr *)&address, &size) < 0 || address.sll_ifindex <= 0;
}
