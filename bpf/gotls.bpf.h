/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Go's crypto/tls: calls of goroutines, which change threads and whose stacks move. */
#ifndef TLSSNIFF_GOTLS_H
#define TLSSNIFF_GOTLS_H

#include "call.bpf.h"

/* Where things are in Go's structures, the same in 1.13 to 1.27 (src/runtime/runtime2.go,
 * src/crypto/tls/conn.go, src/net/net.go, src/net/fd_posix.go, src/internal/poll/fd_unix.go). */
#define TLS_CONN_DATA 8 /* of the interface `conn` */
#define TLS_CONN_IS_CLIENT 16
/* bytes.Reader: a slice, and how much of it was read. */
#define READER_LEN 8
#define READER_AT 24
#define NET_FD_SYSFD 16
#define NET_FD_FAMILY 0x38
#define NET_FD_SOTYPE 0x40

#define MAX_FD (1 << 20)
/* Longest read of which all is compared; a record of TLS has a quarter of it. */
#define MAX_COMPARED (64 << 10)
#if defined(__TARGET_ARCH_x86)
#define FLAG_CF 1
#define FLAG_ZF 0x40
#define GO_G(regs) ((regs)->r14)
#define GO_ARG0(regs) ((regs)->ax)
#define GO_ARG1(regs) ((regs)->bx)
#define GO_RESULT(regs) ((regs)->ax)
/* Of `jbe`. */
#define GO_IS_BELOW_EQUAL(regs) ((regs)->flags & (FLAG_CF | FLAG_ZF))
#elif defined(__TARGET_ARCH_arm64)
#define PSTATE_C (1 << 29)
#define PSTATE_Z (1 << 30)
#define GO_G(regs) ((regs)->user_regs.regs[28])
#define GO_ARG0(regs) ((regs)->user_regs.regs[0])
#define GO_ARG1(regs) ((regs)->user_regs.regs[1])
#define GO_RESULT(regs) ((regs)->user_regs.regs[0])
/* Of `b.ls`. */
#define GO_IS_BELOW_EQUAL(regs) (((regs)->user_regs.pstate & (PSTATE_C | PSTATE_Z)) != PSTATE_C)
#endif

/* A frame of a goroutine's stack, which keeps its distance from the stack's upper end when it is
 * moved. */
struct go_call_key {
	__u64 g;
	__u64 from_hi;
	__u32 tgid;
	__u32 pad;
};

struct go_bounds {
	__u64 lo;
	__u64 hi;
};

struct go_call {
	__u64 conn;
	__u64 buf;
	struct go_bounds stack;
	__u64 entered;
	__u64 cookie;
};

/* A panic leaves its calls behind; the oldest go first. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct go_call_key);
	__type(value, struct go_call);
} go_calls SEC(".maps");

/* Before 1.17 (on arm64 1.18) all arguments were on the stack, and on x86 g was in thread-local
 * storage. */
static __always_inline bool is_abi0(__u64 cookie)
{
	return cookie_count(cookie) == TS_GO_ABI0;
}

static __always_inline __u64 current_g(struct pt_regs *regs, __u64 cookie)
{
	__u64 g = GO_G(regs);
#if defined(__TARGET_ARCH_x86)
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 target = cookie_target(cookie);
	struct ts_layout *layout;

	if (!is_abi0(cookie))
		return g;
	layout = bpf_map_lookup_elem(&layouts, &target);
	if (!layout || !read_u64(BPF_CORE_READ(task, thread.fsbase) + layout->g_tls, &g))
		return 0;
#endif
	return g;
}

/* `runtime.g` begins with them. */
static __always_inline bool go_stack(__u64 g, struct go_bounds *stack)
{
	return g && read_user(stack, sizeof(*stack), g);
}

/* Its upper end alone, where a word of stack less matters: Linux 6.1 lets go_returns with all that
 * it calls have no more than what clang 16 makes of it. */
static __always_inline bool go_stack_hi(__u64 g, __u64 *hi)
{
	return g && read_u64(g + offsetof(struct go_bounds, hi), hi);
}

static __always_inline bool go_arguments(struct pt_regs *regs, struct go_call *call)
{
	__u64 sp = PT_REGS_SP(regs);

	call->conn = GO_ARG0(regs);
	call->buf = GO_ARG1(regs);
	if (!is_abi0(call->cookie))
		return true;
	return read_u64(sp + 8, &call->conn) && read_u64(sp + 16, &call->buf);
}

static __always_inline s64 go_result(struct pt_regs *regs, __u64 cookie)
{
	s64 n = GO_RESULT(regs);

	if (is_abi0(cookie) && !read_u64(PT_REGS_SP(regs) + 40, (__u64 *)&n))
		return 0;
	return n;
}

/* Memory of a *tls.Conn may be used again without a Close. A handshake begins a new connection,
 * unless it has a version already: then it is a renegotiation. */
static __always_inline bool is_renegotiation(__u32 target, __u64 handle)
{
	struct ts_layout *layout = bpf_map_lookup_elem(&layouts, &target);
	__u64 field;
	__u32 version;

	if (!layout)
		return false;
	field = chase(&layout->version, handle);
	return field && read_u32(field, &version) && (__u16)version;
}

static __always_inline void go_conn_event(const struct go_call *call)
{
	struct ts_conn *conn = find_conn(call->conn);

	if (cookie_action(call->cookie) == TS_ACT_CLEAR) {
		if (is_renegotiation(cookie_target(call->cookie), call->conn))
			return;
		note_begun(call->conn);
	}
	if (!conn)
		return;
	switch (cookie_action(call->cookie)) {
	case TS_ACT_CLEAR:
	case TS_ACT_FREE:
		end_conn(conn, call->conn);
		break;
	case TS_ACT_SHUTDOWN:
		shut_conn(conn);
		break;
	}
}

SEC("uprobe")
int go_enters(struct pt_regs *regs)
{
	struct go_call call = {.cookie = probe_cookie(regs)};
	struct go_call_key key = {.tgid = current_tgid()};
	__u8 action = cookie_action(call.cookie);

	stay_on_kernel_stack(regs);
	/* The probe sits on the branch to runtime.morestack. It will be taken: the stack grows, and
	 * the call begins anew. */
	if (GO_IS_BELOW_EQUAL(regs))
		return 0;
	if (!is_traced() || is_muted())
		return 0;
	key.g = current_g(regs, call.cookie);
	if (!go_arguments(regs, &call) || !go_stack(key.g, &call.stack)) {
		count(TS_CTR_MISSED_CALLS, 1);
		return 0;
	}
	if (!is_data(action)) {
		go_conn_event(&call);
		return 0;
	}
	key.from_hi = call.stack.hi - PT_REGS_SP(regs);
	call.entered = entry_time(action);
	if (bpf_map_update_elem(&go_calls, &key, &call, BPF_ANY))
		count(TS_CTR_MISSED_CALLS, 1);
	return 0;
}

/* The net.Conn that a *net.TCPConn or *net.UnixConn at `data` stands for. What looks like a netFD
 * is checked against the kernel's socket of that descriptor. */
static __always_inline bool go_socket(__u64 data, struct ts_addr *addr)
{
	__u64 net_fd, fd, family, sotype;

	if (!read_u64(data, &net_fd) || !read_u64(net_fd + NET_FD_SYSFD, &fd) ||
	    !read_u64(net_fd + NET_FD_FAMILY, &family) ||
	    !read_u64(net_fd + NET_FD_SOTYPE, &sotype))
		return false;
	if (fd >= MAX_FD || sotype != SOCK_STREAM ||
	    (family != AF_INET && family != AF_INET6 && family != AF_UNIX))
		return false;
	return fd_addr(fd, addr) && addr->family == family &&
	       (addr->transport == TS_TP_TCP || addr->transport == TS_TP_UNIX);
}

static __always_inline bool go_tunnel(__u64 data, struct ts_addr *addr)
{
	struct ts_conn *outer = find_conn(data);

	if (!outer)
		return false;
	addr->transport = TS_TP_TLS;
	addr->source = TS_SRC_FD;
	addr->via = outer->id;
	return true;
}

static __always_inline void go_add(struct go_walk *walk, __u64 field)
{
	__u64 conn, at = walk->count;

	if (at >= MAX_WRAPPERS || !read_u64(field, &conn) || !conn)
		return;
	barrier_var(at);
	walk->conns[at & (MAX_WRAPPERS - 1)] = conn;
	walk->count++;
}

static __always_inline int visit(struct go_walk *walk, __u32 i, struct ts_addr *addr)
{
	__u64 at;

	if (i >= walk->count)
		return 0;
	barrier_var(i);
	at = walk->conns[i & (MAX_WRAPPERS - 1)];
	/* What is freed without a Close may be the memory of a socket by now. */
	if (go_socket(at, addr) || go_tunnel(at, addr))
		return 1;
	go_add(walk, at + 8);
	go_add(walk, at + 16);
	return 0;
}

/* Looks at the next of them; 1 when that is known. A global function: the verifier looks at it
 * once, not once per turn. */
#ifdef TS_OLD_KERNEL
__noinline int visit_on_return(__u32 i)
{
	struct frame *frame = returning_frame();
	struct thread *thread = this_thread();

	return frame && thread ? visit(&thread->walk, i, &frame->addr) : 0;
}

static __always_inline int go_visit(struct go_walk *walk, __u32 i, struct ts_addr *addr)
{
	return visit_on_return(i);
}
#else
__noinline int go_visit(struct go_walk *walk, __u32 i, struct ts_addr *addr)
{
	return walk && addr ? visit(walk, i, addr) : 0;
}
#endif

/* Follows conns that hold another one, as their first or second field, to one that is known: all
 * that may be one, level by level, since an interface looks like any two words. */
static __always_inline int follow_conns(struct go_walk *walk, __u64 data, struct ts_addr *addr)
{
	__u32 i;
	int found = 0;

	walk->conns[0] = data;
	walk->count = 1;
	/* Unrolled, for which it needs a single way out: before Linux 6.6 the verifier takes a loop
	 * only where its last instruction jumps to its first. */
#pragma clang loop unroll(full)
	for (i = 0; i < MAX_WRAPPERS; i++)
		found = found ?: go_visit(walk, i, addr);
	return found;
}

#ifdef TS_OLD_KERNEL
static __always_inline int go_addr(__u64 data, struct ts_addr *addr)
{
	struct frame *frame = returning_frame();
	struct thread *thread = this_thread();

	if (!frame || !thread || !follow_conns(&thread->walk, data, &frame->addr))
		return 0;
	*addr = frame->addr;
	return 1;
}
#else
__noinline int go_addr(__u64 data, struct ts_addr *addr)
{
	struct go_walk walk = {};

	return addr ? follow_conns(&walk, data, addr) : 0;
}
#endif

static __always_inline struct ts_conn *go_conn(const struct frame *frame)
{
	struct ts_conn *conn = find_or_make_conn(frame);
	struct ts_addr addr = {};
	__u32 is_client;
	__u64 data;

	if (!conn)
		return NULL;
	if (!conn->role && read_u32(frame->handle + TLS_CONN_IS_CLIENT, &is_client))
		conn->role = is_client & 1 ? TS_ROLE_CLIENT : TS_ROLE_SERVER;
	if (conn->addr.transport || conn->fd_tries >= FD_TRIES)
		return conn;
	conn->fd_tries++;
	if (read_u64(frame->handle + TLS_CONN_DATA, &data) && go_addr(data, &addr)) {
		conn->addr = addr;
		conn->announced = 0;
	}
	return conn;
}

struct comparison {
	__u64 one;
	__u64 other;
	__u64 len;
	bool differs;
};

static long compare_word(__u64 index, struct comparison *both)
{
	__u64 at = index * 8, left = both->len - at, a, b;

	both->differs = true;
	if (!read_u64(both->one + at, &a) || !read_u64(both->other + at, &b))
		return 1;
	a ^= b;
	if (left < 8)
		a <<= 64 - 8 * left;
	both->differs = a;
	return both->differs;
}

/* A Read that began before the capture. Its arguments stand above the return address, at `entry`,
 * as the planner has proven, and move with the stack. But once Read has copied, the runtime may
 * take its buffer for unused, and does not tell it when that is on a stack which moves. So what
 * Read has copied from must show the same bytes. */
static __noinline bool go_began_before(__u64 cookie, __u64 entry, __u64 n,
				       const struct ts_layout *layout, struct frame *frame)
{
	struct comparison both = {.len = n};
	__u64 reader, from, len, at;

	if (!has_loop() || cookie_action(cookie) != TS_ACT_READ || !layout->input ||
	    n > MAX_COMPARED || !read_u64(entry + 8, &frame->handle) ||
	    !read_u64(entry + 16, &frame->buf))
		return false;
	reader = frame->handle + layout->input;
	if (!read_u64(reader, &from) || !read_u64(reader + READER_LEN, &len) ||
	    !read_u64(reader + READER_AT, &at) || at < n || at > len)
		return false;
	frame->entered = bpf_ktime_get_boot_ns();
	frame->cookie = cookie;
	both.one = from + at - n;
	both.other = frame->buf;
	bpf_loop((n + 7) / 8, compare_word, &both, 0);
	return !both.differs;
}

/* `frame` is that of a call which returns `n`. */
static __always_inline void go_tell(struct frame *frame, s64 n, const struct ts_layout *layout)
{
	struct ts_conn *conn = go_conn(frame);

	if (conn)
		tell_data(conn, frame, n, layout, false);
}

#ifdef TS_OLD_KERNEL

/* Goes on where the program of a return ends: that is loaded for each probe, so it is short. */
SEC("uprobe")
int go_finishes(struct pt_regs *regs)
{
	struct frame *frame = returning_frame();
	struct thread *thread = this_thread();
	struct ts_layout *layout;

	stay_on_kernel_stack(regs);
	if (!frame || !thread)
		return 0;
	layout = layout_of(frame);
	if (layout)
		go_tell(frame, thread->len, layout);
	if (!thread->depth)
		forget_thread();
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, int(struct pt_regs *));
} go_rest SEC(".maps") = {.values = {(void *)go_finishes}};

static __always_inline void go_on(struct pt_regs *regs, const struct frame *frame, s64 n,
				  const struct ts_layout *layout)
{
	struct thread *thread = current_thread();

	if (!thread)
		return;
	/* Above those of C, into which this thread has not returned. */
	thread->returning = thread->depth;
	if (thread->returning >= MAX_DEPTH) {
		count(TS_CTR_MISSED_CALLS, 1);
		return;
	}
	*frame_at(thread, thread->returning) = *frame;
	thread->len = n;
	bpf_tail_call(regs, &go_rest, 0);
}

#else

static __always_inline void go_on(struct pt_regs *regs, struct frame *frame, s64 n,
				  const struct ts_layout *layout)
{
	go_tell(frame, n, layout);
}

#endif

/* A call that began with the stack pointer at `entry` returns `n`. */
static __always_inline void go_finish(struct pt_regs *regs, struct go_call_key *key, __u64 stack_hi,
				      __u64 cookie, __u64 entry, s64 n)
{
	__u32 target = cookie_target(cookie);
	struct frame frame = {};
	struct ts_layout *layout;
	struct go_call *then;

	key->from_hi = stack_hi - entry;
	layout = bpf_map_lookup_elem(&layouts, &target);
	then = bpf_map_lookup_elem(&go_calls, key);
	/* One that a panic left behind at the same place may be of another function. */
	if (then && cookie_func(then->cookie) == cookie_func(cookie) &&
	    cookie_target(then->cookie) == target) {
		frame.handle = then->conn;
		frame.buf = then->buf;
		frame.entered = then->entered;
		frame.cookie = then->cookie;
		/* The buffer has moved with the stack. */
		if (frame.buf >= then->stack.lo && frame.buf < then->stack.hi)
			frame.buf += stack_hi - then->stack.hi;
		bpf_map_delete_elem(&go_calls, key);
		if (n <= 0 || !layout)
			return;
	} else if (n <= 0 || !layout || is_muted() ||
		   !go_began_before(cookie, entry, n, layout, &frame)) {
		return;
	}
	if (layout->goid)
		read_u64(key->g + layout->goid, &frame.goid);
	go_on(regs, &frame, n, layout);
}

/* In a function that a call has deferred, and that is the last to run before the call's return:
 * where the call began, and its result. */
static __always_inline bool go_deferred(struct pt_regs *regs, __u64 cookie, __u64 *entry, s64 *n)
{
	__u64 sp = PT_REGS_SP(regs), caller;
	__u32 target = cookie_target(cookie);
	const struct ts_go_defer *at;
	struct ts_layout *layout;

	layout = bpf_map_lookup_elem(&layouts, &target);
	if (!layout)
		return false;
	at = &layout->go_defer[cookie_dir(cookie) & 1];
	/* In a panic it is the runtime that calls. */
	if (!read_u64(sp + at->to_return, &caller) ||
	    caller - (PT_REGS_IP(regs) + at->caller) >= at->caller_size)
		return false;
	*entry = sp + at->to_entry;
	return read_u64(sp + at->to_result, (__u64 *)n);
}

SEC("uprobe")
int go_returns(struct pt_regs *regs)
{
	__u64 cookie = probe_cookie(regs), entry = PT_REGS_SP(regs);
	struct go_call_key key = {.tgid = current_tgid()};
	__u64 stack_hi;
	s64 n;

	stay_on_kernel_stack(regs);
	if (!is_traced())
		return 0;
	if (cookie_count(cookie) != TS_GO_DEFERRED)
		n = go_result(regs, cookie);
	else if (!go_deferred(regs, cookie, &entry, &n))
		return 0;
	key.g = current_g(regs, cookie);
	if (go_stack_hi(key.g, &stack_hi))
		go_finish(regs, &key, stack_hi, cookie, entry, n);
	return 0;
}

#endif
