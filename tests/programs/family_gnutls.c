/* GnuTLS: also what is written while corked, and what is taken before it is accepted. */
#include "family.h"

#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <poll.h>
#include <sys/socket.h>

static void *open_tls(int fd, int is_server, const char *cert, const char *key)
{
	gnutls_certificate_credentials_t *credentials = malloc(sizeof(*credentials));
	gnutls_session_t session;
	int ret;

	must(!gnutls_certificate_allocate_credentials(credentials));
	if (is_server)
		must(!gnutls_certificate_set_x509_key_file(*credentials, cert, key,
							   GNUTLS_X509_FMT_PEM));
	must(!gnutls_init(&session, is_server ? GNUTLS_SERVER : GNUTLS_CLIENT));
	must(!gnutls_set_default_priority(session));
	must(!gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, *credentials));
	gnutls_transport_set_int(session, fd);
	do
		ret = gnutls_handshake(session);
	while (ret < 0 && !gnutls_error_is_fatal(ret));
	must(!ret);
	return session;
}

static ssize_t write_tls(void *tls, const void *buf, size_t len)
{
	return gnutls_record_send(tls, buf, len);
}

static ssize_t read_tls(void *tls, void *buf, size_t len)
{
	return gnutls_record_recv(tls, buf, len);
}

/* A tenth while corked; the rest from memory that is gone by the time it is accepted. */
static void write_oddly(void *tls, int fd, const void *buf, size_t len)
{
	const char *from = buf;
	size_t done = 0, corked = len / 10;
	unsigned refused = 0;
	int small = 4096;

	gnutls_record_cork(tls);
	while (done < corked) {
		ssize_t n = gnutls_record_send(tls, from + done,
					       corked - done < 9999 ? corked - done : 9999);

		must(n > 0);
		done += n;
	}
	must(gnutls_record_uncork(tls, GNUTLS_RECORD_WAIT) == (int)corked);
	must(!setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)));
	must(!fcntl(fd, F_SETFL, O_NONBLOCK));
	while (done < len) {
		size_t most = len - done < 40000 ? len - done : 40000;
		char *copy = malloc(most);
		ssize_t n;

		memcpy(copy, from + done, most);
		n = gnutls_record_send(tls, copy, most);
		memset(copy, 'x', most);
		free(copy);
		while (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED) {
			struct pollfd wanted = { .fd = fd, .events = POLLOUT };

			refused++;
			poll(&wanted, 1, 1000);
			/* Either way is allowed, but the bytes are no longer there. */
			n = gnutls_record_send(tls, NULL, 0);
		}
		must(n > 0);
		done += n;
	}
	must(refused);
	must(!fcntl(fd, F_SETFL, 0));
}

static void close_tls(void *tls)
{
	gnutls_bye(tls, GNUTLS_SHUT_WR);
	gnutls_deinit(tls);
}

static const char *version(void *tls)
{
	return gnutls_protocol_get_version(tls) == GNUTLS_TLS1_3 ? "1.3" : "1.2";
}

const struct library library = { open_tls, write_tls, read_tls, write_oddly, close_tls, version };
