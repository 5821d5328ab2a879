/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Configuration, maps, and who is looked at. */
#ifndef TLSSNIFF_MAPS_H
#define TLSSNIFF_MAPS_H

#include "vmlinux_min.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "abi.h"

#define MAX_CONNS (256 * 1024)
/* Of pid namespaces within one another, of which the kernel allows 32. */
#define MAX_PID_DEPTH 8

/* The object for Linux 5.8 to 5.14: what it does otherwise is here, in old.bpf.h and thread.bpf.h.
 */
#ifdef TS_OLD_KERNEL
#define OLD_KERNEL 1
/* Since Linux 5.12 the verifier looks at a function that takes pointers by itself; before, at each
 * of its uses. */
#define __global static __noinline
#else
#define OLD_KERNEL 0
#define __global __noinline
#endif

/* Before Linux 6.0 arm64 refuses a program that calls functions and ends in a tail call. */
#if defined(TS_OLD_KERNEL) && defined(__TARGET_ARCH_arm64)
#define __leaf static __always_inline
#else
#define __leaf __noinline
#endif

const volatile struct ts_config {
	__u32 self_tgid;
	__u32 snaplen; /* bytes kept of a call; 0: all */
	__u32 by_tgid; /* only processes in `traced` */
	__u32 follow;  /* children of traced processes too */
	__u32 by_uid;
	__u32 uid;
	__u32 comm_len; /* only commands whose name begins with these bytes of `comm`; 0: all */
	char comm[TS_COMM_LEN];
	__u64 cgroup; /* only in this cgroup, which lies so deep below the root; 0: any */
	__u32 cgroup_level;
	__u32 pid_namespace; /* inode of ours; 0: the machine's own */
	__u64 wakeup_at;     /* unread bytes in the ring at which the reader is woken */
	__u64 large_call;    /* from here on a call waits for room in the ring */
	__u64 hold_ns;       /* how long a thread waits at most for the probes of its libraries */
	__u32 hold_all;      /* it waits also for files that user space has noticed */
	__u32 can_sleep;     /* uprobe programs do */
	__u32 exact_records;
	__u32 never; /* always 0, which the verifier knows and the compiler does not */
} config = {};

/* Written by user space before it blocks; the next record wakes it. */
__u32 reader_sleeps = 0;
__u64 last_conn = 0;
__u64 last_ticket = 0;
/* Set when the capture ends: nobody waits any more. */
__u32 holds_nobody = 0;
/* Set before the first process is put into `muted`: until then calls are spared the look. */
__u32 mutes_somebody = 0;
/* The command that user space starts: while it executes its program, whose probes are in place,
 * user space waits for it. */
__u32 starting_tgid = 0;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 * 1024 * 1024);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CONNS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ts_conn_key);
	__type(value, struct ts_conn);
} conns SEC(".maps");

/* Connections of which the beginning was seen, and nothing else yet. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct ts_conn_key);
	__type(value, __u8);
} begun SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TS_MAX_TARGETS);
	__type(key, __u32);
	__type(value, struct ts_layout);
} layouts SEC(".maps");

/* Processes to look at (`by_tgid`), by tgid. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u8);
} traced SEC(".maps");

/* Processes that user space has decided against, by tgid and exec id (handle 0). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ts_conn_key);
	__type(value, __u8);
} muted SEC(".maps");

/* The last ticket that user space has let go, by tgid. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} released SEC(".maps");

struct file_key {
	__u64 ino;
	__u32 dev;
	__u32 generation; /* a file may get the inode number of one that was deleted */
};

/* Files mapped as code of which user space has had time to take notice. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct file_key);
	__type(value, __u8);
} noticed SEC(".maps");

#ifndef TS_OLD_KERNEL
struct exec_hold {
	struct bpf_task_work work;
};

/* Processes that execute a program and are held before its first instruction, by tgid. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct exec_hold);
} exec_holds SEC(".maps");
#endif

/* Programs of which user space has been told. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct file_key);
	__type(value, __u8);
} announced SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TS_CTR_MAX);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline __u8 cookie_action(__u64 cookie)
{
	return cookie;
}

static __always_inline __u8 cookie_count(__u64 cookie)
{
	return cookie >> 8;
}

static __always_inline __u8 count_kind(__u8 where)
{
	return where & ~TS_CNT_ARGUMENT;
}

static __always_inline __u8 cookie_dir(__u64 cookie)
{
	return cookie_action(cookie) == TS_ACT_READ ? TS_IN : TS_OUT;
}

static __always_inline __u16 cookie_func(__u64 cookie)
{
	return cookie >> 16;
}

static __always_inline __u32 cookie_target(__u64 cookie)
{
	return cookie >> 32;
}

/* Since Linux 6.13 (commit e00931c02568) a program of the kprobe type that needs 64 bytes of stack
 * gets one per CPU. Uprobe programs are preempted and sleep: another thread would write over it.
 * A program with a tail call in its text stays on the kernel's stack; that the call is dead is
 * found out only later. */
static __always_inline void stay_on_kernel_stack(void *ctx)
{
	if (config.never)
		bpf_tail_call(ctx, NULL, 0);
}

/* A task's number in the pid namespace that lies so deep below the machine's own. */
static __always_inline struct upid *number_at(struct pid *pid, __u32 depth)
{
	return (void *)pid + bpf_core_field_offset(pid->numbers) +
	       depth * bpf_core_type_size(struct upid);
}

/* A task's number in our pid namespace; 0 outside of it. */
static __always_inline __u32 number_for_us(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u32 depth, deepest = BPF_CORE_READ(pid, level);

	for (depth = 1; depth < MAX_PID_DEPTH; depth++) {
		struct upid *number = number_at(pid, depth);

		if (depth > deepest)
			break;
		if (BPF_CORE_READ(number, ns, ns.inum) == config.pid_namespace)
			return BPF_CORE_READ(number, nr);
	}
	return 0;
}

static __always_inline __u32 tgid_of(struct task_struct *task)
{
	if (config.pid_namespace)
		return number_for_us(BPF_CORE_READ(task, group_leader));
	return BPF_CORE_READ(task, tgid);
}

/* A global function: it is used everywhere, and has a stack of its own where it is. */
__leaf __u64 ids_for_us(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return (__u64)number_for_us(BPF_CORE_READ(task, group_leader)) << 32 | number_for_us(task);
}

/* What user space knows the current thread and process by, as bpf_get_current_pid_tgid(). */
static __always_inline __u64 current_ids(void)
{
	return config.pid_namespace ? ids_for_us() : bpf_get_current_pid_tgid();
}

/* What user space wants to say to the program of a probe. */
static __always_inline __u64 probe_cookie(void *ctx)
{
#ifdef TS_OLD_KERNEL
	__u64 cookie;

	asm volatile("%0 = %1 ll" : "=r"(cookie) : "i"(TS_COOKIE_PLACE));
	return cookie;
#else
	return bpf_get_attach_cookie(ctx);
#endif
}

static __always_inline __u32 current_tgid(void)
{
	return current_ids() >> 32;
}

/* Uprobe programs are preempted: the slot of this CPU may be another's by now. */
static __always_inline void count(__u32 counter, __u64 n)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	if (value)
		__sync_fetch_and_add(value, n);
}

/* Since Linux 5.11 fields of a task can be loaded; before that, each takes a helper. A function of
 * its own, since the verifier searches all of the kernel's types by name for each such load that it
 * meets (btf_nested_type_is_trusted(), 0.3 ms and more), and it meets every one many times. */
__leaf __u32 current_exec_id(void)
{
	struct task_struct *task;

	if (bpf_core_enum_value_exists(enum bpf_func_id___known,
				       BPF_FUNC_get_current_task_btf___known))
		return bpf_get_current_task_btf()->group_leader->self_exec_id;
	task = (void *)bpf_get_current_task();
	return BPF_CORE_READ(task, group_leader, self_exec_id);
}

/* An address of a handle is reused after exec, and a pid after exit: the exec id tells the first
 * apart, user space removes the entries of processes that have gone. */
static __always_inline struct ts_conn_key conn_key(__u64 handle)
{
	struct ts_conn_key key = {
		.handle = handle,
		.tgid = current_tgid(),
		.exec_id = current_exec_id(),
	};

	return key;
}

static __always_inline bool has_wanted_name(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	char comm[TS_COMM_LEN] = {};
	__u32 i;

	if (!config.comm_len)
		return true;
	BPF_CORE_READ_STR_INTO(&comm, task, group_leader, comm);
	for (i = 0; i < TS_COMM_LEN; i++) {
		if (i >= config.comm_len)
			break;
		if (comm[i] != config.comm[i])
			return false;
	}
	return true;
}

static __always_inline bool is_traced(void)
{
	__u32 tgid = current_tgid();

	/* Number 0 is nobody's: outside of our pid namespace. */
	if (tgid == config.self_tgid || !tgid)
		return false;
	if (config.cgroup &&
	    bpf_get_current_ancestor_cgroup_id(config.cgroup_level) != config.cgroup)
		return false;
	if (config.by_tgid && !bpf_map_lookup_elem(&traced, &tgid))
		return false;
	if (config.by_uid && (__u32)bpf_get_current_uid_gid() != config.uid)
		return false;
	return has_wanted_name();
}

static __always_inline bool is_muted(void)
{
	struct ts_conn_key key;

	if (!mutes_somebody)
		return false;
	key = conn_key(0);
	return bpf_map_lookup_elem(&muted, &key);
}

#endif
