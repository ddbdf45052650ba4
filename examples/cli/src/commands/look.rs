//! What only looks: `check`, `config`, `plan`, `status`, `history`.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use deployer_core::{
    AppStatus, DeployOptions, DeploymentKind, DeploymentRecord, Human, Release, RevisionStatus, Timestamp, Verdict,
};
use serde_json::json;

use crate::args::Global;
use crate::exit::Exit;
use crate::fault::{Fault, problems_text};
use crate::table::Table;
use crate::verdict;
use crate::{backend, compose, output};

pub(crate) fn check(global: &Global) -> Result<Exit, Fault> {
    let app = compose::read(global)?;
    let services: Vec<&str> = app.spec.services.keys().map(AsRef::as_ref).collect();
    if global.json {
        output::json(&json!({ "app": app.spec.name, "services": services, "problems": app.warnings }))?;
    } else {
        output::error(&problems_text(&app.warnings));
        let warnings = match app.warnings.0.len() {
            0 => String::new(),
            1 => ", with 1 warning".to_owned(),
            count => format!(", with {count} warnings"),
        };
        let services = services.join(", ");
        output::text(&format!("{} can be deployed{warnings}: {services}\n", app.spec.name))?;
    }
    Ok(Exit::Done)
}

pub(crate) fn config(global: &Global) -> Result<Exit, Fault> {
    let app = compose::read(global)?;
    if global.json {
        output::json(&app.spec)?;
    } else {
        output::error(&problems_text(&app.warnings));
        output::text(&deployer_core::compose::write(&app.spec)?)?;
    }
    Ok(Exit::Done)
}

pub(crate) async fn plan(global: &Global) -> Result<Exit, Fault> {
    let app = compose::read(global)?;
    let deployer = backend::deployer(global).await?;
    let preview = deployer.plan(&app.spec, &DeployOptions::default()).await?;
    if global.json {
        output::json(&preview)?;
    } else {
        output::text(&preview.to_string())?;
    }
    Ok(Exit::Done)
}

pub(crate) async fn status(global: &Global) -> Result<Exit, Fault> {
    let app = compose::app(global)?;
    let status = backend::deployer(global).await?.status(&app).await?;
    if global.json {
        output::json(&status)?;
    } else {
        output::text(&status_text(&status, now()))?;
    }
    Ok(Exit::Done)
}

pub(crate) async fn history(global: &Global, limit: usize) -> Result<Exit, Fault> {
    let app = compose::app(global)?;
    let deployer = backend::deployer(global).await?;
    let mut records = deployer.history(&app).await?;
    records.truncate(limit);
    let releases = deployer.releases(&app, u32::MAX).await?;
    if global.json {
        output::json(&json!({ "deployments": records, "releases": releases }))?;
    } else if records.is_empty() {
        output::text(&format!("{app} was never deployed\n"))?;
    } else {
        output::text(&history_text(&records, &releases, now()))?;
    }
    Ok(Exit::Done)
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

fn status_text(status: &AppStatus, now: Timestamp) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = match (status.serving, status.last_known_good) {
        (Some(serving), Some(good)) => writeln!(text, "{} {serving} serves; a rollback goes to {good}", status.app),
        (Some(serving), None) => writeln!(text, "{} {serving} serves; there is no release to roll back to", status.app),
        (None, _) => writeln!(text, "{}: no release serves", status.app),
    };
    if let Some(open) = &status.open {
        let what = match open.target {
            Some(target) => format!("{} of {target}", open.kind.word()),
            None => open.kind.word().to_owned(),
        };
        let since = ago(now.since(open.started_at));
        let _ = match status.holder.as_ref().filter(|holder| !holder.dead && holder.expires_at > now) {
            Some(holder) => writeln!(text, "{what} under way since {since}, driven by {}", holder.owner),
            None => writeln!(text, "{what} begun {since} ago, driven by nobody: `deployer resume` goes on with it"),
        };
    }
    let mut services = Table::new(["SERVICE", "REVISION", "RELEASE", ">TRAFFIC", ">READY", "STATE", "ROUTES"]);
    let mut troubles = Table::new(["INSTANCE", "PHASE", "HEALTH", ">CRASHES", "DETAIL"]);
    for service in &status.services {
        let mut routes = service.routes.iter().map(|route| {
            let host = route.host.as_deref().unwrap_or("*");
            format!("{host}{} -> {}", route.path, route.port)
        });
        let routes = routes.by_ref().collect::<Vec<_>>().join(", ");
        for revision in &service.revisions {
            let ready = revision.instances.iter().filter(|instance| instance.is_ready()).count();
            let wanted = if revision.current { service.wanted as usize } else { revision.instances.len() };
            services.row([
                service.service.to_string(),
                revision.revision.hash().to_owned(),
                revision.release.to_string(),
                revision.weight.map_or_else(|| "-".to_owned(), |weight| format!("{weight} %")),
                format!("{ready}/{wanted}"),
                state(revision).to_owned(),
                if revision.current { routes.clone() } else { String::new() },
            ]);
            for instance in revision.instances.iter().filter(|instance| !instance.is_ready() || instance.crashes > 0) {
                troubles.row([
                    instance.name.clone(),
                    word(&instance.phase),
                    word(&instance.health),
                    instance.crashes.to_string(),
                    instance.health_detail.clone().unwrap_or_default(),
                ]);
            }
        }
    }
    for table in [services, troubles].iter().filter(|table| !table.is_empty()) {
        let _ = write!(text, "\n{table}");
    }
    if !status.drift.is_empty() {
        text.push('\n');
    }
    for drift in &status.drift {
        let _ = writeln!(text, "not as released: {drift}");
    }
    text
}

fn state(revision: &RevisionStatus) -> &'static str {
    match (revision.current, revision.instances.is_empty()) {
        (true, _) => "current",
        (false, false) if revision.weight.unwrap_or(0) > 0 => "has traffic",
        (false, false) => "standby",
        (false, true) => "gone",
    }
}

/// The word by which something is known in JSON.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn history_text(records: &[DeploymentRecord], releases: &[Release], now: Timestamp) -> String {
    let mut table = Table::new(["WHEN", "WHAT", "FROM", "TO", ">TOOK", "VERDICT", "SOURCE", "BY", "MESSAGE", "REASON"]);
    for record in records {
        let release = releases.iter().find(|release| Some(release.number) == record.target);
        let provenance = release.map(|release| &release.provenance);
        // Who made a release, and why, is about its own deployment only.
        let own = provenance.filter(|_| record.kind == DeploymentKind::Deploy);
        let source = own.and_then(|own| own.git.as_ref()).map(|git| {
            let commit = git.commit.chars().take(8).collect::<String>();
            let name = git.tag.clone().unwrap_or(commit);
            if git.dirty { format!("{name}+") } else { name }
        });
        let reason = match &record.verdict {
            Some(Verdict::Cancelled { by }) => Some(format!("by {by}")),
            Some(verdict) => verdict.cause().map(|cause| cause.summary.clone()),
            None => None,
        };
        let number =
            |number: Option<deployer_core::ReleaseNumber>| number.map_or_else(|| "-".into(), |n| n.to_string());
        table.row([
            format!("{} ago", ago(now.since(record.started_at))),
            record.kind.word().to_owned(),
            number(record.baseline),
            number(record.target),
            Human(verdict::duration(record, now)).to_string(),
            record.verdict.as_ref().map_or("under way", Verdict::word).to_owned(),
            source.unwrap_or_default(),
            own.and_then(|own| own.author.clone()).unwrap_or_default(),
            own.and_then(|own| own.message.clone()).unwrap_or_default(),
            reason.unwrap_or_default(),
        ]);
    }
    table.to_string()
}

/// How long ago something was, as exactly as people care.
fn ago(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn record(target: u64, kind: Value, verdict: Value) -> DeploymentRecord {
        let record = json!({
            "id": format!("d{target}"), "app": "shop", "kind": kind, "target": target, "baseline": target - 1,
            "owner": "deployer", "started_at": 1_000, "finished_at": 4_400, "verdict": verdict, "last_seq": 3,
        });
        serde_json::from_value(record).unwrap()
    }

    fn release(number: u64) -> Release {
        let release = json!({
            "format": 1, "app": "shop", "number": number, "services": {}, "provenance": {
                "created_at": 0, "author": "ann", "message": "faster",
                "git": { "commit": "0123456789abcdef", "tag": null, "dirty": true },
            },
        });
        serde_json::from_value(release).unwrap()
    }

    #[test]
    fn the_history_reads_as_a_table() {
        let cause = json!({ "step": "start", "kind": "workload", "summary": "web exits at once", "evidence": [] });
        let records = [
            record(1, json!({ "kind": "rollback", "from": 2 }), json!({ "verdict": "promoted", "leftovers": [] })),
            record(3, json!({ "kind": "deploy" }), json!({ "verdict": "rolled-back", "cause": cause })),
            record(2, json!({ "kind": "deploy" }), json!({ "verdict": "promoted", "leftovers": [] })),
        ];
        let expected = "\
WHEN    WHAT      FROM  TO  TOOK  VERDICT      SOURCE     BY   MESSAGE  REASON
2m ago  rollback  v0    v1  3.4s  promoted
2m ago  deploy    v2    v3  3.4s  rolled-back                           web exits at once
2m ago  deploy    v1    v2  3.4s  promoted     01234567+  ann  faster
";
        assert_eq!(history_text(&records, &[release(2), release(1)], at(150_000)), expected);
    }

    fn status() -> AppStatus {
        let instance = |name: &str, revision: &str, health: &str, crashes: u32| {
            json!({
                "id": name, "name": name, "revision": revision, "release": 2, "ordinal": 1, "phase": "running",
                "health": health, "health_detail": (crashes > 0).then_some("503"), "address": "10.0.0.2",
                "started_at": 0, "crashes": crashes, "exit": null, "image": null,
            })
        };
        let status = json!({
            "app": "shop", "serving": 2, "last_known_good": 1,
            "services": [{
                "service": "web", "wanted": 2,
                "routes": [{ "host": "shop.localhost", "path": "/", "port": 8080 }],
                "revisions": [
                    { "revision": "web@aaaaaaaaaaaa", "release": 1, "current": false, "weight": 0,
                      "instances": [instance("shop-web-a-1", "web@aaaaaaaaaaaa", "healthy", 0)] },
                    { "revision": "web@bbbbbbbbbbbb", "release": 2, "current": true, "weight": 100,
                      "instances": [
                          instance("shop-web-b-1", "web@bbbbbbbbbbbb", "healthy", 0),
                          instance("shop-web-b-2", "web@bbbbbbbbbbbb", "unhealthy", 3),
                      ] },
                ],
            }],
            "open": null, "holder": null, "drift": ["1 of 2 instances of web@bbbbbbbbbbbb are ready"],
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn the_status_shows_what_serves_and_what_is_wrong() {
        let expected = "\
shop v2 serves; a rollback goes to v1

SERVICE  REVISION      RELEASE  TRAFFIC  READY  STATE    ROUTES
web      aaaaaaaaaaaa  v1           0 %    1/1  standby
web      bbbbbbbbbbbb  v2         100 %    1/2  current  shop.localhost/ -> 8080

INSTANCE      PHASE    HEALTH     CRASHES  DETAIL
shop-web-b-2  running  unhealthy        3  503

not as released: 1 of 2 instances of web@bbbbbbbbbbbb are ready
";
        assert_eq!(status_text(&status(), at(0)), expected);
    }

    #[test]
    fn a_deployment_without_a_driver_says_how_to_go_on() {
        let mut status = status();
        let mut open = record(3, json!({ "kind": "deploy" }), Value::Null);
        open.verdict = None;
        status.open = Some(open);
        let text = status_text(&status, at(61_000));
        assert!(text.contains("\ndeploy of v3 begun 1m ago, driven by nobody: `deployer resume` goes"), "{text}");
        let holder = json!({ "owner": "deployer (pid 7)", "fence": 1, "expires_at": 70_000, "dead": false });
        status.holder = Some(serde_json::from_value(holder).unwrap());
        let text = status_text(&status, at(61_000));
        assert!(text.contains("\ndeploy of v3 under way since 1m, driven by deployer (pid 7)\n"), "{text}");
    }
}
