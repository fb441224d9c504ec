/* The connection that a whole process shares, for the one call that needs no handle. */

#include "base/cleanup.h"
#include "client/handle.h"

#include <pthread.h>
#include <unistd.h>

static pthread_mutex_t process_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t process_once = PTHREAD_ONCE_INIT;
static vmnet_broker_t *process_broker; /* process_mutex; never closed: it holds the networks */

/* Whoever held the mutex while another thread forked does not exist in the child. */
static void renew_mutex(void)
{
	pthread_mutex_init(&process_mutex, NULL);
}

static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, renew_mutex);
}

static void unlock_mutex(pthread_mutex_t **mutex)
{
	pthread_mutex_unlock(*mutex);
}

/*
 * A child's copy of its parent's connection would mix up both their answers, and the thread that
 * used it may have been within a call: the fds are closed, the rest is left behind.
 */
static vmnet_broker_status_t ensure_process_broker(void)
{
	vmnet_broker_status_t status = VMNET_BROKER_SUCCESS;

	if (process_broker && process_broker->owner != getpid())
		handle_abandon(take_ptr(process_broker));
	if (!process_broker)
		process_broker = vmnet_broker_connect(NULL, &status, NULL, 0);
	return status;
}

static vmnet_broker_status_t acquire(const char *network_name, struct vmnet_broker_network *network)
{
	__attribute__((__cleanup__(unlock_mutex))) pthread_mutex_t *locked = &process_mutex;
	vmnet_broker_status_t status;

	pthread_once(&process_once, watch_forks);
	pthread_mutex_lock(locked);
	status = ensure_process_broker();
	if (status != VMNET_BROKER_SUCCESS)
		return status;
	return vmnet_broker_acquire(process_broker, network_name, network);
}

struct vmnet_broker_network *vmnet_broker_acquire_network(
	const char *network_name, vmnet_broker_status_t *status)
{
	cleanup_free struct vmnet_broker_network *network = calloc(1, sizeof(*network));
	vmnet_broker_status_t result =
		network ? acquire(network_name, network) : VMNET_BROKER_INTERNAL_ERROR;

	if (status)
		*status = result;
	return result == VMNET_BROKER_SUCCESS ? take_ptr(network) : NULL;
}
