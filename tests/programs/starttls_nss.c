/* A client that speaks plainly first, through NSS too, and then begins TLS on the same descriptor, as
 * mail programs do. The other end is OpenSSL. Prints what both passed under TLS. */
#define _GNU_SOURCE
#include "crc.h"

#include <arpa/inet.h>
#include <nspr.h>
#include <nss.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ASK "STARTTLS, in plain words\r\n"
#define READY "220 begin\r\n"
#define SAID "EHLO under TLS\r\n"
#define ANSWER_LEN 40000

static const char *cert, *key;
static int listener;

static void must_be(int holds, int line)
{
	if (holds)
		return;
	fprintf(stderr, "starttls_nss: failed in line %d\n", line);
	exit(3);
}

#define must(holds) must_be(!!(holds), __LINE__)

static void fill(char *answer)
{
	for (int i = 0; i < ANSWER_LEN; i++)
		answer[i] = (i * 2654435761u) >> 13;
}

static void *serve(void *unused)
{
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	int fd = accept(listener, NULL, NULL);
	static char buf[64], answer[ANSWER_LEN];
	SSL *tls;

	(void)unused;
	must(SSL_CTX_use_certificate_file(context, cert, SSL_FILETYPE_PEM) == 1);
	must(SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) == 1);
	must(read(fd, buf, sizeof(buf)) == strlen(ASK));
	must(write(fd, READY, strlen(READY)) == strlen(READY));
	tls = SSL_new(context);
	SSL_set_fd(tls, fd);
	must(SSL_accept(tls) == 1);
	must(SSL_read(tls, buf, sizeof(buf)) == strlen(SAID));
	fill(answer);
	must(SSL_write(tls, answer, ANSWER_LEN) == ANSWER_LEN);
	SSL_read(tls, buf, sizeof(buf));
	SSL_free(tls);
	close(fd);
	return NULL;
}

static SECStatus believe(void *arg, PRFileDesc *fd, PRBool check, PRBool is_server)
{
	(void)arg, (void)fd, (void)check, (void)is_server;
	return SECSuccess;
}

static void report(const char *role, const char *local, const char *remote, uint32_t out_len,
		   uint32_t out, uint32_t in_len, uint32_t in)
{
	printf("{\"name\":\"starttls\",\"pid\":%d,\"role\":\"%s\",\"transport\":\"tcp\","
	       "\"local\":\"%s\",\"remote\":\"%s\",\"version\":\"1.3\",\"sni\":\"lab.test\",\"alpn\":\"\","
	       "\"out\":{\"len\":%u,\"crc\":%u},\"in\":{\"len\":%u,\"crc\":%u}}\n",
	       getpid(), role, local, remote, out_len, out, in_len, in);
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t len = sizeof(address);
	char near[64], far[64], buf[64];
	static char answer[ANSWER_LEN], expected[ANSWER_LEN];
	PRNetAddr to, own;
	PRFileDesc *fd;
	pthread_t thread;
	uint32_t said, told;
	int got = 0, n;

	must(argc == 3);
	crc_init();
	cert = argv[1];
	key = argv[2];
	listener = socket(AF_INET, SOCK_STREAM, 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	must(!bind(listener, (void *)&address, len) && !listen(listener, 1));
	must(!getsockname(listener, (void *)&address, &len));
	must(!pthread_create(&thread, NULL, serve, NULL));

	must(NSS_NoDB_Init(NULL) == SECSuccess);
	NSS_SetDomesticPolicy();
	fd = SSL_ImportFD(NULL, PR_OpenTCPSocket(PR_AF_INET));
	must(fd);
	must(SSL_OptionSet(fd, SSL_SECURITY, PR_FALSE) == SECSuccess);
	must(SSL_OptionSet(fd, SSL_HANDSHAKE_AS_CLIENT, PR_TRUE) == SECSuccess);
	must(SSL_AuthCertificateHook(fd, believe, NULL) == SECSuccess);
	must(SSL_SetURL(fd, "lab.test") == SECSuccess);
	PR_InitializeNetAddr(PR_IpAddrLoopback, ntohs(address.sin_port), &to);
	must(PR_Connect(fd, &to, PR_INTERVAL_NO_TIMEOUT) == PR_SUCCESS);
	must(PR_GetSockName(fd, &own) == PR_SUCCESS);
	sprintf(near, "127.0.0.1:%u", ntohs(own.inet.port));
	sprintf(far, "127.0.0.1:%u", ntohs(address.sin_port));
	must(PR_Write(fd, ASK, strlen(ASK)) == (int)strlen(ASK));
	must(PR_Read(fd, buf, sizeof(buf)) == (int)strlen(READY));

	must(SSL_OptionSet(fd, SSL_SECURITY, PR_TRUE) == SECSuccess);
	must(SSL_ResetHandshake(fd, PR_FALSE) == SECSuccess);
	must(PR_Write(fd, SAID, strlen(SAID)) == (int)strlen(SAID));
	while (got < ANSWER_LEN) {
		n = PR_Read(fd, answer + got, ANSWER_LEN - got);
		must(n > 0);
		got += n;
	}
	fill(expected);
	must(!memcmp(answer, expected, ANSWER_LEN));
	PR_Close(fd);
	pthread_join(thread, NULL);
	said = crc32(0, (const void *)SAID, strlen(SAID));
	told = crc32(0, (const void *)expected, ANSWER_LEN);
	report("client", near, far, strlen(SAID), said, ANSWER_LEN, told);
	report("server", far, near, ANSWER_LEN, told, strlen(SAID), said);
	return 0;
}
