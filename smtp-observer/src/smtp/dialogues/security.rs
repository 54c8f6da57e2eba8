//! AUTH.

use crate::smtp::transcript::{items, steps};
use crate::smtp::{Item, Session};

#[test]
fn challenges_are_counted() {
    let transcript = "S: 220 mx.example\nC: AUTH LOGIN\nS: 334\nC: Ym9i\nS: 334\nC: c2VjcmV0\nS: 235 in";
    let items = items(Session::new(), &steps(transcript));
    let Some(Item::Exchange(exchange)) = items.last() else { panic!("{items:?}") };
    assert_eq!(exchange.command.challenges, 2);
    assert_eq!(exchange.command.line, b"AUTH LOGIN");
}
