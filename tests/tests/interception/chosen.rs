//! A proxy that its client asked for.

use std::process::Command;

use anyhow::Result;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::unpacked::Root;

use crate::between::{Between, SERVER, swaks_to};
use crate::verdict::Expected;

/// Asks itself, over HTTP, where to send a mail, as its mail proxy demands; says MAIL to the server when the client says
/// RCPT.
const NGINX: &str = "\
daemon off;
error_log stderr;
pid /run/nginx.pid;
user root;
load_module /usr/lib/nginx/modules/ngx_mail_module.so;
events { }
http {
    access_log off;
    server {
        listen 127.0.0.1:8025;
        location / {
            add_header Auth-Status OK;
            add_header Auth-Server SERVER;
            add_header Auth-Port 25;
            return 200;
        }
    }
}
mail {
    server_name proxy.example;
    auth_http 127.0.0.1:8025/;
    xclient off;
    server {
        listen LISTEN;
        protocol smtp;
        smtp_auth none;
    }
}
";

/// nginx as a mail proxy, from a place to listen at to port 25 of a server.
pub fn nginx_between(host: &Host, listen: &str, server: &str) -> Result<(Root, Command)> {
    let root = Root::new("nginx", &[])?;
    for directory in ["etc/nginx", "var/lib/nginx", "var/log/nginx"] {
        root.directory(directory)?;
    }
    root.write("etc/nginx/nginx.conf", &NGINX.replace("LISTEN", listen).replace("SERVER", server))?;
    let nginx = root.command(host, "/usr/sbin/nginx")?;
    Ok((root, nginx))
}

#[test]
fn nginx() -> Result<()> {
    let _turn = crate::beside_others();
    let between = Between::one_host()?;
    let (_root, nginx) = nginx_between(&between.proxy_host, "127.0.0.1:25", SERVER)?;
    let proxy = between.proxy(nginx, 25)?;
    let client = swaks_to(&between.client_host, "127.0.0.1")?;
    let mail = between.send(client, proxy)?;
    mail.check_delivered()?;
    let greeting = mail.client()?.one("smtp.greeting")?;
    assert_eq!(greeting.text("/text"), Some("proxy.example ESMTP ready"), "{greeting}");
    assert_eq!(mail.client()?.command("DATA")?.text("/reply"), mail.upstream.command("DATA")?.text("/reply"));
    mail.check(Expected { verdict: "inline_proxy", method: "local_proxy", executable: "/nginx" }).map(drop)
}
