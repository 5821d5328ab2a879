/* Reads that have begun when the capture does: each thread waits in one, in its own way. */
#include "odd.h"

enum { SENT = 3000, READ = 2000, ROUNDS = 3 };

struct waiter {
	struct pair pair;
	pthread_t thread;
	void (*wait)(struct end *end);
};

static void with_read(struct end *end)
{
	recv_bytes(end, READ);
}

static void with_read_ex(struct end *end)
{
	unsigned char buf[READ];
	size_t count = 0;

	must(SSL_read_ex(end->ssl, buf, sizeof(buf), &count) == 1);
	end_read(end, buf, count);
	recv_bytes(end, READ - count);
}

static void with_bio(struct end *end)
{
	unsigned char buf[READ];
	BIO *bio = BIO_new(BIO_f_ssl());
	int count;

	must(bio);
	BIO_set_ssl(bio, end->ssl, BIO_NOCLOSE);
	must((count = BIO_read(bio, buf, sizeof(buf))) > 0);
	end_read(end, buf, count);
	recv_bytes(end, READ - count);
	BIO_free(bio);
}

/* Not in TLS, but on its socket, with what is left on the stack of the read before. */
static void in_plain_read(struct end *end)
{
	char c;

	must(recv(end->fd, &c, 1, MSG_PEEK) == 1);
	recv_bytes(end, READ);
}

static void in_peek(struct end *end)
{
	char c;

	must(SSL_peek(end->ssl, &c, 1) == 1);
	recv_bytes(end, READ);
}

static void *read_twice(void *arg)
{
	struct waiter *waiter = arg;
	struct end *end = &waiter->pair.server;

	recv_bytes(end, 100);
	send_bytes(end, 100);
	end_forget(end);
	for (int i = 0; i < ROUNDS; i++) {
		waiter->wait(end);
		recv_bytes(end, SENT - READ);
	}
	return NULL;
}

void waiting(void)
{
	static void (*const ways[])(struct end *) = {
		with_read, with_read, with_read_ex, with_bio, in_plain_read, in_peek,
	};
	enum { COUNT = sizeof(ways) / sizeof(*ways) };
	static struct waiter waiters[COUNT];

	for (int i = 0; i < COUNT; i++) {
		char name[20];

		snprintf(name, sizeof(name), "waiting-%d", i);
		open_pair(&waiters[i].pair, name);
		waiters[i].wait = ways[i];
		must(!pthread_create(&waiters[i].thread, NULL, read_twice, &waiters[i]));
		send_bytes(&waiters[i].pair.client, 100);
		recv_bytes(&waiters[i].pair.client, 100);
		end_forget(&waiters[i].pair.client);
	}
	/* by now all of them sleep */
	usleep(300 * 1000);
	gate("waiting");
	for (int round = 0; round < ROUNDS; round++)
		for (int i = 0; i < COUNT; i++)
			send_bytes(&waiters[i].pair.client, SENT);
	for (int i = 0; i < COUNT; i++) {
		pthread_join(waiters[i].thread, NULL);
		close_pair(&waiters[i].pair);
	}
}
