//! TLS: of a handshake its hellos cross, the heads of its records, and what an alert in clear says.

use super::*;

fn hello(kind: u8, length: u16) -> Vec<u8> {
    let body: Vec<u8> = [kind].into_iter().chain(b"hello\n".iter().copied().cycle()).take(length.into()).collect();
    [&[22, 3, 1], &length.to_be_bytes()[..], &body].concat()
}

#[test]
fn tls_behind_starttls() {
    let (client, server) = (hello(1, 300), hello(2, 80));
    check_greeted(
        &[
            c("STARTTLS\r\n"),
            s("220 go\r\n"),
            c([&client, &b"\x16\x03\x03\0\x04\x01abcRSET\r\nhunter\r\n"[..]].concat()),
            s([&server, &b"\x17\x03\x03\0\x04250 hunter\r\n"[..]].concat()),
            c("MAIL FROM:<hunter>\r\n"),
            s("250 hunter\r\n"),
        ],
        &format!(r"STARTTLS\r\n{}\x16\x03\x03\x00\x04{{{}}}", shown(&client), 4 + 14 + 20),
        &format!(r"220 go\r\n{}\x17\x03\x03\x00\x04{{{}}}", shown(&server), 12 + 12),
    );
}

#[test]
fn tls_from_the_first_byte() {
    let client = hello(1, 4000);
    check(
        &[c(&client), s("500 hunter\r\n"), c("RSET\r\n")],
        &format!("{}{{{}}}", shown(&client[..2048]), 4005 - 2048 + 6),
        r"500 hunter\r\n",
    );
}

#[test]
fn tls_that_is_no_hello() {
    // An alert, application data, and what has a handshake's type.
    for record in [&b"\x15\x03\x01\0\x10hunter"[..], b"\x17\x03\x03\0\x10hunter\r\n", b"\x14\x03\x03hunter"] {
        let alert = if record[0] == 21 { 5 } else { 0 };
        check_greeted(
            &[c(record), c("RSET\r\n"), s(record)],
            &format!("{{{}}}", record.len() + 6),
            &cut(&[(record, alert)]),
        );
    }
    check_greeted(
        &[c(b"\x16\x03\x01\0\x06hunterRSET\r\n"), s(b"\x16\x03\x03\0\x06hunter250 hunter\r\n")],
        r"\x16\x03\x01\x00\x06{12}",
        r"\x16\x03\x03\x00\x06{18}",
    );
    check_greeted(&[c(b"\x16\x03\x01\0\0hunter")], r"\x16\x03\x01\x00\x00{6}", "");
    // Of SSL 2.0's form.
    check_greeted(&[c(b"\x80\x2e\x01\x03\x01hunter\r\nRSET\r\n")], "{19}", "");
    // No record of TLS.
    check_greeted(
        &[c(b"\x16\x02\x01\0\0hunter\r\nRSET\r\n\x16\x03\x05 hunter\r\n\x80\n")],
        r"<13$0>RSET\r\n<12$><2~>",
        "",
    );
}

/// TLS in the place of a command, which nobody has asked for: the server answers it in clear, or speaks it, too.
#[test]
fn tls_behind_commands() {
    let (client, server) = (hello(1, 300), hello(2, 80));
    for before in ["EHLO x\r\n", "MAIL FROM:<a@b>\r\n", "RSET\r\n", "NOOP\r\n"] {
        let said = format!("{}{}", shown(before), shown(&client));
        check_greeted(
            &[c(before), s("250 ok\r\n"), c(&client), s("500 5.5.1 what\r\n")],
            &said,
            r"250 ok\r\n500 5.5.1 what\r\n",
        );
        check_greeted(
            &[c([before.as_bytes(), &client[..]].concat()), s("250 ok\r\n"), s(&server)],
            &said,
            &format!(r"250 ok\r\n{}", shown(&server)),
        );
    }
    check_greeted(
        &[c("hunter\r\n"), s("500 no\r\n"), c(&client), s("500 5.5.1 hunter\r\n")],
        &format!("<8$>{}", shown(&client)),
        "500 <4$>500 5.5.1 <8$>",
    );
}

/// Where it is not certain what is said, a record may be content: nothing of it crosses.
#[test]
fn tls_in_the_middle() {
    let client = hello(1, 300);
    check_under_way(&[c("hunter\r\n"), c(&client), s(hello(2, 80)), c("RSET\r\n")], "(8){311}", "{85}");
    check_under_way(
        &[c("STARTTLS\r\n"), s("220 go\r\n"), c(&client), c("RSET\r\n")],
        &format!(r"STARTTLS\r\n{}{{6}}", shown(&client)),
        r"220 go\r\n",
    );
    check_greeted(
        &[c(&client[..100]), Turn::Gap(Speaker::Client, 20), c("RSET\r\n")],
        &format!("{}{{6}}", shown(&client[..100])),
        "",
    );
    // In content it is content.
    check_greeted(
        &[c("DATA\r\n"), s("354 go\r\n"), c(&client), c("\r\n.\r\n"), s("250 ok\r\n"), c("RSET\r\n")],
        r"DATA\r\n[305]\r\n.\r\nRSET\r\n",
        r"354 go\r\n250 ok\r\n",
    );
}

/// TLS of one direction says nothing about the other.
#[test]
fn text_where_the_other_side_has_tls() {
    check_greeted(
        &[c("STARTTLS\r\nMAIL FROM:<a@b>\r\n"), s("220 go\r\n"), s("250 ok\r\n"), s(hello(2, 20)), c("NOOP x\r\n")],
        r"STARTTLS\r\nMAIL FROM:<a@b>\r\nNOOP<4$>",
        &format!(r"220 go\r\n250 ok\r\n{}", shown(hello(2, 20))),
    );
}

fn record(kind: u8, length: u16) -> Vec<u8> {
    let body: Vec<u8> = b"hunter\r\n".iter().copied().cycle().take(length.into()).collect();
    [&[kind, 3, 3], &length.to_be_bytes()[..], &body].concat()
}

/// What is shown of records behind each other, where each is given with the bytes of it that cross.
fn cut(records: &[(&[u8], usize)]) -> String {
    let mut told = Vec::new();
    for (record, crosses) in records {
        let (text, rest) = record.split_at(*crosses);
        match told.last_mut() {
            Some(Told::Text(before)) => before.extend(text),
            _ if text.is_empty() => {}
            _ => told.push(Told::Text(text.to_vec())),
        }
        match told.last_mut() {
            _ if rest.is_empty() => {}
            Some(Told::Ciphertext(length)) => *length += rest.len() as u32,
            _ => told.push(Told::Ciphertext(rest.len() as u32)),
        }
    }
    told.iter().map(show).collect()
}

/// A handshake of TLS 1.2 (RFC 5246, 7.3): up to the message Finished, which has its type and is encrypted.
#[test]
fn a_handshake_of_tls_1_2() {
    let (client, server) = (hello(1, 200), hello(2, 80));
    let (certificate, done, key) = (record(22, 900), record(22, 4), record(22, 37));
    let (change, finished, data) = (record(20, 1), record(22, 40), record(23, 30));
    check_greeted(
        &[
            c("STARTTLS\r\n"),
            s("220 go\r\n"),
            c(&client),
            s([&server[..], &certificate, &done].concat()),
            c([&key[..], &change, &finished].concat()),
            s([&change[..], &finished].concat()),
            c([&data[..], &data, &data].concat()),
            s([&data[..], &data].concat()),
        ],
        &(String::from(r"STARTTLS\r\n")
            + &cut(&[
                (&client, client.len()),
                (&key, 5),
                (&change, 5),
                (&finished, 5),
                (&data, 5),
                (&data, 0),
                (&data, 0),
            ])),
        &(String::from(r"220 go\r\n")
            + &cut(&[
                (&server, server.len()),
                (&certificate, 5),
                (&done, 5),
                (&change, 5),
                (&finished, 5),
                (&data, 5),
                (&data, 0),
            ])),
    );
}

/// A handshake of TLS 1.3 (RFC 8446, 2 and D.4) with another hello of the client: up to the first record that has room for
/// the message Finished.
#[test]
fn a_handshake_of_tls_1_3() {
    let (client, server) = (hello(1, 200), hello(2, 80));
    let (change, extensions, finished) = (record(20, 1), record(23, 23), record(23, 69));
    check_greeted(
        &[
            c(&client),
            s([&server[..], &change].concat()),
            c([&change[..], &client].concat()),
            s([&server[..], &extensions].concat()),
            s([&finished[..], &finished].concat()),
            c([&finished[..], &finished].concat()),
        ],
        &cut(&[(&client, client.len()), (&change, 5), (&client, 5), (&finished, 5), (&finished, 0)]),
        &cut(&[(&server, server.len()), (&change, 5), (&server, 5), (&extensions, 5), (&finished, 0), (&finished, 0)]),
    );
    check_greeted(
        &[c(&client), s([&server[..], &extensions, &finished, &finished].concat())],
        &shown(&client),
        &cut(&[(&server, server.len()), (&extensions, 5), (&finished, 5), (&finished, 0)]),
    );
}

/// An alert says why there is no TLS (RFC 8446, 6): of the client to what the server shows, or the server's first word.
#[test]
fn alerts_in_clear() {
    let (client, server, alert) = (hello(1, 200), hello(2, 80), b"\x15\x03\x03\0\x02\x02\x30");
    check_greeted(
        &[c(&client), s(&server), c([&alert[..], &record(22, 9)].concat())],
        &cut(&[(&client, client.len()), (alert, 7), (&record(22, 9), 5)]),
        &shown(&server),
    );
    // A warning before the hello changes nothing.
    check_greeted(
        &[c(&client), s([&b"\x15\x03\x03\0\x02\x01\x70"[..], &server].concat()), s(record(22, 30))],
        &shown(&client),
        &(String::from(r"\x15\x03\x03\x00\x02\x01p") + &cut(&[(&server, 85), (&record(22, 30), 5)])),
    );
    // An encrypted one is the last of which anything crosses, and nothing does where no handshake is.
    let encrypted = record(21, 26);
    check_greeted(
        &[c(&client), c([&encrypted[..], alert].concat()), s(alert), s(alert)],
        &cut(&[(&client, client.len()), (&encrypted, 5), (alert, 0)]),
        r"\x15\x03\x03\x00\x02\x020\x15\x03\x03\x00\x02\x020",
    );
    check_greeted(&[c("EHLO x\r\n"), s(alert)], r"EHLO x\r\n", "{7}");
}

/// It is the heads of a handshake that cross: of few records, and of records alone.
#[test]
fn what_goes_on_behind_a_handshake() {
    let (client, message) = (hello(1, 200), record(22, 4));
    let many: Vec<_> = std::iter::once((&client[..], client.len()))
        .chain(std::iter::repeat_n((&message[..], 5), 15))
        .chain(std::iter::repeat_n((&message[..], 0), 4))
        .collect();
    check_greeted(&[c(many.iter().map(|(record, _)| *record).collect::<Vec<_>>().concat())], &cut(&many), "");
    for other in [&b"hunter\r\n"[..], b"\x16\x02hunter\r\n", b"\x16\x03\x05hunter\r\n", b"\x18\x03\x03hunter\r\n"] {
        let crosses = match other[0] {
            0x16 => other.iter().position(|byte| matches!(byte, 2 | 5)).unwrap_or_default(),
            _ => 0,
        };
        check_greeted(&[c([&client[..], other].concat())], &cut(&[(&client, client.len()), (other, crosses)]), "");
    }
    // Bytes that go by unseen end it, wherever they are.
    check_greeted(
        &[c([&client[..], &message[..6]].concat()), Turn::Gap(Speaker::Client, 3), c(&message)],
        &cut(&[(&client, client.len()), (&message[..6], 5), (&message, 0)]),
        "",
    );
}
