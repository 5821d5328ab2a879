/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Connections whose TLS and socket are apart (memory BIOs): known again by what is sent. */
#ifndef TLSSNIFF_APART_H
#define TLSSNIFF_APART_H

#include "maps.bpf.h"
#include "sock.bpf.h"
#include "thread.bpf.h"
#include "user.bpf.h"

static __always_inline __u8 role_of(const struct ts_layout *layout, __u32 server)
{
	if (server == 1)
		return TS_ROLE_SERVER;
	return server == layout->client ? TS_ROLE_CLIENT : TS_ROLE_UNKNOWN;
}

/* Until then (boot time) sends are looked at; 0: not. User space resets what has passed. */
__u64 hellos_until = 0;

/* Not on kernels before 5.15: there is no way to the bytes that are sent (bpf_task_pt_regs). */
#ifdef TS_OLD_KERNEL

static __always_inline void forget_hello(struct ts_conn *conn)
{
}

static __always_inline void forget_apart(struct ts_conn *conn)
{
}

static __always_inline bool may_have_hello(const struct frame *frame,
					   const struct ts_layout *layout)
{
	return false;
}

#else

/* A server has no random before it has read all of the client's hello, and gets another one when it
 * asks for a second hello (RFC 8446, section 4.1.4). */
#define HELLO_TRIES 16
/* How long after the last call that may have made a hello sends are looked at. */
#define HELLO_WAIT_NS (2ULL * 1000 * 1000 * 1000)

/* ContentType, RFC 8446, section 5.1 */
#define RECORD_HANDSHAKE 22
/* HandshakeType, RFC 8446, section 4. */
#define CLIENT_HELLO 1
#define SERVER_HELLO 2

/* A record that begins with a hello: RFC 8446, sections 5.1, 4 and 4.1.2. */
struct hello_record {
	__u8 content_type;
	__u8 record_version[2];
	__u8 record_len[2];
	__u8 type;
	__u8 len[3];
	__u8 version[2];
	__u64 random[2];
} __attribute__((packed));

/* The beginning of a hello's random is as good as a name: it is in the memory of the handle, and in
 * clear in what leaves the process. */
struct hello_key {
	__u64 random[2];
	__u32 tgid;
	__u32 type;
};

enum hello_state {
	HELLO_AWAITED = 0,
	HELLO_SENT = 1,      /* through the socket of `addr` */
	HELLO_AMBIGUOUS = 2, /* two connections have the same */
};

struct hello {
	__u64 conn;  /* 0: not filled in yet */
	__u64 state; /* written last, and with a barrier */
	__u64 carrier;
	struct ts_addr addr;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct hello_key);
	__type(value, struct hello);
} hellos SEC(".maps");

static const struct hello no_hello = {};

/* Processes with hellos that have not been sent yet, and how many. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} hello_counts SEC(".maps");

/* By the socket's inode, the connection that was found to be carried by it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, __u64);
} carriers SEC(".maps");

static __always_inline void carries(__u64 inode, __u64 conn)
{
	bpf_map_update_elem(&carriers, &inode, &conn, BPF_ANY);
}

static __always_inline bool may_carry(__u64 inode, __u64 conn)
{
	__u64 *other = bpf_map_lookup_elem(&carriers, &inode);

	return !other || *other == conn;
}

static __always_inline void count_hello(__u32 tgid, __s64 change)
{
	__u64 *known = bpf_map_lookup_elem(&hello_counts, &tgid), one = 1;

	if (known)
		__sync_fetch_and_add(known, change);
	else if (change > 0)
		bpf_map_update_elem(&hello_counts, &tgid, &one, BPF_ANY);
}

static __always_inline struct hello_key hello_key(const struct ts_conn *conn)
{
	struct hello_key key = {
		.random = {conn->hello[0], conn->hello[1]},
		.tgid = current_tgid(),
		.type = conn->hello_type,
	};

	return key;
}

/* The connection's hello is of no use any more. */
static __always_inline void forget_hello(struct ts_conn *conn)
{
	struct hello_key key;
	struct hello *hello;

	if (!conn->hello_type)
		return;
	key = hello_key(conn);
	conn->hello_type = 0;
	hello = bpf_map_lookup_elem(&hellos, &key);
	if (!hello || hello->conn != conn->id)
		return;
	if (__sync_fetch_and_add(&hello->state, 0) == HELLO_AWAITED)
		count_hello(key.tgid, -1);
	bpf_map_delete_elem(&hellos, &key);
}

/* The connection ends, or goes on as another one. */
static __always_inline void forget_apart(struct ts_conn *conn)
{
	__u64 inode = conn->carrier;

	forget_hello(conn);
	if (inode && may_carry(inode, conn->id))
		bpf_map_delete_elem(&carriers, &inode);
	conn->carrier = 0;
	conn->evidence = 0;
	conn->hello_tries = 0;
	conn->apart = 0;
}

/* Whether the connection's hello has been sent, and how. */
static __always_inline bool hello_was_sent(struct ts_conn *conn, struct ts_addr *addr)
{
	struct hello_key key;
	struct hello *hello;

	if (!conn->hello_type)
		return false;
	key = hello_key(conn);
	hello = bpf_map_lookup_elem(&hellos, &key);
	if (!hello || hello->conn != conn->id ||
	    __sync_fetch_and_add(&hello->state, 0) != HELLO_SENT)
		return false;
	*addr = hello->addr;
	conn->carrier = hello->carrier;
	forget_hello(conn);
	return true;
}

static __always_inline bool read_random(const struct ts_chain *chain, __u64 handle, __u64 *random)
{
	__u64 at = chase(chain, handle);

	/* All zero: there is none yet. */
	return at && read_user(random, 2 * sizeof(*random), at) && (random[0] | random[1]);
}

/* Which hello this end sends; 0: not known (yet). A library that does not say its role is a client
 * if it had its own random before the server's. */
static __always_inline __u8 own_hello(const struct ts_conn *conn, const struct ts_layout *layout,
				      __u64 handle, __u64 *random)
{
	__u64 field = conn->role ? 0 : chase(&layout->server, handle);
	__u8 role = conn->role;
	__u32 server;

	if (field && read_u32(field, &server))
		role = role_of(layout, server);
	if (!role && conn->hello_type == CLIENT_HELLO)
		role = TS_ROLE_CLIENT;
	if (role != TS_ROLE_CLIENT && read_random(&layout->server_random, handle, random))
		return SERVER_HELLO;
	if (role != TS_ROLE_SERVER && read_random(&layout->client_random, handle, random))
		return CLIENT_HELLO;
	return 0;
}

/* The call that is returning may have made a hello which the program has yet to send. */
__noinline int await_hello(struct ts_conn *conn, const struct ts_layout *layout, __u64 handle)
{
	struct hello_key key;
	struct hello *hello;
	__u64 random[2];
	__u8 type;

	if (!conn || !layout || conn->hello_tries >= HELLO_TRIES)
		return 0;
	conn->hello_tries++;
	type = own_hello(conn, layout, handle, random);
	if (!type)
		return 0;
	if (conn->hello_type == type && conn->hello[0] == random[0] && conn->hello[1] == random[1])
		return 0;
	forget_hello(conn);
	conn->hello[0] = random[0];
	conn->hello[1] = random[1];
	conn->hello_type = type;
	key = hello_key(conn);
	bpf_map_update_elem(&hellos, &key, &no_hello, BPF_NOEXIST);
	hello = bpf_map_lookup_elem(&hellos, &key);
	if (!hello || __sync_val_compare_and_swap(&hello->conn, 0, conn->id)) {
		if (hello)
			hello->state = HELLO_AMBIGUOUS;
		conn->hello_type = 0;
		return 0;
	}
	count_hello(key.tgid, 1);
	hellos_until = bpf_ktime_get_boot_ns() + HELLO_WAIT_NS;
	return 0;
}

/* Whether this process has made hellos that have not been sent. */
static __always_inline bool awaits_hellos(void)
{
	__u32 tgid = current_tgid();
	__u64 *known;

	if (!hellos_until)
		return false;
	known = bpf_map_lookup_elem(&hello_counts, &tgid);
	return known && (__s64)*known > 0;
}

/* These bytes leave through `addr`: if they begin with a hello, they say whose. That which asks for
 * a second hello has a random of its own (RFC 8446, section 4.1.3), which nobody awaits. */
static __always_inline void hello_moves(__u64 buf, __u64 len, const struct ts_addr *addr,
					__u64 inode)
{
	struct hello_key key = {.tgid = current_tgid()};
	struct hello_record record;
	struct hello *hello;

	if (len < sizeof(record) || bpf_probe_read_user(&record, sizeof(record), (void *)buf))
		return;
	if (record.content_type != RECORD_HANDSHAKE || record.record_version[0] != 3)
		return;
	key.type = record.type;
	key.random[0] = record.random[0];
	key.random[1] = record.random[1];
	hello = bpf_map_lookup_elem(&hellos, &key);
	if (!hello || hello->state != HELLO_AWAITED)
		return;
	hello->addr = *addr;
	hello->carrier = inode;
	if (__sync_val_compare_and_swap(&hello->state, HELLO_AWAITED, HELLO_SENT) != HELLO_AWAITED)
		return;
	count_hello(key.tgid, -1);
	if (inode)
		carries(inode, hello->conn);
}

/* A call has taken these bytes for another connection, which may be within this one. */
static __always_inline void note_carried_hello(const struct frame *frame, __u64 len)
{
	struct ts_addr addr = {
		.transport = TS_TP_TLS,
		.source = TS_SRC_RECORD,
		.via = frame->handle,
	};

	if (awaits_hellos())
		hello_moves(frame->buf, len, &addr, 0);
}

/* Calls that moved nothing matter too while a hello may be made or sent. */
static __always_inline bool may_have_hello(const struct frame *frame,
					   const struct ts_layout *layout)
{
	return frame->want_addr && layout->client_random.len;
}

#endif

#endif
