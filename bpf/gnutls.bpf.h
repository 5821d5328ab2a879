/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* GnuTLS: writes that are refused and yet have been taken. */
#ifndef TLSSNIFF_GNUTLS_H
#define TLSSNIFF_GNUTLS_H

#include "maps.bpf.h"
#include "thread.bpf.h"

/* include/gnutls/gnutls.h */
#define GNUTLS_E_AGAIN (-28)
#define GNUTLS_E_INTERRUPTED (-52)
/* What one record holds: RFC 8446, section 5.1. */
#define MAX_PLAINTEXT (16 * 1024)

/* A write that the socket refuses has already become a record, and the program need not keep its
 * bytes: it may call again with NULL, and is then told how many they were. So they are looked at
 * when they are taken. */
static __always_inline __u64 gnutls_took(const struct frame *frame, s64 ret)
{
	if (ret > 0)
		return ret;
	if (ret != GNUTLS_E_AGAIN && ret != GNUTLS_E_INTERRUPTED)
		return 0;
	return frame->out < MAX_PLAINTEXT ? frame->out : MAX_PLAINTEXT;
}

/* How many of these bytes were not told yet, the last ones. Where the peer wants records that are
 * shorter than was thought, the program comes back for those that were told too early. */
static __always_inline __u64 gnutls_untold(struct ts_conn *conn, struct frame *frame, __u64 took,
					   s64 ret)
{
	__u64 ahead = conn->ahead;

	if (ret > 0)
		conn->ahead = ahead > took ? ahead - took : 0;
	else if (took > ahead)
		conn->ahead = took;
	if (!frame->buf || took <= ahead)
		return 0;
	frame->buf += ahead;
	return took - ahead;
}

#endif
