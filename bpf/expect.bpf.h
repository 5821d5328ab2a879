/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Connections apart from their sockets whose hello was not seen: known by the lengths of records.
 *
 * What a thread writes to a connection, it sends at once; what it reads, it has just received. So
 * the next record must have the length of that plaintext and what TLS adds to it. */
#ifndef TLSSNIFF_EXPECT_H
#define TLSSNIFF_EXPECT_H

#include "apart.bpf.h"
#include "emit.bpf.h"
#include "thread.bpf.h"
#include "user.bpf.h"

#ifdef TS_OLD_KERNEL

static __always_inline void learn_apart(struct ts_conn *conn, const struct ts_layout *layout,
					struct frame *frame)
{
}

static __always_inline void data_moved(struct ts_conn *conn, const struct ts_layout *layout,
				       struct frame *frame)
{
}

#else

/* ContentType, RFC 8446, section 5.1 */
#define RECORD_DATA 23
#define TLS_1_3 0x0304
#define FULL_RECORD 16384
/* What AEAD ciphers add: content type and tag in TLS 1.3; before, the tag, and of AES-GCM and CCM
 * also the explicit nonce (RFC 8446, section 5.2; RFC 5288; RFC 7905). */
#define OVERHEAD_1_3 17
#define OVERHEAD_GCM 24
#define OVERHEAD_CHACHA 16
#define CBC_BLOCK 16

/* Later than this, what was to be sent went another way. */
#define EXPECTED_NS (50 * 1000 * 1000)
/* Receives of a thread that are looked at after each call for a connection without an address. */
#define WATCHED 32

/* A record that is not full tells one connection from another; full ones are all alike, so that two
 * have to agree. */
#define BELIEVED 2

/* With a MAC that is encrypted along with the data, or is put behind them (RFC 7366). */
static __always_inline bool fits_cbc(__u32 record, __u32 plain, __u32 mac)
{
	__u32 along = CBC_BLOCK + ((plain + mac + CBC_BLOCK) & -CBC_BLOCK);
	__u32 behind = CBC_BLOCK + ((plain + CBC_BLOCK) & -CBC_BLOCK) + mac;

	return record == along || record == behind;
}

/* Whether a record of this length may be the first of this plaintext; `version` 0: not known. A
 * global function: the verifier looks at its paths once, not once per use. */
__noinline int record_fits(__u32 record, __u64 len, __u32 version)
{
	__u32 plain = len < FULL_RECORD ? len : FULL_RECORD;

	if (version == TLS_1_3 || !version) {
		if (record == plain + OVERHEAD_1_3)
			return true;
		if (version)
			return false;
	}
	if (record == plain + OVERHEAD_GCM || record == plain + OVERHEAD_CHACHA)
		return true;
	return fits_cbc(record, plain, 20) || fits_cbc(record, plain, 32) ||
	       fits_cbc(record, plain, 48);
}

/* Whether what is known by now is enough to say that the socket carries the connection. */
static __always_inline bool believe(struct ts_conn *conn, __u64 inode, __u64 len, bool is_alone)
{
	__u8 weight = len < FULL_RECORD && is_alone ? BELIEVED : BELIEVED - 1;

	if (!inode || !may_carry(inode, conn->id))
		return false;
	if (conn->carrier == inode) {
		conn->evidence += weight;
	} else {
		/* Evidence for another socket makes even the best a mere beginning. */
		conn->evidence = conn->carrier ? BELIEVED - 1 : weight;
		conn->carrier = inode;
	}
	if (conn->evidence < BELIEVED)
		return false;
	carries(inode, conn->id);
	return true;
}

static __always_inline __u32 version_of(const struct ts_layout *layout, __u64 handle)
{
	__u64 field = chase(&layout->version, handle);
	__u32 version;

	/* BoringSSL has 16 bits of it. */
	return field && read_u32(field, &version) ? version & 0xffff : 0;
}

/* The thread has written `len` bytes to a connection without an address, at `at` (boot time): a
 * record of them will be sent. */
__noinline int expect_record(struct ts_conn *conn, __u64 handle, __u64 len, __u64 at, __u32 version)
{
	struct expected *free = NULL;
	struct thread *thread;
	__u32 i;

	if (!conn || conn->addr.transport)
		return 0;
	thread = this_thread();
	if (!thread || at < thread->expects_after)
		return 0;
	for (i = 0; i < MAX_EXPECTED; i++) {
		struct expected *expected = &thread->expected[i];

		if (!expected->conn || at - expected->at > EXPECTED_NS)
			free = expected;
		else if (expected->conn == conn->id)
			return 0;
	}
	/* Too many to keep them apart. */
	if (!free) {
		__builtin_memset(thread->expected, 0, sizeof(thread->expected));
		thread->expects = 0;
		thread->expects_after = at + EXPECTED_NS;
		return 0;
	}
	free->handle = handle;
	free->conn = conn->id;
	free->at = at;
	free->len = len < FULL_RECORD ? len : FULL_RECORD;
	free->version = version;
	thread->expects = 1;
	return 0;
}

/* Behind the number of the connection that was picked, from 1 on: no other is expected. */
#define PICKED_ALONE (1 << 8)

/* Of the connections that a record of this length may be of, the only one; 0: none, or several, of
 * which none is expected any more. A global function: the verifier looks at its loops once. */
__noinline int pick_expected(struct thread *thread, __u32 record)
{
	__u32 i, fit = 0, waiting = 0, picked = 0;
	__u64 now = bpf_ktime_get_boot_ns();

	if (!thread)
		return 0;
	for (i = 0; i < MAX_EXPECTED; i++) {
		struct expected *expected = &thread->expected[i];

		if (!expected->conn)
			continue;
		if (now - expected->at > EXPECTED_NS) {
			expected->conn = 0;
			continue;
		}
		waiting++;
		if (!record_fits(record, expected->len, expected->version))
			continue;
		fit++;
		picked = i + 1;
	}
	thread->expects = waiting > 0;
	if (fit <= 1)
		return picked | (waiting == 1 ? PICKED_ALONE : 0);
	for (i = 0; i < MAX_EXPECTED; i++) {
		struct expected *expected = &thread->expected[i];

		if (record_fits(record, expected->len, expected->version))
			expected->conn = 0;
	}
	return 0;
}

static __always_inline void emit_addr(const struct ts_conn *conn)
{
	struct ts_rec_addr *rec = bpf_ringbuf_reserve(&ring, sizeof(*rec), 0);

	if (!rec) {
		count(TS_CTR_DROPPED_NOTES, 1);
		return;
	}
	rec->type = TS_REC_ADDR;
	rec->pad = 0;
	rec->conn = conn->id;
	rec->addr = conn->addr;
	bpf_ringbuf_submit(rec, wakeup_flags());
}

/* The thread sends a record of this length through `sk`, and is in no call. */
static __always_inline void record_is_sent(struct thread *thread, struct sock *sk, __u32 record)
{
	struct ts_addr addr = {.source = TS_SRC_RECORD};
	int picked = pick_expected(thread, record);
	__u32 i = (picked & (PICKED_ALONE - 1)) - 1;
	struct expected *expected;
	struct ts_conn_key key;
	struct ts_conn *conn;

	if (i >= MAX_EXPECTED)
		return;
	expected = &thread->expected[i];
	key = conn_key(expected->handle);
	conn = bpf_map_lookup_elem(&conns, &key);
	if (conn && conn->id == expected->conn && !conn->addr.transport && sock_addr(sk, &addr) &&
	    believe(conn, sock_inode(sk), expected->len, picked & PICKED_ALONE)) {
		forget_hello(conn);
		conn->addr = addr;
		emit_addr(conn);
	}
	expected->conn = 0;
}

/* The thread has received a record of this length, and is in no call. */
static __always_inline void record_is_received(struct thread *thread, struct sock *sk, __u32 record)
{
	struct ts_addr addr = {.source = TS_SRC_RECORD};

	if (!sock_addr(sk, &addr))
		return;
	thread->received.inode = sock_inode(sk);
	thread->received.addr = addr;
	thread->received.len = record;
}

/* The call that is returning has read what the thread received last. */
static __always_inline bool was_received(struct ts_conn *conn, const struct ts_layout *layout,
					 struct frame *frame)
{
	struct thread *thread = this_thread();
	__u32 record;

	if (!thread)
		return false;
	thread->watched = WATCHED;
	record = thread->received.len;
	if (cookie_action(frame->cookie) != TS_ACT_READ || !frame->moved || !record)
		return false;
	thread->received.len = 0;
	if (!record_fits(record, frame->moved, version_of(layout, frame->handle)) ||
	    !believe(conn, thread->received.inode, frame->moved, true))
		return false;
	frame->addr = thread->received.addr;
	return true;
}

/* The call that is returning has used no socket. */
__noinline int learn_apart(struct ts_conn *conn, const struct ts_layout *layout,
			   struct frame *frame)
{
	if (!conn || !layout || !frame)
		return 0;
	conn->apart = 1;
	if (!hello_was_sent(conn, &frame->addr) && !was_received(conn, layout, frame))
		await_hello(conn, layout, frame->handle);
	return 0;
}

/* A call has written, and told of it. */
__noinline int data_left(struct ts_conn *conn, const struct ts_layout *layout,
			 const struct frame *frame)
{
	if (!conn || !layout || !frame)
		return 0;
	note_carried_hello(frame, frame->moved);
	if (!conn->addr.transport)
		expect_record(conn, frame->handle, frame->moved, frame->entered,
			      version_of(layout, frame->handle));
	return 0;
}

/* A call has moved data, and told of them. */
static __always_inline void data_moved(struct ts_conn *conn, const struct ts_layout *layout,
				       const struct frame *frame)
{
	if (cookie_dir(frame->cookie) == TS_OUT && frame->moved &&
	    (!conn->addr.transport || hellos_until))
		data_left(conn, layout, frame);
}

#endif

#endif
