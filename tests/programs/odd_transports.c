/* TLS over something other than a TCP socket that the library itself reads and writes. */
#define _GNU_SOURCE
#include "odd.h"

#include <netinet/in.h>

static void init_pair(struct pair *pair, const char *name, const char *transport)
{
	end_init(&pair->client, name, "client", transport);
	end_init(&pair->server, name, "server", transport);
	new_ssl(pair);
}

void over_socketpair(void)
{
	struct pair pair;
	int fds[2];

	init_pair(&pair, "socketpair", "unix");
	must(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	pair.client.fd = fds[0];
	pair.server.fd = fds[1];
	must(SSL_set_fd(pair.client.ssl, fds[0]) && SSL_set_fd(pair.server.ssl, fds[1]));
	handshake(&pair);
	chat(&pair);
	close_pair(&pair);
}

void over_pipe(void)
{
	struct pair pair;
	int up[2], down[2];

	init_pair(&pair, "pipe", "pipe");
	must(!pipe(up) && !pipe(down));
	must(SSL_set_rfd(pair.client.ssl, down[0]) && SSL_set_wfd(pair.client.ssl, up[1]));
	must(SSL_set_rfd(pair.server.ssl, up[0]) && SSL_set_wfd(pair.server.ssl, down[1]));
	handshake(&pair);
	chat(&pair);
	close_pair(&pair);
}

static void memory_bios(struct end *end)
{
	BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());

	must(in && out);
	BIO_set_mem_eof_return(in, -1);
	BIO_set_mem_eof_return(out, -1);
	SSL_set_bio(end->ssl, in, out);
}

/* Carries what `from` has ready to `to`, in pieces that cut records anywhere. */
typedef void carry(const void *bytes, int len, struct end *from, struct end *to);

static int pump(struct end *from, struct end *to, carry *carry_bytes)
{
	unsigned char buf[7001];
	int n, moved = 0;

	while ((n = BIO_read(SSL_get_wbio(from->ssl), buf, sizeof(buf))) > 0) {
		carry_bytes(buf, n, from, to);
		moved = 1;
	}
	return moved;
}

static void pumped_handshake(struct pair *pair, carry *carry_bytes)
{
	int client = 0, server = 0;

	while (client != 1 || server != 1) {
		if (client != 1)
			client = SSL_connect(pair->client.ssl);
		pump(&pair->client, &pair->server, carry_bytes);
		if (server != 1)
			server = SSL_accept(pair->server.ssl);
		pump(&pair->server, &pair->client, carry_bytes);
	}
}

static void pumped_send(struct end *from, struct end *to, size_t len, carry *carry_bytes)
{
	send_bytes(from, len);
	pump(from, to, carry_bytes);
	recv_bytes(to, len);
}

static void pumped_chat(struct pair *pair, carry *carry_bytes)
{
	pumped_handshake(pair, carry_bytes);
	for (int i = 0; i < 5; i++) {
		pumped_send(&pair->client, &pair->server, 100 + i, carry_bytes);
		pumped_send(&pair->server, &pair->client, 20000, carry_bytes);
	}
}

/* The program itself moves the records between the memory and a socket, as asyncio does. */
static void carry_by_socket(const void *bytes, int len, struct end *from, struct end *to)
{
	unsigned char buf[8000];
	int got = 0;

	must(write(from->fd, bytes, len) == len);
	while (got < len) {
		int n = read(to->fd, buf + got, len - got);

		must(n > 0);
		got += n;
	}
	must(BIO_write(SSL_get_rbio(to->ssl), buf, len) == len);
}

void over_memory(void)
{
	struct pair pair;

	init_pair(&pair, "memory", "mem");
	tcp_pair(&pair.client.fd, &pair.server.fd);
	find_addresses(&pair.client);
	find_addresses(&pair.server);
	memory_bios(&pair.client);
	memory_bios(&pair.server);
	pumped_chat(&pair, carry_by_socket);
	close_pair(&pair);
}

static BIO *network_side[2];

static int pump_bio_pair(struct end *from, struct end *to, BIO *source, BIO *sink)
{
	unsigned char buf[5003], copy[5003];
	int n = BIO_read(source, buf, sizeof(buf)), got = 0;

	if (n <= 0)
		return 0;
	must(write(from->fd, buf, n) == n);
	while (got < n) {
		int part = read(to->fd, copy + got, n - got);

		must(part > 0);
		got += part;
	}
	must(BIO_write(sink, copy, n) == n);
	return n;
}

static int pump_both(struct pair *pair)
{
	int moved = pump_bio_pair(&pair->client, &pair->server, network_side[0], network_side[1]);

	return moved + pump_bio_pair(&pair->server, &pair->client, network_side[1], network_side[0]);
}

static void bio_pair_send(struct pair *pair, struct end *from, struct end *to, size_t len)
{
	unsigned char *bytes = malloc(len), buf[3000];
	uint64_t goal = to->in_len + len;
	int n, written = 0;

	must(bytes);
	fill(from, bytes, len);
	while (to->in_len < goal) {
		if (!written) {
			/* fails until the pump has made room for all of it: a retry of the same call */
			n = SSL_write(from->ssl, bytes, len);
			written = n > 0;
			from->retries += n <= 0;
			if (written)
				end_wrote(from, bytes, n);
		}
		pump_both(pair);
		while ((n = SSL_read(to->ssl, buf, sizeof(buf))) > 0)
			end_read(to, buf, n);
	}
	free(bytes);
}

void over_bio_pair(void)
{
	struct pair pair;
	struct end *ends[] = { &pair.client, &pair.server };
	int client = 0, server = 0;

	init_pair(&pair, "bio-pair", "mem");
	tcp_pair(&pair.client.fd, &pair.server.fd);
	find_addresses(&pair.client);
	find_addresses(&pair.server);
	for (int i = 0; i < 2; i++) {
		BIO *inner;

		must(BIO_new_bio_pair(&inner, 6000, &network_side[i], 6000));
		SSL_set_bio(ends[i]->ssl, inner, inner);
	}
	while (client != 1 || server != 1) {
		if (client != 1)
			client = SSL_connect(pair.client.ssl);
		if (server != 1)
			server = SSL_accept(pair.server.ssl);
		pump_both(&pair);
	}
	bio_pair_send(&pair, &pair.client, &pair.server, 40000);
	bio_pair_send(&pair, &pair.server, &pair.client, 90000);
	bio_pair_send(&pair, &pair.client, &pair.server, 1);
	close_pair(&pair);
}

static struct pair outer;

/* The records of the inner connection are the plaintext of the outer one. */
static void carry_by_tls(const void *bytes, int len, struct end *from, struct end *to)
{
	struct end *via = from->role[0] == 'c' ? &outer.client : &outer.server;
	struct end *out = from->role[0] == 'c' ? &outer.server : &outer.client;
	unsigned char buf[8000];
	int got = 0;

	must(SSL_write(via->ssl, bytes, len) == len);
	end_wrote(via, bytes, len);
	while (got < len) {
		int n = SSL_read(out->ssl, buf + got, len - got);

		must(n > 0);
		end_read(out, buf + got, n);
		got += n;
	}
	must(BIO_write(SSL_get_rbio(to->ssl), buf, len) == len);
}

void tls_in_tls_memory(void)
{
	struct pair inner;

	open_pair(&outer, "outer");
	init_pair(&inner, "inner", "mem");
	memory_bios(&inner.client);
	memory_bios(&inner.server);
	pumped_chat(&inner, carry_by_tls);
	close_pair(&inner);
	close_pair(&outer);
}

/* Keeps the books of an outer connection whose calls the library makes by itself. */
static long watch_bio(BIO *bio, int oper, const char *argp, size_t len, int argi, long argl, int ret,
		      size_t *processed)
{
	struct end *end = (void *)BIO_get_callback_arg(bio);

	(void)len, (void)argi, (void)argl;
	if (ret > 0 && processed && oper == (BIO_CB_WRITE | BIO_CB_RETURN))
		end_wrote(end, argp, *processed);
	if (ret > 0 && processed && oper == (BIO_CB_READ | BIO_CB_RETURN))
		end_read(end, argp, *processed);
	return ret;
}

static BIO *bio_over(struct end *end)
{
	BIO *bio = BIO_new(BIO_f_ssl());

	must(bio);
	BIO_set_ssl(bio, end->ssl, BIO_NOCLOSE);
	BIO_set_callback_ex(bio, watch_bio);
	BIO_set_callback_arg(bio, (void *)end);
	return bio;
}

void tls_in_tls_bio(void)
{
	struct pair inner;
	BIO *bio;

	open_pair(&outer, "outer");
	init_pair(&inner, "inner", "tls");
	bio = bio_over(&outer.client);
	SSL_set_bio(inner.client.ssl, bio, bio);
	bio = bio_over(&outer.server);
	SSL_set_bio(inner.server.ssl, bio, bio);
	handshake(&inner);
	chat(&inner);
	close_pair(&inner);
	close_pair(&outer);
}

static void bio_send(BIO *bio, struct end *end, size_t len)
{
	unsigned char *bytes = malloc(len);

	must(bytes);
	fill(end, bytes, len);
	must(BIO_write(bio, bytes, len) == (int)len);
	end_wrote(end, bytes, len);
	free(bytes);
}

static void bio_recv(BIO *bio, struct end *end, size_t len)
{
	unsigned char buf[2500];

	while (len) {
		int n = BIO_read(bio, buf, len < sizeof(buf) ? len : sizeof(buf));

		must(n > 0);
		end_read(end, buf, n);
		len -= n;
	}
}

static void *serve_bio(void *arg)
{
	struct end *end = arg;
	BIO *bio = BIO_new_ssl(server_ctx, 0);
	unsigned char buf[100];

	must((end->fd = accept(end->fd, NULL, NULL)) >= 0);
	find_addresses(end);
	must(bio && BIO_get_ssl(bio, &end->ssl) == 1);
	BIO_push(bio, BIO_new_socket(end->fd, BIO_NOCLOSE));
	must(BIO_do_handshake(bio) == 1);
	bio_recv(bio, end, 6);
	bio_send(bio, end, 5000);
	bio_recv(bio, end, 30000);
	must(BIO_read(bio, buf, sizeof(buf)) <= 0);
	end_report(end);
	BIO_free_all(bio);
	return NULL;
}

/* As `openssl s_client` does it: no exported read or write function is ever called. */
void ssl_bio(void)
{
	struct pair pair;
	pthread_t server;
	BIO *bio = BIO_new_ssl_connect(client_ctx);
	int listener = listen_on("127.0.0.1");
	char port[16];
	struct sockaddr_in address;
	socklen_t len = sizeof(address);

	end_init(&pair.client, "ssl-bio", "client", "tcp");
	end_init(&pair.server, "ssl-bio", "server", "tcp");
	pair.server.fd = listener;
	must(!pthread_create(&server, NULL, serve_bio, &pair.server));
	must(!getsockname(listener, (void *)&address, &len));
	snprintf(port, sizeof(port), "%u", ntohs(address.sin_port));
	must(BIO_get_ssl(bio, &pair.client.ssl) == 1);
	must(SSL_set_tlsext_host_name(pair.client.ssl, "odd.lab.test"));
	BIO_set_conn_hostname(bio, "127.0.0.1");
	BIO_set_conn_port(bio, port);
	must(BIO_do_connect(bio) == 1);
	must(BIO_do_handshake(bio) == 1);
	must(BIO_get_fd(bio, &pair.client.fd) >= 0);
	find_addresses(&pair.client);
	must(BIO_puts(bio, "hello\n") == 6);
	end_wrote(&pair.client, "hello\n", 6);
	bio_recv(bio, &pair.client, 5000);
	bio_send(bio, &pair.client, 30000);
	BIO_ssl_shutdown(bio);
	pthread_join(server, NULL);
	end_report(&pair.client);
	BIO_free_all(bio);
}
