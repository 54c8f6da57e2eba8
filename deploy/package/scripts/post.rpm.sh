# What the macros `%sysusers_create` and `%systemd_post` write.
systemd-sysusers smtp-observer.conf || :
if [ "$1" -eq 1 ] && [ -x /usr/lib/systemd/systemd-update-helper ]; then
    /usr/lib/systemd/systemd-update-helper install-system-units smtp-observer.service || :
fi
