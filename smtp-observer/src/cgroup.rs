//! What a cgroup's path tells of the processes in it: their container, and their systemd unit.
//!
//! Both read the path in the unified hierarchy, as `/proc/PID/cgroup` shows it after `0::`.

/// Hexadecimal digits of a container's id, as every runtime of the OCI family writes it.
const ID_LENGTH: usize = 64;

/// The id of the container that a process in this cgroup runs in: the innermost, where containers are nested.
///
/// Known are the names that Docker, Podman, containerd (with and without Kubernetes), CRI-O and their like give, by
/// the systemd driver (`docker-ID.scope`) and by the cgroupfs driver (`docker/ID`). A container's monitor (`conmon`)
/// runs beside the container, not in it.
pub fn container_id(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(|component| {
        let name = component.strip_suffix(".scope").unwrap_or(component);
        let start = name.len().checked_sub(ID_LENGTH)?;
        let (prefix, id) = name.split_at_checked(start)?;
        let is_id = id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_container = prefix.is_empty() || prefix.ends_with(['-', ':']);
        (is_id && is_container && !prefix.ends_with("conmon-")).then_some(id)
    })
}

/// The unit of the system's service manager that a process in this cgroup belongs to, as journald's `_SYSTEMD_UNIT`
/// names it: the first component of the path that is not a slice.
///
/// A service of a user's own manager has that manager's unit, `user@1000.service`.
pub fn systemd_unit(path: &str) -> Option<&str> {
    let mut components = path.split('/').filter(|component| !component.is_empty());
    // systemd puts `_` before a name that the kernel could take for a file of the cgroup.
    let unit = components.find(|component| !component.ends_with(".slice"))?;
    let unit = unit.strip_prefix('_').unwrap_or(unit);
    let (name, kind) = unit.rsplit_once('.')?;
    // The unit types that hold processes (systemd.unit(5)).
    (!name.is_empty() && matches!(kind, "service" | "scope" | "socket" | "mount" | "swap")).then_some(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f9c3b0d2e1a48576b6c7d8e9f00112233445566778899aabbccddeeff001122";

    fn with_id(path: &str) -> String {
        path.replace("ID", ID)
    }

    #[test]
    fn containers_of_every_runtime() {
        for path in [
            "/system.slice/docker-ID.scope",
            "/docker/ID",
            "/docker/ID/init.scope",
            "/system.slice/docker-ID.scope/system.slice/postfix.service",
            "/machine.slice/libpod-ID.scope/container",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            "/libpod_parent/libpod-ID",
            "/system.slice/nerdctl-ID.scope",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b2c.slice/cri-containerd-ID.scope",
            "/kubepods/besteffort/pod0a1b2c3d-1111-2222-3333-444455556666/ID",
            "/system.slice/containerd.service/kubepods-besteffort-pod1b2c.slice:cri-containerd:ID",
            "/kubepods.slice/kubepods-pod1b2c.slice/crio-ID.scope",
            "/kubepods.slice/kubepods-pod1b2c.slice/crio-ID.scope/container",
        ] {
            assert_eq!(container_id(&with_id(path)), Some(ID), "{path}");
        }
    }

    #[test]
    fn nested_containers_give_the_innermost() {
        let outer = "0".repeat(ID_LENGTH);
        assert_eq!(container_id(&format!("/system.slice/docker-{outer}.scope/docker/{ID}")), Some(ID));
    }

    #[test]
    fn what_is_not_a_container() {
        for path in [
            "/",
            "",
            "/system.slice/postfix.service",
            "/init.scope",
            "/docker",
            "/machine.slice/libpod-conmon-ID.scope",
            "/kubepods.slice/crio-conmon-ID.scope",
            "/system.slice/docker-IDff.scope",
            "/backup/xID",
            "/docker/ÿID",
        ] {
            assert_eq!(container_id(&with_id(path)), None, "{path}");
        }
        assert_eq!(container_id(&format!("/docker/{}", ID.to_uppercase())), None);
        assert_eq!(container_id(&format!("/docker/{}é", &ID[1..])), None);
    }

    #[test]
    fn units() {
        for (path, unit) in [
            ("/system.slice/postfix.service", Some("postfix.service")),
            ("/system.slice/system-postfix.slice/postfix@-.service", Some("postfix@-.service")),
            ("/system.slice/ssh.service/child", Some("ssh.service")),
            ("/system.slice/cups.socket", Some("cups.socket")),
            ("/system.slice/_cgroup.service", Some("cgroup.service")),
            ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope")),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/msmtp.service", Some("user@1000.service")),
            ("/init.scope", Some("init.scope")),
            ("/system.slice/docker-1.scope/system.slice/postfix.service", Some("docker-1.scope")),
            ("/", None),
            ("", None),
            ("/system.slice", None),
            ("/docker/4f9c", None),
            ("/kubepods/burstable/pod1/4f9c", None),
            ("/.service", None),
            ("/mail.example", None),
        ] {
            assert_eq!(systemd_unit(path), unit, "{path}");
        }
    }
}
