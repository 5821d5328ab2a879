/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Processes: children of traced ones, and holding one until its new libraries are attached. */
#ifndef TLSSNIFF_PROC_H
#define TLSSNIFF_PROC_H

#include "emit.bpf.h"
#include "maps.bpf.h"

/* A thread that has just mapped a library waits this long at most for its probes; on an idle
 * machine they take some milliseconds. */
#define HOLD_NS (1000 * 1000 * 1000)
#define HOLD_LOOPS (1 << 23)
/* Of these some 20 ns each a loop is made, so that HOLD_LOOPS outlast HOLD_NS. */
#define PAUSE_LOOPS 16
#define YIELD_EVERY 64

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_forked, struct task_struct *parent, struct task_struct *child)
{
	__u32 from = BPF_CORE_READ(parent, tgid), to = BPF_CORE_READ(child, tgid);
	__u8 one = 1;

	if (!config.follow || from == to || !bpf_map_lookup_elem(&traced, &from))
		return 0;
	bpf_map_update_elem(&traced, &to, &one, BPF_ANY);
	return 0;
}

struct hold_ctx {
	__u64 ticket;
	__u64 deadline;
	__u64 stack;
	__u32 tgid;
};

static long is_released(__u32 i, void *data)
{
	struct hold_ctx *ctx = data;
	__u64 *ticket = bpf_map_lookup_elem(&released, &ctx->tgid);
	__u64 word, now = 0;
	int n;

	if (ticket && *ticket >= ctx->ticket)
		return 1;
	for (n = 0; n < PAUSE_LOOPS; n++)
		now = bpf_ktime_get_boot_ns();
	/* Where the kernel does not preempt (PREEMPT_NONE), a thread that only looped here would
	 * keep its processor, and with it the RCU grace period that user space needs to attach. Of
	 * the helpers this one passes a cond_resched(), in __get_user_pages(). It also takes the
	 * mmap_lock, which user space needs for each probe: it must be free nearly always. */
	if (!(i % YIELD_EVERY))
		bpf_copy_from_user_task(&word, sizeof(word), (void *)ctx->stack,
					bpf_get_current_task_btf(), 0);
	return now > ctx->deadline;
}

/* On the function that the dynamic linker calls for debuggers when libraries have been mapped, and
 * before any of their code has run. A bounded wait needs no signal and no tracer, and ends by
 * itself if user space has died. */
SEC("uprobe.multi.s")
int libraries_mapped(struct pt_regs *regs)
{
	struct hold_ctx ctx = {
		.tgid = current_tgid(),
		.stack = PT_REGS_SP(regs),
	};
	struct ts_rec_hold *rec;
	__u64 *ticket;

	stay_on_kernel_stack(regs);
	if (!is_traced())
		return 0;
	rec = bpf_ringbuf_reserve(&ring, sizeof(*rec), 0);
	if (!rec) {
		count(TS_CTR_DROPPED_NOTES, 1);
		return 0;
	}
	ctx.ticket = __sync_fetch_and_add(&last_ticket, 1) + 1;
	ctx.deadline = bpf_ktime_get_boot_ns() + HOLD_NS;
	rec->type = TS_REC_HOLD;
	rec->tgid = ctx.tgid;
	rec->ticket = ctx.ticket;
	bpf_ringbuf_submit(rec, BPF_RB_FORCE_WAKEUP);
	bpf_loop(HOLD_LOOPS, is_released, &ctx, 0);
	ticket = bpf_map_lookup_elem(&released, &ctx.tgid);
	if (!ticket || *ticket < ctx.ticket)
		count(TS_CTR_EXPIRED_HOLDS, 1);
	return 0;
}

#endif
