/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The OpenSSL API: one program for all calls with a return, one for those without. */
#ifndef TLSSNIFF_OPENSSL_H
#define TLSSNIFF_OPENSSL_H

#include "call.bpf.h"

/* Since Linux 6.13; with an argument since 7.0. */
extern bool bpf_session_is_return(void) __ksym __weak;
extern bool bpf_session_is_return___ctx(void *ctx) __ksym __weak;
extern __u64 *bpf_session_cookie(void) __ksym __weak;
extern __u64 *bpf_session_cookie___ctx(void *ctx) __ksym __weak;

static __always_inline bool session_is_return(void *ctx)
{
	if (bpf_ksym_exists(bpf_session_is_return___ctx))
		return bpf_session_is_return___ctx(ctx);
	return bpf_session_is_return();
}

static __always_inline __u64 *session_cookie(void *ctx)
{
	if (bpf_ksym_exists(bpf_session_cookie___ctx))
		return bpf_session_cookie___ctx(ctx);
	return bpf_session_cookie();
}

#ifndef TS_OLD_KERNEL
SEC("uprobe.session.s")
int tls_call(struct pt_regs *regs)
{
	__u64 *slot = session_cookie(regs);

	stay_on_kernel_stack(regs);
	if (session_is_return(regs))
		return exit_call(regs, *slot);
	return enter_call(regs, probe_cookie(regs), slot);
}
#endif

/* Without sessions: the beginning and the return are two probes. */
SEC("uprobe")
int tls_enters(struct pt_regs *regs)
{
	__u64 slot;

	stay_on_kernel_stack(regs);
	enter_call(regs, probe_cookie(regs), &slot);
	return 0;
}

#ifdef TS_OLD_KERNEL

/* Goes on where the program of a return ends: that is loaded for each probe, so it is short. */
SEC("uprobe")
int tls_finishes(struct pt_regs *regs)
{
	struct thread *thread = this_thread();

	stay_on_kernel_stack(regs);
	return thread ? exit_call(regs, thread->returning + 1) : 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, int(struct pt_regs *));
} tls_rest SEC(".maps") = {.values = {(void *)tls_finishes}};

SEC("uprobe")
int tls_returns(struct pt_regs *regs)
{
	__u64 slot = returning_slot(regs, probe_cookie(regs));
	struct thread *thread = this_thread();

	if (!thread || !slot)
		return 0;
	thread->returning = slot - 1;
	bpf_tail_call(regs, &tls_rest, 0);
	return 0;
}

#else

SEC("uprobe")
int tls_returns(struct pt_regs *regs)
{
	stay_on_kernel_stack(regs);
	return exit_call(regs, returning_slot(regs, probe_cookie(regs)));
}

#endif

/* SSL_free of one of several owners does not end the connection. */
static __always_inline bool is_last_owner(__u32 target, __u64 handle)
{
	struct ts_layout *layout = bpf_map_lookup_elem(&layouts, &target);
	__u32 references;
	__u64 field;

	if (!layout)
		return true;
	field = chase(&layout->references, handle);
	if (!field || !read_u32(field, &references))
		return true;
	return references <= 1;
}

SEC("uprobe")
int tls_event(struct pt_regs *regs)
{
	__u64 cookie = probe_cookie(regs);
	__u64 handle = PT_REGS_PARM1(regs);
	struct ts_conn *conn;

	stay_on_kernel_stack(regs);
	if (!is_traced())
		return 0;
	conn = find_conn(handle);
	if (!conn)
		return 0;
	switch (cookie_action(cookie)) {
	case TS_ACT_FREE:
		if (is_last_owner(cookie_target(cookie), handle))
			end_conn(conn, handle);
		break;
	case TS_ACT_CLEAR:
		if (conn->off[TS_OUT] || conn->off[TS_IN] || conn->announced)
			renew_conn(conn);
		break;
	case TS_ACT_SHUTDOWN:
		shut_conn(conn);
		break;
	case TS_ACT_REBIND:
		conn->rebind = 1;
		conn->fd_tries = 0;
		break;
	}
	return 0;
}

#endif
