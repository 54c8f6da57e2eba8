//! The names that observations and labels have: each set is fixed.

use serde::{Serialize, Serializer};

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name used in events and labels.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

names! {
    /// Why an RSET was sent.
    RsetReason {
        /// MAIL was refused.
        SenderRejected => "sender_rejected",
        /// Every recipient was refused.
        RecipientsRejected => "recipients_rejected",
        /// Some recipients were refused, and the sender gives up on all.
        RecipientRejected => "recipient_rejected",
        /// DATA was refused.
        DataRejected => "data_rejected",
        /// The message was refused after its content.
        MessageRejected => "message_rejected",
        /// Between a refused AUTH and the next.
        AuthRetry => "auth_retry",
        /// A series of BDAT chunks was given up.
        ChunkAbort => "chunk_abort",
        /// Sent together with the next message's commands.
        PipelinedBetweenMessages => "pipelined_between_messages",
        /// After a message, before the next.
        BetweenMessages => "between_messages",
        /// An idle connection is tried before it is used again.
        ReuseProbe => "reuse_probe",
        /// One message in several transactions.
        SameMessageSplit => "same_message_split",
        /// An address was tested, nothing was to be sent.
        AddressProbe => "address_probe",
        /// Before the session's first transaction.
        SessionStart => "session_start",
        /// Right before QUIT.
        BeforeQuit => "before_quit",
        /// The sender gave up on a transaction that was going well.
        ClientAbort => "client_abort",
        /// The client of a proxy sent it.
        Relayed => "relayed",
        /// A program in the middle threw the message away.
        InterceptorDiscard => "interceptor_discard",
        /// A program in the middle starts the transaction again.
        InterceptorReplay => "interceptor_replay",
        /// Under TLS.
        Encrypted => "encrypted",
        /// The wire cannot tell.
        Ambiguous => "ambiguous",
    }
}

names! {
    /// Why a NOOP was sent.
    NoopReason {
        /// A program in the middle keeps the server waiting.
        InterceptorKeepalive => "interceptor_keepalive",
        /// An idle connection is kept open.
        IdleKeepalive => "idle_keepalive",
        /// A pooled connection is tried before use.
        LeaseCheck => "lease_check",
        /// Between recipients, by a program that tests addresses.
        Verification => "verification",
        /// The last of a pipelined group.
        PipelineSync => "pipeline_sync",
        /// A session of nothing but greeting, NOOP and QUIT.
        ReachabilityTest => "reachability_test",
        /// The client of a proxy sent it.
        Relayed => "relayed",
        /// More than any of these needs.
        Excessive => "excessive",
        /// The wire cannot tell.
        Ambiguous => "ambiguous",
    }
}

names! {
    /// How a mail transaction ended.
    Outcome {
        /// The server took the message.
        Delivered => "delivered",
        /// The server refused sender, recipients, DATA or message.
        Rejected => "rejected",
        /// RSET (or another EHLO) ended it.
        Reset => "reset",
        /// QUIT or the end of the connection ended it.
        Abandoned => "abandoned",
    }
}

names! {
    /// How far TLS got.
    TlsPhase {
        /// The server listed STARTTLS.
        Offered => "offered",
        /// The client speaks TLS: behind a 220 to STARTTLS, or from its first byte.
        Started => "started",
    }
}

names! {
    /// Departures from the protocol.
    AnomalyKind {
        /// HELO or EHLO without an argument (RFC 5321, 4.1.1.1).
        HeloWithoutHostname => "helo_without_hostname",
        /// The client spoke before the greeting.
        EarlyTalker => "early_talker",
        /// A line ended by LF alone.
        BareLf => "bare_lf",
        /// A CR that no LF follows.
        BareCr => "bare_cr",
        /// Bytes in a message that some servers take for its end.
        SmugglingAttempt => "smuggling_attempt",
        /// The server took them for its end.
        SmugglingEffective => "smuggling_effective",
        /// A NUL byte in a line.
        NulByte => "nul_byte",
        /// A line longer than what is kept; the rest is skipped.
        LineTooLong => "line_too_long",
        /// A reply that no command waits for.
        UnsolicitedReply => "unsolicited_reply",
        /// A reply line without a three-digit code.
        MalformedReply => "malformed_reply",
        /// 421 out of turn: the server gives up the connection.
        ServerShutdown => "server_shutdown",
        /// Plain bytes behind STARTTLS.
        StarttlsInjection => "starttls_injection",
        /// A peer does not speak SMTP.
        NotSmtp => "not_smtp",
        /// Commands were pipelined though the server never offered it.
        PipeliningNotOffered => "pipelining_not_offered",
        /// A verb, an extension's keyword or the greeting overwritten on the path (`XXXX`, `220 ****`).
        MaskedCommand => "masked_command",
        /// The one that connected serves: ATRN or TURN was accepted, or it greets.
        RoleReversed => "role_reversed",
        /// Bytes were not seen.
        Gap => "gap",
        /// The stream is followed again after a gap.
        Resynchronised => "resynchronised",
    }
}
