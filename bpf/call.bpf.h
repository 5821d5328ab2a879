/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* A call in flight: enter(handle, buf, …) … exit(count); the shape every library maps to. */
#ifndef TLSSNIFF_CALL_H
#define TLSSNIFF_CALL_H

#include "conn.bpf.h"
#include "emit.bpf.h"
#include "gnutls.bpf.h"
#include "maps.bpf.h"
#include "old.bpf.h"
#include "user.bpf.h"

static __always_inline bool is_data(__u8 action)
{
	return action == TS_ACT_READ || action == TS_ACT_WRITE;
}

/* Frames at or below this stack pointer were left without a return (longjmp, an exception). */
static __always_inline void drop_stale(struct thread *thread, __u64 sp)
{
	int i;

	for (i = 0; i < MAX_DEPTH; i++) {
		__u32 top = thread->depth - 1;

		if (top >= MAX_DEPTH || frame_at(thread, top)->sp > sp)
			break;
		thread->depth = top;
	}
}

/* SSL_read_ex inside SSL_read: the outermost call of a handle and kind tells it all. */
static __always_inline bool is_nested(const struct thread *thread, __u64 handle, __u8 action)
{
	__u32 i;

	for (i = 0; i < MAX_DEPTH; i++) {
		if (i >= thread->depth)
			break;
		if (thread->frames[i].handle == handle &&
		    cookie_action(thread->frames[i].cookie) == action)
			return true;
	}
	return false;
}

/* Where among the thread's frames a call begins; negative: it need not be seen. A global function,
 * as all here that have several ways through them: the verifier goes each way once, and what
 * follows it checks once, not once for each way. */
__global int place_call(struct thread *thread, __u64 handle, __u64 sp, __u8 action)
{
	if (!thread)
		return -1;
	drop_stale(thread, sp);
	if (is_nested(thread, handle, action))
		return -1;
	if (thread->depth < MAX_DEPTH)
		return thread->depth;
	count(TS_CTR_MISSED_CALLS, 1);
	return -1;
}

/* The call below has handed a TLS record to this call for writing: it is carried by it. */
__global int note_tunnel(struct thread *thread, __u64 handle, __u64 buf)
{
	struct frame *frame;
	__u32 below;
	__u8 head[2];

	if (!thread)
		return 0;
	below = thread->depth - 1;
	if (below >= MAX_DEPTH)
		return 0;
	frame = frame_at(thread, below);
	if (!frame->want_addr || frame->handle == handle)
		return 0;
	if (!read_user(head, sizeof(head), buf))
		return 0;
	/* ContentType 20 … 23, legacy_record_version 3.x: RFC 8446, section 5.1 */
	if (head[0] < 20 || head[0] > 23 || head[1] != 3)
		return 0;
	frame->addr.transport = TS_TP_TLS;
	frame->addr.source = TS_SRC_SOCKET;
	frame->addr.via = handle;
	frame->want_addr = 0;
	return 0;
}

/* What bounds the count, or where it will be stored. All loads first: the verifier refuses one
 * through a pointer that was moved by a choice. */
static __always_inline __u64 count_argument(struct pt_regs *regs, __u8 where)
{
	__u64 arg2 = PT_REGS_PARM3(regs), arg3 = PT_REGS_PARM4(regs), arg4 = PT_REGS_PARM5(regs);

	barrier_var(arg2);
	barrier_var(arg3);
	barrier_var(arg4);
	if (where == TS_CNT_RETURN)
		return arg2;
	where &= TS_CNT_ARGUMENT;
	return where == 3 ? arg3 : where == 4 ? arg4 : where == 2 ? arg2 : 0;
}

/* Read data has the time of its return: a read that finds nothing does not pay for the clock. */
static __always_inline __u64 entry_time(__u8 action)
{
	return action == TS_ACT_READ ? 0 : bpf_ktime_get_boot_ns();
}

/* Where it is not seen that handles are given up, one may come back as another connection. Nothing
 * happens before its handshake, and on the same address it is the same one. */
static __always_inline void doubt_conn(struct ts_conn *conn, __u64 cookie)
{
	__u32 target = cookie_target(cookie);
	struct ts_layout *layout = bpf_map_lookup_elem(&layouts, &target);

	if (layout && layout->unfreed)
		conn->rebind = 1;
}

/* Returns 1 when the call's return need not be seen. */
static __always_inline int enter_call(struct pt_regs *regs, __u64 cookie, __u64 *slot)
{
	__u64 handle = PT_REGS_PARM1(regs), buf = PT_REGS_PARM2(regs), sp = PT_REGS_SP(regs);
	__u8 action = cookie_action(cookie);
	struct thread *thread;
	struct ts_conn *conn;
	struct frame *frame;
	int depth;

	barrier_var(buf);
	if (!handle || !is_traced() || is_muted())
		return 1;
	thread = current_thread();
	if (!thread)
		return 1;
	depth = place_call(thread, handle, sp, action);
	if (depth < 0)
		return 1;
	if (depth && action == TS_ACT_WRITE)
		note_tunnel(thread, handle, buf);
	frame = frame_at(thread, depth);
	frame->handle = handle;
	frame->buf = buf;
	frame->out = is_data(action) ? count_argument(regs, cookie_count(cookie)) : 0;
	frame->sp = sp;
	frame->entered = entry_time(action);
	frame->cookie = cookie;
	frame->addr.transport = TS_TP_UNKNOWN;
	conn = find_conn(handle);
	if (conn && action == TS_ACT_HANDSHAKE)
		doubt_conn(conn, cookie);
	frame->want_addr = !conn || !conn->addr.transport || conn->rebind;
	thread->depth = depth + 1;
	thread->called = 1;
	*slot = depth + 1;
	return 0;
}

/* Of all functions but those of the OpenSSL API. */
static __always_inline __u64 otherwise_moved(const struct frame *frame, s64 wide)
{
	int ret = wide;

	switch (count_kind(cookie_count(frame->cookie))) {
	case TS_CNT_SENDFILE:
	case TS_CNT_RETURN_WIDE:
	case TS_CNT_VECTOR:
		return wide > 0 ? wide : 0;
	case TS_CNT_RETURN_AHEAD:
		return gnutls_took(frame, wide);
	case TS_CNT_UNLESS_PEEK:
		return ret > 0 && !(frame->out & MSG_PEEK) ? ret : 0;
	case TS_CNT_WHOLE:
		return wide >= 0 ? frame->out : 0;
	case TS_CNT_SHORT_VECTOR:
		return ret > 0 ? ret : 0;
	}
	return 0;
}

/* Bytes that the call which returns `value` has moved, 0 when it has not. */
__global __u64 moved_bytes(const struct frame *frame, __u64 value)
{
	int ret = value;
	__u8 where;
	__u64 n;

	if (!frame)
		return 0;
	where = cookie_count(frame->cookie);
	if (count_kind(where) != TS_CNT_RETURN)
		return otherwise_moved(frame, value);
	if (ret <= 0)
		return 0;
	if (where == TS_CNT_RETURN)
		return ret;
	return read_u64(frame->out, &n) ? n : 0;
}

/* Early data, or a handshake that nobody asked for by name, lets data go out before ALPN is
 * settled; by the time that data has come in, it is. */
static __always_inline bool may_know_more(const struct ts_conn *conn, __u8 dir)
{
	return dir == TS_IN && !conn->off[TS_IN] && !conn->has_alpn;
}

static __always_inline bool is_in_pieces(const struct frame *frame)
{
	__u8 kind = count_kind(cookie_count(frame->cookie));

	return kind == TS_CNT_VECTOR || kind == TS_CNT_SHORT_VECTOR;
}

/* `len` bytes have moved: says who the connection is where that is news, and hands them over. */
static __always_inline void tell_data(struct ts_conn *conn, struct frame *frame, __u64 len,
				      const struct ts_layout *layout, bool in_pieces)
{
	__u8 dir = cookie_dir(frame->cookie);
	__u64 off, ts;

	if (may_know_more(conn, dir))
		conn->announced = 0;
	if (!conn->announced)
		announce_conn(conn, frame, layout);
	/* A request must not be later than its response, which another thread may be waiting for.
	 */
	ts = dir == TS_OUT ? frame->entered : bpf_ktime_get_boot_ns();
	if (!advance(conn, dir, len, &off))
		return;
	if (in_pieces)
		emit_vector(frame, conn->id, len, off, ts);
	else
		emit_data(frame, conn->id, len, off, ts);
}

/* A function that was found without a symbol may be another one. Then it will return, soon, more
 * than it was asked for; its target is silent from then on. */
static __always_inline bool is_wrong(const struct frame *frame, __u64 len, struct ts_layout *layout)
{
	if (!layout->unproved)
		return false;
	if (cookie_count(frame->cookie) == TS_CNT_RETURN && (s64)len > (int)frame->out) {
		layout->wrong = 1;
		count(TS_CTR_WRONG_CALLS, 1);
	}
	return layout->wrong;
}

/* NSS reads and writes by the same functions before a program begins TLS on the descriptor. */
static __always_inline bool is_plain(const struct ts_layout *layout, __u64 handle)
{
	__u64 field;
	__u8 bits;

	field = chase(&layout->secured, handle);
	return field && read_user(&bits, sizeof(bits), field) && !(bits & layout->secured_bit);
}

static __always_inline void data_returned(struct pt_regs *regs, struct frame *frame,
					  struct ts_layout *layout)
{
	__u64 len = moved_bytes(frame, PT_REGS_RC(regs));
	struct ts_conn *conn;

	if (!len && !frame->addr.transport && !may_have_hello(frame, layout))
		return;
	if (is_wrong(frame, len, layout))
		return;
	if (layout->secured.len && is_plain(layout, frame->handle))
		return;
	conn = find_or_make_conn(frame);
	if (!conn)
		return;
	frame->moved = len < MOST_MOVED ? len : MOST_MOVED;
	if (!conn->addr.transport || conn->rebind)
		bind_conn(conn, frame, layout);
	if (count_kind(cookie_count(frame->cookie)) == TS_CNT_RETURN_AHEAD)
		len = gnutls_untold(conn, frame, len, PT_REGS_RC(regs));
	if (len)
		tell_data(conn, frame, len, layout, is_in_pieces(frame));
	data_moved(conn, layout, frame);
}

static __always_inline void handshake_returned(struct pt_regs *regs, struct frame *frame,
					       const struct ts_layout *layout)
{
	struct ts_conn *conn = find_or_make_conn(frame);
	__u8 detail = cookie_count(frame->cookie), role = detail & ~TS_HS_ZERO;

	if (!conn)
		return;
	if (role)
		conn->role = role;
	if (!conn->off[TS_OUT] && !conn->off[TS_IN])
		conn->begun = 1;
	bind_conn(conn, frame, layout);
	if ((int)PT_REGS_RC(regs) != !(detail & TS_HS_ZERO))
		return;
	if (!conn->settled)
		conn->announced = 0;
	announce_conn(conn, frame, layout);
	conn->settled = conn->announced;
}

/* Bytes by which the stack pointer is higher after a return than at the function's entry. */
#if defined(__TARGET_ARCH_x86)
#define RETURN_POPS 8
#else
#define RETURN_POPS 0
#endif

/* The slot of the call that is returning, 0: its beginning was not worth one. */
static __always_inline __u64 returning_slot(struct pt_regs *regs, __u64 cookie)
{
	__u64 sp = PT_REGS_SP(regs) - RETURN_POPS;
	struct thread *thread = this_thread();
	__u32 i;

	if (!thread)
		return 0;
	for (i = 0; i < MAX_DEPTH; i++) {
		if (i >= thread->depth)
			break;
		if (thread->frames[i].sp == sp && thread->frames[i].cookie == cookie)
			return i + 1;
	}
	return 0;
}

static __always_inline int exit_call(struct pt_regs *regs, __u64 slot)
{
	struct thread *thread;
	struct ts_layout *layout;
	struct frame *frame;
	__u32 i = slot - 1, target;

	thread = this_thread();
	/* The begun call has gone with the spare that held it. */
	if (!thread && slot)
		count(TS_CTR_MISSED_CALLS, 1);
	if (!thread || i >= MAX_DEPTH || i >= thread->depth)
		return 0;
	frame = frame_at(thread, i);
	target = cookie_target(frame->cookie);
	layout = bpf_map_lookup_elem(&layouts, &target);
	if (layout) {
		if (cookie_action(frame->cookie) == TS_ACT_HANDSHAKE)
			handshake_returned(regs, frame, layout);
		else
			data_returned(regs, frame, layout);
	}
	thread->depth = i;
	if (!i)
		forget_thread();
	return 0;
}

#endif
