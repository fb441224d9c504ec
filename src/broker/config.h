/*
 * What networks there are: networks.json and every .json file in networks.d over two built-in ones.
 *
 *     {"default": {"mode": "shared"}, "lab": {"mode": "host", "subnet": "10.77.0.0/24", "mtu":
 * 9000}}
 *
 * The parser is pure. A mistake inside a network takes this network out of service, and only it; a
 * file that is no JSON object takes its networks out, because their names are unknown then.
 */
#pragma once

#include "broker/settings.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_ERROR_SIZE    512
#define CONFIG_NETWORKS_MAX  256
#define CONFIG_BROKEN_MAX    32
#define CONFIG_FILE_MAX      (256u << 10) /* bytes of one file */
#define CONFIG_FILE_NAME_MAX 128
#define CONFIG_MTU_MIN       1280  /* what IPv6 needs (RFC 8200 5) */
#define CONFIG_MTU_MAX       65520 /* the largest that VM programs and TAPs carry */

struct config_network {
	char name[NETWORK_NAME_SIZE];
	char file[CONFIG_FILE_NAME_MAX]; /* where it was configured; empty: built in */
	struct network_settings settings;
	char error[CONFIG_ERROR_SIZE]; /* why it is out of service; empty when it is not */
};

struct config {
	struct config_network networks[CONFIG_NETWORKS_MAX];
	size_t networks_count;
	/* What could not be laid at one network's door: syntax errors, impossible names. */
	char broken[CONFIG_BROKEN_MAX][CONFIG_ERROR_SIZE];
	size_t broken_count;
};

/* The built-in networks "shared" and "host" and nothing else. */
void config_init(struct config *config);

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

/* NULL when there is no such network. Names are compared exactly. */
const struct config_network *config_find(const struct config *config, const char *name);
