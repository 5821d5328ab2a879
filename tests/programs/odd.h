/* Shared by the parts of `odd`: connections that keep count of what the program passed to TLS. */
#ifndef ODD_H
#define ODD_H

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* One end of one TLS connection, and the oracle: what the program wrote to it and read from it. */
struct end {
	char name[40];
	const char *role;
	const char *transport; /* tcp unix pipe tls mem */
	int fd;
	SSL *ssl;
	char local[64], remote[64];
	char alpn[32]; /* of the first handshake: a renegotiation drops it */
	uint64_t out_len, in_len;
	uint32_t out_crc, in_crc;
	unsigned retries;
};

struct pair {
	struct end client, server;
};

/* What every connection of this run is made with; set from the command line. */
struct options {
	int version;	    /* TLS1_2_VERSION or TLS1_3_VERSION */
	const char *host;   /* where to listen: 127.0.0.1, ::1 */
	const char *self;   /* argv[0] */
	const char *cert, *key;
};
extern struct options options;
extern SSL_CTX *client_ctx, *server_ctx;

void die(const char *what) __attribute__((noreturn));
#define must(condition) ((condition) ? (void)0 : die(#condition))

/* Waits for a line on stdin, once, if the environment says ODD_GATE=name: the test attaches now. */
void gate(const char *name);

/* The oracle's books. */
void end_init(struct end *end, const char *name, const char *role, const char *transport);
void end_wrote(struct end *end, const void *bytes, size_t len);
void end_read(struct end *end, const void *bytes, size_t len);
void end_forget(struct end *end);  /* count from here on */
/* The kernel's word on the addresses, which it gives while both ends are open. */
void find_addresses(struct end *end);
void end_report(struct end *end);  /* one JSON line on stdout */

/* The next `len` bytes of this end's own outgoing stream: no two places of a stream are alike. */
void fill(const struct end *end, void *buf, size_t len);
void fill_at(const struct end *end, uint64_t offset, void *buf, size_t len);

/* Blocking transfers with SSL_write and SSL_read. */
void send_bytes(struct end *end, size_t len);
void recv_bytes(struct end *end, size_t len);
/* `from` writes while a second thread reads it all at `to`. */
void transfer(struct end *from, struct end *to, size_t len, size_t chunk);
/* A bit of everything in both directions. */
void chat(struct pair *pair);

/* Connected sockets. */
int listen_on(const char *host);
int connect_to(int listener);
void tcp_pair(int *client, int *server);
void set_nonblocking(int fd, int on);

/* Handshake of two ends whose `ssl` has its transport, the server in a second thread. */
void handshake(struct pair *pair);
void new_ssl(struct pair *pair);
void open_pair(struct pair *pair, const char *name);
/* close_notify both ways, free, close, report. */
void close_pair(struct pair *pair);

typedef void scenario(void);
scenario plain, want_write, want_write_partial, want_write_moving, want_write_both, peek, ex, big,
	tiny, mapped, early_data, half_close, renegotiate, key_update;
scenario forked, forked_both, reuse, cleared, threads, exec_first, exec_second, verify_socket,
	verify_tls, many, crowd;
scenario tls_in_tls_memory, tls_in_tls_bio, over_socketpair, over_pipe, over_memory,
	over_bio_pair, ssl_bio;
scenario waiting;

#endif
