//! Under which identifier a server keeps a message: the one that its log has, too.

/// Fewest and most bytes of one.
const LENGTH: std::ops::RangeInclusive<usize> = 4..=80;

/// The identifier in the text of a reply that has accepted a message, in the words of servers that tell it. Where the words say
/// more than once who has it queued, as those of a content filter do, the last is the server's that has it now.
pub(super) fn queue_id(text: &str) -> Option<&str> {
    // Postfix, and what repeats Postfix's reply; Coremail.
    behind(text, "queued as ")
        // Exim; Exchange.
        .or_else(|| behind(text, "OK id="))
        .or_else(|| behind(text, "[InternalId="))
        // qmail's is a time and a process.
        .or_else(|| behind(text, " qp "))
        // Haraka.
        .or_else(|| behind(text, "Message Queued ("))
        // Sendmail and OpenSMTPD; Google.
        .or_else(|| before(text, " Message accepted for delivery"))
        .or_else(|| before(text, " - gsmtp"))
        // Dovecot, for each recipient.
        .or_else(|| before(text, " Saved"))
}

fn behind<'a>(text: &'a str, words: &str) -> Option<&'a str> {
    let (_, rest) = text.rsplit_once(words)?;
    identifier(rest.split([' ', '\n', ';', ')', ']']).next()?)
}

fn before<'a>(text: &'a str, words: &str) -> Option<&'a str> {
    let (rest, _) = text.rsplit_once(words)?;
    identifier(&rest[rest.rfind(' ').map_or(0, |at| at + 1)..])
}

/// Letters, digits and a few signs, and at least one digit: a word of the language is none, nor is an enhanced status code.
fn identifier(word: &str) -> Option<&str> {
    let word = word.trim_end_matches(['.', ',']);
    let is_identifier = LENGTH.contains(&word.len())
        && word.chars().all(is_of_identifier)
        && word.contains(|letter: char| letter.is_ascii_digit())
        && !(word.contains('.')
            && word.split('.').all(|part| (1..=3).contains(&part.len()) && part.parse::<u16>().is_ok()));
    is_identifier.then_some(word)
}

fn is_of_identifier(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | ',' | '_' | '+' | '/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_words_of_servers() {
        for (text, expected) in [
            ("2.0.0 Ok: queued as 4F1C0A77", Some("4F1C0A77")),
            ("2.0.0 Ok: queued as 4bXk9Q3kz1zJrgs", Some("4bXk9Q3kz1zJrgs")),
            ("2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 4F1C0A77", Some("4F1C0A77")),
            ("2.6.0 Ok, id=1-2, queued as 11111111; from MTA: queued as 22222222", Some("22222222")),
            (
                "Mail OK queued as gzga-smtp-mta-g1-4,_____wDX+8Lk.1234S2",
                Some("gzga-smtp-mta-g1-4,_____wDX+8Lk.1234S2"),
            ),
            ("OK id=1tGxyz-0000000Abcd-1Q2r", Some("1tGxyz-0000000Abcd-1Q2r")),
            ("2.0.0 4AB1cD2e012345 Message accepted for delivery", Some("4AB1cD2e012345")),
            ("2.0.0 8b1f2c3d Message accepted for delivery", Some("8b1f2c3d")),
            ("ok 1700000000 qp 12345", Some("12345")),
            (
                "2.6.0 <*@x.example> [InternalId=1234567890, Hostname=ex.example] Queued mail for delivery",
                Some("1234567890"),
            ),
            ("Message Queued (0F4D1A2B-1C2D-4E5F-8A9B-0C1D2E3F4A5B.1)", Some("0F4D1A2B-1C2D-4E5F-8A9B-0C1D2E3F4A5B.1")),
            ("2.0.0 OK  1700000000 d2e1a72fcca58-7b1b2c3d4e5f6.12 - gsmtp", Some("d2e1a72fcca58-7b1b2c3d4e5f6.12")),
            ("2.0.0 <*@x.example> 0Ab1CdEfGh2IjKlM Saved", Some("0Ab1CdEfGh2IjKlM")),
            // No identifier, or none for certain.
            ("2.0.0 Ok", None),
            ("2.0.0 Message accepted for delivery", None),
            ("Mail queued for delivery.", None),
            ("queued as soon as possible", None),
            ("2.0.0 Ok: queued as *", None),
            ("2.0.0 Ok: queued as 1", None),
            ("Queued (0.123 seconds)", None),
            ("Mail Saved", None),
            ("", None),
        ] {
            assert_eq!(queue_id(text), expected, "{text}");
        }
    }

    #[test]
    fn of_any_length_or_none() {
        let long = "a1".repeat(41);
        assert_eq!(queue_id(&format!("queued as {long}")), None);
        assert_eq!(queue_id("queued as "), None);
        assert_eq!(queue_id(" Message accepted for delivery"), None);
    }
}
