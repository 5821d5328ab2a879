/* Odd ways of calling read and write on an ordinary TCP connection. */
#define _GNU_SOURCE
#include "odd.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>

void plain(void)
{
	struct pair pair;

	open_pair(&pair, "plain");
	chat(&pair);
	close_pair(&pair);
}

static void *read_slowly(void *arg)
{
	struct end *end = arg;
	unsigned char buf[3000];
	int n;

	while ((n = SSL_read(end->ssl, buf, sizeof(buf))) > 0) {
		end_read(end, buf, n);
		usleep(200);
	}
	must(SSL_get_error(end->ssl, n) == SSL_ERROR_ZERO_RETURN);
	return NULL;
}

/* A socket that is full most of the time: the same bytes are handed to SSL_write many times. */
static void retries(const char *name, long mode)
{
	enum { TOTAL = 1000000, CALL = 100000 };
	struct pair pair;
	pthread_t reader;
	int small = 4096, window = 150000;
	unsigned char *bytes = malloc(CALL), *copy;

	open_pair(&pair, name);
	SSL_clear_mode(pair.client.ssl, SSL_MODE_ENABLE_PARTIAL_WRITE);
	SSL_set_mode(pair.client.ssl, mode);
	setsockopt(pair.client.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	setsockopt(pair.server.fd, SOL_SOCKET, SO_RCVBUF, &window, sizeof(window));
	set_nonblocking(pair.client.fd, 1);
	must(!pthread_create(&reader, NULL, read_slowly, &pair.server));
	while (pair.client.out_len < TOTAL) {
		fill(&pair.client, bytes, CALL);
		copy = bytes;
		for (;;) {
			int n = SSL_write(pair.client.ssl, copy, CALL);
			struct pollfd wait = { .fd = pair.client.fd, .events = POLLOUT };

			if (n > 0) {
				end_wrote(&pair.client, copy, n);
				break;
			}
			must(SSL_get_error(pair.client.ssl, n) == SSL_ERROR_WANT_WRITE);
			pair.client.retries++;
			poll(&wait, 1, 1000);
			if (mode & SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER) {
				unsigned char *moved = malloc(CALL);

				memcpy(moved, copy, CALL);
				if (copy != bytes) {
					memset(copy, '!', CALL);
					free(copy);
				}
				copy = moved;
			}
		}
		if (copy != bytes)
			free(copy);
	}
	set_nonblocking(pair.client.fd, 0);
	SSL_shutdown(pair.client.ssl);
	pthread_join(reader, NULL);
	free(bytes);
	close_pair(&pair);
}

void want_write(void)
{
	retries("want-write", 0);
}

void want_write_partial(void)
{
	retries("ww-partial", SSL_MODE_ENABLE_PARTIAL_WRITE);
}

void want_write_moving(void)
{
	retries("ww-moving", SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

void want_write_both(void)
{
	retries("ww-both", SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

/* Looks at bytes before it reads them: they count once. */
void peek(void)
{
	struct pair pair;
	unsigned char buf[64];
	size_t n;

	open_pair(&pair, "peek");
	for (int i = 0; i < 20; i++) {
		send_bytes(&pair.client, 50);
		must(SSL_peek(pair.server.ssl, buf, 10) == 10);
		must(SSL_peek(pair.server.ssl, buf, sizeof(buf)) == 50);
		must(SSL_peek_ex(pair.server.ssl, buf, sizeof(buf), &n) == 1 && n == 50);
		recv_bytes(&pair.server, 20);
		must(SSL_peek_ex(pair.server.ssl, buf, sizeof(buf), &n) == 1 && n == 30);
		recv_bytes(&pair.server, 30);
		send_bytes(&pair.server, 7);
		recv_bytes(&pair.client, 7);
	}
	/* a peek that finds nothing, and reads that return nothing */
	set_nonblocking(pair.server.fd, 1);
	must(SSL_peek(pair.server.ssl, buf, sizeof(buf)) < 0);
	must(SSL_read(pair.server.ssl, buf, sizeof(buf)) < 0);
	must(SSL_read_ex(pair.server.ssl, buf, sizeof(buf), &n) == 0);
	set_nonblocking(pair.server.fd, 0);
	close_pair(&pair);
}

void ex(void)
{
	struct pair pair;
	unsigned char bytes[30000], buf[4096];
	size_t n;

	open_pair(&pair, "ex");
	for (size_t len = 1; len <= sizeof(bytes); len = len * 3 + 1) {
		fill(&pair.client, bytes, len);
		must(SSL_write_ex(pair.client.ssl, bytes, len, &n) == 1 && n == len);
		end_wrote(&pair.client, bytes, n);
		while (pair.server.in_len < pair.client.out_len) {
			must(SSL_read_ex(pair.server.ssl, buf, sizeof(buf), &n) == 1);
			end_read(&pair.server, buf, n);
		}
		/* the two families of calls on one connection */
		send_bytes(&pair.server, len);
		recv_bytes(&pair.client, len);
	}
	close_pair(&pair);
}

void big(void)
{
	struct pair pair;

	open_pair(&pair, "big");
	transfer(&pair.client, &pair.server, 10 << 20, 10 << 20);
	transfer(&pair.server, &pair.client, 262144, 262144);
	transfer(&pair.server, &pair.client, 262145, 262145);
	close_pair(&pair);
}

void tiny(void)
{
	struct pair pair;

	open_pair(&pair, "tiny");
	transfer(&pair.client, &pair.server, 10000, 1);
	close_pair(&pair);
}

/* Writes from pages of a file that nobody has touched, reads into memory that is not there yet. */
void mapped(void)
{
	enum { LEN = 1 << 20, CALL = 50000 };
	struct pair pair;
	FILE *file = tmpfile();
	unsigned char *bytes = malloc(LEN), *from, *to;
	int n;

	must(file && bytes);
	open_pair(&pair, "mapped");
	fill_at(&pair.client, 0, bytes, LEN);
	must(fwrite(bytes, 1, LEN, file) == LEN && !fflush(file) && !fsync(fileno(file)));
	posix_fadvise(fileno(file), 0, LEN, POSIX_FADV_DONTNEED);
	from = mmap(NULL, LEN, PROT_READ, MAP_PRIVATE, fileno(file), 0);
	to = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(from != MAP_FAILED && to != MAP_FAILED);
	madvise(from, LEN, MADV_RANDOM);
	for (size_t at = 0; at + CALL <= LEN; at += CALL) {
		must(SSL_write(pair.client.ssl, from + at, CALL) == CALL);
		end_wrote(&pair.client, bytes + at, CALL);
		while (pair.server.in_len < pair.client.out_len) {
			n = SSL_read(pair.server.ssl, to + pair.server.in_len, CALL);
			must(n > 0);
			end_read(&pair.server, to + pair.server.in_len, n);
		}
	}
	free(bytes);
	fclose(file);
	close_pair(&pair);
}

static void *accept_early(void *arg)
{
	struct end *end = arg;
	unsigned char buf[500];
	size_t n;
	int result;

	while ((result = SSL_read_early_data(end->ssl, buf, sizeof(buf), &n)) ==
	       SSL_READ_EARLY_DATA_SUCCESS) {
		end_read(end, buf, n);
		if (!end->out_len) {
			unsigned char answer[300];

			/* the server may answer before the handshake has ended */
			fill(end, answer, sizeof(answer));
			must(SSL_write_early_data(end->ssl, answer, sizeof(answer), &n) == 1);
			end_wrote(end, answer, n);
		}
	}
	must(result == SSL_READ_EARLY_DATA_FINISH);
	must(SSL_accept(end->ssl) == 1);
	return NULL;
}

void early_data(void)
{
	struct pair pair;
	SSL_SESSION *session;
	pthread_t thread;
	unsigned char bytes[2000];
	size_t n;

	SSL_CTX_set_max_early_data(server_ctx, 16384);
	SSL_CTX_set_session_id_context(server_ctx, (const void *)"odd", 3);
	open_pair(&pair, "early-first");
	send_bytes(&pair.server, 10);
	recv_bytes(&pair.client, 10); /* the tickets came before these */
	must((session = SSL_get1_session(pair.client.ssl)));
	must(SSL_SESSION_get_max_early_data(session) > 0);
	close_pair(&pair);

	end_init(&pair.client, "early-second", "client", "tcp");
	end_init(&pair.server, "early-second", "server", "tcp");
	tcp_pair(&pair.client.fd, &pair.server.fd);
	new_ssl(&pair);
	must(SSL_set_fd(pair.client.ssl, pair.client.fd));
	must(SSL_set_fd(pair.server.ssl, pair.server.fd));
	must(SSL_set_session(pair.client.ssl, session));
	find_addresses(&pair.client);
	find_addresses(&pair.server);
	must(!pthread_create(&thread, NULL, accept_early, &pair.server));
	fill(&pair.client, bytes, sizeof(bytes));
	must(SSL_write_early_data(pair.client.ssl, bytes, sizeof(bytes), &n) == 1 && n == sizeof(bytes));
	end_wrote(&pair.client, bytes, n);
	must(SSL_connect(pair.client.ssl) == 1);
	pthread_join(thread, NULL);
	must(SSL_get_early_data_status(pair.client.ssl) == SSL_EARLY_DATA_ACCEPTED);
	recv_bytes(&pair.client, 300);
	chat(&pair);
	SSL_SESSION_free(session);
	close_pair(&pair);
}

/* The client says that it has ended; the server goes on writing. */
void half_close(void)
{
	struct pair pair;
	unsigned char buf[100];

	open_pair(&pair, "half-close");
	send_bytes(&pair.client, 1000);
	must(SSL_shutdown(pair.client.ssl) == 0);
	recv_bytes(&pair.server, 1000);
	must(SSL_read(pair.server.ssl, buf, sizeof(buf)) == 0);
	transfer(&pair.server, &pair.client, 50000, 5000);
	close_pair(&pair);
}

static void *receive_1000(void *arg)
{
	recv_bytes(arg, 1000);
	return NULL;
}

/* TLS 1.2: a second handshake inside SSL_read of the server, between two messages. */
void renegotiate(void)
{
	struct pair pair;
	pthread_t thread;

	must(options.version == TLS1_2_VERSION);
	SSL_CTX_set_options(server_ctx, SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
	open_pair(&pair, "renegotiate");
	chat(&pair);
	must(!pthread_create(&thread, NULL, receive_1000, &pair.server));
	must(SSL_renegotiate(pair.client.ssl) == 1);
	must(SSL_do_handshake(pair.client.ssl) == 1);
	must(SSL_num_renegotiations(pair.client.ssl) == 1);
	send_bytes(&pair.client, 1000);
	pthread_join(thread, NULL);
	chat(&pair);
	close_pair(&pair);
}

void key_update(void)
{
	struct pair pair;

	open_pair(&pair, "key-update");
	for (int i = 0; i < 5; i++) {
		chat(&pair);
		must(SSL_key_update(pair.client.ssl, SSL_KEY_UPDATE_REQUESTED) == 1);
		if (i % 2)
			must(SSL_do_handshake(pair.client.ssl) == 1);
	}
	close_pair(&pair);
}
