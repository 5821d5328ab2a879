/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* rustls: plaintext on its way into a connection's buffers, and out of its records. */
#ifndef TLSSNIFF_RUSTLS_H
#define TLSSNIFF_RUSTLS_H

#include "call.bpf.h"
#include "openssl.bpf.h"

/* Plaintext of a record at most: RFC 8446, section 5.1. */
#define MAX_RECORD 16384
/* Below are no addresses: what an empty Box points to is its alignment. */
#define LOWEST_ADDRESS 4096
/* The capacity of a vector is less; this one says that the bytes are borrowed. */
#define BORROWED (1ULL << 63)

/* The connection goes by another key from now on, which user space has to know too. */
__noinline int rename_conn(__u64 from, __u64 to)
{
	struct ts_conn_key old = conn_key(from), new = conn_key(to);
	struct ts_conn *conn = bpf_map_lookup_elem(&conns, &old);

	if (!conn || from == to)
		return 0;
	conn->announced = 0;
	bpf_map_update_elem(&conns, &new, conn, BPF_ANY);
	bpf_map_delete_elem(&conns, &old);
	return 0;
}

/* 0: none yet. */
static __always_inline __u64 encrypter_of(const struct ts_layout *layout, __u64 state)
{
	__u64 field = chase(&layout->encrypter, state), encrypter;

	if (!field || !read_u64(field, &encrypter) || encrypter < LOWEST_ADDRESS)
		return 0;
	return encrypter;
}

/* Whether the handshake is done; true where that is not known. */
static __always_inline bool may_send(const struct ts_layout *layout, __u64 state)
{
	__u64 field = chase(&layout->sends, state);
	__u8 sends;

	return !field || !read_user(&sends, sizeof(sends), field) || sends;
}

/* What the connection goes by. Programs move it about in memory, but not its encrypter, which lives
 * as long as its keys: with new ones, which are rare, it is taken for another connection. Those of
 * the handshake end with it. */
__noinline __u64 rustls_handle(const struct ts_layout *layout, __u64 state)
{
	__u64 encrypter;

	if (!layout || !may_send(layout, state))
		return state;
	encrypter = encrypter_of(layout, state);
	if (!encrypter)
		return state;
	/* Data that was written before the handshake was done. */
	if (layout->sends.len && !find_conn(encrypter))
		rename_conn(state, encrypter);
	return encrypter;
}

/* A connection begins. What was where its encrypter is now has ended. */
static __always_inline void rustls_starts(const struct ts_layout *layout, __u64 state)
{
	__u64 encrypter;
	struct ts_conn *conn;

	/* A server says it a second time when the client's last word has come. */
	if (!layout->sends.len || may_send(layout, state))
		return;
	encrypter = encrypter_of(layout, state);
	if (!encrypter)
		return;
	conn = find_conn(encrypter);
	if (conn)
		end_conn(conn, encrypter);
	note_begun(encrypter);
	rename_conn(state, encrypter);
}

static __always_inline void rustls_drops(const struct ts_layout *layout, __u64 state)
{
	__u64 handle = may_send(layout, state) ? encrypter_of(layout, state) : 0;
	struct ts_conn *conn;

	handle = handle ?: state;
	conn = find_conn(handle);
	if (conn)
		end_conn(conn, handle);
}

/* What is there is not what the function gets. One that was found without a symbol may be another
 * function: its target is silent from then on. */
static __always_inline void is_amiss(struct ts_layout *layout)
{
	if (!layout || !layout->unproved) {
		count(TS_CTR_MISSED_CALLS, 1);
		return;
	}
	layout->wrong = 1;
	count(TS_CTR_WRONG_CALLS, 1);
}

/* `OutboundChunks`: where its first word is zero, a slice follows; else the word is the address of
 * slices, then come their number, and where in them the bytes begin and end. */
static __always_inline bool read_chunks(__u64 at, struct frame *frame)
{
	__u64 words[4];

	if (!read_user(words, sizeof(words), at))
		return false;
	frame->buf = words[1];
	frame->given = words[2];
	if (!words[0])
		return true;
	if (words[2] > words[3])
		return false;
	frame->in_pieces = 1;
	frame->buf = words[0];
	frame->out = words[2];
	frame->given = words[3] - words[2];
	return true;
}

/* `Payload`: the capacity of a vector, or that it is none; then address and length. */
static __always_inline bool read_payload(__u64 at, struct frame *frame)
{
	__u64 words[3];

	if (!read_user(words, sizeof(words), at))
		return false;
	frame->buf = words[1];
	frame->given = words[2];
	return words[2] <= MAX_RECORD && (words[0] == BORROWED || words[0] >= words[2]);
}

/* `Message`: a word that says of which kind it is, which holds data when it is the one for that,
 * and then has a `Payload` behind it. */
static __always_inline bool read_message(__u64 at, struct frame *frame,
					 const struct ts_layout *layout)
{
	__u64 kind;

	frame->given = 0;
	if (!layout || !read_u64(at, &kind))
		return false;
	return kind != BORROWED + layout->app_data || read_payload(at + sizeof(kind), frame);
}

static __always_inline bool read_bytes(struct pt_regs *regs, struct frame *frame)
{
	__u64 at = PT_REGS_PARM2(regs), len = PT_REGS_PARM3(regs);

	frame->in_pieces = 0;
	switch (cookie_count(frame->cookie)) {
	case TS_RUSTLS_CHUNKS:
		return read_chunks(at, frame);
	case TS_RUSTLS_PAYLOAD:
		return read_payload(at, frame);
	default:
		frame->buf = at;
		frame->given = len;
		return true;
	}
}

static __always_inline struct ts_layout *cookie_layout(__u64 cookie)
{
	__u32 target = cookie_target(cookie);

	return bpf_map_lookup_elem(&layouts, &target);
}

/* `len` bytes of what the frame tells of have moved. */
static __always_inline void rustls_moved(struct frame *frame, const struct ts_layout *layout,
					 __u64 len, bool in_pieces)
{
	__u64 state = frame->handle;
	struct ts_conn *conn;

	frame->moved = 0;
	frame->handle = rustls_handle(layout, state);
	conn = find_or_make_conn(frame);
	if (!conn)
		return;
	/* What waits for the end of the handshake is not sent at once. */
	if (!conn->addr.transport && may_send(layout, state)) {
		frame->moved = len < MOST_MOVED ? len : MOST_MOVED;
		/* What it has received is known of a thread that has state. */
		current_thread();
	}
	bind_conn(conn, frame, layout);
	if (in_pieces)
		frame->cookie |= (__u64)TS_CNT_VECTOR << 8;
	tell_data(conn, frame, len, layout, in_pieces);
	data_moved(conn, layout, frame);
}

/* Returns 1 when the call's return need not be seen. */
static __always_inline int rustls_enter(struct pt_regs *regs, __u64 cookie, __u64 *slot)
{
	__u64 sp = PT_REGS_SP(regs);
	struct thread *thread;
	struct frame *frame;
	__u32 depth;

	if (!is_traced() || is_muted())
		return 1;
	thread = current_thread();
	if (!thread)
		return 1;
	drop_stale(thread, sp);
	depth = thread->depth;
	if (depth >= MAX_DEPTH) {
		count(TS_CTR_MISSED_CALLS, 1);
		return 1;
	}
	frame = frame_at(thread, depth);
	frame->cookie = cookie;
	frame->out = 0;
	frame->goid = 0;
	if (!read_bytes(regs, frame)) {
		is_amiss(cookie_layout(cookie));
		return 1;
	}
	if (!frame->given)
		return 1;
	frame->handle = PT_REGS_PARM1(regs);
	frame->sp = sp;
	frame->entered = entry_time(TS_ACT_WRITE);
	frame->addr.transport = TS_TP_UNKNOWN;
	frame->want_addr = 0;
	thread->depth = depth + 1;
	*slot = depth + 1;
	return 0;
}

static __always_inline int rustls_exit(struct pt_regs *regs, __u64 slot)
{
	__u64 taken = PT_REGS_RC(regs);
	struct thread *thread;
	struct ts_layout *layout;
	struct frame *frame;
	__u32 i = slot - 1;

	thread = this_thread();
	if (!thread || i >= MAX_DEPTH || i >= thread->depth)
		return 0;
	frame = frame_at(thread, i);
	layout = cookie_layout(frame->cookie);
	/* No function takes more than it is given: that would be another one. */
	if (taken > frame->given)
		is_amiss(layout);
	else if (taken && layout && !layout->wrong)
		rustls_moved(frame, layout, taken, frame->in_pieces);
	thread->depth = i;
	if (!i)
		forget_thread();
	return 0;
}

SEC("uprobe.session.s")
int rustls_write(struct pt_regs *regs)
{
	__u64 *slot = session_cookie(regs);

	stay_on_kernel_stack(regs);
	if (session_is_return(regs))
		return rustls_exit(regs, *slot);
	return rustls_enter(regs, probe_cookie(regs), slot);
}

/* Without sessions: the beginning and the return are two probes. */
SEC("uprobe")
int rustls_write_enters(struct pt_regs *regs)
{
	__u64 slot;

	stay_on_kernel_stack(regs);
	rustls_enter(regs, probe_cookie(regs), &slot);
	return 0;
}

SEC("uprobe")
int rustls_write_returns(struct pt_regs *regs)
{
	stay_on_kernel_stack(regs);
	return rustls_exit(regs, returning_slot(regs, probe_cookie(regs)));
}

static __always_inline void rustls_reads(struct pt_regs *regs, __u64 cookie,
					 struct ts_layout *layout)
{
	struct frame frame = {.cookie = cookie, .handle = PT_REGS_PARM1(regs)};
	__u64 context = PT_REGS_PARM3(regs), message = PT_REGS_PARM4(regs);
	bool is_read;

	if (is_muted() || layout->wrong)
		return;
	/* `handle(self, context, message)`, before which is where the result goes. */
	if (cookie_count(cookie) == TS_RUSTLS_MESSAGE)
		is_read = read_message(message, &frame, layout) && read_u64(context, &frame.handle);
	else
		is_read = read_bytes(regs, &frame);
	if (!is_read)
		is_amiss(layout);
	else if (frame.given)
		rustls_moved(&frame, layout, frame.given, false);
}

SEC("uprobe")
int rustls_event(struct pt_regs *regs)
{
	__u64 cookie = probe_cookie(regs), state = PT_REGS_PARM1(regs);
	struct ts_layout *layout;

	stay_on_kernel_stack(regs);
	if (!is_traced())
		return 0;
	layout = cookie_layout(cookie);
	if (!layout)
		return 0;
	switch (cookie_action(cookie)) {
	case TS_ACT_READ:
		rustls_reads(regs, cookie, layout);
		break;
	case TS_ACT_CLEAR:
		rustls_starts(layout, state);
		break;
	case TS_ACT_FREE:
		rustls_drops(layout, state);
		break;
	}
	return 0;
}

#endif
