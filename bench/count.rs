//! Feeds a sink for a tool that counts instructions: `count SINK SIZE CALLS`.

mod feed;

use anyhow::{Context, Result};
use feed::{Feed, SINKS};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [sink, size, calls] = arguments.as_slice() else {
        anyhow::bail!("usage: count {} SIZE CALLS", SINKS.join("|"));
    };
    let mut feed = Feed::new(sink, size.parse().context("SIZE")?)?;
    for _ in 0..calls.parse::<u64>().context("CALLS")? {
        feed.call()?;
    }
    Ok(())
}
