#include "guest-gro.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <string.h>

#define IP_SIZE       sizeof(struct iphdr)
#define TCP_OFFSET    (ETHERNET_HEADER + IP_SIZE)
#define IP_LENGTH_MAX 65535

/* A stream's frames stand anywhere in memory; the compiler is told so by the type alone. */
typedef struct iphdr unaligned_iphdr __attribute__((aligned(1)));
typedef struct tcphdr unaligned_tcphdr __attribute__((aligned(1)));

/* A data segment that may be joined to others; all points into its frame. */
struct segment {
	unaligned_iphdr *ip;
	unaligned_tcphdr *tcp;
	uint8_t *payload;
	size_t payload_size;
	size_t tcp_size;
};

static bool parse_segment(const struct burst_frame *frame, struct segment *ret_segment)
{
	struct segment segment = {
		.ip = (unaligned_iphdr *)(frame->data + ETHERNET_HEADER),
		.tcp = (unaligned_tcphdr *)(frame->data + TCP_OFFSET),
	};
	uint16_t type;

	if (frame->length < TCP_OFFSET + sizeof(struct tcphdr))
		return false;
	memcpy(&type, frame->data + 2 * ETH_ALEN, sizeof(type));
	segment.tcp_size = segment.tcp->doff * 4u;
	segment.payload = frame->data + TCP_OFFSET + segment.tcp_size;
	segment.payload_size = frame->length - TCP_OFFSET - segment.tcp_size;
	if (ntohs(type) != ETH_P_IP || segment.ip->ihl != IP_SIZE / 4 ||
		segment.ip->protocol != IPPROTO_TCP || segment.ip->frag_off & htons(0x3fff) ||
		ntohs(segment.ip->tot_len) != frame->length - ETHERNET_HEADER)
		return false;
	if (frame->length <= TCP_OFFSET + segment.tcp_size || !segment.tcp->ack ||
		segment.tcp->syn || segment.tcp->fin || segment.tcp->rst || segment.tcp->urg)
		return false;
	*ret_segment = segment;
	return true;
}

/* joined_size: payload bytes so far, of which each segment but the last has first's size. */
static bool follows(const struct segment *first, size_t joined_size, const struct segment *next)
{
	const size_t options = sizeof(struct tcphdr);

	return next->ip->saddr == first->ip->saddr && next->ip->daddr == first->ip->daddr &&
	       next->ip->tos == first->ip->tos && next->tcp->source == first->tcp->source &&
	       next->tcp->dest == first->tcp->dest && next->tcp->ack_seq == first->tcp->ack_seq &&
	       ntohl(next->tcp->seq) == ntohl(first->tcp->seq) + (uint32_t)joined_size &&
	       next->tcp_size == first->tcp_size && next->payload_size <= first->payload_size &&
	       IP_SIZE + first->tcp_size + joined_size + next->payload_size <= IP_LENGTH_MAX &&
	       memcmp((uint8_t *)next->tcp + options, (uint8_t *)first->tcp + options,
		       first->tcp_size - options) == 0;
}

static uint32_t sum_words(const void *data, size_t size, uint32_t sum)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i + 1 < size; i += 2)
		sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* Lengths and checksums of the joined frame; the kernel is to complete TCP's, and never does. */
static void finish_headers(
	const struct segment *first, size_t joined_size, struct virtio_net_hdr_mrg_rxbuf *header)
{
	size_t tcp_length = first->tcp_size + joined_size;

	first->ip->tot_len = htons((uint16_t)(IP_SIZE + tcp_length));
	first->ip->check = 0;
	first->ip->check = htons((uint16_t)~fold(sum_words(first->ip, IP_SIZE, 0)));
	first->tcp->check =
		htons(fold(sum_words(&first->ip->saddr, 8, IPPROTO_TCP + (uint32_t)tcp_length)));
	header->hdr = (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = (uint16_t)(TCP_OFFSET + first->tcp_size),
		.gso_size = (uint16_t)first->payload_size,
		.csum_start = TCP_OFFSET,
		.csum_offset = offsetof(struct tcphdr, check),
	};
}

/* Fills parts with frame `at` and all that joins it. Returns how many frames that are. */
static size_t join(struct burst *burst, size_t at, struct iovec *parts)
{
	struct burst_frame *frame = &burst->frames[at];
	struct segment first, next;
	size_t joined_size, count = 1;

	parts[0] = (struct iovec){&frame->header, sizeof(frame->header)};
	parts[1] = (struct iovec){frame->data, frame->length};
	if (!parse_segment(frame, &first))
		return 1;
	joined_size = first.payload_size;
	next = first;
	while (at + count < burst->count && !next.tcp->psh &&
		next.payload_size == first.payload_size &&
		parse_segment(&burst->frames[at + count], &next) &&
		follows(&first, joined_size, &next)) {
		parts[1 + count++] = (struct iovec){next.payload, next.payload_size};
		first.tcp->psh |= next.tcp->psh;
		joined_size += next.payload_size;
	}
	if (count > 1)
		finish_headers(&first, joined_size, &frame->header);
	return count;
}

int guest_gro_write(const struct endpoint *tap, struct burst *burst)
{
	struct iovec parts[1 + BURST_FRAMES];
	size_t at = 0;

	while (at < burst->count) {
		size_t count = join(burst, at, parts);

		if (writev(tap->fd, parts, (int)(1 + count)) < 0 &&
			(errno == EBADF || errno == EBADFD))
			return -errno;
		at += count;
	}
	return 0;
}
