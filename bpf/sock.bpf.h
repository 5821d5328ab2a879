/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Which socket carries a connection: the one the thread used inside the call, or the BIO's fd. */
#ifndef TLSSNIFF_SOCK_H
#define TLSSNIFF_SOCK_H

#include "maps.bpf.h"
#include "thread.bpf.h"
#include "user.bpf.h"

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define SOCK_STREAM 1
#define MSG_PEEK 2
#define INT_MAX 0x7fffffff
#define SOCK_SEQPACKET 5
#define S_IFMT 0170000
#define S_IFIFO 0010000
#define S_IFSOCK 0140000

/* include/openssl/bio.h: types of BIOs whose `num` is a descriptor. */
#define BIO_TYPE_FD 0x504
#define BIO_TYPE_SOCKET 0x505
#define BIO_TYPE_CONNECT 0x50c
#define BIO_TYPE_DGRAM 0x515
#define BIO_TYPE_FILTER 0x200
#define BIO_CHAIN_LEN 4
/* struct bio_method_st, include/internal/bio.h: its type, then its name. */
#define BIO_METHOD_NAME 8

/* False when the socket is not connected (yet, or any more). */
static __always_inline bool sock_addr(struct sock *sk, struct ts_addr *addr)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	__u16 protocol = BPF_CORE_READ(sk, sk_protocol);

	addr->family = family;
	if (family == AF_UNIX) {
		addr->transport = TS_TP_UNIX;
		addr->via = (__u64)sk;
		return true;
	}
	if (family != AF_INET && family != AF_INET6) {
		addr->transport = TS_TP_OTHER_SOCKET;
		return true;
	}
	addr->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	addr->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	/* A socket that was reset has lost its own port already. */
	if (!addr->local_port || !addr->remote_port)
		return false;
	if (family == AF_INET) {
		__be32 local = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		__be32 remote = BPF_CORE_READ(sk, __sk_common.skc_daddr);

		__builtin_memcpy(addr->local, &local, sizeof(local));
		__builtin_memcpy(addr->remote, &remote, sizeof(remote));
	} else {
		BPF_CORE_READ_INTO(&addr->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&addr->remote, sk, __sk_common.skc_v6_daddr);
	}
	addr->transport = protocol == IPPROTO_TCP   ? TS_TP_TCP
			  : protocol == IPPROTO_UDP ? TS_TP_UDP
						    : TS_TP_OTHER_SOCKET;
	return true;
}

/* TLS runs over streams. Datagram and raw sockets are what resolvers and loggers use from within a
 * callback, or BIO_do_connect for the list of interfaces (netlink). */
static __always_inline bool may_carry_tls(struct sock *sk)
{
	__u16 type = BPF_CORE_READ(sk, sk_type);

	return type == SOCK_STREAM || type == SOCK_SEQPACKET;
}

/* Tells a socket from every other, also from later ones at the same place. */
static __always_inline __u64 sock_inode(struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_socket, file, f_inode, i_ino);
}

/* The call that the thread is in; NULL: its connection has an address, or there is none. */
static __always_inline struct frame *frame_without_addr(struct thread *thread)
{
	__u32 top = thread->depth - 1;
	struct frame *frame;

	if (top >= MAX_DEPTH)
		return NULL;
	frame = frame_at(thread, top);
	return frame->want_addr ? frame : NULL;
}

/* The thread has used `sk`: it counts for the innermost call when that has no address yet. */
static __always_inline void saw_socket(struct thread *thread, struct sock *sk)
{
	struct ts_addr addr = {.source = TS_SRC_SOCKET};
	struct frame *frame = frame_without_addr(thread);

	if (!frame || !may_carry_tls(sk))
		return;
	if (!sock_addr(sk, &addr))
		return;
	frame->addr = addr;
	frame->want_addr = 0;
}

static __always_inline struct file *file_of_fd(struct task_struct *task, __u32 fd)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd);
	struct file *file = NULL;

	if (fd >= BPF_CORE_READ(table, max_fds))
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	return file;
}

static __always_inline bool file_addr(struct file *file, struct ts_addr *addr)
{
	struct socket *socket;
	__u16 mode;

	if (!file)
		return false;
	addr->source = TS_SRC_FD;
	mode = BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT;
	if (mode == S_IFIFO) {
		addr->transport = TS_TP_PIPE;
		return true;
	}
	if (mode != S_IFSOCK) {
		addr->transport = TS_TP_FILE;
		return true;
	}
	socket = BPF_CORE_READ(file, private_data);
	return sock_addr(BPF_CORE_READ(socket, sk), addr);
}

static __always_inline bool fd_addr(__u32 fd, struct ts_addr *addr)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return file_addr(file_of_fd(task, fd), addr);
}

/* Whether a BIO of these methods is the library's own, by the name that it gives them. Programs
 * make methods with the same types and keep nothing in `num`, which then is a descriptor too: 0. */
static __always_inline bool is_own_bio(__u64 method)
{
	__u64 name, text, socket = 0, file, datagram;

	/* As numbers: bpf_strncmp came with Linux 5.17. */
	__builtin_memcpy(&socket, "socket", 6);
	__builtin_memcpy(&file, "file des", 8);
	__builtin_memcpy(&datagram, "datagram", 8);
	if (!read_u64(method + BIO_METHOD_NAME, &name) || !read_u64(name, &text))
		return false;
	return (text & 0xffffffffffff) == socket || text == file || text == datagram;
}

/* What the program has said to be the transport; a pointer to something of its own is no number of
 * a descriptor, and 0 is there before it says anything. */
static __always_inline bool transport_addr(const struct ts_layout *layout, __u64 handle,
					   struct ts_addr *addr)
{
	__u64 field = chase(&layout->transport, handle), fd;

	if (!field || !read_u64(field, &fd) || !fd || fd > INT_MAX || !fd_addr(fd, addr))
		return false;
	return addr->transport == TS_TP_TCP || addr->transport == TS_TP_UNIX;
}

/* The descriptor in the handle's read BIO, past filter BIOs; the BIO's type is checked, as the
 * field means something else in every other kind. */
__global int bio_addr(const struct ts_layout *layout, __u64 handle, struct ts_addr *addr)
{
	__u64 field, bio, method;
	__u32 type;
	int i;

	if (!layout || !addr)
		return false;
	if (layout->transport.len)
		return transport_addr(layout, handle, addr);
	if (!layout->bio_known)
		return false;
	field = chase(&layout->rbio, handle);
	if (!field || !read_u64(field, &bio))
		return false;
	for (i = 0; i < BIO_CHAIN_LEN && bio; i++) {
		__u32 fd;

		if (!read_u64(bio + layout->bio_method, &method) || !read_u32(method, &type))
			return false;
		if (type == BIO_TYPE_SOCKET || type == BIO_TYPE_FD || type == BIO_TYPE_CONNECT ||
		    type == BIO_TYPE_DGRAM)
			return is_own_bio(method) && read_u32(bio + layout->bio_num, &fd) &&
			       fd_addr(fd, addr);
		if (!(type & BIO_TYPE_FILTER) || !read_u64(bio + layout->bio_next, &bio))
			return false;
	}
	return false;
}

#endif
