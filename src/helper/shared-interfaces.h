/* What --list-shared-interfaces lists. */
#pragma once

#include <stdio.h>

/*
 * Asks the broker, which is not started for this, on which interfaces of the host its configuration
 * lets the caller put VMs, and prints their names, one a line. Nothing without a broker.
 */
void shared_interfaces_print(FILE *file);
