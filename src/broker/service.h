/*
 * org.varlink.service: how a client finds out what the broker speaks
 * (https://varlink.org/Service).
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* The reply to GetInfo; a new reference, NULL when memory is out. */
json_t *service_make_info(void);

/* The reply to GetInterfaceDescription; NULL when there is no such interface. */
json_t *service_make_description(const char *interface);

/* The parameters of InvalidParameter: the first name in parameters that is not wanted, or wanted
 * itself when that is missing or of a wrong type. */
json_t *service_make_parameter_error(json_t *parameters, const char *wanted);

/* Whether the first length bytes of name are an interface of ours. */
bool service_has_interface(const char *name, size_t length);
