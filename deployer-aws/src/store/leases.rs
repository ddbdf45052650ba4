//! Leases: in the head of each application, taken and kept by conditional writes.

use deployer_core::{AcquireLease, AppName, Error, ErrorKind, Human, Lease, LeaseHolder, Result, Retry, Timestamp};

use super::failure::Cancelled;
use super::item::{Item, Key, number, number_of, text, text_of, time, time_of};
use super::{ATTEMPTS, DynamoStore};

/// Whether somebody holds the lease, expired or not.
fn is_held(head: &Item) -> bool {
    head.contains_key("owner_id")
}

impl DynamoStore {
    pub(super) async fn acquire(&self, request: AcquireLease) -> Result<Lease> {
        let AcquireLease { app, owner, owner_id, ttl, now, .. } = request;
        let key = Key::app(&app);
        for _ in 0..ATTEMPTS {
            let head = self.item(&key).await?.unwrap_or_default();
            if is_held(&head) {
                let (holder, until) = (text_of(&head, "owner_id")?, time_of(&head, "expires_at")?);
                if until > now && holder != owner_id {
                    return Err(Error::new(ErrorKind::Busy, "another deployment of the application is under way")
                        .with_resource(app.as_str())
                        .with_context("held by", text_of(&head, "owner")?)
                        .with_context("for at most", Human(until.since(now)).to_string())
                        .with_help("wait until it has ended, or cancel it"));
                }
            }
            let (last, expires_at) = (number_of(&head, "fence")?, now + ttl);
            // Nobody else has taken it since it was looked at, and whoever holds it has not renewed it.
            let seen = head.get("expires_at").filter(|_| is_held(&head));
            let condition = match seen {
                _ if last == 0 => "attribute_not_exists(fence)",
                None => "fence = :last AND attribute_not_exists(owner_id)",
                Some(_) => "fence = :last AND expires_at = :seen",
            };
            let taken = self.update(key.clone(), |update| {
                let update = update
                    .update_expression("SET fence = :fence, #owner = :owner, owner_id = :id, expires_at = :until")
                    .expression_attribute_names("#owner", "owner")
                    .expression_attribute_values(":fence", number(last + 1))
                    .expression_attribute_values(":owner", text(&owner))
                    .expression_attribute_values(":id", text(&owner_id))
                    .expression_attribute_values(":until", time(expires_at))
                    .condition_expression(condition);
                if last == 0 {
                    return update;
                }
                let update = update.expression_attribute_values(":last", number(last));
                seen.into_iter().fold(update, |update, seen| update.expression_attribute_values(":seen", seen.clone()))
            });
            if taken.await? {
                return Ok(Lease::new(app, owner_id, last + 1, ttl, expires_at));
            }
        }
        Err(Cancelled::Contention.at_last(&self.table))
    }

    pub(super) async fn renew(&self, lease: &Lease, now: Timestamp) -> Result<Lease> {
        let expires_at = now + lease.ttl;
        let renewed = self.update(Key::app(&lease.app), |update| {
            update
                .update_expression("SET expires_at = :until")
                .condition_expression("fence = :fence AND owner_id = :id")
                .expression_attribute_values(":until", time(expires_at))
                .expression_attribute_values(":fence", number(lease.fence))
                .expression_attribute_values(":id", text(&lease.owner_id))
        });
        if renewed.await? {
            let Lease { app, owner_id, fence, ttl, .. } = lease.clone();
            return Ok(Lease::new(app, owner_id, fence, ttl, expires_at));
        }
        self.check_fence(&lease.app, lease.fence).await?;
        Err(Error::new(ErrorKind::Conflict, "the lease was given back")
            .with_resource(lease.app.as_str())
            .with_retry(Retry::Never))
    }

    pub(super) async fn give_back(&self, lease: &Lease) -> Result<()> {
        let given_back = self.update(Key::app(&lease.app), |update| {
            update
                .update_expression("REMOVE #owner, owner_id, expires_at")
                .expression_attribute_names("#owner", "owner")
                .condition_expression("fence = :fence")
                .expression_attribute_values(":fence", number(lease.fence))
        });
        // Whoever has taken it since keeps it.
        given_back.await.map(drop)
    }

    pub(super) async fn holder(&self, app: &AppName) -> Result<Option<LeaseHolder>> {
        let head = self.item(&Key::app(app)).await?.unwrap_or_default();
        if !is_held(&head) {
            return Ok(None);
        }
        let (owner, fence) = (text_of(&head, "owner")?, number_of(&head, "fence")?);
        // It cannot tell whether a process on some other host lives.
        Ok(Some(LeaseHolder::new(owner, fence, time_of(&head, "expires_at")?, false)))
    }
}
