//! Fences and leases.

use std::path::PathBuf;

use deployer_core::{AcquireLease, Error, ErrorKind, Human, Lease, LeaseHolder, Result, Retry, Timestamp};
use serde::{Deserialize, Serialize};

use super::Books;
use crate::failure::io;
use crate::files::{self, Durable};

/// What stays when everything else of an application is forgotten.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Page {
    /// The version of this stored form.
    format: u16,
    /// The last fence granted. Only rises.
    fence: u64,
    /// The last release number given. Only rises.
    pub(super) last_release: u64,
    lease: Option<Held>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Held {
    owner: String,
    owner_id: String,
    expires_at: Timestamp,
}

const FORMAT: u16 = 1;

impl Books {
    pub(super) fn page(&self) -> Result<Page> {
        let page: Page =
            files::read(&self.page_file()).map_err(io("read the application's books"))?.unwrap_or_default();
        if page.format > FORMAT {
            return Err(Error::new(ErrorKind::Corrupt, "a newer program has written the application's books"));
        }
        Ok(page)
    }

    pub(super) fn write(&self, mut page: Page) -> Result<()> {
        page.format = FORMAT;
        files::replace(&self.page_file(), &page, Durable::Yes).map_err(io("write the application's books"))
    }

    fn page_file(&self) -> PathBuf {
        self.directory.join("books.json")
    }

    /// Refuses a write under any fence but the last one granted, whether or not its lease has expired: an expired one
    /// that nobody has taken still has a single writer.
    pub(super) fn check_fence(&self, fence: u64) -> Result<Page> {
        let page = self.page()?;
        if page.fence == fence && fence > 0 {
            return Ok(page);
        }
        Err(Error::new(ErrorKind::Conflict, "the lease that allowed this write is not the last one granted")
            .with_resource(self.app.as_str())
            .with_context("fence", fence.to_string())
            .with_context("last granted", page.fence.to_string())
            .with_retry(Retry::Never))
    }

    pub(super) fn acquire(&self, request: AcquireLease) -> Result<Lease> {
        let AcquireLease { app, owner, owner_id, ttl, now, .. } = request;
        let mut page = self.page()?;
        if let Some(held) = &page.lease
            && held.owner_id != owner_id
            && held.expires_at > now
            && !self.owners().is_dead(&held.owner_id).map_err(io("look whether the holder lives"))?
        {
            return Err(Error::new(ErrorKind::Busy, "another deployment of the application is under way")
                .with_resource(app.as_str())
                .with_context("holder", held.owner.clone())
                .with_context("lease ends in", Human(held.expires_at.since(now)).to_string())
                .with_help("wait until it has ended, or cancel it"));
        }
        self.owners().hold(&owner_id).map_err(io("show that the holder lives"))?;
        let (fence, expires_at) = (page.fence + 1, now + ttl);
        page.fence = fence;
        page.lease = Some(Held { owner, owner_id: owner_id.clone(), expires_at });
        self.write(page)?;
        Ok(Lease::new(app, owner_id, fence, ttl, expires_at))
    }

    pub(super) fn renew(&self, lease: Lease, now: Timestamp) -> Result<Lease> {
        let mut page = self.check_fence(lease.fence)?;
        let expires_at = now + lease.ttl;
        match &mut page.lease {
            Some(held) if held.owner_id == lease.owner_id => held.expires_at = expires_at,
            _ => {
                return Err(Error::new(ErrorKind::Conflict, "the lease was given back")
                    .with_resource(lease.app.as_str())
                    .with_retry(Retry::Never));
            }
        }
        self.owners().hold(&lease.owner_id).map_err(io("show that the holder lives"))?;
        self.write(page)?;
        Ok(Lease::new(lease.app, lease.owner_id, lease.fence, lease.ttl, expires_at))
    }

    pub(super) fn give_back(&self, lease: &Lease) -> Result<()> {
        let mut page = self.page()?;
        if page.fence != lease.fence || page.lease.as_ref().is_none_or(|held| held.owner_id != lease.owner_id) {
            return Ok(());
        }
        page.lease = None;
        self.write(page)?;
        self.owners().let_go(&lease.owner_id);
        Ok(())
    }

    pub(super) fn holder(&self) -> Result<Option<LeaseHolder>> {
        let page = self.page()?;
        let Some(held) = page.lease else { return Ok(None) };
        let dead = self.owners().is_dead(&held.owner_id).map_err(io("look whether the holder lives"))?;
        Ok(Some(LeaseHolder::new(held.owner, page.fence, held.expires_at, dead)))
    }
}
