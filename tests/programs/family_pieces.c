/* No TLS: functions with the names and arguments of s2n's, or of NSS's methods, which count
 * as those do. What is tested is how calls of many pieces are counted. */
#include "family.h"

#include <sys/socket.h>

#define PIECES 40

/* So that no call can be taken for another. */
#define LIBRARY __attribute__((noinline, noipa))

struct connection {
	int fd;
};

static void *open_connection(int fd, int is_server, const char *cert, const char *key)
{
	struct connection *connection = malloc(sizeof(*connection));

	(void)is_server, (void)cert, (void)key;
	connection->fd = fd;
	return connection;
}

/* The pieces of {buf, len}, some of which are empty; returns how many. */
static int cut(struct iovec pieces[PIECES], const char *buf, size_t len)
{
	size_t done = 0;
	int n;

	for (n = 0; n < PIECES && done < len; n++) {
		size_t most = n % 5 == 3 ? 0 : 1 + n * 997;

		pieces[n].iov_base = (void *)(buf + done);
		pieces[n].iov_len = most < len - done ? most : len - done;
		done += pieces[n].iov_len;
	}
	return n;
}

#ifdef S2N
typedef int blocked;

LIBRARY ssize_t s2n_sendv_with_offset(struct connection *conn, const struct iovec *pieces,
				      ssize_t count, ssize_t offset, blocked *blocked)
{
	struct iovec rest[PIECES];
	int n = 0;

	*blocked = 0;
	for (ssize_t i = 0; i < count; i++) {
		ssize_t skip = offset < (ssize_t)pieces[i].iov_len ? offset : (ssize_t)pieces[i].iov_len;

		offset -= skip;
		if (offset)
			continue;
		rest[n].iov_base = (char *)pieces[i].iov_base + skip;
		rest[n++].iov_len = pieces[i].iov_len - skip;
	}
	/* Not all that it could. */
	if (n > 2)
		n -= n / 3;
	return writev(conn->fd, rest, n);
}

LIBRARY ssize_t s2n_sendv(struct connection *conn, const struct iovec *pieces, ssize_t count,
			  blocked *blocked)
{
	ssize_t n = s2n_sendv_with_offset(conn, pieces, count, 0, blocked);

	return n;
}

LIBRARY ssize_t s2n_send(struct connection *conn, const void *buf, ssize_t len, blocked *blocked)
{
	*blocked = 0;
	return write(conn->fd, buf, len);
}

LIBRARY ssize_t s2n_recv(struct connection *conn, void *buf, ssize_t len, blocked *blocked)
{
	*blocked = 0;
	return read(conn->fd, buf, len);
}

LIBRARY int s2n_connection_free(struct connection *conn)
{
	free(conn);
	return 0;
}

static ssize_t write_some(void *tls, const void *buf, size_t len)
{
	blocked blocked;

	return s2n_send(tls, buf, len, &blocked);
}

static ssize_t read_some(void *tls, void *buf, size_t len)
{
	blocked blocked;

	return s2n_recv(tls, buf, len, &blocked);
}

static void write_oddly(void *tls, int fd, const void *buf, size_t len)
{
	const char *from = buf;
	size_t done = 0;

	(void)fd;
	while (done < len) {
		struct iovec pieces[PIECES];
		blocked blocked;
		int count = cut(pieces, from + done, len - done);
		ssize_t n = s2n_sendv(tls, pieces, count, &blocked), more;

		must(n > 0);
		/* The rest of the same pieces. */
		more = s2n_sendv_with_offset(tls, pieces, count, n, &blocked);
		must(more >= 0);
		done += n + more;
	}
}

static void close_connection(void *tls)
{
	s2n_connection_free(tls);
}
#else
/* prio.h */
typedef struct {
	char *iov_base;
	int iov_len;
} PRIOVec;

LIBRARY void *SSL_ImportFD(void *model, void *fd)
{
	return model ? model : fd;
}

LIBRARY static int ssl_Recv(struct connection *conn, void *buf, int len, int flags, unsigned timeout)
{
	(void)timeout;
	return recv(conn->fd, buf, len, flags);
}

LIBRARY static int ssl_Read(struct connection *conn, void *buf, int len)
{
	return read(conn->fd, buf, len);
}

LIBRARY static int ssl_Write(struct connection *conn, const void *buf, int len)
{
	return write(conn->fd, buf, len);
}

LIBRARY static int ssl_WriteV(struct connection *conn, const PRIOVec *pieces, int count,
			      unsigned timeout)
{
	int done = 0;

	(void)timeout;
	for (int i = 0; i < count; i++) {
		int n = pieces[i].iov_len ? ssl_Write(conn, pieces[i].iov_base, pieces[i].iov_len) : 0;

		if (n < pieces[i].iov_len)
			return done + n;
		done += n;
	}
	return done;
}

LIBRARY static int ssl_Close(struct connection *conn)
{
	free(conn);
	return 0;
}

static ssize_t write_some(void *tls, const void *buf, size_t len)
{
	return ssl_Write(tls, buf, len);
}

static ssize_t read_some(void *tls, void *buf, size_t len)
{
	must(ssl_Recv(tls, buf, len, MSG_PEEK, 0) > 0);
	if (len % 2)
		return ssl_Recv(tls, buf, len, 0, 0);
	return ssl_Read(tls, buf, len);
}

static void write_oddly(void *tls, int fd, const void *buf, size_t len)
{
	const char *from = buf;
	size_t done = 0;

	(void)fd;
	while (done < len) {
		struct iovec cuts[PIECES];
		/* What lies behind a length of 32 bits is not part of it. */
		PRIOVec pieces[PIECES];
		int count = cut(cuts, from + done, len - done), n;

		memset(pieces, 0xff, sizeof(pieces));
		for (n = 0; n < count; n++) {
			pieces[n].iov_base = cuts[n].iov_base;
			pieces[n].iov_len = cuts[n].iov_len;
		}
		n = ssl_WriteV(tls, pieces, count, 0);
		must(n > 0);
		done += n;
	}
}

static void close_connection(void *tls)
{
	ssl_Close(tls);
}
#endif

const struct library library = {
	open_connection, write_some, read_some, write_oddly, close_connection, NULL,
};
