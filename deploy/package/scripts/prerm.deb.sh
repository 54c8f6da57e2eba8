#!/bin/sh
# As debhelper writes it: what systemd does not take is no reason to keep a package from going.
set -e

if [ "$1" = remove ] && [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
    deb-systemd-invoke stop smtp-observer.service > /dev/null || true
fi
