/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Connections: found or made by handle, announced with what the library says of them. */
#ifndef TLSSNIFF_CONN_H
#define TLSSNIFF_CONN_H

#include "apart.bpf.h"
#include "emit.bpf.h"
#include "expect.bpf.h"
#include "maps.bpf.h"
#include "old.bpf.h"
#include "sock.bpf.h"
#include "user.bpf.h"

/* The BIO may be set after the first call; later than that it is not worth its price. */
#define FD_TRIES 3

static const struct ts_conn new_conn = {};

static __always_inline struct ts_conn *find_conn(__u64 handle)
{
	struct ts_conn_key key = conn_key(handle);

	return bpf_map_lookup_elem(&conns, &key);
}

static __always_inline struct ts_conn *find_or_make_conn(const struct frame *frame)
{
	struct ts_conn_key key = conn_key(frame->handle);
	struct ts_conn *conn = bpf_map_lookup_elem(&conns, &key);

	if (conn)
		return conn;
	bpf_map_update_elem(&conns, &key, &new_conn, BPF_NOEXIST);
	conn = bpf_map_lookup_elem(&conns, &key);
	if (!conn) {
		count(TS_CTR_MISSED_CALLS, 1);
		return NULL;
	}
	conn->target = cookie_target(frame->cookie);
	if (!next_conn(&conn->id)) {
		bpf_map_delete_elem(&conns, &key);
		return NULL;
	}
	return conn;
}

static __always_inline void end_conn(struct ts_conn *conn, __u64 handle)
{
	struct ts_conn_key key = conn_key(handle);

	if (conn->announced)
		emit_end(TS_REC_CLOSE, conn);
	forget_apart(conn);
	bpf_map_delete_elem(&conns, &key);
}

static __always_inline void shut_conn(struct ts_conn *conn)
{
	if (conn->announced && !conn->shut)
		conn->shut = emit_end(TS_REC_SHUTDOWN, conn);
}

/* A connection begins, which is made when it first moves bytes. */
static __always_inline void note_begun(__u64 handle)
{
	struct ts_conn_key key = conn_key(handle);
	__u8 one = 1;

	bpf_map_update_elem(&begun, &key, &one, BPF_ANY);
}

static __always_inline bool was_begun(struct ts_conn *conn, __u64 handle)
{
	struct ts_conn_key key;

	if (conn->begun)
		return true;
	key = conn_key(handle);
	conn->begun = !bpf_map_delete_elem(&begun, &key);
	return conn->begun;
}

/* The handle goes on as another connection. */
__global int renew_conn(struct ts_conn *conn)
{
	__u64 id;

	if (!conn || !next_conn(&id))
		return 0;
	if (conn->announced)
		emit_end(TS_REC_CLOSE, conn);
	forget_apart(conn);
	conn->id = id;
	conn->off[TS_OUT] = 0;
	conn->off[TS_IN] = 0;
	conn->addr.transport = TS_TP_UNKNOWN;
	conn->addr.source = TS_SRC_NONE;
	conn->role = TS_ROLE_UNKNOWN;
	conn->announced = 0;
	conn->rebind = 0;
	conn->fd_tries = 0;
	conn->shut = 0;
	conn->settled = 0;
	conn->has_alpn = 0;
	conn->begun = 1;
	conn->ahead = 0;
	return 0;
}

static __always_inline bool same_addr(const struct ts_addr *a, const struct ts_addr *b)
{
	const __u64 *x = (const void *)a, *y = (const void *)b;
	__u32 i;

	for (i = 1; i < sizeof(*a) / sizeof(*x); i++) {
		if (x[i] != y[i])
			return false;
	}
	return a->transport == b->transport && a->local_port == b->local_port &&
	       a->remote_port == b->remote_port;
}

/* A local socket may be the resolver's daemon, asked from within the call that connects. */
static __always_inline bool is_doubtful(const struct ts_addr *addr)
{
	return addr->transport == TS_TP_UNKNOWN || addr->transport == TS_TP_UNIX;
}

/* Makes `does` the function `name`, at which the verifier looks by itself. */
#ifdef TS_OLD_KERNEL
#define GLOBAL_ON_RETURN(name, does)                                                               \
	__noinline int does##_on_return(void)                                                      \
	{                                                                                          \
		struct frame *frame = returning_frame();                                           \
		struct ts_layout *layout;                                                          \
		struct ts_conn *conn;                                                              \
                                                                                                   \
		if (!frame)                                                                        \
			return 0;                                                                  \
		conn = find_conn(frame->handle);                                                   \
		layout = layout_of(frame);                                                         \
		return conn && layout ? does(conn, frame, layout) : 0;                             \
	}                                                                                          \
	static __always_inline int name(struct ts_conn *conn, struct frame *frame,                 \
					const struct ts_layout *layout)                            \
	{                                                                                          \
		return does##_on_return();                                                         \
	}
#else
#define GLOBAL_ON_RETURN(name, does)                                                               \
	__noinline int name(struct ts_conn *conn, struct frame *frame,                             \
			    const struct ts_layout *layout)                                        \
	{                                                                                          \
		return conn && frame && layout ? does(conn, frame, layout) : 0;                    \
	}
#endif

/* The descriptor in the BIO, where the call has used no socket that counts. */
static __always_inline int use_bio(struct ts_conn *conn, struct frame *frame,
				   const struct ts_layout *layout)
{
	struct ts_addr by_fd = {};

	if (!is_doubtful(&frame->addr) || conn->fd_tries >= FD_TRIES)
		return 0;
	conn->fd_tries++;
	if (bio_addr(layout, frame->handle, &by_fd))
		frame->addr = by_fd;
	return 0;
}

GLOBAL_ON_RETURN(ask_bio, use_bio)

/* Takes over the address that has been learnt. */
static __always_inline int use_addr(struct ts_conn *conn, struct frame *frame,
				    const struct ts_layout *layout)
{
	if (frame->addr.transport == TS_TP_TLS) {
		struct ts_conn *outer = find_conn(frame->addr.via);

		frame->addr.via = outer ? outer->id : 0;
	}
	if (conn->rebind && conn->announced && conn->addr.transport &&
	    !same_addr(&conn->addr, &frame->addr))
		renew_conn(conn);
	forget_hello(conn);
	conn->rebind = 0;
	conn->addr = frame->addr;
	conn->announced = 0;
	return 0;
}

GLOBAL_ON_RETURN(take_addr, use_addr)

/* Learns the address from the call that is returning, once per connection; and again after its
 * BIO was replaced, when another address makes it another connection. In steps, each with a stack
 * of its own. */
static __always_inline void bind_conn(struct ts_conn *conn, struct frame *frame,
				      const struct ts_layout *layout)
{
	if (conn->addr.transport && !conn->rebind)
		return;
	ask_bio(conn, frame, layout);
	if (!frame->addr.transport && !conn->addr.transport)
		learn_apart(conn, layout, frame);
	if (frame->addr.transport)
		take_addr(conn, frame, layout);
}

/* A name longer than any that is registered is cut. */
static __always_inline void read_alpn_text(struct ts_rec_conn *rec, __u64 text)
{
	__u8 first;
	long size;

	if (!read_user(&first, sizeof(first), text))
		return;
	size = bpf_probe_read_user_str(rec->alpn, sizeof(rec->alpn), (void *)text);
	rec->alpn_len = size > 0 ? size - 1 : 0;
}

static __always_inline void read_alpn(struct ts_rec_conn *rec, const struct ts_layout *layout,
				      __u64 handle)
{
	__u64 field = chase(&layout->alpn_len, handle), data;
	__u32 len;

	if (layout->alpn_len.len) {
		if (!field || !read_u32(field, &len) || !len || len > TS_ALPN_LEN)
			return;
	}
	field = chase(&layout->alpn, handle);
	if (!field || !read_u64(field, &data) || !data)
		return;
	if (!layout->alpn_len.len) {
		read_alpn_text(rec, data);
		return;
	}
	if (read_user(rec->alpn, len & (2 * TS_ALPN_LEN - 1), data))
		rec->alpn_len = len;
}

static __always_inline void read_tls_facts(struct ts_rec_conn *rec, const struct ts_layout *layout,
					   __u64 handle)
{
	__u64 field, name;
	__u32 value;
	__u8 first;

	field = chase(&layout->version, handle);
	if (field && read_u32(field, &value))
		rec->version = value;
	field = rec->role ? 0 : chase(&layout->server, handle);
	if (field && read_u32(field, &value))
		rec->role = role_of(layout, value);
	read_alpn(rec, layout, handle);
	field = chase(&layout->sni, handle);
	if (!field || !read_u64(field, &name) || !name)
		return;
	if (!layout->sni_len.len) {
		/* Unlike the other reads, that of a string does not fault its page in: after a fork
		 * arm64 maps all pages as not accessed yet. */
		if (!read_user(&first, sizeof(first), name))
			return;
		bpf_probe_read_user_str(rec->sni, sizeof(rec->sni), (void *)name);
		return;
	}
	field = chase(&layout->sni_len, handle);
	if (field && read_u32(field, &value) && value < TS_SNI_LEN)
		read_user(rec->sni, value & (TS_SNI_LEN - 1), name);
}

/* The number by which a process in a container knows itself. */
static __always_inline __u32 own_tgid(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	struct upid *number = number_at(pid, BPF_CORE_READ(pid, level));

	return BPF_CORE_READ(number, nr);
}

/* The kernel may have been built without cgroups. */
static __always_inline __u64 cgroup_of(struct task_struct *task)
{
	if (!bpf_core_field_exists(task->cgroups))
		return 0;
	return BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
}

static __always_inline void read_process(struct ts_rec_conn *rec)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct inode *exe = BPF_CORE_READ(task, mm, exe_file, f_inode);

	rec->own_tgid = own_tgid(task);
	rec->started = BPF_CORE_READ(task, group_leader, start_boottime);
	rec->cgroup = cgroup_of(task);
	rec->exe_ino = BPF_CORE_READ(exe, i_ino);
	rec->exe_dev = BPF_CORE_READ(exe, i_sb, s_dev);
	rec->tid = current_ids();
	rec->uid = bpf_get_current_uid_gid();
	BPF_CORE_READ_STR_INTO(&rec->comm, task, group_leader, comm);
}

/* The path that either end is bound to. The socket was used within the call that is returning. */
static __always_inline void read_unix_path(struct ts_rec_conn *rec)
{
	struct unix_sock *sock = (void *)rec->addr.via;
	struct unix_address *name = BPF_CORE_READ(sock, addr);

	if (!name) {
		sock = (void *)BPF_CORE_READ(sock, peer);
		name = BPF_CORE_READ(sock, addr);
	}
	if (name)
		BPF_CORE_READ_STR_INTO(&rec->unix_path, name, name[0].sun_path);
}

static __always_inline int announce(struct ts_conn *conn, const struct frame *frame,
				    const struct ts_layout *layout)
{
	struct ts_rec_conn *rec;

	if (conn->announced)
		return 0;
	rec = bpf_ringbuf_reserve(&ring, sizeof(*rec), 0);
	if (!rec) {
		count(TS_CTR_DROPPED_NOTES, 1);
		return 0;
	}
	__builtin_memset(rec, 0, sizeof(*rec));
	rec->type = TS_REC_CONN;
	rec->target = conn->target;
	rec->conn = conn->id;
	rec->ts = frame->entered ?: bpf_ktime_get_boot_ns();
	rec->key = conn_key(frame->handle);
	rec->role = conn->role;
	rec->addr = conn->addr;
	rec->awaits_addr = conn->apart && !conn->addr.transport;
	rec->begun = was_begun(conn, frame->handle);
	if (rec->addr.transport == TS_TP_UNIX)
		read_unix_path(rec);
	read_process(rec);
	read_tls_facts(rec, layout, frame->handle);
	conn->announced = 1;
	conn->has_alpn = rec->alpn_len > 0;
	bpf_ringbuf_submit(rec, wakeup_flags());
	return 0;
}

/* Says who the connection is before its first bytes, and again when more is known. */
GLOBAL_ON_RETURN(announce_conn, announce)

#endif
