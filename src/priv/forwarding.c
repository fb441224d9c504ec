#include "priv/forwarding.h"

#include "priv/saved-sysctls.h"
#include "priv/sysctl.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>

struct forwarding {
	struct saved_sysctls saved;
	struct links *links;
	struct verb_outcome *outcome;
};

/* An interface may have gone since it was listed. */
static int set(struct forwarding *forwarding, const char *family, const char *interface_name,
	const char *key, char value)
{
	int error = saved_sysctls_set(&forwarding->saved, family, interface_name, key, value);

	if (error && error != -ENOENT)
		return outcome_fail(forwarding->outcome, error,
			"setting net.%s.conf.%s.%s to %c: %s", family, interface_name, key, value,
			strerror(-error));
	return 0;
}

/* A bridge of ours takes its switches along when it goes. */
static int set_own(
	struct forwarding *forwarding, const char *family, const char *bridge, const char *key)
{
	int error = sysctl_set_interface(family, bridge, key, '1');

	if (error && error != -ENOENT)
		return outcome_fail(forwarding->outcome, error, "setting net.%s.conf.%s.%s: %s",
			family, bridge, key, strerror(-error));
	return 0;
}

/* value 0: any. */
static bool has_switch(const char *family, const char *interface_name, const char *key, char value)
{
	char path[PATH_MAX], current = 0;
	FILE *file;

	snprintf(
		path, sizeof(path), "%s/%s/conf/%s/%s", sysctl_root(), family, interface_name, key);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (fread(&current, 1, 1, file) != 1)
		current = 0;
	fclose(file);
	return value == 0 || current == value;
}

static int set_uplinks(
	struct forwarding *forwarding, int address_family, const char *family, const char *key)
{
	cleanup_free char(*uplinks)[IFNAMSIZ] = NULL;
	size_t uplinks_count;
	int error = links_list_uplinks(forwarding->links, address_family, &uplinks, &uplinks_count);

	if (error)
		return outcome_fail(
			forwarding->outcome, error, "reading routes: %s", strerror(-error));
	for (size_t i = 0; i < uplinks_count && !error; i++)
		error = set(forwarding, family, uplinks[i], key, '1');
	return error;
}

/* Links of ours listen to nobody, whatever their switch says, and there may be thousands. */
static bool is_own_link(const char *name)
{
	return strncmp(name, "vmbr", strlen("vmbr")) == 0 ||
	       strncmp(name, "vmtap", strlen("vmtap")) == 0;
}

/* Every interface that listens to router advertisements goes on doing so; new ones too. */
static int keep_advertisements(struct forwarding *forwarding)
{
	char path[PATH_MAX];
	DIR *interfaces;
	int error = 0;

	snprintf(path, sizeof(path), "%s/ipv6/conf", sysctl_root());
	interfaces = opendir(path);
	if (!interfaces)
		return errno == ENOENT ? 0 : -errno;
	for (const struct dirent *entry; !error && (entry = readdir(interfaces));)
		if (*entry->d_name != '.' && strcmp(entry->d_name, "all") != 0 &&
			!is_own_link(entry->d_name) &&
			has_switch("ipv6", entry->d_name, "accept_ra", '1'))
			error = set(forwarding, "ipv6", entry->d_name, "accept_ra", '2');
	closedir(interfaces);
	return error;
}

/* Those that were kept alive stay so: they look as if they had been 2 from the start. */
static int keep_saved_advertisements(struct forwarding *forwarding)
{
	for (size_t i = 0; i < forwarding->saved.count; i++)
		if (strcmp(forwarding->saved.switches[i].key, "accept_ra") == 0)
			forwarding->saved.switches[i].wanted = true;
	return keep_advertisements(forwarding);
}

/*
 * A host that forwards of its own accord takes no advertisement by an interface whose accept_ra is
 * 1, and must not begin to: whoever is on its links would become its router.
 */
static bool was_router_before(const struct forwarding *forwarding)
{
	for (size_t i = 0; i < forwarding->saved.count; i++) {
		const struct saved_sysctl *one = &forwarding->saved.switches[i];

		if (strcmp(one->family, "ipv6") == 0 && strcmp(one->interface_name, "all") == 0 &&
			strcmp(one->key, "forwarding") == 0)
			return false;
	}
	return has_switch("ipv6", "all", "forwarding", '1');
}

static int apply_ipv6(
	struct forwarding *forwarding, const struct bridge_facts *bridges, size_t bridges_count)
{
	bool each = has_switch("ipv6", "all", "force_forwarding", 0);
	bool any = false;
	int error = 0;

	for (size_t i = 0; i < bridges_count && !error; i++) {
		if (bridges[i].mode != NETWORK_MODE_SHARED || !bridges[i].has_ipv6)
			continue;
		any = true;
		if (each)
			error = set_own(forwarding, "ipv6", bridges[i].name, "force_forwarding");
	}
	if (error || !any)
		return error;
	if (each)
		return set_uplinks(forwarding, AF_INET6, "ipv6", "force_forwarding");
	if (was_router_before(forwarding))
		return 0;
	error = keep_saved_advertisements(forwarding);
	return error ? error : set(forwarding, "ipv6", "all", "forwarding", '1');
}

/* Replies come in by the uplink, and the kernel asks the interface a packet came in by. */
static int apply_ipv4(
	struct forwarding *forwarding, const struct bridge_facts *bridges, size_t bridges_count)
{
	bool any = false;
	int error = 0;

	for (size_t i = 0; i < bridges_count && !error; i++) {
		/* One of mode host forwards for the sake of published ports only. */
		if (bridges[i].mode == NETWORK_MODE_SHARED)
			error = set_own(forwarding, "ipv4", bridges[i].name, "forwarding");
		any = any || has_switch("ipv4", bridges[i].name, "forwarding", '1');
	}
	if (error || !any)
		return error;
	return set_uplinks(forwarding, AF_INET, "ipv4", "forwarding");
}

static int apply(
	struct forwarding *forwarding, const struct bridge_facts *bridges, size_t bridges_count)
{
	int error = saved_sysctls_load(&forwarding->saved);

	if (error)
		return outcome_fail(forwarding->outcome, error,
			"reading %s/" SAVED_SYSCTLS_FILE ": %s; remove it",
			forwarding->saved.directory, strerror(-error));
	error = apply_ipv4(forwarding, bridges, bridges_count);
	if (!error)
		error = apply_ipv6(forwarding, bridges, bridges_count);
	if (error)
		return error;
	error = saved_sysctls_restore(&forwarding->saved);
	if (error)
		return outcome_fail(forwarding->outcome, error, "putting forwarding back: %s",
			strerror(-error));
	return 0;
}

int forwarding_apply(struct links *links, const struct bridge_facts *bridges, size_t bridges_count,
	struct verb_outcome *outcome)
{
	struct forwarding forwarding = {
		.saved = {.directory = links_runtime_directory(links), .root = sysctl_root()},
		.links = links,
		.outcome = outcome,
	};
	int error = apply(&forwarding, bridges, bridges_count);

	saved_sysctls_done(&forwarding.saved);
	return error;
}
