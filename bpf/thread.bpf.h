/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The state of a thread that is inside TLS calls. */
#ifndef TLSSNIFF_THREAD_H
#define TLSSNIFF_THREAD_H

#include "maps.bpf.h"

/* TLS in TLS in TLS, each with a handshake inside a read; a power of two. */
#define MAX_DEPTH 8

/* A call in flight. */
struct frame {
	__u64 handle;
	__u64 buf;
	__u64 out; /* where the count will be, or 0 */
	__u64 sp;
	__u64 entered; /* ns since boot; of a read 0 */
	__u64 cookie;
	__u64 goid;          /* goroutine; 0: none */
	struct ts_addr addr; /* what the thread used while this was the innermost call */
	__u8 want_addr;
	__u8 pad[7];
	/* What is in pieces (rustls): an array of address and length each, how many, how many bytes
	 * to leave out at its beginning, and how many follow. `pieces` 0: all is at `buf`. */
	__u64 pieces;
	__u64 piece_count;
	__u64 skip;
	__u64 total;
};

struct thread {
	__u32 depth;
	__u32 pad;
	struct frame frames[MAX_DEPTH];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread);
} threads SEC(".maps");

struct spare_key {
	__u64 started; /* a number may be that of a thread which has gone */
	__u32 tid;
	__u32 pad;
};

/* For threads whose storage cannot be made: while a thread is preempted in the code that makes it,
 * no other on its processor gets one. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct spare_key);
	__type(value, struct thread);
} spare_threads SEC(".maps");

/* Written before the first spare is: until then nobody needs to look for one. */
__u32 has_spares = 0;

static const struct thread no_calls = {};

/* The mask says to the verifier what the caller has checked; the barrier keeps it in the code. */
static __always_inline struct frame *frame_at(struct thread *thread, __u64 i)
{
	barrier_var(i);
	return &thread->frames[i & (MAX_DEPTH - 1)];
}

static __always_inline struct spare_key spare_key(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct spare_key key = {
		.started = BPF_CORE_READ(task, start_time),
		.tid = bpf_get_current_pid_tgid(),
	};

	return key;
}

static __always_inline struct thread *find_spare(void)
{
	struct spare_key key;

	if (!has_spares)
		return NULL;
	key = spare_key();
	return bpf_map_lookup_elem(&spare_threads, &key);
}

static __always_inline struct thread *make_spare(void)
{
	struct spare_key key = spare_key();

	has_spares = 1;
	bpf_map_update_elem(&spare_threads, &key, &no_calls, BPF_NOEXIST);
	return bpf_map_lookup_elem(&spare_threads, &key);
}

/* NULL: the thread is in no call. */
static __always_inline struct thread *this_thread(void)
{
	struct thread *thread;

	thread = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), NULL, 0);
	return thread ?: find_spare();
}

/* Makes it if need be. */
static __always_inline struct thread *current_thread(void)
{
	struct thread *thread = this_thread();

	if (!thread)
		thread = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), NULL,
					      BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!thread)
		thread = make_spare();
	if (!thread)
		count(TS_CTR_MISSED_CALLS, 1);
	return thread;
}

#endif
