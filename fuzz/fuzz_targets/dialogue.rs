//! Any dialogue: nothing panics, each RSET and NOOP is explained once, and no cut changes what is observed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp_observer::observation::{Event, Observation, Role};
use smtp_observer_tests::transcript::{Cut, Transcript, observations};

fn events(observed: &[Observation]) -> Vec<(i64, &Event)> {
    observed.iter().map(|observation| (observation.time.0, &observation.event)).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let transcript = Transcript::unpacked(bytes);
    for role in [Role::Client, Role::Server] {
        let whole = observations(&transcript, role, Cut::Whole);
        let answered = |verb: &str| {
            let is_answered = |event: &Event| matches!(event, Event::Command(command) if command.verb == verb && command.code.is_some());
            whole.iter().filter(|observation| is_answered(&observation.event)).count()
        };
        let rsets = whole.iter().filter(|observation| matches!(observation.event, Event::Rset(_))).count();
        let noops = whole.iter().filter(|observation| matches!(observation.event, Event::Noop(_))).count();
        assert_eq!((rsets, noops), (answered("RSET"), answered("NOOP")));

        let bytewise = observations(&transcript, role, Cut::Every(1));
        let (whole, bytewise) = (events(&whole), events(&bytewise));
        let place = whole.iter().zip(&bytewise).take_while(|(whole, bytewise)| whole == bytewise).count();
        assert_eq!(bytewise.get(place), whole.get(place), "observation {place} as {role:?}");
    }
});
