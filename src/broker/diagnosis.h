/*
 * What is wrong with the networks and with the host under them, for vmnetctl doctor.
 */
#pragma once

#include "broker/access.h"
#include "broker/network.h"

#include <jansson.h>

/*
 * The answer of Diagnose: {"findings": [...], "accepts": [...], "notes": [...]}, about what the
 * caller may use of the registry and about the host. NULL when memory is out.
 */
json_t *diagnosis_make(const struct registry *registry, const struct credentials *credentials);
