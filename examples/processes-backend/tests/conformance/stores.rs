//! The store by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use deployer_core::{DeploymentId, ReleaseStore};
use deployer_testkit::conformance::{CaseResult, Profile, StoreBench};
use processes_backend::FileStore;

/// Hands out stores in directories of their own.
#[derive(Debug)]
pub(crate) struct Stores;

#[async_trait]
impl StoreBench for Stores {
    fn profile(&self) -> Profile {
        Profile::new("files")
    }

    async fn place(&self) -> CaseResult<String> {
        Ok(tempfile::Builder::new().prefix("store-").tempdir()?.keep().display().to_string())
    }

    async fn open(&self, place: &str) -> CaseResult<Arc<dyn ReleaseStore>> {
        Ok(Arc::new(FileStore::new(place)))
    }

    async fn damage(&self, place: &str, deployment: &DeploymentId, seq: u64) -> CaseResult {
        let file = journals(place)?.into_iter().find(|file| file.ends_with(format!("{deployment}.jsonl")));
        let file = file.ok_or("there is no such journal")?;
        let text = std::fs::read_to_string(&file)?;
        let whole = format!("\"seq\":{seq},");
        if !text.contains(&whole) {
            return Err(format!("the journal has no entry {seq}").into());
        }
        Ok(std::fs::write(file, text.replace(&whole, "\"seq\":\"?\","))?)
    }

    async fn examine(&self, place: &str) -> CaseResult {
        for file in journals(place)? {
            let text = std::fs::read_to_string(&file)?;
            // What comes after the last line end was never promised.
            for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                let line: serde_json::Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
                let last = line["entries"].as_array().and_then(|entries| entries.last()).map(|entry| &entry["seq"]);
                if last.is_some_and(|last| *last != line["record"]["last_seq"]) {
                    return Err(format!("a record and its entries are not of one append: {line}").into());
                }
            }
        }
        Ok(())
    }

    async fn remove(&self, place: &str) -> CaseResult {
        Ok(std::fs::remove_dir_all(place)?)
    }
}

/// The journals' files.
fn journals(place: &str) -> CaseResult<Vec<PathBuf>> {
    let mut files = Vec::new();
    for app in std::fs::read_dir(place)? {
        let directory: &Path = &app?.path().join("journals");
        if directory.is_dir() {
            for file in std::fs::read_dir(directory)? {
                files.push(file?.path());
            }
        }
    }
    Ok(files)
}
