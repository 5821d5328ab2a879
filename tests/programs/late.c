/* Loads a libssl when it already runs, and uses it at once: late PATH-OF-LIBSSL. */
#define _GNU_SOURCE
#include "crc.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define must(condition)                                                  \
	do {                                                             \
		if (!(condition)) {                                      \
			fprintf(stderr, "late: failed: %s\n", #condition); \
			exit(3);                                         \
		}                                                        \
	} while (0)

#define LOAD(function) \
	__typeof__(function) *p_##function = (__typeof__(function) *)dlsym(lib, #function)

static void report(int fd, const char *role, const char *out, size_t out_len, const char *in,
		   size_t in_len)
{
	struct sockaddr_in local, remote;
	socklen_t len = sizeof(local);
	char local_text[32], remote_text[32];

	must(!getsockname(fd, (void *)&local, &len));
	len = sizeof(remote);
	must(!getpeername(fd, (void *)&remote, &len));
	inet_ntop(AF_INET, &local.sin_addr, local_text, sizeof(local_text));
	inet_ntop(AF_INET, &remote.sin_addr, remote_text, sizeof(remote_text));
	printf("{\"name\":\"late\",\"pid\":%d,\"role\":\"%s\",\"transport\":\"tcp\","
	       "\"local\":\"%s:%u\",\"remote\":\"%s:%u\",\"version\":\"1.3\",\"sni\":\"\",\"alpn\":\"\","
	       "\"out\":{\"len\":%zu,\"crc\":%u},\"in\":{\"len\":%zu,\"crc\":%u},\"retries\":0}\n",
	       getpid(), role, local_text, ntohs(local.sin_port), remote_text,
	       ntohs(remote.sin_port), out_len, crc32(0, (const void *)out, out_len), in_len,
	       crc32(0, (const void *)in, in_len));
}

int main(int argc, char **argv)
{
	static const char question[] = "the first bytes after dlopen\n", answer[] = "and the answer\n";
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t len = sizeof(address);
	int listener, client_fd, server_fd, connected = 0, accepted = 0;
	char buf[100], c;
	void *lib;

	must(argc == 2);
	crc_init();
	must((listener = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	must(!bind(listener, (void *)&address, len) && !listen(listener, 1));
	must(!getsockname(listener, (void *)&address, &len));
	must((client_fd = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
	must(!connect(client_fd, (void *)&address, len));
	must((server_fd = accept(listener, NULL, NULL)) >= 0);

	if (getenv("ODD_GATE")) {
		must(write(1, "ready\n", 6) == 6);
		while (read(0, &c, 1) == 1 && c != '\n')
			;
	}
	must((lib = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL)));
	LOAD(TLS_client_method);
	LOAD(TLS_server_method);
	LOAD(SSL_CTX_new);
	LOAD(SSL_CTX_use_certificate_chain_file);
	LOAD(SSL_CTX_use_PrivateKey_file);
	LOAD(SSL_new);
	LOAD(SSL_set_fd);
	LOAD(SSL_connect);
	LOAD(SSL_accept);
	LOAD(SSL_write);
	LOAD(SSL_read);
	LOAD(SSL_shutdown);
	LOAD(SSL_free);

	SSL_CTX *server_ctx = p_SSL_CTX_new(p_TLS_server_method());
	must(p_SSL_CTX_use_certificate_chain_file(server_ctx, getenv("LAB_CERT")) == 1);
	must(p_SSL_CTX_use_PrivateKey_file(server_ctx, getenv("LAB_KEY"), SSL_FILETYPE_PEM) == 1);
	SSL *server = p_SSL_new(server_ctx);
	SSL *client = p_SSL_new(p_SSL_CTX_new(p_TLS_client_method()));
	must(p_SSL_set_fd(client, client_fd) && p_SSL_set_fd(server, server_fd));
	/* one thread plays both ends: neither may wait for the other */
	fcntl(client_fd, F_SETFL, O_NONBLOCK);
	fcntl(server_fd, F_SETFL, O_NONBLOCK);
	for (int i = 0; i < 100000 && !(connected && accepted); i++) {
		connected = connected || p_SSL_connect(client) == 1;
		accepted = accepted || p_SSL_accept(server) == 1;
	}
	must(connected && accepted);
	fcntl(client_fd, F_SETFL, 0);
	fcntl(server_fd, F_SETFL, 0);
	must(p_SSL_write(client, question, sizeof(question)) == sizeof(question));
	must(p_SSL_read(server, buf, sizeof(buf)) == sizeof(question));
	must(p_SSL_write(server, answer, sizeof(answer)) == sizeof(answer));
	must(p_SSL_read(client, buf, sizeof(buf)) == sizeof(answer));
	report(client_fd, "client", question, sizeof(question), answer, sizeof(answer));
	report(server_fd, "server", answer, sizeof(answer), question, sizeof(question));
	p_SSL_shutdown(client);
	p_SSL_free(client);
	p_SSL_free(server);
	return 0;
}
