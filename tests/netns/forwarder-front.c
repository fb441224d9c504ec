/*
 * The front's side of forwards without root, alone:
 *
 *     forwarder-front SOCKET keep|end [tcp|udp LISTEN TARGET]...
 *
 * Has the forwarder at SOCKET lead on just these, end says that UDP flows which would be led
 * elsewhere end, and prints what forwarder_apply() returns and its detail.
 */
#include "broker/linux.h"

#include <err.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define FORWARDS_MAX 16

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int forwarder = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (forwarder < 0 ||
		connect(forwarder, (const struct sockaddr *)&address, sizeof(address)) < 0)
		err(1, "%s", path);
	return forwarder;
}

static struct platform_forward parse(char **words)
{
	struct forward_spec spec;

	forward_spec_init(&spec);
	if (forward_spec_set_protocol(&spec, words[0]) < 0 ||
		forward_spec_set_listen(&spec, words[1]) < 0 ||
		forward_spec_set_target(&spec, words[2]) < 0 || forward_spec_settle(&spec) < 0)
		errx(1, "%s %s %s is no forward", words[0], words[1], words[2]);
	return (struct platform_forward){
		.protocol = spec.protocol, .listen = spec.listen, .target = spec.target};
}

int main(int argc, char **argv)
{
	struct platform_forward forwards[FORWARDS_MAX];
	char detail[PLATFORM_DETAIL_SIZE];
	size_t count = 0;
	int result;

	if (argc < 3 || argc % 3 != 0 || argc / 3 - 1 > FORWARDS_MAX)
		errx(1, "usage: forwarder-front SOCKET keep|end [tcp|udp LISTEN TARGET]...");
	for (int i = 3; i < argc; i += 3)
		forwards[count++] = parse(&argv[i]);
	result = forwarder_apply(
		connect_to(argv[1]), forwards, count, strcmp(argv[2], "end") == 0, detail);
	printf("%d %s\n", result, detail);
	return 0;
}
