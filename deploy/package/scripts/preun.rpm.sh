# What the macro `%systemd_preun` writes.
if [ "$1" -eq 0 ] && [ -x /usr/lib/systemd/systemd-update-helper ]; then
    /usr/lib/systemd/systemd-update-helper remove-system-units smtp-observer.service || :
fi
