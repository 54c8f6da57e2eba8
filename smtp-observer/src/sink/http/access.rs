//! Who is let in: which names the agent is asked for by, TLS and passwords, and who may see processes' arguments.

mod config;
mod password;
mod peer;
#[cfg(test)]
mod tests;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, FORWARDED, RETRY_AFTER, VIA, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use tracing::{debug, info, warn};

pub use self::config::WebConfigError;
use self::config::{Tls, WebConfig};
use self::password::{Credentials, Outcome, Passwords};
pub use self::tls::TlsError;
use super::guard::{self, refused};

/// The user that many services share (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65534;

/// How long files that were of no use are not read again unless they change.
const NEXT_TRY: Duration = Duration::from_secs(1);

const NO_PASSWORD: &str = "a user and a password are needed\n";
const TOO_MANY: &str = "too many passwords of this address wait to be looked at\n";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Who is let in.
pub struct Access {
    /// Names by which the agent may be asked for, beside addresses, `localhost` and those of its certificate.
    names: Vec<String>,
    web: Option<Web>,
    passwords: Passwords,
}

/// The web configuration as it is in force, and what its files were like when it was read.
struct Web {
    path: PathBuf,
    state: Mutex<Read>,
}

struct Read {
    config: Arc<WebConfig>,
    /// The files that were looked at last, whether they were of use or not.
    files: Vec<PathBuf>,
    stamps: Vec<Option<Stamp>>,
    /// When they were of no use, and why: a file that is missing may come.
    failed: Option<(Instant, String)>,
}

/// What of a file changes with its content: device, inode, length, and the times of content and inode.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

impl Access {
    /// Without a web configuration everybody is let in. `names` are those by which the agent may be asked for.
    pub fn new(web: Option<&Path>, names: Vec<String>) -> Result<Self, WebConfigError> {
        let web = web.map(Web::read).transpose()?;
        Ok(Self { names, web, passwords: Passwords::new().map_err(WebConfigError::Random)? })
    }

    /// What is to be known of an address that others reach; nothing of one that they do not.
    pub fn warning(&self, address: SocketAddr) -> Option<String> {
        if address.ip().to_canonical().is_loopback() {
            return None;
        }
        let config = self.web.as_ref().map(Web::current);
        let authenticates = config.as_ref().is_some_and(|config| config.authenticates());
        let encrypts = config.is_some_and(|config| config.tls.is_some());
        let danger = match (authenticates, encrypts) {
            (true, true) => return None,
            (true, false) => "passwords and answers go over the network in clear: give tls_server_config",
            (false, true) => "everybody who reaches it is let in: give basic_auth_users",
            (false, false) => {
                "everybody who reaches it is let in, and all goes over the network in clear: give tls_server_config and \
                 basic_auth_users"
            }
        };
        Some(format!("{address} is not of this host alone, and {danger} with --web-config-file FILE"))
    }

    /// `https` where TLS is spoken.
    pub fn scheme(&self) -> &'static str {
        if self.tls().is_some() { "https" } else { "http" }
    }

    /// The files that are read again when they change.
    pub fn files(&self) -> Vec<PathBuf> {
        self.web.as_ref().map_or_else(Vec::new, |web| web.current().files.clone())
    }

    /// Says which files cannot be read any more, now that privileges are given up: their changes would not be seen.
    pub fn warn_of_unreadable_files(&self) {
        let Some(web) = &self.web else { return };
        for file in &web.current().files {
            if let Err(error) = std::fs::File::open(file) {
                let reason = crate::sink::reason(&error);
                warn!("changes of {} will take a restart: without privileges, {reason}", file.display());
            }
        }
    }

    /// How TLS is spoken with the next client.
    pub(super) fn tls(&self) -> Option<Tls> {
        self.web.as_ref()?.current().tls.clone()
    }

    /// Whether a request for this host is answered.
    fn is_own(&self, host: &guard::Host<'_>, certificate: Option<&[u8]>) -> bool {
        host.is_address_or_local()
            || self.names.iter().any(|name| name.eq_ignore_ascii_case(host.name()))
            || certificate.is_some_and(|certificate| host.is_named_by(certificate))
    }
}

impl Web {
    fn read(path: &Path) -> Result<Self, WebConfigError> {
        // Before: what changes meanwhile is read again.
        let own = stamps(&[path.to_owned()]);
        let config = Arc::new(WebConfig::read(path)?);
        let files = config.files.clone();
        let mut stamps = stamps(&files);
        stamps[..1].copy_from_slice(&own);
        Ok(Self { path: path.to_owned(), state: Mutex::new(Read { config, files, stamps, failed: None }) })
    }

    /// As the files have it now. Of files that are of no use it is told once, and what they said before stays in force.
    fn current(&self) -> Arc<WebConfig> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&state.files);
        let is_due = state.failed.as_ref().is_some_and(|(failed, _)| failed.elapsed() >= NEXT_TRY);
        if now != state.stamps || is_due {
            match Self::read(&self.path).and_then(|news| self.no_weaker(&state.config, news)) {
                Ok(news) => {
                    info!("{} and its files were read again", self.path.display());
                    *state = news;
                }
                Err(error) => {
                    let why = error.to_string();
                    if now != state.stamps || state.failed.as_ref().is_none_or(|(_, before)| *before != why) {
                        warn!("{why} What was there before stays in force.");
                    }
                    state.stamps = now;
                    state.failed = Some((Instant::now(), why));
                }
            }
        }
        Arc::clone(&state.config)
    }

    /// A file that is being written may have less than before: nobody is let in by that.
    fn no_weaker(&self, before: &WebConfig, news: Self) -> Result<Read, WebConfigError> {
        let news = news.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let had = [
            (before.tls.is_some(), news.config.tls.is_some(), "tls_server_config"),
            (!before.users.is_empty(), !news.config.users.is_empty(), "basic_auth_users"),
            (before.certifies(), news.config.certifies(), "client_auth_type: RequireAndVerifyClientCert"),
        ];
        match had.into_iter().find(|(before, now, _)| *before && !now) {
            Some((_, _, lost)) => Err(WebConfigError::Weaker { path: self.path.clone(), lost }),
            None => Ok(news),
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |file: &PathBuf| {
        let file = std::fs::metadata(file).ok()?;
        Some((file.dev(), file.ino(), file.len(), (file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec())))
    };
    files.iter().map(stamp).collect()
}

/// The client of one HTTP connection.
pub(super) struct Client {
    pub(super) peer: SocketAddr,
    pub(super) own: SocketAddr,
    /// The certificate that this server has shown it, in DER.
    pub(super) certificate: Option<Arc<[u8]>>,
    /// It has shown one of its own, signed by whom the configuration trusts.
    pub(super) certified: bool,
    /// Whether it is root on this host, or the agent's own user; looked for when that counts.
    pub(super) trusted: OnceLock<bool>,
}

impl Client {
    fn is_trusted(&self) -> bool {
        *self.trusted.get_or_init(|| {
            if !peer::is_local(self.peer, self.own) {
                return false;
            }
            // As nobody, the agent shares its user with others.
            let own = Some(nix::unistd::geteuid().as_raw()).filter(|own| *own != NOBODY);
            match peer::user(self.peer, self.own) {
                Ok(user) => user.is_some_and(|user| user == 0 || Some(user) == own),
                Err(error) => {
                    debug!("whose client {} is cannot be found: {error}", self.peer);
                    false
                }
            }
        })
    }
}

/// How much of what the agent knows a client may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// All that events have.
    Whole,
    /// All but processes' arguments.
    WithoutArguments,
}

/// Lets in who may come in, and says how much they may see.
pub(super) async fn admit(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    let config = access.web.as_ref().map(Web::current);
    let mut response = match admitted(&access, config.as_deref(), &mut request).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal,
    };
    for (name, value) in config.iter().flat_map(|config| &config.headers) {
        // The page's own are stricter.
        response.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    response
}

async fn admitted(access: &Access, config: Option<&WebConfig>, request: &mut Request) -> Result<(), Response> {
    let client = request.extensions().get::<Arc<Client>>().map(Arc::clone);
    let certificate = client.as_ref().and_then(|client| client.certificate.as_deref());
    if !guard::Host::of(request.headers()).is_some_and(|host| access.is_own(&host, certificate)) {
        return Err(refused(StatusCode::MISDIRECTED_REQUEST, guard::OTHER_HOST));
    }
    let mut known = client.as_ref().is_some_and(|client| client.certified);
    if let Some(config) = config.filter(|config| !config.users.is_empty()) {
        let peer = client.as_ref().map_or(IpAddr::from([0, 0, 0, 0]), |client| client.peer.ip());
        let given = request.headers().get(AUTHORIZATION).and_then(|given| Credentials::parse(given.as_bytes()));
        let outcome = match given {
            Some(given) => access.passwords.check(&config.users, peer, &given).await,
            None => Outcome::Wrong,
        };
        match outcome {
            Outcome::Right => known = true,
            Outcome::Wrong => {
                let mut refusal = refused(StatusCode::UNAUTHORIZED, NO_PASSWORD);
                let challenge = HeaderValue::from_static("Basic realm=\"smtp-observer\", charset=\"UTF-8\"");
                refusal.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                return Err(refusal);
            }
            Outcome::NotLookedAt => {
                let mut refusal = refused(StatusCode::TOO_MANY_REQUESTS, TOO_MANY);
                refusal.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                return Err(refusal);
            }
        }
    }
    // What asks for somebody else is not that somebody.
    let is_forwarded = [FORWARDED, FORWARDED_FOR, VIA].iter().any(|name| request.headers().contains_key(name));
    let is_trusted = || !is_forwarded && client.as_ref().is_some_and(|client| client.is_trusted());
    // Only what shows processes looks whose a client is.
    let shows_processes = request.uri().path().starts_with("/api/");
    let whole = known || shows_processes && is_trusted();
    request.extensions_mut().insert(if whole { Sight::Whole } else { Sight::WithoutArguments });
    Ok(())
}
