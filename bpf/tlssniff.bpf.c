// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The one BPF object: all programs share its maps and are loaded together. */
#include "vmlinux_min.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>
#include "abi.h"
#include "maps.bpf.h"
#include "user.bpf.h"
#include "sock.bpf.h"
#include "emit.bpf.h"
#include "apart.bpf.h"
#include "expect.bpf.h"
#include "traffic.bpf.h"
#include "old.bpf.h"
#include "conn.bpf.h"
#include "gnutls.bpf.h"
#include "call.bpf.h"
#include "openssl.bpf.h"
#include "gotls.bpf.h"
#ifndef TS_OLD_KERNEL
#include "rustls.bpf.h"
#endif
#include "proc.bpf.h"
#ifndef TS_OLD_KERNEL
#include "waiting.bpf.h"
#endif

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Types that no map or program names get into BTF, and so into Rust, through these. */
struct ts_rec_conn _rec_conn = {};
struct ts_rec_data _rec_data = {};
struct ts_rec_end _rec_end = {};
struct ts_rec_addr _rec_addr = {};
struct ts_rec_hold _rec_hold = {};
enum ts_record _record = 0;
enum ts_dir _dir = 0;
enum ts_action _action = 0;
enum ts_count _count = 0;
enum ts_handshake _handshake = 0;
enum ts_go_site _go_site = 0;
enum ts_rustls_bytes _rustls_bytes = 0;
enum ts_role _role = 0;
enum ts_transport _transport = 0;
enum ts_addr_source _addr_source = 0;
enum ts_flag _flag = 0;
enum ts_counter _counter = 0;
enum ts_wait_state _wait_state = 0;
struct ts_sleeper _sleeper = {};
