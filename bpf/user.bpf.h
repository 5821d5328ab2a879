/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Reads of the traced program's memory; each says whether it worked. All fault pages in where the
 * kernel lets uprobe programs sleep: since Linux 6.0 (commit 8c7dcb84e3b7). */
#ifndef TLSSNIFF_USER_H
#define TLSSNIFF_USER_H

#include "maps.bpf.h"

static __always_inline bool read_user(void *to, __u32 size, __u64 addr)
{
	if (!OLD_KERNEL && config.can_sleep)
		return bpf_copy_from_user(to, size, (void *)addr) == 0;
	return bpf_probe_read_user(to, size, (void *)addr) == 0;
}

static __always_inline bool read_u64(__u64 addr, __u64 *value)
{
	return read_user(value, sizeof(*value), addr);
}

static __always_inline bool read_u32(__u64 addr, __u32 *value)
{
	return read_user(value, sizeof(*value), addr);
}

/* Follows all loads of the chain but the last and gives that one's address; 0: not known. A global
 * function: the verifier looks at it once, not once per use. */
__global __u64 chase(const struct ts_chain *chain, __u64 handle)
{
	__u64 at = handle;
	__u32 i;

	if (!chain || !chain->len || chain->len > TS_CHAIN_LEN)
		return 0;
	for (i = 0; i < TS_CHAIN_LEN; i++) {
		at += chain->off[i];
		if (i + 1 == chain->len)
			return at;
		if (!read_u64(at, &at) || !at)
			return 0;
	}
	return 0;
}

#endif
