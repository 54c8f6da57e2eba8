//! A proxy that its client asked for.

use anyhow::Result;
use smtp_observer_tests::unpacked::Root;

use crate::between::{Between, swaks_to};
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
            add_header Auth-Server 10.77.0.2;
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
        listen 127.0.0.1:25;
        protocol smtp;
        smtp_auth none;
    }
}
";

#[test]
fn nginx() -> Result<()> {
    let _turn = crate::beside_others();
    let between = Between::one_host()?;
    let root = Root::new("nginx", &[])?;
    for directory in ["etc/nginx", "var/lib/nginx", "var/log/nginx"] {
        root.directory(directory)?;
    }
    root.write("etc/nginx/nginx.conf", NGINX)?;
    let nginx = root.command(&between.proxy_host, "/usr/sbin/nginx")?;
    let proxy = between.proxy(nginx, 25)?;
    let client = swaks_to(&between.client_host, "127.0.0.1")?;
    let mail = between.send(client, proxy)?;
    mail.check_delivered()?;
    let greeting = mail.client()?.one("smtp.greeting")?;
    assert_eq!(greeting.text("/text"), Some("proxy.example ESMTP ready"), "{greeting}");
    assert_eq!(mail.client()?.command("DATA")?.text("/reply"), mail.upstream.command("DATA")?.text("/reply"));
    mail.check(Expected { verdict: "inline_proxy", method: "local_proxy", executable: "/nginx" }).map(drop)
}
