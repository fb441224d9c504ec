#include "test-frames.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <string.h>

#define PAYLOAD_OFFSET (ETHERNET_HEADER + sizeof(struct iphdr))
#define FLOW_PORT      5001

static uint32_t sum_words(const void *data, size_t size)
{
	const uint8_t *bytes = data;
	uint32_t sum = 0;

	for (size_t i = 0; i < size; i++)
		sum += (uint32_t)bytes[i] << (i % 2 ? 0 : 8);
	return sum;
}

/* RFC 1071. */
static uint16_t checksum(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static void write_headers(uint8_t *frame, size_t size, const struct flow *flow)
{
	const uint16_t type = htons(ETH_P_IP);
	struct iphdr ip = {
		.version = 4,
		.ihl = sizeof(ip) / 4,
		.tot_len = htons((uint16_t)(size - ETHERNET_HEADER)),
		.frag_off = htons(IP_DF),
		.ttl = 64,
		.protocol = flow->protocol,
		.saddr = flow->source.s_addr,
		.daddr = flow->destination.s_addr,
	};

	ip.check = checksum(sum_words(&ip, sizeof(ip)));
	memcpy(frame, flow->destination_mac.bytes, ETH_ALEN);
	memcpy(frame + ETH_ALEN, flow->source_mac.bytes, ETH_ALEN);
	memcpy(frame + 2 * ETH_ALEN, &type, sizeof(type));
	memcpy(frame + ETHERNET_HEADER, &ip, sizeof(ip));
}

static void write_udp(uint8_t *frame, size_t size)
{
	/* No checksum: RFC 768 allows that over IPv4. */
	const struct udphdr udp = {
		.source = htons(FLOW_PORT),
		.dest = htons(FLOW_PORT),
		.len = htons((uint16_t)(size - PAYLOAD_OFFSET)),
	};

	memcpy(frame + PAYLOAD_OFFSET, &udp, sizeof(udp));
}

static void write_tcp(uint8_t *frame, size_t size, uint32_t sequence)
{
	struct tcphdr tcp = {
		.source = htons(FLOW_PORT),
		.dest = htons(FLOW_PORT),
		.seq = htonl(sequence),
		.ack_seq = htonl(1),
		.doff = sizeof(tcp) / 4,
		.ack = 1,
		.window = htons(65535),
	};
	size_t length = size - PAYLOAD_OFFSET;
	const size_t addresses = 8;
	uint32_t sum = IPPROTO_TCP + (uint32_t)length;

	memcpy(frame + PAYLOAD_OFFSET, &tcp, sizeof(tcp));
	sum += sum_words(frame + PAYLOAD_OFFSET - addresses, addresses);
	sum += sum_words(frame + PAYLOAD_OFFSET, length);
	tcp.check = checksum(sum);
	memcpy(frame + PAYLOAD_OFFSET, &tcp, sizeof(tcp));
}

static size_t tcp_payload(size_t size)
{
	return size - PAYLOAD_OFFSET - sizeof(struct tcphdr);
}

void test_frames_fill(struct burst *burst, const struct flow *flow, size_t size)
{
	for (size_t i = 0; i < BURST_FRAMES; i++) {
		uint8_t *frame = burst->memory + i * burst->slot_size;

		memset(frame, 0, size);
		write_headers(frame, size, flow);
		if (flow->protocol == IPPROTO_TCP)
			write_tcp(frame, size, (uint32_t)(i * tcp_payload(size)));
		else
			write_udp(frame, size);
		burst->frames[i] = (struct burst_frame){.data = frame, .length = size};
	}
	burst->count = BURST_FRAMES;
}

/* RFC 1624, equation 3, for a field of 32 bits. */
static uint16_t update_checksum(uint16_t check, uint32_t before, uint32_t after)
{
	uint32_t sum = (uint16_t)~ntohs(check);

	sum += (uint16_t) ~(before >> 16) + (uint32_t)(uint16_t)~before;
	sum += (after >> 16) + (after & 0xffff);
	return checksum(sum);
}

void test_frames_advance(struct burst *burst)
{
	for (size_t i = 0; i < burst->count; i++) {
		struct burst_frame *frame = &burst->frames[i];
		struct tcphdr *tcp = (struct tcphdr *)(frame->data + PAYLOAD_OFFSET);
		uint32_t before = ntohl(tcp->seq);
		uint32_t after = before + (uint32_t)(burst->count * tcp_payload(frame->length));

		tcp->seq = htonl(after);
		tcp->check = update_checksum(tcp->check, before, after);
	}
}

void test_frame_echo_request(
	uint8_t *frame, size_t size, const struct flow *flow, uint16_t id, uint16_t sequence)
{
	struct icmphdr icmp = {
		.type = ICMP_ECHO,
		.un.echo = {.id = htons(id), .sequence = htons(sequence)},
	};

	memset(frame, 0, size);
	write_headers(frame, size, flow);
	icmp.checksum = checksum(sum_words(&icmp, sizeof(icmp)));
	memcpy(frame + PAYLOAD_OFFSET, &icmp, sizeof(icmp));
}

bool test_frame_is_echo_reply(const struct burst_frame *frame, uint16_t id, uint16_t sequence)
{
	struct iphdr ip;
	struct icmphdr icmp;

	if (frame->length < PAYLOAD_OFFSET + sizeof(icmp))
		return false;
	memcpy(&ip, frame->data + ETHERNET_HEADER, sizeof(ip));
	memcpy(&icmp, frame->data + PAYLOAD_OFFSET, sizeof(icmp));
	return frame->data[2 * ETH_ALEN] == ETH_P_IP >> 8 &&
	       frame->data[2 * ETH_ALEN + 1] == (ETH_P_IP & 0xff) && ip.protocol == IPPROTO_ICMP &&
	       icmp.type == ICMP_ECHOREPLY && icmp.un.echo.id == htons(id) &&
	       icmp.un.echo.sequence == htons(sequence);
}
