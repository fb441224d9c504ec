/*
 * One queue of the device with its thread, a guest beside it, and a TAP that is a datagram socket:
 * one frame a system call, and it never blocks. What can't be had fails the test.
 */
#pragma once

#include "fake-guest.h"
#include "helper/vhost-user-queue.h"

struct fake_queue {
	struct fake_guest guest;
	struct vhost_user_queue queue;
	int tap;  /* the test's end */
	int call; /* the guest's end */
	int kick;
	int ended;
	int ends[2];
};

/* With merging, every offload, and enabled; no thread runs yet. */
void fake_queue_init(struct fake_queue *fixture, enum direction direction);
void fake_queue_done(struct fake_queue *fixture);

/* Starts the thread. */
void fake_queue_start(struct fake_queue *fixture);

/* As the guest does when it gave something. */
void fake_queue_kick(struct fake_queue *fixture);

/* The guest's buffer with this number, in the test's mapping. */
uint8_t *fake_queue_buffer(const struct fake_queue *fixture, size_t index);

/* Waits until fd has one of the events of poll(2). */
void fake_wait_for(int fd, short events);

/* Waits as a driver does until the used index is count, and no further. Calls may be saved; what
 * counts is that one follows the last. */
void fake_queue_wait_for_used(struct fake_queue *fixture, uint16_t count);

/* Frames lost so far. */
uint64_t fake_queue_drops(const struct fake_queue *fixture);

/* Waits until the guest's fault has ended the thread, and sees that it does not start again. */
void fake_queue_assert_broken(struct fake_queue *fixture);
