//! The images of the world: what the builder has made and the registry keeps.

use std::collections::{BTreeMap, BTreeSet};

use deployer_core::{AppName, Digest, PinnedImage};

/// Every image that there is or was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Images {
    /// What each reference names now.
    pub(crate) references: BTreeMap<String, Digest>,
    pub(crate) rows: BTreeMap<Digest, ImageRow>,
    /// How often the content behind a reference or a build context has changed.
    pub(crate) generations: BTreeMap<String, u64>,
    /// The services whose builds fail, and how.
    pub(crate) broken_builds: BTreeMap<String, String>,
    pub(crate) missing_contexts: BTreeSet<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct ImageRow {
    pub(crate) reference: String,
    pub(crate) exposed_ports: Vec<u16>,
    /// Whether it can be run: pulled or published, and not lost.
    pub(crate) runnable: bool,
    /// The application that it was published for.
    pub(crate) published_for: Option<AppName>,
}

impl Images {
    /// Adds an image under a reference, or puts new content behind it.
    pub(crate) fn push(&mut self, reference: &str) -> Digest {
        let generation = self.generations.entry(reference.to_owned()).or_default();
        *generation += 1;
        let digest = Digest::of(format!("{reference} #{generation}").as_bytes());
        let row = ImageRow {
            reference: reference.to_owned(),
            exposed_ports: Vec::new(),
            runnable: true,
            published_for: None,
        };
        self.rows.insert(digest.clone(), row);
        self.references.insert(reference.to_owned(), digest.clone());
        digest
    }

    pub(crate) fn digest_of(&self, reference: &str) -> Option<&Digest> {
        match reference.rsplit_once('@') {
            Some((_, digest)) => self.rows.keys().find(|known| known.as_str() == digest),
            None => self.references.get(reference),
        }
    }

    pub(crate) fn pin(&self, reference: &str) -> Option<PinnedImage> {
        let digest = self.digest_of(reference)?;
        let row = self.rows.get(digest).filter(|row| row.runnable)?;
        Some(pinned(reference, digest, row))
    }

    pub(crate) fn can_run(&self, digest: &Digest) -> bool {
        self.rows.get(digest).is_some_and(|row| row.runnable)
    }

    /// Removes what was published for an application and neither is kept nor used.
    pub(crate) fn prune(&mut self, app: &AppName, keep: &BTreeSet<Digest>, used: &BTreeSet<Digest>) -> Vec<String> {
        let mut removed = Vec::new();
        for (digest, row) in &mut self.rows {
            let ours = row.published_for.as_ref() == Some(app);
            if ours && row.runnable && !keep.contains(digest) && !used.contains(digest) {
                row.runnable = false;
                removed.push(format!("{} ({})", row.reference, digest.short()));
            }
        }
        removed
    }
}

pub(crate) fn pinned(reference: &str, digest: &Digest, row: &ImageRow) -> PinnedImage {
    // The name without tag or digest: a colon after the last slash begins a tag, one before it is a registry's port.
    let name = reference.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    PinnedImage::new(reference, format!("{name}@{digest}"), digest.clone())
        .with_exposed_ports(row.exposed_ports.clone())
}
