//! The software behind a greeting, where its wording tells.

use memchr::memmem;

use crate::smtp::is_masked_greeting;

/// What greetings contain, and whose they are. The first that is found counts. Wordings that several programs share
/// (`ESMTP ready`, `ESMTP Service ready`) are not in it.
const GREETINGS: &[(&str, &str)] = &[
    ("ESMTP Postfix", "Postfix"),
    ("ESMTP Exim ", "Exim"),
    ("ESMTP Sendmail", "Sendmail"),
    ("ESMTP OpenSMTPD", "OpenSMTPD"),
    ("Microsoft ESMTP MAIL Service", "Microsoft Exchange"),
    ("- gsmtp", "Gmail"),
    ("ESMTP YSmtpProxy", "Yahoo"),
    (" Python SMTP ", "aiosmtpd"),
    ("ESMTP qpsmtpd", "qpsmtpd"),
    ("ESMTP Haraka", "Haraka"),
    ("ESMTP chasquid", "chasquid"),
    ("Stalwart ESMTP", "Stalwart"),
    ("Dovecot ready", "Dovecot"),
    ("-- E-MailRelay ", "E-MailRelay"),
    ("avast! SMTP proxy", "avast"),
    ("AVG ESMTP Proxy Server", "AVG"),
    ("fsigk_smtp", "F-Secure"),
    ("F-Secure Anti-Virus for Internet Mail", "F-Secure"),
    ("ESMTP BitDefender Proxy", "BitDefender"),
    ("WebShield SMTP", "McAfee"),
    ("AVKSMTP Server", "G DATA"),
    ("TrendMicro IMSS SMTP proxy", "Trend Micro"),
    ("Symantec Messaging Gateway", "Symantec"),
    ("Symantec Mail Security", "Symantec"),
    ("CheckPoint FireWall-1 secure SMTP server", "Check Point"),
    ("PGP Universal service ready", "PGP Universal"),
    ("smtp.passthru", "proxsmtp"),
];

/// The program that greets like this.
pub(super) fn guess(greeting: &[u8]) -> Option<&'static str> {
    let contains = |part: &str| memmem::find(greeting, part.as_bytes()).is_some();
    if is_masked_greeting(greeting) {
        return Some("Cisco ASA");
    }
    GREETINGS.iter().find(|(part, _)| contains(part)).map(|&(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::guess;

    #[test]
    fn greetings() {
        for (greeting, software) in [
            ("mx.example ESMTP Postfix (Debian/GNU)", Some("Postfix")),
            ("mx.example ESMTP Exim 4.96 Tue, 03 Nov 2026 10:00:00 +0000", Some("Exim")),
            ("mx.example ESMTP Sendmail 8.17.1/8.17.1; Tue, 3 Nov 2026 10:00:00 GMT", Some("Sendmail")),
            ("mx.example ESMTP OpenSMTPD", Some("OpenSMTPD")),
            ("mx.google.com ESMTP a1-20020 - gsmtp", Some("Gmail")),
            ("mx.example Microsoft ESMTP MAIL Service ready at Tue, 3 Nov 2026", Some("Microsoft Exchange")),
            ("mx.example avast! SMTP proxy ready.", Some("avast")),
            ("CheckPoint FireWall-1 secure SMTP server", Some("Check Point")),
            ("****************2*0*** **", Some("Cisco ASA")),
            ("mx.example ESMTP", None),
            ("mx.example ESMTP ready", None),
            ("mx.example ESMTP Eximious", None),
            ("**", None),
            ("", None),
            (&format!("{}\nmx.example ESMTP Exim 4.96", "ESMTP Post".repeat(400)), Some("Exim")),
        ] {
            assert_eq!(guess(greeting.as_bytes()), software, "{greeting}");
        }
    }
}
