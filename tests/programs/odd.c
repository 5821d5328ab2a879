/* Does each odd thing that a program can do with libssl, and prints what it passed to it. */
#define _GNU_SOURCE
#include "odd.h"
#include "crc.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

struct options options = { .version = TLS1_3_VERSION, .host = "127.0.0.1" };
SSL_CTX *client_ctx, *server_ctx;

static const struct {
	const char *name;
	scenario *run;
} scenarios[] = {
	{ "plain", plain },
	{ "want-write", want_write },
	{ "want-write-partial", want_write_partial },
	{ "want-write-moving", want_write_moving },
	{ "want-write-both", want_write_both },
	{ "peek", peek },
	{ "ex", ex },
	{ "big", big },
	{ "tiny", tiny },
	{ "mapped", mapped },
	{ "early-data", early_data },
	{ "half-close", half_close },
	{ "renegotiate", renegotiate },
	{ "key-update", key_update },
	{ "fork", forked },
	{ "fork-both", forked_both },
	{ "reuse", reuse },
	{ "clear", cleared },
	{ "threads", threads },
	{ "exec", exec_first },
	{ "exec-second", exec_second },
	{ "verify-socket", verify_socket },
	{ "verify-tls", verify_tls },
	{ "many", many },
	{ "crowd", crowd },
	{ "tls-in-tls-memory", tls_in_tls_memory },
	{ "tls-in-tls-bio", tls_in_tls_bio },
	{ "socketpair", over_socketpair },
	{ "pipe", over_pipe },
	{ "memory", over_memory },
	{ "bio-pair", over_bio_pair },
	{ "ssl-bio", ssl_bio },
	{ "waiting", waiting },
};

void die(const char *what)
{
	fprintf(stderr, "odd: failed: %s\n", what);
	ERR_print_errors_fp(stderr);
	exit(3);
}

void gate(const char *name)
{
	static int passed;
	const char *wanted = getenv("ODD_GATE");
	char c;

	if (passed || !wanted || strcmp(wanted, name))
		return;
	passed = 1;
	must(write(1, "ready\n", 6) == 6);
	while (read(0, &c, 1) == 1 && c != '\n')
		;
}

void end_init(struct end *end, const char *name, const char *role, const char *transport)
{
	memset(end, 0, sizeof(*end));
	snprintf(end->name, sizeof(end->name), "%s", name);
	end->role = role;
	end->transport = transport;
	end->fd = -1;
}

void end_wrote(struct end *end, const void *bytes, size_t len)
{
	end->out_crc = crc32(end->out_crc, bytes, len);
	end->out_len += len;
}

void end_read(struct end *end, const void *bytes, size_t len)
{
	end->in_crc = crc32(end->in_crc, bytes, len);
	end->in_len += len;
}

void end_forget(struct end *end)
{
	end->out_len = end->in_len = 0;
	end->out_crc = end->in_crc = 0;
}

static void address_text(const struct sockaddr_storage *address, char *text, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "";

	if (address->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)address;
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(text, size, "%s:%u", host, ntohs(in->sin_port));
	} else if (address->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in = (const void *)address;
		inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof(host));
		snprintf(text, size, "[%s]:%u", host, ntohs(in->sin6_port));
	} else {
		*text = 0;
	}
}

void find_addresses(struct end *end)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);

	if (end->fd < 0 || end->local[0])
		return;
	if (!getsockname(end->fd, (void *)&address, &len))
		address_text(&address, end->local, sizeof(end->local));
	len = sizeof(address);
	if (!getpeername(end->fd, (void *)&address, &len))
		address_text(&address, end->remote, sizeof(end->remote));
}

static void find_alpn(struct end *end)
{
	const unsigned char *alpn = NULL;
	unsigned len = 0;

	SSL_get0_alpn_selected(end->ssl, &alpn, &len);
	if (!end->alpn[0] && len < sizeof(end->alpn))
		memcpy(end->alpn, alpn ? (const char *)alpn : "", len);
}

void end_report(struct end *end)
{
	char line[1024];
	const char *sni = NULL, *version = "";
	int len;

	find_addresses(end);
	if (end->ssl) {
		find_alpn(end);
		sni = SSL_get_servername(end->ssl, TLSEXT_NAMETYPE_host_name);
		version = SSL_version(end->ssl) == TLS1_3_VERSION ? "1.3" : "1.2";
	}
	len = snprintf(line, sizeof(line),
		       "{\"name\":\"%s\",\"pid\":%d,\"role\":\"%s\",\"transport\":\"%s\","
		       "\"local\":\"%s\",\"remote\":\"%s\",\"version\":\"%s\",\"sni\":\"%s\","
		       "\"alpn\":\"%s\",\"out\":{\"len\":%llu,\"crc\":%u},"
		       "\"in\":{\"len\":%llu,\"crc\":%u},\"retries\":%u}\n",
		       end->name, getpid(), end->role, end->transport, end->local, end->remote,
		       version, sni ? sni : "", end->alpn,
		       (unsigned long long)end->out_len, end->out_crc,
		       (unsigned long long)end->in_len, end->in_crc, end->retries);
	/* one write, so that lines of threads and of a forked child do not mix */
	must(write(1, line, len) == len);
}

void fill_at(const struct end *end, uint64_t offset, void *buf, size_t len)
{
	char record[64];
	unsigned char *at = buf;

	while (len) {
		uint64_t skip = offset % 32;
		size_t part = 32 - skip < len ? 32 - skip : len;

		snprintf(record, sizeof(record), "%-13.13s%c %015llx\n", end->name, end->role[0],
			 (unsigned long long)(offset - skip));
		/* 31 characters and their end: the end is a byte no text has */
		memcpy(at, record + skip, part);
		at += part;
		offset += part;
		len -= part;
	}
}

void fill(const struct end *end, void *buf, size_t len)
{
	fill_at(end, end->out_len, buf, len);
}

void send_bytes(struct end *end, size_t len)
{
	unsigned char *buf = malloc(len);

	must(buf);
	fill(end, buf, len);
	must(SSL_write(end->ssl, buf, len) == (int)len);
	end_wrote(end, buf, len);
	free(buf);
}

void recv_bytes(struct end *end, size_t len)
{
	unsigned char buf[20000];

	while (len) {
		int n = SSL_read(end->ssl, buf, len < sizeof(buf) ? len : sizeof(buf));

		must(n > 0);
		end_read(end, buf, n);
		len -= n;
	}
}

struct receiving {
	struct end *end;
	size_t len;
};

static void *receive(void *arg)
{
	struct receiving *receiving = arg;

	recv_bytes(receiving->end, receiving->len);
	return NULL;
}

void transfer(struct end *from, struct end *to, size_t len, size_t chunk)
{
	struct receiving receiving = { to, len };
	pthread_t reader;

	must(!pthread_create(&reader, NULL, receive, &receiving));
	for (size_t sent = 0; sent < len; sent += chunk)
		send_bytes(from, len - sent < chunk ? len - sent : chunk);
	pthread_join(reader, NULL);
}

void chat(struct pair *pair)
{
	send_bytes(&pair->client, 100);
	recv_bytes(&pair->server, 100);
	send_bytes(&pair->server, 5000);
	recv_bytes(&pair->client, 1234);
	recv_bytes(&pair->client, 5000 - 1234);
	transfer(&pair->client, &pair->server, 70000, 70000);
	send_bytes(&pair->server, 17);
	recv_bytes(&pair->client, 17);
}

int listen_on(const char *host)
{
	struct sockaddr_storage address = { 0 };
	socklen_t len;
	int fd;

	if (strchr(host, ':')) {
		struct sockaddr_in6 *in = (void *)&address;
		in->sin6_family = AF_INET6;
		must(inet_pton(AF_INET6, host, &in->sin6_addr) == 1);
		len = sizeof(*in);
	} else {
		struct sockaddr_in *in = (void *)&address;
		in->sin_family = AF_INET;
		must(inet_pton(AF_INET, host, &in->sin_addr) == 1);
		len = sizeof(*in);
	}
	must((fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
	must(!bind(fd, (void *)&address, len));
	must(!listen(fd, 4096));
	return fd;
}

int connect_to(int listener)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	int fd, one = 1;

	must(!getsockname(listener, (void *)&address, &len));
	must((fd = socket(address.ss_family, SOCK_STREAM, 0)) >= 0);
	must(!connect(fd, (void *)&address, len));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

void tcp_pair(int *client, int *server)
{
	int listener = listen_on(options.host), one = 1;

	*client = connect_to(listener);
	must((*server = accept(listener, NULL, NULL)) >= 0);
	setsockopt(*server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	close(listener);
}

void set_nonblocking(int fd, int on)
{
	int flags = fcntl(fd, F_GETFL);

	must(!fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK));
}

static void *accept_tls(void *arg)
{
	struct end *end = arg;

	must(SSL_accept(end->ssl) == 1);
	return NULL;
}

void handshake(struct pair *pair)
{
	pthread_t thread;

	find_addresses(&pair->client);
	find_addresses(&pair->server);
	must(!pthread_create(&thread, NULL, accept_tls, &pair->server));
	must(SSL_connect(pair->client.ssl) == 1);
	pthread_join(thread, NULL);
	find_alpn(&pair->client);
	find_alpn(&pair->server);
}

void new_ssl(struct pair *pair)
{
	must((pair->client.ssl = SSL_new(client_ctx)));
	must((pair->server.ssl = SSL_new(server_ctx)));
	must(SSL_set_tlsext_host_name(pair->client.ssl, "odd.lab.test"));
}

void open_pair(struct pair *pair, const char *name)
{
	end_init(&pair->client, name, "client", "tcp");
	end_init(&pair->server, name, "server", "tcp");
	tcp_pair(&pair->client.fd, &pair->server.fd);
	new_ssl(pair);
	must(SSL_set_fd(pair->client.ssl, pair->client.fd));
	must(SSL_set_fd(pair->server.ssl, pair->server.fd));
	handshake(pair);
	if (getenv("ODD_GATE") && !strcmp(getenv("ODD_GATE"), "open")) {
		chat(pair);
		gate("open");
		end_forget(&pair->client);
		end_forget(&pair->server);
	}
}

void close_pair(struct pair *pair)
{
	struct end *ends[] = { &pair->client, &pair->server };

	/* a second SSL_shutdown would wait for the other end, which is this thread */
	for (int i = 0; i < 2; i++)
		if (!(SSL_get_shutdown(ends[i]->ssl) & SSL_SENT_SHUTDOWN))
			SSL_shutdown(ends[i]->ssl);
	for (int i = 0; i < 2; i++) {
		end_report(ends[i]);
		SSL_free(ends[i]->ssl);
		if (ends[i]->fd >= 0)
			close(ends[i]->fd);
	}
}

static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
		       const unsigned char *in, unsigned in_len, void *arg)
{
	(void)ssl, (void)arg;
	/* `in` lives on the caller's stack: point into it, as the documentation allows */
	if (in_len < 1 || in[0] > in_len - 1)
		return SSL_TLSEXT_ERR_NOACK;
	*out = in + 1;
	*out_len = in[0];
	return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *new_ctx(const SSL_METHOD *method)
{
	SSL_CTX *ctx = SSL_CTX_new(method);

	must(ctx);
	must(SSL_CTX_set_min_proto_version(ctx, options.version));
	must(SSL_CTX_set_max_proto_version(ctx, options.version));
	return ctx;
}

static void make_contexts(void)
{
	static const unsigned char protocols[] = "\7odd/1.0";

	client_ctx = new_ctx(TLS_client_method());
	server_ctx = new_ctx(TLS_server_method());
	must(!SSL_CTX_set_alpn_protos(client_ctx, protocols, sizeof(protocols) - 1));
	SSL_CTX_set_alpn_select_cb(server_ctx, choose_alpn, NULL);
	must(SSL_CTX_use_certificate_chain_file(server_ctx, options.cert) == 1);
	must(SSL_CTX_use_PrivateKey_file(server_ctx, options.key, SSL_FILETYPE_PEM) == 1);
}

int main(int argc, char **argv)
{
	const char *name = NULL;

	options.self = argv[0];
	options.cert = getenv("LAB_CERT");
	options.key = getenv("LAB_KEY");
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--tls1.2"))
			options.version = TLS1_2_VERSION;
		else if (!strcmp(argv[i], "--host") && i + 1 < argc)
			options.host = argv[++i];
		else
			name = argv[i];
	}
	if (!name) {
		for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++)
			puts(scenarios[i].name);
		return 0;
	}
	must(options.cert && options.key);
	crc_init();
	gate("start");
	make_contexts();
	for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++)
		if (!strcmp(name, scenarios[i].name)) {
			scenarios[i].run();
			return 0;
		}
	die("no such scenario");
}
