//! Stores in tables of their own.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use deployer_aws::DynamoStore;
use deployer_core::{DeploymentId, ReleaseStore};
use deployer_testkit::conformance::{CaseFailure, CaseResult, Need, Profile, StoreBench};

use crate::config;

#[derive(Debug)]
pub(crate) struct Dynamo;

fn failed(error: impl std::error::Error) -> CaseFailure {
    let error = aws_sdk_dynamodb::error::DisplayErrorContext(error).to_string();
    CaseFailure::from(format!("the emulator does not answer as it should (scripts/aws-emulator starts it): {error}"))
}

#[async_trait]
impl StoreBench for Dynamo {
    fn profile(&self) -> Profile {
        Profile::new("dynamodb").lacking(Need::OwnerDeath, "it cannot tell whether a process on another host lives")
    }

    async fn place(&self) -> CaseResult<String> {
        let table = format!("deployer-conf-{}", DeploymentId::fresh());
        DynamoStore::new(&config(), &table).ensure_table().await?;
        Ok(table)
    }

    async fn open(&self, place: &str) -> CaseResult<Arc<dyn ReleaseStore>> {
        Ok(Arc::new(DynamoStore::new(&config(), place)))
    }

    async fn damage(&self, place: &str, deployment: &DeploymentId, seq: u64) -> CaseResult {
        let client = Client::new(&config());
        let pk = AttributeValue::S(format!("deployment#{deployment}"));
        let found = client
            .query()
            .table_name(place)
            .key_condition_expression("pk = :pk AND begins_with(sk, :sk)")
            .expression_attribute_values(":pk", pk)
            .expression_attribute_values(":sk", AttributeValue::S("entries#".to_owned()))
            .send()
            .await
            .map_err(failed)?;
        for mut item in found.items.unwrap_or_default() {
            let first: u64 = item["first"].as_n().unwrap().parse().unwrap();
            let Some(AttributeValue::L(entries)) = item.get_mut("entries") else { continue };
            let index = seq.checked_sub(first).and_then(|index| usize::try_from(index).ok());
            if let Some(entry) = index.and_then(|index| entries.get_mut(index)) {
                *entry = AttributeValue::S("nonsense".to_owned());
                client.put_item().table_name(place).set_item(Some(item)).send().await.map_err(failed)?;
                return Ok(());
            }
        }
        Err("there is no such entry to be damaged".into())
    }

    async fn examine(&self, place: &str) -> CaseResult {
        let client = Client::new(&config());
        let all = client.scan().table_name(place).send().await.map_err(failed)?;
        // Every journal has as many entries as its head says.
        for head in all.items().iter().filter(|item| item.contains_key("last_seq")) {
            let pk = head["pk"].as_s().unwrap();
            let of_journal = all.items().iter().filter(|item| item["pk"].as_s().unwrap() == pk);
            let listed = of_journal.filter_map(|item| item.get("entries")).map(|list| list.as_l().unwrap().len());
            let (entries, last) = (listed.sum::<usize>(), head["last_seq"].as_n().unwrap());
            if entries.to_string() != *last {
                return Err(format!("{pk} has {entries} entries and says {last}").into());
            }
        }
        Ok(())
    }

    async fn remove(&self, place: &str) -> CaseResult {
        Client::new(&config()).delete_table().table_name(place).send().await.map(drop).map_err(failed)
    }
}
