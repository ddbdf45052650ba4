use std::collections::{BTreeSet, HashMap};

use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::RestartContainerOptions;

use deployer_core::{NetworkAttachment, Outcome};

use crate::engine::TestApp;

fn upper_half(address: &str) -> bool {
    // The engine's pools are /16 and /20; in both the halves differ in the first bit after the prefix.
    let octet: u8 = address.split('.').nth(2).unwrap().parse().unwrap();
    octet & 0x80 != 0 || octet & 0x0f >= 8
}

#[tokio::test]
async fn an_address_stays_the_same_after_a_restart() {
    let app = TestApp::new("address").await;
    let release = app.release([("a", app.idle()), ("b", app.idle())]);
    app.ensure(&release).await.unwrap();
    // At the same time, so that they could take the same address.
    let launched = tokio::join!(app.launch(&release, "a", 3), app.launch(&release, "b", 3));
    assert_eq!((launched.0.unwrap(), launched.1.unwrap()), (Outcome::Created, Outcome::Created));
    let before: Vec<Option<String>> = app.instances().await.into_iter().map(|each| each.address).collect();
    assert_eq!(before.iter().flatten().collect::<BTreeSet<_>>().len(), 6, "all different: {before:?}");
    assert!(before.iter().flatten().all(|address| upper_half(address)), "{before:?}");
    // In the opposite order, in which the engine would give out others.
    for instance in app.instances().await.iter().rev() {
        app.docker.restart_container(instance.id.as_str(), None::<RestartContainerOptions>).await.unwrap();
    }
    let after: Vec<Option<String>> = app.instances().await.into_iter().map(|each| each.address).collect();
    assert_eq!(after, before);
}

#[tokio::test]
async fn services_that_listen_leave_their_name_to_the_proxy() {
    let app = TestApp::new("alias").await;
    let mut quiet = app.idle();
    quiet.workload.networks =
        [("default".into(), NetworkAttachment::default()), ("back".into(), NetworkAttachment::with_aliases(["jobs"]))]
            .into();
    let release = app.release([("web", app.idle().with_port(80)), ("worker", quiet)]);
    app.run(&release, "web", 1).await;
    app.launch(&release, "worker", 1).await.unwrap();
    let mut aliases: HashMap<String, Vec<String>> = HashMap::new();
    for instance in app.instances().await {
        let networks = app.inspect(instance.id.as_str()).await.network_settings.unwrap().networks.unwrap();
        for (network, endpoint) in networks {
            let key = network.strip_prefix(&format!("{}_", app.name)).unwrap().to_owned();
            // The engine adds the beginning of the container's id.
            let names = endpoint.aliases.unwrap_or_default();
            let names = names.into_iter().filter(|name| !instance.id.as_str().starts_with(name.as_str()));
            aliases.insert(format!("{} {key}", instance.revision.service()), names.collect());
        }
    }
    let expected: [(&str, &[&str]); 3] =
        [("web default", &[]), ("worker default", &["worker"]), ("worker back", &["worker", "jobs"])];
    let expected = expected.map(|(key, names)| (key.to_owned(), names.iter().map(|name| (*name).to_owned()).collect()));
    assert_eq!(aliases, HashMap::from(expected));
}

#[tokio::test]
async fn a_network_that_was_there_is_taken_as_it_is() {
    let app = TestApp::new("adopt").await;
    let network = NetworkCreateRequest {
        name: format!("{}_default", app.name),
        labels: Some([("com.docker.compose.project".to_owned(), app.name.to_string())].into()),
        ..Default::default()
    };
    let id = app.docker.create_network(network).await.unwrap().id;
    let release = app.release([("web", app.idle())]);
    app.run(&release, "web", 1).await;
    let web = app.instances().await.remove(0);
    assert!(web.is_ready() && web.address.is_some());
    let networks = app.inspect(web.id.as_str()).await.network_settings.unwrap().networks.unwrap();
    assert_eq!(networks[&format!("{}_default", app.name)].network_id.as_ref(), Some(&id));
}

#[tokio::test]
async fn a_leftover_of_a_network_that_was_made_anew_is_made_anew() {
    let app = TestApp::new("stale").await;
    let release = app.release([("web", app.idle())]);
    app.run(&release, "web", 1).await;
    let web = app.instances().await.remove(0);
    app.docker.stop_container(web.id.as_str(), None::<bollard::query_parameters::StopContainerOptions>).await.unwrap();
    app.docker.remove_network(&format!("{}_default", app.name)).await.unwrap();
    app.run(&release, "web", 1).await;
    let anew = app.instances().await.remove(0);
    assert!(anew.is_ready());
    assert_ne!(anew.id, web.id);
}
