/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Processes: children of traced ones, and holding one until its new libraries are attached. */
#ifndef TLSSNIFF_PROC_H
#define TLSSNIFF_PROC_H

#include "emit.bpf.h"
#include "maps.bpf.h"
#include "thread.bpf.h"

#define VM_EXEC 4
#define HOLD_LOOPS (1 << 23)
/* Of these some 20 ns each a loop is made, so that HOLD_LOOPS outlast any hold. */
#define PAUSE_LOOPS 16
#define YIELD_EVERY 64

/* Since Linux 6.7. */
extern int bpf_iter_task_vma_new(struct bpf_iter_task_vma *it, struct task_struct *task,
				 __u64 addr) __ksym __weak;
extern struct vm_area_struct *bpf_iter_task_vma_next(struct bpf_iter_task_vma *it) __ksym __weak;
extern void bpf_iter_task_vma_destroy(struct bpf_iter_task_vma *it) __ksym __weak;

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_forked, struct task_struct *parent, struct task_struct *child)
{
	__u32 from = tgid_of(parent), to = tgid_of(child);
	__u8 one = 1;

	if (!config.follow || from == to || !bpf_map_lookup_elem(&traced, &from))
		return 0;
	bpf_map_update_elem(&traced, &to, &one, BPF_ANY);
	return 0;
}

static __always_inline struct file_key file_key(struct inode *inode)
{
	struct file_key key = {
		.ino = BPF_CORE_READ(inode, i_ino),
		.dev = BPF_CORE_READ(inode, i_sb, s_dev),
		.generation = BPF_CORE_READ(inode, i_generation),
	};

	return key;
}

static __always_inline bool tell_process(__u32 type, __u64 ticket)
{
	struct ts_rec_hold *rec = bpf_ringbuf_reserve(&ring, sizeof(*rec), 0);

	if (!rec) {
		count(TS_CTR_DROPPED_NOTES, 1);
		return false;
	}
	rec->type = type;
	rec->tgid = current_tgid();
	rec->ticket = ticket;
	rec->ts = bpf_ktime_get_boot_ns();
	bpf_ringbuf_submit(rec, BPF_RB_FORCE_WAKEUP);
	return true;
}

/* Whether the process has mapped code of a file that user space may not have noticed yet; with
 * `notice`, all of them count as noticed from now on. True when nothing can be said. */
static __always_inline bool has_new_code(bool notice)
{
	struct bpf_iter_task_vma it;
	struct vm_area_struct *vma;
	bool new_code = false;
	__u8 one = 1;

	if (OLD_KERNEL || !bpf_ksym_exists(bpf_iter_task_vma_new))
		return true;
	if (bpf_iter_task_vma_new(&it, bpf_get_current_task_btf(), 0))
		new_code = true;
	while ((vma = bpf_iter_task_vma_next(&it))) {
		struct file_key key;
		struct inode *inode;

		if (!(BPF_CORE_READ(vma, vm_flags) & VM_EXEC))
			continue;
		inode = BPF_CORE_READ(vma, vm_file, f_inode);
		if (!inode)
			continue;
		key = file_key(inode);
		if (notice)
			bpf_map_update_elem(&noticed, &key, &one, BPF_ANY);
		else if (!bpf_map_lookup_elem(&noticed, &key))
			new_code = true;
	}
	bpf_iter_task_vma_destroy(&it);
	return new_code;
}

#ifdef TS_OLD_KERNEL

/* Its programs cannot sleep. Who cannot sleep must not wait either: user space could not attach
 * meanwhile. */
static __always_inline void hold(void)
{
	tell_process(TS_REC_EXEC, 0);
}

static __always_inline bool hold_at_start(struct task_struct *task, __u32 tgid)
{
	return false;
}

/* It may end within a call. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(thread_exits, struct task_struct *task)
{
	forget_thread();
	return 0;
}

#else

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

	if (holds_nobody || (ticket && *ticket >= ctx->ticket))
		return 1;
	for (n = 0; n < PAUSE_LOOPS; n++)
		now = bpf_ktime_get_boot_ns();
	/* Where the kernel does not preempt (PREEMPT_NONE), a thread that only looped here would
	 * keep its processor, and with it the RCU grace period that user space needs to attach. Of
	 * the helpers this one passes a cond_resched(), in __get_user_pages(). It also takes the
	 * mmap_lock, which user space needs for each probe: it must be free nearly always. */
	if (!(i % YIELD_EVERY) && bpf_core_enum_value_exists(enum bpf_func_id___known,
							     BPF_FUNC_copy_from_user_task___known))
		bpf_copy_from_user_task(&word, sizeof(word), (void *)ctx->stack,
					bpf_get_current_task_btf(), 0);
	return now > ctx->deadline;
}

/* Tells user space of the process and waits until that has attached what it maps. A bounded wait
 * needs no signal and no tracer, and ends by itself if user space has died. */
static __always_inline void hold(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct hold_ctx ctx = {
		.tgid = current_tgid(),
		.stack = BPF_CORE_READ(task, mm, start_stack),
	};
	__u64 *ticket;

	/* Who cannot sleep must not wait either: user space could not attach meanwhile. */
	if (!config.can_sleep || !has_loop()) {
		tell_process(TS_REC_EXEC, 0);
		return;
	}
	ctx.ticket = __sync_fetch_and_add(&last_ticket, 1) + 1;
	ctx.deadline = bpf_ktime_get_boot_ns() + config.hold_ns;
	if (!tell_process(TS_REC_HOLD, ctx.ticket))
		return;
	bpf_loop(HOLD_LOOPS, is_released, &ctx, 0);
	ticket = bpf_map_lookup_elem(&released, &ctx.tgid);
	if (!holds_nobody && (!ticket || *ticket < ctx.ticket))
		count(TS_CTR_EXPIRED_HOLDS, 1);
}

/* Since Linux 6.18. */
extern int bpf_task_work_schedule_resume_impl(struct task_struct *task, struct bpf_task_work *work,
					      void *map__map,
					      int (*callback)(struct bpf_map *map, void *key,
							      void *value),
					      void *aux__prog) __ksym __weak;

static int hold_program(struct bpf_map *map, void *key, void *value)
{
	hold();
	return 0;
}

/* False: the kernel cannot. */
static __always_inline bool hold_at_start(struct task_struct *task, __u32 tgid)
{
	struct exec_hold *held, none = {};

	if (!bpf_ksym_exists(bpf_task_work_schedule_resume_impl))
		return false;
	bpf_map_update_elem(&exec_holds, &tgid, &none, BPF_ANY);
	held = bpf_map_lookup_elem(&exec_holds, &tgid);
	return held && !bpf_task_work_schedule_resume_impl(task, &held->work, &exec_holds,
							   hold_program, NULL);
}

#endif

/* On the function that the dynamic linker calls for debuggers when libraries have been mapped, and
 * before any of their code has run. */
SEC("uprobe")
int libraries_mapped(struct pt_regs *regs)
{
	stay_on_kernel_stack(regs);
	if (!is_traced() || (!config.hold_all && !has_new_code(false)))
		return 0;
	hold();
	/* Also when it took too long: a reader that is stopped must not stop others for ever. */
	if (!config.hold_all)
		has_new_code(true);
	return 0;
}

/* The process runs a program that may be new. It is held on its way to the first instruction, where
 * the kernel can do that; of a static program, nothing later would. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_executes, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	__u32 tgid = current_tgid();
	struct file_key key;
	__u8 one = 1;

	if (!is_traced())
		return 0;
	key = file_key(BPF_CORE_READ(bprm, file, f_inode));
	if (!config.hold_all && bpf_map_lookup_elem(&announced, &key))
		return 0;
	bpf_map_update_elem(&announced, &key, &one, BPF_ANY);
	if (tgid == starting_tgid) {
		starting_tgid = 0;
		tell_process(TS_REC_EXEC, 0);
		return 0;
	}
	if (!hold_at_start(task, tgid))
		tell_process(TS_REC_EXEC, 0);
	return 0;
}

#endif
