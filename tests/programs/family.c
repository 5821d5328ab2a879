/* Talks to itself over TLS by one library, in the ways that it has, and prints what it passed. */
#define _GNU_SOURCE
#include "family.h"
#include "crc.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

#define PLAIN 300000
#define ODD 3000000

struct end {
	const char *role, *version;
	int fd;
	uint64_t out_len, in_len;
	uint32_t out_crc, in_crc;
};

static const char *cert, *key;

void fail(const char *what)
{
	fprintf(stderr, "family: failed: %s\n", what);
	exit(3);
}

static void wait_for_go(const char *gate)
{
	const char *wanted = getenv("ODD_GATE");
	char c;

	if (!wanted || strcmp(wanted, gate))
		return;
	must(write(1, "ready\n", 6) == 6);
	while (read(0, &c, 1) == 1 && c != '\n')
		;
}

static void tcp_pair(int *client, int *server)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t len = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	must(!bind(listener, (void *)&address, len) && !listen(listener, 1));
	must(!getsockname(listener, (void *)&address, &len));
	*client = socket(AF_INET, SOCK_STREAM, 0);
	must(!connect(*client, (void *)&address, len));
	*server = accept(listener, NULL, NULL);
	must(*server >= 0);
	close(listener);
}

/* No two places of a stream are alike. */
static void fill(char *buf, size_t len, uint64_t at)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = ((at + i) * 2654435761u) >> 13;
}

static void send_plainly(struct end *end, void *tls, size_t len)
{
	char *buf = malloc(len);
	size_t done = 0;

	fill(buf, len, end->out_len);
	while (done < len) {
		size_t most = len - done < 70000 ? len - done : 70000;
		ssize_t n = library.write(tls, buf + done, most);

		must(n > 0);
		done += n;
	}
	end->out_crc = crc32(end->out_crc, (const void *)buf, len);
	end->out_len += len;
	free(buf);
}

static void send_oddly(struct end *end, void *tls, size_t len)
{
	char *buf = malloc(len);

	fill(buf, len, end->out_len);
	library.write_oddly(tls, end->fd, buf, len);
	end->out_crc = crc32(end->out_crc, (const void *)buf, len);
	end->out_len += len;
	free(buf);
}

static void receive(struct end *end, void *tls, size_t len)
{
	static __thread char buf[50000];

	while (len) {
		ssize_t n = library.read(tls, buf, len < sizeof(buf) ? len : sizeof(buf));

		must(n > 0);
		end->in_crc = crc32(end->in_crc, (const void *)buf, n);
		end->in_len += n;
		len -= n;
		/* Slower than it is written. */
		usleep(100);
	}
}

static void *serve(void *argument)
{
	struct end *end = argument;
	void *tls = library.open(end->fd, 1, cert, key);

	receive(end, tls, PLAIN);
	send_plainly(end, tls, PLAIN / 2);
	if (library.write_oddly)
		receive(end, tls, ODD);
	send_plainly(end, tls, 5);
	library.close(tls);
	return NULL;
}

static void address_of(int fd, int (*get)(int, struct sockaddr *, socklen_t *), char *text)
{
	struct sockaddr_in address;
	socklen_t len = sizeof(address);

	must(!get(fd, (void *)&address, &len));
	sprintf(text, "%s:%u", inet_ntoa(address.sin_addr), ntohs(address.sin_port));
}

static void report(const struct end *end)
{
	char local[64], remote[64];

	address_of(end->fd, getsockname, local);
	address_of(end->fd, getpeername, remote);
	printf("{\"name\":\"family\",\"pid\":%d,\"role\":\"%s\",\"transport\":\"tcp\","
	       "\"local\":\"%s\",\"remote\":\"%s\",\"version\":\"%s\",\"sni\":\"\",\"alpn\":\"\","
	       "\"out\":{\"len\":%llu,\"crc\":%u},\"in\":{\"len\":%llu,\"crc\":%u}}\n",
	       getpid(), end->role, local, remote, end->version, (unsigned long long)end->out_len,
	       end->out_crc, (unsigned long long)end->in_len, end->in_crc);
}

int main(int argc, char **argv)
{
	struct end client = { .role = "client" }, server = { .role = "server" };
	pthread_t thread;
	void *tls;

	must(argc == 3);
	crc_init();
	cert = argv[1];
	key = argv[2];
	wait_for_go("start");
	/* Twice: the memory of the first connection's objects is used again. */
	for (int i = 0; i < 2; i++) {
		client = (struct end){ .role = "client" };
		server = (struct end){ .role = "server" };
		tcp_pair(&client.fd, &server.fd);
		must(!pthread_create(&thread, NULL, serve, &server));
		tls = library.open(client.fd, 0, cert, key);
		if (!i)
			wait_for_go("waiting");
		send_plainly(&client, tls, PLAIN);
		receive(&client, tls, PLAIN / 2);
		if (library.write_oddly)
			send_oddly(&client, tls, ODD);
		receive(&client, tls, 5);
		client.version = server.version = library.version ? library.version(tls) : "";
		library.close(tls);
		pthread_join(thread, NULL);
		report(&client);
		report(&server);
		close(client.fd);
		close(server.fd);
	}
	return 0;
}
