//! The table itself.

use std::time::Duration;

use aws_sdk_dynamodb::client::Waiters as _;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, PointInTimeRecoverySpecification, ScalarAttributeType,
    Tag,
};
use deployer_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep};

use super::DynamoStore;
use super::failure::{code, complete, failed};

/// How long a new table may take to be there.
const MAKING: Duration = Duration::from_secs(120);
/// How long until backups are tried again.
const PAUSE: Duration = Duration::from_secs(2);

impl DynamoStore {
    /// Makes the table unless it is there, billed by request, and turns point-in-time recovery on. Repeating it changes
    /// nothing.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if there is a table of this name with other keys; what DynamoDB refuses.
    pub async fn ensure_table(&self) -> Result<()> {
        let attribute =
            |name| AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build();
        let key = |name, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
        let create = self
            .client
            .create_table()
            .table_name(&self.table)
            .billing_mode(BillingMode::PayPerRequest)
            .attribute_definitions(attribute("pk").unwrap_or_else(complete))
            .attribute_definitions(attribute("sk").unwrap_or_else(complete))
            .key_schema(key("pk", KeyType::Hash).unwrap_or_else(complete))
            .key_schema(key("sk", KeyType::Range).unwrap_or_else(complete))
            .tags(Tag::builder().key("managed-by").value("deployer").build().unwrap_or_else(complete));
        match create.send().await {
            Ok(_) => {}
            Err(error) if code(&error) == Some("ResourceInUseException") => {}
            Err(error) => return Err(failed("dynamodb:CreateTable", &self.table, error)),
        }
        let wait = self.client.wait_until_table_exists().table_name(&self.table).wait(MAKING);
        let found = wait.await.map_err(|error| {
            Error::new(ErrorKind::Timeout, "the table is not there in time")
                .with_resource(format!("table {}", self.table))
                .with_context("reason", DisplayErrorContext(&error).to_string())
        })?;
        let described = found.into_result().map_err(|error| failed("dynamodb:DescribeTable", &self.table, error))?;
        let keys = described.table.and_then(|table| table.key_schema).unwrap_or_default();
        let names: Vec<&str> = keys.iter().map(KeySchemaElement::attribute_name).collect();
        if names != ["pk", "sk"] {
            return Err(Error::new(ErrorKind::Conflict, "there is another table of this name")
                .with_resource(format!("table {}", self.table))
                .with_context("its keys", names.join(", "))
                .with_help("name another table"));
        }
        let recovery = PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true).build();
        let recovery = recovery.unwrap_or_else(complete);
        let update = self.client.update_continuous_backups().table_name(&self.table);
        let update = update.point_in_time_recovery_specification(recovery);
        let begun = Instant::now();
        loop {
            let Err(error) = update.clone().send().await else { return Ok(()) };
            // A table that was made a moment ago cannot have backups yet.
            let yet = code(&error) == Some("ContinuousBackupsUnavailableException") && begun.elapsed() < MAKING;
            if !yet {
                return Err(failed("dynamodb:UpdateContinuousBackups", &self.table, error));
            }
            sleep(PAUSE).await;
        }
    }
}
