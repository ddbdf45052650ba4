//! What a test leaves on the engine, and its removal.

use std::collections::HashMap;

use bollard::Docker;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptions, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptions, RemoveVolumeOptionsBuilder,
};

/// What there is of an application and its ingress on the engine, by name.
pub(crate) struct Left {
    pub(crate) containers: Vec<String>,
    pub(crate) networks: Vec<String>,
    pub(crate) volumes: Vec<String>,
    pub(crate) images: Vec<String>,
}

impl Left {
    pub(crate) async fn of(docker: &Docker, app: &str, ingress: &str) -> Self {
        let filter = |label: &str| HashMap::from([("label".to_owned(), vec![format!("{label}={app}")])]);
        let mut left = Self { containers: Vec::new(), networks: Vec::new(), volumes: Vec::new(), images: Vec::new() };
        let named = HashMap::from([("name".to_owned(), vec![format!("^/{ingress}$")])]);
        for filter in [filter("deployer.app"), filter("com.docker.compose.project"), named] {
            let all = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
            let found = docker.list_containers(Some(all)).await.unwrap();
            left.containers.extend(found.into_iter().map(|container| container.names.unwrap_or_default().concat()));
        }
        for filter in [filter("deployer.app"), filter("com.docker.compose.project")] {
            let all = ListNetworksOptionsBuilder::default().filters(&filter).build();
            let found = docker.list_networks(Some(all)).await.unwrap();
            left.networks.extend(found.into_iter().filter_map(|network| network.name));
            let all = ListVolumesOptionsBuilder::default().filters(&filter).build();
            let found = docker.list_volumes(Some(all)).await.unwrap().volumes.unwrap_or_default();
            left.volumes.extend(found.into_iter().map(|volume| volume.name));
        }
        let prefix = format!("deployer/{app}/");
        let images = docker.list_images(None::<ListImagesOptions>).await.unwrap();
        let tags = images.into_iter().flat_map(|image| image.repo_tags);
        left.images.extend(tags.filter(|tag| tag.starts_with(&prefix)));
        for names in [&mut left.containers, &mut left.networks, &mut left.volumes] {
            names.sort();
            names.dedup();
        }
        left
    }

    /// All of it.
    pub(crate) fn names(&self) -> Vec<String> {
        [&self.containers, &self.networks, &self.volumes, &self.images].into_iter().flatten().cloned().collect()
    }

    pub(crate) async fn remove(self, docker: &Docker) {
        for name in self.containers {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            let _ = docker.remove_container(name.trim_start_matches('/'), Some(options)).await;
        }
        for name in self.networks {
            let _ = docker.remove_network(&name).await;
        }
        for name in self.volumes {
            let options = RemoveVolumeOptionsBuilder::default().force(true).build();
            let _ = docker.remove_volume(&name, Some(options)).await;
        }
        for name in self.images {
            let _ = docker.remove_image(&name, None::<RemoveImageOptions>, None).await;
        }
    }
}
