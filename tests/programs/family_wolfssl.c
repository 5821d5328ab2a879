/* wolfSSL: also pieces, by wolfSSL_writev. */
#include "family.h"

#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

/* Not for two threads at the same time. */
__attribute__((constructor)) static void init(void)
{
	wolfSSL_Init();
}

static void *open_tls(int fd, int is_server, const char *cert, const char *key)
{
	WOLFSSL_CTX *ctx;
	WOLFSSL *ssl;
	int ret;

	ctx = wolfSSL_CTX_new(is_server ? wolfSSLv23_server_method() : wolfSSLv23_client_method());
	if (is_server) {
		must(wolfSSL_CTX_use_certificate_file(ctx, cert, WOLFSSL_FILETYPE_PEM) == 1);
		must(wolfSSL_CTX_use_PrivateKey_file(ctx, key, WOLFSSL_FILETYPE_PEM) == 1);
	} else {
		wolfSSL_CTX_set_verify(ctx, WOLFSSL_VERIFY_NONE, NULL);
	}
	ssl = wolfSSL_new(ctx);
	must(wolfSSL_set_fd(ssl, fd) == 1);
	ret = is_server ? wolfSSL_accept(ssl) : wolfSSL_connect(ssl);
	must(ret == 1);
	return ssl;
}

static ssize_t write_tls(void *tls, const void *buf, size_t len)
{
	return wolfSSL_write(tls, buf, len);
}

static ssize_t read_tls(void *tls, void *buf, size_t len)
{
	must(wolfSSL_peek(tls, buf, len) > 0);
	return wolfSSL_read(tls, buf, len);
}

static void write_oddly(void *tls, int fd, const void *buf, size_t len)
{
	const char *from = buf;
	size_t done = 0;

	(void)fd;
	while (done < len) {
		size_t most = len - done < 30000 ? len - done : 30000;
		struct iovec pieces[2] = {
			{ (void *)(from + done), most / 3 },
			{ (void *)(from + done + most / 3), most - most / 3 },
		};
		int n = wolfSSL_writev(tls, pieces, 2);

		must(n > 0);
		done += n;
	}
}

static void close_tls(void *tls)
{
	wolfSSL_shutdown(tls);
	wolfSSL_free(tls);
}

const struct library library = { open_tls, write_tls, read_tls, write_oddly, close_tls, NULL };
