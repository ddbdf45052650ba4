//! What stands in for an image: the same small program for all, which listens at the ports that are known of it.

use std::collections::BTreeSet;
use std::path::Path;

/// Images by the last part of their name: ports that they declare and listen at.
const IMAGES: &[(&str, &[u16])] = &[
    ("azure-sql-edge", &[1433]),
    ("cloudflared", &[]),
    ("elasticsearch", &[9200, 9300]),
    ("gitea", &[22, 3000]),
    ("grafana", &[3000]),
    ("kibana", &[5601]),
    ("logstash", &[5044, 9600]),
    ("mariadb", &[3306]),
    ("minecraft-server", &[25565]),
    ("mongo", &[27017]),
    ("nextcloud", &[80]),
    ("nginx", &[80]),
    ("pgadmin4", &[80]),
    ("pihole", &[53, 80]),
    ("plex", &[32400]),
    ("portainer-ce", &[8000, 9000, 9443]),
    ("postgres", &[5432]),
    ("prometheus", &[9090]),
    ("redis", &[6379]),
    ("redismod", &[6379]),
    ("redpanda", &[]),
    ("traefik", &[80]),
    ("wireguard", &[]),
    ("wordpress", &[80]),
];

/// Ports that images declare without listening there.
const UNUSED: &[(&str, &[u16])] = &[("pgadmin4", &[443])];

/// Services that are built: ports that their Dockerfiles declare, and ports at which they listen, beside the published ones.
const BUILT: &[(&str, &str, &[u16], &[u16])] = &[
    ("nginx-aspnet-mysql", "backend", &[], &[8000]),
    ("nginx-flask-mongo", "backend", &[], &[9091]),
    ("nginx-golang", "backend", &[], &[80]),
    ("nginx-golang-mysql", "backend", &[], &[8000]),
    ("nginx-golang-postgres", "backend", &[], &[8000]),
    ("nginx-wsgi-flask", "flask-app", &[5000], &[]),
    ("react-express-mongodb", "backend", &[3000], &[3000]),
    ("react-java-mysql", "backend", &[8080], &[8080]),
    ("react-rust-postgres", "backend", &[8000], &[8000]),
    ("traefik-golang", "backend", &[], &[80]),
];

/// What stands in for one image.
pub(super) struct StandIn {
    /// Ports that the image declares.
    exposes: BTreeSet<u16>,
    /// Ports at which its program listens.
    listens: BTreeSet<u16>,
}

impl StandIn {
    /// For an image with a name, which is published at these ports.
    pub(super) fn of(image: &str, published: impl Iterator<Item = u16>) -> Self {
        let name = image.rsplit('/').next().unwrap_or(image);
        let name = name.split([':', '@']).next().unwrap_or(name);
        let ports =
            |table: &[(&str, &'static [u16])]| table.iter().find(|(known, _)| *known == name).map(|(_, ports)| *ports);
        let known = ports(IMAGES).unwrap_or_else(|| panic!("say where {name} listens"));
        let exposes = known.iter().chain(ports(UNUSED).unwrap_or_default()).copied().collect();
        Self { exposes, listens: known.iter().copied().chain(published).collect() }
    }

    /// For a service that is built.
    pub(super) fn of_built(sample: &str, service: &str, published: impl Iterator<Item = u16>) -> Self {
        let known = BUILT.iter().find(|(of, name, ..)| (*of, *name) == (sample, service));
        let (exposes, listens) = known.map_or((&[][..], &[][..]), |(.., exposes, listens)| (exposes, listens));
        let listens = listens.iter().copied().chain(published).collect();
        Self { exposes: exposes.iter().copied().collect(), listens }
    }

    pub(super) fn listens(&self) -> impl Iterator<Item = u16> {
        self.listens.iter().copied()
    }

    /// How it is built, for a Compose file.
    pub(super) fn build(&self) -> String {
        let list = |ports: &BTreeSet<u16>| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
        let context = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standin");
        let (listens, exposes) = (list(&self.listens), list(&self.exposes));
        if exposes.is_empty() {
            format!("{{ context: {context:?}, target: silent, args: {{ LISTENS: \"{listens}\" }} }}")
        } else {
            let args = format!("LISTENS: \"{listens}\", EXPOSES: \"{exposes}\"");
            format!("{{ context: {context:?}, target: exposed, args: {{ {args} }} }}")
        }
    }
}
