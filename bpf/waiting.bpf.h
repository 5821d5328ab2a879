/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Calls that had begun before their probes were in place: user space finds out what a thread that
 * sleeps in a system call will return to, and the return is seen there. */
#ifndef TLSSNIFF_WAITING_H
#define TLSSNIFF_WAITING_H

#include "call.bpf.h"
#include "maps.bpf.h"

#define TASK_INTERRUPTIBLE 1

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TS_MAX_WAITS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ts_wait_key);
	__type(value, struct ts_wait);
} waits SEC(".maps");

static __always_inline struct ts_wait_key wait_key(struct task_struct *task)
{
	struct ts_wait_key key = {
		.started = BPF_CORE_READ(task, start_time),
		.tid = BPF_CORE_READ(task, pid),
		.exec_id = BPF_CORE_READ(task, group_leader, self_exec_id),
	};

	return key;
}

#if defined(__TARGET_ARCH_x86)
/* arch/x86/entry/syscalls/syscall_64.tbl: read, readv, recvfrom, recvmsg. */
static __always_inline bool is_receive(__u64 nr)
{
	return nr == 0 || nr == 19 || nr == 45 || nr == 47;
}

/* poll, select, epoll_wait, pselect6, ppoll, epoll_pwait: what a read waits in that has a timeout.
 */
static __always_inline bool is_poll(__u64 nr)
{
	return nr == 7 || nr == 23 || nr == 232 || nr == 270 || nr == 271 || nr == 281;
}

/* The numbers of registers are those of machine code. */
static __always_inline bool read_registers(struct ts_sleeper *sleeper, struct task_struct *task)
{
	struct pt_regs regs;

	if (bpf_probe_read_kernel(&regs, sizeof(regs), (void *)bpf_task_pt_regs(task)))
		return false;
	if (!is_receive(regs.orig_ax) && !is_poll(regs.orig_ax))
		return false;
	sleeper->regs[3] = regs.bx;
	sleeper->regs[4] = regs.sp;
	sleeper->regs[5] = regs.bp;
	sleeper->regs[12] = regs.r12;
	sleeper->regs[13] = regs.r13;
	sleeper->regs[14] = regs.r14;
	sleeper->regs[15] = regs.r15;
	sleeper->ip = regs.ip;
	sleeper->fd = is_receive(regs.orig_ax) ? regs.di : TS_NO_FD;
	return true;
}
#else
static __always_inline bool read_registers(struct ts_sleeper *sleeper, struct task_struct *task)
{
	return false;
}
#endif

/* A thread that has not been switched to since is where it was. One that is about to sleep would
 * not count that. */
static __always_inline bool sleeps(struct task_struct *task)
{
	if (!(BPF_CORE_READ(task, __state) & TASK_INTERRUPTIBLE))
		return false;
	return !bpf_core_field_exists(task->on_cpu) || !BPF_CORE_READ(task, on_cpu);
}

/* What a call for a connection sleeps at carries it. A local socket may be that of a helper. */
static __always_inline void note_socket(struct ts_wait *wait, struct task_struct *task, __u32 fd)
{
	if (!file_addr(file_of_fd(task, fd), &wait->addr) || wait->addr.transport != TS_TP_TCP)
		wait->addr.transport = TS_TP_UNKNOWN;
	wait->addr.source = TS_SRC_SOCKET;
}

/* Tells of each thread that sleeps in a receive, or until there is something to receive. A call of
 * it that user space has placed counts from now on if the thread has slept since. */
SEC("iter/task")
int sleepers(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct ts_sleeper sleeper = {};
	struct ts_wait *wait;

	if (!task || !BPF_CORE_READ(task, mm) || !sleeps(task))
		return 0;
	if (!read_registers(&sleeper, task))
		return 0;
	sleeper.key = wait_key(task);
	sleeper.tgid = tgid_of(task);
	sleeper.switches = BPF_CORE_READ(task, nvcsw) + BPF_CORE_READ(task, nivcsw);
	wait = bpf_map_lookup_elem(&waits, &sleeper.key);
	if (wait && wait->switches == sleeper.switches) {
		note_socket(wait, task, sleeper.fd);
		__sync_val_compare_and_swap(&wait->state, TS_WAIT_PLACED, TS_WAIT_COUNTS);
	}
	bpf_seq_write(ctx->meta->seq, &sleeper, sizeof(sleeper));
	return 0;
}

/* Where such a call returns to. Whoever is in a call that was seen to begin, or has been, has left
 * the older one in another way. */
SEC("uprobe")
int waited_returns(struct pt_regs *regs)
{
	struct ts_wait_key key = wait_key((void *)bpf_get_current_task());
	__u64 cookie = bpf_get_attach_cookie(regs);
	__u32 target = cookie_target(cookie);
	struct frame frame = {.cookie = cookie};
	struct ts_layout *layout;
	struct thread *thread;
	struct ts_wait *wait;

	stay_on_kernel_stack(regs);
	wait = bpf_map_lookup_elem(&waits, &key);
	if (!wait || wait->cookie != cookie || wait->sp != PT_REGS_SP(regs) - RETURN_POPS)
		return 0;
	if (__sync_lock_test_and_set(&wait->state, TS_WAIT_OVER) != TS_WAIT_COUNTS)
		return 0;
	thread = this_thread();
	if ((thread && thread->called) || !is_traced() || is_muted())
		return 0;
	layout = bpf_map_lookup_elem(&layouts, &target);
	if (!layout)
		return 0;
	frame.handle = wait->handle;
	frame.buf = wait->buf;
	frame.out = wait->out;
	frame.sp = wait->sp;
	if (wait->addr.transport)
		frame.addr = wait->addr;
	data_returned(regs, &frame, layout);
	return 0;
}

#endif
