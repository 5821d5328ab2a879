/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Records into the ring: exact size, no wakeup unless the reader needs one, losses counted. */
#ifndef TLSSNIFF_EMIT_H
#define TLSSNIFF_EMIT_H

#include "maps.bpf.h"
#include "thread.bpf.h"
#include "user.bpf.h"

/* Since Linux 6.16. */
extern int bpf_copy_from_user_dynptr(struct bpf_dynptr *dptr, u64 off, u64 size,
				     const void *unsafe_ptr__ign) __ksym __weak;

/* What is in a record at most where its size must be known beforehand. */
#ifdef TS_OLD_KERNEL
#define SIZED_CHUNK (128 * 1024)
#define MAX_RECORDS 128
#else
#define SIZED_CHUNK (32 * 1024)
/* Records of a call at most where there is no bpf_loop(). */
#define MAX_RECORDS 64
#endif
/* Pieces and records of a gathering write at most: IOV_MAX, and some to cut long ones. */
#define MAX_PIECES 2048

/* Since Linux 5.17. */
static __always_inline bool has_loop(void)
{
	return !OLD_KERNEL &&
	       bpf_core_enum_value_exists(enum bpf_func_id___known, BPF_FUNC_loop___known);
}

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

	if (has_loop())
		bpf_loop(ROOM_WAIT_LOOPS, has_room, &ctx, 0);
}

static __always_inline bool has_exact_records(void)
{
	return !OLD_KERNEL && config.exact_records && bpf_ksym_exists(bpf_copy_from_user_dynptr);
}

static __always_inline __u32 chunk(void)
{
	return has_exact_records() ? TS_CHUNK : SIZED_CHUNK;
}

/* A record of the size that it needs. False: no room. */
static __always_inline bool put_exact(struct chunk_ctx *ctx, __u64 from, __u32 size)
{
	struct ts_rec_data *rec = &ctx->rec, *head;
	struct bpf_dynptr ptr;

	if (bpf_ringbuf_reserve_dynptr(&ring, sizeof(*rec) + size, 0, &ptr) ||
	    !(head = bpf_dynptr_data(&ptr, 0, sizeof(*head)))) {
		bpf_ringbuf_discard_dynptr(&ptr, 0);
		return false;
	}
	if (size && bpf_copy_from_user_dynptr(&ptr, sizeof(*rec), size, (void *)from))
		rec->flags |= TS_FL_UNREADABLE;
	*head = *rec;
	bpf_ringbuf_submit_dynptr(&ptr, wakeup_flags());
	return true;
}

/* A record with room for `most` bytes, a constant. */
static __always_inline bool put_sized(struct chunk_ctx *ctx, __u64 from, __u32 size, __u32 most)
{
	struct ts_rec_data *rec = bpf_ringbuf_reserve(&ring, sizeof(*rec) + most, 0);
	__u64 len = size;

	if (!rec)
		return false;
	/* Which the compiler knows, but not the verifier. */
	barrier_var(len);
	if (len > most)
		len = most;
	if (len && !read_user(rec + 1, len, from))
		ctx->rec.flags |= TS_FL_UNREADABLE;
	*rec = ctx->rec;
	bpf_ringbuf_submit(rec, wakeup_flags());
	return true;
}

/* A record of at most twice the size that it needs. */
static __always_inline bool put_rounded(struct chunk_ctx *ctx, __u64 from, __u32 size)
{
	if (size <= 128)
		return put_sized(ctx, from, size, 128);
	if (size <= 256)
		return put_sized(ctx, from, size, 256);
	if (size <= 512)
		return put_sized(ctx, from, size, 512);
	if (size <= 1024)
		return put_sized(ctx, from, size, 1024);
	if (size <= 2048)
		return put_sized(ctx, from, size, 2048);
	if (size <= 4096)
		return put_sized(ctx, from, size, 4096);
	if (size <= 8192)
		return put_sized(ctx, from, size, 8192);
	if (size <= 16384)
		return put_sized(ctx, from, size, 16384);
	if (OLD_KERNEL && size <= 32768)
		return put_sized(ctx, from, size, 32768);
	if (OLD_KERNEL && size <= 65536)
		return put_sized(ctx, from, size, 65536);
	return put_sized(ctx, from, size, SIZED_CHUNK);
}

/* True when the call has been told to its end. With `whole`, there is more than a record of the
 * largest size left. */
static __always_inline int put_record(struct chunk_ctx *ctx, bool whole)
{
	struct ts_rec_data *rec = &ctx->rec;
	__u64 at = rec->call_off, until = ctx->keep < ctx->end ? ctx->keep : ctx->end;
	__u32 size = 0;
	bool told;

	if (at < until) {
		size = until - at < chunk() ? until - at : chunk();
		rec->len = size;
	}
	/* What `-s` cut off belongs to the last record. */
	if (at + size >= ctx->keep)
		rec->len = rec->call_len - at;
	rec->captured = size;
	rec->flags &= ~TS_FL_UNREADABLE;
	if (rec->call_len >= config.large_call)
		wait_for_room(size + sizeof(*rec));
	if (whole)
		told = put_sized(ctx, ctx->buf + at, size, SIZED_CHUNK);
	else if (has_exact_records())
		told = put_exact(ctx, ctx->buf + at, size);
	else
		told = put_rounded(ctx, ctx->buf + at, size);
	if (!told)
		ctx->lost += rec->len;
	else if (rec->flags & TS_FL_UNREADABLE)
		count(TS_CTR_UNREADABLE_BYTES, rec->len);
	rec->off += rec->len;
	rec->call_off += rec->len;
	return rec->call_off >= rec->call_len;
}

#ifdef TS_OLD_KERNEL

static __always_inline bool is_more_than_one(const struct chunk_ctx *ctx)
{
	return ctx->keep > ctx->rec.call_off + SIZED_CHUNK;
}

__noinline int put_whole_on_return(void)
{
	struct thread *thread = this_thread();

	return thread ? put_record(&thread->chunk, true) : 0;
}

static __always_inline void emit_records(struct chunk_ctx *ctx)
{
	int i;

	for (i = 0; i < MAX_RECORDS && is_more_than_one(ctx); i++)
		put_whole_on_return();
	if (is_more_than_one(ctx))
		ctx->lost += ctx->rec.call_len - ctx->rec.call_off;
	else
		put_record(ctx, false);
}

#else

/* A global function, so that the verifier does not follow its every path again for each way into
 * it. */
__noinline int emit_record(struct chunk_ctx *ctx)
{
	return ctx ? put_record(ctx, false) : 1;
}

/* What a callback of bpf_loop() must return, 0 or 1. The verifier knows nothing of what a global
 * function returns; clang 19 knows that it is 0 or 1 already, and would not make it so. */
static __always_inline long ends_loop(int stop)
{
	barrier_var(stop);
	return stop ? 1 : 0;
}

static long emit_next_record(__u32 i, void *ctx)
{
	return ends_loop(emit_record(ctx));
}

static __always_inline void emit_records(struct chunk_ctx *ctx)
{
	int i;

	if (ctx->keep <= chunk() && ctx->rec.call_len < config.large_call) {
		emit_record(ctx);
		return;
	}
	if (has_loop()) {
		bpf_loop(ctx->keep / chunk() + 1, emit_next_record, ctx, 0);
		return;
	}
	for (i = 0; i < MAX_RECORDS; i++) {
		if (emit_record(ctx))
			return;
	}
	ctx->lost += ctx->rec.call_len - ctx->rec.call_off;
}

#endif

/* The stream offset has been advanced by the caller: whatever is lost here is seen as a gap. */
static __always_inline void begin(struct chunk_ctx *ctx, const struct frame *frame, __u64 conn,
				  __u64 len, __u64 off, __u64 ts)
{
	bool in_memory = count_kind(cookie_count(frame->cookie)) != TS_CNT_SENDFILE;
	__u64 ids = current_ids();

	__builtin_memset(ctx, 0, sizeof(*ctx));
	ctx->rec.type = TS_REC_DATA;
	ctx->rec.target = cookie_target(frame->cookie);
	ctx->rec.conn = conn;
	ctx->rec.ts = ts;
	ctx->rec.off = off;
	ctx->rec.call_len = len;
	ctx->rec.goid = frame->goid;
	ctx->rec.tgid = ids >> 32;
	ctx->rec.tid = ids;
	ctx->rec.func = cookie_func(frame->cookie);
	ctx->rec.dir = cookie_dir(frame->cookie);
	ctx->rec.flags = in_memory ? 0 : TS_FL_SENDFILE;
	ctx->buf = frame->buf;
	ctx->end = len;
	ctx->keep = !in_memory ? 0 : config.snaplen && len > config.snaplen ? config.snaplen : len;
}

static __always_inline void count_lost(__u64 bytes)
{
	if (!bytes)
		return;
	count(TS_CTR_DROPPED_CALLS, 1);
	count(TS_CTR_DROPPED_BYTES, bytes);
}

/* The stream offset has been advanced by the caller: whatever is lost here is seen as a gap. */
#ifdef TS_OLD_KERNEL
__noinline int emit_on_return(__u64 conn, __u64 len, __u64 off, __u64 ts)
{
	const struct frame *frame = returning_frame();
	struct thread *thread = this_thread();

	if (!frame || !thread)
		return 0;
	begin(&thread->chunk, frame, conn, len, off, ts);
	emit_records(&thread->chunk);
	count_lost(thread->chunk.lost);
	return 0;
}

static __always_inline int emit_data(const struct frame *frame, __u64 conn, __u64 len, __u64 off,
				     __u64 ts)
{
	return emit_on_return(conn, len, off, ts);
}

/* There is no loop over its pieces: all of it is lost. */
static __always_inline int emit_vector(const struct frame *frame, __u64 conn, __u64 len, __u64 off,
				       __u64 ts)
{
	count_lost(len);
	return 0;
}
#else
__noinline int emit_data(const struct frame *frame, __u64 conn, __u64 len, __u64 off, __u64 ts)
{
	struct chunk_ctx ctx;

	if (!frame)
		return 0;
	begin(&ctx, frame, conn, len, off, ts);
	emit_records(&ctx);
	count_lost(ctx.lost);
	return 0;
}

struct piece_ctx {
	struct chunk_ctx chunk;
	__u64 vector;        /* of the pieces that follow */
	__u64 skip;          /* bytes of them that are not of this call */
	__u64 short_lengths; /* pieces have lengths of 32 bits */
};

/* A vector's next piece, {address, length}. False: none of it is of this call. */
static __always_inline bool next_piece(struct piece_ctx *ctx)
{
	__u64 at = ctx->chunk.rec.call_off, left = ctx->chunk.rec.call_len - at, piece[2], len;

	/* What cannot be found cannot be read either. */
	if (!read_user(piece, sizeof(piece), ctx->vector)) {
		piece[0] = 0;
		piece[1] = left + ctx->skip;
	}
	ctx->vector += sizeof(piece);
	len = ctx->short_lengths ? (__u32)piece[1] : piece[1];
	if (len <= ctx->skip) {
		ctx->skip -= len;
		return false;
	}
	len -= ctx->skip;
	ctx->chunk.buf = piece[0] + ctx->skip - at;
	ctx->chunk.end = at + (len < left ? len : left);
	ctx->skip = 0;
	return true;
}

static long emit_next_piece(__u32 i, void *data)
{
	struct piece_ctx *ctx = data;

	if (ctx->chunk.rec.call_off >= ctx->chunk.end && !next_piece(ctx))
		return 0;
	return ends_loop(emit_record(&ctx->chunk));
}

static __always_inline void emit_pieces(struct piece_ctx *ctx)
{
	int i;

	if (has_loop()) {
		bpf_loop(MAX_PIECES, emit_next_piece, ctx, 0);
	} else {
		for (i = 0; i < MAX_RECORDS; i++) {
			if (emit_next_piece(i, ctx))
				break;
		}
	}
	ctx->chunk.lost += ctx->chunk.rec.call_len - ctx->chunk.rec.call_off;
}

/* As emit_data(), of a call whose bytes are in pieces. Apart from it, since Go's calls leave no
 * room on the stack for what pieces need. */
__noinline int emit_vector(const struct frame *frame, __u64 conn, __u64 len, __u64 off, __u64 ts)
{
	struct piece_ctx ctx;

	if (!frame)
		return 0;
	begin(&ctx.chunk, frame, conn, len, off, ts);
	ctx.chunk.end = 0;
	ctx.vector = frame->buf;
	ctx.skip = frame->out;
	ctx.short_lengths = count_kind(cookie_count(frame->cookie)) == TS_CNT_SHORT_VECTOR;
	emit_pieces(&ctx);
	count_lost(ctx.chunk.lost);
	return 0;
}
#endif

static __always_inline bool emit_end(__u32 type, const struct ts_conn *conn)
{
	struct ts_rec_end *rec = bpf_ringbuf_reserve(&ring, sizeof(*rec), 0);

	if (!rec) {
		count(TS_CTR_DROPPED_NOTES, 1);
		return false;
	}
	rec->type = type;
	rec->tid = current_ids();
	rec->conn = conn->id;
	rec->ts = bpf_ktime_get_boot_ns();
	rec->off[TS_OUT] = conn->off[TS_OUT];
	rec->off[TS_IN] = conn->off[TS_IN];
	bpf_ringbuf_submit(rec, wakeup_flags());
	return true;
}

#endif
