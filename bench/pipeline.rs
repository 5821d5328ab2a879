//! How long user space takes for a call, from the ring to each sink (`cargo bench`).

mod feed;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use feed::{Feed, SINKS};

fn calls(criterion: &mut Criterion) {
    for sink in SINKS {
        let mut group = criterion.benchmark_group(sink);
        for size in [256, 16 * 1024] {
            let mut feed = Feed::new(sink, size).expect("a sink that writes nowhere");
            group.throughput(Throughput::Elements(1));
            group.bench_function(format!("{size} bytes"), |bencher| {
                bencher.iter(|| feed.call().expect("a sink that writes nowhere"));
            });
        }
    }
}

criterion_group!(benches, calls);
criterion_main!(benches);
