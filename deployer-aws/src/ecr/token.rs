//! The authorization with which images are pushed.

use aws_sdk_ecr::Client;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use deployer_core::{Clock as _, Error, ErrorKind, Result, SystemClock, Timestamp};
use std::time::Duration;

use super::EcrRegistry;
use crate::failure::failed;

/// How long before it ends a token is not used any more: a push may take a while.
const RENEWED: Duration = Duration::from_secs(3_600);

/// A token of ECR, and where the account's registry is. It does not print.
pub(super) struct Token {
    password: String,
    ends: Timestamp,
    /// The registry's host.
    pub(super) host: String,
}

impl EcrRegistry {
    /// What the engine logs in with, and the registry's host; asked for anew before it ends.
    pub(super) async fn login(&self) -> Result<(DockerCredentials, String)> {
        let mut token = self.0.token.lock().await;
        let fresh = token.as_ref().filter(|token| SystemClock.now() + RENEWED < token.ends);
        if fresh.is_none() {
            *token = Some(ask(&self.0.client).await?);
        }
        let token = token.as_ref().ok_or_else(|| Error::new(ErrorKind::Internal, "there is no token"))?;
        let host = self.0.options.host.clone().unwrap_or_else(|| token.host.clone());
        let credentials = DockerCredentials {
            username: Some("AWS".to_owned()),
            password: Some(token.password.clone()),
            serveraddress: Some(host.clone()),
            ..DockerCredentials::default()
        };
        Ok((credentials, host))
    }
}

async fn ask(client: &Client) -> Result<Token> {
    let answer = client.get_authorization_token().send().await;
    let answer = answer.map_err(|error| failed("ecr:GetAuthorizationToken", "registry", error))?;
    let nonsense = || Error::new(ErrorKind::Unavailable, "ECR's authorization token makes no sense");
    let data = answer.authorization_data().first().ok_or_else(nonsense)?;
    let decoded = STANDARD.decode(data.authorization_token().unwrap_or_default()).map_err(|_| nonsense())?;
    let pair = String::from_utf8(decoded).map_err(|_| nonsense())?;
    let (_, password) = pair.split_once(':').ok_or_else(nonsense)?;
    let host = data.proxy_endpoint().unwrap_or_default();
    let host = host.split_once("://").map_or(host, |(_, host)| host).trim_end_matches('/');
    // Half a day, if it does not say.
    let ends = data.expires_at().and_then(|at| at.to_millis().ok()).map(Timestamp::from_millis);
    let ends = ends.unwrap_or_else(|| SystemClock.now() + Duration::from_secs(12 * 3_600));
    Ok(Token { password: password.to_owned(), ends, host: host.to_owned() })
}
