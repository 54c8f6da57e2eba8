#!/bin/sh
# As debhelper writes it for a package with a user and units.
set -e

case "$1" in
configure | abort-upgrade | abort-deconfigure | abort-remove)
    systemd-sysusers ${DPKG_ROOT:+--root="$DPKG_ROOT"} smtp-observer.conf
    for unit in smtp-observer.service smtp-observer.socket; do
        deb-systemd-helper unmask $unit > /dev/null || true
        # What an administrator has disabled stays so.
        if deb-systemd-helper --quiet was-enabled $unit; then
            deb-systemd-helper enable $unit > /dev/null || true
        else
            deb-systemd-helper update-state $unit > /dev/null || true
        fi
    done
    if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
        systemctl --system daemon-reload > /dev/null || true
        if [ -n "$2" ]; then action=restart; else action=start; fi
        # A host that cannot observe, such as one without BTF, keeps the package: `smtp-observer check` says why.
        deb-systemd-invoke $action smtp-observer.service smtp-observer.socket > /dev/null || true
    fi
    ;;
esac
