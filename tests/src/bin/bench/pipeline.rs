//! What user space takes of an event: recorded ring bytes of real loads through the reader, the core and the sinks.

use std::alloc::System;

use anyhow::Result;
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::{ClockId, clock_gettime};
use smtp_observer_tests::pipeline::{Load, Passage, Through};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::compared::Spread;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Prints a table of nanoseconds an event, and one of allocations.
pub fn print(rounds: usize) -> Result<()> {
    for load in Load::ALL {
        let recorded = load.record(mails(load))?;
        let events = recorded.events()?;
        println!("\n{}: {} records, {events} events, {} bytes\n", load.name(), recorded.records(), recorded.bytes());
        println!("| through | nanoseconds an event | allocations an event |");
        println!("| --- | --- | --- |");
        let mut times = [const { Vec::new() }; Through::ALL.len()];
        let mut allocations = [0.0; Through::ALL.len()];
        // In turns: the machine may be slower in one minute than in another.
        for _ in 0..rounds {
            for (place, through) in Through::ALL.into_iter().enumerate() {
                let mut passage = Passage::new(through)?;
                passage.warm_up(&recorded)?;
                let region = Region::new(ALLOCATOR);
                // What other programs take of the processor meanwhile does not count.
                let begin = processor_time()?;
                let events = passage.take_rest(&recorded)?;
                times[place].push((processor_time()? - begin).num_nanoseconds() as f64 / events as f64);
                let change = region.change();
                allocations[place] = (change.allocations + change.reallocations) as f64 / events as f64;
            }
        }
        for (place, through) in Through::ALL.into_iter().enumerate() {
            let spread = Spread::of(times[place].iter().copied());
            println!("| {} | {} | {:.2} |", through.name(), spread.show(0), allocations[place]);
        }
    }
    Ok(())
}

/// What this thread has used of the processor.
fn processor_time() -> Result<TimeSpec> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?)
}

/// How many mails are enough to measure.
fn mails(load: Load) -> usize {
    match load {
        Load::Single | Load::Chunks | Load::Relayed => 1000,
        Load::Kept => 2000,
        Load::Pipelined => 200,
        // Each takes as long as somebody types.
        Load::Proxied => 5,
    }
}
