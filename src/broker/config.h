/*
 * What networks there are: networks.json and every .json file in networks.d over two built-in ones.
 *
 *     {"default": {"mode": "shared"}, "lab": {"mode": "host", "subnet": "10.77.0.0/24"}}
 *
 * The parser is pure. A mistake inside a network takes this network out of service, and only it; a
 * file that is no JSON object takes its networks out, because their names are unknown then.
 * docs/configuration.md has every key; docs/networks.schema.json says the same to programs.
 */
#pragma once

#include "broker/settings.h"
#include "wire/forward-spec.h"
#include "wire/messages.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_ERROR_SIZE       512
#define CONFIG_ERRORS_MAX       16 /* of one network */
#define CONFIG_NETWORKS_MAX     256
#define CONFIG_BROKEN_MAX       32
#define CONFIG_FILE_MAX         (256u << 10) /* bytes of one file */
#define CONFIG_FILE_NAME_MAX    128
#define CONFIG_MTU_MIN          1280  /* what IPv6 needs (RFC 8200 5) */
#define CONFIG_MTU_MAX          65520 /* the largest that VM programs and TAPs carry */
#define CONFIG_DESCRIPTION_SIZE BROKER_DESCRIPTION_SIZE
#define CONFIG_PRINCIPAL_SIZE   65 /* a user's or group's name with its NUL */
#define CONFIG_PRINCIPALS_MAX   256
#define CONFIG_RESERVATIONS_MAX 1024
#define CONFIG_QUOTA_MAX        65535
#define CONFIG_QUOTA_UNSET      UINT32_MAX

/* What is kept for one VM, known by its MAC or by its interface id. */
struct config_reservation {
	bool by_interface_id;
	struct mac mac; /* by_interface_id: what follows from it, see configured-reservations.h */
	struct uuid interface_id;
	bool has_address;
	struct in_addr address;
	char name[HOSTNAME_SIZE]; /* empty: none */
};

/* A user or group of an allow list. */
struct config_principal {
	char name[CONFIG_PRINCIPAL_SIZE]; /* empty: it was given as a number */
	bool is_known;                    /* id is valid: a number was given, or the name found */
	uint32_t id;
};

struct config_principals {
	struct config_principal *entries; /* owned */
	size_t count;
};

/* Who may use a network. */
struct config_access {
	bool is_given; /* without it the lists are empty and mean nothing */
	struct config_principals users, groups;
};

/* Of one user on this network; CONFIG_QUOTA_UNSET: the default holds. */
struct config_quotas {
	uint32_t interfaces, queues, forwards;
};

struct config_network {
	char name[NETWORK_NAME_SIZE];
	char file[CONFIG_FILE_NAME_MAX]; /* where it was configured; empty: built in */
	char description[CONFIG_DESCRIPTION_SIZE];
	struct network_settings settings;
	bool pinned;                             /* kept without users */
	struct config_reservation *reservations; /* owned */
	size_t reservations_count;
	struct forward_spec *forwards; /* owned */
	size_t forwards_count;
	struct config_access access;
	struct config_quotas quotas;
	char error[CONFIG_ERROR_SIZE]; /* why it is out of service; empty when it is not */
	char *further_errors[CONFIG_ERRORS_MAX - 1]; /* owned */
	size_t further_errors_count;
};

struct config {
	struct config_network networks[CONFIG_NETWORKS_MAX];
	size_t networks_count;
	/* What could not be laid at one network's door: syntax errors, impossible names. */
	char broken[CONFIG_BROKEN_MAX][CONFIG_ERROR_SIZE];
	size_t broken_count;
};

/* The built-in networks "shared" and "host" and nothing else. config_done() is due afterwards. */
void config_init(struct config *config);

/* Frees what the networks own. All zero is allowed. */
void config_done(struct config *config);

/* config_done() and free(). NULL is allowed. */
void config_free(struct config *config);

/* Calls visit for every mistake; network is NULL for those that are no single network's. */
void config_visit_mistakes(const struct config *config,
	void (*visit)(void *context, const char *network, const char *mistake), void *context);

/*
 * Adds what the bytes of a file say. file_name is how messages call it ("networks.d/lab.json").
 * Never fails: every mistake ends in a network's error or in config->broken.
 */
void config_parse(struct config *config, const char *file_name, const char *bytes, size_t size);

/* Once, behind the last config_parse(): puts a network out of service whose configured subnet
 * overlaps that of one configured earlier. */
void config_check_overlaps(struct config *config);

/*
 * config_init(), then networks.json and every .json file in networks.d (by name) of the directory,
 * then the overlaps. Files that are not there are none; one that cannot be read is a broken one.
 */
void config_load(struct config *config, const char *directory);

enum config_name_kind {
	CONFIG_NAME_USER,
	CONFIG_NAME_GROUP,
	CONFIG_NAME_KIND_COUNT,
};

/* A place among the names of all allow lists; all zero is before the first. */
struct config_names {
	size_t network, kind, entry;
};

/*
 * The next name of an allow list, whose number somebody with access to the system's users has to
 * fill in; NULL behind the last one. *ret_network is where it is listed.
 */
struct config_principal *config_next_name(struct config *config, struct config_names *names,
	enum config_name_kind *ret_kind, const struct config_network **ret_network);

/* NULL when there is no such network. Names are compared exactly. */
const struct config_network *config_find(const struct config *config, const char *name);
