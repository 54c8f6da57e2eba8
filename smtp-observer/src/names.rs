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
    /// What ended a connection: the first thing that did.
    ClosedBy {
        /// This socket's side closed, or shut, its direction first.
        Local => "local",
        /// The other side did.
        Remote => "remote",
        /// This side reset it.
        ResetSent => "reset_sent",
        /// The other side did.
        ResetReceived => "reset_received",
        /// The other side did not answer any more.
        Timeout => "timeout",
        /// That was not seen.
        Unknown => "unknown",
    }
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

impl RsetReason {
    /// What a sender does while all goes well.
    pub fn is_usual(self) -> bool {
        match self {
            Self::PipelinedBetweenMessages
            | Self::BetweenMessages
            | Self::ReuseProbe
            | Self::SameMessageSplit
            | Self::SessionStart
            | Self::BeforeQuit
            // It is told why where the client sent it.
            | Self::Relayed
            | Self::Encrypted => true,
            Self::SenderRejected
            | Self::RecipientsRejected
            | Self::RecipientRejected
            | Self::DataRejected
            | Self::MessageRejected
            | Self::AuthRetry
            | Self::ChunkAbort
            | Self::AddressProbe
            | Self::ClientAbort
            | Self::InterceptorDiscard
            | Self::InterceptorReplay
            | Self::Ambiguous => false,
        }
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

impl NoopReason {
    /// What a sender does while all goes well.
    pub fn is_usual(self) -> bool {
        match self {
            Self::IdleKeepalive
            | Self::LeaseCheck
            | Self::PipelineSync
            | Self::ReachabilityTest
            // It is told why where the client sent it.
            | Self::Relayed => true,
            Self::InterceptorKeepalive | Self::Verification | Self::Excessive | Self::Ambiguous => false,
        }
    }
}

names! {
    /// What is between a client and the server that it asked for.
    Verdict {
        /// A program that the client knows nothing of, and that does not pass everything as it came.
        TransparentInterceptor => "transparent_interceptor",
        /// The same, with less to prove it.
        LikelyInterceptor => "likely_interceptor",
        /// A program that the client knows nothing of; every byte passes unchanged.
        TransparentL4 => "transparent_l4",
        /// A server that the client knows nothing of takes its messages, and sends them on when it has them.
        TransparentRelay => "transparent_relay",
        /// The client is led to another server than it asked for, which answers itself or goes on to a third one: a published
        /// port, a virtual address.
        Redirected => "redirected",
        /// A proxy that the client chose.
        InlineProxy => "inline_proxy",
        /// A server that the client chose takes messages, and sends them on when it has them.
        Relay => "relay",
        /// What is said looks like a program in the middle; nothing but the texts says so.
        SuspectedMiddlebox => "suspected_middlebox",
        /// Nobody is: an earlier verdict was wrong.
        Direct => "direct",
    }
}

impl Verdict {
    /// The client does not know of what is in the middle, and it is on this host.
    pub fn is_hidden(self) -> bool {
        use Verdict::{LikelyInterceptor, TransparentInterceptor, TransparentL4, TransparentRelay};
        matches!(self, TransparentInterceptor | LikelyInterceptor | TransparentL4 | TransparentRelay)
    }
}

names! {
    /// How a client's connection came to the program in the middle.
    Method {
        /// Its packets were redirected to another port of the address, or to this host (`REDIRECT`).
        Redirect => "redirect",
        /// Their destination was translated to another address (`DNAT`).
        Dnat => "dnat",
        /// They were taken with the address they had (`TPROXY`).
        Tproxy => "tproxy",
        /// Its `connect` was given another address by a program in the kernel (cgroup/connect4 and connect6).
        ConnectRewrite => "connect_rewrite",
        /// A library that was loaded before its own asked for another address (`LD_PRELOAD`).
        Preload => "preload",
        /// It asked for it.
        LocalProxy => "local_proxy",
        /// It is on another host.
        Remote => "remote",
        /// Not known.
        Unknown => "unknown",
    }
}

impl Method {
    /// The client got another peer than it asked for.
    pub fn is_hidden(self) -> bool {
        matches!(self, Self::Redirect | Self::Dnat | Self::Tproxy | Self::ConnectRewrite)
    }
}

names! {
    /// What leads to a verdict.
    EvidenceKind {
        /// The client's connection ends in a process on this host, which is not what it asked for.
        LocalPeer => "local_peer",
        /// Its `connect` was given another address.
        ConnectRewritten => "connect_rewritten",
        /// The process connected to the server that the client had asked for.
        SameDestinationConnected => "same_destination_connected",
        /// It named the same sender and recipient there as the client had.
        EnvelopeMirrored => "envelope_mirrored",
        /// The client got another reply than the server gave.
        ReplyTextDiffers => "reply_text_differs",
        /// The client was told to send its message though the server had not been asked.
        GoAheadNotFromUpstream => "go_ahead_not_from_upstream",
        /// The server was asked to take the message when the client had sent it.
        DataHeldBack => "data_held_back",
        /// The client was told that its message is taken before the server had taken it.
        SuccessBeforeUpstream => "success_before_upstream",
        /// The server got a command that the client had not sent.
        CommandInjected => "command_injected",
        /// A command of the client did not reach the server.
        CommandSwallowed => "command_swallowed",
        /// An extension that the server offers was not offered to the client.
        CapabilityRemoved => "capability_removed",
        /// An extension was offered to the client that the server does not offer.
        CapabilityAdded => "capability_added",
        /// That extension is STARTTLS.
        StarttlsStripped => "starttls_stripped",
        /// A command of an extension that was offered is not understood.
        OfferedExtensionRefused => "offered_extension_refused",
        /// The greeting is one server's, the go-ahead another's.
        WordingMismatch => "wording_mismatch",
        /// The client's name in HELO or EHLO was changed.
        HeloChanged => "helo_changed",
        /// The message has another size.
        BodyChanged => "body_changed",
        /// TLS was spoken with the client and with the server, and not the same.
        TlsTerminated => "tls_terminated",
        /// Both connections ended together.
        CoupledClose => "coupled_close",
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
        /// It did, and the client goes on in clear.
        NotUsed => "not_used",
        /// The client asked for it, and the server agreed.
        Requested => "requested",
        /// The server did not agree.
        Refused => "refused",
        /// The handshake is over, behind a 220 to STARTTLS or from the first byte.
        Started => "started",
        /// Its plaintext is read from here on; not from its start.
        Read => "read",
        /// There was none, or it did not succeed.
        Failed => "failed",
    }
}

names! {
    /// Why the plaintext of a TLS session is not read from its start.
    TlsUnread {
        /// TLS is not read: by `--tls off`, or this host or user cannot.
        Off => "off",
        /// The process was not searched for libraries yet.
        NotSearched => "not_searched",
        /// No library was found in the process that can be probed.
        NoLibrary => "no_library",
        /// One was, and none of its calls was seen around those on the socket: TLS had begun before the probes were there, or
        /// the process sends by itself what the library has encrypted.
        OutsideCalls => "outside_calls",
    }
}

names! {
    /// Versions of TLS.
    TlsVersion {
        /// SSL 3.0 (RFC 6101).
        Ssl3 => "ssl_3.0",
        /// TLS 1.0 (RFC 2246).
        Tls10 => "1.0",
        /// TLS 1.1 (RFC 4346).
        Tls11 => "1.1",
        /// TLS 1.2 (RFC 5246).
        Tls12 => "1.2",
        /// TLS 1.3 (RFC 8446).
        Tls13 => "1.3",
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
        /// The client shut its direction in a message, and the server accepted what had come.
        ContentCutShort => "content_cut_short",
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
        /// The client speaks TLS from its first byte, the server does not.
        TlsToPlainPort => "tls_to_plain_port",
        /// The server speaks TLS from its first byte, the client does not.
        PlaintextToTlsPort => "plaintext_to_tls_port",
        /// A peer does not speak SMTP.
        NotSmtp => "not_smtp",
        /// Commands were pipelined though the server never offered it.
        PipeliningNotOffered => "pipelining_not_offered",
        /// A verb, an extension's keyword or the greeting overwritten on the path (`XXXX`, `220 ****`).
        MaskedCommand => "masked_command",
        /// The one that connected serves: ATRN or TURN was accepted, or it greets.
        RoleReversed => "role_reversed",
        /// One end of a connection was seen to receive another line than the other was seen to send.
        EndsDisagree => "ends_disagree",
        /// Bytes were not seen.
        Gap => "gap",
        /// The stream is followed again after a gap.
        Resynchronised => "resynchronised",
    }
}
