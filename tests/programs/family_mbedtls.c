/* Mbed TLS: writes are no longer than a record. */
#include "family.h"

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>

struct tls {
	mbedtls_ssl_context ssl;
	mbedtls_ssl_config config;
	mbedtls_entropy_context entropy;
	mbedtls_ctr_drbg_context random;
	mbedtls_x509_crt cert;
	mbedtls_pk_context key;
	mbedtls_net_context net;
};

static void *open_tls(int fd, int is_server, const char *cert, const char *key)
{
	struct tls *tls = calloc(1, sizeof(*tls));

	mbedtls_ssl_init(&tls->ssl);
	mbedtls_ssl_config_init(&tls->config);
	mbedtls_entropy_init(&tls->entropy);
	mbedtls_ctr_drbg_init(&tls->random);
	mbedtls_x509_crt_init(&tls->cert);
	mbedtls_pk_init(&tls->key);
	must(!mbedtls_ctr_drbg_seed(&tls->random, mbedtls_entropy_func, &tls->entropy, NULL, 0));
	must(!mbedtls_ssl_config_defaults(&tls->config,
					  is_server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
					  MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT));
	mbedtls_ssl_conf_rng(&tls->config, mbedtls_ctr_drbg_random, &tls->random);
	mbedtls_ssl_conf_authmode(&tls->config, MBEDTLS_SSL_VERIFY_NONE);
	if (is_server) {
		must(!mbedtls_x509_crt_parse_file(&tls->cert, cert));
#if MBEDTLS_VERSION_MAJOR >= 3
		must(!mbedtls_pk_parse_keyfile(&tls->key, key, NULL, mbedtls_ctr_drbg_random,
					       &tls->random));
#else
		must(!mbedtls_pk_parse_keyfile(&tls->key, key, NULL));
#endif
		must(!mbedtls_ssl_conf_own_cert(&tls->config, &tls->cert, &tls->key));
	}
	must(!mbedtls_ssl_setup(&tls->ssl, &tls->config));
	tls->net.fd = fd;
	mbedtls_ssl_set_bio(&tls->ssl, &tls->net, mbedtls_net_send, mbedtls_net_recv, NULL);
	must(!mbedtls_ssl_handshake(&tls->ssl));
	return tls;
}

static ssize_t write_tls(void *argument, const void *buf, size_t len)
{
	struct tls *tls = argument;

	return mbedtls_ssl_write(&tls->ssl, buf, len);
}

static ssize_t read_tls(void *argument, void *buf, size_t len)
{
	struct tls *tls = argument;

	return mbedtls_ssl_read(&tls->ssl, buf, len);
}

static void close_tls(void *argument)
{
	struct tls *tls = argument;

	mbedtls_ssl_close_notify(&tls->ssl);
	mbedtls_ssl_free(&tls->ssl);
	free(tls);
}

const struct library library = { open_tls, write_tls, read_tls, NULL, close_tls, NULL };
