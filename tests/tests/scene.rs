//! The scene itself, without the agent: what its demonstration rests on must really be said.

use anyhow::Result;
use smtp_observer_tests::scene::Scene;

/// The client and the server hold different conversations, and neither can tell.
#[test]
fn the_interceptor_holds_two_conversations() -> Result<()> {
    let played = Scene::new()?.play()?;
    let said = |output: &[String], line: &str| output.iter().filter(|said| said.starts_with(line)).count();

    let (client, upstream, server) = (&played.client.output, &played.interceptor.output, &played.server.output);
    assert_eq!(said(client, "S: 220 mail.server.example"), 1, "{client:#?}");
    assert_eq!(said(client, "S: 354 Please start mail input."), 1, "{client:#?}");
    assert_eq!(said(client, "S: 250 Mail queued for delivery."), 1, "{client:#?}");
    assert_eq!(said(client, "C: NOOP"), 0, "{client:#?}");
    assert_eq!(said(client, "C: RSET"), 0, "{client:#?}");

    for dialogue in [upstream, server] {
        assert_eq!(said(dialogue, "S: 354 End data with <CR><LF>.<CR><LF>"), 1, "{dialogue:#?}");
        assert_eq!(said(dialogue, "C: NOOP"), 5, "{dialogue:#?}");
        assert_eq!(said(dialogue, "C: RSET"), 1, "{dialogue:#?}");
        assert_eq!(said(dialogue, "C: MAIL FROM:<alice@client.example>"), 2, "{dialogue:#?}");
        assert_eq!(said(dialogue, "C: I am paying."), 1, "{dialogue:#?}");
        assert_eq!(said(dialogue, "S: 221"), 1, "{dialogue:#?}");
    }
    Ok(())
}
