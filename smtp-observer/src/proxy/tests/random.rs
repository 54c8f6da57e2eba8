//! Programs in the middle that pass on, keep back, drop and add what they like: nothing is told of them that they did not do.

use super::*;

/// Numbers that look like chance (Numerical Recipes' constants), the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// What a program in the middle did.
#[derive(Debug, Default)]
struct Done {
    swallowed: usize,
    injected: usize,
}

/// One conversation: groups of so many commands at most, each named once. The program answers itself, or waits for the server.
fn converse(chance: &mut Chance, longest: u64, mischief: u64) -> (Stage, Done) {
    let mut stage = Stage::redirected(1, 2, 3);
    let mut done = Done::default();
    for command in ["EHLO c", "MAIL FROM:<a@c>", "RCPT TO:<b@s>"] {
        stage.pass_on(1, 3, command, 250, "Ok");
    }
    let mut name = 0;
    for _ in 0..12 {
        let (mut said, mut passed) = (Vec::new(), Vec::new());
        for _ in 0..=chance.below(longest) {
            name += 1;
            let command = format!("RCPT TO:<b{name}@s>");
            said.push(command.clone());
            match chance.below(10) {
                0 if mischief & 1 != 0 => done.swallowed += 1,
                1 if mischief & 2 != 0 => {
                    done.injected += 1;
                    passed.extend([format!("RCPT TO:<other{name}@s>"), command]);
                }
                _ => passed.push(command),
            }
        }
        // Who swallows the last one leaves nothing behind it that would show so.
        let last = format!("RCPT TO:<last{name}@s>");
        said.push(last.clone());
        passed.push(last);
        let answers_itself = chance.below(2) == 0;
        let sides = if answers_itself { [(1, &said), (3, &passed)] } else { [(3, &passed), (1, &said)] };
        // The client has sent all of a group before the first of it is passed on.
        let begun = stage.time;
        for (cookie, commands) in sides {
            let group = if answers_itself { stage.time } else { begun };
            for (place, command) in commands.iter().enumerate() {
                let sent = group + if cookie == 3 { 500_000 } else { 0 } + 1000 * place as i64;
                let latency = Duration::from_nanos((stage.time + MILLISECOND - sent).unsigned_abs());
                stage.say_after(cookie, command, 250, "Ok", latency);
            }
        }
    }
    stage.pass_on(1, 3, "QUIT", 221, "Bye");
    stage.close(3);
    stage.close(1);
    stage.pass(3);
    (stage, done)
}

#[test]
fn nothing_is_told_that_was_not_done() {
    let mut chance = Chance(1);
    for (longest, mischief) in [(4, 0), (4, 1), (4, 2), (4, 3), (20, 3), (70, 0), (70, 1), (70, 2), (200, 0), (200, 3)]
    {
        for round in 0..10 {
            let (stage, done) = converse(&mut chance, longest, mischief);
            let story = format!("groups of {longest}, round {round}, {done:?}");
            for verdict in stage.verdicts_of(1) {
                let told = kinds(verdict);
                let has = |kind| told.contains(&kind);
                assert!(done.swallowed > 0 || !has(EvidenceKind::CommandSwallowed), "{story}: {:?}", verdict.evidence);
                assert!(done.injected > 0 || !has(EvidenceKind::CommandInjected), "{story}: {:?}", verdict.evidence);
            }
            // As long as nothing is forgotten, all is found.
            if longest <= 20 {
                let told = kinds(stage.verdict(1));
                assert_eq!(told.contains(&EvidenceKind::CommandSwallowed), done.swallowed > 0, "{story}");
                assert_eq!(
                    told.contains(&EvidenceKind::CommandInjected),
                    done.injected > 0,
                    "{story}: {:?}",
                    stage.verdicts_of(1)
                );
            }
        }
    }
}
