#!/bin/sh
# As debhelper writes it: what systemd does not take is no reason to keep a package from going.
set -e

if [ "$1" = remove ] && [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload > /dev/null || true
fi
if [ "$1" = purge ]; then
    if command -v deb-systemd-helper > /dev/null; then
        deb-systemd-helper purge smtp-observer.service > /dev/null || true
    fi
    # Events and recordings. The user stays, as Debian's users do: another would inherit the number, and with it every file
    # that was copied elsewhere.
    rm -rf "${DPKG_ROOT:-}/var/log/smtp-observer"
fi
