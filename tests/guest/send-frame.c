/*
 * Runs in a guest: sends frames as they are, each given in hexadecimal digits, through an
 * interface.
 *
 *     send-frame eth0 ffffffffffff5254000000010800... ...
 */
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAME_MAX 2048

/* The number of bytes; 0 for what is no frame. */
static size_t read_digits(const char *digits, uint8_t frame[FRAME_MAX])
{
	size_t size = strlen(digits) / 2;

	if (size < ETH_HLEN || size > FRAME_MAX)
		return 0;
	for (size_t i = 0; i < size; i++)
		if (sscanf(digits + 2 * i, "%2hhx", &frame[i]) != 1)
			return 0;
	return size;
}

int main(int argc, char **argv)
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET};
	int packets = socket(AF_PACKET, SOCK_RAW, 0);

	if (argc < 3 || packets < 0)
		return 1;
	address.sll_ifindex = (int)if_nametoindex(argv[1]);
	for (int i = 2; i < argc; i++) {
		uint8_t frame[FRAME_MAX];
		size_t size = read_digits(argv[i], frame);

		if (size == 0 || sendto(packets, frame, size, 0, (struct sockaddr *)&address,
					 sizeof(address)) != (ssize_t)size) {
			perror("send-frame");
			return 1;
		}
	}
	return close(packets);
}
