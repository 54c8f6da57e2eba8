//! What user space allocates for an event: recorded ring bytes of real loads through the reader, the core and the sinks.

use std::alloc::System;

use anyhow::{Result, ensure};
use smtp_observer_tests::pipeline::{Load, Passage, Through};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations for an event, at most, when all is there that is made once: with no sink, with metrics alone, and with what
/// `run` has.
const BOUNDS: [(Load, usize, [f64; 3]); 4] = [
    (Load::Single, 200, [2.1, 2.1, 5.5]),
    (Load::Kept, 1000, [0.95, 0.95, 5.2]),
    (Load::Pipelined, 50, [1.0, 1.3, 160.0]),
    (Load::Chunks, 200, [0.7, 0.7, 5.0]),
];

#[test]
fn the_allocations_of_an_event_are_bounded() -> Result<()> {
    let mut exceeded = Vec::new();
    for (load, mails, bounds) in BOUNDS {
        let recorded = load.record(mails)?;
        for (through, bound) in [Through::Core, Through::Metrics, Through::Run].into_iter().zip(bounds) {
            let mut passage = Passage::new(through)?;
            passage.warm_up(&recorded)?;
            let region = Region::new(ALLOCATOR);
            let events = passage.take_rest(&recorded)?;
            let change = region.change();
            ensure!(events > 0, "{load:?} has no events");
            let allocations = (change.allocations + change.reallocations) as f64 / events as f64;
            println!("{}, {}: {allocations:.2}, at most {bound}", load.name(), through.name());
            if allocations > bound {
                exceeded.push(format!("{load:?} through {through:?}: {allocations:.2}, not {bound}"));
            }
        }
    }
    ensure!(exceeded.is_empty(), "{exceeded:#?}");
    Ok(())
}
