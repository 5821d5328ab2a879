/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the kernel says of sends and receives: which socket, and what record it begins with. */
#ifndef TLSSNIFF_TRAFFIC_H
#define TLSSNIFF_TRAFFIC_H

#include "apart.bpf.h"
#include "expect.bpf.h"
#include "sock.bpf.h"

#ifdef TS_OLD_KERNEL

static __always_inline int sends(struct sock *sk)
{
	struct thread *thread = this_thread();

	if (thread)
		saw_socket(thread, sk);
	return 0;
}

static __always_inline int has_received(struct sock *sk, int ret, int flags)
{
	return sends(sk);
}

#else

/* include/uapi/asm-generic/unistd.h, arch/x86/entry/syscalls/syscall_64.tbl */
#if defined(__TARGET_ARCH_x86)
#define NR_READ 0
#define NR_WRITE 1
#define NR_READV 19
#define NR_WRITEV 20
#define NR_SENDTO 44
#define NR_RECVFROM 45
#define NR_SENDMSG 46
#define NR_RECVMSG 47
#define NR_SENDMMSG 307
#define SYSCALL_NR(regs) (&(regs)->orig_ax)
#define SYSCALL_BUF(regs) (&(regs)->si)
#define SYSCALL_LEN(regs) (&(regs)->dx)
#elif defined(__TARGET_ARCH_arm64)
#define NR_READ 63
#define NR_WRITE 64
#define NR_READV 65
#define NR_WRITEV 66
#define NR_SENDTO 206
#define NR_RECVFROM 207
#define NR_SENDMSG 211
#define NR_RECVMSG 212
#define NR_SENDMMSG 269
#define SYSCALL_NR(regs) (&(regs)->user_regs.regs[8])
#define SYSCALL_BUF(regs) (&(regs)->user_regs.regs[1])
#define SYSCALL_LEN(regs) (&(regs)->user_regs.regs[2])
#endif

#define MAX_EMPTY_PARTS 3

/* ContentType, RFC 8446, section 5.1: from change_cipher_spec to application_data */
#define RECORD_FIRST 20
#define RECORD_LAST 23

struct user_part {
	__u64 base;
	__u64 len;
};

struct record_head {
	__u8 content_type;
	__u8 version[2];
	__u8 len[2];
};

/* The beginning of struct user_msghdr, which is also that of struct mmsghdr. */
struct user_message {
	__u64 name;
	__u64 name_len;
	__u64 parts;
	__u64 count;
};

/* The first bytes of what the system call that the thread is in has been given. */
__noinline int first_part(struct user_part *part)
{
	struct user_message message = {};
	struct pt_regs *regs;
	__u64 nr, buf, len;
	__u32 i;

	if (!part)
		return false;
	/* Since Linux 5.15. */
	if (!bpf_core_enum_value_exists(enum bpf_func_id___known, BPF_FUNC_task_pt_regs___known))
		return false;
	regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	bpf_probe_read_kernel(&nr, sizeof(nr), SYSCALL_NR(regs));
	bpf_probe_read_kernel(&buf, sizeof(buf), SYSCALL_BUF(regs));
	bpf_probe_read_kernel(&len, sizeof(len), SYSCALL_LEN(regs));
	switch (nr) {
	case NR_READ:
	case NR_WRITE:
	case NR_SENDTO:
	case NR_RECVFROM:
		part->base = buf;
		part->len = len;
		return true;
	case NR_READV:
	case NR_WRITEV:
		message.parts = buf;
		message.count = len;
		break;
	case NR_SENDMSG:
	case NR_RECVMSG:
	case NR_SENDMMSG:
		if (bpf_probe_read_user(&message, sizeof(message), (void *)buf))
			return false;
		break;
	default:
		return false;
	}
	for (i = 0; i <= MAX_EMPTY_PARTS; i++) {
		if (i >= message.count)
			return false;
		if (bpf_probe_read_user(part, sizeof(*part),
					(void *)(message.parts + i * sizeof(*part))))
			return false;
		if (part->len)
			return true;
	}
	return false;
}

/* What is sent through `sk` may begin with a hello that is awaited. */
static __always_inline void look_for_hello(struct sock *sk)
{
	struct ts_addr addr = {.source = TS_SRC_RECORD};
	struct user_part part;

	if (!awaits_hellos() || !may_carry_tls(sk) || !first_part(&part))
		return;
	if (sock_addr(sk, &addr))
		hello_moves(part.base, part.len, &addr, sock_inode(sk));
}

/* The length of the record of application data that the bytes begin with; 0: they do not. */
static __always_inline __u32 first_record(void)
{
	struct record_head head;
	struct user_part part;

	if (!first_part(&part) || part.len < sizeof(head) ||
	    bpf_probe_read_user(&head, sizeof(head), (void *)part.base))
		return 0;
	if (head.content_type != RECORD_DATA || head.version[0] != 3)
		return 0;
	return head.len[0] << 8 | head.len[1];
}

/* Whether the thread talks to a helper: from within a call, programs ask daemons on local sockets
 * to sign for them, or for addresses. What they send there is no TLS. */
static __always_inline bool talks_to_helper(struct sock *sk)
{
	struct record_head head;
	struct user_part part;

	if (BPF_CORE_READ(sk, __sk_common.skc_family) != AF_UNIX || !first_part(&part))
		return false;
	if (part.len < sizeof(head) || bpf_probe_read_user(&head, sizeof(head), (void *)part.base))
		return true;
	return head.content_type < RECORD_FIRST || head.content_type > RECORD_LAST ||
	       head.version[0] != 3;
}

static __always_inline void socket_in_call(struct thread *thread, struct sock *sk)
{
	if (frame_without_addr(thread) && !talks_to_helper(sk))
		saw_socket(thread, sk);
}

static __always_inline int sends(struct sock *sk)
{
	struct thread *thread = this_thread();

	if (thread && thread->depth) {
		socket_in_call(thread, sk);
	} else if (thread && thread->expects && may_carry_tls(sk)) {
		__u32 record = first_record();

		if (record)
			record_is_sent(thread, sk, record);
	}
	if (hellos_until)
		look_for_hello(sk);
	return 0;
}

/* Its bytes are there to be looked at. */
static __always_inline int has_received(struct sock *sk, int ret, int flags)
{
	struct thread *thread = this_thread();

	if (!thread)
		return 0;
	if (thread->depth) {
		socket_in_call(thread, sk);
	} else if (thread->watched && ret > 0 && !(flags & MSG_PEEK)) {
		__u32 record = may_carry_tls(sk) ? first_record() : 0;

		thread->watched--;
		thread->received.len = 0;
		if (record)
			record_is_received(thread, sk, record);
	}
	return 0;
}

#endif

/* Since Linux 6.3. */
SEC("tp_btf/sock_send_length")
int BPF_PROG(sock_send_length, struct sock *sk, int ret, int flags)
{
	return sends(sk);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int ret, int flags)
{
	return has_received(sk, ret, flags);
}

/* Before: what is asked of each send and receive, whatever the kind of socket. */
SEC("kprobe/security_socket_sendmsg")
int socket_sends(struct pt_regs *regs)
{
	return sends(BPF_CORE_READ((struct socket *)PT_REGS_PARM1(regs), sk));
}

SEC("kprobe/security_socket_recvmsg")
int socket_receives(struct pt_regs *regs)
{
	struct thread *thread = this_thread();

	if (thread)
		saw_socket(thread, BPF_CORE_READ((struct socket *)PT_REGS_PARM1(regs), sk));
	return 0;
}

#endif
