//! Chromium without a window, driven by its DevTools protocol over two pipes: no port, and nobody else can reach it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{FcntlArg, fcntl};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::machine;
use crate::process::Running;

/// How long a page may take to come to what a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

const PROGRAM: &str = "chromium-headless-shell";

/// `--no-sandbox`, since the tests are root, whom Chromium gives no sandbox; it sees nothing but the agent's page. It asks
/// nobody outside anything.
const OPTIONS: [&str; 9] = [
    "--no-sandbox",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-proxy-server",
    "--no-first-run",
    "--hide-scrollbars",
];

/// Where Chromium reads commands, and where it answers.
const COMMANDS: i32 = 3;
const ANSWERS: i32 = 4;

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    to: File,
    from: Receiver<Value>,
    last: u64,
    session: String,
    complaints: Vec<String>,
    /// Requests that wait for what becomes of them.
    held: VecDeque<String>,
    running: Running,
    _profile: TempDir,
}

impl Browser {
    /// Starts it, with an empty page of this width.
    pub fn start(width: u32) -> Result<Self> {
        let profile = tempfile::Builder::new().prefix("smtp-observer-browser-").tempdir()?;
        let mut command = Command::new(machine::installed(PROGRAM)?);
        command.args(OPTIONS).arg(format!("--user-data-dir={}", profile.path().display())).env("HOME", profile.path());
        let (commands, to) = std::io::pipe()?;
        let (from, answers) = std::io::pipe()?;
        let ends = [high(commands.into())?, high(answers.into())?];
        // SAFETY: dup2 is a bare system call on descriptors that the closure owns: fit for a forked child.
        unsafe {
            command.pre_exec(move || {
                for (end, place) in ends.iter().zip([COMMANDS, ANSWERS]) {
                    if libc::dup2(end.as_raw_fd(), place) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            })
        };
        let running = Running::start(command)?;
        let (sender, messages) = mpsc::channel();
        let mut from = BufReader::new(File::from(OwnedFd::from(from)));
        // Ends with the browser, which closes the pipe.
        thread::spawn(move || {
            let mut message = Vec::new();
            while from.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                let value = serde_json::from_slice(message.strip_suffix(&[0]).unwrap_or(&message));
                if value.map(|value| sender.send(value)).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            to: File::from(OwnedFd::from(to)),
            from: messages,
            last: 0,
            session: String::new(),
            complaints: Vec::new(),
            held: VecDeque::new(),
            running,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attached =
            browser.call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}))?;
        browser.session = attached["sessionId"].as_str().context("no session")?.to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        browser.resize(width, 900)?;
        Ok(browser)
    }

    /// Gives the page another size.
    pub fn resize(&mut self, width: u32, height: u32) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).map(drop)
    }

    /// Prefers `light` or `dark` from now on.
    pub fn prefer(&mut self, scheme: &str) -> Result<()> {
        let features = json!([
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features})).map(drop)
    }

    /// Goes to an address, and waits until its page is loaded.
    pub fn open(&mut self, address: &str) -> Result<()> {
        let went = self.call("Page.navigate", json!({"url": address}))?;
        ensure!(went.get("errorText").is_none(), "{address} cannot be opened: {}", went["errorText"]);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.receive(deadline)?;
            if message["method"] == "Page.loadEventFired" {
                return Ok(());
            }
            self.note(&message);
        }
    }

    /// Holds every request from now on whose address is like this; `*` stands for anything.
    pub fn hold(&mut self, pattern: &str) -> Result<()> {
        self.call("Fetch.enable", json!({"patterns": [{"urlPattern": pattern}]})).map(drop)
    }

    /// Waits for a request that is held, and has it fail, as where the server is gone.
    pub fn fail_held(&mut self) -> Result<()> {
        let request = self.held()?;
        self.call("Fetch.failRequest", json!({"requestId": request, "errorReason": "ConnectionClosed"})).map(drop)
    }

    /// Waits for a request that is held, and answers it with this status.
    pub fn answer_held(&mut self, status: u16) -> Result<()> {
        let request = self.held()?;
        self.call("Fetch.fulfillRequest", json!({"requestId": request, "responseCode": status})).map(drop)
    }

    /// Lets the next request that is held go its way.
    pub fn release_held(&mut self) -> Result<()> {
        let request = self.held()?;
        self.call("Fetch.continueRequest", json!({"requestId": request})).map(drop)
    }

    fn held(&mut self) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(request) = self.held.pop_front() {
                return Ok(request);
            }
            let message = self.receive(deadline)?;
            self.note(&message);
        }
    }

    /// The value of an expression of JavaScript; of a promise, what comes of it.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let options = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", options)?;
        ensure!(answer.get("exceptionDetails").is_none(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].clone())
    }

    /// The text of an expression.
    pub fn text(&mut self, expression: &str) -> Result<String> {
        let value = self.evaluate(expression)?;
        Ok(value.as_str().with_context(|| format!("{expression} is no text: {value}"))?.to_owned())
    }

    /// Waits until an expression is true, looking again whenever the page changes.
    pub fn wait_for(&mut self, expression: &str) -> Result<Value> {
        let waiting = format!(
            "new Promise((found) => {{
                const look = () => {{ const value = {expression}; if (value) found(value); return value; }};
                if (look()) return;
                const observer = new MutationObserver(() => look() && observer.disconnect());
                observer.observe(document, {{ subtree: true, childList: true, attributes: true, characterData: true }});
            }})"
        );
        self.evaluate(&waiting).with_context(|| {
            let page = self.text("document.body.textContent").unwrap_or_default();
            format!("waiting for `{expression}` on the page:\n{page}\n{}", self.complaints.join("\n"))
        })
    }

    /// Clicks with the mouse at the middle of an element.
    pub fn click(&mut self, selector: &str) -> Result<()> {
        let point = self.evaluate(&format!(
            "(() => {{
                const element = document.querySelector({});
                element.scrollIntoView({{ block: 'center' }});
                const box = element.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }})()",
            json!(selector)
        ))?;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": point[0], "y": point[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event)?;
        }
        Ok(())
    }

    /// Types a text into what has the focus.
    pub fn enter(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({"text": text})).map(drop)
    }

    /// Presses a key, such as `Enter` or `Tab`.
    pub fn press(&mut self, key: &str, code: u32, text: &str) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Takes a picture of the page from its top, so high at most, into a file.
    pub fn screenshot(&mut self, height: u32, file: &Path) -> Result<()> {
        let size = self.call("Page.getLayoutMetrics", json!({}))?["cssContentSize"].clone();
        let height = size["height"].as_f64().context("no height")?.min(height.into());
        let clip = json!({"x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1});
        let options = json!({"format": "png", "clip": clip, "captureBeyondViewport": true, "optimizeForSpeed": false});
        let picture = self.call("Page.captureScreenshot", options)?;
        let picture = picture["data"].as_str().context("no picture")?;
        std::fs::write(file, base64(picture)?).with_context(|| file.display().to_string())
    }

    /// What it has complained of since this was asked last: errors on the console, exceptions that nobody caught, and
    /// what its policies forbade.
    pub fn complaints(&mut self) -> Result<Vec<String>> {
        // All that was said before this answer has arrived with it.
        self.evaluate("0")?;
        Ok(std::mem::take(&mut self.complaints))
    }

    /// Ends it.
    pub fn close(mut self) -> Result<()> {
        self.session.clear();
        self.call("Browser.close", json!({}))?;
        self.running.finish().map(drop)
    }

    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.last += 1;
        let id = self.last;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.to.write_all(format!("{message}\0").as_bytes())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut message = self.receive(deadline).with_context(|| method.to_owned())?;
            if message["id"] != id {
                self.note(&message);
                continue;
            }
            match message.get("error") {
                Some(error) => bail!("{method}: {error}"),
                None => return Ok(message["result"].take()),
            }
        }
    }

    fn receive(&self, deadline: Instant) -> Result<Value> {
        self.from.recv_timeout(deadline.saturating_duration_since(Instant::now())).with_context(|| {
            let log = self.running.log.so_far();
            format!("the browser has not answered within {PATIENCE:?}; its last words: {:?}", log.last())
        })
    }

    fn note(&mut self, message: &Value) {
        let parameters = &message["params"];
        match message["method"].as_str() {
            Some("Log.entryAdded") if matches!(parameters["entry"]["level"].as_str(), Some("error" | "warning")) => {
                self.complaints.push(parameters["entry"].to_string());
            }
            Some("Runtime.consoleAPICalled") if matches!(parameters["type"].as_str(), Some("error" | "warning")) => {
                self.complaints.push(parameters["args"].to_string());
            }
            Some("Fetch.requestPaused") => self.held.extend(parameters["requestId"].as_str().map(str::to_owned)),
            Some("Runtime.exceptionThrown") => self.complaints.push(parameters["exceptionDetails"].to_string()),
            _ => (),
        }
    }
}

/// The same end at a descriptor that is none of those it will be put at.
fn high(end: OwnedFd) -> Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    let copy = fcntl(&end, FcntlArg::F_DUPFD_CLOEXEC(10))?;
    // SAFETY: fcntl has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Decodes base64 (RFC 4648), as the protocol carries pictures.
fn base64(text: &str) -> Result<Vec<u8>> {
    let value = |character: u8| match character {
        b'A'..=b'Z' => Ok(u32::from(character - b'A')),
        b'a'..=b'z' => Ok(u32::from(character - b'a') + 26),
        b'0'..=b'9' => Ok(u32::from(character - b'0') + 52),
        b'+' => Ok(62),
        b'/' => Ok(63),
        other => bail!("{other:#x} is not base64"),
    };
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut bits = 0;
        for index in 0..4 {
            bits = bits << 6 | group.get(index).map_or(Ok(0), |digit| value(*digit))?;
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmE=", "fooba")] {
            assert_eq!(base64(text).expect("base64"), bytes.as_bytes());
        }
        assert!(base64("a*==").is_err());
    }
}
