//! What a firewall has written over: Cisco's inspection of SMTP hides what it does not know.

/// X stands where the verb was.
pub(super) fn is_verb(word: &[u8]) -> bool {
    word.len() >= 4 && word.iter().all(|&byte| byte == b'X')
}

/// X stands where an extension's keyword was, with one letter behind them that keeps the lines apart (`XXXXXXXA`).
pub(super) fn is_keyword(word: &[u8]) -> bool {
    match word.split_last() {
        Some((last, rest)) => last.is_ascii_uppercase() && is_verb(rest),
        None => false,
    }
}

/// Of a greeting only blanks, `2` and `0` are left.
pub fn is_greeting(text: &[u8]) -> bool {
    let stars = text.iter().filter(|&&byte| byte == b'*').count();
    stars >= 8 && text.iter().all(|byte| b"*20 ".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        assert!(is_verb(b"XXXX") && is_verb(b"XXXXXXXX"));
        assert!(!is_verb(b"XXX") && !is_verb(b"XFOO") && !is_verb(b""));
        assert!(is_keyword(b"XXXXXXXA") && is_keyword(b"XXXXX"));
        assert!(!is_keyword(b"XXXXXXA1") && !is_keyword(b"XEXCH50") && !is_keyword(b""));
        assert!(is_greeting(b"****************2*0*** **"));
        assert!(!is_greeting(b"*******") && !is_greeting(b"mx.example ********"));
    }
}
