/* Calls SSL_write or SSL_read in a closed loop and says what a call costs its thread.
 *
 *   tls_loop write|idle SIZE THREADS pair|null
 *
 * "write" sends SIZE bytes a call; "idle" reads where nothing comes (SSL_ERROR_WANT_READ). With
 * "pair" each connection is a socket pair whose other end is drained by a thread of its own, with
 * "null" what is written goes into BIO_s_null and no system call is left. The pid is the first
 * line of the output. Each line "SECONDS RATE" on standard input (RATE calls a second and thread,
 * 0: as many as possible) is answered by "CALLS CPU_NANOSECONDS SECONDS".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_SIZE (1 << 20)
#define MAX_THREADS 64
#define CALLS_PER_LOOK 16
#define CHECK(what)                                                                                \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "tls_loop: failed: %s\n", #what);                          \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

struct worker {
	SSL *ssl, *peer;
	int peer_fd;
	pthread_t thread;
	double calls, cpu, elapsed;
};

static struct worker workers[MAX_THREADS];
static char payload[MAX_SIZE];
static int size, idle;
static double seconds, rate;

static double now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static SSL_CTX *server_ctx(void)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	X509 *cert = X509_new();

	CHECK(ctx && key && cert);
	X509_gmtime_adj(X509_getm_notBefore(cert), 0);
	X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
	X509_set_pubkey(cert, key);
	X509_sign(cert, key, EVP_sha256());
	CHECK(SSL_CTX_use_certificate(ctx, cert) == 1);
	CHECK(SSL_CTX_use_PrivateKey(ctx, key) == 1);
	SSL_CTX_set_num_tickets(ctx, 0);
	return ctx;
}

/* Takes what comes, without decrypting it: the cost of the peer is none of our business. */
static void *drain(void *arg)
{
	static __thread char buf[1 << 18];
	struct worker *worker = arg;

	CHECK(SSL_accept(worker->peer) == 1);
	while (read(worker->peer_fd, buf, sizeof(buf)) > 0)
		;
	return NULL;
}

static void connect_worker(struct worker *worker, SSL_CTX *server, SSL_CTX *client, int null)
{
	int fds[2], room = 1 << 20;
	pthread_t thread;

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	worker->peer_fd = fds[1];
	worker->peer = SSL_new(server);
	worker->ssl = SSL_new(client);
	SSL_set_fd(worker->peer, fds[1]);
	SSL_set_fd(worker->ssl, fds[0]);
	CHECK(!pthread_create(&thread, NULL, drain, worker));
	CHECK(SSL_connect(worker->ssl) == 1);
	if (null)
		SSL_set0_wbio(worker->ssl, BIO_new(BIO_s_null()));
	if (idle)
		CHECK(!fcntl(fds[0], F_SETFL, O_NONBLOCK));
}

static void call(SSL *ssl)
{
	static __thread char buf[4096];

	if (idle)
		CHECK(SSL_read(ssl, buf, sizeof(buf)) == -1);
	else
		CHECK(SSL_write(ssl, payload, size) == size);
}

static void *work(void *arg)
{
	struct worker *worker = arg;
	double start = now(CLOCK_MONOTONIC), cpu = now(CLOCK_THREAD_CPUTIME_ID), elapsed;

	worker->calls = 0;
	while ((elapsed = now(CLOCK_MONOTONIC) - start) < seconds * 1e9) {
		if (rate && worker->calls > elapsed * rate / 1e9) {
			usleep(200);
			continue;
		}
		for (int i = 0; i < CALLS_PER_LOOK; i++)
			call(worker->ssl);
		worker->calls += CALLS_PER_LOOK;
	}
	worker->cpu = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
	worker->elapsed = elapsed;
	return NULL;
}

int main(int argc, char **argv)
{
	SSL_CTX *server = server_ctx(), *client = SSL_CTX_new(TLS_client_method());
	int threads, null, i;
	char line[128];

	CHECK(argc == 5);
	idle = !strcmp(argv[1], "idle");
	size = atoi(argv[2]);
	threads = atoi(argv[3]);
	null = !strcmp(argv[4], "null");
	CHECK(size > 0 && size <= MAX_SIZE && threads > 0 && threads <= MAX_THREADS);
	memset(payload, '~', sizeof(payload));
	for (i = 0; i < threads; i++)
		connect_worker(&workers[i], server, client, null);
	printf("%d\n", getpid());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		double calls = 0, cpu = 0, elapsed = 0;

		CHECK(sscanf(line, "%lf %lf", &seconds, &rate) == 2);
		for (i = 0; i < threads; i++)
			CHECK(!pthread_create(&workers[i].thread, NULL, work, &workers[i]));
		for (i = 0; i < threads; i++) {
			pthread_join(workers[i].thread, NULL);
			calls += workers[i].calls;
			cpu += workers[i].cpu;
			if (workers[i].elapsed > elapsed)
				elapsed = workers[i].elapsed;
		}
		printf("%.0f %.0f %.6f\n", calls, cpu, elapsed / 1e9);
		fflush(stdout);
	}
	return 0;
}
