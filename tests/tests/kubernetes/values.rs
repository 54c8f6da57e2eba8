//! What the chart's values do.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::chart::{self, ALL, CHART, HELM, Objects, REPOSITORY, render, text, tool, workspace};

/// What Helm says against these values.
fn refusal(values: &[&str]) -> Result<String> {
    match text(HELM[1], values) {
        Ok(text) => anyhow::bail!("Helm took {values:?}:\n{text}"),
        Err(error) => Ok(error.to_string()),
    }
}

#[test]
fn helm_has_nothing_to_say_against_it() -> Result<()> {
    for helm in HELM {
        let said = chart::output(
            Command::new(tool(helm)?).args(["lint", "--strict", "--set", REPOSITORY]).arg(workspace()?.join(CHART)),
        )?;
        ensure!(said.contains("1 chart(s) linted, 0 chart(s) failed"), "{said}");
        ensure!(!said.contains("[WARNING]"), "{said}");
    }
    Ok(())
}

#[test]
fn every_helm_makes_the_same_of_it() -> Result<()> {
    for values in [&[][..], &ALL] {
        let values = [&[REPOSITORY], values].concat();
        let [older, newer] = HELM.map(|helm| text(helm, &values).and_then(|text| Objects::parse(&text)));
        let by_name = |mut objects: Objects| {
            objects.0.sort_by_key(|object| format!("{} {}", object["kind"], object["metadata"]["name"]));
            objects.0
        };
        assert_eq!(by_name(older?), by_name(newer?));
    }
    Ok(())
}

#[test]
fn its_versions_are_the_agents() -> Result<()> {
    let text = fs::read_to_string(workspace()?.join(CHART).join("Chart.yaml"))?;
    let chart = Objects::parse(&text)?;
    assert_eq!(chart.0[0]["appVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart.0[0]["version"], env!("CARGO_PKG_VERSION"));
    Ok(())
}

#[test]
fn unless_told_otherwise_a_pod_has_four_capabilities_and_nothing_of_its_node() -> Result<()> {
    let objects = render(&[])?;
    assert_eq!(objects.kinds(), ["DaemonSet", "NetworkPolicy", "Service", "ServiceAccount"]);
    assert_eq!(objects.capabilities()?, ["BPF", "PERFMON", "SETUID", "SETGID"]);
    let pod = objects.pod()?;
    for namespace in ["hostPID", "hostNetwork"] {
        assert_eq!(pod[namespace], false, "{namespace}");
    }
    for absent in ["hostIPC", "volumes", "initContainers"] {
        assert!(pod[absent].is_null(), "{absent}");
    }
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["securityContext"]["seccompProfile"], json!({"type": "RuntimeDefault"}));
    let security = &objects.container()?["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["privileged"], false);
    assert!(objects.arguments()?.contains(&"--tls=off"), "{:?}", objects.arguments());
    // Nobody may ask, and it may ask nobody.
    let policy = &objects.one("NetworkPolicy")?["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert!(policy["ingress"].is_null() && policy["egress"].is_null(), "{policy}");
    Ok(())
}

#[test]
fn reading_tls_takes_three_more_and_the_nodes_processes() -> Result<()> {
    for mode in ["auto", "all"] {
        let objects = render(&[&format!("tls={mode}")])?;
        assert_eq!(
            objects.capabilities()?,
            ["BPF", "PERFMON", "SETUID", "SETGID", "SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"]
        );
        assert_eq!(objects.pod()?["hostPID"], true);
        ensure!(objects.arguments()?.contains(&&*format!("--tls={mode}")), "{:?}", objects.arguments()?);
    }
    // What YAML makes of `off` without quotes.
    let objects = render(&["tls=false"])?;
    assert_eq!(objects.capabilities()?, ["BPF", "PERFMON", "SETUID", "SETGID"]);
    ensure!(objects.arguments()?.contains(&"--tls=off"), "{:?}", objects.arguments()?);
    Ok(())
}

#[test]
fn what_is_asked_for_is_told_the_agent() -> Result<()> {
    let values = ["ports={25,587}", "addresses=none", "serviceAddresses={10.96.0.0/12,fd00::/108}", "ringSize=16MiB"];
    let more = ["listen.port=9000", "events=true", "extraArgs={--hooks=tracepoint}"];
    let objects = render(&[&values[..], &more].concat())?;
    let expected = [
        "run",
        "--listen=0.0.0.0:9000",
        "--port=25,587",
        "--tls=off",
        "--addresses=none",
        "--ring-size=16MiB",
        "--user=65533",
        "--service-address=10.96.0.0/12,fd00::/108",
        "--events=-",
        "--hooks=tracepoint",
    ];
    assert_eq!(objects.arguments()?, expected);
    assert_eq!(objects.container()?["ports"][0]["containerPort"], 9000);
    assert_eq!(objects.one("Service")?["spec"]["ports"][0]["port"], 9000);
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_with_the_remedy() -> Result<()> {
    ensure!(refusal(&[])?.contains("push the image that `cargo xtask image` makes"));
    let unreachable = refusal(&[REPOSITORY, "serviceMonitor.enabled=true"])?;
    ensure!(unreachable.contains("name it in networkPolicy.from"), "{unreachable}");
    for (wrong, named) in
        [("tls=yes", "tls"), ("ports={}", "ports"), ("hostPid=true", "hostPid"), ("image.digest=1", "digest")]
    {
        let refusal = refusal(&[REPOSITORY, wrong])?;
        ensure!(refusal.contains(named) && refusal.contains("schema"), "{wrong}: {refusal}");
    }
    Ok(())
}

#[test]
fn an_image_is_named_by_its_digest_where_there_is_one() -> Result<()> {
    let image = |values: &[&str]| Ok::<_, anyhow::Error>(render(values)?.container()?["image"].clone());
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(image(&[])?, format!("registry.example/smtp-observer:{version}"));
    let digest = format!("sha256:{}", "0a".repeat(32));
    assert_eq!(
        image(&[&format!("image.digest={digest}"), "image.tag=x"])?,
        format!("registry.example/smtp-observer@{digest}")
    );
    Ok(())
}

#[test]
fn with_a_password_no_probe_asks_a_path() -> Result<()> {
    let probes = ["startupProbe", "readinessProbe", "livenessProbe"];
    let plain = render(&[])?;
    for probe in probes {
        assert_eq!(plain.container()?[probe]["httpGet"], json!({"path": "/readyz", "port": "http"}), "{probe}");
    }
    // An agent that is busy for a while stays; one that hangs for a minute is started again.
    let liveness = &plain.container()?["livenessProbe"];
    assert_eq!(["periodSeconds", "timeoutSeconds", "failureThreshold"].map(|name| &liveness[name]), [10, 5, 6]);
    let objects = render(&["webConfig.secretName=web"])?;
    for probe in probes {
        let probe = &objects.container()?[probe];
        assert_eq!(probe["tcpSocket"], json!({"port": "http"}), "{probe}");
        assert!(probe["httpGet"].is_null(), "{probe}");
    }
    ensure!(objects.arguments()?.contains(&"--web-config-file=/etc/smtp-observer/web.yml"));
    // The group is that of the user that the agent becomes.
    assert_eq!(objects.pod()?["securityContext"]["fsGroup"], 65533);
    assert!(plain.pod()?["securityContext"]["fsGroup"].is_null());
    let (volume, mount) = (&objects.pod()?["volumes"][0], &objects.container()?["volumeMounts"][0]);
    assert_eq!(volume["secret"], json!({"secretName": "web", "defaultMode": 0o440}));
    assert_eq!(mount, &json!({"name": volume["name"], "mountPath": "/etc/smtp-observer", "readOnly": true}));
    Ok(())
}

#[test]
fn prometheus_finds_the_agents_under_the_name_that_the_alerts_know() -> Result<()> {
    let objects = render(&ALL)?;
    let (monitor, service) = (objects.one("ServiceMonitor")?, objects.one("Service")?);
    // jobLabel names the label of the Service whose value is the job.
    let label = monitor["spec"]["jobLabel"].as_str().unwrap_or_default();
    assert_eq!(service["metadata"]["labels"][label], "smtp-observer");
    let selected = monitor["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten();
    for (name, value) in selected {
        assert_eq!(&service["metadata"]["labels"][name], value);
    }
    assert_eq!(monitor["spec"]["namespaceSelector"]["matchNames"], json!(["observers"]));
    let port = &monitor["spec"]["endpoints"][0]["port"];
    assert_eq!(&service["spec"]["ports"][0]["name"], port);
    assert_eq!(&objects.container()?["ports"][0]["name"], port);
    let selector = &service["spec"]["selector"];
    let labels = &objects.one("DaemonSet")?["spec"]["template"]["metadata"]["labels"];
    for (name, value) in selector.as_object().into_iter().flatten() {
        assert_eq!(&labels[name], value);
    }
    assert_eq!(&objects.one("DaemonSet")?["spec"]["selector"]["matchLabels"], selector);
    assert_eq!(&objects.one("NetworkPolicy")?["spec"]["podSelector"]["matchLabels"], selector);
    Ok(())
}

#[test]
fn dashboard_and_alerts_are_those_of_the_repository() -> Result<()> {
    let objects = render(&ALL)?;
    let deploy = workspace()?.join("deploy");
    let dashboard = objects.one("ConfigMap")?["data"]["smtp-observer.json"].as_str().unwrap_or_default();
    let expected = fs::read_to_string(deploy.join("grafana/smtp-observer.json"))?;
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(dashboard)?,
        serde_json::from_str::<serde_json::Value>(&expected)?
    );
    let rules = Objects::parse(&fs::read_to_string(deploy.join("prometheus/smtp-observer.rules.yml"))?)?;
    assert_eq!(objects.one("PrometheusRule")?["spec"], rules.0[0]);
    Ok(())
}

#[test]
fn a_packaged_chart_is_whole() -> Result<()> {
    for helm in HELM {
        let folder = tempfile::tempdir()?;
        chart::output(
            Command::new(tool(helm)?)
                .args(["package", "--destination"])
                .arg(folder.path())
                .arg(workspace()?.join(CHART)),
        )?;
        let package = folder.path().join(format!("smtp-observer-{}.tgz", env!("CARGO_PKG_VERSION")));
        let mut command = Command::new(tool(helm)?);
        command.args(["template", "mail"]).arg(package).args(["--namespace", "observers"]);
        let values = [&[REPOSITORY][..], &ALL].concat();
        let packaged = chart::output(command.args(values.iter().flat_map(|value| ["--set", value])))?;
        assert_eq!(packaged, text(helm, &values)?);
    }
    Ok(())
}
