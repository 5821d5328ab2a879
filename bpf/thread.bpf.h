/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The state of a thread that is inside TLS calls. */
#ifndef TLSSNIFF_THREAD_H
#define TLSSNIFF_THREAD_H

#include "maps.bpf.h"

/* TLS in TLS in TLS, each with a handshake inside a read; a power of two. */
#define MAX_DEPTH 8

#define MOST_MOVED (1U << 31)

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
	__u32 moved;         /* bytes, of a read or write that is returning; at most MOST_MOVED */
	__u8 want_addr;
	__u8 in_pieces; /* rustls: `buf` is where addresses and lengths are, `out` is to skip */
	__u8 pad[2];
	__u64 given; /* rustls: bytes at most */
};

/* Connections without an address to which the thread has written, and that nothing was sent of. */
#define MAX_EXPECTED 4

struct expected {
	__u64 handle;
	__u64 conn; /* 0: free */
	__u64 at;   /* boot time */
	__u32 len;  /* bytes of its first record's plaintext */
	__u32 version;
};

/* The last receive of the thread, when it began with a record. */
struct received {
	__u64 inode; /* of the socket */
	struct ts_addr addr;
	__u32 len; /* of the record; 0: none */
	__u32 pad;
};

/* Words looked at that may be a conn in a conn (PROXY protocol, limits, counters). */
#define MAX_WRAPPERS 8

/* Conns of Go that may be in a conn, to be looked at in turn. */
struct go_walk {
	__u64 conns[MAX_WRAPPERS];
	__u32 count;
	__u32 pad;
};

/* The records of a call. */
struct chunk_ctx {
	struct ts_rec_data rec;
	__u64 buf;  /* where the call's first byte would be */
	__u64 keep; /* bytes of the call to be kept */
	__u64 end;  /* bytes of the call up to where its memory ends that begins with `buf` */
	__u64 lost;
};

struct thread {
	__u32 depth;
	__u8 expects;   /* something in `expected` */
	__u8 watched;   /* receives that are still to be looked at */
	__u8 returning; /* only for old kernels: the frame that returns */
	__u8 called;    /* it has been in a call that was seen to begin */
	struct frame frames[MAX_DEPTH];
#ifdef TS_OLD_KERNEL
	__u64 len; /* that a call of Go has moved */
	/* What would be on the stack: of numbers that lie there the verifier knows so much that no
	 * turn of a loop is like another to it. */
	struct go_walk walk;
	struct chunk_ctx chunk;
#else
	__u64 expects_after; /* nothing before this boot time */
	struct expected expected[MAX_EXPECTED];
	struct received received;
#endif
};

struct thread_key {
	__u64 started; /* a number may be that of a thread which has gone */
	__u32 tid;
	__u32 pad;
};

#ifdef TS_OLD_KERNEL
/* Those that are in a call. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct thread_key);
	__type(value, struct thread);
} threads SEC(".maps");
#else
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread);
} threads SEC(".maps");

/* For threads whose storage cannot be made: while a thread is preempted in the code that makes it,
 * no other on its processor gets one. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct thread_key);
	__type(value, struct thread);
} spare_threads SEC(".maps");
#endif

/* Written before the first spare is: until then nobody needs to look for one. */
__u32 has_spares = 0;

static const struct thread no_calls = {};

/* The mask says to the verifier what the caller has checked; the barrier keeps it in the code. */
static __always_inline struct frame *frame_at(struct thread *thread, __u64 i)
{
	barrier_var(i);
	return &thread->frames[i & (MAX_DEPTH - 1)];
}

static __always_inline struct thread_key thread_key(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct thread_key key = {
		.started = BPF_CORE_READ(task, start_time),
		.tid = bpf_get_current_pid_tgid(),
	};

	return key;
}

#ifdef TS_OLD_KERNEL

/* NULL: the thread is in no call. */
static __always_inline struct thread *this_thread(void)
{
	struct thread_key key = thread_key();

	return bpf_map_lookup_elem(&threads, &key);
}

/* Makes it if need be. */
static __always_inline struct thread *current_thread(void)
{
	struct thread_key key = thread_key();
	struct thread *thread = bpf_map_lookup_elem(&threads, &key);

	if (thread)
		return thread;
	bpf_map_update_elem(&threads, &key, &no_calls, BPF_NOEXIST);
	thread = bpf_map_lookup_elem(&threads, &key);
	if (!thread)
		count(TS_CTR_MISSED_CALLS, 1);
	return thread;
}

/* Functions that the verifier looks at by themselves take no pointers: they find again what
 * returns. */
static __always_inline struct frame *returning_frame(void)
{
	struct thread *thread = this_thread();

	if (!thread || thread->returning >= MAX_DEPTH)
		return NULL;
	return frame_at(thread, thread->returning);
}

static __always_inline struct ts_layout *layout_of(const struct frame *frame)
{
	__u32 target = cookie_target(frame->cookie);

	return bpf_map_lookup_elem(&layouts, &target);
}

/* The thread has left its outermost call, or has ended. */
static __always_inline void forget_thread(void)
{
	struct thread_key key = thread_key();

	bpf_map_delete_elem(&threads, &key);
}

#else

static __always_inline struct thread *find_spare(void)
{
	struct thread_key key;

	if (!has_spares)
		return NULL;
	key = thread_key();
	return bpf_map_lookup_elem(&spare_threads, &key);
}

static __always_inline struct thread *make_spare(void)
{
	struct thread_key key = thread_key();

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

/* It goes with the thread. */
static __always_inline void forget_thread(void)
{
}

#endif

#endif
