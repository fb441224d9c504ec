/*
 * What doctor finds by itself where no broker answers that could be asked.
 */
#pragma once

#include "vmnet-broker.h"

#include <jansson.h>

/*
 * In the form of Diagnose's answer: what would keep a broker from starting for this user, and in
 * notes that there is none. status is of the attempt to connect. The caller's; NULL when
 * memory is out.
 */
json_t *doctor_look_alone(vmnet_broker_status_t status);
