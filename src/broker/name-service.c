#include "broker/name-service.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/sandbox.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

struct question {
	uint32_t sequence;
	uint32_t kind; /* enum config_name_kind */
	char name[CONFIG_PRINCIPAL_SIZE];
};

struct answer {
	uint32_t sequence; /* the question's */
	uint32_t is_known;
	uint32_t id;
};

struct name_service {
	int socket;
	uint32_t sequence;
	/* What is being resolved. */
	struct config *config;
	struct config_names names;
	struct config_principal *asked;
	enum config_name_kind kind;
	const struct config_network *network;
	name_service_done *done;
	void *context;
	sd_event_source *io;
	sd_event_source *timer;
};

static void find_user(const char *name, struct answer *answer)
{
	const struct passwd *found = getpwnam(name);

	answer->is_known = found != NULL;
	answer->id = found ? found->pw_uid : 0;
}

static void find_group(const char *name, struct answer *answer)
{
	const struct group *found = getgrnam(name);

	answer->is_known = found != NULL;
	answer->id = found ? found->gr_gid : 0;
}

static void (*const find[CONFIG_NAME_KIND_COUNT])(const char *name, struct answer *answer) = {
	[CONFIG_NAME_USER] = find_user,
	[CONFIG_NAME_GROUP] = find_group,
};

/* Until the front closes its end, however it ends. */
static void answer_questions(int socket)
{
	struct question question;

	while (recv(socket, &question, sizeof(question), 0) == sizeof(question)) {
		struct answer answer = {.sequence = question.sequence};

		question.name[sizeof(question.name) - 1] = '\0';
		if (question.kind < CONFIG_NAME_KIND_COUNT)
			find[question.kind](question.name, &answer);
		if (send(socket, &answer, sizeof(answer), MSG_NOSIGNAL) < 0)
			break;
	}
}

/* No filter of system calls: what a module of nsswitch.conf needs is not ours to know. */
static _Noreturn void run_child(int socket, pid_t parent)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGCHLD, SIG_DFL);
	prctl(PR_SET_NAME, "vmnet-names");
	/* For one that hangs in a module while its front ends. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent || dup2(socket, 3) < 0)
		_exit(1);
	close_range(4, UINT_MAX, 0);
	if (sandbox_drop_capabilities() < 0 || sandbox_no_new_privileges() < 0)
		_exit(1);
	answer_questions(3);
	_exit(0);
}

int name_service_start(struct name_service **ret_service)
{
	struct name_service *service = calloc(1, sizeof(*service));
	pid_t parent = getpid();
	int sockets[2];
	pid_t pid;

	if (!service)
		return -ENOMEM;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0) {
		int error = -errno;

		free(service);
		return error;
	}
	/* It is never waited for. */
	signal(SIGCHLD, SIG_IGN);
	pid = fork();
	if (pid == 0)
		run_child(sockets[1], parent);
	service->socket = sockets[0];
	fd_close(sockets[1]);
	if (pid < 0) {
		name_service_free(service);
		return -EAGAIN;
	}
	*ret_service = service;
	return 0;
}

void name_service_free(struct name_service *service)
{
	if (!service)
		return;
	sd_event_source_disable_unref(service->io);
	sd_event_source_disable_unref(service->timer);
	fd_close(service->socket);
	free(service);
}

/* Asks for the next name; false when there is none, or nobody to ask. */
static bool ask_next(struct name_service *service)
{
	struct question question = {.sequence = ++service->sequence};

	service->asked = config_next_name(
		service->config, &service->names, &service->kind, &service->network);
	if (!service->asked)
		return false;
	question.kind = service->kind;
	memcpy(question.name, service->asked->name, sizeof(question.name));
	if (send(service->socket, &question, sizeof(question), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
		return true;
	log_error("main", "names of users and groups cannot be looked up: %s; restart the broker",
		strerror(errno));
	return false;
}

/* Takes an answer. Returns whether another question was asked. */
static bool take_answer(struct name_service *service, const struct answer *answer)
{
	if (answer->sequence != service->sequence || !service->asked)
		return service->asked != NULL;
	service->asked->is_known = answer->is_known;
	service->asked->id = answer->id;
	if (!answer->is_known)
		log_warn("main", "%s: %s.allow.%s: there is no \"%s\" on this system",
			service->network->file, service->network->name,
			service->kind == CONFIG_NAME_USER ? "users" : "groups",
			service->asked->name);
	return ask_next(service);
}

static void report_timeout(const struct name_service *service)
{
	log_error("main",
		"%s: %s.allow: looking up \"%s\" took too long; it and what comes behind it is "
		"nobody until the configuration is read again",
		service->network->file, service->network->name, service->asked->name);
}

static bool begin(struct name_service *service, struct config *config)
{
	service->config = config;
	service->names = (struct config_names){0};
	return ask_next(service);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void name_service_resolve(struct name_service *service, struct config *config)
{
	int64_t end_ms = now_ms() + NAME_SERVICE_TIMEOUT_MS;
	bool waits = begin(service, config);

	while (waits) {
		struct pollfd readable = {.fd = service->socket, .events = POLLIN};
		int64_t left_ms = end_ms - now_ms();
		struct answer answer;

		if (left_ms <= 0 || poll(&readable, 1, (int)left_ms) <= 0) {
			report_timeout(service);
			break;
		}
		if (recv(service->socket, &answer, sizeof(answer), 0) != sizeof(answer)) {
			log_error("main", "the process that looks up users and groups has ended; "
					  "restart the broker");
			break;
		}
		waits = take_answer(service, &answer);
	}
	service->asked = NULL;
}

static void finish(struct name_service *service)
{
	service->io = sd_event_source_disable_unref(service->io);
	service->timer = sd_event_source_disable_unref(service->timer);
	service->asked = NULL;
	service->done(service->context);
}

static int handle_answer(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct name_service *service = userdata;
	struct answer answer;

	if (recv(fd, &answer, sizeof(answer), MSG_DONTWAIT) != sizeof(answer)) {
		log_error("main", "the process that looks up users and groups has ended; restart "
				  "the broker");
		finish(service);
	} else if (!take_answer(service, &answer)) {
		finish(service);
	}
	return 0;
}

static int handle_timeout(sd_event_source *source, uint64_t time_us, void *userdata)
{
	report_timeout(userdata);
	finish(userdata);
	return 0;
}

void name_service_resolve_later(struct name_service *service, sd_event *event,
	struct config *config, name_service_done *done, void *context)
{
	service->done = done;
	service->context = context;
	if (begin(service, config) &&
		sd_event_add_io(event, &service->io, service->socket, EPOLLIN, handle_answer,
			service) >= 0 &&
		sd_event_add_time_relative(event, &service->timer, CLOCK_MONOTONIC,
			UINT64_C(1000) * NAME_SERVICE_TIMEOUT_MS, 0, handle_timeout, service) >= 0)
		return;
	finish(service);
}
