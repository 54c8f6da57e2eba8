//! Names of SASL mechanisms that may cross: IANA's registry of SASL mechanisms, and the vendors' that are in use.

use super::scan::hash_of;

macro_rules! hashes {
    ($($name:literal)*) => {
        /// The hashes of the names.
        const HASHES: &[u64] = &[$(hash_of($name)),*];
        /// The names, for the agent.
        pub const NAMES: &[&[u8]] = &[$($name),*];
    };
}

hashes! {
    b"9798-M-DSA-SHA1" b"9798-M-ECDSA-SHA1" b"9798-M-RSA-SHA1-ENC" b"9798-U-DSA-SHA1" b"9798-U-ECDSA-SHA1"
    b"9798-U-RSA-SHA1-ENC" b"ANONYMOUS" b"CRAM-MD5" b"DIGEST-MD5" b"EAP-AES128" b"EAP-AES128-PLUS"
    b"ECDH-X25519-CHALLENGE" b"ECDSA-NIST256P-CHALLENGE" b"EXTERNAL" b"GS2-KRB5" b"GS2-KRB5-PLUS" b"GSS-SPNEGO"
    b"GSSAPI" b"KERBEROS_V4" b"KERBEROS_V5" b"LOGIN" b"NMAS-SAMBA-AUTH" b"NMAS_AUTHEN" b"NMAS_LOGIN" b"NTLM"
    b"OAUTH10A" b"OAUTHBEARER" b"OPENID20" b"OTP" b"PLAIN" b"SAML20" b"SCRAM-SHA-1" b"SCRAM-SHA-1-PLUS"
    b"SCRAM-SHA-256" b"SCRAM-SHA-256-PLUS" b"SCRAM-SHA-512" b"SCRAM-SHA-512-PLUS" b"SCRAM-SHA3-512"
    b"SCRAM-SHA3-512-PLUS" b"SECURID" b"SKEY" b"SPNEGO" b"SPNEGO-PLUS" b"SXOVER-PLUS" b"XOAUTH" b"XOAUTH2"
    b"XYMCOOKIE" b"MSN" b"EXCHANGEAUTH"
}

/// Whether the word with this hash is the name of one.
#[inline(always)]
pub fn is_one(hash: u64) -> bool {
    let mut found = false;
    let mut at = 0;
    while at < HASHES.len() {
        found |= HASHES[at] == hash;
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_names_share_a_hash() {
        for (at, one) in NAMES.iter().enumerate() {
            assert!(is_one(hash_of(one)));
            assert!(is_one(hash_of(&one.to_ascii_lowercase())));
            assert!(NAMES[at + 1..].iter().all(|other| hash_of(one) != hash_of(other)));
        }
        assert!(!is_one(hash_of(b"hunter2")) && !is_one(hash_of(b"")));
    }
}
