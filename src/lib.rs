//! tcpdump for the inside of TLS.
//!
//! ```text
//! discovery ─► plan ─► attach ─► [kernel: bpf/] ─► ring ─► flow ─► proto ─► filter ─► sink
//! ```
//!
//! A byte goes left to right once. Each stage knows the types of the stages to its left and nothing
//! to its right; only `run` knows them all.

pub mod attach;
pub mod bpf;
pub mod child;
pub mod cli;
pub mod config;
pub mod discovery;
pub mod event;
pub mod extcap;
pub mod filter;
pub mod flow;
pub mod generate;
pub mod plan;
pub mod privilege;
pub mod proto;
pub mod readback;
pub mod redact;
pub mod ring;
pub mod run;
pub mod sink;
pub mod time;
pub mod tui;
