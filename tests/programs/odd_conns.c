/* Odd lives of connections: forked, reused, crowded, crossed by an exec. */
#define _GNU_SOURCE
#include "odd.h"

#include <errno.h>
#include <sys/wait.h>

static void *serve_child(void *arg)
{
	struct end *end = arg;

	recv_bytes(end, 1000);
	recv_bytes(end, 5000);
	send_bytes(end, 2000);
	recv_bytes(end, 3000);
	return NULL;
}

/* A child goes on with the connection of its parent: its bytes are its own. */
void forked(void)
{
	struct pair pair;
	pthread_t server;
	pid_t child;
	int status;

	open_pair(&pair, "fork");
	must(!pthread_create(&server, NULL, serve_child, &pair.server));
	send_bytes(&pair.client, 1000);
	must((child = fork()) >= 0);
	if (!child) {
		end_forget(&pair.client);
		send_bytes(&pair.client, 5000);
		recv_bytes(&pair.client, 2000);
		send_bytes(&pair.client, 3000);
		end_report(&pair.client);
		_exit(0);
	}
	must(waitpid(child, &status, 0) == child && status == 0);
	pthread_join(server, NULL);
	end_report(&pair.client);
	end_report(&pair.server);
}

static void *discard(void *arg)
{
	struct end *end = arg;
	char buf[4096];

	while (read(end->fd, buf, sizeof(buf)) > 0)
		;
	return NULL;
}

/* Parent and child write in turn. No peer could decrypt it, so the peer does not try to. */
void forked_both(void)
{
	struct pair pair;
	pthread_t peer;
	int to_child[2], to_parent[2], status;
	char turn = 0;
	pid_t child;

	open_pair(&pair, "fork-both");
	must(!pthread_create(&peer, NULL, discard, &pair.server));
	must(!pipe(to_child) && !pipe(to_parent));
	must((child = fork()) >= 0);
	for (int i = 0; i < 20; i++) {
		if (child) {
			send_bytes(&pair.client, 100 + i);
			must(write(to_child[1], &turn, 1) == 1);
			must(read(to_parent[0], &turn, 1) == 1);
		} else {
			must(read(to_child[0], &turn, 1) == 1);
			send_bytes(&pair.client, 200 + i);
			must(write(to_parent[1], &turn, 1) == 1);
		}
	}
	end_report(&pair.client);
	if (!child)
		_exit(0);
	must(waitpid(child, &status, 0) == child && status == 0);
	shutdown(pair.client.fd, SHUT_RDWR);
	pthread_join(peer, NULL);
}

/* Goes on until an SSL object has had the address of the one freed before it, five times. */
void reuse(void)
{
	unsigned reused = 0;
	SSL *previous = NULL;

	for (int i = 0; i < 60 && reused < 5; i++) {
		struct pair pair;
		char name[32];

		snprintf(name, sizeof(name), "reuse-%d", i);
		open_pair(&pair, name);
		reused += pair.client.ssl == previous;
		previous = pair.client.ssl;
		send_bytes(&pair.client, 40 + i);
		recv_bytes(&pair.server, 40 + i);
		send_bytes(&pair.server, 30);
		recv_bytes(&pair.client, 30);
		close_pair(&pair);
	}
	must(reused >= 5);
}

/* One SSL object for a row of connections, emptied by SSL_clear. */
void cleared(void)
{
	struct pair pair;
	int listener = listen_on(options.host);

	open_pair(&pair, "clear-0");
	for (int i = 1; i <= 5; i++) {
		struct pair next;
		char name[32];

		send_bytes(&pair.client, 500);
		recv_bytes(&pair.server, 500);
		send_bytes(&pair.server, 300);
		recv_bytes(&pair.client, 300);
		SSL_shutdown(pair.client.ssl);
		SSL_shutdown(pair.server.ssl);
		end_report(&pair.client);
		end_report(&pair.server);

		snprintf(name, sizeof(name), "clear-%d", i);
		end_init(&next.client, name, "client", "tcp");
		end_init(&next.server, name, "server", "tcp");
		next.client.ssl = pair.client.ssl;
		next.server.ssl = pair.server.ssl;
		must(SSL_clear(next.client.ssl) == 1);
		must(SSL_clear(next.server.ssl) == 1);
		next.client.fd = connect_to(listener);
		must((next.server.fd = accept(listener, NULL, NULL)) >= 0);
		must(SSL_set_fd(next.client.ssl, next.client.fd));
		must(SSL_set_fd(next.server.ssl, next.server.fd));
		handshake(&next);
		close(pair.client.fd);
		close(pair.server.fd);
		pair = next;
	}
	chat(&pair);
	close_pair(&pair);
}

static void *run_thread(void *arg)
{
	for (int i = 0; i < 12; i++) {
		struct pair pair, second;
		char name[32];

		/* two connections of one thread, in turn */
		snprintf(name, sizeof(name), "t%d-%da", (int)(intptr_t)arg, i);
		open_pair(&pair, name);
		snprintf(name, sizeof(name), "t%d-%db", (int)(intptr_t)arg, i);
		open_pair(&second, name);
		for (int j = 0; j < 5; j++) {
			send_bytes(&pair.client, 300 + j);
			send_bytes(&second.client, 20);
			recv_bytes(&second.server, 20);
			send_bytes(&second.server, 2000);
			recv_bytes(&pair.server, 300 + j);
			recv_bytes(&second.client, 2000);
		}
		close_pair(&pair);
		close_pair(&second);
	}
	return NULL;
}

void threads(void)
{
	pthread_t all[16];

	for (intptr_t i = 0; i < 16; i++)
		must(!pthread_create(&all[i], NULL, run_thread, (void *)i));
	for (int i = 0; i < 16; i++)
		pthread_join(all[i], NULL);
}

/* 2,000 connections one after the other. */
void many(void)
{
	for (int i = 0; i < 2000; i++) {
		struct pair pair;
		char name[32];

		snprintf(name, sizeof(name), "many-%d", i);
		open_pair(&pair, name);
		send_bytes(&pair.client, 60);
		recv_bytes(&pair.server, 60);
		close_pair(&pair);
	}
}

/* 2,000 connections that are all open at the same time. */
void crowd(void)
{
	enum { CONNS = 2000 };
	struct pair *pairs = calloc(CONNS, sizeof(*pairs));

	must(pairs);
	for (int i = 0; i < CONNS; i++) {
		char name[32];

		snprintf(name, sizeof(name), "crowd-%d", i);
		open_pair(&pairs[i], name);
	}
	for (int i = 0; i < CONNS; i++) {
		send_bytes(&pairs[i].client, 60);
		recv_bytes(&pairs[i].server, 60);
	}
	for (int i = 0; i < CONNS; i++)
		close_pair(&pairs[i]);
	free(pairs);
}

/* Two TLS sessions one after the other on one TCP connection; the client execs in between. */
static void serve_twice(int listener)
{
	struct end end;
	unsigned char buf[10];
	int fd = accept(listener, NULL, NULL);

	must(fd >= 0);
	for (int i = 1; i <= 2; i++) {
		end_init(&end, i == 1 ? "exec-1" : "exec-2", "server", "tcp");
		end.fd = fd;
		find_addresses(&end);
		must((end.ssl = SSL_new(server_ctx)));
		must(SSL_set_fd(end.ssl, fd));
		must(SSL_accept(end.ssl) == 1);
		recv_bytes(&end, 700);
		send_bytes(&end, 400);
		must(SSL_read(end.ssl, buf, sizeof(buf)) == 0);
		end_report(&end);
		SSL_free(end.ssl);
	}
}

static void exec_session(const char *name, int fd)
{
	struct end end;

	end_init(&end, name, "client", "tcp");
	end.fd = fd;
	find_addresses(&end);
	must((end.ssl = SSL_new(client_ctx)));
	must(SSL_set_tlsext_host_name(end.ssl, "odd.lab.test"));
	must(SSL_set_fd(end.ssl, fd));
	must(SSL_connect(end.ssl) == 1);
	send_bytes(&end, 700);
	recv_bytes(&end, 400);
	SSL_shutdown(end.ssl);
	end_report(&end);
}

void exec_first(void)
{
	int listener = listen_on(options.host), fd;
	char fd_text[16];
	pid_t server = fork();

	must(server >= 0);
	if (!server) {
		serve_twice(listener);
		_exit(0);
	}
	fd = connect_to(listener);
	exec_session("exec-1", fd);
	snprintf(fd_text, sizeof(fd_text), "%d", fd);
	setenv("ODD_FD", fd_text, 1);
	unsetenv("ODD_GATE");
	/* by the name it was started under, so that its command name stays the same */
	execl(options.self, options.self, "exec-second",
	      options.version == TLS1_2_VERSION ? "--tls1.2" : NULL, NULL);
	die("execl");
}

void exec_second(void)
{
	int status;

	must(getenv("ODD_FD"));
	exec_session("exec-2", atoi(getenv("ODD_FD")));
	must(wait(&status) > 0 && status == 0);
}

/* During its handshake the client talks to somebody else, in the same thread. */
static int talk_elsewhere(int ok, X509_STORE_CTX *store)
{
	int client, server;
	char buf[200];

	(void)ok, (void)store;
	tcp_pair(&client, &server);
	for (int i = 0; i < 10; i++) {
		must(send(client, "plain question", 14, 0) == 14);
		must(recv(server, buf, sizeof(buf), 0) > 0);
		must(send(server, "plain answer", 12, 0) == 12);
		must(recv(client, buf, sizeof(buf), 0) > 0);
	}
	close(client);
	close(server);
	return 1;
}

static int talk_tls_elsewhere(int ok, X509_STORE_CTX *store)
{
	static __thread int nested;
	struct pair pair;

	(void)ok, (void)store;
	if (nested)
		return 1;
	nested = 1;
	open_pair(&pair, "verify-inner");
	chat(&pair);
	close_pair(&pair);
	nested = 0;
	return 1;
}

void verify_socket(void)
{
	struct pair pair;

	SSL_CTX_set_verify(client_ctx, SSL_VERIFY_PEER, talk_elsewhere);
	open_pair(&pair, "verify-socket");
	chat(&pair);
	close_pair(&pair);
}

void verify_tls(void)
{
	struct pair pair;

	SSL_CTX_set_verify(client_ctx, SSL_VERIFY_PEER, talk_tls_elsewhere);
	open_pair(&pair, "verify-outer");
	chat(&pair);
	close_pair(&pair);
}
