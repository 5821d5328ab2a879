/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Records into the ring: exact size, no wakeup unless the reader needs one, losses counted. */
#ifndef TLSSNIFF_EMIT_H
#define TLSSNIFF_EMIT_H

#include "maps.bpf.h"

extern int bpf_copy_from_user_dynptr(struct bpf_dynptr *dptr, u64 off, u64 size,
				     const void *unsafe_ptr__ign) __ksym;

/* How long a call that is larger than the ring may wait for the reader, per record. */
#define ROOM_WAIT_NS (20 * 1000 * 1000)
#define ROOM_WAIT_LOOPS (1 << 20)

/* The reader polls while it is busy; only a sleeping one, or a ring that fills, is worth the 2 us
 * of a wakeup. */
static __always_inline __u64 wakeup_flags(void)
{
	if (reader_sleeps) {
		reader_sleeps = 0;
		return BPF_RB_FORCE_WAKEUP;
	}
	if (bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > config.wakeup_at)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

struct chunk_ctx {
	struct ts_rec_data rec;
	__u64 buf;
	__u64 keep; /* bytes of the call to be kept */
	__u64 lost;
	__u64 unreadable;
};

struct room_ctx {
	__u64 deadline;
	__u64 needed;
};

static long has_room(__u32 i, void *data)
{
	struct room_ctx *ctx = data;

	if (bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) + ctx->needed < config.wakeup_at * 8)
		return 1;
	return !(i & 255) && bpf_ktime_get_boot_ns() > ctx->deadline;
}

/* One call can be larger than the ring. Such a call takes milliseconds by itself; it waits for the
 * reader, within bounds, rather than lose its end. */
static __always_inline void wait_for_room(__u64 needed)
{
	struct room_ctx ctx = {
		.deadline = bpf_ktime_get_boot_ns() + ROOM_WAIT_NS,
		.needed = needed,
	};

	bpf_loop(ROOM_WAIT_LOOPS, has_room, &ctx, 0);
}

/* True when the call has been told to its end. A global function, so that the verifier does not
 * follow its every path again for each way into it. */
__noinline int emit_record(struct chunk_ctx *ctx)
{
	struct ts_rec_data *rec = &ctx->rec;
	struct bpf_dynptr ptr;
	__u64 at;
	__u32 size = 0;

	if (!ctx)
		return 1;
	at = rec->call_off;
	if (at < ctx->keep) {
		size = ctx->keep - at < TS_CHUNK ? ctx->keep - at : TS_CHUNK;
		rec->len = size;
	}
	/* What `-s` cut off belongs to the last record. */
	if (at + size >= ctx->keep)
		rec->len = rec->call_len - at;
	rec->captured = size;
	rec->flags &= ~TS_FL_UNREADABLE;
	if (rec->call_len >= config.large_call)
		wait_for_room(size + sizeof(*rec));
	if (bpf_ringbuf_reserve_dynptr(&ring, sizeof(*rec) + size, 0, &ptr)) {
		bpf_ringbuf_discard_dynptr(&ptr, 0);
		ctx->lost += rec->len;
	} else {
		if (size &&
		    bpf_copy_from_user_dynptr(&ptr, sizeof(*rec), size, (void *)(ctx->buf + at))) {
			rec->flags |= TS_FL_UNREADABLE;
			ctx->unreadable += rec->len;
		}
		bpf_dynptr_write(&ptr, 0, rec, sizeof(*rec), 0);
		bpf_ringbuf_submit_dynptr(&ptr, wakeup_flags());
	}
	rec->off += rec->len;
	rec->call_off += rec->len;
	return rec->call_off >= rec->call_len;
}

static long emit_next_record(__u32 i, void *ctx)
{
	return emit_record(ctx) ? 1 : 0;
}

/* The stream offset has been advanced by the caller: whatever is lost here is seen as a gap. */
__noinline int emit_data(const struct frame *frame, __u64 conn, __u64 len, __u64 off, __u64 ts)
{
	if (!frame)
		return 0;

	bool in_memory = cookie_count(frame->cookie) != TS_CNT_SENDFILE;
	__u64 ids = bpf_get_current_pid_tgid();
	struct chunk_ctx ctx = {
		.rec =
			{
				.type = TS_REC_DATA,
				.target = cookie_target(frame->cookie),
				.conn = conn,
				.ts = ts,
				.off = off,
				.call_len = len,
				.goid = frame->goid,
				.tgid = ids >> 32,
				.tid = ids,
				.func = cookie_func(frame->cookie),
				.dir = cookie_dir(frame->cookie),
				.flags = in_memory ? 0 : TS_FL_SENDFILE,
			},
		.buf = frame->buf,
		.keep = len,
	};

	if (config.snaplen && len > config.snaplen)
		ctx.keep = config.snaplen;
	if (!in_memory)
		ctx.keep = 0;
	if (ctx.keep <= TS_CHUNK && len < config.large_call)
		emit_record(&ctx);
	else
		bpf_loop(ctx.keep / TS_CHUNK + 1, emit_next_record, &ctx, 0);
	if (ctx.lost) {
		count(TS_CTR_DROPPED_CALLS, 1);
		count(TS_CTR_DROPPED_BYTES, ctx.lost);
	}
	if (ctx.unreadable)
		count(TS_CTR_UNREADABLE_BYTES, ctx.unreadable);
	return 0;
}

static __always_inline bool emit_end(__u32 type, const struct ts_conn *conn)
{
	struct ts_rec_end *rec = bpf_ringbuf_reserve(&ring, sizeof(*rec), 0);

	if (!rec) {
		count(TS_CTR_DROPPED_NOTES, 1);
		return false;
	}
	rec->type = type;
	rec->tid = bpf_get_current_pid_tgid();
	rec->conn = conn->id;
	rec->ts = bpf_ktime_get_boot_ns();
	rec->off[TS_OUT] = conn->off[TS_OUT];
	rec->off[TS_IN] = conn->off[TS_IN];
	bpf_ringbuf_submit(rec, wakeup_flags());
	return true;
}

#endif
