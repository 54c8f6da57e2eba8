#!/bin/sh
# As debhelper writes it for a package with a user and a service. The socket starts and stops with the service.
set -e

case "$1" in
configure | abort-upgrade | abort-deconfigure | abort-remove)
    systemd-sysusers ${DPKG_ROOT:+--root="$DPKG_ROOT"} smtp-observer.conf
    deb-systemd-helper unmask smtp-observer.service > /dev/null || true
    # What an administrator has disabled stays so.
    if deb-systemd-helper --quiet was-enabled smtp-observer.service; then
        deb-systemd-helper enable smtp-observer.service > /dev/null || true
    else
        deb-systemd-helper update-state smtp-observer.service > /dev/null || true
    fi
    if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
        systemctl --system daemon-reload > /dev/null || true
        if [ -n "$2" ]; then action=restart; else action=start; fi
        # A host that cannot observe, such as one without BTF, keeps the package: `smtp-observer check` says why.
        deb-systemd-invoke $action smtp-observer.service > /dev/null || true
    fi
    ;;
esac
