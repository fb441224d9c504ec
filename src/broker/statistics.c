#include "broker/statistics.h"

#include "broker/helper-counters.h"
#include "broker/statistics-page.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

/* A helper answers within a millisecond unless the machine is very busy. */
#define PATIENCE_MS 500

/* A helper that is being asked. */
struct question {
	struct statistics_query *query;
	size_t entry;
	int fd;
	sd_event_source *source;
};

struct statistics_query {
	struct peer *peer;
	struct statistics_query **slot;
	struct statistics_page page;
	struct question questions[STATISTICS_PAGE_LENGTH];
	size_t asked, waiting;
	sd_event_source *timer;
};

static void end_question(struct question *question)
{
	question->source = sd_event_source_disable_unref(question->source);
	fd_close(take_fd(&question->fd));
}

void statistics_cancel(struct statistics_query *query)
{
	if (!query)
		return;
	for (size_t i = 0; i < query->asked; i++)
		end_question(&query->questions[i]);
	sd_event_source_disable_unref(query->timer);
	free(query);
}

static void finish(struct statistics_query *query)
{
	struct peer *peer = query->peer;
	json_t *answer = statistics_page_encode(&query->page);

	*query->slot = NULL;
	statistics_cancel(query);
	peer_reply(peer, answer, NULL, 0);
}

static int handle_timeout(sd_event_source *source, uint64_t time_us, void *userdata)
{
	finish(userdata);
	return 0;
}

/* One message of a stranger; anything but what it should be is no answer. */
static void read_answer(const struct question *question)
{
	struct broker_statistics *said = &question->query->page.entries[question->entry].said;
	char bytes[TRAFFIC_TEXT_MAX + 1];
	ssize_t size = recv(question->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (size > 0 && traffic_from_text(bytes, (size_t)size, &said->helper) == 0)
		said->has_helper = true;
}

static int handle_answer(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct question *question = userdata;
	struct statistics_query *query = question->query;

	read_answer(question);
	end_question(question);
	if (--query->waiting == 0)
		finish(query);
	return 0;
}

static int ask(struct statistics_query *query, sd_event *event, int directory, size_t entry)
{
	struct question *question = &query->questions[query->asked];
	int error = helper_counters_connect(
		directory, query->page.entries[entry].number, &question->fd);

	if (error)
		return error;
	query->asked++;
	question->query = query;
	question->entry = entry;
	error = sd_event_add_io(
		event, &question->source, question->fd, EPOLLIN, handle_answer, question);
	if (error < 0) {
		end_question(question);
		return error;
	}
	query->waiting++;
	return 0;
}

static int start_timer(struct statistics_query *query, sd_event *event)
{
	int error = sd_event_add_time_relative(event, &query->timer, CLOCK_MONOTONIC,
		PATIENCE_MS * 1000, 0, handle_timeout, query);

	return error < 0 ? error : 0;
}

static void fail(struct peer *peer, int error)
{
	struct failure failure;

	failure_set(&failure, BROKER_ERROR_INTERNAL, "the kernel's counters could not be read: %s",
		strerror(-error));
	peer_fail(peer, &failure);
}

void statistics_start(struct peer *peer, const struct registry *registry, const char *after,
	struct statistics_query **slot)
{
	cleanup_with(statistics_cancel) struct statistics_query *query = calloc(1, sizeof(*query));
	sd_event *event = sd_event_source_get_event(peer->io);
	int directory = records_interfaces_directory(registry->records);
	int error;

	if (!query) {
		peer_reply(peer, NULL, NULL, 0);
		return;
	}
	query->peer = peer;
	query->slot = slot;
	error = statistics_page_fill(registry, peer->uid, after, &query->page);
	for (size_t i = 0; !error && i < query->page.count; i++)
		(void)ask(query, event, directory, i);
	if (!error && query->waiting > 0)
		error = start_timer(query, event);
	if (error) {
		fail(peer, error);
	} else if (query->waiting > 0) {
		peer_defer(peer);
		*slot = take_ptr(query);
	} else {
		peer_reply(peer, statistics_page_encode(&query->page), NULL, 0);
	}
}
