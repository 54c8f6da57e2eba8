//! What is shown of a process: mailboxes in the names of its files and of its control group as far as the policy allows.

use std::sync::Arc;

use super::RedactionPolicy;
use crate::event::ProcessEvent;

/// What stands before a mailbox's domain.
const SIGNS: [&str; 2] = ["@", "%40"];

/// How systemd writes an `@` in a unit's name (systemd-escape(1)).
const ESCAPED_SIGN: &str = "\\x40";

/// Ends of units' names (systemd.unit(5)).
const UNITS: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];

impl RedactionPolicy {
    /// A process as it is shown. One that was shown so is shown again alike.
    pub(crate) fn process(self, process: &ProcessEvent) -> ProcessEvent {
        ProcessEvent {
            executable: process.executable.as_ref().map(|path| self.path(path)),
            arguments: self.arguments(&process.arguments),
            cgroup: process.cgroup.as_ref().map(|path| self.cgroup(path)),
            preload: process.preload.as_ref().map(|paths| self.path(paths)),
            ..process.clone()
        }
    }

    /// A file's name with the way to it, or several: none goes over from one name to the next.
    pub(crate) fn path(self, path: &Arc<str>) -> Arc<str> {
        self.parts(path, |part| self.file(part))
    }

    /// What an interpreter runs, as the argument that names it is shown.
    pub(crate) fn script(self, script: &str) -> Arc<str> {
        self.mask().map_or_else(|| script.into(), |mask| mask.in_word(script).into())
    }

    /// A control group's path. Of a unit that is made from a template, the template is not hidden: `user@1000.service`.
    pub(crate) fn cgroup(self, path: &Arc<str>) -> Arc<str> {
        self.parts(path, |part| match UNITS.iter().any(|end| part.ends_with(end)) {
            true => {
                let (template, instance) = part.split_at(part.find('@').map_or(0, |at| at + 1));
                let shown = self.file(&instance.replace(ESCAPED_SIGN, "@"));
                let escaped = if instance.contains(ESCAPED_SIGN) { shown.replace('@', ESCAPED_SIGN) } else { shown };
                template.to_owned() + &escaped
            }
            false => self.file(part),
        })
    }

    fn parts(self, path: &Arc<str>, shown: impl Fn(&str) -> String) -> Arc<str> {
        if !SIGNS.iter().chain(&[ESCAPED_SIGN]).any(|sign| path.contains(sign)) {
            return Arc::clone(path);
        }
        // Libraries are listed with blanks or colons between them (ld.so(8)).
        let parts = path.split_inclusive(['/', ':']).map(|part| {
            let name = part.trim_end_matches(['/', ':']);
            shown(name) + &part[name.len()..]
        });
        parts.collect::<String>().into()
    }

    fn file(self, name: &str) -> String {
        match self.mask() {
            // `@scope` is a name that packages of Node have.
            Some(mask) if SIGNS.iter().any(|sign| name.rfind(sign).is_some_and(|at| at > 0)) => {
                if name.contains(char::is_whitespace) { mask.addresses(name) } else { mask.in_list(name) }
            }
            _ => name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::{Addresses, Key};

    #[track_caller]
    fn check(given: &str, domain: &str, none: &str) {
        let given: Arc<str> = given.into();
        for (addresses, expected) in [(Addresses::Domain, domain), (Addresses::None, none), (Addresses::Full, &given)] {
            assert_eq!(&*RedactionPolicy::new(addresses).path(&given), expected);
        }
    }

    #[test]
    fn names_of_files_name_nobody() {
        check("/srv/bob@x.example/job.py", "/srv/*@x.example/job.py", "/srv/*/job.py");
        check("bob%40x.example.pl", "*%40x.example.pl", "*");
        check("/home/é@x.example/a", "/home/*@x.example/a", "/home/*/a");
        check("/home/bob smith@x.example/a", "/home/*@x.example/a", "/home/*/a");
        check("/a/b.so:/srv/bob@x.example/c.so", "/a/b.so:/srv/*@x.example/c.so", "/a/b.so:/srv/*/c.so");
        check("memfd:bob@x.example", "memfd:*@x.example", "memfd:*");
        check("/srv/bob,ann@x.example/a", "/srv/*,*@x.example/a", "/srv/*,*/a");
        for plain in ["/usr/bin/perl", "/usr/lib/node_modules/@scope/mail/run.js", "", "/", "@"] {
            check(plain, plain, plain);
        }
    }

    #[test]
    fn units_made_from_templates_keep_their_names() {
        for (given, expected) in [
            ("/user.slice/user-8.slice/user@8.service/app.slice", "/user.slice/user-8.slice/user@8.service/app.slice"),
            (
                "/system.slice/system-postfix.slice/postfix@-.service",
                "/system.slice/system-postfix.slice/postfix@-.service",
            ),
            ("/fetch@bob@x.example.service", "/fetch@*@x.example.service"),
            ("/fetch@bob\\x40x.example.service", "/fetch@*\\x40x.example.service"),
            ("/run-bob\\x40x.example.scope/a", "/*\\x40x.example.scope/a"),
            ("/lxc/bob@x.example/init.scope", "/lxc/*@x.example/init.scope"),
        ] {
            assert_eq!(&*RedactionPolicy::new(Addresses::Domain).cgroup(&given.into()), expected);
        }
    }

    #[test]
    fn what_is_recorded_is_shown_alike() {
        let recorded = RedactionPolicy::for_recording(Addresses::Domain, Key(7));
        let shown = RedactionPolicy::new(Addresses::Domain);
        for path in ["/srv/bob@x.example/job.py", "/fetch@bob@x.example.service", "/fetch@bob\\x40x.example.service"] {
            let path = path.into();
            let (kept, kept_cgroup) = (recorded.path(&path), recorded.cgroup(&path));
            assert!(!kept.contains("bob@") && !kept_cgroup.contains("bob"), "{kept} {kept_cgroup}");
            assert_eq!(shown.path(&kept), shown.path(&path));
            assert_eq!(shown.cgroup(&kept_cgroup), shown.cgroup(&path));
            let arguments = recorded.arguments(&["python3".into(), path.to_string()]);
            assert_eq!(shown.script(&arguments[1]), shown.script(&path));
        }
    }
}
