//! Names of SASL mechanisms: IANA's registry of SASL mechanisms, and the vendors' that are in use.

/// Other words behind AUTH are not kept: they may be credentials.
const NAMES: [&str; 49] = [
    "9798-M-DSA-SHA1",
    "9798-M-ECDSA-SHA1",
    "9798-M-RSA-SHA1-ENC",
    "9798-U-DSA-SHA1",
    "9798-U-ECDSA-SHA1",
    "9798-U-RSA-SHA1-ENC",
    "ANONYMOUS",
    "CRAM-MD5",
    "DIGEST-MD5",
    "EAP-AES128",
    "EAP-AES128-PLUS",
    "ECDH-X25519-CHALLENGE",
    "ECDSA-NIST256P-CHALLENGE",
    "EXCHANGEAUTH",
    "EXTERNAL",
    "GS2-KRB5",
    "GS2-KRB5-PLUS",
    "GSS-SPNEGO",
    "GSSAPI",
    "KERBEROS_V4",
    "KERBEROS_V5",
    "LOGIN",
    "MSN",
    "NMAS-SAMBA-AUTH",
    "NMAS_AUTHEN",
    "NMAS_LOGIN",
    "NTLM",
    "OAUTH10A",
    "OAUTHBEARER",
    "OPENID20",
    "OTP",
    "PLAIN",
    "SAML20",
    "SCRAM-SHA-1",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-256",
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-512",
    "SCRAM-SHA-512-PLUS",
    "SCRAM-SHA3-512",
    "SCRAM-SHA3-512-PLUS",
    "SECURID",
    "SKEY",
    "SPNEGO",
    "SPNEGO-PLUS",
    "SXOVER-PLUS",
    "XOAUTH",
    "XOAUTH2",
    "XYMCOOKIE",
];

/// Whether a word is the name of one; case does not matter (RFC 4422, 3.1 has upper case, servers take both).
pub(super) fn is_one(word: &[u8]) -> bool {
    NAMES.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::is_one;

    #[test]
    fn a_credential_is_no_mechanism() {
        assert!(is_one(b"PLAIN") && is_one(b"xoauth2") && is_one(b"SCRAM-SHA-256-PLUS"));
        for word in ["AGJvYgBodW50ZXIy", "hunter2", "PLAIN=", "PLAINhunter2", "PLAI", "=", ""] {
            assert!(!is_one(word.as_bytes()), "{word}");
        }
    }
}
