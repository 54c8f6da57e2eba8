# What the macro `%systemd_postun_with_restart` writes.
if [ "$1" -ge 1 ] && [ -x /usr/lib/systemd/systemd-update-helper ]; then
    /usr/lib/systemd/systemd-update-helper mark-restart-system-units smtp-observer.service || :
fi
