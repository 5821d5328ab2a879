/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What BPF and user space say to each other: the only contract between them. */
#ifndef TLSSNIFF_ABI_H
#define TLSSNIFF_ABI_H

#define TS_COMM_LEN 16
#define TS_ALPN_LEN 32
#define TS_SNI_LEN 256
#define TS_UNIX_PATH_LEN 108
#define TS_MAX_TARGETS 4096
#define TS_CHAIN_LEN 4
/* In the object for old kernels, of which each probe has a copy: where its cookie comes. */
#define TS_COOKIE_PLACE 0x7ab1e0fc00c1e5ed
/* Threads of which a call is waited for that had begun before. */
#define TS_MAX_WAITS 4096
/* One ring buffer record holds at most this much payload. */
#define TS_CHUNK (256 * 1024)

enum ts_record {
	TS_REC_CONN = 1,
	TS_REC_DATA = 2,
	TS_REC_SHUTDOWN = 3,
	TS_REC_CLOSE = 4,
	TS_REC_HOLD = 5,
	TS_REC_EXEC = 6,
	TS_REC_ADDR = 7,
};

enum ts_dir {
	TS_OUT = 0,
	TS_IN = 1,
};

/* What a probe does, in the lowest byte of its attach cookie. */
enum ts_action {
	TS_ACT_WRITE = 1,
	TS_ACT_READ = 2,
	TS_ACT_HANDSHAKE = 3,
	TS_ACT_FREE = 4,
	TS_ACT_CLEAR = 5,
	TS_ACT_SHUTDOWN = 6,
	TS_ACT_REBIND = 7,
};

/* How the bytes of a read or write and their number are found, in the second byte of its cookie.
 * The lowest three bits are the argument to remember (0: none), without which a call cannot be
 * told. */
enum ts_count {
	TS_CNT_RETURN = 0,            /* an int; with an argument: behind it, if the int is > 0 */
	TS_CNT_SENDFILE = 1 << 3,     /* 64 bits; the bytes are not in memory */
	TS_CNT_RETURN_WIDE = 2 << 3,  /* 64 bits */
	TS_CNT_RETURN_AHEAD = 3 << 3, /* and GnuTLS takes bytes without saying so: gnutls.bpf.h */
	TS_CNT_UNLESS_PEEK = 4 << 3,  /* an int, unless the argument has the flag MSG_PEEK */
	TS_CNT_WHOLE = 5 << 3,        /* the argument, if the return value (64 bits) is not < 0 */
	TS_CNT_VECTOR = 6 << 3,       /* 64 bits, of pieces, less what the argument says */
	TS_CNT_SHORT_VECTOR = 7 << 3, /* an int, of pieces whose lengths are ints */
	TS_CNT_TOLD_BEFORE = 8 << 3,  /* none: what the call hands on was counted before */
};

#define TS_CNT_ARGUMENT 7

/* Of a handshake function, in the second byte of its cookie: the role that it implies, and */
enum ts_handshake {
	TS_HS_ZERO = 1 << 7, /* it has succeeded when it returns 0, not 1 */
};

/* Of Go's functions, in the second byte of the cookie. */
enum ts_go_site {
	TS_GO_REGISTERS = 0, /* arguments and results in registers */
	TS_GO_ABI0 = 1,      /* on the stack */
	TS_GO_DEFERRED = 2,  /* in a function that has been deferred */
};

/* How a rustls function gets its bytes, in the second byte of the cookie. */
enum ts_rustls_bytes {
	TS_RUSTLS_SLICE = 0,   /* address and length in registers */
	TS_RUSTLS_CHUNKS = 1,  /* a pointer to an `OutboundChunks` */
	TS_RUSTLS_PAYLOAD = 2, /* a pointer to a `Payload` */
	TS_RUSTLS_MESSAGE = 3, /* a pointer to a `Message`, which may be one of data */
};

enum ts_role {
	TS_ROLE_UNKNOWN = 0,
	TS_ROLE_CLIENT = 1,
	TS_ROLE_SERVER = 2,
};

enum ts_transport {
	TS_TP_UNKNOWN = 0,
	TS_TP_TCP = 1,
	TS_TP_UDP = 2,
	TS_TP_UNIX = 3,
	TS_TP_PIPE = 4,
	TS_TP_TLS = 5,
	TS_TP_OTHER_SOCKET = 6,
	TS_TP_FILE = 7,
};

enum ts_addr_source {
	TS_SRC_NONE = 0,
	TS_SRC_SOCKET = 1,
	TS_SRC_FD = 2,
	TS_SRC_RECORD = 3, /* a socket through which a record of the connection was sent */
};

enum ts_flag {
	/* The memory could not be read: the payload of this record is meaningless. */
	TS_FL_UNREADABLE = 1,
	/* The bytes never were in the program's memory (SSL_sendfile); the record has no payload.
	 */
	TS_FL_SENDFILE = 2,
};

enum ts_counter {
	/* Calls of which bytes did not fit into the ring, and those bytes. */
	TS_CTR_DROPPED_CALLS = 0,
	TS_CTR_DROPPED_BYTES = 1,
	TS_CTR_UNREADABLE_BYTES = 2,
	/* Calls of which nothing could be kept, not even their length: no thread state, nested too
	 * deep, or too many connections. */
	TS_CTR_MISSED_CALLS = 3,
	/* Connection, shutdown and close records that did not fit. */
	TS_CTR_DROPPED_NOTES = 4,
	/* Threads that went on before the probes of their new libraries were in. */
	TS_CTR_EXPIRED_HOLDS = 5,
	/* Of functions that were taken for others: see wrong in struct ts_layout. */
	TS_CTR_WRONG_CALLS = 6,
	TS_CTR_MAX = 7,
};

/* A chain of loads from the handle; len 0: not known. */
struct ts_chain {
	__u32 off[TS_CHAIN_LEN];
	__u32 len;
};

/* At a probe in a function that runs last before one of Go's returns: bytes from the stack pointer
 * to that function's return address, to where the stack pointer was when the call began, and to the
 * call's result; and from the probe to the code of the call, which is of no size where there is
 * none. */
struct ts_go_defer {
	__u32 to_return;
	__u32 to_entry;
	__u32 to_result;
	__s32 caller;
	__u32 caller_size;
};

/* What the planner learnt of a target's structures. */
struct ts_layout {
	struct ts_chain rbio;
	struct ts_chain version;
	struct ts_chain server;
	struct ts_chain alpn;
	struct ts_chain alpn_len;
	struct ts_chain sni;
	struct ts_chain sni_len; /* not known: a C string */
	struct ts_chain references;
	struct ts_chain client_random; /* of 32 bytes each */
	struct ts_chain server_random;
	struct ts_chain encrypter; /* rustls: the data pointer of its `Box<dyn MessageEncrypter>` */
	struct ts_chain sends;     /* rustls: `may_send_application_data`, a byte */
	struct ts_chain
		transport; /* a pointer's worth, the descriptor if the program says no more */
	__u32 bio_method;
	__u32 bio_num;
	__u32 bio_next;
	__u32 bio_known;
	__u32 goid;     /* in runtime.g; 0: not known */
	__s32 g_tls;    /* x86, TS_GO_ABI0: where g is, from the thread pointer on */
	__u32 app_data; /* rustls: which kind of message holds data; 0: not known */
	__u32 input;    /* in Go's tls.Conn; 0: the arguments of Read are not found at its return */
	struct ts_go_defer go_defer[2]; /* by enum ts_dir */
	__u32 unfreed;                  /* when a handle is given up is not seen */
	__u32 unproved;                 /* its functions were found without symbols */
	struct ts_chain secured;        /* NSS: a byte in which a bit says that data is TLS's */
	__u32 secured_bit;
	__u32 client; /* what `server` holds in a client; in a server it holds 1 */
	__u32 wrong;  /* set by BPF: one of those gave what reading and writing never give */
};

/* Addresses in network byte order, IPv4 in the first four bytes; ports in host byte order. */
struct ts_addr {
	__u8 transport; /* enum ts_transport */
	__u8 source;    /* enum ts_addr_source */
	__u16 family;
	__u16 local_port;
	__u16 remote_port;
	__u8 local[16];
	__u8 remote[16];
	__u64 via; /* TS_TP_TLS: the connection that carries this one; TS_TP_UNIX: the socket */
};

struct ts_conn_key {
	__u64 handle;
	__u32 tgid;
	__u32 exec_id;
};

/* A connection as BPF keeps it; user space reads the offsets of those that end unseen. */
struct ts_conn {
	__u64 id;
	__u64 off[2]; /* by enum ts_dir */
	struct ts_addr addr;
	__u32 target;
	__u8 role; /* enum ts_role */
	__u8 announced;
	__u8 rebind;
	__u8 fd_tries;
	__u8 shut;
	__u8 settled;
	__u8 has_alpn;
	__u8 hello_type; /* of the hello that is awaited; 0: none */
	__u8 hello_tries;
	__u8 apart;    /* a call has used no socket: its address may follow */
	__u8 evidence; /* of `carrier` */
	__u8 begun;    /* it was seen from its beginning on */
	__u32 ahead;   /* bytes written that were told before the call said so */
	__u32 pad2;
	__u64 hello[2]; /* the beginning of its random */
	__u64 carrier;  /* inode of the socket that carries it, as far as is known */
};

struct ts_rec_conn {
	__u32 type; /* TS_REC_CONN */
	__u32 target;
	__u64 conn;
	__u64 ts;
	struct ts_conn_key key;
	__u64 exe_ino;
	__u64 cgroup; /* of version 2, that the process is in; 0: not known */
	__u32 exe_dev;
	__u32 tid;
	__u32 uid;
	__u16 version;
	__u8 role;
	__u8 alpn_len;
	struct ts_addr addr;
	char comm[TS_COMM_LEN];
	__u8 alpn[TS_ALPN_LEN];
	char sni[TS_SNI_LEN];
	char unix_path[TS_UNIX_PATH_LEN];
	__u32 own_tgid;    /* as the process itself sees it, in its pid namespace */
	__u32 awaits_addr; /* TS_REC_ADDR may follow */
	__u32 begun;       /* it was seen from its beginning on */
	__u64 started;     /* the process, since boot */
};

/* Payload follows: the rest of the record. */
struct ts_rec_data {
	__u32 type; /* TS_REC_DATA */
	__u32 target;
	__u64 conn;
	__u64 ts;
	__u64 off;
	__u64 len; /* bytes that this record stands for */
	__u64 call_len;
	__u64 call_off;
	__u64 goid; /* goroutine; 0: none */
	__u32 tgid;
	__u32 tid;
	__u16 func;
	__u8 dir;
	__u8 flags;
	__u32 captured;
};

/* TS_REC_SHUTDOWN, TS_REC_CLOSE */
struct ts_rec_end {
	__u32 type;
	__u32 tid;
	__u64 conn;
	__u64 ts;
	__u64 off[2];
};

/* TS_REC_ADDR: of a connection that was announced without. */
struct ts_rec_addr {
	__u32 type;
	__u32 pad;
	__u64 conn;
	struct ts_addr addr;
};

/* TS_REC_HOLD: the thread waits until user space has put the ticket into `released`.
 * TS_REC_EXEC: the process runs a file that is new, and does not wait; no ticket. */
struct ts_rec_hold {
	__u32 type;
	__u32 tgid;
	__u64 ticket;
	__u64 ts;
};

/* What has become of a call that user space has placed in flight. */
enum ts_wait_state {
	/* Whether the thread had left it by then is not known yet. */
	TS_WAIT_PLACED = 0,
	TS_WAIT_COUNTS = 1,
	TS_WAIT_OVER = 2,
};

/* A thread, running one program. */
struct ts_wait_key {
	__u64 started; /* task->start_time */
	__u32 tid;     /* the machine's own number */
	__u32 exec_id;
};

/* A read that had begun before its probes were in place, and where its thread sleeps. */
struct ts_wait {
	__u64 handle;
	__u64 buf;
	__u64 out; /* where the count will be, or 0 */
	__u64 sp;  /* at the function's entry */
	__u64 cookie;
	__u64 switches;
	__u64 state;         /* enum ts_wait_state */
	struct ts_addr addr; /* of the socket that the thread sleeps at */
};

/* A thread that sleeps in a system call that receives from `fd`; TS_NO_FD: it waits for one or
 * more. */
#define TS_NO_FD (~0ULL)
struct ts_sleeper {
	struct ts_wait_key key;
	__u64 switches; /* how often it was taken from a processor */
	__u64 regs[16]; /* those that a call preserves */
	__u64 ip;
	__u64 fd;
	__u32 tgid;
	__u32 pad;
};

_Static_assert(sizeof(struct ts_chain) == 20, "ts_chain");
_Static_assert(sizeof(struct ts_layout) == 372, "ts_layout");
_Static_assert(sizeof(struct ts_addr) == 48, "ts_addr");
_Static_assert(sizeof(struct ts_conn_key) == 16, "ts_conn_key");
_Static_assert(sizeof(struct ts_conn) == 120, "ts_conn");
_Static_assert(sizeof(struct ts_rec_conn) == 552, "ts_rec_conn");
_Static_assert(sizeof(struct ts_rec_data) == 80, "ts_rec_data");
_Static_assert(sizeof(struct ts_rec_end) == 40, "ts_rec_end");
_Static_assert(sizeof(struct ts_rec_addr) == 64, "ts_rec_addr");
_Static_assert(sizeof(struct ts_rec_hold) == 24, "ts_rec_hold");
_Static_assert(sizeof(struct ts_wait_key) == 16, "ts_wait_key");
_Static_assert(sizeof(struct ts_wait) == 104, "ts_wait");
_Static_assert(sizeof(struct ts_sleeper) == 176, "ts_sleeper");

#endif
