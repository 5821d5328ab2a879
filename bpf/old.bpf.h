/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What Linux 5.8 to 5.14 lack and this object does otherwise there: with TS_OLD_KERNEL the same
 * sources become a second object, without cookies, task storage, bpf_loop, atomic operations that
 * return a value, and functions that the verifier looks at by themselves though they take pointers.
 */
#ifndef TLSSNIFF_OLD_H
#define TLSSNIFF_OLD_H

#include "maps.bpf.h"

#ifdef TS_OLD_KERNEL

/* Held for the few instructions that would be one: by connection and direction. */
struct lock_key {
	__u64 conn;
	__u64 dir;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct lock_key);
	__type(value, __u8);
} locks SEC(".maps");

/* Uprobe programs are not preempted on these kernels: who holds a lock gives it back in less than a
 * microsecond, but for an interrupt. */
#define LOCK_TRIES 256

__noinline int take_lock(__u64 conn, __u64 dir)
{
	struct lock_key key = {.conn = conn, .dir = dir};
	__u8 one = 1;
	int i;

	for (i = 0; i < LOCK_TRIES; i++) {
		if (!bpf_map_update_elem(&locks, &key, &one, BPF_NOEXIST))
			return 1;
	}
	count(TS_CTR_MISSED_CALLS, 1);
	return 0;
}

static __always_inline void give_lock(__u64 conn, __u64 dir)
{
	struct lock_key key = {.conn = conn, .dir = dir};

	bpf_map_delete_elem(&locks, &key);
}

/* Of all connections: no connection has the number 0. */
static __always_inline bool next_conn(__u64 *id)
{
	if (!take_lock(0, 0))
		return false;
	*id = ++last_conn;
	give_lock(0, 0);
	return true;
}

/* The half is longer by `len`, from `off` on. Two goroutines may return from one connection at the
 * same time. */
static __always_inline bool advance(struct ts_conn *conn, __u8 dir, __u64 len, __u64 *off)
{
	__u64 id = conn->id;

	if (!take_lock(id, dir))
		return false;
	*off = conn->off[dir];
	conn->off[dir] = *off + len;
	give_lock(id, dir);
	return true;
}

#else

static __always_inline bool next_conn(__u64 *id)
{
	*id = __sync_fetch_and_add(&last_conn, 1) + 1;
	return true;
}

static __always_inline bool advance(struct ts_conn *conn, __u8 dir, __u64 len, __u64 *off)
{
	*off = __sync_fetch_and_add(&conn->off[dir], len);
	return true;
}

#endif

#endif
